//! Where messages end, in both directions, and what is refused (RFC 9112 sections 2, 3, 5, 6).

use crate::client::{Client, ask, get};
use crate::harness::{Ringway, lossy, millis, on_both_drivers, seconds};
use crate::message::{Framing, chunks};
use crate::origin::Origin;

/// Requests that are refused, with the status of the answer.
const REFUSED: &[(&str, u16, &str)] = &[
    ("no host", 400, "GET / HTTP/1.1\r\n\r\n"),
    ("two hosts", 400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("host with a path", 400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("host with user info", 400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    ("host with a space", 400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("host with a bad port", 400, "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n"),
    ("space before the colon", 400, "GET / HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n"),
    ("folded line", 400, "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n"),
    ("field without a colon", 400, "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
    ("empty field name", 400, "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
    ("NUL in a value", 400, "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n"),
    ("bare CR in a value", 400, "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rc\r\n\r\n"),
    ("two spaces in the request line", 400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("fragment in the target", 400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("version 2.0", 505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("no version", 400, "GET /\r\n\r\n"),
    ("lower-case version", 400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("negative length", 400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
    ("length with a sign", 400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na"),
    ("length in hex", 400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na"),
    ("empty length", 400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n"),
    ("length past 64 bits", 400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"),
    ("two lengths", 400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ("unknown coding", 501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: rot13, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked twice", 400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked not last", 400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("chunked in 1.0", 400, "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("unknown expectation", 417, "POST / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nContent-Length: 1\r\n\r\na"),
    ("dot segments", 400, "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("encoded dot segments", 400, "GET /a/%2e%2E/b HTTP/1.1\r\nHost: a\r\n\r\n"),
];

/// Chunked bodies that are refused.
const BAD_CHUNKS: &[(&str, &str)] = &[
    ("no digits", "\r\nabc\r\n0\r\n\r\n"),
    ("no hex", "g\r\nabc\r\n0\r\n\r\n"),
    ("0x", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("minus", "-3\r\nabc\r\n0\r\n\r\n"),
    ("too many digits", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("no CRLF behind the data", "3\r\nabcX\r\n0\r\n\r\n"),
    ("bare LF behind the size", "3\nabc\r\n0\r\n\r\n"),
    ("bare LF behind the data", "3\r\nabc\n0\r\n\r\n"),
    ("bare CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ("space before the size", " 3\r\nabc\r\n0\r\n\r\n"),
];

/// Response heads that are the backend's fault: 502.
const BAD_RESPONSES: &[(&str, &str)] = &[
    ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ("status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
    ("status 999", "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"),
    ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ("length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
    ("version 2.0", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("101 nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    ("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
];

on_both_drivers! {
    fn bad_requests_are_refused_and_closed(driver) {
        let origin = Origin::saying("must not be reached");
        let ringway = Ringway::before(driver, &[&origin]);
        for (name, status, request) in REFUSED {
            let mut client = Client::to(&ringway);
            client.send(request);
            let response = client.response();
            assert_eq!(response.status, *status, "{name}");
            assert!(response.says_close(), "{name}: {}", lossy(&response.head));
            client.closed();
        }
        assert_eq!(origin.connections(), 0, "{:?}", origin.requests());
    }

    fn any_split_is_read_the_same(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let request = "POST /split HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n";
        for step in [1, 2, 3, 7, 31] {
            let mut client = Client::to(&ringway);
            for piece in request.as_bytes().chunks(step) {
                client.send(piece);
                std::thread::sleep(millis(1));
            }
            assert_eq!(client.response().text(), "hello!", "pieces of {step}");
        }
    }

    fn leading_empty_lines_are_skipped(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        assert_eq!(ask(&ringway, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
        assert_eq!(origin.last().line(), "GET / HTTP/1.1");
    }

    fn bad_chunks_never_look_complete(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        for (name, body) in BAD_CHUNKS {
            let mut client = Client::to(&ringway);
            client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            let _ = client.try_send(body);
            assert_eq!(client.response().status, 400, "{name}");
            client.closed();
        }
        assert!(origin.requests().is_empty(), "{:?}", origin.requests());
    }

    fn too_large_heads_are_refused(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        let long = "x".repeat(20_000);
        let field = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n");
        assert_eq!(ask(&ringway, field).status, 431);
        let target = format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(ask(&ringway, target).status, 414);
        let many: String = (0..150).map(|i| format!("X-{i}: v\r\n")).collect();
        assert_eq!(ask(&ringway, format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).status, 431);
        assert!(origin.requests().is_empty());
    }

    fn same_length_twice_is_one_or_refused(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let response = ask(&ringway,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab");
        // RFC 9112 section 6.3 allows both; more than one field must not go on.
        match response.status {
            200 => assert_eq!(origin.last().one("content-length").as_deref(), Some("2")),
            status => assert_eq!(status, 400),
        }
    }

    fn bad_responses_are_502(driver) {
        for (name, answer) in BAD_RESPONSES {
            let origin = Origin::once(*answer);
            let ringway = Ringway::before(driver, &[&origin]);
            let mut client = Client::to(&ringway);
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(client.response().status, 502, "{name}");
            origin.wait_all_closed(seconds(5));
        }
    }

    fn response_framing_kinds(driver) {
        let chunked = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            chunks(b"one two three", 4)].concat();
        let origin = Origin::new(move |c| {
            while let Some(request) = c.request() {
                match request.target().as_str() {
                    "/chunked" => { c.send(&chunked); }
                    "/length" => { c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"); }
                    "/empty" => { c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); }
                    _ => {
                        c.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end");
                        return c.fin_and_wait();
                    }
                }
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for (path, framing, body) in [
            ("/chunked", Framing::Chunked, "one two three"),
            ("/length", Framing::Length(3), "abc"),
            ("/empty", Framing::Length(0), ""),
            ("/close", Framing::Chunked, "until the end"),
            ("/length", Framing::Length(3), "abc"),
        ] {
            let response = client.get(path);
            assert_eq!((response.framing, response.text().as_str()), (framing, body), "{path}");
        }
    }

    fn truncated_response_bodies_never_look_complete(driver) {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        ] {
            let origin = Origin::once(answer);
            let ringway = Ringway::before(driver, &[&origin]);
            let mut client = Client::to(&ringway);
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let status = client.head_of("GET").status;
            if status == 502 {
                // The fault was there before anything had gone to the client.
                continue;
            }
            assert_eq!(status, 200, "{answer:?}");
            let (body, _) = client.rest(seconds(8));
            assert!(!body.ends_with(b"0\r\n\r\n"), "{answer:?} became {:?}", lossy(&body));
            assert!(body.len() < 100);
        }
    }

    fn truncated_until_close_to_10_client_is_reset(driver) {
        // Only RST can tell such a client that the body is not whole.
        let origin = Origin::once("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        let (_, end) = client.rest(seconds(8));
        assert_eq!(end, crate::client::End::Reset);
    }

    fn bytes_behind_a_response_close_that_connection(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil");
        let ringway = Ringway::before(driver, &[&origin]);
        for _ in 0..5 {
            let response = get(&ringway, "/");
            assert_eq!(response.text(), "ok");
            assert!(response.one("x-evil").is_none());
        }
        assert_eq!(origin.connections(), 5);
    }

    fn trailers_pass(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
        assert_eq!(client.head_of("GET").framing, Framing::Chunked);
        let mut tail = Vec::new();
        while !tail.ends_with(b"\r\n\r\n") {
            tail.extend(client.raw(1));
        }
        assert_eq!(lossy(&tail), "2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n");
        assert_eq!(client.get("/").text(), "ok");
    }

    fn request_trailers_never_become_fields(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 5\r\nHost: b\r\n\r\n");
        let response = client.response();
        if response.status == 200 {
            assert!(!origin.last().text().contains("Content-Length"), "{}", origin.last().text());
            assert!(!lossy(&origin.last().body_raw).contains("Content-Length"));
            assert_eq!(client.get("/next").status, 200);
            assert_eq!(origin.last().line(), "GET /next HTTP/1.1");
        } else {
            assert_eq!(response.status, 400);
        }
    }

    fn early_data_of_the_next_request_is_not_body(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().text(), "abc");
        assert_eq!(client.response().text(), "");
        let targets: Vec<String> = origin.requests().iter().map(|r| r.target()).collect();
        assert_eq!(targets, ["/1", "/2"]);
    }
}
