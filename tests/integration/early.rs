//! Answers that come before the request is whole, and answers before the answer.

use crate::client::{Client, End};
use crate::harness::{Ringway, lossy, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{BODY_MAX, set};

on_both_drivers! {
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
