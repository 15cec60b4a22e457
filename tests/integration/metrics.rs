//! The status listener, the metrics on it, and health paths on the others.

use crate::client::{Client, End, Response, ask, get};
use crate::harness::{
    Ringway, Scratch, binary, eventually, free_address, lossy, millis, on_both_drivers, run, seconds,
};
use crate::openmetrics::Metrics;
use crate::origin::{Origin, ok};
use crate::settings::{DRAIN, HEALTH_PATH, RETRIES, STATUS, set};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// To the status listener, whatever transport the data listeners have.
fn status_client(address: SocketAddr) -> Client {
    Client::over(Box::new(TcpStream::connect(address).expect("the status listener listens")))
}

fn status_get(address: SocketAddr, path: &str) -> Response {
    status_client(address).get(path)
}

fn scrape(address: SocketAddr) -> Metrics {
    let response = status_get(address, "/metrics");
    assert_eq!(response.status, 200);
    let kind = response.one("content-type");
    assert_eq!(kind.as_deref(), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    Metrics::read(&response.text())
}

/// A proxy with a status listener before these origins.
fn watched(
    driver: crate::harness::Driver,
    origins: &[&Origin],
    change: impl FnOnce(&mut serde_json::Value),
) -> (Ringway, SocketAddr) {
    let status = free_address();
    let ringway = Ringway::with(driver, origins, |c| {
        set(c, STATUS, status.to_string());
        change(c);
    });
    (ringway, status)
}

fn refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

on_both_drivers! {
    fn every_exchange_is_counted_once(driver) {
        let good = Origin::new(|c| c.serve(|r| Some(match r.target().as_str() {
            "/missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "/slow" => { std::thread::sleep(millis(60)); ok("slow") }
            _ => ok("good"),
        })));
        let dead = free_address();
        let (ringway, status) = watched(driver, &[&good], |c| {
            c["workers"] = json!(2);
            set(c, "clusters/app/backends/b2", dead.to_string());
            set(c, "clusters/empty/backends", json!({}));
            c["routes"] = json!({"a.test": "app", "empty.test": "empty"});
        });
        let mut asked = 0;
        for _ in 0..8 {
            let mut client = Client::to(&ringway);
            for path in ["/", "/missing", "/"] {
                assert!([200, 404].contains(&client.get(path).status));
                asked += 1;
            }
        }
        for _ in 0..3 {
            assert_eq!(get(&ringway, "/slow").status, 200);
            assert_eq!(ask(&ringway, "GET / HTTP/1.1\r\nHost: empty.test\r\n\r\n").status, 503);
            assert_eq!(ask(&ringway, "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").status, 404);
            assert_eq!(ask(&ringway, "GET / HTTP/1.1\r\nHost : bad\r\n\r\n").status, 400);
            asked += 4;
        }
        let asked = f64::from(asked);
        let lines = ringway.log(asked as usize);
        assert_eq!(lines.len() as f64, asked);
        // An exchange is counted when it has ended, a moment after its client has the answer.
        eventually(seconds(5), "all are counted", || scrape(status).sum("ringway_exchanges_total", &[]) == asked);
        let m = scrape(status);
        assert_eq!(m.sum("ringway_core_exchanges_total", &[]), asked);
        assert_eq!(m.sum("ringway_responses_total", &[]), asked);
        let mut by_reason: BTreeMap<String, f64> = BTreeMap::new();
        lines.iter().for_each(|l| *by_reason.entry(l["reason"].as_str().unwrap().into()).or_default() += 1.0);
        for (reason, n) in &by_reason {
            assert_eq!(m.sum("ringway_exchanges_total", &[("reason", reason)]), *n, "{reason}");
        }
        for (class, n) in [("2xx", 19.0), ("4xx", 14.0), ("5xx", 3.0), ("none", 0.0)] {
            assert_eq!(m.sum("ringway_responses_total", &[("class", class)]), n, "{class}");
        }
        assert_eq!(m.one("ringway_exchanges_total", &[("cluster", "empty"), ("reason", "NO_BACKEND")]), 3.0);
        assert_eq!(m.one("ringway_exchanges_total", &[("cluster", ""), ("reason", "NO_ROUTE")]), 3.0);
        assert_eq!(m.sum("ringway_core_own_answers_total", &[("class", "4xx")]), 6.0);

        let served = good.requests().len() as f64;
        let (b1, b2) = ([("backend", "b1")], [("backend", "b2")]);
        assert_eq!(m.one("ringway_backend_requests_total", &b1), served);
        assert_eq!(m.sum("ringway_backend_responses_total", &b1), served);
        assert_eq!(m.one("ringway_backend_response_head_seconds_count", &b1), served);
        let within = |le| m.one("ringway_backend_response_head_seconds_bucket", &[b1[0], ("le", le)]);
        assert!(served - within("0.05") >= 3.0, "those that took 60 ms, and on a busy machine some others");
        let sum = m.one("ringway_backend_response_head_seconds_sum", &b1);
        assert!((0.18..5.0).contains(&sum), "{sum}");
        // What the dead one was asked, it failed, and another was asked instead.
        let tried = m.one("ringway_backend_requests_total", &b2);
        assert!(tried >= 1.0);
        assert_eq!(m.one("ringway_backend_failures_total", &[b2[0], ("kind", "connect")]), tried);
        assert_eq!(m.one("ringway_backend_retries_total", &b2), tried);
        assert_eq!(m.sum("ringway_core_retries_total", &[]), tried);
        assert_eq!(m.one("ringway_backend_response_head_seconds_count", &b2), 0.0);
        assert_eq!(m.sum("ringway_backend_in_flight", &[]), 0.0);
        let (hits, misses) = (m.sum("ringway_core_pool_hits_total", &[]), m.sum("ringway_core_pool_misses_total", &[]));
        assert_eq!(hits + misses, served + tried);
        assert_eq!(m.sum("ringway_core_connects_total", &[]), misses - tried);
        assert_eq!(good.connections() as f64, misses - tried);
    }

    fn levels_and_states(driver) {
        let (good, bad) = (Origin::saying("good"), free_address());
        let (ringway, status) = watched(driver, &[&good], |c| set(c, "clusters/app/backends/b2", bad.to_string()));
        let mut client = Client::to(&ringway);
        for _ in 0..12 {
            assert_eq!(client.get("/").status, 200);
        }
        ringway.wait_state("b2", "down", seconds(3));
        eventually(seconds(5), "the levels of the next tick", || {
            let m = scrape(status);
            m.one("ringway_core_connections", &[]) == 1.0
                && m.one("ringway_core_idle_connections", &[]) == 1.0
                && m.one("ringway_core_pooled_connections", &[]) == 1.0
                && m.one("ringway_backend_pooled_connections", &[("backend", "b1")]) == 1.0
        });
        let m = scrape(status);
        let state = |b, s| m.one("ringway_backend_state", &[("backend", b), ("state", s)]);
        assert_eq!((state("b1", "up"), state("b1", "down")), (1.0, 0.0));
        assert_eq!((state("b2", "up"), state("b2", "down")), (0.0, 1.0));
        assert_eq!(m.one("ringway_backend_transitions_total", &[("backend", "b2"), ("to", "down")]), 1.0);
        assert_eq!(m.one("ringway_backend_transitions_total", &[("backend", "b1"), ("to", "down")]), 0.0);
        assert_eq!(m.one("ringway_cluster_endpoints", &[("cluster", "app"), ("state", "up")]), 1.0);
        assert!(m.one("ringway_core_ticks_total", &[]) >= 1.0);
        assert!(m.one("ringway_core_cpu_seconds_total", &[]) > 0.0);
        assert!((0.0..=1.0).contains(&m.one("ringway_core_busy_ratio", &[])));
        assert_eq!(m.one("ringway_core_imbalance_ratio", &[]), 1.0);
        assert_eq!(m.one("ringway_workers", &[]), 1.0);
        let resident = m.one("process_resident_memory_bytes", &[]);
        assert!((1e6..1e9).contains(&resident), "{resident}");
        let (open, most) = (m.one("process_open_fds", &[]), m.one("process_max_fds", &[]));
        assert!(open > 5.0 && open < most, "{open} of {most}");
        let since = m.one("process_start_time_seconds", &[]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs_f64();
        assert!((0.0..120.0).contains(&(now - since)), "{since}");
        assert_eq!(m.one("ringway_build_info", &[("driver", driver.key())]), 1.0);
    }

    fn a_core_that_stands_still_is_late(driver) {
        let origin = Origin::saying("good");
        let (ringway, status) = watched(driver, &[&origin], |_| {});
        let late = |le: &str| {
            let m = scrape(status);
            let count = m.one("ringway_core_tick_late_seconds_count", &[]);
            count - m.one("ringway_core_tick_late_seconds_bucket", &[("le", le)])
        };
        eventually(seconds(10), "two ticks", || scrape(status).one("ringway_core_ticks_total", &[]) >= 2.0);
        let before = late("1.0");
        ringway.signal(libc::SIGSTOP);
        std::thread::sleep(millis(3200));
        ringway.signal(libc::SIGCONT);
        eventually(seconds(5), "a late tick", || late("1.0") > before);
    }

    fn reloads_are_counted_and_move_the_listener(driver) {
        let origin = Origin::saying("good");
        let (mut ringway, first) = watched(driver, &[&origin], |_| {});
        let m = scrape(first);
        let result = |m: &Metrics, r| m.one("ringway_config_reloads_total", &[("result", r)]);
        assert_eq!((result(&m, "done"), result(&m, "rejected")), (0.0, 0.0));
        assert_eq!(m.one("ringway_config_generation", &[]), 1.0);
        // Taken by somebody else: the whole reload is rejected, and the old one serves on.
        let taken = TcpListener::bind(free_address()).expect("an address");
        let mut config = ringway.config.clone();
        set(&mut config, STATUS, taken.local_addr().expect("an address").to_string());
        ringway.write_config(&config);
        // What a reload has told its asker the next scrape tells, too, however young the last text is.
        for rejected in 1..=5 {
            let out = ringway.ctl(&["reload"]);
            assert!(!out.status.success());
            assert!(lossy(&out.stderr).contains("$.status.listen"), "{}", lossy(&out.stderr));
            let m = scrape(first);
            assert_eq!((result(&m, "done"), result(&m, "rejected")), (0.0, f64::from(rejected)));
        }
        let m = scrape(first);
        assert_eq!(m.one("ringway_config_last_reload_successful", &[]), 0.0);
        assert_eq!(m.one("ringway_config_generation", &[]), 1.0);
        // Elsewhere.
        let second = free_address();
        set(&mut config, STATUS, second.to_string());
        ringway.write_config(&config);
        assert!(ringway.ctl(&["reload"]).status.success());
        let m = scrape(second);
        assert!(refused(first));
        assert_eq!((result(&m, "done"), result(&m, "rejected")), (1.0, 5.0));
        assert_eq!(m.one("ringway_config_last_reload_successful", &[]), 1.0);
        let at = m.one("ringway_config_last_reload_success_timestamp_seconds", &[]);
        assert!(at >= m.one("process_start_time_seconds", &[]));
        // All addresses of the same port, while the old one is still there.
        set(&mut config, STATUS, format!("0.0.0.0:{}", second.port()));
        ringway.write_config(&config);
        assert!(ringway.ctl(&["reload"]).status.success());
        scrape(second);
        assert!(ringway.stderr().contains("$.status.listen: 0.0.0.0:"), "no warning: {}", ringway.stderr());
        // A Unix socket, then off.
        let path = ringway.scratch.path("status.sock");
        set(&mut config, STATUS, format!("unix:{}", path.display()));
        ringway.write_config(&config);
        assert!(ringway.ctl(&["reload"]).status.success());
        assert!(refused(second));
        let mut client = Client::over(Box::new(UnixStream::connect(&path).expect("it listens")));
        assert_eq!(client.get("/live").text(), "ok\n");
        Metrics::read(&client.get("/metrics").text());
        set(&mut config, STATUS, json!(null));
        ringway.write_config(&config);
        assert!(ringway.ctl(&["reload"]).status.success());
        assert!(!path.exists());
        assert_eq!(get(&ringway, "/").status, 200);
    }

    fn hostile_clients_cost_nobody_else_anything(driver) {
        let origin = Origin::saying("good");
        let (ringway, status) = watched(driver, &[&origin], |_| {});
        let idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(status).expect("accepted")).collect();
        let check = |what: &str| {
            let begin = Instant::now();
            assert_eq!(status_get(status, "/live").text(), "ok\n", "{what}");
            scrape(status);
            assert_eq!(get(&ringway, "/").text(), "good", "{what}");
            assert_eq!(ringway.generation(), 1, "{what}");
            assert!(begin.elapsed() < seconds(4), "{what}: {:?}", begin.elapsed());
        };
        check("200 idle clients");
        let mut garbage = status_client(status);
        garbage.send([0x16, 3, 1, 0, 0xff, 0xff, 7, 7]);
        assert_eq!(garbage.response().status, 400);
        assert_ne!(garbage.rest(seconds(5)).1, End::StillOpen);
        let mut huge = status_client(status);
        let _ = huge.try_send(format!("GET /metrics HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(10_000)));
        assert_eq!(huge.response().status, 431);
        check("a huge head");
        // Readers that never read, with as many requests on the way as the socket takes.
        let readers: Vec<TcpStream> = (0..100).map(|_| {
            let stream = TcpStream::connect(status).expect("accepted");
            stream.set_nonblocking(true).expect("set");
            let request = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
            let _ = std::io::Write::write(&mut &stream, request.as_bytes());
            stream
        }).collect();
        check("100 readers that never read");
        drop((idle, readers));
        check("all gone at once");
    }

    fn liveness_and_readiness(driver) {
        let origin = Origin::new(|c| c.serve(|_| {
            std::thread::sleep(millis(1500));
            Some(ok("late"))
        }));
        let (mut ringway, status) = watched(driver, &[&origin], |c| {
            set(c, DRAIN, "10s");
            set(c, HEALTH_PATH, "/healthz");
        });
        assert_eq!(status_get(status, "/live").status, 200);
        assert_eq!((status_get(status, "/ready").status, status_get(status, "/ready").text()), (200, "ok\n".into()));
        let (mut running, mut idle) = (Client::to(&ringway), Client::to(&ringway));
        assert_eq!(idle.get("/healthz").status, 200);
        running.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait_requests(1);
        ringway.signal(libc::SIGTERM);
        eventually(seconds(3), "not ready", || status_get(status, "/ready").status == 503);
        assert_eq!(status_get(status, "/ready").text(), "draining\n");
        assert_eq!(status_get(status, "/live").status, 200);
        let m = scrape(status);
        assert_eq!((m.one("ringway_ready", &[]), m.one("ringway_draining", &[])), (0.0, 1.0));
        assert_eq!(idle.get("/healthz").status, 503);
        assert_eq!(running.response().text(), "late");
        assert!(ringway.wait(seconds(10)).success());
        assert!(refused(status));
    }

    fn a_health_path_is_answered_for_any_host(driver) {
        let origin = Origin::saying("app");
        let (ringway, status) = watched(driver, &[&origin], |c| {
            set(c, HEALTH_PATH, "/healthz");
            set(c, RETRIES, 0);
            c["routes"] = json!({"a.test": "app"});
        });
        for request in [
            "GET /healthz HTTP/1.1\r\nHost: 10.0.0.7\r\n\r\n",
            "GET /healthz?from=alb HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET http://any.test/healthz HTTP/1.1\r\nHost: any.test\r\n\r\n",
            "GET /healthz HTTP/1.0\r\n\r\n",
        ] {
            let response = ask(&ringway, request);
            assert_eq!((response.status, response.text()), (200, "ok\n".into()), "{request}");
            assert_eq!(response.one("cache-control").as_deref(), Some("no-store"));
        }
        let mut client = Client::to(&ringway);
        client.send("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response_to("HEAD").status, 200);
        assert_eq!(client.get("/healthz").text(), "ok\n");
        assert_eq!(client.get("/healthz/").text(), "app");
        assert_eq!(origin.requests().len(), 1, "health checks reach no backend");
        let lines = ringway.log(7);
        assert_eq!(lines.iter().filter(|l| l["reason"] == "HEALTH" && l["status"] == 200).count(), 6);
        eventually(seconds(5), "counted", || scrape(status).sum("ringway_exchanges_total", &[]) == 7.0);
        let m = scrape(status);
        assert_eq!(m.one("ringway_exchanges_total", &[("cluster", ""), ("reason", "HEALTH")]), 6.0);
        assert_eq!(m.sum("ringway_core_own_answers_total", &[]), 0.0);
    }
}

#[test]
fn pages_methods_and_versions() {
    let origin = Origin::saying("good");
    let (_ringway, status) = watched(crate::harness::Driver::Epoll, &[&origin], |_| {});
    let mut client = status_client(status);
    assert!(client.get("/").text().contains("/metrics"));
    assert_eq!(client.get("/nothing").status, 404);
    assert_eq!(client.get("/live?verbose").status, 200);
    client.send("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.response_to("HEAD");
    assert!(head.one("content-length").and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n > 1000));
    // Two requests at once, then the connection is still good.
    client.send("GET /live HTTP/1.1\r\nHost: a\r\n\r\nGET /ready HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((client.response().status, client.response().status), (200, 200));
    client.send("GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(client.response().says_close());
    client.closed();
    let mut old = status_client(status);
    old.send("GET /live HTTP/1.0\r\n\r\n");
    assert_eq!(old.response().text(), "ok\n");
    old.closed();
    let mut post = status_client(status);
    post.send("POST /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    let refusal = post.response();
    assert_eq!((refusal.status, refusal.one("allow").as_deref()), (405, Some("GET, HEAD")));
    post.closed();
    let mut body = status_client(status);
    body.send("GET /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(body.response().status, 400);
    body.closed();
    // A byte at a time is a head all the same.
    let mut slow = status_client(status);
    for byte in b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n" {
        slow.send([*byte]);
        std::thread::sleep(millis(2));
    }
    assert_eq!(slow.response().status, 200);
}

#[test]
fn a_listener_that_others_reach_is_warned_of_by_check() {
    let scratch = Scratch::new();
    let config = json!({
        "listeners": {"a": "127.0.0.1:8080"}, "clusters": {}, "routes": {}, "status": {"listen": "0.0.0.0:9180"},
    });
    let file = scratch.write("config.json", &config.to_string());
    let mut command = Command::new(binary());
    command.arg("check").arg(&file);
    let out = run(command, seconds(10));
    assert!(out.status.success());
    assert!(lossy(&out.stderr).contains("warning: $.status.listen: 0.0.0.0:9180 is no loopback address"), "{out:?}");
}

/// docs/METRICS.md names each family with its type and its labels, and nothing else.
#[test]
fn the_manual_tells_of_every_family() {
    let origin = Origin::saying("good");
    let (ringway, status) = watched(crate::harness::Driver::Epoll, &[&origin], |_| {});
    get(&ringway, "/");
    let m = scrape(status);
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md")).expect("the manual");
    let mut told = BTreeMap::new();
    for row in manual.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[2].split(',').map(|l| l.trim().trim_matches('`').to_owned()).filter(|l| !l.is_empty());
        let family = cells[0].trim_matches('`').to_owned();
        assert!(told.insert(family.clone(), (cells[1].to_owned(), labels.collect())).is_none(), "{family} twice");
    }
    let real: BTreeMap<_, _> =
        m.families.iter().map(|(name, kind)| (name.clone(), (kind.clone(), m.labels_of(name)))).collect();
    assert_eq!(told, real);
    // What is drawn and alerted on is there.
    for file in ["docs/grafana-dashboard.json", "docs/alerts.yml"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a file");
        let mut words: Vec<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        words.retain(|word| word.starts_with("ringway_") || word.starts_with("process_"));
        assert!(words.len() > 10, "{file}");
        for word in words {
            let ends = ["", "_total", "_bucket", "_sum", "_count", "_info"];
            let known = ends.iter().filter_map(|end| word.strip_suffix(end)).any(|name| m.families.contains_key(name));
            assert!(known, "{file} names {word}");
        }
    }
}
