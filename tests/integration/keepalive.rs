//! Connections that live on, on both sides.

use crate::client::{Client, get};
use crate::harness::{Ringway, lossy, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{CLIENT_IDLE, set};

on_both_drivers! {
    fn many_requests_use_one_connection_each_side(driver) {
        let origin = Origin::saying("again");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for i in 0..200 {
            assert_eq!(client.get(&format!("/{i}")).text(), "again");
        }
        assert_eq!((origin.connections(), origin.requests().len()), (1, 200));
    }

    fn backend_connections_are_shared_by_clients(driver) {
        let origin = Origin::saying("x");
        let ringway = Ringway::before(driver, &[&origin]);
        for _ in 0..20 {
            assert_eq!(get(&ringway, "/").status, 200);
        }
        assert_eq!(origin.connections(), 1);
    }

    fn pipelined_requests_are_answered_in_order(driver) {
        let origin = Origin::new(|c| c.serve(|r| {
            if r.target() == "/0" {
                std::thread::sleep(millis(150));
            }
            Some(ok(&r.target()))
        }));
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        let all: String = (0..50).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        client.send(all);
        for i in 0..50 {
            assert_eq!(client.response().text(), format!("/{i}"));
        }
    }

    fn a_pipeline_larger_than_a_buffer(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        let body = "p".repeat(5000);
        let one = format!("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n{body}");
        client.send(one.repeat(20));
        for _ in 0..20 {
            assert_eq!(client.response().body.len(), 5000);
        }
    }

    fn client_asks_for_the_end(driver) {
        let origin = Origin::saying("bye");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response();
        assert!(response.says_close());
        client.closed();
        assert_eq!(origin.requests().len(), 1);
        // The client's close is not the backend's.
        assert_eq!(get(&ringway, "/").status, 200);
        assert_eq!(origin.connections(), 1);
    }

    fn backend_asks_for_the_end(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for _ in 0..3 {
            let response = client.get("/");
            assert_eq!(response.text(), "ok");
            assert!(!response.says_close(), "the backend's close is not the client's");
        }
        assert_eq!(origin.connections(), 3);
    }

    fn a_backend_that_closes_after_each_answer_costs_nothing(driver) {
        // It does not say that it will: the race that makes other proxies answer 502.
        let origin = Origin::once(ok("once"));
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for i in 0..50 {
            let response = if i % 2 == 0 { client.get("/") } else { client.post("/", "x") };
            assert_eq!((response.status, response.text().as_str()), (200, "once"), "request {i}");
        }
    }

    fn where_only_posts_come_it_is_soon_seen_that_the_backend_keeps_connections(driver) {
        let origin = Origin::saying("again");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for _ in 0..2 {
            assert_eq!(client.post("/", "x").status, 200);
        }
        // The second one came too soon for a connection that had just been used for the first time, or not.
        let before = origin.connections();
        std::thread::sleep(millis(80));
        for _ in 0..20 {
            assert_eq!(client.post("/", "x").status, 200);
        }
        assert_eq!(origin.connections(), before);
    }

    fn a_backend_that_closes_a_moment_after_each_answer_never_gets_a_post_again(driver) {
        let origin = Origin::new(|c| {
            c.request();
            c.send(&ok("once"));
            std::thread::sleep(millis(20));
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for i in 0..30 {
            std::thread::sleep(millis(5 * (i % 13)));
            let response = client.post("/", "x");
            assert_eq!((response.status, response.text().as_str()), (200, "once"), "request {i}");
        }
        assert_eq!(origin.connections(), 30);
    }

    fn pooled_connections_end_before_the_backend_ends_them(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 2\r\n\r\nok");
        let ringway = Ringway::before(driver, &[&origin]);
        assert_eq!(get(&ringway, "/").status, 200);
        origin.wait_all_closed(seconds(4));
    }

    fn idle_clients_are_closed_silently(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CLIENT_IDLE, "2s"));
        let mut client = Client::to(&ringway);
        assert_eq!(client.get("/").status, 200);
        client.silent(millis(700));
        client.closed();
    }

    fn a_client_that_closes_between_requests_leaves_nothing(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        for i in 0..50 {
            let mut client = Client::to(&ringway);
            assert_eq!(client.get("/").status, 200);
            if i % 2 == 0 { client.reset() } else { drop(client) }
        }
        assert_eq!(get(&ringway, "/").status, 200);
        assert_eq!(origin.connections(), 1);
    }

    fn old_keep_alive_fields_do_not_pass(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5, max=9\r\nContent-Length: 2\r\n\r\nok");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nKeep-Alive: 300\r\nProxy-Connection: keep-alive\r\n\r\n");
        let response = client.response();
        assert!(response.one("keep-alive").is_none(), "{}", lossy(&response.head));
        let seen = origin.last();
        assert!(seen.one("keep-alive").is_none() && seen.one("proxy-connection").is_none());
    }
}
