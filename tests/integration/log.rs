//! The access log, and a stderr that nobody reads.

use crate::client::{Client, ask, get};
use crate::harness::{Ringway, config_of, free_address, lossy, millis, on_both_drivers, seconds};
use crate::origin::Origin;
use crate::settings::set;
use serde_json::json;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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
}
