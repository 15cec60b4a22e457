//! Large, slow and odd bodies, with a memory that does not grow.

use crate::client::{Client, End, get};
use crate::harness::{Ringway, eventually, millis, on_both_drivers, seconds};
use crate::message::{Framing, chunks};
use crate::origin::{Origin, ok};
use crate::settings::{BODY_MAX, set};
use crate::toy;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes that say where they stand, so that a lost or doubled block changes them.
fn pattern(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

const LARGE: usize = 24 * 1024 * 1024 + 13;

/// Lets the proxy see that the backend keeps its connection: before that, requests that cannot be sent again get new ones.
fn show_that_it_keeps(client: &mut Client) {
    for _ in 0..2 {
        assert_eq!(client.get("/").status, 200);
    }
}

on_both_drivers! {
    fn large_download_by_length(driver) {
        let data = pattern(LARGE);
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").into_bytes();
        answer.extend_from_slice(&data);
        let origin = Origin::fixed(answer);
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for _ in 0..2 {
            let response = client.get("/");
            assert_eq!(response.framing, Framing::Length(LARGE));
            assert_eq!(hash(&response.body), hash(&data));
        }
        assert_eq!(origin.connections(), 1);
        assert!(ringway.memory_kib("VmHWM") < 64 * 1024, "{} KiB", ringway.memory_kib("VmHWM"));
    }

    fn large_download_in_chunks_of_all_sizes(driver) {
        let data = pattern(3_000_000);
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let mut rest = &data[..];
        for size in [1, 2, 15, 16, 17, 255, 256, 257, 4095, 4096, 4097, 65_535, 65_536, 262_144, 300_000].iter().cycle() {
            if rest.is_empty() { break; }
            let (part, more) = rest.split_at((*size).min(rest.len()));
            answer.extend_from_slice(format!("{:X}\r\n", part.len()).as_bytes());
            answer.extend_from_slice(part);
            answer.extend_from_slice(b"\r\n");
            rest = more;
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        let origin = Origin::fixed(answer);
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for _ in 0..2 {
            assert_eq!(hash(&client.get("/").body), hash(&data));
        }
    }

    fn large_upload_by_length(driver) {
        let data = pattern(LARGE);
        let origin = Origin::new(|c| c.serve(|r| Some(ok(&hash(&r.body).to_string()))));
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, BODY_MAX, "1GiB"));
        let mut client = Client::to(&ringway);
        client.send(format!("PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"));
        client.send(&data);
        assert_eq!(client.response().text(), hash(&data).to_string());
        assert_eq!(origin.last().one("content-length"), Some(LARGE.to_string()));
        assert!(ringway.memory_kib("VmHWM") < 64 * 1024, "{} KiB", ringway.memory_kib("VmHWM"));
    }

    fn large_upload_in_chunks(driver) {
        let data = pattern(5_000_000);
        let origin = Origin::new(|c| c.serve(|r| Some(ok(&hash(&r.body).to_string()))));
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, BODY_MAX, "1GiB"));
        let mut client = Client::to(&ringway);
        show_that_it_keeps(&mut client);
        for size in [997, 70_000] {
            client.send("PUT /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send(chunks(&data, size));
            assert_eq!(client.response().text(), hash(&data).to_string(), "chunks of {size}");
        }
        assert_eq!(origin.connections(), 1);
    }

    fn a_slow_reader_holds_back_the_backend(driver) {
        let size = 60_000_000;
        let origin = Origin::new(move |c| {
            if c.request().is_some() {
                c.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes());
                let block = vec![b'x'; 100_000];
                for _ in 0..size / block.len() {
                    if !c.send(&block) { return; }
                }
                c.fin_and_wait();
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head_of("GET").status, 200);
        std::thread::sleep(seconds(2));
        assert!(ringway.memory_kib("VmHWM") < 64 * 1024, "{} KiB", ringway.memory_kib("VmHWM"));
        let mut left = size;
        while left > 0 {
            let n = left.min(1_000_000);
            assert!(client.raw(n).iter().all(|b| *b == b'x'));
            left -= n;
        }
        client.silent(millis(50));
    }

    fn a_slow_reader_gets_a_spliced_body_whole(driver) {
        let data = pattern(LARGE);
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").into_bytes();
        answer.extend_from_slice(&data);
        let origin = Origin::fixed(answer);
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        let none = ringway.pipes();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head_of("GET");
        // The body stands in a pipe, both ends of which are open, unless the client's bytes are not the socket's.
        let pipe = if toy::is_on() { 0 } else { 2 };
        eventually(seconds(5), "a pipe is in use", || ringway.pipes() == none + pipe);
        let mut body = Vec::new();
        while body.len() < LARGE {
            body.extend(client.raw((LARGE - body.len()).min(300_007)));
            std::thread::sleep(millis(2));
        }
        assert_eq!(hash(&body), hash(&data));
        eventually(seconds(8), "an idle pipe is closed", || ringway.pipes() == none);
        // The connections are as good as before.
        assert_eq!(hash(&client.get("/").body), hash(&data));
        assert_eq!(origin.connections(), 1);
    }

    fn many_spliced_bodies_at_once_do_not_mix(driver) {
        let origin = Origin::new(|c| c.serve(|r| {
            let size = r.target().trim_start_matches('/').parse().unwrap_or(0);
            let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
            answer.extend(pattern(size).iter().map(|b| b ^ size as u8));
            Some(answer)
        }));
        let ringway = Ringway::before(driver, &[&origin]);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let ringway = &ringway;
                scope.spawn(move || {
                    let mut client = Client::to(ringway);
                    for size in [700_000 + n, 1_300_001 * (n % 3 + 1), 131_072 + 20_000 + n] {
                        let response = client.get(&format!("/{size}"));
                        assert!(response.body.iter().zip(pattern(size)).all(|(got, sent)| *got == sent ^ size as u8));
                        assert_eq!(response.body.len(), size);
                    }
                });
            }
        });
    }

    fn a_backend_that_dies_in_a_spliced_body_never_looks_complete(driver) {
        const SENT: usize = 3_000_000;
        for reset in [false, true] {
            // A reset of the client's connection may destroy what the client has not read: the end waits until it has.
            let read = Arc::new(AtomicBool::new(false));
            let all_read = read.clone();
            let origin = Origin::new(move |c| {
                if c.request().is_some() {
                    c.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes());
                    c.send(&pattern(SENT));
                    eventually(seconds(15), "the client has all", || all_read.load(Ordering::SeqCst));
                    if reset { c.reset() } else { c.fin() }
                }
            });
            let ringway = Ringway::before(driver, &[&origin]);
            let mut client = Client::to(&ringway);
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.head_of("GET").status, 200);
            assert!(client.raw(SENT) == pattern(SENT));
            read.store(true, Ordering::SeqCst);
            assert_eq!(client.rest(seconds(10)), (Vec::new(), End::Reset));
            let line = &ringway.log(1)[0];
            assert_eq!(line["reason"], "BACKEND_TRUNCATED", "{line}");
            assert!(line["bytes"].as_u64() > Some(SENT as u64), "{line}");
        }
    }

    fn a_spliced_upload_that_stops_never_looks_complete(driver) {
        let whole = Arc::new(AtomicUsize::new(0));
        let mine = whole.clone();
        let origin = Origin::new(move |c| {
            if c.request().is_some() {
                mine.fetch_add(1, Ordering::SeqCst);
            }
        });
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, BODY_MAX, "1GiB"));
        let mut client = Client::to(&ringway);
        client.send(format!("PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"));
        client.send(pattern(2_000_000)).fin();
        assert_eq!(client.response().status, 400);
        assert_eq!(ringway.log(1)[0]["reason"], "CLIENT_TRUNCATED");
        origin.wait_all_closed(seconds(5));
        assert_eq!(whole.load(Ordering::SeqCst), 0);
    }

    fn a_large_body_until_the_end_of_the_connection_is_copied(driver) {
        let data = pattern(3_000_000);
        let mut answer = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
        answer.extend_from_slice(&data);
        let origin = Origin::once(answer);
        let ringway = Ringway::before(driver, &[&origin]);
        let none = ringway.pipes();
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        assert_eq!(client.head_of("GET").status, 200);
        let (body, end) = client.rest(seconds(10));
        assert_eq!((hash(&body), end), (hash(&data), End::Fin));
        assert_eq!(ringway.pipes(), none);
    }

    fn a_small_answer_is_not_held_back(driver) {
        // Each piece must come through before the next is sent.
        let origin = Origin::new(|c| {
            if c.head().is_some() {
                c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                for i in 0..5 {
                    c.send(format!("7\r\nevent {i}\r\n").as_bytes());
                    c.sleep(millis(150));
                }
                c.send(b"0\r\n\r\n");
                c.fin_and_wait();
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head_of("GET");
        for i in 0..5 {
            let begin = std::time::Instant::now();
            assert_eq!(client.raw(12), format!("7\r\nevent {i}\r\n").into_bytes());
            assert!(begin.elapsed() < millis(600));
        }
    }

    fn upload_pieces_are_not_held_back(driver) {
        let got = Arc::new(AtomicUsize::new(0));
        let mine = got.clone();
        let origin = Origin::new(move |c| {
            if c.head().is_some() {
                while mine.load(Ordering::SeqCst) < 30 {
                    let bytes = c.some();
                    if bytes.is_empty() { return; }
                    mine.fetch_add(bytes.len(), Ordering::SeqCst);
                }
                c.send(&ok("got all of it"));
                c.fin_and_wait();
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n");
        for n in [10, 20, 30] {
            client.send("0123456789");
            eventually(seconds(5), "the piece arrives before the next is sent", || got.load(Ordering::SeqCst) == n);
        }
        assert_eq!(client.response().text(), "got all of it");
    }

    fn empty_bodies(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        show_that_it_keeps(&mut client);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.response().text(), "");
        assert_eq!(origin.last().one("content-length").as_deref(), Some("0"));
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        assert_eq!(client.response().text(), "");
        client.send("POST / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().text(), "");
        assert_eq!(origin.connections(), 1);
    }

    fn a_client_that_stops_in_mid_body_never_looks_complete(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        for head in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
            let mut client = Client::to(&ringway);
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"));
            std::thread::sleep(millis(100));
            client.fin();
            let _ = client.rest(seconds(4));
        }
        origin.wait_all_closed(seconds(5));
        assert!(origin.requests().is_empty(), "an unfinished body was made whole");
    }

    fn sixteen_kib_both_ways_many_times(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        let data = "0123456789abcdef".repeat(1024);
        for _ in 0..100 {
            assert!(client.post("/", &data).text() == data);
        }
        assert_eq!(get(&ringway, "/").status, 200);
    }
}
