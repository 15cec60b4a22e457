//! What counts as a failure, how long it counts, and probes of backends that nobody asks.

use crate::client::{Client, get, get_host};
use crate::harness::{Ringway, Scratch, eventually, free_address, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{CLIENT_BODY, CLIENT_RATE, HEALTH, PROBE, set};
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Answers probes and requests with this as long as `well`, else with 500.
fn switched(well: &Arc<AtomicBool>, body: &'static str) -> Origin {
    let well = well.clone();
    Origin::new(move |c| {
        c.serve(|_| {
            let bad = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec();
            Some(if well.load(Ordering::SeqCst) { ok(body) } else { bad })
        })
    })
}

fn switch(on: bool) -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(on))
}

/// Seconds after which a backend's state has become this.
fn becomes(ringway: &Ringway, backend: &str, state: &str, at_most: u64) -> f64 {
    let begin = Instant::now();
    ringway.wait_state(backend, state, seconds(at_most));
    begin.elapsed().as_secs_f64()
}

on_both_drivers! {
    fn statuses_count_as_failures_if_told_so(driver) {
        let bad = Origin::fixed("HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nbad");
        let good = Origin::saying("good");
        let ringway = Ringway::with(driver, &[&bad, &good], |c| {
            set(c, HEALTH, json!({ "statuses": [503], "failures": 4 }));
        });
        let texts: Vec<String> = (0..8).map(|_| get(&ringway, "/").text()).collect();
        assert_eq!(texts.iter().filter(|t| *t == "bad").count(), 4, "clients get them all the same: {texts:?}");
        ringway.wait_state("b1", "down", seconds(3));
        let status = ringway.ctl(&["status", "--json"]);
        assert!(String::from_utf8_lossy(&status.stdout).contains("bad statuses in a row"));
        assert!((0..10).all(|_| get(&ringway, "/").text() == "good"));
    }

    fn no_status_counts_by_default_and_a_busy_backend_is_not_broken(driver) {
        let broken = Origin::fixed("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
        let good = Origin::saying("good");
        let ringway = Ringway::before(driver, &[&broken, &good]);
        (0..20).for_each(|_| drop(get(&ringway, "/")));
        assert_eq!(ringway.backend_state("app", "b1"), "up");
        let busy = Origin::fixed("HTTP/1.1 503 Busy\r\nretry-AFTER: 1\r\nContent-Length: 0\r\n\r\n");
        let ringway = Ringway::with(driver, &[&busy, &good], |c| set(c, HEALTH, json!({ "statuses": ["5xx"] })));
        (0..20).for_each(|_| drop(get(&ringway, "/")));
        assert_eq!(ringway.backend_state("app", "b1"), "up");
    }

    fn a_share_of_failures_marks_a_backend_down(driver) {
        // Two of three are good, so that there is never a row.
        let count = AtomicUsize::new(0);
        let flaky = Origin::new(move |c| {
            c.serve(|_| {
                let bad = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(3);
                Some(if bad { b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n".to_vec() } else { ok("fine") })
            })
        });
        let good = Origin::saying("good");
        let ringway = Ringway::with(driver, &[&flaky, &good], |c| {
            set(c, HEALTH, json!({ "statuses": [502], "rate": { "percent": 30, "requests": 30, "within": "20s" } }));
        });
        std::thread::sleep(seconds(2));
        (0..50).for_each(|_| drop(get(&ringway, "/")));
        assert_eq!(ringway.backend_state("app", "b1"), "up", "25 are too few");
        (0..20).for_each(|_| drop(get(&ringway, "/")));
        ringway.wait_state("b1", "down", seconds(3));
    }

    fn a_slow_client_never_counts(driver) {
        let origin = Origin::echo();
        let spare = Origin::saying("spare");
        let ringway = Ringway::with(driver, &[&origin, &spare], |c| {
            set(c, HEALTH, json!({ "failures": 1, "on_timeout": "any", "rate": { "percent": 1, "requests": 1 } }));
            set(c, CLIENT_BODY, "1s");
            set(c, CLIENT_RATE, "0B");
        });
        std::thread::sleep(seconds(2));
        let mut slow: Vec<Client> = (0..8).map(|_| Client::to(&ringway)).collect();
        for client in &mut slow {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
        }
        std::thread::sleep(seconds(4));
        for client in &mut slow {
            assert_eq!(client.response().status, 408);
        }
        for backend in ["b1", "b2"] {
            assert_eq!(ringway.backend_state("app", backend), "up");
        }
    }

    fn checks_mark_an_idle_backend_down_and_up_again(driver) {
        let well = switch(true);
        let (checked, other) = (switched(&well, "a"), Origin::saying("b"));
        let ringway = Ringway::with(driver, &[&checked, &other], |c| {
            set(c, HEALTH, json!({ "check": { "interval": "1s", "fall": 2, "rise": 2 } }));
            set(c, PROBE, json!({ "path": "/well?x=1", "host": "probe.io", "headers": { "X-Who": "me" } }));
        });
        checked.wait_requests(2);
        assert_eq!(ringway.backend_state("app", "b1"), "up");
        let probe = checked.last();
        assert_eq!((probe.line().as_str(), probe.one("Host").as_deref()), ("GET /well?x=1 HTTP/1.1", Some("probe.io")));
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(probe.one("User-Agent"), Some(format!("ringway/{version} probe")));
        assert_eq!((probe.one("Connection").as_deref(), probe.one("X-Who").as_deref()), (Some("close"), Some("me")));
        well.store(false, Ordering::SeqCst);
        ringway.wait_state("b1", "down", seconds(5));
        let texts: Vec<String> = (0..6).map(|_| get(&ringway, "/").text()).collect();
        assert!(texts.iter().all(|t| t == "b"), "{texts:?}");
        well.store(true, Ordering::SeqCst);
        let took = becomes(&ringway, "b1", "up", 6);
        assert!(took > 0.5, "one good check is not enough: {took} s");
        let status = ringway.status();
        assert!(status.to_string().contains("a probe was answered: status 200"), "{status:#}");
    }

    fn clusters_that_share_an_endpoint_share_its_probes(driver) {
        let origin = Origin::saying("both");
        let at = origin.address().to_string();
        let cluster = || json!({
            "backends": { "b1": at, "b2": free_address().to_string() },
            "health": { "check": { "interval": "1s" } },
            "probe": { "path": "/shared" },
        });
        let config = json!({ "clusters": { "app": cluster(), "web": cluster() }, "routes": { "*": "app", "w/": "web" } });
        let ringway = Ringway::start(driver, config);
        std::thread::sleep(seconds(1));
        let before = origin.requests().len();
        std::thread::sleep(seconds(5));
        let probes = origin.requests().len() - before;
        assert!((4..=6).contains(&probes), "{probes} in five seconds");
        // The other two, which nobody serves, are told apart by their addresses and go down in each.
        eventually(seconds(5), "b2 of both is down", || {
            ["app", "web"].iter().all(|c| ringway.backend_state(c, "b2") == "down")
        });
        assert_eq!((get(&ringway, "/").text(), get_host(&ringway, "w", "/").text()), ("both".into(), "both".into()));
    }

    fn a_text_in_the_body_decides(driver) {
        let (well, fine) = (Origin::saying("all is well"), Origin::saying("all is fine"));
        let ringway = Ringway::with(driver, &[&fine, &well], |c| {
            set(c, HEALTH, json!({ "check": { "interval": "1s", "fall": 1 } }));
            set(c, PROBE, json!({ "path": "/", "body": "is well" }));
        });
        ringway.wait_state("b1", "down", seconds(4));
        assert_eq!(ringway.backend_state("app", "b2"), "up");
        eventually(seconds(4), "the status says what both probes saw", || {
            let status = ringway.status().to_string();
            status.contains("is not in the body") && status.contains("status 200 with the text")
        });
    }

    fn unix_sockets_are_probed_too(driver) {
        let scratch = Scratch::new();
        let path = scratch.path("app.sock");
        let listener = UnixListener::bind(&path).expect("bind");
        let (well, asked) = (switch(true), Arc::new(AtomicUsize::new(0)));
        let (mine, count) = (well.clone(), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepted");
                let mut head = [0; 4096];
                let n = stream.read(&mut head).unwrap_or(0);
                assert!(head[..n].starts_with(b"OPTIONS /up HTTP/1.1\r\nHost: localhost\r\n"));
                count.fetch_add(1, Ordering::SeqCst);
                let status = if mine.load(Ordering::SeqCst) { "204 Fine" } else { "404 No" };
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
            }
        });
        let good = Origin::fixed("HTTP/1.1 204 Fine\r\n\r\n");
        let ringway = Ringway::with(driver, &[&good, &good], |c| {
            set(c, "clusters/app/backends/b1", format!("unix:{}", path.display()));
            set(c, HEALTH, json!({ "check": { "interval": "1s", "fall": 2 } }));
            set(c, PROBE, json!({ "path": "/up", "method": "OPTIONS", "statuses": [204], "timeout": "2s" }));
        });
        eventually(seconds(4), "probes come", || asked.load(Ordering::SeqCst) >= 2);
        assert_eq!(ringway.backend_state("app", "b1"), "up");
        well.store(false, Ordering::SeqCst);
        ringway.wait_state("b1", "down", seconds(5));
        well.store(true, Ordering::SeqCst);
        ringway.wait_state("b1", "up", seconds(4));
    }

    fn a_slow_start_shows_in_the_shares(driver) {
        let well = switch(false);
        let (slow, other) = (switched(&well, "slow"), Origin::saying("other"));
        let ringway = Ringway::with(driver, &[&slow, &other], |c| {
            set(c, HEALTH, json!({ "slow_start": "10s", "check": { "interval": "1s", "fall": 1 } }));
            set(c, PROBE, json!({ "path": "/" }));
        });
        ringway.wait_state("b1", "down", seconds(4));
        well.store(true, Ordering::SeqCst);
        ringway.wait_state("b1", "up", seconds(4));
        let begin = Instant::now();
        let share = |requests: usize| {
            let mut client = Client::to(&ringway);
            (0..requests).filter(|_| client.get("/").text() == "slow").count() as f64 / requests as f64
        };
        let first = share(100);
        let asked = begin.elapsed();
        assert!(first > 0.0 && (first < 0.3 || asked > seconds(2)), "{first} after {asked:?}");
        std::thread::sleep(Duration::from_secs(11).saturating_sub(begin.elapsed()));
        let last = share(100);
        assert!((0.45..=0.55).contains(&last), "{last}");
    }

    fn a_hold_down_doubles_while_probes_fail(driver) {
        let address = free_address();
        let good = Origin::saying("good");
        let ringway = Ringway::with(driver, &[&good, &good], |c| {
            set(c, "clusters/app/backends/b1", address.to_string());
            set(c, HEALTH, json!({ "hold_down": "1s", "hold_down_max": "4s" }));
            set(c, PROBE, json!({ "path": "/" }));
        });
        // Accepts probes and refuses them, so that they can be counted.
        assert!((0..8).all(|_| get(&ringway, "/").text() == "good"));
        ringway.wait_state("b1", "down", seconds(3));
        let times = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mine = times.clone();
        let bad = Origin::at(address, move |c| {
            if c.request().is_some() {
                mine.lock().expect("times").push(Instant::now());
                c.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
            }
        });
        eventually(seconds(25), "four probes", || times.lock().expect("times").len() >= 4);
        let times = times.lock().expect("times").clone();
        let apart: Vec<f64> = times.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
        for (got, want) in apart.iter().rev().zip([4.0, 4.0]) {
            assert!((want - 0.2..want + 2.0).contains(got), "{apart:?}");
        }
        assert!(apart.windows(2).all(|w| w[1] > w[0] - 1.1), "{apart:?}");
        drop(bad);
    }
}
