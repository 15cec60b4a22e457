//! Requests that wait for their turn: a pause, backends that may have only so many at once, and the retries that a cluster
//! affords.

use crate::client::{Client, get};
use crate::harness::{Driver, Ringway, eventually, free_address, lossy, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{DRAIN, QUEUE_MAX, QUEUE_TIMEOUT, RETRY_MIN, RETRY_PERCENT, set};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn ctl(ringway: &Ringway, args: &[&str]) -> String {
    let out = ringway.ctl(args);
    assert!(out.status.success(), "{args:?}: {} {}", lossy(&out.stdout), lossy(&out.stderr));
    lossy(&out.stdout)
}

fn pause(ringway: &Ringway) {
    ctl(ringway, &["pause", "app", "--max", "30s"]);
}

fn resume(ringway: &Ringway) {
    ctl(ringway, &["resume", "app"]);
}

fn app(ringway: &Ringway) -> Value {
    ringway.status()["clusters"]["app"].clone()
}

fn wait_queued(ringway: &Ringway, n: u64) {
    eventually(seconds(5), &format!("{n} requests wait"), || app(ringway)["queued"] == json!(n));
}

/// A client that has sent a request for this path and waits.
fn waiting(ringway: &Ringway, path: &str) -> Client {
    let mut client = Client::to(ringway);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

fn reasons(ringway: &Ringway, lines: usize) -> Vec<String> {
    ringway.log(lines).iter().map(|line| line["reason"].as_str().expect("a reason").to_string()).collect()
}

/// How many requests are at an origin at the same time.
#[derive(Clone, Default)]
struct Crowd(Arc<(AtomicUsize, AtomicUsize)>);

impl Crowd {
    fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    /// An origin that takes this long for each request, and counts.
    fn origin(&self, time: Duration) -> Origin {
        let crowd = self.clone();
        Origin::new(move |c| {
            while c.request().is_some() {
                let now = crowd.0.0.fetch_add(1, Ordering::SeqCst) + 1;
                crowd.0.1.fetch_max(now, Ordering::SeqCst);
                std::thread::sleep(time);
                crowd.0.0.fetch_sub(1, Ordering::SeqCst);
                if !c.send(&ok("ok")) {
                    return;
                }
            }
        })
    }
}

/// A proxy of this many workers before one origin that may have this many exchanges.
fn limited(driver: Driver, workers: u32, origin: &Origin, max_conns: u32) -> Ringway {
    Ringway::with(driver, &[origin], |c| {
        set(c, "workers", workers);
        set(c, "clusters/app/backends/b1", json!({"address": origin.address().to_string(), "max_conns": max_conns}));
    })
}

/// Clients that each send requests one after the other until told to stop; returns how many were served, and the longest
/// time that one took. Panics if one was not.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<(usize, Duration)>>,
}

impl Load {
    fn on(ringway: &Ringway, clients: usize) -> Load {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), ringway.address);
        let threads = (0..clients).map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let (mut client, mut served, mut longest) = (Client::at(address), 0, Duration::ZERO);
                while !stop.load(Ordering::SeqCst) {
                    let begin = Instant::now();
                    let response = if served % 2 == 0 { client.get("/") } else { client.post("/", "x") };
                    assert_eq!(response.status, 200, "{}", response.text());
                    longest = longest.max(begin.elapsed());
                    served += 1;
                }
                (served, longest)
            })
        });
        let threads = threads.collect();
        Load { stop, threads }
    }

    fn end(self) -> Vec<(usize, Duration)> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|t| t.join().expect("a client saw an error")).collect()
    }
}

