//! The real binary as a child process: config in a directory of its own, addresses nobody else uses, an end by pid.

use crate::origin::Origin;
use crate::settings;
use crate::{toy, toy_server};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The binary under test: the one just built, or another that is named by `RINGWAY`.
pub fn binary() -> String {
    std::env::var("RINGWAY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ringway").to_string())
}

/// The command that serves a config: the binary, or the same proxy behind the toy transport where that is switched on.
fn serving(config: &Path) -> Command {
    if toy::is_on() {
        return toy_server::command(config);
    }
    let mut command = Command::new(binary());
    command.arg("run").arg("--config").arg(config);
    command
}

/// Which driver moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Uring,
    Epoll,
}

impl Driver {
    /// The value of the config key `io`.
    pub fn key(self) -> &'static str {
        match self {
            Driver::Uring => "uring",
            Driver::Epoll => "epoll",
        }
    }

    /// Whether this machine lets us have it; says so once if not.
    pub fn usable(self) -> bool {
        static RING: OnceLock<bool> = OnceLock::new();
        self == Driver::Epoll
            || *RING.get_or_init(|| {
                // 120 bytes of io_uring_params, all zero, are valid arguments.
                let mut params = [0u8; 256];
                let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4u32, params.as_mut_ptr()) };
                if fd < 0 {
                    let cause = std::io::Error::last_os_error();
                    eprintln!("SKIPPED: no ring on this machine ({cause}); uring runs are skipped");
                    return false;
                }
                unsafe { libc::close(fd as i32) };
                true
            })
    }
}

