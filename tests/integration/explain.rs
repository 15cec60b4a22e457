//! What `ringway explain` says is what happens.

use crate::client::{Client, Response, get};
use crate::harness::{Driver, Ringway, Scratch, cli, lossy, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use ringway::control::dry;
use ringway::explain::{ClusterSeen, Explanation, Question, explain, no_notes};
use serde_json::{Value, json};

/// Requests of each random series; there are four.
const REQUESTS: usize = 2500;

/// Numbers that look random (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.roll(all.len())]
    }
}

/// Six backends that answer with their number and the head they got, behind all kinds of rules and balancing.
fn config(origins: &[Origin]) -> Value {
    let some = |numbers: &[usize]| -> Value {
        numbers.iter().map(|n| (format!("b{n}"), json!(origins[*n].address().to_string()))).collect()
    };
    let hash = |by: Value| json!({ "hash": by });
    let spare = |mut backends: Value| {
        backends["b4"] = json!({ "address": backends["b4"], "backup": true });
        backends
    };
    json!({
        "clusters": {
            "turns": { "backends": some(&[0, 1, 2]) },
            "path": { "backends": some(&[0, 1, 2, 3, 4, 5]), "balance": hash(json!("path")) },
            "user": { "backends": some(&[1, 3, 5]), "balance": hash(json!({ "header": "X-User" })) },
            "cookie": { "backends": some(&[0, 2, 4]), "balance": hash(json!({ "cookie": "id" })), "body_max": "10B" },
            "client": { "backends": spare(some(&[3, 4, 5])), "balance": hash(json!("client_ip")) },
            "nobody": { "backends": {} }
        },
        "routes": {
            "a.test": "turns", "a.test/p": "path", "a.test/p/user": "user", "a.test/p/user/": "client",
            "*.test": "cookie", "*.b.test/c": "client", "*.b.test": "user", "b.test/only": "path", "n.test": "nobody"
        }
    })
}

/// A request: mostly good, of some host, path and fields.
fn request(dice: &mut Dice) -> (Vec<u8>, &'static str) {
    let host =
        dice.one_of(&["a.test", "A.Test:81", "b.test", "x.b.test", "y.x.b.test.", "z.test", "n.test", "other", "a b"]);
    let path = dice.one_of(&["/", "/p", "/p/", "/px", "/p/user", "/p/user/7?a=b", "/only/x", "/c", "/c/%63", "*"]);
    let method = if path == "*" { "OPTIONS" } else { dice.one_of(&["GET", "POST", "DELETE", "HEAD"]) };
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for _ in 0..dice.roll(5) {
        text += &match dice.roll(8) {
            0 => format!("X-User: {}\r\n", dice.roll(50)),
            1 => format!("Cookie: x=y; id={}\r\n", dice.roll(50)),
            2 => format!("X-Forwarded-For: 10.0.0.{}, 192.0.2.{}\r\n", dice.roll(9), dice.roll(200)),
            3 => "X-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n".into(),
            4 => "X_User: 7\r\nAccept: */*\r\n".into(),
            5 => "Connection: X-User\r\n".into(),
            6 => "TE: trailers\r\nVia: 1.0 before\r\n".into(),
            _ => "Max-Forwards: 0\r\n".into(),
        };
    }
    let length = if method == "POST" { dice.roll(20) } else { 0 };
    if method == "POST" {
        text += &format!("Content-Length: {length}\r\n");
    }
    (format!("{text}\r\n{}", "x".repeat(length)).into_bytes(), method)
}

/// Without the one line that is another each time.
fn without_id(head: &str) -> String {
    head.split_inclusive('\n').filter(|line| !line.starts_with("X-Request-Id: ")).collect()
}

fn compare(told: &Explanation, got: &Response, sent: &str) {
    let about = || format!("{told:#?}\nfor {sent:?}\ngot {} {:?}", got.status, got.text());
    if let Some(answer) = &told.answer {
        assert_eq!(answer.status, got.status, "{}", about());
        assert!(told.forwarded.is_none(), "{}", about());
        return;
    }
    assert_eq!(got.status, 200, "{}", about());
    let cluster = told.cluster.as_ref().unwrap_or_else(|| panic!("{}", about()));
    let by = got.one("x-by").unwrap_or_else(|| panic!("{}", about()));
    let backend = cluster.backends.iter().find(|b| b.name == by).unwrap_or_else(|| panic!("{}", about()));
    assert!(backend.candidate, "{}", about());
    assert!(cluster.pick.is_none_or(|index| cluster.backends[index].name == by), "{}", about());
    if !got.body.is_empty() {
        assert_eq!(without_id(&got.text()), without_id(told.forwarded.as_deref().unwrap_or_default()), "{}", about());
    }
}

