//! The control loop with real sockets and workers of straw: threads that take their messages, say that they run on what was
//! published, and drain at once (or do none of it, where a test wants that).

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ringway::access_log::{self, Sink};
use ringway::config::{ControlAccess, ListenerId, check};
use ringway::control::listeners::Listeners;
use ringway::control::resolve::Resolver;
use ringway::control::running::Running;
use ringway::control::signals::{Signal, Signals};
use ringway::control::state_file::StateFile;
use ringway::control::{Control, Door, Ended, Origin, Parts, WorkerLink};
use ringway::event::{CoreStats, FromWorker, Hog, Hogs, Remains, TakenAway, ToWorker};
use ringway::limits;
use ringway::publish::Publisher;
use ringway::route::BackendId;
use ringway::supervisor::{Resolutions, Supervisor};
use ringway::worker::net::os::Bell;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CORES: usize = 2;

static RIGS: AtomicU32 = AtomicU32::new(0);

/// What a straw worker has been told, without the descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Listen(u32),
    Unlisten(u32),
    Forget(usize, usize),
    Rest(usize, bool),
    Drain(u32),
    Even(usize, u32),
    Weigh,
}

struct Rig {
    dir: PathBuf,
    publisher: Arc<Publisher>,
    stats: Vec<Arc<CoreStats>>,
    told: Vec<Receiver<Told>>,
    from_workers: Sender<FromWorker>,
    ring: Arc<dyn Fn() + Send + Sync>,
    signals: UnixStream,
    /// Workers that are stuck take nothing and acknowledge nothing.
    stuck: Arc<AtomicBool>,
    /// The last worker has a tunnel on whatever is asked for.
    busy: Arc<AtomicBool>,
    control: Option<JoinHandle<Ended>>,
}

