//! Strict HTTP: the cases of `tests/data/wire`, raw malformed messages, and responses that end at each of their bytes.

use crate::client::{Client, End, get};
use crate::harness::{Driver, Ringway, lossy, millis, on_both_drivers, seconds};
use crate::message::{self, Framing, Taken};
use crate::origin::Origin;
use crate::settings::{CLIENT_HEAD, set};
use crate::wire_case::{Case, Stage, cases, directory, files};
use serde_json::Map;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// Proxies that play cases at the same time.
const STAGES: usize = 4;

/// Responses with the body `helloabc`, the end of which stands in their framing.
const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhelloabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
];

/// Requests with a body.
const REQUESTS: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: wire.test\r\nContent-Length: 8\r\n\r\nhelloabc",
    "POST / HTTP/1.1\r\nHost: wire.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
];

/// How many segments have come in on a connection (`tcpi_segs_in` of `struct tcp_info`, linux/tcp.h).
fn segments_received(stream: &TcpStream) -> u32 {
    let mut info = [0_u32; 64];
    let mut len = size_of_val(&info) as libc::socklen_t;
    let to = info.as_mut_ptr().cast();
    // SAFETY: pointer and length name the array, of which the kernel writes at most so many bytes.
    let result = unsafe { libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut len) };
    assert!(result == 0 && len > 144, "the kernel tells segments");
    info[35]
}

/// Runs `each` over all items, on several stages; the text of every panic, with the item's title.
fn on_stages<T: Sync>(
    driver: Driver,
    items: &[T],
    title: impl Fn(&T) -> String + Sync,
    each: impl Fn(&Stage, &T) + Sync,
) -> Vec<String> {
    let faults: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for lane in 0..STAGES.min(items.len()) {
            let (faults, title, each) = (&faults, &title, &each);
            scope.spawn(move || {
                let stage = Stage::new(driver, &Map::new());
                for item in items.iter().skip(lane).step_by(STAGES) {
                    faults
                        .lock()
                        .expect("faults")
                        .extend(fault_of(|| each(&stage, item)).map(|f| format!("{}\n    {f}", title(item))));
                }
            });
        }
    });
    faults.into_inner().expect("faults")
}

fn fault_of(play: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(play)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default())
}

