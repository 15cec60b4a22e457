//! Malformed messages: the files of tests/data/malformed, and what `ctl errors` keeps of those that came over the wire.
//!
//! A file there holds raw bytes, requests or responses by its directory. Its name tells the verdict on the last message in
//! it: `NAME.STATUS.REASON`, or `NAME.accepted`. Files that `ctl errors --save` wrote are named so, and may be put there as
//! they are; of one that ends with `.partial` only that it can be judged is asked.

use crate::client::{Client, ask};
use crate::harness::{Driver, Ringway, binary, cli, lossy, on_both_drivers, run, seconds};
use crate::origin::Origin;
use crate::wire_case;
use ringway::http::Method;
use ringway::http::reject::Fault;
use ringway::parse::{Side, parse};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const GET: Side = Side::Backend { method: Method::Get, upgrade: b"" };

fn files(side: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/malformed").join(side);
    wire_case::files(&dir)
}

fn name(file: &Path) -> String {
    file.file_name().expect("a name").to_string_lossy().into_owned()
}

/// What parsing a file must come to, by its name; `None` asks for nothing.
fn wanted(name: &str) -> Option<String> {
    let (_, verdict) = name.split_once('.').unwrap_or_else(|| panic!("{name}: NAME.STATUS.REASON or NAME.accepted"));
    (!verdict.ends_with(".partial")).then(|| verdict.to_owned())
}

#[test]
fn each_file_has_the_verdict_of_its_name() {
    let mut reasons = std::collections::BTreeSet::new();
    for (dir, side) in [("request", Side::Client), ("response", GET)] {
        for file in files(dir) {
            let bytes = fs::read(&file).expect("the file");
            let refusal = parse(&bytes, side).refusal();
            let verdict = refusal.map_or("accepted".to_owned(), |r| format!("{}.{}", r.status, r.reason));
            let name = name(&file);
            if let Some(wanted) = wanted(&name) {
                assert_eq!(verdict, wanted, "{dir}/{name}");
            }
            reasons.extend(refusal.map(|r| r.reason));
        }
    }
    // A rule that no file breaks here is one that nobody looks at. `Malformed` is for what no other rule names, and names
    // with `_` are refused only where the config says so, https targets only where the connection is not secured.
    let elsewhere = [Fault::Malformed, Fault::Underscore, Fault::InsecureHttps];
    let unseen = |fault: &&Fault| !reasons.contains(fault.name()) && !elsewhere.contains(fault);
    assert_eq!(Fault::ALL.iter().filter(unseen).collect::<Vec<_>>(), Vec::<&Fault>::new());
}

#[test]
fn the_command_says_the_same() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/malformed");
    let out = cli(&["parse", "request/second-of-two.400.space-before-colon"], &dir);
    let text = lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{text}{}", lossy(&out.stderr));
    assert!(
        text.contains("request 1 at byte 0: accepted") && text.contains("REFUSED, 400 space-before-colon"),
        "{text}"
    );
    assert!(text.contains("byte 57: Host : shop.test") && text.contains("RFC 9112 section 5.1"), "{text}");
    let out = cli(&["parse", "--response", "response/interim-then-final.accepted", "--json"], &dir);
    assert_eq!(out.status.code(), Some(0), "{}", lossy(&out.stderr));
    let shown: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!((&shown["accepted"], &shown["messages"][1]["status"]), (&Value::from(true), &Value::from(204)));
    assert_eq!(cli(&["parse", "nothing-there"], &dir).status.code(), Some(2));
    assert_eq!(cli(&["parse", "--to", "HEAD", "x"], &dir).status.code(), Some(2), "--to is for responses");
    let mut command = Command::new(binary());
    let file = fs::File::open(dir.join("response/cut.502.truncated")).expect("the file");
    command.args(["parse", "--response", "--to", "HEAD", "-"]).stdin(Stdio::from(file));
    let out = command.output().expect("it runs");
    // To HEAD no body belongs; what stands there is no response.
    assert!(out.status.code() == Some(1) && lossy(&out.stdout).contains("not-http"), "{}", lossy(&out.stdout));
}

