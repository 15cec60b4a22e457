//! Answers that come before the request is whole, and answers before the answer.

use crate::client::{Client, End};
use crate::harness::{Driver, Ringway, Scratch, lossy, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{BODY_MAX, set};
use serde_json::json;
use std::io::Write;
use std::os::unix::net::UnixListener;

/// A proxy before a server at a Unix socket that answers whoever connects, reads nothing, and closes; the answers that so many
/// clients get who ask at once. Between connecting and sending there is time for the server then: from every seventh request
/// on the ring to nearly all on epoll find the connection ended.
fn hasty(driver: Driver, answer: &'static str, request: &str) -> (Ringway, Vec<Client>, Scratch) {
    let scratch = Scratch::new();
    let path = scratch.path("hasty.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let ringway = Ringway::start(
        driver,
        json!({
            "clusters": {"app": {"backends": {"b1": format!("unix:{}", path.display())}}}, "routes": {"*": "app"},
        }),
    );
    let mut clients: Vec<Client> = (0..AT_ONCE).map(|_| Client::to(&ringway)).collect();
    ringway.signal(libc::SIGSTOP);
    clients.iter_mut().for_each(|client| {
        client.send(request);
    });
    ringway.signal(libc::SIGCONT);
    (ringway, clients, scratch)
}

/// Clients at once.
const AT_ONCE: usize = 400;

on_both_drivers! {
    fn an_answer_before_the_request_is_the_answer(driver) {
        let answers = [
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch",
            "HTTP/1.1 413 Content Too Large\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmuch\r\n0\r\n\r\n",
        ];
        let requests = [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\nabc",
        ];
        for (answer, request) in answers.into_iter().zip(requests) {
            let (ringway, mut clients, _scratch) = hasty(driver, answer, request);
            for client in &mut clients {
                let response = client.response();
                assert_eq!((response.status, response.text().as_str()), (413, "much"));
            }
            let lines = ringway.log(AT_ONCE);
            assert!(lines.iter().all(|line| line["status"] == 413 && line["reason"] == "OK"), "{lines:?}");
            let backend = &ringway.status()["clusters"]["app"]["backends"]["b1"];
            assert_eq!(backend["requests"], AT_ONCE, "{backend}");
            assert_eq!(backend["resets"], 0, "{backend}");
        }
    }

    fn an_answer_before_the_request_that_is_not_whole_is_none(driver) {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        for answer in [
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\nmuch",
            "HTTP/1.1 413 Content Too Large\r\nContent-Le",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ] {
            let mut refused = 0;
            // Mostly many are too late, and now and then nobody.
            for _ in 0..20 {
                let (_ringway, clients, _scratch) = hasty(driver, answer, request);
                for mut client in clients {
                    // Who had sent in time gets as much as there is, and no end that looks like one.
                    match client.head_of("POST").status {
                        413 => assert_eq!(client.rest(seconds(5)), (b"much".to_vec(), End::Reset)),
                        status => {
                            assert_eq!(status, 502);
                            refused += 1;
                        }
                    }
                }
                if refused > 0 {
                    break;
                }
            }
            assert!(refused > 0, "none was too late, 20 times of {AT_ONCE}");
        }
    }

    fn an_early_answer_arrives_while_the_upload_runs(driver) {
        let origin = Origin::new(|c| {
            if c.head().is_some() {
                c.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
                c.sleep(seconds(3));
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nstart");
        let begin = std::time::Instant::now();
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (403, "no"));
        assert!(begin.elapsed() < seconds(2), "{:?}", begin.elapsed());
    }

    fn an_early_answer_survives_a_large_upload(driver) {
        // The backend answers and closes with most of the upload unread, which makes its kernel send RST.
        let origin = Origin::new(|c| {
            if c.head().is_some() {
                c.send(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
                c.fin();
                c.sleep(millis(300));
            }
        });
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, BODY_MAX, "1GiB"));
        for _ in 0..5 {
            let mut client = Client::to(&ringway);
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n");
            let block = vec![b'u'; 100_000];
            for _ in 0..80 {
                if client.try_send(&block).is_err() { break; }
            }
            assert_eq!(client.response().status, 403);
        }
    }

    fn after_an_early_answer_the_upload_may_end_in_peace(driver) {
        let origin = Origin::new(|c| {
            while c.head().is_some() {
                c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
                if !c.swallow(10) { return; }
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
        let response = client.response();
        assert_eq!(response.text(), "early");
        let _ = client.try_send("56789");
        if response.says_close() {
            assert_eq!(client.rest(seconds(5)).1, End::Fin);
        } else {
            assert_eq!(client.post("/", "0123456789").text(), "early");
        }
    }

    fn continue_comes_from_the_backend(driver) {
        let origin = Origin::new(|c| {
            while let Some(head) = c.head() {
                assert_eq!(head.one("expect").as_deref(), Some("100-continue"));
                c.send(b"HTTP/1.1 100 Continue\r\n\r\n");
                if !c.swallow(4) { return; }
                c.send(&ok("done"));
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for _ in 0..2 {
            client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
            assert_eq!(client.any_response("PUT").status, 100);
            client.send("body");
            assert_eq!(client.response().text(), "done");
        }
        // A request that could not be sent again goes out on a used connection only once the backend was seen to keep one.
        assert!(origin.connections() <= 2);
    }

    fn a_final_answer_instead_of_continue(driver) {
        let origin = Origin::new(|c| {
            if c.head().is_some() {
                c.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
                c.sleep(millis(500));
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(client.response().status, 417);
        // Whether the body still comes is the client's choice, so the next bytes are either body or nothing.
        let _ = client.try_send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        let (bytes, _) = client.rest(seconds(3));
        assert!(!lossy(&bytes).contains("200 OK"));
        assert_eq!(origin.requests().len(), 1);
    }

    fn a_backend_that_never_continues_gets_the_body_anyway(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        std::thread::sleep(millis(300));
        client.send("body");
        let mut response = client.any_response("PUT");
        while response.status == 100 {
            response = client.any_response("PUT");
        }
        assert_eq!(response.text(), "body");
    }

    fn early_hints_pass(driver) {
        let origin = Origin::fixed("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
            HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let hints = client.any_response("GET");
            assert_eq!(hints.status, 103);
            assert_eq!(hints.one("link").as_deref(), Some("</a.css>; rel=preload"));
            assert_eq!(client.any_response("GET").status, 102);
            assert_eq!(client.response().text(), "page");
        }
    }

    fn http_10_clients_get_no_interim_responses(driver) {
        let origin = Origin::fixed("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().text(), "page");
    }

    fn endless_interim_responses_end(driver) {
        let origin = Origin::new(|c| {
            if c.head().is_some() {
                while c.send(b"HTTP/1.1 102 Processing\r\n\r\n") {}
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut interim = 0;
        while client.any_response("GET").status == 102 {
            interim += 1;
            assert!(interim < 1000, "no end");
        }
        origin.wait_all_closed(seconds(5));
    }

    fn a_final_answer_with_bytes_of_the_next_is_cut_there(driver) {
        let origin = Origin::fixed("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for _ in 0..3 {
            assert_eq!(client.get("/").status, 204);
        }
        assert_eq!(origin.connections(), 3);
    }
}