on_both_drivers! {
    fn the_last_bytes_and_the_end_are_one_segment(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = TcpStream::connect(ringway.address).unwrap();
        client.set_read_timeout(Some(seconds(5))).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert!(all.ends_with(b"\r\n\r\nanswer"), "{}", lossy(&all));
        // SYN and ACK, the ACK of the request (which may come with the answer), the answer with its FIN.
        assert!(segments_received(&client) <= 3);
    }

    fn cases_of_the_rfcs(driver) {
        let (plain, own): (Vec<Case>, Vec<Case>) = cases().into_iter().partition(|case| case.config.is_empty());
        assert!(plain.len() + own.len() >= 50);
        let mut faults = on_stages(driver, &plain, Case::title, Stage::play);
        for case in &own {
            let play = || Stage::new(driver, &case.config).play(case);
            faults.extend(fault_of(play).map(|f| format!("{}\n    {f}", case.title())));
        }
        assert!(faults.is_empty(), "{} cases:\n{}", faults.len(), faults.join("\n"));
    }

    /// The raw responses of tests/data/malformed: the client gets a 502, or sees that its response was cut.
    fn malformed_responses(driver) {
        let mut found = files(&directory().join("../malformed/response"));
        found.retain(|path| path.extension().is_none_or(|verdict| verdict != "accepted"));
        assert!(!found.is_empty());
        let faults = on_stages(driver, &found, |path| path.display().to_string(), |stage, path| {
            stage.answer_next_with(&fs::read(path).expect("a malformed response"), End::Fin);
            let mut client = Client::to(&stage.ringway);
            client.send("GET / HTTP/1.1\r\nHost: wire.test\r\n\r\n");
            let mut response = client.head_of("GET");
            while response.status < 200 {
                response = client.head_of("GET");
            }
            if response.status != 502 {
                let (came, end) = client.rest(seconds(5));
                let taken = message::take_body(&came, response.framing);
                assert!(matches!(taken, Taken::More), "it looks complete: {:?}", lossy(&came));
                assert_ne!(end, End::StillOpen);
            }
        });
        assert!(faults.is_empty(), "{} files:\n{}", faults.len(), faults.join("\n"));
    }

    /// The response ends at each of its bytes, in order and with a reset, towards clients of both versions.
    fn responses_cut_at_each_byte(driver) {
        let mut cuts = Vec::new();
        for whole in RESPONSES {
            for at in 0..=whole.len() {
                for end in [End::Fin, End::Reset] {
                    cuts.extend(["1.1", "1.0"].map(|version| (whole, at, end, version)));
                }
            }
        }
        let title = |(whole, at, end, version): &(&&str, usize, End, &str)| format!("{version} {end:?} at {at} of {whole:?}");
        let faults = on_stages(driver, &cuts, title, |stage, &(whole, at, end, version)| {
            if at == 0 {
                // The connection that ends without an answer is one of the pool, as an idle one may at any time.
                assert_eq!(get(&stage.ringway, "/before").status, 200);
                std::thread::sleep(millis(10));
            }
            stage.answer_next_with(&whole.as_bytes()[..at], end);
            let mut client = Client::to(&stage.ringway);
            client.send(format!("GET / HTTP/{version}\r\nHost: wire.test\r\nConnection: close\r\n\r\n"));
            let head = client.head_of("GET");
            let (body, ended) = client.rest(seconds(5));
            assert_ne!(ended, End::StillOpen);
            let (complete, bytes) = match message::take_body(&body, head.framing) {
                Taken::All { body, .. } => (true, body),
                Taken::More => (head.framing == Framing::UntilClose && ended == End::Fin, body),
                Taken::Wrong(why) => panic!("{why} in {:?}", lossy(&body)),
            };
            let head_end = message::head_end(whole.as_bytes()).expect("a head");
            if at == 0 {
                // RFC 9110 section 9.2.2: a GET is sent again where no byte of an answer came.
                assert_eq!((head.status, lossy(&bytes).as_str(), stage.requests("/").0), (200, "ok", 2));
                return;
            }
            assert_eq!(stage.requests("/").0, 1, "sent again behind a response byte");
            if at < head_end {
                assert_eq!((head.status, complete), (502, true));
            } else if at == whole.len() {
                assert_eq!((head.status, complete, lossy(&bytes).as_str()), (200, true, "helloabc"));
            } else {
                assert!(head.status == 502 || !complete, "{} and {:?} look complete", head.status, lossy(&bytes));
            }
        });
        assert!(faults.is_empty(), "{} cuts:\n{}", faults.len(), faults.join("\n"));
    }

    /// A body until the end of the connection is whole only if that end is FIN.
    fn until_close_cut_at_each_byte(driver) {
        let whole = "HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nhelloabc";
        let cuts: Vec<(usize, &str)> = (23..=whole.len()).flat_map(|at| ["1.1", "1.0"].map(|v| (at, v))).collect();
        let faults = on_stages(driver, &cuts, |cut| format!("{cut:?}"), |stage, &(at, version)| {
            for end in [End::Fin, End::Reset] {
                stage.answer_next_with(&whole.as_bytes()[..at], end);
                let mut client = Client::to(&stage.ringway);
                client.send(format!("GET / HTTP/{version}\r\nHost: wire.test\r\nConnection: close\r\n\r\n"));
                let head = client.head_of("GET");
                let (body, ended) = client.rest(seconds(5));
                let complete = match message::take_body(&body, head.framing) {
                    Taken::All { .. } => true,
                    Taken::More => head.framing == Framing::UntilClose && ended == End::Fin,
                    Taken::Wrong(why) => panic!("{why} in {:?}", lossy(&body)),
                };
                let head_came = at >= message::head_end(whole.as_bytes()).expect("a head");
                match (head_came, end) {
                    (false, _) => assert_eq!(head.status, 502),
                    (true, End::Fin) => assert_eq!((head.status, complete), (200, true)),
                    (true, _) => assert!(head.status == 502 || !complete, "looks complete: {:?}", lossy(&body)),
                }
            }
        });
        assert!(faults.is_empty(), "{} cuts:\n{}", faults.len(), faults.join("\n"));
    }

    /// What is not idempotent is not sent again, wherever the response ends.
    fn post_is_sent_once_wherever_the_response_ends(driver) {
        let whole = RESPONSES[0].as_bytes();
        let cuts: Vec<usize> = (0..whole.len()).collect();
        let faults = on_stages(driver, &cuts, usize::to_string, |stage, &at| {
            stage.answer_next_with(&whole[..at], End::Reset);
            let mut client = Client::to(&stage.ringway);
            client.send("POST / HTTP/1.1\r\nHost: wire.test\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx");
            let (_, end) = client.rest(seconds(5));
            assert_ne!(end, End::StillOpen);
            assert_eq!(stage.requests("/").0, 1);
        });
        assert!(faults.is_empty(), "{} cuts:\n{}", faults.len(), faults.join("\n"));
    }

    /// The request ends at each of its bytes: no backend sees a whole one, and none that has no whole head.
    fn requests_cut_at_each_byte(driver) {
        let mut cuts = Vec::new();
        for whole in REQUESTS {
            cuts.extend((0..whole.len()).flat_map(|at| [End::Fin, End::Reset].map(|end| (whole, at, end))));
        }
        let title = |(whole, at, end): &(&&str, usize, End)| format!("{end:?} at {at} of {whole:?}");
        let faults = on_stages(driver, &cuts, title, |stage, &(whole, at, end)| {
            stage.answer_next_with(&crate::origin::ok("ok"), End::StillOpen);
            let mut client = Client::to(&stage.ringway);
            // What comes late of one cut is not counted for the next.
            let target = format!("/{at}/{end:?}/{}", whole.len());
            let cut = whole.replacen(" / ", &format!(" {target} "), 1);
            let at = if at < 6 { at } else { at + target.len() - 1 };
            client.send(&cut[..at]);
            if end == End::Reset {
                client.reset();
            } else {
                client.fin();
                let (came, end) = client.rest(seconds(5));
                assert_eq!(end, End::Fin);
                assert!(came.is_empty() || came.starts_with(b"HTTP/1.1 400 "), "{:?}", lossy(&came));
            }
            let (begun, complete) = stage.requests(&target);
            assert_eq!(complete, 0, "a cut request looks complete");
            assert!(begun == 0 || at >= message::head_end(cut.as_bytes()).expect("a head"), "half a head went on");
        });
        assert!(faults.is_empty(), "{} cuts:\n{}", faults.len(), faults.join("\n"));
    }

    /// The operator is told what came, not only that it was no HTTP/1.1.
    fn other_protocols_have_reasons_of_their_own(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        for (name, status) in [("tls-hello.400.tls-hello", "400"), ("http2-preface.505.http2-preface", "505")] {
            let mut client = Client::to(&ringway);
            let _ = client.try_send(fs::read(directory().join("../malformed/request").join(name)).expect(name));
            let (came, end) = client.rest(seconds(5));
            assert!(came.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{name}: {:?}", lossy(&came));
            assert_eq!(end, End::Fin, "{name}");
        }
        let reasons: Vec<String> = ringway.log(2).iter().map(|line| line["reason"].as_str().expect("a reason").into()).collect();
        assert_eq!(reasons, ["TLS_HELLO", "HTTP2_PREFACE"]);
        assert!(origin.requests().is_empty());
    }

    /// A CRLF behind a body is no request of which the rest is waited for: no 408 for it, and no line in the log.
    fn empty_lines_alone_time_out_in_silence(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, CLIENT_HEAD, "1s"));
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: wire.test\r\nContent-Length: 1\r\n\r\nx\r\n");
        assert_eq!(client.response().status, 200);
        client.closed();
        assert_eq!(get(&ringway, "/").status, 200);
        assert_eq!(ringway.log(2).len(), 2);
    }
}
