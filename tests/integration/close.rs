//! The staged close (RFC 9112 section 9.6): an answer is never lost because the request was not read to its end.

use crate::client::{Client, End};
use crate::harness::{Ringway, lossy, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{BODY_MAX, set};

/// Sends as much of a 20 MB upload as the proxy takes, then reads.
fn upload(ringway: &Ringway, head: &str) -> (Vec<u8>, End) {
    let mut client = Client::to(ringway);
    client.send(head);
    let block = vec![b'u'; 64 * 1024];
    for _ in 0..320 {
        if client.try_send(&block).is_err() {
            break;
        }
    }
    client.rest(seconds(6))
}

on_both_drivers! {
    fn a_413_always_arrives(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, BODY_MAX, "1MiB"));
        for _ in 0..20 {
            let mut client = Client::to(&ringway);
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20971520\r\n\r\n");
            // Like curl: looks for an answer while it sends.
            let block = vec![b'u'; 16 * 1024];
            for _ in 0..8 {
                if client.try_send(&block).is_err() { break; }
            }
            let response = client.response();
            assert_eq!(response.status, 413);
            assert!(response.says_close());
        }
        assert!(origin.requests().is_empty());
    }

    fn a_413_in_mid_chunked_body(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, BODY_MAX, "64KiB"));
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [b"4000\r\n".to_vec(), vec![b'c'; 0x4000], b"\r\n".to_vec()].concat();
        for _ in 0..8 {
            if client.try_send(&chunk).is_err() { break; }
        }
        assert_eq!(client.response().status, 413);
        origin.wait_all_closed(seconds(5));
        assert!(origin.requests().is_empty());
    }

    fn a_sender_that_never_reads_is_cut_after_a_while(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, BODY_MAX, "1MiB"));
        let begin = std::time::Instant::now();
        let (_, end) = upload(&ringway, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000000\r\n\r\n");
        assert_ne!(end, End::StillOpen);
        assert!(begin.elapsed() < seconds(10));
    }

    fn a_404_before_a_body_arrives(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::with(driver, &[&origin], |c| {
            set(c, "routes", serde_json::json!({"known.test": "app"}));
        });
        for _ in 0..10 {
            let mut client = Client::to(&ringway);
            client.send("POST / HTTP/1.1\r\nHost: other\r\nContent-Length: 200000\r\n\r\n");
            let _ = client.try_send(vec![b'x'; 150_000]);
            assert_eq!(client.response().status, 404);
        }
    }

    fn a_400_with_pipelined_garbage_behind_it_arrives(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        for _ in 0..10 {
            let mut client = Client::to(&ringway);
            client.send(format!("GET / HTTP/1.1\r\nHost : a\r\n\r\n{}", "garbage\r\n".repeat(5000)));
            let (bytes, end) = client.rest(seconds(6));
            assert!(lossy(&bytes).starts_with("HTTP/1.1 400 "), "{}", lossy(&bytes));
            assert_ne!(end, End::StillOpen);
        }
    }

    fn bytes_behind_a_last_request_cost_no_answer(driver) {
        let origin = Origin::new(|c| {
            if c.request().is_some() {
                c.sleep(millis(300));
                c.send(&ok("answer"));
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let requests = [
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody",
            "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        ];
        for (i, request) in requests.iter().enumerate() {
            let mut client = Client::to(&ringway);
            client.send(request);
            origin.wait_requests(i + 1);
            // A CRLF behind the body, as old clients have it, or another request all the same.
            client.send("\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
            let response = client.response();
            assert_eq!(response.text(), "answer");
            assert!(response.says_close());
            assert_eq!(client.rest(seconds(5)), (Vec::new(), End::Fin), "{request}");
        }
        assert_eq!(origin.requests().len(), requests.len());
    }

    fn a_half_closed_client_gets_its_answer(driver) {
        let origin = Origin::new(|c| c.serve(|_| {
            std::thread::sleep(seconds(2));
            Some(crate::origin::ok("late"))
        }));
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.fin();
        assert_eq!(client.response().text(), "late");
        client.closed();
    }
}
