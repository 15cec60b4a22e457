//! Two cores: connections that lie on one of them move to the other one when they make it work, and nobody notices.
//!
//! Apart from tests/integration, and few at a time: a core is hot when it has work all the time, and clients that
//! have to wait for a CPU leave it none.

// What its clients and servers are made of; all of it is used there.
#[allow(dead_code)]
#[path = "../integration"]
mod shared {
    pub mod client;
    pub mod harness;
    pub mod message;
    pub mod origin;
    pub mod settings;
    pub mod toy;
    pub mod toy_server;
}
use shared::{client, harness, message, origin, settings, toy, toy_server};

use crate::client::{Client, End};
use crate::harness::{Driver, Ringway, config_of, eventually, lossy, millis, on_both_drivers, seconds};
use crate::origin::Origin;
use crate::settings::{CONNECTIONS, DRAIN, HEALTH_PATH, set};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Requests sent at once: few calls of a client keep a core at work, also where many others want the CPU.
const DEPTH: usize = 500;

const CHECK: &str = "GET /health HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Of these tests so many run at a time.
const AT_A_TIME: usize = 3;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// A place among those that run.
struct Place;

impl Place {
    fn running() -> MutexGuard<'static, usize> {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait() -> Place {
        let wait = ENDED.wait_while(Place::running(), |running| *running == AT_A_TIME);
        *wait.unwrap_or_else(PoisonError::into_inner) += 1;
        Place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *Place::running() -= 1;
        ENDED.notify_one();
    }
}

fn start(driver: Driver, change: impl FnOnce(&mut Value)) -> (Place, Origin, Ringway) {
    let place = Place::wait();
    let origin = Origin::echo();
    let mut config = config_of(&[&origin]);
    config["workers"] = json!(2);
    config["log"] = json!({ "access": "off" });
    set(&mut config, HEALTH_PATH, "/health");
    change(&mut config);
    let ringway = Ringway::start(driver, config);
    (place, origin, ringway)
}

fn of_workers(ringway: &Ringway, what: &str) -> Vec<u64> {
    let status = ringway.status();
    let workers = status["workers"].as_array().expect("workers");
    workers.iter().map(|worker| worker[what].as_u64().unwrap_or_else(|| panic!("no {what} in {worker}"))).collect()
}

/// So many connections that are all on one core, which it is too. The kernel deals them out; those on the other one are closed
/// again.
fn on_one_core(ringway: &Ringway, many: usize) -> (Vec<Client>, usize) {
    let mut clients: [Vec<Client>; 2] = [Vec::new(), Vec::new()];
    let mut before = of_workers(ringway, "accepted");
    loop {
        let mut client = Client::to(ringway);
        assert_eq!(client.get("/health").status, 200);
        let now = of_workers(ringway, "accepted");
        let core = (0..2).find(|core| now[*core] > before[*core]).expect("it was accepted");
        before = now;
        clients[core].push(client);
        if clients[core].len() == many {
            return (std::mem::take(&mut clients[core]), core);
        }
    }
}

/// Clients at work, each in a thread of its own, until they are told to end.
struct Load {
    ends: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Client>>,
}

impl Load {
    fn new(clients: Vec<Client>, round: impl Fn(&mut Client, u64) + Send + Sync + Clone + 'static) -> Load {
        let (ends, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let serve = |mut client: Client| {
            let (ends, rounds, round) = (ends.clone(), rounds.clone(), round.clone());
            std::thread::spawn(move || {
                let mut n = 0;
                while !ends.load(Ordering::Relaxed) {
                    round(&mut client, n);
                    n += 1;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
                client
            })
        };
        let threads = clients.into_iter().map(serve).collect();
        Load { ends, rounds, threads }
    }

    fn end(self) -> Vec<Client> {
        self.ends.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("no request failed")).collect()
    }
}

/// Health checks, many at once, that Ringway answers itself.
fn checks(client: &mut Client, _: u64) {
    client.send(CHECK.repeat(DEPTH));
    let first = client.response();
    // All are of one length; to read each by itself would be more work than theirs.
    let len = first.head.len() + first.body_raw.len();
    let others = client.raw((DEPTH - 1) * len);
    let is_whole = |one: &[u8]| one.starts_with(b"HTTP/1.1 200 ") && one.ends_with(&first.body_raw);
    assert!(first.status == 200 && others.chunks(len).all(is_whole));
}

/// Requests whose answers tell which one they belong to.
fn echoes(client: &mut Client, round: u64) {
    let body = |n: usize| format!("{round}-{n}-{}", "x".repeat(n * 37 % 900));
    let post = |n: usize| {
        format!("POST /{n} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{}", body(n).len(), body(n))
    };
    client.send((0..8).map(post).collect::<String>());
    for n in 0..8 {
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, body(n)));
    }
}