/// Makes of each `fn name(driver)` two tests, `name::uring` and `name::epoll`.
macro_rules! on_both_drivers {
    ($($(#[$meta:meta])* fn $name:ident($driver:ident) $body:block)*) => { $(
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            fn on($driver: $crate::harness::Driver) $body
            $(#[$meta])*
            #[test]
            fn uring() {
                let driver = $crate::harness::Driver::Uring;
                if driver.usable() { on(driver) }
            }
            $(#[$meta])*
            #[test]
            fn epoll() { on($crate::harness::Driver::Epoll) }
        }
    )* };
}
pub(crate) use on_both_drivers;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An address on a loopback IP that only this call has, with a port below the ephemeral ones. It is not tried out: a socket
/// of ours would live on for a moment in children that other tests have just forked.
pub fn free_address() -> SocketAddr {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let ip = Ipv4Addr::new(127, (10 + pid % 240) as u8, (n / 250) as u8, (n % 250 + 1) as u8);
    SocketAddr::from((ip, 20_000 + ((pid + n) % 10_000) as u16))
}

/// A directory that is removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ringway-test-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory for the test");
        Scratch(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("write a file of the test");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The config of one cluster `app` with these origins (`b1`, `b2`, ...) behind every host.
pub fn config_of(origins: &[&Origin]) -> Value {
    let backends: serde_json::Map<String, Value> =
        origins.iter().enumerate().map(|(i, o)| (format!("b{}", i + 1), json!(o.address().to_string()))).collect();
    json!({ "clusters": { "app": { "backends": backends } }, "routes": { "*": "app" } })
}

/// A running proxy.
pub struct Ringway {
    pub address: SocketAddr,
    pub scratch: Scratch,
    pub config: Value,
    child: Child,
    exit: Option<ExitStatus>,
}

impl Ringway {
    /// Before these origins, with nothing but defaults.
    pub fn before(driver: Driver, origins: &[&Origin]) -> Ringway {
        Ringway::start(driver, config_of(origins))
    }

    /// Before these origins, with a change to the config.
    pub fn with(driver: Driver, origins: &[&Origin], change: impl FnOnce(&mut Value)) -> Ringway {
        let mut config = config_of(origins);
        change(&mut config);
        Ringway::start(driver, config)
    }

    /// With this config; what every test needs the same (listener, driver, control socket, log) is added unless it is there.
    pub fn start(driver: Driver, config: Value) -> Ringway {
        Ringway::start_with(driver, config, |_| {})
    }

    /// The same, with a change to the command before it is run (limits, redirections).
    pub fn start_with(driver: Driver, config: Value, change: impl FnOnce(&mut Command)) -> Ringway {
        Ringway::spawn(driver, config, free_address(), serving, change)
    }

    /// For a config that names its listeners itself; one of them is at `address`.
    pub fn start_at(driver: Driver, config: Value, address: SocketAddr) -> Ringway {
        Ringway::spawn(driver, config, address, serving, |_| {})
    }

    /// Before these origins, with nothing but defaults, and with the toy transport towards its clients.
    pub fn behind_toy(driver: Driver, origins: &[&Origin]) -> Ringway {
        Ringway::spawn(driver, config_of(origins), free_address(), toy_server::command, |_| {})
    }

    /// With this config, served by another command than the binary.
    pub fn started_as(
        driver: Driver,
        config: Value,
        serving: impl FnOnce(&Path) -> Command,
        change: impl FnOnce(&mut Command),
    ) -> Ringway {
        Ringway::spawn(driver, config, free_address(), serving, change)
    }

    fn spawn(
        driver: Driver,
        mut config: Value,
        address: SocketAddr,
        serving: impl FnOnce(&Path) -> Command,
        change: impl FnOnce(&mut Command),
    ) -> Ringway {
        let scratch = Scratch::new();
        let map = config.as_object_mut().expect("a config is an object");
        map.insert("io".into(), json!(driver.key()));
        let listeners = map.entry("listeners").or_insert_with(|| json!({}));
        if listeners.get("main").is_none_or(Value::is_object) {
            settings::set(listeners, "main/address", address.to_string());
        }
        map.entry("workers").or_insert_with(|| json!(1));
        map.entry("control").or_insert_with(|| json!({ "socket": scratch.path("control.sock") }));
        let log = map.entry("log").or_insert_with(|| json!({}));
        if log.get("access").is_none() {
            log["access"] = json!(scratch.path("access.log"));
        }
        let file = scratch.write("config.json", &format!("{config:#}"));
        let errors = fs::File::create(scratch.path("stderr")).expect("a file for stderr");
        let mut command = serving(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        change(&mut command);
        die_with_parent(&mut command);
        let child = command.spawn().expect("the binary starts");
        let mut ringway = Ringway { address, scratch, config, child, exit: None };
        ringway.wait_until_it_listens();
        ringway
    }

    fn wait_until_it_listens(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait().expect("wait") {
                self.exit = Some(status);
                panic!("ringway ended at start ({status}): {}", self.stderr());
            }
            assert!(Instant::now() < until, "ringway does not listen: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: i32) {
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0, "kill");
    }

    /// What it said on stderr until now.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.scratch.path("stderr")).unwrap_or_default()
    }

    /// The same, and from here on it is as if nothing had been said: panics that were meant to be are no fault.
    pub fn take_stderr(&self) -> String {
        let said = self.stderr();
        fs::write(self.scratch.path("stderr"), "").expect("write a file of the test");
        said
    }

    /// Waits for its end.
    pub fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let until = Instant::now() + at_most;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                self.exit = Some(status);
                return status;
            }
            assert!(Instant::now() < until, "still running after {at_most:?}: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Replaces the config file, telling nobody.
    pub fn write_config(&mut self, config: &Value) {
        self.scratch.write("config.json", &format!("{config:#}"));
        self.config = config.clone();
    }

    /// Runs `ringway ctl ARGS` on this instance's socket.
    pub fn ctl(&self, args: &[&str]) -> Output {
        let socket = self.scratch.path("control.sock");
        let mut command = Command::new(binary());
        command.arg("ctl").arg("--socket").arg(socket).args(args);
        run(command, Duration::from_secs(15))
    }

    /// `ctl status --json`, parsed.
    pub fn status(&self) -> Value {
        let out = self.ctl(&["status", "--json"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "ctl status: {text} {}", lossy(&out.stderr));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("status is no JSON ({e}): {text}"))
    }

    /// State of a backend in the status: "up", "down", ...
    pub fn backend_state(&self, cluster: &str, backend: &str) -> String {
        let status = self.status();
        let found = find(find(&status["clusters"], cluster), "backends");
        let state = &find(found, backend)["state"];
        state.as_str().unwrap_or_else(|| panic!("no state in {status:#}")).to_string()
    }

    /// Waits for a backend's state.
    pub fn wait_state(&self, backend: &str, state: &str, at_most: Duration) {
        eventually(at_most, &format!("{backend} is {state}"), || self.backend_state("app", backend) == state);
    }

    /// The configuration generation that the status shows.
    pub fn generation(&self) -> u64 {
        let status = self.status();
        status["generation"].as_u64().unwrap_or_else(|| panic!("no generation in {status:#}"))
    }

    /// Waits until the access log has at least `n` lines, and parses them all.
    pub fn log(&self, n: usize) -> Vec<Value> {
        let path = self.scratch.path("access.log");
        let mut lines = Vec::new();
        eventually(Duration::from_secs(5), &format!("{n} lines in the access log"), || {
            let text = fs::read(&path).unwrap_or_default();
            lines = text.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            lines.len() >= n
        });
        let parse = |line: &Vec<u8>| {
            assert!(line.iter().all(|b| *b == b'\n' || *b >= 0x20), "control bytes: {line:?}");
            serde_json::from_slice(line).unwrap_or_else(|e| panic!("{e} in {:?}", lossy(line)))
        };
        lines.iter().map(parse).collect()
    }

    /// A line `NAME: VALUE kB` of /proc/PID/status, in KiB.
    pub fn memory_kib(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("proc status");
        let line = text.lines().find(|l| l.starts_with(name)).expect("the line");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Descriptors of pipes that it has open.
    pub fn pipes(&self) -> usize {
        let all = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("proc fd");
        let names = all.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        names.filter(|name| name.to_string_lossy().starts_with("pipe:")).count()
    }

    /// User and system time it has used, in clock ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("proc stat");
        let behind = text.rsplit(')').next().expect("fields behind the name");
        let fields: Vec<&str> = behind.split_whitespace().collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }
}

impl Drop for Ringway {
    fn drop(&mut self) {
        if self.exit.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let said = self.stderr();
        if std::thread::panicking() {
            eprintln!("--- config\n{}\n--- stderr\n{said}---", self.config);
        } else {
            assert!(!said.contains("panicked at"), "a panic inside the proxy: {said}");
        }
    }
}

/// A member of a map by name, or of an array of objects by their `name` or `id`.
pub fn find<'a>(value: &'a Value, name: &str) -> &'a Value {
    if let Some(found) = value.get(name) {
        return found;
    }
    let named = |v: &&Value| v["name"] == name || v["id"] == name;
    let found = value.as_array().and_then(|all| all.iter().find(named));
    found.unwrap_or_else(|| panic!("no {name} in {value:#}"))
}

/// The kernel kills the child when the thread that started it ends, so that nothing stays behind an aborted run.
fn die_with_parent(command: &mut Command) {
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Runs a command to its end, with a limit.
pub fn run(mut command: Command, at_most: Duration) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    die_with_parent(&mut command);
    let mut child = command.spawn().expect("the command starts");
    let mut stdout = child.stdout.take().expect("stdout");
    let mut stderr = child.stderr.take().expect("stderr");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.read_to_end(&mut bytes);
        bytes
    });
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes);
        bytes
    });
    let until = Instant::now() + at_most;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} took longer than {at_most:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let stdout = reader.join().expect("reader of stdout");
    let stderr = errors.join().expect("reader of stderr");
    Output { status, stdout, stderr }
}

/// Runs the binary with these arguments and a working directory.
pub fn cli(args: &[&str], directory: &Path) -> Output {
    let mut command = Command::new(binary());
    command.args(args).current_dir(directory);
    run(command, Duration::from_secs(15))
}

/// Asks until it is so.
pub fn eventually(at_most: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + at_most;
    while !so() {
        assert!(Instant::now() < until, "not within {at_most:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
