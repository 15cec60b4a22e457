//! Backends that fail at each stage: what is retried, what is answered.

use crate::client::{Client, End, ask, get};
use crate::harness::{Ringway, free_address, lossy, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{CONNECT, HEAD, RETRIES, set};
use serde_json::json;

/// Config of one good backend and one where nothing listens.
fn beside_a_dead_one(good: &Origin) -> serde_json::Value {
    json!({
        "clusters": {"app": {"backends": {
            "b1": free_address().to_string(), "b2": good.address().to_string(),
        }}},
        "routes": {"*": "app"},
    })
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

on_both_drivers! {
    fn a_dead_backend_is_not_noticed(driver) {
        let good = Origin::saying("good");
        let ringway = Ringway::start(driver, beside_a_dead_one(&good));
        for i in 0..20 {
            assert_eq!(get(&ringway, "/").text(), "good", "GET {i}");
            assert_eq!(ask(&ringway, POST).text(), "good", "POST {i}");
        }
    }

    fn all_dead_is_502_or_503(driver) {
        let ringway = Ringway::start(driver, json!({
            "clusters": {"app": {"backends": {"b1": free_address().to_string()}}}, "routes": {"*": "app"},
        }));
        let mut client = Client::to(&ringway);
        for _ in 0..10 {
            let response = client.get("/");
            assert!([502, 503].contains(&response.status), "{}", response.status);
        }
    }

    fn no_backends_is_503_with_retry_after(driver) {
        let ringway = Ringway::start(driver, json!({
            "clusters": {"app": {"backends": {}}}, "routes": {"*": "app"},
        }));
        let response = get(&ringway, "/");
        assert_eq!(response.status, 503);
        assert!(response.one("retry-after").is_some_and(|v| v.parse::<u32>().is_ok()));
    }

    fn idempotent_is_retried_elsewhere_after_a_reset(driver) {
        let bad = Origin::new(|c| {
            if c.request().is_some() { c.reset(); }
        });
        let good = Origin::echo();
        let ringway = Ringway::before(driver, &[&bad, &good]);
        let mut client = Client::to(&ringway);
        for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
            client.send(format!("{method} /r HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"));
            let response = client.response();
            // A body may be too late to be sent again; what must not happen is a wrong answer.
            if response.status == 200 { assert_eq!(response.text(), "body", "{method}"); } else { assert_eq!(response.status, 502, "{method}"); }
        }
        for i in 0..10 {
            assert_eq!(client.get("/").status, 200, "GET {i}");
        }
    }

    fn post_is_never_sent_twice(driver) {
        let bad = Origin::new(|c| {
            if c.request().is_some() { c.reset(); }
        });
        let good = Origin::saying("good");
        let ringway = Ringway::before(driver, &[&bad, &good]);
        let (mut failed, mut served) = (0, 0);
        for _ in 0..10 {
            match ask(&ringway, POST).status {
                200 => served += 1,
                502 => failed += 1,
                other => panic!("{other}"),
            }
        }
        assert!(failed > 0);
        assert_eq!((bad.requests().len(), good.requests().len()), (failed, served));
    }

    fn nothing_is_retried_after_a_response_byte(driver) {
        let bad = Origin::new(|c| {
            if c.request().is_some() {
                c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                c.sleep(millis(50));
                c.reset();
            }
        });
        let ringway = Ringway::with(driver, &[&bad], |c| set(c, RETRIES, 3));
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head_of("GET").status, 200);
        let (rest, end) = client.rest(seconds(5));
        assert!(lossy(&rest).len() < 10 && end != End::StillOpen);
        assert_eq!(bad.requests().len(), 1);
    }

    fn nothing_is_retried_after_an_interim_response(driver) {
        let bad = Origin::new(|c| {
            if c.request().is_some() {
                c.send(b"HTTP/1.1 103 Early Hints\r\n\r\n");
                c.sleep(millis(50));
                c.reset();
            }
        });
        let ringway = Ringway::before(driver, &[&bad]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.any_response("GET").status, 103);
        assert_eq!(client.response().status, 502);
        assert_eq!(bad.requests().len(), 1);
    }

    fn retries_are_counted(driver) {
        let bad = Origin::new(|c| {
            if c.request().is_some() { c.reset(); }
        });
        let also = Origin::new(|c| {
            if c.request().is_some() { c.reset(); }
        });
        let ringway = Ringway::with(driver, &[&bad, &also], |c| set(c, RETRIES, 1));
        assert_eq!(get(&ringway, "/").status, 502);
        assert_eq!(bad.requests().len() + also.requests().len(), 2);
    }

    fn a_response_timeout_is_504_and_never_retried(driver) {
        let silent = Origin::new(|c| {
            if c.head().is_some() { c.wait_gone(seconds(15)); }
        });
        let ringway = Ringway::with(driver, &[&silent], |c| set(c, HEAD, "2s"));
        let begin = std::time::Instant::now();
        let mut client = Client::to(&ringway);
        assert_eq!(client.get("/").status, 504);
        assert!((1500..5000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
        assert_eq!(silent.requests().len(), 1);
        silent.wait_all_closed(seconds(3));
    }

    fn a_close_before_the_head_is_502(driver) {
        for wait in [0, 100] {
            let origin = Origin::new(move |c| {
                if c.request().is_some() {
                    c.sleep(millis(wait));
                    c.fin_and_wait();
                }
            });
            let ringway = Ringway::before(driver, &[&origin]);
            let mut client = Client::to(&ringway);
            client.send(POST);
            assert_eq!(client.response().status, 502);
            // The client's connection is none the worse for it.
            client.send(POST);
            assert_eq!(client.response().status, 502);
        }
    }

    fn a_reset_in_mid_head_is_502(driver) {
        let origin = Origin::new(|c| {
            if c.request().is_some() {
                c.send(b"HTTP/1.1 200 OK\r\nX-Ha");
                c.sleep(millis(50));
                c.reset();
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        assert_eq!(ask(&ringway, POST).status, 502);
    }

    fn a_reset_while_the_body_is_sent_is_502(driver) {
        let origin = Origin::new(|c| {
            if c.head().is_some() {
                c.swallow(1000);
                c.reset();
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n");
        for _ in 0..30 {
            if client.try_send(vec![b'x'; 100_000]).is_err() { break; }
        }
        assert_eq!(client.response().status, 502);
    }

    fn an_unanswering_address_is_given_up_and_another_tried(driver) {
        // A listener whose queue is full answers no SYN.
        let full = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&full), 0) };
        let address = full.local_addr().expect("address");
        let fillers: Vec<_> = (0..8)
            .map(|_| std::net::TcpStream::connect_timeout(&address, millis(100)))
            .collect();
        let good = Origin::saying("good");
        let ringway = Ringway::start(driver, json!({
            "clusters": {"app": {
                "backends": {"b1": address.to_string(), "b2": good.address().to_string()},
                "timeouts": {"connect": "1s"},
            }},
            "routes": {"*": "app"},
        }));
        for _ in 0..4 {
            assert_eq!(get(&ringway, "/").text(), "good");
        }
        drop(fillers);
    }

    fn connect_timeout_alone_is_an_error(driver) {
        let full = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&full), 0) };
        let address = full.local_addr().expect("address");
        let fillers: Vec<_> = (0..8)
            .map(|_| std::net::TcpStream::connect_timeout(&address, millis(100)))
            .collect();
        let mut config = json!({
            "clusters": {"app": {"backends": {"b1": address.to_string()}, "retries": 0}},
            "routes": {"*": "app"},
        });
        set(&mut config, CONNECT, "1s");
        let ringway = Ringway::start(driver, config);
        let begin = std::time::Instant::now();
        let status = get(&ringway, "/").status;
        assert!([502, 503, 504].contains(&status), "{status}");
        assert!(begin.elapsed() < seconds(5));
        drop(fillers);
    }

    fn a_stale_pooled_connection_is_replaced_for_every_method(driver) {
        // Answers one request, then resets as soon as the second arrives on the same connection.
        let origin = Origin::new(|c| {
            if c.request().is_some() {
                c.send(&ok("first"));
                if c.head().is_some() { c.reset(); }
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        for i in 0..10 {
            assert_eq!(get(&ringway, "/").status, 200, "GET {i}");
        }
    }

    fn a_restarted_backend_costs_nothing(driver) {
        let address = free_address();
        let first = Origin::saying_at(address, "first");
        let ringway = Ringway::start(driver, json!({
            "clusters": {"app": {"backends": {"b1": address.to_string()}}}, "routes": {"*": "app"},
        }));
        assert_eq!(get(&ringway, "/").text(), "first");
        drop(first);
        let second = Origin::saying_at(address, "second");
        assert_eq!(ask(&ringway, POST).text(), "second");
        assert_eq!(get(&ringway, "/").text(), "second");
        assert_eq!(second.requests().len(), 2);
    }
}
