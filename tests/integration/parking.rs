//! So many connections that idle ones are parked.

use crate::client::{Client, End};
use crate::harness::{Driver, Ringway, config_of, eventually, millis, on_both_drivers, seconds};
use crate::origin::Origin;
use crate::settings::{CLIENT_HEAD, CLIENT_IDLE, CONNECTIONS, DRAIN, set};
use serde_json::Value;

const MANY: usize = ringway::limits::PARK_FROM + 200;

/// Idle connections of the one worker.
fn idle(ringway: &Ringway) -> u64 {
    let status = ringway.status();
    status["counters"]["idle"].as_u64().unwrap_or_else(|| panic!("no idle in {status}"))
}

fn crowd(ringway: &Ringway) -> Vec<Client> {
    ringway::worker::net::machine::raise_nofile().expect("more descriptors");
    let mut clients: Vec<Client> = Vec::new();
    for i in 0..MANY {
        let mut client = Client::to(ringway);
        // Every other one is parked before its first request.
        if i % 2 == 0 {
            assert_eq!(client.get("/first").text(), "ok");
        }
        clients.push(client);
    }
    eventually(seconds(5), "all are idle", || idle(ringway) == MANY as u64);
    clients
}

fn is_closed_within(client: &mut Client, time: std::time::Duration) -> bool {
    client.rest(time).1 != End::StillOpen
}

fn start(driver: Driver, change: impl FnOnce(&mut Value)) -> (Origin, Ringway) {
    let origin = Origin::saying("ok");
    let mut config = config_of(&[&origin]);
    // On a busy machine the crowd takes its time to come.
    set(&mut config, CLIENT_HEAD, "60s");
    change(&mut config);
    let ringway = Ringway::start(driver, config);
    (origin, ringway)
}

on_both_drivers! {
    fn a_parked_connection_serves_again_and_again(driver) {
        let (origin, ringway) = start(driver, |_| ());
        let mut clients = crowd(&ringway);
        for round in 0..3 {
            for (i, client) in clients.iter_mut().enumerate() {
                let one = format!("GET /{round}/{i} HTTP/1.1\r\nHost: a\r\n\r\n");
                // A head in two pieces, and pipelined requests: the first byte takes the connection up.
                let two = one.repeat(1 + i % 3);
                let at = i % two.len();
                client.send(&two[..at]);
                client.send(&two[at..]);
            }
            for (i, client) in clients.iter_mut().enumerate() {
                for _ in 0..=i % 3 {
                    assert_eq!(client.response().text(), "ok", "{i}");
                }
            }
        }
        eventually(seconds(5), "all are idle", || idle(&ringway) == MANY as u64);
        assert_eq!(origin.requests().len(), 3 * (0..MANY).map(|i| 1 + i % 3).sum::<usize>() + MANY.div_ceil(2));
        // Clients that leave are noticed.
        clients.truncate(100);
        eventually(seconds(5), "the others have left", || idle(&ringway) == 100);
    }

    fn parked_connections_have_their_deadline(driver) {
        let (_origin, ringway) = start(driver, |c| set(c, CLIENT_IDLE, "6s"));
        let mut clients: Vec<Client> = crowd(&ringway).into_iter().step_by(2).collect();
        for client in &mut clients {
            assert_eq!(client.rest(seconds(12)), (Vec::new(), End::Fin));
        }
        let mut late = Client::to(&ringway);
        assert_eq!(late.get("/").status, 200);
    }

    fn parked_connections_make_room(driver) {
        let (_origin, ringway) = start(driver, |c| set(c, CONNECTIONS, MANY as u64 + 1));
        let mut clients = crowd(&ringway);
        let mut late: Vec<Client> = (0..20).map(|_| Client::to(&ringway)).collect();
        for client in &mut late {
            assert_eq!(client.get("/").text(), "ok");
        }
        assert!(idle(&ringway) <= MANY as u64 + 1);
        let closed = clients.iter_mut().map(|client| is_closed_within(client, millis(3))).filter(|closed| *closed).count();
        // As many as came, and at most a batch more.
        assert!((19..60).contains(&closed), "{closed}");
    }

    fn a_drain_ends_parked_connections(driver) {
        let (_origin, mut ringway) = start(driver, |c| set(c, DRAIN, "4s"));
        let mut clients = crowd(&ringway);
        ringway.signal(libc::SIGTERM);
        std::thread::sleep(millis(300));
        // In the first half of the time they are served, and told that it ends.
        let last = clients[0].get("/");
        assert!(last.text() == "ok" && last.says_close());
        assert!(ringway.wait(seconds(6)).success());
        assert!(clients.iter_mut().all(|client| is_closed_within(client, seconds(1))));
    }
}
