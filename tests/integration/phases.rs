//! Where the time of an exchange went, as the access log tells it.

use crate::client::{Client, ask, get};
use crate::harness::{Ringway, free_address, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{CONNECT, set};
use crate::upgrade::{ASK, echo_tunnel};
use serde_json::Value;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const PHASES: [&str; 8] = [
    "head_us",
    "queue_us",
    "connect_us",
    "retry_us",
    "first_byte_us",
    "body_client_us",
    "body_backend_us",
    "tunnel_us",
];

/// How long something is made to take, and the least that the log has to show of it.
const PAUSE_MS: u64 = 400;
const SHOWN_US: u64 = 350_000;
/// More than the kernel takes from a sender whose peer does not read.
const LARGE: usize = 30_000_000;

fn us(line: &Value, name: &str) -> u64 {
    line[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// The lines so far, once there are `n`; the phases of each sum to its duration.
fn log(ringway: &Ringway, n: usize) -> Vec<Value> {
    let lines = ringway.log(n);
    for line in &lines {
        assert_eq!(PHASES.iter().map(|name| us(line, name)).sum::<u64>(), us(line, "duration_us"), "{line}");
    }
    lines
}

/// The pause is in this phase and in no other.
fn all_in(line: &Value, phase: &str) {
    for name in PHASES {
        assert_eq!(us(line, name) >= SHOWN_US, name == phase, "{phase}: {line}");
    }
}

fn pause() {
    std::thread::sleep(millis(PAUSE_MS));
}

/// A listener that takes no connection: its queue is full. The kernel drops what else comes.
struct Blackhole {
    address: SocketAddr,
    _listener: TcpListener,
    _fillers: Vec<TcpStream>,
}

impl Blackhole {
    fn new() -> Blackhole {
        let listener = TcpListener::bind(free_address()).expect("bind");
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let address = listener.local_addr().expect("its address");
        let connect = || TcpStream::connect_timeout(&address, millis(200)).ok();
        // One connection fits a queue of length 0.
        let fillers = std::iter::from_fn(connect).take(8).collect();
        Blackhole { address, _listener: listener, _fillers: fillers }
    }
}

on_both_drivers! {
    fn a_slow_answer_is_time_to_the_first_byte(driver) {
        let origin = Origin::new(|c| c.serve(|_| { pause(); Some(ok("late")) }));
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.get("/new");
        client.get("/reused");
        client.post("/with-a-body", "x");
        for line in log(&ringway, 3) {
            all_in(&line, "first_byte_us");
        }
    }

    fn a_slow_head_is_the_clients_and_idling_is_nobodys(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET /slow HTTP/1.1\r\nHo");
        pause();
        client.send("st: a\r\n\r\n");
        client.response();
        pause();
        client.get("/quick");
        let lines = log(&ringway, 2);
        all_in(&lines[0], "head_us");
        assert_eq!(us(&lines[1], "head_us"), 0);
        assert!(us(&lines[1], "duration_us") < SHOWN_US, "{}", lines[1]);
        assert_eq!((us(&lines[1], "connect_us"), us(&lines[1], "retry_us")), (0, 0));
    }

    fn a_slow_reader_is_the_clients(driver) {
        let origin = Origin::new(|c| {
            let body = "x".repeat(LARGE);
            c.serve(move |_| Some(ok(&body)));
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait_requests(1);
        std::thread::sleep(millis(2 * PAUSE_MS));
        assert_eq!(client.response().body.len(), LARGE);
        let lines = log(&ringway, 1);
        assert!(us(&lines[0], "body_client_us") >= SHOWN_US, "{}", lines[0]);
        assert!(us(&lines[0], "body_client_us") > us(&lines[0], "body_backend_us"), "{}", lines[0]);
    }

    fn a_slow_body_is_the_backends(driver) {
        let origin = Origin::new(|c| {
            while c.request().is_some() {
                c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
                pause();
                c.send(b"3\r\ndef\r\n0\r\n\r\n");
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        assert_eq!(get(&ringway, "/").text(), "abcdef");
        all_in(&log(&ringway, 1)[0], "body_backend_us");
    }

    fn a_slow_upload_is_the_clients(driver) {
        let origin = Origin::saying("thanks");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf");
        pause();
        client.send("half");
        client.response();
        all_in(&log(&ringway, 1)[0], "body_client_us");
    }

    fn an_upload_that_is_not_taken_is_the_backends(driver) {
        let origin = Origin::new(|c| {
            if c.head().is_some() {
                std::thread::sleep(millis(2 * PAUSE_MS));
                c.swallow(LARGE);
                c.send(&ok("taken"));
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"));
        client.send(vec![b'x'; LARGE]);
        assert_eq!(client.response().status, 200);
        let lines = log(&ringway, 1);
        assert!(us(&lines[0], "body_backend_us") >= SHOWN_US, "{}", lines[0]);
        assert!(us(&lines[0], "first_byte_us") < SHOWN_US, "{}", lines[0]);
    }

    fn who_waits_for_a_100_waits_for_the_backend(driver) {
        let origin = Origin::new(|c| {
            if c.head().is_some() {
                pause();
                c.send(b"HTTP/1.1 100 Continue\r\n\r\n");
                c.swallow(4);
                c.send(&ok("whole"));
            }
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(client.any_response("POST").status, 100);
        pause();
        client.send("body");
        assert_eq!(client.response().status, 200);
        let lines = log(&ringway, 1);
        for (name, is) in [("first_byte_us", true), ("body_client_us", true), ("body_backend_us", false)] {
            assert_eq!(us(&lines[0], name) >= SHOWN_US, is, "{name}: {}", lines[0]);
        }
    }

    fn a_connect_that_hangs_is_retry_time_if_another_one_serves(driver) {
        let (hole, origin) = (Blackhole::new(), Origin::saying("ok"));
        let ringway = Ringway::with(driver, &[&origin], |c| {
            set(c, "clusters/app/backends/b0", hole.address.to_string());
            set(c, CONNECT, "1s");
        });
        let mut client = Client::to(&ringway);
        for _ in 0..2 {
            assert_eq!(client.get("/").status, 200);
        }
        let lines = log(&ringway, 2);
        let retried = lines.iter().find(|line| line["retries"] == 1).expect("one went to the hole first");
        assert!(us(retried, "retry_us") >= 900_000, "{retried}");
        assert!(us(retried, "connect_us") < 900_000 && retried["backend"] == "b1", "{retried}");
    }

    fn a_connect_that_hangs_is_connect_time_if_nobody_serves(driver) {
        let hole = Blackhole::new();
        let origin = Origin::saying("never asked");
        let ringway = Ringway::with(driver, &[&origin], |c| {
            set(c, "clusters/app/backends/b1", hole.address.to_string());
            set(c, CONNECT, "1s");
        });
        assert_eq!(get(&ringway, "/").status, 504);
        let lines = log(&ringway, 1);
        assert!(us(&lines[0], "connect_us") >= 900_000, "{}", lines[0]);
        assert_eq!(us(&lines[0], "retry_us"), 0);
    }

    fn a_tunnel_has_a_time_of_its_own(driver) {
        let origin = echo_tunnel();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send(ASK);
        assert_eq!(client.head_of("GET").status, 101);
        pause();
        client.send("x");
        client.raw(1);
        client.fin();
        client.rest(seconds(3));
        all_in(&log(&ringway, 1)[0], "tunnel_us");
    }

    fn the_phases_of_every_exchange_sum_to_its_duration(driver) {
        let origin = Origin::new(|c| c.serve(|request| match request.target().as_str() {
            "/close" => None,
            "/chunked" => Some(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n".to_vec()),
            "/large" => Some(ok(&"x".repeat(300_000))),
            "/broken" => Some(b"HTTP/1.1 OK 200\r\n\r\n".to_vec()),
            _ => Some(ok("ok")),
        }));
        let ringway = Ringway::with(driver, &[&origin], |c| {
            set(c, "clusters/dead/backends/b1", free_address().to_string());
            set(c, "routes/dead.test", "dead");
        });
        let mut client = Client::to(&ringway);
        let mut n = 0;
        for round in 0..20 {
            for path in ["/", "/chunked", "/large", "/close", "/broken"] {
                client.get(path);
                n += 1;
            }
            client.post("/", &"y".repeat(1000 * round));
            client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
            client.response();
            client.response();
            ask(&ringway, "GET / HTTP/1.1\r\nHost: dead.test\r\n\r\n");
            ask(&ringway, "GET / HTTP/1.1\r\nHost : a\r\n\r\n");
            n += 5;
        }
        let lines = log(&ringway, n);
        assert_eq!(lines.len(), n);
        assert!(lines.iter().all(|line| us(line, "duration_us") < 60_000_000));
    }
}
