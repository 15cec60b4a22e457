//! Clients and backends that take too long; each has its own answer.

use crate::client::{Client, End};
use crate::harness::{Ringway, lossy, millis, on_both_drivers, seconds};
use crate::origin::Origin;
use crate::settings::{BODY, CLIENT_BODY, CLIENT_HEAD, CLIENT_RATE, set};
use std::time::Instant;

on_both_drivers! {
    fn a_slow_head_is_408(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CLIENT_HEAD, "2s"));
        let mut client = Client::to(&ringway);
        let begin = Instant::now();
        client.send("GET / HTTP/1.1\r\nHo");
        let response = client.response();
        assert_eq!(response.status, 408);
        assert!(response.says_close());
        assert!((1000..4500).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
        client.closed();
    }

    fn the_time_for_a_head_is_absolute(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CLIENT_HEAD, "2s"));
        let mut client = Client::to(&ringway);
        let begin = Instant::now();
        client.send("GET / HTTP/1.1\r\n");
        for i in 0..40 {
            if client.try_send(format!("X-{i}: drip\r\n")).is_err() { break; }
            std::thread::sleep(millis(100));
        }
        let (bytes, end) = client.rest(seconds(3));
        assert!(begin.elapsed() < seconds(7));
        assert!(lossy(&bytes).starts_with("HTTP/1.1 408 ") || bytes.is_empty(), "{}", lossy(&bytes));
        assert_ne!(end, End::StillOpen);
        assert!(origin.requests().is_empty());
    }

    fn a_client_that_says_nothing_is_closed(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CLIENT_HEAD, "2s"));
        let mut client = Client::to(&ringway);
        let (_, end) = client.rest(seconds(6));
        assert_eq!(end, End::Fin);
    }

    fn a_silent_upload_is_408(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CLIENT_BODY, "2s"));
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome");
        let response = client.response();
        assert_eq!(response.status, 408);
        assert_ne!(client.rest(seconds(4)).1, End::StillOpen);
        origin.wait_all_closed(seconds(4));
        assert!(origin.requests().is_empty());
    }

    fn a_dripping_upload_is_ended(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CLIENT_RATE, "240B"));
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
        let begin = Instant::now();
        while begin.elapsed() < seconds(20) && client.try_send("x").is_ok() {
            std::thread::sleep(millis(100));
        }
        assert!(begin.elapsed() < seconds(15), "10 B/s for {:?}", begin.elapsed());
        origin.wait_all_closed(seconds(4));
    }

    fn a_slow_but_steady_upload_is_served(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CLIENT_BODY, "2s"));
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6000\r\n\r\n");
        for _ in 0..12 {
            client.send(vec![b's'; 500]);
            std::thread::sleep(millis(500));
        }
        assert_eq!(client.response().body.len(), 6000);
    }

    fn a_backend_that_falls_silent_in_mid_body_ends_the_response(driver) {
        let origin = Origin::new(|c| {
            if c.request().is_some() {
                c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome");
                c.wait_gone(seconds(15));
            }
        });
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, BODY, "2s"));
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head_of("GET").status, 200);
        let (bytes, end) = client.rest(seconds(8));
        assert_eq!(lossy(&bytes), "some");
        assert_ne!(end, End::StillOpen);
        origin.wait_all_closed(seconds(4));
    }

    fn a_client_that_takes_nothing_is_ended(driver) {
        let origin = Origin::new(|c| {
            if c.request().is_some() {
                c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
                while c.send(&[b'x'; 65_536]) {}
            }
        });
        let ringway = Ringway::with(driver, &[&origin], |c| {
            set(c, CLIENT_BODY, "2s");
            set(c, BODY, "2s");
        });
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head_of("GET").status, 200);
        origin.wait_all_closed(seconds(10));
    }
}
