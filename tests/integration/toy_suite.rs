//! What the toy transport shows: torn and merged records, and the whole suite about messages through it.

use crate::client::{Client, End};
use crate::harness::{Driver, Ringway, lossy, millis, on_both_drivers, seconds};
use crate::origin::Origin;
use crate::toy::{PAYLOAD_MAX, SWITCH, Sealer, ToyWire};
use crate::upgrade;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

/// A socket to send records as one likes, and a client on the same socket that reads answers.
fn by_hand(ringway: &Ringway) -> (TcpStream, Client) {
    let socket = TcpStream::connect(ringway.address).expect("connect to the proxy");
    socket.set_nodelay(true).expect("no delay");
    let same = socket.try_clone().expect("a second descriptor");
    (socket, Client::over(Box::new(ToyWire::new(Box::new(same)))))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

on_both_drivers! {
    fn requests_that_were_read_ahead_are_served(driver) {
        // Both records come with one receive. Behind the first request the connection goes idle, nothing is left in the
        // socket, and only the stream itself can tell that it is readable.
        let origin = Origin::echo();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        let (mut socket, mut client) = by_hand(&ringway);
        let mut sealer = Sealer::default();
        for _ in 0..20 {
            let both = [sealer.record(get("/1")), sealer.record(get("/2"))].concat();
            socket.write_all(&both).expect("sent");
            assert_eq!((client.response().status, client.response().status), (200, 200));
        }
        assert_eq!(origin.requests().len(), 40);
    }

    fn a_record_comes_in_pieces_and_ends_anywhere_in_a_message(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        let (mut socket, mut client) = by_hand(&ringway);
        let mut sealer = Sealer::default();
        let body = "0123456789".repeat(3000);
        let message = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        for (payload, piece) in [(50, 9), (1000, 333), (PAYLOAD_MAX, 5000), (PAYLOAD_MAX, 100_000)] {
            let records: Vec<u8> = message.as_bytes().chunks(payload).flat_map(|part| sealer.record(part)).collect();
            for (i, piece) in records.chunks(piece).enumerate() {
                socket.write_all(piece).expect("sent");
                if i % 64 == 0 {
                    std::thread::sleep(millis(1));
                }
            }
            assert!(client.response().text() == body, "records of {payload} in pieces of {piece}");
        }
    }

    fn half_a_record_is_nothing(driver) {
        // All of a request but the record's last byte: none of it may be acted upon.
        let origin = Origin::echo();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        let (mut socket, mut client) = by_hand(&ringway);
        let record = Sealer::default().record(get("/1") + "x");
        socket.write_all(&record[..record.len() - 1]).expect("sent");
        client.silent(millis(300));
        client.fin();
        client.closed();
        assert!(origin.requests().is_empty());
    }

    fn an_upload_that_ends_inside_a_record_is_truncated(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        let (mut socket, mut client) = by_hand(&ringway);
        let mut sealer = Sealer::default();
        let head = sealer.record("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
        let record = sealer.record("cdx");
        socket.write_all(&[&head[..], &record[..record.len() - 1]].concat()).expect("sent");
        client.fin();
        assert_eq!(client.response().status, 400);
        client.closed();
        assert!(origin.requests().is_empty());
    }

    fn an_end_inside_a_record_is_no_half_close_of_a_tunnel(driver) {
        // An end between two records is passed on, and the backend's last words come back. A torn one cuts the tunnel.
        let origin = upgrade::echo_tunnel();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        for (torn, last_words) in [(false, "bye"), (true, "")] {
            let (mut socket, mut client) = by_hand(&ringway);
            let mut sealer = Sealer::default();
            socket.write_all(&sealer.record(upgrade::ASK)).expect("sent");
            assert_eq!(client.head_of("GET").status, 101);
            socket.write_all(&sealer.record("echo")).expect("sent");
            assert_eq!(client.raw(4), b"echo");
            let record = sealer.record("more");
            socket.write_all(if torn { &record[..3] } else { &[] }).expect("sent");
            client.fin();
            let (rest, end) = client.rest(seconds(5));
            assert_eq!((lossy(&rest).as_str(), end), (last_words, End::Fin), "torn: {torn}");
        }
        origin.wait_all_closed(seconds(5));
    }

    fn what_is_no_record_ends_the_connection(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::behind_toy(driver, &[&origin]);
        for bytes in [&b"\x40\x01"[..], b"\0\0", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let (mut socket, mut client) = by_hand(&ringway);
            socket.write_all(bytes).expect("sent");
            let (answer, end) = client.rest(seconds(5));
            // Bytes that nobody reads turn the close into a reset.
            assert!(answer.is_empty() && end != End::StillOpen, "{} {end:?}", lossy(&answer));
        }
        assert!(origin.requests().is_empty());
    }
}

/// Everything about messages, run again through the toy. The other modules are about the process (`cli`, `reload`, `log`),
/// about backends, whose connections stay clear text (`balance`, `failure`, `health`), or about limits and time.
const SUITE: &[&str] =
    &["basic::", "framing::", "smuggling::", "keepalive::", "bodies::", "early::", "upgrade::", "headers::", "close::"];

#[test]
fn the_suite_passes_through_a_stream_that_transforms() {
    let other = if Driver::Uring.usable() { "::epoll" } else { "::uring" };
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(SUITE).args(["--skip", other, "--skip", "toy", "--test-threads=16"]).env(SWITCH, "1");
    let output = crate::harness::run(command, seconds(240));
    let said = lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", lossy(&output.stderr));
    let passed = said.lines().filter(|line| line.starts_with("test ") && line.ends_with("... ok")).count();
    assert!(passed > 50, "only {passed} tests ran: {said}");
}
