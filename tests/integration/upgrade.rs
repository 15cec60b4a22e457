//! Tunnels (RFC 9110 section 7.8): only after a 101 that the client asked for.

use crate::client::{Client, End};
use crate::harness::{Ringway, lossy, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{TUNNEL, set};

pub const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Agrees, then gives back what it gets until the peer says it is done.
pub fn echo_tunnel() -> Origin {
    Origin::new(|c| {
        if c.head().is_some() {
            c.send(AGREED);
            loop {
                let bytes = c.some();
                if bytes.is_empty() {
                    break;
                }
                c.send(&bytes);
            }
            c.send(b"bye");
        }
    })
}

on_both_drivers! {
    fn bytes_flow_both_ways_after_101(driver) {
        let origin = echo_tunnel();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send(ASK);
        let response = client.head_of("GET");
        assert_eq!(response.status, 101);
        assert_eq!(response.one("upgrade").as_deref(), Some("websocket"));
        assert!(response.all("connection").iter().any(|v| v.eq_ignore_ascii_case("upgrade")));
        let seen = origin.last();
        assert_eq!(seen.one("upgrade").as_deref(), Some("websocket"));
        assert!(seen.all("connection").iter().any(|v| v.eq_ignore_ascii_case("upgrade")));
        assert_eq!(seen.one("sec-websocket-version").as_deref(), Some("13"));
        for i in 0..20 {
            let line = format!("message {i}\r\n\r\n\0\u{1}");
            client.send(&line);
            assert_eq!(lossy(&client.raw(line.len())), line);
        }
        let large = vec![7u8; 500_000];
        client.send(&large);
        assert!(client.raw(large.len()) == large);
        // Half-close: the backend's last words still arrive.
        client.fin();
        let (rest, end) = client.rest(seconds(5));
        assert_eq!((lossy(&rest).as_str(), end), ("bye", End::Fin));
        origin.wait_all_closed(seconds(5));
    }

    fn bytes_behind_the_101_and_behind_the_request_are_tunnelled(driver) {
        let origin = Origin::new(|c| {
            if c.head().is_some() {
                c.send(&[AGREED, b"first words"].concat());
                let got = c.some();
                c.send(&got);
                c.fin_and_wait();
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send(format!("{ASK}ahead"));
        assert_eq!(client.head_of("GET").status, 101);
        assert_eq!(lossy(&client.raw(16)), "first wordsahead");
    }

    fn a_refused_upgrade_is_an_ordinary_answer(driver) {
        let origin = Origin::new(|c| c.serve(|_| Some(ok("no tunnels here"))));
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send(ASK);
        assert_eq!(client.response().text(), "no tunnels here");
        assert_eq!(client.get("/").text(), "no tunnels here");
        assert_eq!(origin.connections(), 1);
    }

    fn a_101_nobody_asked_for_is_502(driver) {
        let origin = Origin::once(AGREED);
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.response().status, 502);
    }

    fn a_101_to_another_protocol_is_502(driver) {
        let origin = Origin::once("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send(ASK);
        assert_eq!(client.response().status, 502);
    }

    fn h2c_is_not_passed_on(driver) {
        let origin = Origin::saying("plain");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
        assert_eq!(client.response().status, 200);
        assert!(origin.last().one("http2-settings").is_none());
    }

    fn upgrade_without_connection_is_dropped(driver) {
        let origin = Origin::saying("plain");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(client.response().status, 200);
        assert!(origin.last().one("upgrade").is_none());
    }

    fn a_silent_tunnel_ends(driver) {
        let origin = echo_tunnel();
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, TUNNEL, "2s"));
        let mut client = Client::to(&ringway);
        client.send(ASK);
        assert_eq!(client.head_of("GET").status, 101);
        for _ in 0..3 {
            std::thread::sleep(seconds(1));
            client.send("x");
            assert_eq!(client.raw(1), b"x");
        }
        let (_, end) = client.rest(seconds(6));
        assert_ne!(end, End::StillOpen);
        origin.wait_all_closed(seconds(5));
    }

    fn a_backend_that_dies_ends_the_tunnel(driver) {
        let origin = Origin::new(|c| {
            if c.head().is_some() {
                c.send(AGREED);
                c.sleep(millis(200));
                c.reset();
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send(ASK);
        assert_eq!(client.head_of("GET").status, 101);
        assert_ne!(client.rest(seconds(5)).1, End::StillOpen);
    }

    fn a_client_that_dies_ends_the_tunnel(driver) {
        let origin = echo_tunnel();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send(ASK);
        assert_eq!(client.head_of("GET").status, 101);
        client.reset();
        origin.wait_all_closed(seconds(5));
    }
}
