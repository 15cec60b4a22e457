//! `ringway diff`, `ctl reload --dry-run` and what becomes of it.

use crate::client::Client;
use crate::harness::{Driver, Ringway, Scratch, cli, lossy, on_both_drivers};
use crate::origin::Origin;
use serde_json::{Value, json};

fn base() -> Value {
    json!({
        "listeners": { "main": "127.0.0.1:8080" },
        "clusters": {
            "web": { "backends": { "w1": "127.0.0.1:9001", "w2": { "address": "127.0.0.1:9002", "weight": 3 } } },
            "api": { "backends": { "a1": "127.0.0.1:9003" } }
        },
        "routes": { "*.example.io": "web", "app.example.io": "web", "app.example.io/api": "api" }
    })
}

#[test]
fn two_files_are_compared_by_meaning() {
    let scratch = Scratch::new();
    scratch.write("config.json", &base().to_string());
    let run = |args: &[&str], code: i32| {
        let out = cli(args, &scratch.path(""));
        let all = format!("{}{}", lossy(&out.stdout), lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "{args:?}: {all}");
        all
    };
    // Another spelling of the same.
    let mut same = base();
    same["routes"] =
        json!({ "app.example.io/api": { "cluster": "api" }, "App.example.io.": "web", "*.Example.io/": "web" });
    same["clusters"]["api"]["retries"] = json!(3);
    scratch.write("same.json", &same.to_string());
    assert_eq!(run(&["diff", "same.json"], 0), "nothing differs\n");

    let mut new = base();
    new["routes"]["app.example.io"] = json!("api");
    new["routes"]["*.io"] = json!("web");
    new["routes"].as_object_mut().expect("an object").remove("app.example.io/api");
    new["clusters"]["web"]["backends"].as_object_mut().expect("an object").remove("w2");
    new["clusters"]["web"]["balance"] = json!("random");
    new["clusters"]["more"] = json!({ "backends": { "m1": "127.0.0.1:9009" } });
    new["listeners"]["inner"] = json!("127.0.0.1:8081");
    new["limits"] = json!({ "connections": 1000 });
    new["workers"] = json!(7);
    scratch.write("new.json", &new.to_string());
    let told: Value = serde_json::from_str(&run(&["diff", "new.json", "--json"], 1)).expect("JSON");
    assert_eq!(
        told["routes"],
        json!([{ "class": "*.io", "was": null, "is": "web" }, { "class": "app.example.io", "was": "web", "is": "api" }])
    );
    let web = &told["clusters"]["web"];
    assert_eq!((&web["capacity"], &web["classes"]), (&json!([4, 1]), &json!(["*.example.io"])), "{told:#}");
    assert_eq!(web["backends"][0]["path"], "$.clusters.web.backends.w2");
    assert_eq!(
        web["policy"],
        json!([{ "path": "$.clusters.web.balance", "was": "round_robin", "is": "random" }]),
        "{told:#}"
    );
    assert_eq!((&told["clusters"]["more"]["what"], &told["clusters"]["api"]), (&json!("added"), &Value::Null));
    assert_eq!(told["listeners"][0]["path"], "$.listeners.inner");
    assert_eq!(told["restart"], json!(["workers"]));
    let text = run(&["diff", "new.json"], 1);
    for part in [
        "app.example.io  web -> api",
        "*.io  nowhere (404) -> web",
        "cluster web changed: weight 4 -> 1 (-75 %)",
        "$.limits.connections  ",
        "needs a restart, a running process keeps it: 1\n  workers",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // Against another, and back.
    assert!(run(&["diff", "config.json", "--against", "new.json"], 1).contains("app.example.io  api -> web"));

    // A log, with lines that no config routes.
    let line = |host: &str, path: &str, backend: Value| json!({ "host": host, "path": path, "backend": backend });
    let lines = [
        line("app.example.io", "/api/1", json!("a1")),
        line("app.example.io", "/", json!("w1")),
        line("x.example.io:8080", "/?q", json!("w1")),
        line("x.example.io", "/", json!("w2")),
        line("other.io", "/", Value::Null),
        line("nowhere", "/", Value::Null),
        line("a b", "/", Value::Null),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    scratch.write("access.log", &text);
    let told: Value =
        serde_json::from_str(&run(&["diff", "new.json", "--json", "--replay", "access.log"], 1)).expect("JSON");
    let replay = &told["replay"];
    let of = |name: &str| replay[name].as_f64().unwrap_or_else(|| panic!("{name} in {replay:#}"));
    // Who was on w1 may stay there, as all of web's requests will be; who was on w2 cannot.
    assert_eq!((of("requests"), of("moved"), of("gained"), of("lost"), of("other_backend")), (6.0, 1.0, 1.0, 0.0, 1.0));
    assert_eq!((of("unrouted"), of("share")), (1.0, 0.5));
    scratch.write("bad.log", "{\"host\": \"a\", \"path\": \"/\"}\nx\n");
    assert!(run(&["diff", "new.json", "--replay", "bad.log"], 2).contains("bad.log:2: "));
    scratch.write("broken.json", "{}");
    assert!(run(&["diff", "broken.json"], 2).contains("missing key \"listeners\""));
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let origin = Origin::saying("hello");
    let mut ringway = Ringway::before(Driver::Epoll, &[&origin]);
    let path = ringway.scratch.path("config.json");
    let before = ringway.generation();
    let mut config = ringway.config.clone();
    config["routes"] = json!({ "only.test": "app" });
    ringway.write_config(&config);
    let out = ringway.ctl(&["reload", "--dry-run"]);
    assert!(out.status.success() && lossy(&out.stdout).contains("*  app -> nowhere (404)"), "{}", lossy(&out.stdout));
    let out = ringway.ctl(&["apply", "--dry-run", r#"{"clusters": {"app": {"retries": 0}}}"#]);
    assert!(lossy(&out.stdout).contains("$.clusters.app.retries  "), "{}", lossy(&out.stdout));
    assert_eq!(ringway.generation(), before);
    assert_eq!(crate::client::get(&ringway, "/").text(), "hello");
    // What a reload refuses the dry run does.
    config["io"] = json!("uring");
    ringway.write_config(&config);
    let (dry, real) = (ringway.ctl(&["reload", "--dry-run"]), ringway.ctl(&["reload"]));
    for out in [&dry, &real] {
        assert!(!out.status.success() && lossy(&out.stderr).contains("needs a restart"), "{}", lossy(&out.stderr));
    }
    // Alone, against what runs.
    let socket = ringway.scratch.path("control.sock");
    let args = ["diff", "config.json", "--live", "--socket", socket.to_str().expect("ASCII"), "--json"];
    let out = cli(&args, path.parent().expect("a directory"));
    let told: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!((out.status.code(), &told["restart"]), (Some(1), &json!(["io"])), "{told:#}");
    assert_eq!(told["touched"]["exchanges"], json!(0), "{told:#}");
}

on_both_drivers! {
    /// What a log's replay foretells is what happens: the same requests before and after the reload.
    fn a_replay_foretells_what_happens(driver) {
        let name = |n: usize| Origin::saying(["b0", "b1", "b2", "b3"][n]);
        let origins: Vec<Origin> = (0..4).map(name).collect();
        let of = |numbers: &[usize]| -> Value {
            numbers.iter().map(|n| (format!("b{n}"), json!(origins[*n].address().to_string()))).collect()
        };
        let config = |path: &[usize], cookie: &[usize], routes: Value| json!({
            "clusters": {
                "path": { "backends": of(path), "balance": { "hash": "path" } },
                "cookie": { "backends": of(cookie), "balance": { "hash": { "cookie": "id" } } },
                "one": { "backends": of(&[3]) }
            },
            "routes": routes,
            "log": { "fields": ["host", "path", "client", "backend", "key"] }
        });
        let old = config(&[0, 1, 2], &[1, 2], json!({ "*": "path", "*.c": "cookie", "one.c": "one", "gone": "one" }));
        let new = config(&[0, 1, 3], &[0, 1, 2], json!({ "*": "path", "*.c": "cookie", "one.c": "path", "x.c/7": "one" }));
        let mut ringway = Ringway::start(driver, old);
        let requests: Vec<(String, String)> = (0..400)
            .map(|n| (["a", "x.c", "one.c", "gone"][n % 4].to_owned(), format!("/{}", n % 50)))
            .collect();
        let mut client = Client::to(&ringway);
        let mut ask_all = || -> Vec<String> {
            let one = |(n, (host, path)): (usize, &(String, String))| {
                client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: id={}\r\n\r\n", n / 4));
                client.response().text()
            };
            requests.iter().enumerate().map(one).collect()
        };
        let before = ask_all();
        ringway.log(requests.len());
        let mut config = ringway.config.clone();
        for key in ["clusters", "routes"] {
            config[key] = new[key].clone();
        }
        ringway.scratch.write("new.json", &config.to_string());
        let args = ["diff", "new.json", "--json", "--replay", "access.log"];
        let told: Value = serde_json::from_slice(&cli(&args, &ringway.scratch.path("")).stdout).expect("JSON");
        ringway.config = config;
        ringway.write_config(&ringway.config.clone());
        assert!(ringway.ctl(&["reload"]).status.success());
        let after = ask_all();
        let differ = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        let replay = &told["replay"];
        assert_eq!(replay["requests"], json!(400), "{told:#}");
        let foretold: f64 = ["moved", "lost", "gained", "other_backend"].iter().filter_map(|name| replay[name].as_f64()).sum();
        // Another cluster may have the same backend.
        let pairs = requests.iter().zip(before.iter().zip(&after));
        let same = pairs.filter(|((host, _), (b, a))| ["one.c", "gone"].contains(&host.as_str()) && b == a).count();
        assert_eq!(foretold as usize, differ + same, "{told:#}");
        assert!(differ > 100 && replay["other_backend"].as_f64().is_some_and(|n| n > 20.0), "{told:#}");
    }
}
