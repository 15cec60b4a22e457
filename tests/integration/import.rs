//! From a Hipache's Redis to a Ringway that serves: the example of docs/MIGRATION.md, and the command's exit codes.

use crate::client::get_host;
use crate::harness::{Ringway, Scratch, cli, eventually, free_address, lossy, on_both_drivers, seconds};
use crate::origin::Origin;
use crate::settings::set;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

const HOSTS: [&str; 3] = ["app-user.web.example.io", "www.customer-one.example", "customer-two.example"];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hipache").join(name)
}

/// The config of the example, with its two backends at these addresses.
fn example(one: SocketAddr, two: SocketAddr) -> Value {
    let scratch = Scratch::new();
    let script = fs::read_to_string(data("app-user.redis")).expect("the script");
    let script = script.replace("10.0.0.1:8080", &one.to_string()).replace("10.0.0.2:8080", &two.to_string());
    scratch.write("app.redis", &script);
    let out = cli(&["import", "hipache", "app.redis", "--output", "config.json"], &scratch.path(""));
    assert_eq!(out.status.code(), Some(0), "{}", lossy(&out.stderr));
    assert_eq!(lossy(&out.stderr).trim(), "ringway import: 3 routes, 1 clusters, 2 backends; 0 left out");
    let mut config: Value =
        serde_json::from_slice(&fs::read(scratch.path("config.json")).expect("a config")).expect("JSON");
    let map = config.as_object_mut().expect("an object");
    // What the harness has its own places for.
    for key in ["listeners", "control", "state_file"] {
        map.remove(key);
    }
    // The hold-down of 30 s, in the time that a test has.
    set(&mut config, "defaults/health/hold_down", "1s");
    set(&mut config, "defaults/health/hold_down_max", "1s");
    config
}

fn state(ringway: &Ringway, backend: &str) -> String {
    ringway.backend_state("app-user", backend)
}

/// Asks each of the hosts; every answer is a good one. Gives who answered.
fn ask_all(ringway: &Ringway, path: &str) -> Vec<String> {
    let ask = |host: &&str| {
        let response = get_host(ringway, host, path);
        assert_eq!(response.status, 200, "{host}");
        response.text()
    };
    HOSTS.iter().map(ask).collect()
}

on_both_drivers! {
    fn an_application_of_a_hipache_is_scaled_crashes_and_comes_back(driver) {
        let (one, two) = (Origin::saying("one"), Origin::saying_at(free_address(), "two"));
        let ringway = Ringway::start(driver, example(one.address(), two.address()));
        let mut seen = [ask_all(&ringway, "/"), ask_all(&ringway, "/")].concat();
        seen.sort();
        assert_eq!(seen, ["one", "one", "one", "two", "two", "two"]);
        assert_eq!(get_host(&ringway, "other.web.example.io", "/").status, 404);

        // Scaled up, where a Hipache's user would RPUSH to three lists.
        let three = Origin::saying("three");
        let patch = json!({ "clusters": { "app-user": { "backends": { "b3": three.address().to_string() } } } });
        let out = ringway.ctl(&["apply", &patch.to_string()]);
        assert!(out.status.success(), "{}", lossy(&out.stderr));
        eventually(seconds(3), "the third serves", || ask_all(&ringway, "/").contains(&"three".into()));

        // Crashed: nobody sees a failure, and after the first that it was tried for nobody waits for it either.
        let address = two.address();
        drop(two);
        eventually(seconds(5), "b2 is down", || {
            ask_all(&ringway, "/");
            state(&ringway, "b2") == "down"
        });
        for _ in 0..4 {
            assert!(!ask_all(&ringway, "/while-down").contains(&"two".into()));
        }
        let mut log = Vec::new();
        eventually(seconds(5), "the lines of these requests", || {
            log = ringway.log(1);
            log.retain(|line| line["path"] == "/while-down");
            log.len() == 12
        });
        assert!(log.iter().all(|line| line["retries"] == 0 && line["backend"] != "b2"), "{log:?}");

        // Recovered: a probe finds out, not a request.
        let two = Origin::saying_at(address, "two, again");
        eventually(seconds(8), "b2 is up", || state(&ringway, "b2") == "up");
        eventually(seconds(3), "the probe is seen", || two.connections() > 0);
        assert_eq!(two.requests().len(), 0);
        eventually(seconds(3), "b2 serves", || ask_all(&ringway, "/").contains(&"two, again".into()));
    }
}