impl Rig {
    fn new() -> Rig {
        let dir = std::env::temp_dir().join(format!(
            "ringway-control-{}-{}",
            std::process::id(),
            RIGS.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&dir).expect("a directory");
        let file = dir.join("config.json");
        let config = config(&dir, json!({"a": "unix:a.sock"}), json!({"b1": "127.0.0.1:9", "b2": "127.0.0.1:10"}));
        std::fs::write(&file, config.to_string()).expect("written");
        let plan = check::load(&config.to_string(), &file.to_string_lossy()).expect("a good config");

        let door = Door::new().expect("a door");
        let socket = door.control_socket(&dir.join("control.sock"), &plan.control_access).expect("a socket");
        // One name never has an answer.
        let lookup = |name: &str| match name {
            "hangs.test" => loop {
                std::thread::park();
            },
            "good.test" => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
            _ => Err(std::io::Error::other("no such name")),
        };
        let resolver = Resolver::new(Arc::new(lookup), door.ring()).expect("threads");
        let supervisor = Supervisor::new(plan, CORES, Resolutions::default()).expect("a plan without faults");
        let publisher = Publisher::new(supervisor.snapshot());
        let monitor = door.monitor(CORES, 1_000_000).expect("a place");
        let (signals, pipe) = UnixStream::pair().expect("a pair");
        let (outbox, from_workers) = bounded(64);
        let ring = door.ring();
        let stuck = Arc::new(AtomicBool::new(false));
        let busy = Arc::new(AtomicBool::new(false));
        let (mut workers, mut told) = (Vec::new(), Vec::new());
        for core in 0..CORES {
            let (inbox, messages) = unbounded();
            let (tells, hears) = unbounded();
            let link = WorkerLink { inbox, bell: Bell::new().expect("a bell"), stats: Arc::default() };
            let straw = Straw {
                core,
                messages,
                tells,
                outbox: outbox.clone(),
                ring: ring.clone(),
                publisher: publisher.clone(),
                stats: link.stats.clone(),
                stuck: stuck.clone(),
                busy: busy.clone(),
            };
            std::thread::spawn(move || straw.live());
            workers.push(link);
            told.push(hears);
        }
        let stats = workers.iter().map(|w| w.stats.clone()).collect();
        let parts = Parts {
            door,
            began: Instant::now(),
            supervisor,
            publisher: publisher.clone(),
            workers,
            from_workers,
            signals: Signals::from_pipes(vec![(Signal::Stop, pipe)]).expect("signals"),
            socket: Some(socket),
            monitor,
            resolver,
            listeners: Listeners::default(),
            log: access_log::spawn(CORES, Sink::Off).expect("a thread"),
            running: Running::new(file.clone(), config.to_string()),
            state_file: Some(StateFile::open(dir.join("state.json"), ring.clone()).expect("a thread")),
            origin: Origin { file, open_files_max: 4096, driver: "epoll", since: 1_000_000 },
        };
        let control = Control::new(parts).expect("a loop");
        let control = std::thread::spawn(move || {
            let (ended, log) = control.run();
            log.finish(Duration::from_secs(1));
            ended
        });
        Rig { dir, publisher, stats, told, from_workers: outbox, ring, signals, stuck, busy, control: Some(control) }
    }

    fn client(&self) -> Client {
        let stream = UnixStream::connect(self.dir.join("control.sock")).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let mut client = Client { reader: BufReader::new(stream) };
        assert_eq!(client.read()["hello"], "ringway");
        client
    }

    fn stop(&self) {
        (&self.signals).write_all(b"x").expect("sent");
    }

    fn ended(&mut self) -> Ended {
        self.control.take().expect("not yet ended").join().expect("no panic")
    }

    fn told(&self, core: usize) -> Vec<Told> {
        self.told[core].try_iter().collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            // Two, so that it ends also where the workers are stuck.
            let _ = (&self.signals).write_all(b"x");
            std::thread::sleep(Duration::from_millis(limits::STOP_AGAIN_MS + 20));
            let _ = (&self.signals).write_all(b"x");
            let _ = control.join();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn config(dir: &std::path::Path, listeners: Value, backends: Value) -> Value {
    json!({
        "listeners": listeners,
        "clusters": {"app": {"backends": backends}},
        "routes": {"*": "app"},
        "control": {"socket": dir.join("control.sock")},
    })
}

struct Straw {
    core: usize,
    messages: Receiver<ToWorker>,
    tells: Sender<Told>,
    outbox: Sender<FromWorker>,
    ring: Arc<dyn Fn() + Send + Sync>,
    publisher: Arc<Publisher>,
    stats: Arc<CoreStats>,
    stuck: Arc<AtomicBool>,
    busy: Arc<AtomicBool>,
}

impl Straw {
    /// A tunnel on the first endpoint or cluster that is asked for, as long as the test wants it.
    fn remains(&self, on: &TakenAway) -> Vec<Remains> {
        if self.core != 1 || !self.busy.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let cluster = self.publisher.current().table.clusters()[0].id;
        vec![Remains { tunnels: 1, ..Remains::of(cluster, on.backends.first().copied()) }]
    }

    /// One client did everything.
    fn hogs(&self) -> Hogs {
        let hog = Hog {
            listener: ListenerId(0),
            peer: Some(([10, 0, 0, 7], 4711).into()),
            cluster: Some(self.publisher.current().table.clusters()[0].id),
            served: 99,
            carried: Some([1234, 5678]),
            cost_us: 750,
            longest_us: 70,
        };
        Hogs { took_us: 1000, cpu_us: 900, connections: 2, cost_us: 1000, named: vec![hog], ..Hogs::default() }
    }

    fn live(self) {
        loop {
            if self.stuck.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            }
            self.stats.epoch.store(self.publisher.epoch(), Ordering::Release);
            let told = match self.messages.recv_timeout(Duration::from_millis(2)) {
                Ok(ToWorker::Listen { id, .. }) => Told::Listen(id.0),
                Ok(ToWorker::Unlisten { id }) => Told::Unlisten(id.0),
                Ok(ToWorker::Forget { backends, clusters }) => Told::Forget(backends.len(), clusters.len()),
                Ok(ToWorker::Rest { backends, rests }) => Told::Rest(backends.len(), rests),
                Ok(ToWorker::Count { on, answer }) => {
                    let _ = answer.try_send((self.core, self.remains(&on)));
                    continue;
                }
                Ok(ToWorker::Even(order)) => Told::Even(order.to, order.work),
                Ok(ToWorker::Weigh) => Told::Weigh,
                Ok(ToWorker::Hogs { answer }) => {
                    let _ = answer.try_send(Hogs { core: self.core, ..self.hogs() });
                    continue;
                }
                Ok(ToWorker::Drain { seconds }) => {
                    let _ = self.outbox.send(FromWorker::Drained { core: self.core, cut: 3 });
                    (self.ring)();
                    Told::Drain(seconds)
                }
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => continue,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return,
            };
            let _ = self.tells.send(told);
        }
    }
}

struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    fn send(&mut self, line: &str) {
        self.reader.get_mut().write_all(line.as_bytes()).expect("sent");
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    fn ask(&mut self, cmd: &str, args: Value) -> Value {
        self.send(&format!("{}\n", json!({"v": 1, "id": "x", "cmd": cmd, "args": args})));
        let answer = self.read();
        assert_eq!(answer["id"], "x");
        answer
    }

    fn status(&mut self) -> Value {
        self.ask("status", json!({}))["ok"].clone()
    }

    fn reload(&mut self, config: &Value) -> Value {
        self.ask("reload", json!({"content": config.to_string()}))
    }
}

#[test]
fn a_reload_is_told_to_the_workers_and_answered_when_they_run_on_it() {
    let rig = Rig::new();
    let mut client = rig.client();
    assert_eq!(client.status()["generation"], 1);
    // The rig's first listener was given to nobody; here it moves, and a backend goes.
    let new = config(&rig.dir, json!({"a": "unix:moved.sock", "b": "unix:b.sock"}), json!({"b1": "127.0.0.1:9"}));
    let ok = client.reload(&new)["ok"].clone();
    assert_eq!((&ok["generation"], &ok["workers"], &ok["acknowledged"]), (&json!(2), &json!(2), &json!(2)), "{ok}");
    assert_eq!(ok["changed"]["listeners_added"], json!(["b"]));
    let expected = [Told::Unlisten(0), Told::Listen(0), Told::Listen(1), Told::Forget(1, 0)];
    for core in 0..CORES {
        let begin = Instant::now();
        let mut told = Vec::new();
        while told.len() < expected.len() && begin.elapsed() < Duration::from_secs(5) {
            told.extend(rig.told(core));
        }
        assert_eq!(told, expected);
    }
    let status = client.status();
    assert_eq!((&status["generation"], &status["epoch"]), (&json!(2), &json!(2)));
    assert!(status["clusters"]["app"]["backends"]["b2"].is_null());
    // The descriptors went with the messages and were dropped; the files say what is listened on.
    assert!(rig.dir.join("moved.sock").exists() && rig.dir.join("b.sock").exists());
}

#[test]
fn what_is_rejected_changes_nothing() {
    let rig = Rig::new();
    let mut client = rig.client();
    let good = config(&rig.dir, json!({"a": "unix:a.sock"}), json!({}));
    let mut other_io = good.clone();
    other_io["io"] = json!("epoll");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut no_port = good.clone();
    no_port["listeners"]["b"] = json!(taken.local_addr().expect("an address").to_string());
    let mut no_log = good.clone();
    no_log["log"] = json!({"access": "/nonexistent/log"});
    let mut dangling = good.clone();
    dangling["routes"]["*"] = json!("nowhere");
    for (bad, code, word) in [
        (json!("no object"), "bad_config", ""),
        (dangling, "bad_config", "nowhere"),
        (other_io, "not_applicable", "io"),
        (no_port, "not_applicable", "$.listeners.b"),
        (no_log, "not_applicable", "$.log.access"),
    ] {
        let error = client.reload(&bad)["error"].clone();
        assert_eq!(error["code"], code, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    std::fs::write(rig.dir.join("config.json"), "{ not json").expect("written");
    assert_eq!(client.ask("reload", json!({}))["error"]["code"], "bad_config");
    std::fs::remove_file(rig.dir.join("config.json")).expect("removed");
    assert_eq!(client.ask("reload", json!({}))["error"]["code"], "failed");
    let status = client.status();
    assert_eq!((&status["generation"], &status["epoch"]), (&json!(1), &json!(1)));
    assert_eq!(rig.told(0), []);
    assert_eq!(client.reload(&good)["ok"]["generation"], 2);
}

#[test]
fn garbage_is_answered_line_by_line() {
    let rig = Rig::new();
    let mut client = rig.client();
    for (line, code) in [
        ("hello?\n", "not_json"),
        ("[1,2]\n", "bad_request"),
        ("{\"v\":9,\"id\":1,\"cmd\":\"status\"}\n", "unsupported_version"),
        ("{\"v\":1,\"id\":1,\"cmd\":\"fly\"}\n", "unknown_command"),
        ("{\"v\":1,\"id\":1,\"cmd\":\"status\",\"args\":{\"x\":1}}\n", "bad_arguments"),
    ] {
        client.send(line);
        assert_eq!(client.read()["error"]["code"], code, "{line}");
    }
    client.reader.get_mut().write_all(b"\xff\xfe\x00\n").expect("sent");
    assert_eq!(client.read()["error"]["code"], "not_json");
    assert_eq!(client.status()["generation"], 1);
}

#[test]
fn a_thousand_clients_and_one_that_never_reads() {
    let rig = Rig::new();
    let mut never_reads = rig.client();
    let request = format!("{}\n", json!({"v": 1, "id": 1, "cmd": "status"}));
    never_reads.reader.get_mut().set_nonblocking(true).expect("set");
    while never_reads.reader.get_mut().write_all(request.as_bytes()).is_ok() {}
    let mut clients: Vec<Client> = (0..1000).map(|_| rig.client()).collect();
    // Those that were silent longest had to make room.
    let kept = clients.split_off(1000 - limits::CONTROL_CLIENTS_MAX + 1);
    for mut client in kept {
        assert_eq!(client.status()["generation"], 1);
    }
    for client in &mut clients {
        assert_eq!(client.read()["error"]["message"], "another client needs the place");
    }
}

#[test]
fn a_second_instance_is_refused() {
    let rig = Rig::new();
    let access = ControlAccess { mode: 0o600, group: None, uids: None };
    let refused = Door::new().expect("a door").control_socket(&rig.dir.join("control.sock"), &access);
    let why = refused.expect_err("the lock is held").to_string();
    assert!(why.contains("another instance") && why.contains(&std::process::id().to_string()), "{why}");
    assert_eq!(rig.client().status()["generation"], 1, "the first one is as it was");
}

#[test]
fn a_name_that_hangs_holds_up_its_own_reload_alone() {
    let rig = Rig::new();
    let begin = Instant::now();
    let backends = json!({"b1": "good.test:80", "b2": "hangs.test:80", "b3": "bad.test:80"});
    let new = config(&rig.dir, json!({"a": "unix:a.sock"}), backends);
    let mut asks = rig.client();
    let reload = std::thread::spawn(move || asks.reload(&new));
    let mut other = rig.client();
    while !reload.is_finished() {
        assert_eq!(other.status()["draining"], false);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(reload.join().expect("no panic")["ok"]["generation"], 2);
    assert!(begin.elapsed() >= Duration::from_secs(limits::RESOLVE_PATIENCE_SECONDS));
    let app = other.status()["clusters"]["app"].clone();
    assert_eq!(app["backends"]["b1"]["endpoint"], "127.0.0.1:80");
    assert!(app["unresolved"]["b2"].is_string() && app["unresolved"]["b3"].is_string(), "{app}");
}

#[test]
fn workers_that_are_stuck_make_an_honest_receipt() {
    let rig = Rig::new();
    rig.stuck.store(true, Ordering::Relaxed);
    let new = config(&rig.dir, json!({"a": "unix:a.sock"}), json!({}));
    let error = rig.client().reload(&new)["error"].clone();
    assert_eq!(error["code"], "not_acknowledged", "{error}");
    assert!(error["message"].to_string().contains("worker 0, 1 has not"), "{error}");
    let receipt = &error["receipt"];
    assert_eq!((&receipt["generation"], &receipt["acknowledged"]), (&json!(2), &json!(0)), "{error}");
    assert!(receipt["claim"].to_string().contains("none"), "{error}");
}

#[test]
fn a_patch_changes_what_runs_and_survives_a_reload() {
    let rig = Rig::new();
    let mut client = rig.client();
    let patch = |text: &str| json!({"patch": text});
    let ok = client.ask(
        "apply",
        patch(r#"{"clusters": {"new": {"backends": {"x": "127.0.0.1:7"}}}, "routes": {"n.test": "new"}}"#),
    );
    let ok = &ok["ok"];
    assert_eq!((&ok["generation"], &ok["patches"], &ok["acknowledged"]), (&json!(2), &json!(1), &json!(2)), "{ok}");
    assert_eq!((&ok["changed"]["routes_added"], &ok["saved"]), (&json!(["n.test"]), &json!(true)), "{ok}");
    assert!(ok["claim"].to_string().contains("no request was started on the state before epoch 2 after 20"), "{ok}");
    assert_eq!(client.ask("routes", json!({}))["ok"]["routes"], json!({"*": "app", "n.test": "new"}));

    let stale = client.ask("apply", json!({"patch": "{}", "if_generation": 1}))["error"].clone();
    assert_eq!(stale["code"], "other_generation", "{stale}");
    let bad = client.ask("apply", patch("{\n\"routes\": {\"n.test\": \"nowhere\"}}"))["error"].clone();
    assert_eq!((&bad["code"], &bad["line"]), (&json!("bad_config"), &json!(2)), "{bad}");

    assert_eq!(client.ask("reload", json!({}))["ok"]["patches"], 1);
    let running = client.ask("config", json!({}))["ok"].clone();
    assert!(running["text"].to_string().contains("n.test") && running["patches"][0]["who"].is_string(), "{running}");
    let dropped = client.ask("reload", json!({"drop_patches": true}))["ok"].clone();
    assert_eq!((&dropped["patches"], &dropped["changed"]["routes_removed"]), (&json!(0), &json!(["n.test"])));
    let state = std::fs::read_to_string(rig.dir.join("state.json")).expect("saved");
    assert_eq!(serde_json::from_str::<Value>(&state).expect("JSON")["patches"], json!([]));
}

#[test]
fn a_drained_backend_is_told_what_is_left_on_it() {
    let rig = Rig::new();
    rig.busy.store(true, Ordering::Relaxed);
    let mut client = rig.client();
    let drain = |seconds: u64| json!({"backend": "app/b1", "set": "drain", "why": "a new disk", "wait": {"for": "drained", "seconds": seconds}});
    let error = client.ask("backend", drain(1))["error"].clone();
    assert_eq!(error["code"], "not_drained", "{error}");
    assert!(error["message"].to_string().contains("1 tunnels on app/b1 (127.0.0.1:9) (worker 1)"), "{error}");
    let waits = std::thread::spawn({
        let mut other = rig.client();
        let drain = drain(20);
        move || other.ask("backend", drain)
    });
    std::thread::sleep(Duration::from_millis(200));
    let b1 = client.status()["clusters"]["app"]["backends"]["b1"].clone();
    assert_eq!((&b1["state"], &b1["observed"]), (&json!("drain"), &json!("up")), "{b1}");
    assert_eq!(b1["overrides"][0]["why"], "a new disk", "{b1}");
    rig.busy.store(false, Ordering::Relaxed);
    let ok = waits.join().expect("no panic")["ok"].clone();
    assert_eq!((&ok["left"], &ok["saved"]), (&json!([]), &json!(true)), "{ok}");
    assert!(rig.told(0).contains(&Told::Rest(1, true)));

    assert_eq!(client.ask("backend", json!({"backend": "app/b1", "set": "up"}))["ok"]["acknowledged"], 2);
    assert_eq!(client.status()["clusters"]["app"]["backends"]["b1"]["state"], "up");
    assert!(rig.told(0).contains(&Told::Rest(1, false)));
    for (args, word) in [
        (json!({"backend": "app/b9", "set": "drain"}), "b1, b2"),
        (json!({"backend": "nope/b1", "set": "drain"}), "no cluster"),
        (json!({"backend": "b1", "set": "drain"}), "CLUSTER/ID"),
        (json!({"backend": "app/b1", "set": {"weight": 0}}), "weight"),
        (json!({"backend": "app/b1", "set": "explode"}), "explode"),
    ] {
        let error = client.ask("backend", args)["error"].clone();
        assert!(error["message"].to_string().contains(word), "{error}");
    }
}

#[test]
fn overrides_and_pauses_end_by_themselves() {
    let rig = Rig::new();
    let mut client = rig.client();
    let ok = client.ask("backend", json!({"backend": "app/b1", "set": {"weight": 7}, "for": 1}))["ok"].clone();
    assert_eq!(ok["epoch"], 2, "{ok}");
    assert_eq!(rig.publisher.current().states[0].weight, 7 * limits::WEIGHT_ONE);
    assert_eq!(client.ask("pause", json!({"cluster": "app", "max": 1}))["ok"]["left"], json!([]));
    assert_eq!(rig.publisher.current().paused.len(), 1);
    let begin = Instant::now();
    while rig.publisher.current().states[0].weight != limits::WEIGHT_ONE || !rig.publisher.current().paused.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(5), "their time is over");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(begin.elapsed() > Duration::from_millis(500));
    let error = client.ask("resume", json!({"cluster": "app"}))["error"].clone();
    assert!(error["message"].to_string().contains("not paused"), "{error}");
    client.ask("pause", json!({"cluster": "app"}));
    assert!(client.ask("resume", json!({"cluster": "app"}))["ok"]["epoch"].is_u64());
}

#[test]
fn what_users_may_do_is_what_the_config_says() {
    let rig = Rig::new();
    let mut client = rig.client();
    let mut new = config(&rig.dir, json!({"a": "unix:a.sock"}), json!({}));
    new["control"]["mode"] = json!("0640");
    new["control"]["uids"] = json!({"read": [12345]});
    // This user is the process's own and may do everything; others are told apart in the unit that does it.
    assert_eq!(client.reload(&new)["ok"]["generation"], 2);
    let mode = std::fs::metadata(rig.dir.join("control.sock")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(client.reload(&new)["ok"]["generation"], 3);
    new["control"]["group"] = json!("no such group");
    assert_eq!(client.reload(&new)["error"]["path"], "$.control.group");
}

#[test]
fn a_stop_over_the_socket_drains() {
    let mut rig = Rig::new();
    assert_eq!(rig.client().ask("stop", json!({}))["ok"]["done"], "draining");
    assert_eq!(rig.ended(), Ended::Drained { cut: 6, missing: 0 });
}

#[test]
fn a_report_or_a_lost_one_marks_a_backend_down() {
    let rig = Rig::new();
    let fail = |index: usize| -> BackendId {
        let snapshot = rig.publisher.current();
        let backend = &snapshot.table.clusters()[0].backends[index];
        backend.cells.core(0).failures_in_row.store(3, Ordering::Release);
        backend.id
    };
    let backend = fail(1);
    rig.from_workers.send(FromWorker::Report { core: 0, backend }).expect("room");
    (rig.ring)();
    let mut client = rig.client();
    let state = |client: &mut Client, name: &str| client.status()["clusters"]["app"]["backends"][name].clone();
    let begin = Instant::now();
    while state(&mut client, "b2")["state"] != "down" {
        assert!(begin.elapsed() < Duration::from_secs(5), "the report is heard");
    }
    assert!(state(&mut client, "b2")["next_probe"].is_u64());
    assert_eq!(rig.publisher.epoch(), 2);

    // The last one up stays up; a flag instead of a report is enough.
    fail(0);
    rig.stats[1].look_at_all.store(true, Ordering::Release);
    (rig.ring)();
    let begin = Instant::now();
    while !state(&mut client, "b1")["why"].to_string().contains("kept up") {
        assert!(begin.elapsed() < Duration::from_secs(5), "the flag is seen");
    }
    assert_eq!(state(&mut client, "b1")["state"], "up");
}

#[test]
fn a_stop_drains_and_adds_up_what_was_cut() {
    let mut rig = Rig::new();
    rig.stop();
    assert_eq!(rig.ended(), Ended::Drained { cut: 6, missing: 0 });
    assert_eq!(rig.told[0].recv_timeout(Duration::from_secs(5)), Ok(Told::Drain(limits::DRAIN_SECONDS)));
    assert!(!rig.dir.join("control.sock").exists());
}

#[test]
fn in_a_drain_status_is_told_reloads_are_not_obeyed_and_a_second_stop_ends_it() {
    let mut rig = Rig::new();
    rig.stuck.store(true, Ordering::Relaxed);
    // The workers notice that they are stuck.
    std::thread::sleep(Duration::from_millis(20));
    let mut client = rig.client();
    rig.stop();
    let begin = Instant::now();
    while client.status()["draining"] != true {
        assert!(begin.elapsed() < Duration::from_secs(5), "the signal is heard");
    }
    let good = config(&rig.dir, json!({"a": "unix:a.sock"}), json!({}));
    assert_eq!(client.reload(&good)["error"]["code"], "failed");
    // Within a moment of the first one it counts as the same.
    rig.stop();
    assert_eq!(client.status()["draining"], true);
    std::thread::sleep(Duration::from_millis(limits::STOP_AGAIN_MS));
    rig.stop();
    assert_eq!(rig.ended(), Ended::AtOnce);
}

#[test]
fn a_core_that_has_much_more_to_do_is_told_to_give() {
    let rig = Rig::new();
    let [hot, cold] = [&rig.stats[0], &rig.stats[1]];
    hot.load_permille.store(1000, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(15);
    let (mut told, mut other) = (Vec::new(), Vec::new());
    while !told.contains(&Told::Even(1, 500)) {
        assert!(Instant::now() < until, "{told:?}");
        // Both tick; without that nothing is known of them.
        for stats in [hot, cold] {
            stats.ticks.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(100));
        told.extend(rig.told(0));
        other.extend(rig.told(1));
    }
    assert!(other.iter().all(|one| !matches!(one, Told::Even(..))), "{other:?}");
}

#[test]
fn why_slow_names_connections_and_cores_that_do_not_answer() {
    let rig = Rig::new();
    let ask = |ms: u64| {
        let mut client = rig.client();
        std::thread::spawn(move || client.ask("why_slow", json!({"ms": ms}))["ok"].clone())
    };
    // Two who ask for different times.
    let (short, long) = (ask(50), ask(400));
    let slow = short.join().expect("no panic");
    assert_eq!(
        (&slow["silent"], &slow["cores"][1]["core"], &slow["cores"][1]["cpu_us"]),
        (&json!([]), &json!(1), &json!(900))
    );
    let expected = json!({"client": "10.0.0.7:4711", "listener": "a", "cluster": "app", "share_permille": 750, "cost_us": 750,
        "longest_us": 70, "requests": 99, "received": 1234, "sent": 5678});
    assert_eq!(slow["cores"][0]["hogs"], json!([expected]), "{slow}");
    assert_eq!(long.join().expect("no panic"), slow);
    assert_eq!(rig.told(0).iter().filter(|one| **one == Told::Weigh).count(), 2);

    rig.stuck.store(true, Ordering::Relaxed);
    let slow = ask(10).join().expect("no panic");
    assert_eq!((&slow["silent"], &slow["cores"]), (&json!([0, 1]), &json!([])));
    rig.stuck.store(false, Ordering::Relaxed);
    let refused = rig.client().ask("why_slow", json!({"for": 1}))["error"].clone();
    assert_eq!(refused["code"], "bad_arguments", "{refused}");
}