/// What the log has of a request, against what was explained.
fn compare_line(told: &Explanation, line: &Value) {
    let about = || format!("{told:#?}\nlogged as {line}");
    match &told.answer {
        Some(answer) => assert_eq!(line["reason"], json!(answer.reason), "{}", about()),
        None => assert_eq!(line["reason"], json!("OK"), "{}", about()),
    }
    assert_eq!(line["cluster"], json!(told.cluster.as_ref().map(|cluster| &cluster.name)), "{}", about());
    // Who was looked for: a request that is too large looks for nobody.
    let looked = told.answer.as_ref().is_none_or(|answer| answer.reason == "NO_BACKEND");
    let cluster = told.cluster.as_ref().filter(|_| looked);
    assert_eq!(line["rule"], json!(told.rule.as_ref().filter(|_| looked)), "{}", about());
    let key = cluster.and_then(|cluster| cluster.key).map(|key| format!("{key:016x}"));
    assert_eq!(line["key"], json!(key), "{}", about());
    let skipped = |cluster: &ClusterSeen| {
        let them = cluster.backends.iter().filter(|backend| !backend.candidate);
        them.map(|backend| format!("{}=backup", backend.name)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line["skipped"], json!(cluster.map(skipped)), "{}", about());
}

fn a_series(driver: Driver, trusted: &[&str]) {
    let origin = |n: usize| {
        Origin::new(move |c| {
            c.serve(|r| {
                let (head, length) = (r.text(), r.head.len());
                let body = if head.starts_with("HEAD") { "" } else { &head };
                Some(format!("HTTP/1.1 200 OK\r\nX-By: b{n}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
            })
        })
    };
    let origins: Vec<Origin> = (0..6).map(origin).collect();
    let mut config = config(&origins);
    config["listeners"] = json!({ "main": { "trusted_proxies": trusted, "health_path": "/px" } });
    config["log"] = json!({ "fields": ["rule", "key", "skipped", "cluster", "backend", "reason"] });
    let ringway = Ringway::start(driver, config);
    let (snapshot, unresolved) = dry::snapshot(&ringway.scratch.path("config.json"), |_| None).expect("a good config");
    assert!(unresolved.is_empty());
    let mut dice = Dice(7 + 2 * trusted.len() as u64 + u64::from(driver == Driver::Epoll));
    let mut client = Client::to(&ringway);
    let (mut sure, mut went_on) = (0, 0);
    let mut all = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let (bytes, method) = request(&mut dice);
        let peer = client_address();
        let question = Question {
            head: bytes[..head_of(&bytes)].to_vec(),
            peer,
            listener: Some("main".into()),
            port: ringway.address.port(),
        };
        let told = explain(&snapshot, true, &no_notes, &question).expect("a listener of that name");
        client.send(&bytes);
        let got = client.response_to(method);
        compare(&told, &got, &lossy(&bytes));
        went_on += usize::from(told.forwarded.is_some());
        sure += usize::from(told.cluster.as_ref().is_some_and(|cluster| cluster.pick.is_some()));
        all.push(told);
        if got.says_close() {
            client = Client::to(&ringway);
        }
    }
    let lines = ringway.log(REQUESTS);
    assert_eq!(lines.len(), REQUESTS);
    all.iter().zip(&lines).for_each(|(told, line)| compare_line(told, line));
    assert!(sure > REQUESTS / 10 && went_on > REQUESTS / 3, "{sure} and {went_on} of {REQUESTS}");
}

fn head_of(bytes: &[u8]) -> usize {
    crate::message::head_end(bytes).expect("a whole head")
}

fn client_address() -> std::net::IpAddr {
    std::net::Ipv4Addr::LOCALHOST.into()
}

on_both_drivers! {
    fn what_is_explained_is_what_happens(driver) {
        a_series(driver, &[]);
    }

    fn what_is_explained_is_what_happens_behind_trusted_proxies(driver) {
        a_series(driver, &["127.0.0.0/8", "192.0.2.0/24"]);
    }
}

#[test]
fn a_config_file_is_asked() {
    let origin = Origin::fixed(ok("x"));
    let scratch = Scratch::new();
    let config = json!({
        "listeners": { "main": "127.0.0.1:8080" },
        "clusters": { "app": { "backends": { "b1": origin.address().to_string(), "gone": "no-such-host.invalid:80" } } },
        "routes": { "app.test": "app", "*": "app" }
    });
    scratch.write("config.json", &config.to_string());
    let out = cli(&["explain", "GET", "http://app.test/x", "--json"], &scratch.path(""));
    assert_eq!(out.status.code(), Some(0), "{} {}", lossy(&out.stdout), lossy(&out.stderr));
    let told: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!((&told["rule"], &told["beaten"][0]["rule"]), (&json!("app.test"), &json!("*")), "{told:#}");
    assert_eq!(told["cluster"]["pick"], json!(0), "{told:#}");
    assert!(lossy(&out.stderr).contains("no-such-host.invalid: "), "{}", lossy(&out.stderr));
    assert_eq!(origin.connections(), 0, "nothing is sent");
    for (args, code, says) in [
        (&["explain", "GET", "https://app.test/"][..], 1, "421 REJECTED"),
        (&["explain", "GET", "ftp://app.test/"], 2, "ftp:// is not served"),
        (&["explain", "GET", "app.test", "--listener", "none"], 2, "there is no listener \"none\""),
        (&["explain", "GET", "app.test", "--config", "missing.json"], 2, "missing.json"),
    ] {
        let out = cli(args, &scratch.path(""));
        let all = format!("{}{}", lossy(&out.stdout), lossy(&out.stderr));
        assert!(out.status.code() == Some(code) && all.contains(says), "{args:?}: {:?} {all}", out.status);
    }
}

#[test]
fn the_running_proxy_is_asked() {
    let (one, two) = (Origin::fixed(ok("1")), Origin::fixed(ok("2")));
    let config = json!({
        "clusters": { "app": { "backends": { "b1": one.address().to_string(), "b2": two.address().to_string() } } },
        "routes": { "*": "app" }
    });
    let ringway = Ringway::start(Driver::Epoll, config);
    let socket = ringway.scratch.path("control.sock");
    let ask = |expected: i32| -> Value {
        let url = format!("http://any.test:{}/x", ringway.address.port());
        let socket = socket.to_str().expect("a path of ASCII");
        let args = ["explain", "--live", "--socket", socket, "GET", &url, "--json"];
        let out = cli(&args, &ringway.scratch.path(""));
        assert_eq!(out.status.code(), Some(expected), "{} {}", lossy(&out.stdout), lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("JSON")
    };
    let told = ask(0);
    assert_eq!((&told["listener"], &told["rule"]), (&json!("main"), &json!("*")), "{told:#}");
    assert_eq!(told["cluster"]["pick"], json!(null), "{told:#}");

    drop(two);
    for _ in 0..20 {
        assert_eq!(get(&ringway, "/").text(), "1");
    }
    ringway.wait_state("b2", "down", seconds(5));
    let told = ask(0);
    let [b1, b2] = [&told["cluster"]["backends"][0], &told["cluster"]["backends"][1]];
    assert_eq!((&b1["candidate"], &b2["skipped"]), (&json!(true), &json!("down")), "{told:#}");
    assert!(b2["why"].as_str().is_some_and(|why| why.contains("connect")), "{told:#}");
    assert!(b2["seconds"].as_u64().is_some_and(|seconds| seconds < 30), "{told:#}");
    assert_eq!(told["cluster"]["pick"], json!(0), "{told:#}");

    assert!(ringway.ctl(&["pause", "app"]).status.success());
    assert_eq!(ask(0)["cluster"]["waits"], json!("the cluster is paused"));
    assert!(ringway.ctl(&["resume", "app"]).status.success());
    assert!(ringway.ctl(&["backend", "maint", "app/b1", "--why", "disk"]).status.success());
    // Whoever is left counts as up, whatever is known of it.
    let told = ask(0);
    assert_eq!(told["cluster"]["backends"][0]["skipped"], json!("in maintenance, by an operator"), "{told:#}");
    assert!(
        told["cluster"]["backends"][0]["why"].as_str().is_some_and(|why| why.starts_with("disk; uid ")),
        "{told:#}"
    );
    assert_eq!(told["cluster"]["pick"], json!(1), "{told:#}");
    assert!(ringway.ctl(&["backend", "maint", "app/b2"]).status.success());
    assert_eq!(ask(1)["answer"]["reason"], json!("NO_BACKEND"));
    assert_eq!(get(&ringway, "/").status, 503);
}