#[test]
fn exit_codes_say_what_became_of_it() {
    let scratch = Scratch::new();
    let at = scratch.path("");
    scratch.write("part.redis", "RPUSH frontend:a.io app http://10.0.0.1 https://10.0.0.2\n");
    scratch.write("empty.redis", "SET a b\n");
    fs::copy(data("redis-7.0.rdb"), scratch.path("dump.rdb")).expect("a copy");
    scratch.write("there.json", "{}");
    for (code, arguments, said) in [
        (
            1,
            vec!["part.redis"],
            "part.redis:1: frontend:a.io: left out: the backend https://10.0.0.2: Ringway speaks no TLS",
        ),
        (1, vec!["dump.rdb", "--db", "0"], "dump.rdb: byte "),
        (2, vec!["empty.redis"], "there is no frontend"),
        (2, vec!["missing.rdb"], "missing.rdb: No such file"),
        (2, vec!["part.redis", "--output", "there.json"], "there.json: File exists"),
        (2, vec!["part.redis", "--redis", "127.0.0.1:6379"], "cannot be used with"),
        (2, vec!["part.redis", "--listen", "localhost:80"], "127.0.0.1:80"),
        (2, vec![], "required"),
    ] {
        let out = cli(&[vec!["import", "hipache"], arguments.clone()].concat(), &at);
        assert_eq!(out.status.code(), Some(code), "{arguments:?}: {}", lossy(&out.stderr));
        assert!(lossy(&out.stderr).contains(said), "{arguments:?}: {}", lossy(&out.stderr));
        assert_eq!(out.stdout.is_empty(), code == 2, "{arguments:?}");
    }
    let out = cli(&["import", "hipache", "dump.rdb", "--output", "new.json"], &at);
    assert_eq!((out.status.code(), out.stdout.len()), (Some(1), 0));
    let out = cli(&["check", "new.json"], &at);
    assert_eq!(out.status.code(), Some(0), "{}", lossy(&out.stderr));
}

/// Answers each command of one client with the next of these.
fn redis(replies: &'static [&'static str]) -> (SocketAddr, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let serve = move || {
        let (stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(seconds(10))).expect("a timeout");
        let (mut reader, mut said) = (BufReader::new(&stream), String::new());
        for reply in replies {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a command");
            let words: usize = line.trim()[1..].parse().expect("a count");
            for _ in 0..words {
                let mut length = String::new();
                reader.read_line(&mut length).expect("a length");
                let mut word = vec![0; length.trim()[1..].parse::<usize>().expect("a length") + 2];
                reader.read_exact(&mut word).expect("a word");
                said += lossy(&word).trim_end();
                said += " ";
            }
            (&stream).write_all(reply.as_bytes()).expect("a reply");
        }
        said
    };
    (address, std::thread::spawn(serve))
}

#[test]
fn a_running_redis_is_asked() {
    let scratch = Scratch::new();
    let (address, server) = redis(&[
        "+OK\r\n",
        "*2\r\n$1\r\n0\r\n*1\r\n$13\r\nfrontend:a.io\r\n",
        "*2\r\n$3\r\napp\r\n$15\r\nhttp://10.0.0.1\r\n",
    ]);
    let out = cli(&["import", "hipache", "--redis", &address.to_string(), "--db", "2"], &scratch.path(""));
    assert_eq!(out.status.code(), Some(0), "{}", lossy(&out.stderr));
    let config: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(config["clusters"]["app"]["backends"]["b1"], "10.0.0.1:80");
    let said = server.join().expect("the server");
    assert_eq!(said, "SELECT 2 SCAN 0 MATCH frontend:* COUNT 1000 LRANGE frontend:a.io 0 -1 ");

    let (address, server) = redis(&["-NOAUTH Authentication required.\r\n"]);
    let out = cli(&["import", "hipache", "--redis", &address.to_string()], &scratch.path(""));
    assert_eq!(out.status.code(), Some(2));
    assert!(lossy(&out.stderr).contains("--password-env"), "{}", lossy(&out.stderr));
    server.join().expect("the server");
}
