//! Who is down, why, and how it comes back.

use crate::client::{Client, ask, get};
use crate::harness::{Ringway, free_address, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{HEAD, ON_TIMEOUT, PROBE_PATH, set};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn two(first: String, second: &Origin) -> serde_json::Value {
    json!({
        "clusters": {"app": {"backends": {"b1": first, "b2": second.address().to_string()}}},
        "routes": {"*": "app"},
    })
}

on_both_drivers! {
    fn three_connect_errors_mark_a_backend_down(driver) {
        let good = Origin::saying("good");
        let ringway = Ringway::start(driver, two(free_address().to_string(), &good));
        for _ in 0..12 {
            assert_eq!(get(&ringway, "/").text(), "good");
        }
        ringway.wait_state("b1", "down", seconds(3));
        assert_eq!(ringway.backend_state("app", "b2"), "up");
    }

    fn three_resets_mark_a_backend_down(driver) {
        let bad = Origin::new(|c| {
            if c.request().is_some() { c.reset(); }
        });
        let good = Origin::saying("good");
        let ringway = Ringway::before(driver, &[&bad, &good]);
        for _ in 0..12 {
            assert_eq!(get(&ringway, "/").text(), "good");
        }
        ringway.wait_state("b1", "down", seconds(3));
        let seen = bad.requests().len();
        for _ in 0..20 {
            assert_eq!(ask(&ringway, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").status, 200);
        }
        assert_eq!(bad.requests().len(), seen, "a backend that is down gets no traffic");
    }

    fn the_last_one_up_is_never_held_down(driver) {
        let broken = Arc::new(AtomicBool::new(true));
        let mine = broken.clone();
        let origin = Origin::new(move |c| {
            while c.request().is_some() {
                if mine.load(Ordering::SeqCst) { return c.reset(); }
                c.send(&ok("well again"));
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        for _ in 0..10 {
            assert_eq!(get(&ringway, "/").status, 502);
        }
        broken.store(false, Ordering::SeqCst);
        assert_eq!(get(&ringway, "/").text(), "well again");
        assert_eq!(ringway.backend_state("app", "b1"), "up");
    }

    fn one_slow_url_does_not_take_a_backend_down(driver) {
        // The test: a URL that sleeps far longer than the timeout, a hundred times, beside a fast one.
        let script = |c: &mut crate::origin::OriginConn| {
            while let Some(request) = c.request() {
                if request.target() == "/slow" {
                    c.wait_gone(seconds(12));
                    return;
                }
                c.send(&ok("fast"));
            }
        };
        let (first, second) = (Origin::new(script), Origin::new(script));
        let ringway = Ringway::with(driver, &[&first, &second], |c| set(c, HEAD, "2s"));
        let mut slow: Vec<Client> = (0..100).map(|_| Client::to(&ringway)).collect();
        for client in &mut slow {
            client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
            // Both backends go on answering; a cluster without any answer would be silent, and rightly down.
            for _ in 0..2 {
                assert_eq!(get(&ringway, "/fast").text(), "fast");
            }
            std::thread::sleep(millis(15));
        }
        let begin = std::time::Instant::now();
        let mut n = 0;
        while begin.elapsed() < seconds(5) {
            let response = if n % 5 == 0 { ask(&ringway, "POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx") } else { get(&ringway, "/fast") };
            assert_eq!((response.status, response.text().as_str()), (200, "fast"), "request {n}");
            n += 1;
            std::thread::sleep(millis(5));
        }
        for client in &mut slow {
            assert_eq!(client.response().status, 504);
        }
        let asked = first.requests().iter().chain(&second.requests()).filter(|r| r.target() == "/slow").count();
        assert_eq!(asked, 100);
        assert_eq!(ringway.backend_state("app", "b1"), "up");
        assert_eq!(ringway.backend_state("app", "b2"), "up");
    }

    fn a_silent_backend_goes_down(driver) {
        let silent = Origin::new(|c| {
            if c.head().is_some() { c.wait_gone(seconds(15)); }
        });
        let good = Origin::saying("good");
        let ringway = Ringway::with(driver, &[&silent, &good], |c| set(c, HEAD, "2s"));
        let statuses: Vec<u16> = (0..2).map(|_| get(&ringway, "/").status).collect();
        assert!(statuses.contains(&504), "{statuses:?}");
        ringway.wait_state("b1", "down", seconds(4));
        for _ in 0..10 {
            assert_eq!(get(&ringway, "/").text(), "good");
        }
    }

    fn any_timeout_may_count(driver) {
        let script = |c: &mut crate::origin::OriginConn| {
            while let Some(request) = c.request() {
                if request.target() == "/slow" {
                    c.wait_gone(seconds(12));
                    return;
                }
                c.send(&ok("fast"));
            }
        };
        let (first, second) = (Origin::new(script), Origin::new(script));
        let ringway = Ringway::with(driver, &[&first, &second], |c| {
            set(c, HEAD, "2s");
            set(c, ON_TIMEOUT, "any");
        });
        let mut client = Client::to(&ringway);
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        for _ in 0..20 {
            assert_eq!(get(&ringway, "/fast").status, 200);
            std::thread::sleep(millis(50));
        }
        assert_eq!(client.response().status, 504);
        crate::harness::eventually(seconds(4), "one is down", || {
            ["b1", "b2"].iter().any(|b| ringway.backend_state("app", b) == "down")
        });
    }

    fn a_backend_comes_back_only_after_a_good_probe(driver) {
        let address = free_address();
        let good = Origin::saying("good");
        let mut config = two(address.to_string(), &good);
        set(&mut config, PROBE_PATH, "/health");
        let ringway = Ringway::start(driver, config);
        for _ in 0..12 {
            assert_eq!(get(&ringway, "/").text(), "good");
        }
        ringway.wait_state("b1", "down", seconds(3));
        let begin = std::time::Instant::now();
        let back = Origin::saying_at(address, "back");
        while ringway.backend_state("app", "b1") == "down" {
            assert_eq!(get(&ringway, "/").text(), "good");
            assert!(begin.elapsed() < seconds(45), "never probed");
            std::thread::sleep(millis(250));
        }
        assert!(begin.elapsed() > seconds(20), "it was down for {:?} only", begin.elapsed());
        let first = back.requests().first().map(|r| r.target());
        assert_eq!(first.as_deref(), Some("/health"), "the probe comes before traffic");
        let texts: Vec<String> = (0..10).map(|_| get(&ringway, "/").text()).collect();
        assert!(texts.contains(&"back".to_string()), "{texts:?}");
    }
}
