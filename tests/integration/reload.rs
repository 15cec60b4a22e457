//! New configs on a running proxy: applied whole or not at all, without touching a connection.

use crate::client::{Client, get};
use crate::harness::{Ringway, eventually, free_address, lossy, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::set;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn pointing_at(ringway: &Ringway, origin: &Origin) -> Value {
    let mut config = ringway.config.clone();
    set(&mut config, "clusters/app/backends", json!({ "b1": origin.address().to_string() }));
    config
}

/// Reloads through the control socket; its receipt must be good.
fn reload(ringway: &Ringway) {
    let out = ringway.ctl(&["reload"]);
    assert!(out.status.success(), "{} {}", lossy(&out.stdout), lossy(&out.stderr));
}

on_both_drivers! {
    fn hup_moves_traffic(driver) {
        let (old, new) = (Origin::saying("old"), Origin::saying("new"));
        let mut ringway = Ringway::before(driver, &[&old]);
        let mut client = Client::to(&ringway);
        assert_eq!(client.get("/").text(), "old");
        let config = pointing_at(&ringway, &new);
        ringway.write_config(&config);
        ringway.signal(libc::SIGHUP);
        eventually(seconds(5), "the new table", || client.get("/").text() == "new");
        assert!(ringway.is_running());
    }

    fn ctl_reload_is_done_when_it_returns(driver) {
        let (old, new) = (Origin::saying("old"), Origin::saying("new"));
        let mut ringway = Ringway::before(driver, &[&old]);
        let mut client = Client::to(&ringway);
        let generation = ringway.generation();
        for i in 0..5 {
            let (to, name) = if i % 2 == 0 { (&new, "new") } else { (&old, "old") };
            let config = pointing_at(&ringway, to);
            ringway.write_config(&config);
            reload(&ringway);
            assert_eq!(client.get("/").text(), name);
            assert_eq!(get(&ringway, "/").text(), name);
            assert_eq!(ringway.generation(), generation + i + 1);
        }
    }

    fn a_running_exchange_ends_on_its_old_table(driver) {
        let old = Origin::new(|c| c.serve(|_| {
            std::thread::sleep(seconds(1));
            Some(ok("old, late"))
        }));
        let new = Origin::saying("new");
        let mut ringway = Ringway::before(driver, &[&old]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        old.wait_requests(1);
        let config = pointing_at(&ringway, &new);
        ringway.write_config(&config);
        reload(&ringway);
        assert_eq!(client.response().text(), "old, late");
        assert_eq!(client.get("/").text(), "new");
        old.wait_all_closed(seconds(4));
    }

    fn a_bad_file_changes_nothing(driver) {
        let origin = Origin::saying("ok");
        let mut ringway = Ringway::before(driver, &[&origin]);
        let good = ringway.config.clone();
        let generation = ringway.generation();
        let mut dangling = good.clone();
        set(&mut dangling, "routes", json!({ "*": "nowhere" }));
        let mut unknown = good.clone();
        set(&mut unknown, "clusterz", json!({}));
        let mut client = Client::to(&ringway);
        for text in [format!("{dangling}"), format!("{unknown}"), "{ not json".to_string(), String::new()] {
            ringway.scratch.write("config.json", &text);
            let out = ringway.ctl(&["reload"]);
            assert!(!out.status.success(), "{text}");
            assert!(!out.stdout.is_empty() || !out.stderr.is_empty(), "no reason given");
            ringway.signal(libc::SIGHUP);
            std::thread::sleep(millis(100));
            assert_eq!(client.get("/").text(), "ok");
            assert_eq!(get(&ringway, "/").text(), "ok");
        }
        assert_eq!(ringway.generation(), generation);
        ringway.write_config(&good);
        reload(&ringway);
        assert_eq!(ringway.generation(), generation + 1);
    }

    fn what_needs_a_restart_is_refused_by_name(driver) {
        let origin = Origin::saying("ok");
        let mut ringway = Ringway::before(driver, &[&origin]);
        let good = ringway.config.clone();
        let generation = ringway.generation();
        let other = if driver.key() == "epoll" { "uring" } else { "epoll" };
        for (key, value) in [("workers", json!(2)), ("io", json!(other))] {
            let mut config = good.clone();
            set(&mut config, key, value);
            // Something that could be applied, to show that it is not.
            set(&mut config, "routes", json!({ "only.test": "app" }));
            ringway.write_config(&config);
            let out = ringway.ctl(&["reload"]);
            let said = lossy(&out.stdout) + &lossy(&out.stderr);
            assert!(!out.status.success() && said.contains(key), "{key}: {said}");
            assert_eq!(get(&ringway, "/").status, 200);
        }
        assert_eq!(ringway.generation(), generation);
    }

    fn listeners_come_and_go(driver) {
        let origin = Origin::saying("ok");
        let mut ringway = Ringway::before(driver, &[&origin]);
        let second = free_address();
        let mut staying = Client::to(&ringway);
        assert_eq!(staying.get("/").status, 200);
        let one = ringway.config.clone();
        let mut two = one.clone();
        set(&mut two, "listeners/second", json!({ "address": second.to_string() }));
        for _ in 0..3 {
            ringway.write_config(&two);
            reload(&ringway);
            let mut client = Client::at(second);
            assert_eq!(client.get("/").status, 200);
            ringway.write_config(&one);
            reload(&ringway);
            eventually(seconds(3), "the listener is closed", || std::net::TcpStream::connect(second).is_err());
            // A connection that was accepted there is served on, at least to its next answer.
            let _ = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(staying.get("/").status, 200);
        }
    }

    fn a_listener_that_cannot_be_bound_rejects_the_reload(driver) {
        let origin = Origin::saying("ok");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut ringway = Ringway::before(driver, &[&origin]);
        let generation = ringway.generation();
        let mut config = ringway.config.clone();
        set(&mut config, "listeners/second", json!({ "address": taken.local_addr().expect("address").to_string() }));
        set(&mut config, "routes", json!({ "only.test": "app" }));
        ringway.write_config(&config);
        let out = ringway.ctl(&["reload"]);
        let said = lossy(&out.stdout) + &lossy(&out.stderr);
        assert!(!out.status.success() && said.contains("second"), "{said}");
        assert_eq!(get(&ringway, "/").status, 200);
        assert_eq!(ringway.generation(), generation);
    }

    fn health_survives_a_reload(driver) {
        let good = Origin::saying("good");
        let mut ringway = Ringway::start(driver, json!({
            "clusters": {"app": {"backends": {"b1": free_address().to_string(), "b2": good.address().to_string()}}},
            "routes": {"*": "app"},
        }));
        for _ in 0..12 { get(&ringway, "/"); }
        ringway.wait_state("b1", "down", seconds(3));
        let mut config = ringway.config.clone();
        set(&mut config, "routes/extra.test", "app");
        ringway.write_config(&config);
        reload(&ringway);
        assert_eq!(ringway.backend_state("app", "b1"), "down");
    }

    fn pooled_connections_survive_a_reload(driver) {
        let origin = Origin::saying("ok");
        let mut ringway = Ringway::before(driver, &[&origin]);
        get(&ringway, "/");
        let mut config = ringway.config.clone();
        set(&mut config, "routes/extra.test", "app");
        ringway.write_config(&config);
        reload(&ringway);
        get(&ringway, "/");
        assert_eq!(origin.connections(), 1);
    }

    fn thirty_hups_under_load_cost_nothing(driver) {
        let (a, b) = (Origin::saying("ok"), Origin::saying("ok"));
        let mut ringway = Ringway::before(driver, &[&a]);
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let address = ringway.address;
        let threads: Vec<_> = (0..4).map(|_| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut client = Client::at(address);
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/").text(), "ok");
                    assert_eq!(client.post("/", "x").text(), "ok");
                    done.fetch_add(2, Ordering::SeqCst);
                }
            })
        }).collect();
        for i in 0..30 {
            let config = pointing_at(&ringway, if i % 2 == 0 { &b } else { &a });
            ringway.write_config(&config);
            ringway.signal(libc::SIGHUP);
            std::thread::sleep(millis(40));
        }
        stop.store(true, Ordering::SeqCst);
        for thread in threads { thread.join().expect("a client saw an error"); }
        assert!(done.load(Ordering::SeqCst) > 0 && !a.requests().is_empty());
    }
}
