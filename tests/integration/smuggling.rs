//! No byte sequence makes proxy and backend disagree about where a request ends (RFC 9112 section 11.2).

use crate::client::{Client, End};
use crate::harness::{Ringway, lossy, on_both_drivers, seconds};
use crate::origin::Origin;

/// Heads that have fooled some pair of programs; behind each comes a body that hides a request.
const HEADS: &[&str] = &[
    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding : chunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding:\tchunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding:\x0bchunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding: \"chunked\"\r\nContent-Length: 4\r\n",
    "Transfer-Encoding: chunked;a=b\r\nContent-Length: 4\r\n",
    "Transfer-Encoding: , chunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n",
    "X: a\r\n\tTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "X: a\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "X: a\rTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "\x00Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "Transfer_Encoding: chunked\r\nContent-Length: 4\r\n",
    "Content_Length: 60\r\nContent-Length: 4\r\n",
    "Content-Length: 4, 60\r\n",
    "Content-Length: 4\r\nContent-Length: 60\r\n",
    "Content-Length: 4 60\r\n",
    "Content-Length: 04\r\nContent-Length: 4\r\n",
    "Content-Length\0: 4\r\n",
    "Connection: Content-Length\r\nContent-Length: 4\r\n",
    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
    "Connection: Host\r\nContent-Length: 4\r\n",
];

const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\nX-H: 1\r\n\r\n";

on_both_drivers! {
    fn hidden_requests_are_not_served_as_part_of_another(driver) {
        for head in HEADS {
            let origin = Origin::echo();
            let ringway = Ringway::before(driver, &[&origin]);
            let mut client = Client::to(&ringway);
            let body = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
            let _ = client.try_send(format!("POST /outer HTTP/1.1\r\nHost: a\r\n{head}\r\n{body}"));
            let (answer, end) = client.rest(seconds(1));
            // The backend's own strict reading asserts that what it gets is unambiguous; here the count must agree.
            let sent = origin.requests();
            let answers = lossy(&answer).matches("HTTP/1.1 200").count();
            assert!(sent.len() <= answers, "{head:?}: backend saw {}, client got {}", sent.len(), lossy(&answer));
            for request in &sent {
                assert!(request.all("transfer-encoding").len() + request.all("content-length").len() < 2);
                assert_eq!(request.all("host").len(), 1, "{head:?}: {}", request.text());
                assert!(!request.text().to_lowercase().contains("_length"), "{head:?}");
                assert!(!request.text().to_lowercase().contains("transfer_"), "{head:?}");
            }
            assert!(end != End::StillOpen || answers > 0, "{head:?}: no answer");
        }
    }

    fn length_beside_chunked_never_reaches_a_backend_as_both(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX");
        assert_eq!(client.response().status, 400);
        client.closed();
        assert!(origin.requests().is_empty());
    }

    fn body_of_a_get_is_passed_as_body(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        let n = HIDDEN.len();
        client.send(format!("GET /outer HTTP/1.1\r\nHost: a\r\nContent-Length: {n}\r\n\r\n{HIDDEN}"));
        assert_eq!(client.response().text(), HIDDEN);
        assert_eq!(client.get("/after").status, 200);
        let targets: Vec<String> = origin.requests().iter().map(|r| r.target()).collect();
        assert_eq!(targets, ["/outer", "/after"]);
    }

    fn a_refused_request_takes_the_rest_of_the_pipeline_with_it(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send(format!("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost : a\r\n\r\n{HIDDEN}"));
        assert_eq!(client.response().status, 200);
        assert_eq!(client.response().status, 400);
        client.closed();
        assert_eq!(origin.requests().len(), 1);
    }

    fn a_response_to_nobody_is_never_given_to_the_next_client(driver) {
        // The backend speaks first on a pooled connection: that connection must not be used again.
        let origin = Origin::new(|c| {
            while c.request().is_some() {
                c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
                c.sleep(crate::harness::millis(100));
                c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        for _ in 0..4 {
            assert_eq!(crate::client::get(&ringway, "/").text(), "good");
            std::thread::sleep(crate::harness::millis(250));
            assert_eq!(Client::to(&ringway).post("/", "x").text(), "good");
            std::thread::sleep(crate::harness::millis(250));
        }
    }

    fn chunk_extensions_and_odd_sizes_are_rewritten_or_refused(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0005;a=\"b;c\"\r\nhello\r\n000\r\n\r\n");
        assert_eq!(client.response().text(), "hello");
        assert!(!lossy(&origin.last().body_raw).contains(';'), "extensions are hop-by-hop");
    }
}
