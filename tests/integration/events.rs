//! `ringway ctl events`: what happens, one line each, without gaps.

use crate::client::{Client, get};
use crate::harness::{Driver, Ringway, binary, eventually, lossy, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{HEALTH, QUEUE_MAX, set};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A `ringway ctl events` that runs, and its lines.
struct Watcher {
    child: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
}

impl Watcher {
    fn of(ringway: &Ringway, args: &[&str]) -> Watcher {
        let socket = ringway.scratch.path("control.sock");
        let mut command = Command::new(binary());
        command.arg("ctl").arg("--socket").arg(socket).arg("events").args(args).stdout(Stdio::piped());
        let mut child = command.spawn().expect("ringway ctl events");
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Watcher { child, lines, seen: Vec::new() }
    }

    /// Waits for an event with these fields.
    fn wait(&mut self, what: &Value) -> Value {
        let fits =
            |event: &Value| what.as_object().is_some_and(|all| all.iter().all(|(key, value)| event[key] == *value));
        loop {
            let Ok(event) = self.lines.recv_timeout(seconds(10)) else { panic!("no {what} in {:#?}", self.seen) };
            self.seen.push(event.clone());
            if fits(&event) {
                return event;
            }
        }
    }

    fn numbers(&self) -> Vec<u64> {
        self.seen.iter().map(|event| event["n"].as_u64().expect("a number")).collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

on_both_drivers! {
    fn what_happens_is_told_in_order_and_without_gaps(driver) {
        let one = Origin::saying("one");
        let two = Origin::saying("two");
        let at = one.address();
        let mut ringway = Ringway::with(driver, &[&one, &two], |c| {
            set(c, HEALTH, json!({ "hold_down": "1s" }));
            set(c, QUEUE_MAX, json!(1));
            set(c, "clusters/app/fail_open", json!(60));
        });
        let mut watcher = Watcher::of(&ringway, &["--from", "1"]);
        let by = |what: &str| json!({ "event": what, "cluster": "app", "backend": "b1" });

        // A backend that is gone, and comes back.
        drop(one);
        eventually(seconds(5), "b1 is down", || {
            get(&ringway, "/");
            ringway.backend_state("app", "b1") == "down"
        });
        let down = watcher.wait(&by("backend_down"));
        assert!(down["why"].as_str().is_some_and(|why| why.contains("connect")), "{down}");
        assert!(down["at_us"].as_u64().is_some_and(|at| at > 1_700_000_000_000_000), "{down}");
        watcher.wait(&json!({ "event": "fail_open", "cluster": "app", "open": true }));
        let one = Origin::saying_at(at, "one");
        watcher.wait(&by("backend_up"));
        watcher.wait(&json!({ "event": "fail_open", "cluster": "app", "open": false }));

        // Operators.
        assert!(ringway.ctl(&["backend", "drain", "app/b2", "--for", "1s"]).status.success());
        let changed = watcher.wait(&json!({ "event": "changed" }));
        assert!(changed["command"].as_str().is_some_and(|c| c.starts_with("backend app/b2")), "{changed}");
        assert!(changed["who"].as_str().is_some_and(|who| who.starts_with("by uid ")), "{changed}");
        watcher.wait(&json!({ "event": "override_ended", "cluster": "app", "backend": "b2" }));
        let mut config = ringway.config.clone();
        ringway.write_config(&json!({}));
        assert!(!ringway.ctl(&["reload"]).status.success());
        watcher.wait(&json!({ "event": "rejected", "command": "reload" }));
        config["routes"]["more.test"] = json!("app");
        ringway.write_config(&config);
        assert!(ringway.ctl(&["reload"]).status.success());
        let changed = watcher.wait(&json!({ "event": "changed", "command": "reload", "generation": 2 }));
        assert_eq!(changed["changed"]["routes_added"], json!(["more.test"]), "{changed}");
        assert!(ringway.ctl(&["ready", "off"]).status.success());
        watcher.wait(&json!({ "event": "ready", "ready": false }));

        // More requests than may wait.
        assert!(ringway.ctl(&["pause", "app", "--max", "20s"]).status.success());
        let waiting: Vec<Client> = (0..4)
            .map(|_| {
                let mut client = Client::to(&ringway);
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                client
            })
            .collect();
        let overflow = watcher.wait(&json!({ "event": "queue_overflow", "cluster": "app" }));
        assert!(overflow["full"].as_u64().is_some_and(|n| n >= 1), "{overflow}");
        assert!(ringway.ctl(&["resume", "app"]).status.success());
        drop(waiting);
        watcher.wait(&json!({ "event": "changed", "command": "resume app" }));

        // Each number once, from the first on; whoever comes later is told the same.
        let numbers = watcher.numbers();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        let mut later = Watcher::of(&ringway, &["--from", "1"]);
        later.wait(&json!({ "n": numbers.len() }));
        assert_eq!(later.seen, watcher.seen);
        let mut new = Watcher::of(&ringway, &[]);
        eventually(seconds(5), "a second reader", || {
            assert!(ringway.ctl(&["ready", "on"]).status.success());
            new.lines.try_recv().is_ok_and(|event| { new.seen.push(event); true })
        });
        assert!(new.numbers()[0] > numbers.len() as u64, "{:#?}", new.seen);
        drop(one);
    }
}

/// A reader that takes nothing is cut when the ring has gone over its place, and nobody waits for it.
#[test]
fn a_slow_reader_is_cut_and_others_read_on() {
    let origin = Origin::fixed(ok("x"));
    let ringway = Ringway::before(Driver::Epoll, &[&origin]);
    let socket = ringway.scratch.path("control.sock");
    let connect = || {
        let mut stream = UnixStream::connect(&socket).expect("the control socket");
        stream.set_read_timeout(Some(seconds(10))).expect("a timeout");
        stream.write_all(b"{\"v\":1,\"id\":1,\"cmd\":\"events\"}\n").expect("a request");
        stream
    };
    let mut slow = connect();
    let mut quick = BufReader::new(connect());
    let mut line = String::new();
    for _ in 0..2 {
        quick.read_line(&mut line).expect("hello and answer");
    }
    assert!(line.contains("\"from\":"), "{line}");
    let reader = std::thread::spawn(move || {
        let mut numbers = Vec::new();
        for line in quick.lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).expect("an event");
            numbers.push(event["n"].as_u64().expect("a number"));
            if numbers.len() == 12_000 {
                break;
            }
        }
        numbers
    });
    let mut asking = UnixStream::connect(&socket).expect("the control socket");
    asking.set_read_timeout(Some(seconds(10))).expect("a timeout");
    let mut answers = BufReader::new(asking.try_clone().expect("a second handle"));
    let mut hello = String::new();
    answers.read_line(&mut hello).expect("a hello");
    for n in 0..12_000 {
        asking
            .write_all(format!("{{\"v\":1,\"id\":{n},\"cmd\":\"ready\",\"args\":{{\"ready\":true}}}}\n").as_bytes())
            .expect("a request");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("an answer");
        assert!(answer.contains("\"ok\""), "{answer}");
    }
    let numbers = reader.join().expect("a reader");
    assert_eq!(numbers.len(), 12_000);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    let mut all = Vec::new();
    slow.read_to_end(&mut all).expect("what was sent until the cut");
    let lines = all.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines < 12_000, "{lines} lines, and it was not cut");
    assert!(ringway.stderr().contains("it reads its events too slowly"), "{}", ringway.stderr());
    assert!(lossy(&ringway.ctl(&["status"]).stdout).contains("app"));
}
