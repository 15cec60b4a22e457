//! The command line: check, schema, doctor, run, and what their exit codes say.

use crate::harness::{Driver, Ringway, Scratch, binary, cli, free_address, lossy, run, seconds};
use crate::origin::Origin;
use serde_json::Value;
use std::io::Write;
use std::process::Command;

const GOOD: &str = r#"{
  "listeners": { "main": "127.0.0.1:8080" },
  "clusters": { "app": { "backends": { "b1": "127.0.0.1:9001" } } },
  "routes": { "*": "app" }
}"#;

/// Seven faults of seven kinds; the line of each stands in `PLACES`.
const SEVEN: &str = r#"{
  "listeners": { "main": "127.0.0.1:99999" },
  "clusters": {
    "app": {
      "backends": { "b1": { "address": "127.0.0.1:9001", "weight": 0 } },
      "timeouts": { "head": "ten seconds" },
      "retries": "three",
      "balanse": "random"
    },
    "app": { "backends": {} }
  },
  "routes": { "*": "nowhere" }
}"#;
const PLACES: &[(usize, &str)] = &[
    (2, "a bad address"),
    (5, "a zero weight"),
    (6, "a bad duration"),
    (7, "a wrong type"),
    (8, "an unknown key"),
    (10, "a duplicate key"),
    (12, "a dangling name"),
];

#[test]
fn a_good_file_passes() {
    let scratch = Scratch::new();
    scratch.write("c.json", GOOD);
    let out = cli(&["check", "c.json"], &scratch.path(""));
    assert_eq!(out.status.code(), Some(0), "{} {}", lossy(&out.stdout), lossy(&out.stderr));
}

#[test]
fn show_gives_the_defaults_too() {
    let scratch = Scratch::new();
    scratch.write("c.json", GOOD);
    let out = cli(&["check", "c.json", "--show"], &scratch.path(""));
    assert_eq!(out.status.code(), Some(0));
    let shown: Value = serde_json::from_slice(&out.stdout).expect("--show prints JSON");
    assert!(shown["listeners"]["main"].to_string().contains("127.0.0.1:8080"), "{shown:#}");
    assert!(shown["clusters"]["app"].to_string().contains("30s"), "the head timeout: {shown:#}");
    // What it prints is itself a good config that says the same.
    scratch.write("again.json", &shown.to_string());
    let again = cli(&["check", "again.json", "--show"], &scratch.path(""));
    assert_eq!(again.status.code(), Some(0), "{}", lossy(&again.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout).expect("JSON"), shown);
}

#[test]
fn seven_faults_are_told_at_once_each_with_its_place() {
    let scratch = Scratch::new();
    scratch.write("c.json", SEVEN);
    let out = cli(&["check", "c.json"], &scratch.path(""));
    assert_eq!(out.status.code(), Some(2));
    let said = lossy(&out.stderr) + &lossy(&out.stdout);
    for (line, fault) in PLACES {
        let place = format!("c.json:{line}:");
        assert!(said.contains(&place), "{fault} at {place} is missing in:\n{said}");
    }
    let places = said.matches("c.json:").count();
    assert!(places >= 7, "{places} places in:\n{said}");
    assert!(said.contains("balance"), "a suggestion for the misspelt key:\n{said}");
    assert!(said.contains("clusters.app.retries"), "the JSON path:\n{said}");
}

#[test]
fn the_same_faults_stop_a_start_with_the_same_code() {
    let scratch = Scratch::new();
    scratch.write("c.json", SEVEN);
    let out = cli(&["run", "--config", "c.json"], &scratch.path(""));
    assert_eq!(out.status.code(), Some(2));
    assert!(lossy(&out.stderr).contains("c.json:12:"), "{}", lossy(&out.stderr));
}