/// What `ctl errors` tells of refused messages, the newest first.
fn told(ringway: &Ringway, args: &[&str]) -> Vec<Value> {
    let out = ringway.ctl(&[&["errors", "--json"][..], args].concat());
    assert!(out.status.success(), "{}", lossy(&out.stderr));
    let all: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    all["malformed"].as_array().expect("a list").clone()
}

/// The file that was saved of one, judged by the command: offset and clause.
fn judged_again(one: &Value) -> (Value, Value, Value) {
    let file = one["file"].as_str().unwrap_or_else(|| panic!("not saved: {one:#}"));
    let mode = fs::metadata(file).expect("the file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{file}");
    let mut command = Command::new(binary());
    command.args(["parse", "--json", file]);
    if one["side"] == "response" {
        command.arg("--response");
    }
    let out = run(command, seconds(10));
    assert_eq!(out.status.code(), Some(1), "{file}: {}", lossy(&out.stderr));
    let shown: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let last = shown["messages"].as_array().and_then(|all| all.last().cloned()).expect("a message");
    let refusal = &last["refusal"];
    (refusal["at"].clone(), refusal["clause"].clone(), refusal["reason"].clone())
}

on_both_drivers! {
    fn the_wire_says_the_same(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        for file in files("request") {
            let Some(wanted) = wanted(&name(&file)) else { continue };
            let status = wanted.split_once('.').map_or("200", |(status, _)| status);
            let bytes = fs::read(&file).expect("the file");
            let mut client = Client::to(&ringway);
            // Who is refused while it still sends may find the connection reset.
            let _ = client.try_send(&bytes);
            client.fin();
            let (answers, _) = client.rest(seconds(10));
            let answers = lossy(&answers);
            let begins = |text: &&str| text.starts_with(|first: char| first.is_ascii_digit());
            let answered: Vec<&str> = answers.split("HTTP/1.1 ").filter(begins).collect();
            assert!(answered.last().is_some_and(|last| last.starts_with(status)), "{}: {answers}", name(&file));
            let seen = parse(&bytes, Side::Client).messages.len();
            assert_eq!(answered.len(), seen, "{}: {answers}", name(&file));
        }
    }

    fn what_is_refused_is_kept_and_can_be_saved(driver) {
        let origin = Origin::new(|conn| {
            conn.serve(|request| match request.target().as_str() {
                "/head" => Some(b"HTTP/1.1 200 OK\r\nSet-Cookie: id=sesame\r\nContent-Length: 5x\r\n\r\nhidden".to_vec()),
                "/chunk" => {
                    Some(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhidden\r\nzz\r\n".to_vec())
                }
                _ => None,
            });
        });
        let ringway = Ringway::before(driver, &[&origin]);
        let secret = "Cookie: id=sesame\r\nAuthorization: Basic sesame\r\n";
        let spaced = format!("POST / HTTP/1.1\r\nHost: a\r\n{secret}X : y\r\nContent-Length: 6\r\n\r\nhidden");
        assert_eq!(ask(&ringway, &spaced).status, 400);
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhidden\r\n-1\r\n";
        assert_eq!(ask(&ringway, chunked).status, 400);
        assert_eq!(ask(&ringway, "GET / HTTP/1.1\nHost: a\n\n").status, 400);
        assert_eq!(ask(&ringway, "GET /head HTTP/1.1\r\nHost: a\r\n\r\n").status, 502);
        let mut client = Client::to(&ringway);
        client.send("GET /chunk HTTP/1.1\r\nHost: a\r\n\r\n");
        let _ = client.rest(seconds(5));

        let dir = ringway.scratch.path("refused");
        let save = ["--save", dir.to_str().expect("a path")];
        let all = told(&ringway, &save);
        let one = |side: &str, reason: &str| {
            let found = all.iter().find(|one| one["side"] == side && one["reason"] == reason);
            found.unwrap_or_else(|| panic!("no {side} {reason} in {all:#?}")).clone()
        };
        assert_eq!(all.len(), 5, "{all:#?}");
        for (side, reason, at, clause, left_out, status) in [
            ("request", "space-before-colon", spaced.find(" : y").expect("there"), "RFC 9112 section 5.1", 0, 400),
            ("request", "bare-lf", 14, "RFC 9112 section 2.2", 0, 400),
            ("request", "chunk-size", chunked.find("6\r\nh").expect("there"), "RFC 9112 section 7.1", 11, 400),
            ("response", "bad-length", 57, "RFC 9110 section 8.6", 0, 502),
            ("response", "chunk-size", 47, "RFC 9112 section 7.1", 11, 502),
        ] {
            let one = one(side, reason);
            assert_eq!((&one["offset"], &one["clause"]), (&Value::from(at), &Value::from(clause)), "{one:#}");
            assert_eq!((&one["left_out"], &one["status"]), (&Value::from(left_out), &Value::from(status)), "{one:#}");
            assert_eq!((&one["partial"], &one["listener"]), (&Value::from(false), &Value::from("main")));
            let again = judged_again(&one);
            assert_eq!(again, (one["offset"].clone(), one["clause"].clone(), one["reason"].clone()), "{one:#}");
            let peer = one["peer"].as_str().expect("a peer");
            assert!(if side == "request" { peer.starts_with("127.") } else { peer.starts_with("app/b1 127.") }, "{peer}");
            let bytes = fs::read(one["file"].as_str().expect("saved")).expect("the file");
            assert!(!lossy(&bytes).contains("hidden") && !lossy(&bytes).contains("sesame"), "{}", lossy(&bytes));
        }
        assert_eq!(one("request", "space-before-colon")["masked"], 20);
        // Nothing is written twice, nothing is written over.
        let first = one("request", "bare-lf")["file"].as_str().expect("saved").to_owned();
        assert!(first.ends_with("/request-core0-3.400.bare-lf"), "{first}");
        assert_eq!(told(&ringway, &save).len(), 5);
        assert_eq!(fs::read_dir(&dir).expect("the directory").count(), 5);
        fs::write(&first, "mine").expect("write");
        let again = told(&ringway, &save);
        assert!(again.iter().any(|one| one["file"].as_str().is_some_and(|f| f.ends_with("/request-core0-3-2.400.bare-lf"))));
        assert_eq!(fs::read(&first).expect("the file"), b"mine");
        // For people, and without bytes unless they are asked for.
        let text = lossy(&ringway.ctl(&["errors"]).stdout);
        assert!(text.contains(r"  byte 14: GET / HTTP/1.1\n"), "{text}");
        assert!(told(&ringway, &[]).iter().all(|one| one.get("bytes").is_none() && one.get("file").is_none()));
    }

    fn a_flood_of_one_kind_leaves_the_others(driver) {
        flood(driver);
    }
}

fn flood(driver: Driver) {
    let origin = Origin::saying("fine");
    let ringway = Ringway::before(driver, &[&origin]);
    assert_eq!(ask(&ringway, "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n").status, 400);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\nY : z\r\n\r\n", "a".repeat(16_000));
    let memory = |ringway: &Ringway| ringway.memory_kib("VmRSS");
    for _ in 0..200 {
        assert_eq!(ask(&ringway, &long).status, 400);
    }
    let before = memory(&ringway);
    for _ in 0..10_000 {
        assert_eq!(ask(&ringway, &long).status, 400);
    }
    let grown = memory(&ringway).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more");
    let all = told(&ringway, &[]);
    assert_eq!(all.iter().filter(|one| one["reason"] == "space-before-colon").count(), 4);
    assert_eq!(all.iter().filter(|one| one["reason"] == "empty-name").count(), 1, "{all:#?}");
    assert_eq!((all.len(), &all[0]["number"]), (5, &Value::from(10_201)));
}
