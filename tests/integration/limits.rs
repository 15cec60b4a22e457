//! Too many of something.

use crate::client::{Client, End, get};
use crate::harness::{Ringway, config_of, eventually, millis, on_both_drivers, run, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{CONNECTIONS, set};
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn descriptors(command: &mut Command, n: u64) {
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: n, rlim_max: n };
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
            Ok(())
        });
    }
}

on_both_drivers! {
    fn a_full_descriptor_table_recovers(driver) {
        let origin = Origin::saying("ok");
        let mut config = config_of(&[&origin]);
        set(&mut config, CONNECTIONS, 20);
        let ringway = Ringway::start_with(driver, config, |c| descriptors(c, 160));
        let mut clients: Vec<Client> = (0..200).map(|_| Client::to(&ringway)).collect();
        for client in clients.iter_mut().take(5) {
            let _ = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        std::thread::sleep(millis(500));
        let before = ringway.cpu_ticks();
        std::thread::sleep(seconds(1));
        let spent = ringway.cpu_ticks() - before;
        assert!(spent < 50, "accept spins when descriptors run out: {spent} ticks of 10 ms in 1 s");
        drop(clients);
        eventually(seconds(5), "it serves again", || {
            let mut client = Client::to(&ringway);
            client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok()
                && client.rest(millis(800)).0.starts_with(b"HTTP/1.1 200")
        });
    }

    fn connections_are_limited(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CONNECTIONS, 10));
        let mut clients: Vec<Client> = (0..10).map(|_| Client::to(&ringway)).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").status, 200);
        }
        let mut extra = Client::to(&ringway);
        let _ = extra.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (answer, end) = extra.rest(millis(700));
        let waits = end == End::StillOpen && answer.is_empty();
        assert!(waits || end != End::StillOpen && !answer.starts_with(b"HTTP/1.1 200"), "an eleventh was served");
        assert_eq!(clients[0].get("/").status, 200, "the ten are served on");
        clients.clear();
        eventually(seconds(5), "room again", || {
            let mut client = Client::to(&ringway);
            client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok()
                && client.rest(millis(500)).0.starts_with(b"HTTP/1.1 200")
        });
    }

    fn a_config_that_cannot_fit_is_refused(driver) {
        let origin = Origin::saying("ok");
        let scratch = crate::harness::Scratch::new();
        let mut config = config_of(&[&origin]);
        set(&mut config, CONNECTIONS, 100_000);
        set(&mut config, "listeners", json!({"main": crate::harness::free_address().to_string()}));
        set(&mut config, "workers", 1);
        set(&mut config, "io", driver.key());
        let file = scratch.write("config.json", &config.to_string());
        let mut command = Command::new(crate::harness::binary());
        command.arg("run").arg("--config").arg(file);
        descriptors(&mut command, 256);
        let out = run(command, seconds(5));
        assert!(!out.status.success());
        assert!(!out.stderr.is_empty());
    }

    fn a_thousand_connections(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut clients: Vec<Client> = (0..1000).map(|_| Client::to(&ringway)).collect();
        for client in &mut clients { assert_eq!(client.get("/").status, 200); }
        let before = ringway.cpu_ticks();
        std::thread::sleep(seconds(3));
        let spent = ringway.cpu_ticks() - before;
        assert!(spent <= 15, "{spent} ticks of 10 ms in 3 s with 1,000 idle connections");
        for client in clients.iter_mut().rev() { assert_eq!(client.get("/").status, 200); }
        assert!(origin.connections() < 50, "{} backend connections", origin.connections());
    }

    fn many_at_once(driver) {
        let origin = Origin::new(|c| c.serve(|_| {
            std::thread::sleep(millis(300));
            Some(ok("slow"))
        }));
        let ringway = Ringway::before(driver, &[&origin]);
        let mut clients: Vec<Client> = (0..100).map(|_| Client::to(&ringway)).collect();
        for client in &mut clients { client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); }
        for client in &mut clients { assert_eq!(client.response().text(), "slow"); }
    }

    fn nothing_is_left_open_after_a_storm(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        get(&ringway, "/");
        let open = |ringway: &Ringway| std::fs::read_dir(format!("/proc/{}/fd", ringway.pid())).expect("fds").count();
        let before = open(&ringway);
        for i in 0..300 {
            let mut client = Client::to(&ringway);
            match i % 5 {
                0 => drop(client.get("/")),
                1 => { client.send("GET / HT"); }
                2 => { client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); client.reset(); }
                3 => client.reset(),
                _ => { client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"); client.reset(); }
            }
        }
        eventually(seconds(12), "descriptors are back", || open(&ringway) <= before + 8);
        assert_eq!(get(&ringway, "/").status, 200);
    }
}