#[test]
fn no_json_at_all() {
    let scratch = Scratch::new();
    for text in ["", "{", "[]", "null", "{\"listeners\": }", "\u{feff}{}", "{}{}", "not json"] {
        scratch.write("c.json", text);
        let out = cli(&["check", "c.json"], &scratch.path(""));
        assert_eq!(out.status.code(), Some(2), "{text:?}");
        assert!(lossy(&out.stderr).contains("c.json"), "{text:?}: {}", lossy(&out.stderr));
    }
    let out = cli(&["check", "nothing-there.json"], &scratch.path(""));
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn schema_is_json_schema() {
    let out = cli(&["schema"], &std::env::temp_dir());
    assert_eq!(out.status.code(), Some(0));
    let schema: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert!(schema["$schema"].is_string());
    for key in ["listeners", "clusters", "routes", "workers", "io", "control"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}

#[test]
fn doctor_tells_what_it_finds() {
    let out = cli(&["doctor"], &std::env::temp_dir());
    let said = lossy(&out.stdout).to_lowercase() + &lossy(&out.stderr).to_lowercase();
    for word in ["driver", "somaxconn", "port", "core"] {
        assert!(said.contains(word), "{word}:\n{said}");
    }
    assert!(out.status.code().is_some_and(|c| c < 3), "{:?}", out.status);
}

#[test]
fn doctor_is_not_content_with_few_descriptors() {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(binary());
    command.arg("doctor");
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
            Ok(())
        });
    }
    let out = run(command, seconds(10));
    assert_ne!(out.status.code(), Some(0), "{}", lossy(&out.stdout));
}

#[test]
fn unknown_arguments_are_refused() {
    for args in [&["fly"][..], &["run", "--nonsense"], &["check"], &["ctl"]] {
        let out = cli(args, &std::env::temp_dir());
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(!out.stderr.is_empty());
    }
}

#[test]
fn help_and_version() {
    let help = cli(&["--help"], &std::env::temp_dir());
    assert_eq!(help.status.code(), Some(0));
    for word in ["run", "check", "schema", "doctor", "ctl", "demo"] {
        assert!(lossy(&help.stdout).contains(word), "{word}");
    }
    let version = cli(&["--version"], &std::env::temp_dir());
    assert!(lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn ctl_without_a_proxy_fails() {
    let out = cli(&["ctl", "--socket", "/nonexistent/ringway.sock", "status"], &std::env::temp_dir());
    assert!(!out.status.success() && !out.stderr.is_empty());
}

#[test]
fn a_second_instance_on_the_same_address_is_refused() {
    let origin = Origin::saying("ok");
    let ringway = Ringway::before(Driver::Epoll, &[&origin]);
    let scratch = Scratch::new();
    let mut config = ringway.config.clone();
    config["control"] = serde_json::json!({ "socket": scratch.path("other.sock") });
    scratch.write("c.json", &config.to_string());
    let out = cli(&["run", "--config", "c.json"], &scratch.path(""));
    assert!(!out.status.success());
    assert!(lossy(&out.stderr).contains(&ringway.address.to_string()), "{}", lossy(&out.stderr));
    assert_eq!(crate::client::get(&ringway, "/").status, 200);
}

#[test]
fn run_looks_for_config_json_here() {
    served_from_here(|_| ());
}

#[test]
fn an_address_that_is_about_to_be_free_is_waited_for() {
    served_from_here(|address| {
        let leaves = std::net::TcpListener::bind(address).expect("free");
        std::thread::spawn(move || {
            std::thread::sleep(crate::harness::millis(300));
            drop(leaves);
        });
    });
}

fn served_from_here(prepare: impl Fn(std::net::SocketAddr)) {
    let origin = Origin::saying("found");
    let scratch = Scratch::new();
    let address = free_address();
    prepare(address);
    let config = serde_json::json!({
        "listeners": {"main": address.to_string()}, "io": "epoll", "workers": 1,
        "clusters": {"app": {"backends": {"b1": origin.address().to_string()}}}, "routes": {"*": "app"},
        "control": {"socket": scratch.path("control.sock")},
    });
    scratch.write("config.json", &config.to_string());
    let mut child = Command::new(binary())
        .arg("run")
        .current_dir(scratch.path(""))
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start");
    let until = std::time::Instant::now() + seconds(10);
    // Whoever else listens there never answers.
    let get = || {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(seconds(1)))?;
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
        std::io::read_to_string(stream)
    };
    let mut answer = get();
    while answer.is_err() && std::time::Instant::now() < until {
        std::thread::sleep(crate::harness::millis(20));
        answer = get();
    }
    let _ = child.kill();
    let _ = child.wait();
    assert!(answer.as_ref().is_ok_and(|text| text.ends_with("\r\n\r\nfound")), "{answer:?}");
}