on_both_drivers! {
    fn a_pause_while_all_backends_restart_costs_only_time(driver) {
        let (one, other) = (free_address(), free_address());
        let mut origins = [Origin::saying_at(one, "old"), Origin::saying_at(other, "old")];
        let ringway = Ringway::with(driver, &[&origins[0], &origins[1]], |c| set(c, "workers", 2));
        let load = Load::on(&ringway, 8);
        std::thread::sleep(millis(300));
        // Returns when nothing is with them any more.
        pause(&ringway);
        wait_queued(&ringway, 8);
        let before: Vec<usize> = origins.iter().map(|origin| origin.requests().len()).collect();
        std::thread::sleep(seconds(2));
        let after: Vec<usize> = origins.iter().map(|origin| origin.requests().len()).collect();
        assert_eq!(before, after, "requests were sent in a pause");
        for (origin, address) in origins.iter_mut().zip([one, other]) {
            drop(std::mem::replace(origin, Origin::saying("nobody")));
            *origin = Origin::saying_at(address, "new");
        }
        resume(&ringway);
        std::thread::sleep(millis(500));
        let served = load.end();
        assert!(served.iter().all(|(_, longest)| *longest > seconds(2) && *longest < seconds(10)), "{served:?}");
        let of = app(&ringway);
        assert!(of["waited"] == json!(8) && of["queued"] == json!(0) && of["queue_full"] == json!(0), "{of}");
        assert!(reasons(&ringway, 16).iter().all(|reason| reason == "OK"));
    }

    fn they_go_on_in_the_order_in_which_they_came(driver) {
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = order.clone();
        let origin = Origin::new(move |c| c.serve(|request| {
            seen.lock().expect("the order").push(request.target());
            Some(ok("ok"))
        }));
        let ringway = limited(driver, 1, &origin, 1);
        pause(&ringway);
        let mut clients = Vec::new();
        for i in 0..12 {
            clients.push(waiting(&ringway, &format!("/{i}")));
            wait_queued(&ringway, i + 1);
        }
        resume(&ringway);
        clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        let wanted: Vec<String> = (0..12).map(|i| format!("/{i}")).collect();
        assert_eq!(*order.lock().expect("the order"), wanted);
    }

    fn the_oldest_makes_room_for_the_newest(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, QUEUE_MAX, 3));
        pause(&ringway);
        let mut clients: Vec<Client> = Vec::new();
        for i in 0..5 {
            clients.push(waiting(&ringway, "/"));
            wait_queued(&ringway, (i + 1).min(3));
        }
        for client in &mut clients[..2] {
            let response = client.response();
            assert_eq!((response.status, response.one("retry-after").is_some()), (503, true));
            assert!(response.text().contains("Too many requests wait"), "{}", response.text());
        }
        // They are served by the same connections again.
        resume(&ringway);
        clients[2..].iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
        assert_eq!(clients[0].get("/").status, 200);
        let mut reasons = reasons(&ringway, 6);
        reasons.sort();
        assert_eq!(reasons, ["OK", "OK", "OK", "OK", "QUEUE_FULL", "QUEUE_FULL"]);
        assert_eq!(app(&ringway)["queue_full"], json!(2));
    }

    fn nobody_waits_longer_than_the_timeout(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, QUEUE_TIMEOUT, "1s"));
        pause(&ringway);
        let begin = Instant::now();
        let mut client = waiting(&ringway, "/");
        let response = client.response();
        let took = begin.elapsed();
        assert_eq!(response.status, 503);
        assert!(response.text().contains("did not take the request in time"), "{}", response.text());
        assert!(took >= millis(990) && took < millis(3500), "{took:?}");
        assert_eq!(reasons(&ringway, 1), ["QUEUE_TIMEOUT"]);
        resume(&ringway);
        assert_eq!(client.get("/").status, 200);
        assert!(app(&ringway)["queue_timeouts"] == json!(1) && origin.requests().len() == 1);
        assert!(ctl(&ringway, &["pause", "app"]).contains("queue.timeout"), "the operator is told");
    }

    fn a_pause_ends_by_itself(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        ctl(&ringway, &["pause", "app", "--max", "1s"]);
        let begin = Instant::now();
        assert_eq!(waiting(&ringway, "/").response().status, 200);
        assert!(begin.elapsed() > millis(300) && begin.elapsed() < seconds(4), "{:?}", begin.elapsed());
    }

    fn a_client_that_leaves_leaves_the_queue(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        pause(&ringway);
        let (gone, mut stays) = (waiting(&ringway, "/gone"), waiting(&ringway, "/stays"));
        wait_queued(&ringway, 2);
        gone.reset();
        wait_queued(&ringway, 1);
        resume(&ringway);
        assert_eq!(stays.response().status, 200);
        assert_eq!(origin.requests().len(), 1);
        let mut reasons = reasons(&ringway, 2);
        reasons.sort();
        assert_eq!(reasons, ["CLIENT_ABORT", "OK"]);
    }

    fn one_at_a_time_over_two_workers(driver) {
        let crowd = Crowd::default();
        let origin = crowd.origin(millis(2));
        let ringway = limited(driver, 2, &origin, 1);
        let load = Load::on(&ringway, 12);
        std::thread::sleep(seconds(3));
        let served = load.end();
        assert_eq!(crowd.most(), 1);
        // Nobody starves: each gets a good part of an equal share.
        let total: usize = served.iter().map(|(n, _)| n).sum();
        let least = served.iter().map(|(n, _)| *n).min().unwrap_or(0);
        assert!(total > 60 && least * 12 * 4 > total, "{served:?}");
        let status = ringway.status();
        let busy = status["workers"].as_array().expect("workers").iter().filter(|w| w["exchanges"] != json!(0)).count();
        assert_eq!(busy, 2, "{status:#}");
        assert_eq!(status["clusters"]["app"]["backends"]["b1"]["max_conns"], json!(1));
    }

    fn a_tunnel_holds_its_place(driver) {
        let origin = Origin::new(|c| {
            while let Some(request) = c.head() {
                if request.one("upgrade").is_some() {
                    c.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
                    while !c.some().is_empty() {}
                    return;
                }
                c.send(&ok("ok"));
            }
        });
        let ringway = limited(driver, 2, &origin, 1);
        let mut tunnel = Client::to(&ringway);
        tunnel.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(tunnel.head_of("GET").status, 101);
        let mut client = waiting(&ringway, "/");
        wait_queued(&ringway, 1);
        std::thread::sleep(millis(500));
        assert_eq!(app(&ringway)["queued"], json!(1));
        drop(tunnel);
        assert_eq!(client.response().status, 200);
    }

    fn what_one_backend_may_not_take_another_does(driver) {
        let (slow, fast) = (Crowd::default(), Crowd::default());
        let (a, b) = (slow.origin(seconds(1)), fast.origin(millis(1)));
        let ringway = Ringway::with(driver, &[&a, &b], |c| {
            set(c, "workers", 2);
            set(c, "clusters/app/backends/b1", json!({"address": a.address().to_string(), "max_conns": 2}));
        });
        let load = Load::on(&ringway, 8);
        std::thread::sleep(seconds(2));
        load.end();
        assert!(slow.most() == 2 && fast.most() > 1 && b.requests().len() > 20 * a.requests().len());
        assert_eq!(app(&ringway)["waited"], json!(0));
    }

    fn a_limit_comes_goes_and_changes_by_reload(driver) {
        let crowd = Crowd::default();
        let origin = crowd.origin(millis(20));
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, "workers", 2));
        let load = Load::on(&ringway, 8);
        for (limit, most) in [(json!(null), 8), (json!(3), 3), (json!(1), 1), (json!(5), 5), (json!(null), 8), (json!(2), 2)] {
            let backend = json!({"address": origin.address().to_string(), "max_conns": limit});
            ctl(&ringway, &["apply", &json!({"clusters": {"app": {"backends": {"b1": backend}}}}).to_string()]);
            // What was under way before ends.
            std::thread::sleep(millis(100));
            crowd.0.1.store(0, Ordering::SeqCst);
            std::thread::sleep(millis(500));
            assert!(crowd.most() <= most && (most == 8 || crowd.most() == most), "{limit}: {}", crowd.most());
        }
        load.end();
    }

    fn a_route_that_goes_away_takes_its_waiting_requests_along(driver) {
        let (origin, other) = (Origin::saying("old"), Origin::saying("new"));
        let ringway = Ringway::before(driver, &[&origin]);
        pause(&ringway);
        let mut client = waiting(&ringway, "/");
        wait_queued(&ringway, 1);
        let backends = json!({"n1": other.address().to_string()});
        let patch = json!({"clusters": {"other": {"backends": backends}}, "routes": {"*": "other"}});
        ctl(&ringway, &["apply", &patch.to_string()]);
        assert_eq!(client.response().text(), "new");
        assert!(origin.requests().is_empty());
    }

    fn a_drain_waits_for_those_who_wait_and_then_cuts_them(driver) {
        let origin = Origin::saying("ok");
        let mut ringway = Ringway::with(driver, &[&origin], |c| set(c, DRAIN, "6s"));
        ctl(&ringway, &["pause", "app", "--max", "2s"]);
        let mut client = waiting(&ringway, "/");
        wait_queued(&ringway, 1);
        ringway.signal(libc::SIGTERM);
        // The pause ends in the drain.
        let response = client.response();
        assert!(response.status == 200 && response.says_close());
        assert!(ringway.wait(seconds(8)).success());

        let mut ringway = Ringway::with(driver, &[&origin], |c| set(c, DRAIN, "2s"));
        pause(&ringway);
        let mut client = waiting(&ringway, "/");
        wait_queued(&ringway, 1);
        let begin = Instant::now();
        ringway.signal(libc::SIGTERM);
        let response = client.response();
        assert!(response.status == 503 && response.says_close(), "{}", response.text());
        ringway.wait(seconds(7));
        assert!(begin.elapsed() < seconds(6), "{:?}", begin.elapsed());
        assert_eq!(reasons(&ringway, 1), ["DRAINED"]);
    }

    fn an_outage_gets_no_more_retries_than_the_budget(driver) {
        // Each takes the request and closes: a GET is sent again, and fails there too.
        let closing = || Origin::new(|c| drop(c.head()));
        let (a, b) = (closing(), closing());
        let ringway = Ringway::with(driver, &[&a, &b], |c| {
            set(c, RETRY_PERCENT, 10);
            set(c, RETRY_MIN, 0);
            set(c, "clusters/app/health/failures", 1000);
        });
        for _ in 0..50 {
            assert_eq!(get(&ringway, "/").status, 502);
        }
        assert_eq!(a.requests().len() + b.requests().len(), 55);
        let of = app(&ringway);
        assert!(of["retries_refused"].as_u64().is_some_and(|n| n >= 45), "{of}");
        assert!(reasons(&ringway, 50).iter().all(|reason| reason == "BACKEND_CLOSED"));
        let retries: u64 = ringway.log(50).iter().map(|line| line["retries"].as_u64().expect("retries")).sum();
        assert_eq!(retries, 5);
    }
}

#[test]
fn the_request_itself_is_sent_on_in_a_pause_too_if_it_began_before() {
    let origin = Origin::new(|c| {
        c.serve(|_| {
            std::thread::sleep(seconds(1));
            Some(ok("late"))
        })
    });
    let ringway = Ringway::before(Driver::Epoll, &[&origin]);
    let mut client = Client::to(&ringway);
    client.send(GET);
    origin.wait_requests(1);
    let begin = Instant::now();
    pause(&ringway);
    assert!(begin.elapsed() > millis(300), "the receipt waits for what is in flight");
    assert_eq!(client.response().text(), "late");
    let mut next = waiting(&ringway, "/");
    wait_queued(&ringway, 1);
    resume(&ringway);
    assert_eq!(next.response().text(), "late");
}
