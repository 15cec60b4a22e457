//! Too many of something.

use crate::client::{Client, End, get};
use crate::harness::{Ringway, config_of, eventually, millis, on_both_drivers, run, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{CONNECTIONS, STATUS, set};
use serde_json::json;
use std::net::TcpStream;
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

fn open(ringway: &Ringway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", ringway.pid())).expect("descriptors").count()
}

on_both_drivers! {
    fn a_full_descriptor_table_recovers(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::start_with(driver, config_of(&[&origin]), |c| descriptors(c, 260));
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

    fn operators_are_heard_when_no_descriptor_is_left(driver) {
        let origin = Origin::saying("ok");
        let status = crate::harness::free_address();
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, STATUS, status.to_string()));
        let few = open(&ringway) as u64 + 20;
        let limit = libc::rlimit { rlim_cur: few, rlim_max: 4096 };
        let lowered = unsafe { libc::prlimit(ringway.pid(), libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) };
        assert_eq!(lowered, 0);
        let mut clients: Vec<Client> = (0..60).map(|_| Client::to(&ringway)).collect();
        for client in &mut clients { let _ = client.try_send("GET / HT"); }
        let failures = || ringway.status()["counters"]["accept_failures"].as_u64().expect("a number");
        eventually(seconds(5), "no descriptor is left", || failures() > 0);
        for _ in 0..20 {
            assert!(failures() > 0);
            let mut probe = Client::over(Box::new(TcpStream::connect(status).expect("it listens")));
            probe.send("GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            assert_eq!(probe.response().status, 200);
        }
        drop(clients);
        eventually(seconds(5), "it serves again", || {
            let mut client = Client::to(&ringway);
            client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok()
                && client.rest(millis(800)).0.starts_with(b"HTTP/1.1 200")
        });
    }

    fn connections_are_limited(driver) {
        let origin = Origin::new(|c| c.serve(|_| {
            std::thread::sleep(seconds(3));
            Some(ok("slow"))
        }));
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CONNECTIONS, 10));
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..12 {
            let mut client = Client::to(&ringway);
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            clients.push(client);
            std::thread::sleep(millis(30));
        }
        std::thread::sleep(seconds(1));
        assert_eq!(origin.requests().len(), 10, "busy connections are within the limit");
        // Those beyond it wait in the kernel's queue and are served in their turn.
        for client in &mut clients { assert_eq!(client.response().text(), "slow"); }
    }

    fn idle_connections_make_room(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CONNECTIONS, 10));
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..14 {
            let mut client = Client::to(&ringway);
            assert_eq!(client.get("/").status, 200);
            clients.push(client);
        }
        // Age is counted in ticks, so which of the old ones went is not for sure.
        let ends: Vec<End> = clients[..13].iter_mut().map(|c| c.rest(millis(50)).1).collect();
        assert!(ends.iter().filter(|e| **e == End::Fin).count() >= 4, "{ends:?}");
        assert!(!ends.contains(&End::Reset), "{ends:?}");
        assert_eq!(clients[13].get("/").status, 200);
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
