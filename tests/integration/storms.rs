//! Much at once: more than one ring has entries and more than one turn may do. Afterwards nothing is left of it. The same at
//! full size, and more of its kind, is tests/evidence/storms.py.

use crate::client::Client;
use crate::harness::{Ringway, eventually, on_both_drivers, seconds};
use crate::origin::Origin;
use crate::settings::{CLIENT_HEAD, QUEUE_MAX, set};
use serde_json::{Value, json};

/// Above the 1,024 submission entries of a ring, on one core.
const STORM: usize = 1500;
/// Levels of a core that a storm has to leave as they were.
const LEVELS: [&str; 6] = ["connections", "idle", "busy", "buffers", "pipes", "pooled"];

fn level(ringway: &Ringway, name: &str) -> u64 {
    let workers = &ringway.status()["workers"];
    workers.as_array().expect("workers").iter().map(|w| w[name].as_u64().expect("a level")).sum()
}

/// Descriptors before the storm: once the core runs, and without its one connection to the origin.
fn settled(ringway: &Ringway) -> usize {
    assert_eq!(Client::to(ringway).get("/").status, 200);
    descriptors(ringway) - 1
}

fn descriptors(ringway: &Ringway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", ringway.pid())).expect("proc fd").count()
}

/// Everything is as at the start, nobody's session panicked, and a new client is served.
fn nothing_is_left(ringway: &Ringway, descriptors_before: usize) {
    for name in LEVELS {
        eventually(seconds(20), &format!("no {name} are left"), || level(ringway, name) == 0);
    }
    eventually(seconds(5), "all descriptors are closed", || descriptors(ringway) <= descriptors_before);
    let status = ringway.status();
    assert_eq!(status["counters"]["panics"], 0);
    let queued = status["clusters"]["app"]["queued"].as_u64();
    assert_eq!(queued, Some(0), "{:#}", status["clusters"]);
    assert_eq!(Client::to(ringway).get("/").status, 200);
}

/// Stops the process while this happens, so that all of it comes at once.
fn at_once(ringway: &Ringway, what: impl FnOnce()) {
    ringway.signal(libc::SIGSTOP);
    what();
    ringway.signal(libc::SIGCONT);
}

fn on_one_core(config: &mut Value) {
    config["workers"] = json!(1);
}

on_both_drivers! {
    fn more_deadlines_in_a_tick_than_a_ring_has_entries(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| { on_one_core(c); set(c, CLIENT_HEAD, "3s") });
        let before = settled(&ringway);
        let mut clients: Vec<Client> = (0..STORM).map(|_| Client::to(&ringway)).collect();
        at_once(&ringway, || clients.iter_mut().for_each(|client| { client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Par"); }));
        eventually(seconds(5), "all of them are busy", || level(&ringway, "busy") == STORM as u64);
        for client in &mut clients {
            assert_eq!(client.response().status, 408);
        }
        drop(clients);
        nothing_is_left(&ringway, before);
    }

    fn more_resets_in_a_turn_than_a_ring_has_entries(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| {
            on_one_core(c);
            set(c, QUEUE_MAX, 2 * STORM);
        });
        let before = settled(&ringway);
        // Half of them wait for their turn, the others for their first request.
        assert!(ringway.ctl(&["pause", "app"]).status.success());
        let mut clients: Vec<Client> = (0..STORM).map(|_| Client::to(&ringway)).collect();
        clients.iter_mut().step_by(2).for_each(|client| { client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); });
        eventually(seconds(5), "half of them wait", || level(&ringway, "busy") == STORM as u64 / 2);
        at_once(&ringway, || clients.into_iter().for_each(Client::reset));
        eventually(seconds(20), "all of them are gone", || level(&ringway, "connections") == 0);
        assert!(ringway.ctl(&["resume", "app"]).status.success());
        assert_eq!(origin.requests().len(), 1, "nobody waits for these any more");
        nothing_is_left(&ringway, before);
    }
}
