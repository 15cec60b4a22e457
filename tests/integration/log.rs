//! The access log, and a stderr that nobody reads.

use crate::client::{Client, ask, get};
use crate::harness::{Ringway, config_of, eventually, free_address, lossy, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{BODY_MAX, set};
use serde_json::{Value, json};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

on_both_drivers! {
    fn one_line_per_exchange(driver) {
        let origin = Origin::saying("hello");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.get("/one?a=b");
        client.post("/two", "x");
        let lines = ringway.log(2);
        assert_eq!(lines.len(), 2);
        let first = &lines[0];
        assert_eq!(first["method"], "GET");
        assert_eq!(first["host"], "a.test");
        assert_eq!(first["path"], "/one?a=b");
        assert_eq!(first["status"], 200);
        assert_eq!(first["client"], "127.0.0.1");
        assert_eq!(first["cluster"], "app");
        assert_eq!(first["backend"], "b1");
        assert_eq!(first["retries"], 0);
        assert!(first["bytes"].as_u64().is_some_and(|n| n >= 5), "{first}");
        assert!(first["generation"].as_u64().is_some(), "{first}");
        assert!(first["reason"].is_string() && first["time"].is_string(), "{first}");
        assert_eq!(lines[1]["method"], "POST");
    }

    fn rejects_are_logged_too(driver) {
        let origin = Origin::saying("hello");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, "routes", json!({"known.test": "app"})));
        ask(&ringway, "GET /bad HTTP/1.1\r\nHost : a\r\n\r\n");
        ask(&ringway, "GET /unknown HTTP/1.1\r\nHost: other.test\r\n\r\n");
        let lines = ringway.log(2);
        assert_eq!((&lines[0]["status"], &lines[1]["status"]), (&json!(400), &json!(404)));
        assert_ne!(lines[0]["reason"], lines[1]["reason"]);
        assert!(lines[0]["backend"].is_null());
    }

    fn a_backend_that_was_not_asked_is_not_named(driver) {
        let origin = Origin::saying("hello");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, BODY_MAX, "16B"));
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(ask(&ringway, format!("{head}zz\r\n")).status, 400);
        assert_eq!(ask(&ringway, format!("{head}14\r\n01234567890123456789\r\n0\r\n\r\n")).status, 413);
        // What breaks behind a good piece has begun to go out.
        let mut client = Client::to(&ringway);
        client.send(format!("{head}1\r\nx\r\n"));
        eventually(seconds(5), "the good piece is at the backend", || origin.connections() == 1);
        client.send("zz\r\n");
        assert_eq!(client.response().status, 400);
        for (line, backend) in ringway.log(3).iter().zip([Value::Null, Value::Null, json!("b1")]) {
            assert_eq!((&line["cluster"], &line["backend"]), (&json!("app"), &backend), "{line}");
        }
    }

    fn who_was_skipped_is_told_and_why(driver) {
        let origin = Origin::saying("hello");
        let ringway = Ringway::start(driver, json!({
            "clusters": { "app": {"backends": {"b1": free_address().to_string(), "b2": origin.address().to_string()}} },
            "routes": {"*.test/x": "app"},
            "log": {"fields": ["rule", "skipped", "key", "retries", "backend"]},
        }));
        let mut sent = 0;
        eventually(seconds(10), "b1 is down", || {
            (0..2).for_each(|_| assert_eq!(get(&ringway, "/x").text(), "hello"));
            sent += 2;
            ringway.backend_state("app", "b1") == "down"
        });
        get(&ringway, "/x");
        assert!(ringway.ctl(&["backend", "maint", "app/b1"]).status.success());
        get(&ringway, "/x");
        get(&ringway, "/");
        let lines = ringway.log(sent + 3);
        let tried = lines.iter().filter(|line| line["retries"] == 1).collect::<Vec<_>>();
        assert!(!tried.is_empty() && tried.iter().all(|line| line["skipped"] == "b1=tried"), "{tried:?}");
        let last = |skipped| json!({"rule": "*.test/x", "skipped": skipped, "key": null, "retries": 0, "backend": "b2"});
        assert_eq!((&lines[sent], &lines[sent + 1]), (&last("b1=down"), &last("b1=maint")));
        let nobody = json!({"rule": null, "skipped": null, "key": null, "retries": 0, "backend": null});
        assert_eq!(lines[sent + 2], nobody);
    }

    fn retries_and_failures_are_told(driver) {
        let origin = Origin::saying("hello");
        let ringway = Ringway::start(driver, json!({
            "clusters": {
                "app": {"backends": {"b1": free_address().to_string(), "b2": origin.address().to_string()}},
                "dead": {"backends": {"b9": free_address().to_string()}},
            },
            "routes": {"*": "app", "dead.test": "dead"},
        }));
        for _ in 0..2 { get(&ringway, "/"); }
        ask(&ringway, "GET / HTTP/1.1\r\nHost: dead.test\r\n\r\n");
        let lines = ringway.log(3);
        assert!(lines[..2].iter().any(|l| l["retries"] == 1 && l["backend"] == "b2"), "{lines:?}");
        assert!(lines[2]["status"].as_u64().is_some_and(|s| s == 502 || s == 503));
        assert_ne!(lines[2]["reason"], lines[0]["reason"]);
    }

    fn no_line_can_be_forged(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        for request in [
            "GET /a\"},{\"status\":999 HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes(),
            b"GET /\\\"x\\ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\xff\xfe\x80 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\x1b[31mred\x07 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\"b\r\n\r\n",
            b"GET /a\nGET /forged HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ] {
            let mut client = Client::to(&ringway);
            client.send(request);
            let (answer, _) = client.rest(millis(300));
            assert!(answer.starts_with(b"HTTP/1.1 "), "{:?}", lossy(request));
        }
        // `log` parses each line strictly and refuses control bytes.
        let lines = ringway.log(7);
        assert_eq!(lines.len(), 7, "{lines:?}");
        assert!(lines.iter().all(|l| l["status"] != 999));
        assert!(lines.iter().all(|l| l.to_string().is_ascii() || l["path"].is_string()));
    }

    fn a_full_stderr_pipe_stops_nothing(driver) {
        let origin = Origin::saying("ok");
        let mut ends = [0i32; 2];
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        let (kept, given) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        // Fill it to the last byte before it is handed over.
        unsafe { libc::fcntl(given.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        let block = [b'.'; 4096];
        while unsafe { libc::write(given.as_raw_fd(), block.as_ptr().cast(), block.len()) } > 0 {}
        while unsafe { libc::write(given.as_raw_fd(), block.as_ptr().cast(), 1) } > 0 {}
        unsafe { libc::fcntl(given.as_raw_fd(), libc::F_SETFL, 0) };
        let mut config = config_of(&[&origin]);
        set(&mut config, "clusters/app/backends/b0", free_address().to_string());
        let mut ringway = Ringway::start_with(driver, config, |c| { c.stderr(given); });
        let mut client = Client::to(&ringway);
        for i in 0..50 {
            assert_eq!(get(&ringway, "/").status, 200, "request {i}");
            assert_eq!(client.get("/").status, 200, "request {i}");
            if i % 10 == 0 { ringway.signal(libc::SIGHUP); }
        }
        assert!(ringway.status()["generation"].is_u64());
        ringway.signal(libc::SIGTERM);
        drop(client);
        ringway.wait(seconds(40));
        drop(kept);
    }

    fn the_log_file_may_be_rotated(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        get(&ringway, "/before");
        assert_eq!(ringway.log(1).len(), 1);
        let (now, old) = (ringway.scratch.path("access.log"), ringway.scratch.path("access.log.1"));
        std::fs::rename(&now, &old).expect("rename");
        ringway.signal(libc::SIGUSR1);
        crate::harness::eventually(seconds(3), "a new file", || now.exists());
        get(&ringway, "/after");
        assert_eq!(ringway.log(1)[0]["path"], "/after");
    }

    fn a_sample_leaves_out_what_was_well_and_quick(driver) {
        let origin = Origin::new(|c| c.serve(|request| {
            match request.target().as_str() {
                "/slow" => std::thread::sleep(millis(300)),
                "/bad" => return Some(b"HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n".to_vec()),
                _ => {}
            }
            Some(ok("ok"))
        }));
        let ringway = Ringway::with(driver, &[&origin], |c| {
            set(c, "log/sample", 0.0);
            set(c, "log/slow", "200ms");
            set(c, "routes", json!({"known.test": "app"}));
        });
        let mut client = Client::to(&ringway);
        let mut get = |host: &str, path: &str| {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            client.response().status
        };
        for _ in 0..50 {
            assert_eq!(get("known.test", "/"), 200);
        }
        assert_eq!((get("known.test", "/slow"), get("known.test", "/bad"), get("other.test", "/")), (200, 500, 404));
        let lines = ringway.log(3);
        let told: Vec<_> = lines.iter().map(|l| (l["path"].as_str(), l["status"].as_u64())).collect();
        assert_eq!(told, [(Some("/slow"), Some(200)), (Some("/bad"), Some(500)), (Some("/"), Some(404))]);
        let counters = &ringway.status()["counters"];
        assert_eq!((&counters["log_sampled_out"], &counters["exchanges"]), (&json!(50), &json!(53)));
    }

    fn a_half_is_about_half(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, "log/sample", 0.5));
        let mut client = Client::to(&ringway);
        for _ in 0..400 { client.get("/"); }
        let left_out = ringway.status()["counters"]["log_sampled_out"].as_u64().expect("a counter");
        assert!((140..260).contains(&left_out), "{left_out}");
        assert_eq!(ringway.log(400 - left_out as usize).len() as u64, 400 - left_out);
    }

    fn a_line_has_the_fields_of_choice(driver) {
        let origin = Origin::saying("ok");
        let fields = json!([
            "version", "scheme", "listener", "endpoint", "reused", "received", "user_agent", "referer", "request_id",
            "path", "reason",
        ]);
        let with = |format: &str| Ringway::with(driver, &[&origin], |c| {
            set(c, "log/format", format);
            set(c, "log/fields", fields.clone());
            set(c, crate::settings::TRUSTED, json!(["127.0.0.0/8"]));
        });
        let play = |ringway: &Ringway| {
            let mut client = Client::to(ringway);
            client.post("/a b", "");
            let mut client = Client::to(ringway);
            client.post("/new", "12345");
            client.send("PUT /used HTTP/1.1\r\nHost: a\r\nUser-Agent: curl \"8\"\r\nREFERER: http://r/\r\n\
                X-Request-Id: from-afar\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
            client.response();
            ringway.scratch.path("access.log")
        };
        let json = with("json");
        play(&json);
        let lines = json.log(3);
        let new = lines[1].as_object().expect("an object");
        assert_eq!(new.keys().map(|k| json!(k)).collect::<Vec<_>>(), *fields.as_array().expect("a list"));
        assert_eq!(lines[0]["endpoint"], Value::Null);
        assert_eq!((&new["version"], &new["scheme"], &new["listener"]), (&json!("HTTP/1.1"), &json!("http"), &json!("main")));
        assert_eq!((&new["reused"], &new["received"]), (&json!(false), &json!(5)));
        assert_eq!(new["endpoint"], origin.address().to_string());
        assert_eq!((&new["user_agent"], &new["referer"]), (&Value::Null, &Value::Null));
        let sent = origin.requests();
        assert_eq!(Some(new["request_id"].as_str().expect("an id").to_string()), sent[0].one("x-request-id"));
        let used = &lines[2];
        assert_eq!((&used["reused"], &used["received"]), (&json!(true), &json!(3)));
        assert_eq!((&used["user_agent"], &used["referer"]), (&json!("curl \"8\""), &json!("http://r/")));
        assert_eq!(used["request_id"], "from-afar");

        let text = with("text");
        let path = play(&text);
        crate::harness::eventually(seconds(3), "three lines", || {
            std::fs::read_to_string(&path).unwrap_or_default().lines().count() == 3
        });
        let lines = std::fs::read_to_string(&path).expect("readable");
        let lines: Vec<&str> = lines.lines().collect();
        let at = origin.address();
        // That of the answer.
        let words: Vec<&str> = lines[0].split(' ').collect();
        assert!(words[8].len() == 32 && words[8].bytes().all(|b| b.is_ascii_hexdigit()), "{}", lines[0]);
        assert_eq!(lines[0].replacen(words[8], "ID", 1), "- http main - - 0 - - ID \"\" REJECTED");
        let last = format!(
            r#"HTTP/1.1 http main {at} true 3 "curl \x228\x22" "http://r/" "from-afar" "/used" OK"#
        );
        assert_eq!(lines[2], last);
    }

    fn no_line_is_lost_or_torn_by_a_hundred_rotations(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, "workers", 2));
        let path = ringway.scratch.path("access.log");
        let (running, begin) = (AtomicBool::new(true), Instant::now());
        let requests: u64 = std::thread::scope(|scope| {
            let load = |i: usize| {
                let (ringway, running) = (&ringway, &running);
                scope.spawn(move || {
                    let mut client = Client::to(ringway);
                    let mut n = 0;
                    while running.load(Ordering::Relaxed) && begin.elapsed() < seconds(60) {
                        assert_eq!(client.get(&format!("/{i}/{n}")).status, 200);
                        n += 1;
                    }
                    n
                })
            };
            let loads: Vec<_> = (0..4).map(load).collect();
            for i in 0..100 {
                std::fs::rename(&path, ringway.scratch.path(&format!("access.log.{i}"))).expect("rename");
                ringway.signal(libc::SIGUSR1);
                crate::harness::eventually(seconds(5), "a new file", || path.exists());
            }
            running.store(false, Ordering::Relaxed);
            loads.into_iter().map(|load| load.join().expect("no panic")).sum()
        });
        let count = || {
            let files = (0..100).map(|i| ringway.scratch.path(&format!("access.log.{i}"))).chain([path.clone()]);
            let text: String = files.map(|file| std::fs::read_to_string(file).expect("readable")).collect();
            for line in text.lines() {
                let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
                assert_eq!(line["status"], 200);
            }
            text.lines().count() as u64
        };
        crate::harness::eventually(seconds(10), &format!("{requests} lines"), || count() == requests);
        let counters = &ringway.status()["counters"];
        assert_eq!((&counters["log_dropped"], &counters["log_sampled_out"]), (&json!(0), &json!(0)));
    }
}