fn moved(ringway: &Ringway) -> u64 {
    of_workers(ringway, "moved_in").iter().sum()
}

fn until_moved(ringway: &Ringway, at_least: u64) {
    eventually(seconds(30), "connections move", || moved(ringway) >= at_least);
}

on_both_drivers! {
    fn connections_of_a_hot_core_move_and_no_request_fails(driver) {
        let (_place, _origin, ringway) = start(driver, |_| ());
        let (mut clients, hot) = on_one_core(&ringway, 8);
        let echoing = Load::new(clients.split_off(6), echoes);
        let load = Load::new(clients, checks);
        until_moved(&ringway, 2);
        eventually(seconds(20), "both cores have connections and work", || {
            let (connections, loads) = (of_workers(&ringway, "connections"), of_workers(&ringway, "load_permille"));
            connections.iter().all(|n| *n >= 2) && loads.iter().all(|load| *load >= 300)
        });
        let rounds = load.rounds.load(Ordering::Relaxed);
        std::thread::sleep(seconds(1));
        assert!(load.rounds.load(Ordering::Relaxed) > rounds);
        // Whoever has moved is served as before, and so is who has not.
        let mut clients = load.end();
        clients.extend(echoing.end());
        for client in &mut clients {
            echoes(client, 7);
        }
        let [outs, ins] = ["moved_out", "moved_in"].map(|what| of_workers(&ringway, what));
        assert_eq!(outs.iter().sum::<u64>(), ins.iter().sum::<u64>());
        assert!(outs[hot] > outs[1 - hot], "{outs:?}");
        eventually(seconds(5), "each is counted once", || of_workers(&ringway, "connections").iter().sum::<u64>() == 8);
    }

    fn a_single_hot_connection_stays(driver) {
        let (_place, _origin, ringway) = start(driver, |_| ());
        let (clients, hot) = on_one_core(&ringway, 1);
        let load = Load::new(clients, checks);
        eventually(seconds(20), "the core is hot", || of_workers(&ringway, "load_permille")[hot] >= 600);
        std::thread::sleep(seconds(6));
        load.end();
        assert_eq!(moved(&ringway), 0);
    }

    fn newcomers_of_a_hot_core_are_handed_over(driver) {
        let (_place, _origin, ringway) = start(driver, |_| ());
        // One that cannot move keeps the core hot.
        let (clients, hot) = on_one_core(&ringway, 1);
        let load = Load::new(clients, checks);
        eventually(seconds(30), "newcomers are handed over", || {
            for _ in 0..10 {
                let mut client = Client::to(&ringway);
                assert_eq!(client.get("/health").status, 200);
                echoes(&mut client, 1);
            }
            of_workers(&ringway, "handed_out")[hot] >= 5
        });
        load.end();
        eventually(seconds(5), "what was given was taken", || {
            let [outs, ins] = ["handed_out", "handed_in"].map(|what| of_workers(&ringway, what));
            outs[hot] == ins[1 - hot] && outs[1 - hot] == 0
        });
        eventually(seconds(5), "nobody is left", || of_workers(&ringway, "connections").iter().sum::<u64>() == 0);
    }

    fn a_full_core_is_given_nothing(driver) {
        // Of each core; at the tenth, the one that idled longest would make room.
        const MOST: usize = 10;
        let (_place, _origin, ringway) = start(driver, |c| set(c, CONNECTIONS, 2 * MOST));
        let (clients, hot) = on_one_core(&ringway, 3);
        let mut others: Vec<Client> = Vec::new();
        let mut before = of_workers(&ringway, "accepted");
        while others.len() < MOST - 1 {
            let mut client = Client::to(&ringway);
            assert_eq!(client.get("/health").status, 200);
            let now = of_workers(&ringway, "accepted");
            if now[1 - hot] > before[1 - hot] {
                others.push(client);
            }
            before = now;
        }
        let load = Load::new(clients, checks);
        eventually(seconds(20), "the core is hot", || of_workers(&ringway, "load_permille")[hot] >= 600);
        std::thread::sleep(seconds(6));
        assert_eq!(moved(&ringway), 0);
        for client in others.iter_mut().chain(&mut load.end()) {
            echoes(client, 9);
        }
    }

    fn a_drain_amid_moves_loses_nobody(driver) {
        let (_place, _origin, mut ringway) = start(driver, |c| set(c, DRAIN, "6s"));
        let (clients, _) = on_one_core(&ringway, 8);
        let load = Load::new(clients, checks);
        until_moved(&ringway, 1);
        let told = Arc::<AtomicU64>::default();
        // Everyone is served until it is told that it was the last request, and gets all answers up to there.
        let threads: Vec<JoinHandle<()>> = load
            .end()
            .into_iter()
            .map(|mut client| {
                let told = told.clone();
                std::thread::spawn(move || {
                    let until = Instant::now() + Duration::from_secs(40);
                    while Instant::now() < until {
                        if client.try_send(CHECK.repeat(DEPTH)).is_err() {
                            panic!("closed without a word");
                        }
                        for _ in 0..DEPTH {
                            let response = client.response();
                            // Health checks are told that it ends.
                            assert!(response.status == 200 || response.says_close());
                            if response.says_close() {
                                told.fetch_add(1, Ordering::Relaxed);
                                return;
                            }
                        }
                    }
                })
            })
            .collect();
        ringway.signal(libc::SIGTERM);
        threads.into_iter().for_each(|thread| thread.join().expect("no request failed"));
        assert_eq!(told.load(Ordering::Relaxed), 8);
        assert!(ringway.wait(seconds(10)).success());
    }

    fn reloads_amid_moves_touch_nobody(driver) {
        let (_place, _origin, ringway) = start(driver, |_| ());
        let (clients, _) = on_one_core(&ringway, 8);
        let load = Load::new(clients, checks);
        let until = Instant::now() + seconds(30);
        while moved(&ringway) < 2 {
            assert!(Instant::now() < until, "nobody moves");
            assert!(ringway.ctl(&["reload"]).status.success());
            std::thread::sleep(millis(100));
        }
        for client in &mut load.end() {
            echoes(client, 5);
        }
    }

    fn why_slow_names_the_connection_that_hogs_a_core(driver) {
        let (_place, _origin, ringway) = start(driver, |_| ());
        let (clients, core) = on_one_core(&ringway, 3);
        let mut clients = clients.into_iter();
        let hog = Load::new(clients.by_ref().take(1).collect(), echoes);
        let light = Load::new(clients.collect(), |client, _| {
            assert_eq!(client.get("/health").status, 200);
            std::thread::sleep(millis(50));
        });
        let mut slow = Value::Null;
        eventually(seconds(30), "all three work while it is measured, and one works most", || {
            let out = ringway.ctl(&["why-slow", "--json"]);
            let text = lossy(&out.stdout);
            assert!(out.status.success(), "{text} {}", lossy(&out.stderr));
            slow = serde_json::from_str(&text).expect("JSON");
            let busy = &slow["cores"][core];
            busy["connections"] == 3 && busy["hogs"][0]["share_permille"].as_u64() > Some(500)
        });
        let busy = &slow["cores"][core];
        assert_eq!((&busy["connections"], busy["hogs"].as_array().map(Vec::len)), (&json!(3), Some(3)), "{slow:#}");
        let first = &busy["hogs"][0];
        assert_eq!((&first["cluster"], &first["listener"]), (&json!("app"), &json!("main")), "{slow:#}");
        assert!(first["requests"].as_u64() > Some(8), "{slow:#}");
        assert!(first["received"].as_u64() > Some(1000) && first["sent"].as_u64() > Some(1000), "{slow:#}");
        assert!(first["client"].as_str().is_some_and(|client| client.starts_with("127.")), "{slow:#}");
        assert!(busy["took_us"].as_u64() >= Some(900_000) && busy["cpu_us"].as_u64() > Some(0), "{slow:#}");
        let text = lossy(&ringway.ctl(&["why-slow"]).stdout);
        assert!(text.contains("SHARE") && text.contains(first["client"].as_str().unwrap_or("?")), "{text}");
        hog.end();
        // Nobody is measured any more, and all are well.
        assert!(light.end().iter_mut().all(|client| client.get("/health").status == 200));
    }

    fn a_connection_that_was_moved_has_its_deadline(driver) {
        let (_place, _origin, ringway) = start(driver, |c| set(c, crate::settings::CLIENT_IDLE, "3s"));
        let (clients, _) = on_one_core(&ringway, 8);
        let load = Load::new(clients, checks);
        until_moved(&ringway, 2);
        for mut client in load.end() {
            assert_eq!(client.rest(seconds(8)).1, End::Fin);
        }
    }
}
