//! Clients that go away while a backend works for them.

use crate::client::{Client, get};
use crate::harness::{Ringway, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{HALF_CLOSE, set};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Never answers `/wait`; counts how many of those the proxy gave up.
fn waiting(gone: Arc<AtomicUsize>) -> Origin {
    Origin::new(move |c| {
        while let Some(request) = c.request() {
            if request.target() == "/wait" {
                if c.wait_gone(seconds(15)) {
                    gone.fetch_add(1, Ordering::SeqCst);
                }
                return;
            }
            c.send(&ok("ok"));
        }
    })
}

on_both_drivers! {
    fn a_reset_client_frees_the_backend(driver) {
        let gone = Arc::new(AtomicUsize::new(0));
        let origin = waiting(gone.clone());
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait_requests(1);
        std::thread::sleep(millis(300));
        client.reset();
        origin.wait_all_closed(seconds(5));
        assert_eq!(gone.load(Ordering::SeqCst), 1);
        let line = &ringway.log(1)[0];
        assert!(line.to_string().to_uppercase().contains("CLIENT_ABORT"), "{line}");
        assert_eq!(get(&ringway, "/").status, 200);
    }

    fn fin_counts_as_gone_when_asked_for(driver) {
        let gone = Arc::new(AtomicUsize::new(0));
        let origin = waiting(gone.clone());
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, HALF_CLOSE, "abort"));
        let mut client = Client::to(&ringway);
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait_requests(1);
        drop(client);
        origin.wait_all_closed(seconds(5));
        assert_eq!(gone.load(Ordering::SeqCst), 1);
    }

    fn a_client_that_resets_in_mid_upload(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf");
        std::thread::sleep(millis(200));
        client.reset();
        origin.wait_all_closed(seconds(5));
        assert!(origin.requests().is_empty());
    }

    fn a_cut_upload_is_a_reset_for_the_backend(driver) {
        // A FIN would let servers such as gunicorn take what came for the whole body.
        let resets = Arc::new(AtomicUsize::new(0));
        let seen = resets.clone();
        let origin = Origin::new(move |c| {
            if c.wait_reset(seconds(10)) {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let begun = |head: &str| {
            let mut client = Client::to(&ringway);
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"));
            std::thread::sleep(millis(200));
            client
        };
        begun("Content-Length: 10\r\n\r\nhello").reset();
        drop(begun("Content-Length: 10\r\n\r\nhello"));
        let mut client = begun("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        client.send("z\r\n");
        assert_eq!(client.response().status, 400);
        origin.wait_all_closed(seconds(5));
        assert_eq!(resets.load(Ordering::SeqCst), 3);
    }

    fn a_client_that_resets_in_mid_download(driver) {
        let origin = Origin::new(|c| {
            if c.request().is_some() {
                c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
                while c.send(&[b'x'; 65_536]) {}
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.raw(100_000);
        client.reset();
        origin.wait_all_closed(seconds(5));
    }

    fn an_abort_is_not_the_backends_fault(driver) {
        let gone = Arc::new(AtomicUsize::new(0));
        let (first, second) = (waiting(gone.clone()), waiting(gone.clone()));
        let ringway = Ringway::before(driver, &[&first, &second]);
        for _ in 0..12 {
            let mut client = Client::to(&ringway);
            client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
            std::thread::sleep(millis(30));
            client.reset();
        }
        first.wait_all_closed(seconds(6));
        second.wait_all_closed(seconds(6));
        assert_eq!(ringway.backend_state("app", "b1"), "up");
        assert_eq!(ringway.backend_state("app", "b2"), "up");
    }
}
