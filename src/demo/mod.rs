//! `ringway demo`: three backends and the real proxy before them, in one process, with nothing installed. One backend dies
//! and comes back, while requests go on; what `ctl status` says is shown at each step.

mod backend;

use crate::control::Ended;
use crate::control::signals::{Signal, Signals};
use crate::control::start::{self, Failure, Worker};
use crate::{ctl, limits};
use backend::Backend;
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two requests of the demo's own client.
const PACE: Duration = Duration::from_millis(100);

/// Runs the demo on this port of 127.0.0.1 (0: a free one), for so many seconds or until a signal.
///
/// # Errors
/// What the demo itself needs could not be had. How the proxy ended is the inner result.
pub fn run(port: u16, seconds: Option<u64>, worker: Worker) -> io::Result<Result<Ended, Failure>> {
    let backends = [Backend::start("one")?, Backend::start("two")?, Backend::start("three")?];
    let address = match port {
        0 => TcpListener::bind("127.0.0.1:0")?.local_addr()?,
        port => SocketAddr::from(([127, 0, 0, 1], port)),
    };
    let scratch = Scratch::new()?;
    let config = scratch.write_config(address, &backends)?;
    let (stops, stop) = UnixStream::pair()?;
    let signals = Signals::install_with(vec![(Signal::Stop, stops)])?;
    let proxy = std::thread::Builder::new()
        .name("demo-proxy".into())
        .spawn(move || start::run(Some(config), signals, worker))?;

    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut show = Show { address, backends, socket: scratch.socket(), proxy, until, tally: Tally::default() };
    // Nothing is left to do when the show ends early: it was told to.
    let _ = show.perform();
    let _ = (&stop).write_all(b"x");
    let Show { proxy, tally, .. } = show;
    let ended = proxy.join().map_err(|_| io::Error::other("the proxy's thread has panicked"))?;
    if ended.is_ok() {
        say(&format!("\nThe end: {tally}."));
    }
    Ok(ended)
}

fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stdout(), "{text}");
}

/// The temporary directory of config and control socket, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = std::env::temp_dir().join(format!("ringway-demo-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Scratch(dir))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    fn write_config(&self, address: SocketAddr, backends: &[Backend; 3]) -> io::Result<PathBuf> {
        let all: serde_json::Map<_, _> =
            backends.iter().map(|b| (b.name().to_owned(), json!(b.address().to_string()))).collect();
        let config = json!({
            "listeners": {"demo": address.to_string()},
            "clusters": {
                "hello": {"backends": all, "probe": {"path": "/"}},
                "admin": {"backends": {"three": backends[2].address().to_string()}},
            },
            "routes": {"*.apps.test": "hello", "www.shop.test": "hello", "www.shop.test/admin": "admin"},
            "workers": 2,
            "control": {"socket": self.socket()},
            "drain_timeout": "2s",
        });
        let path = self.0.join("config.json");
        std::fs::write(&path, format!("{config:#}\n"))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// It was told to end, or the proxy has ended.
struct Over;

struct Show {
    address: SocketAddr,
    backends: [Backend; 3],
    socket: PathBuf,
    proxy: JoinHandle<Result<Ended, Failure>>,
    until: Option<Instant>,
    tally: Tally,
}

/// Answers to the demo's own client.
#[derive(Default)]
struct Tally {
    good: u64,
    bad: u64,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} requests answered well, {} not", self.good, self.bad)
    }
}

impl Show {
    fn perform(&mut self) -> Result<(), Over> {
        self.wait_until_it_serves()?;
        self.introduce();
        self.traffic(Duration::from_secs(8), |_| false)?;
        say("\n>>> Backend \"two\" dies now: its connections are cut, its port is closed.");
        self.backends[1].kill();
        self.traffic(Duration::from_secs(10), |show| show.state_of_two() == "down")?;
        say(&format!("\n>>> It was found out by the requests that failed, and those went elsewhere: {}.", self.tally));
        self.show_status();
        self.traffic(Duration::from_secs(5), |_| false)?;
        if let Err(e) = self.backends[1].revive() {
            say(&format!("\n>>> Backend \"two\" cannot come back: {e}"));
        } else {
            say(&format!(
                "\n>>> Backend \"two\" is back. It was marked down for {} s; then it is probed (GET /),\n    \
                 and only a good answer brings it traffic again. Until then the others serve.",
                limits::HOLD_DOWN_SECONDS
            ));
        }
        self.traffic(Duration::from_secs(u64::from(limits::HOLD_DOWN_SECONDS) + 10), |show| {
            show.state_of_two() == "up"
        })?;
        say(&format!("\n>>> A probe was answered: {}.", self.tally));
        self.traffic(Duration::from_secs(3), |_| false)?;
        self.show_status();
        say("\nThat was all; the proxy goes on for you to try the lines above. Ctrl-C ends it.");
        self.traffic(Duration::MAX, |_| false)
    }

    fn introduce(&mut self) {
        let (address, socket) = (self.address, self.socket.display());
        say(&format!(
            "\
Three backends (one, two, three) are running in this process, and ringway before them on {address}.
Try, in another terminal:

  curl -H 'Host: any-app.apps.test' http://{address}/      a wildcard host: *.apps.test
  curl -H 'Host: www.shop.test' http://{address}/          a custom domain, the same backends in turn
  curl -H 'Host: www.shop.test' http://{address}/admin/x   a path of it that has a cluster of its own
  curl -i -H 'Host: unknown.test' http://{address}/        a host that nobody has
  curl -T FILE -H 'Host: www.shop.test' http://{address}/  an upload
  ringway ctl --socket {socket} status

Meanwhile the demo's own client asks for www.shop.test ten times a second."
        ));
        let names: Vec<String> = (0..6).filter_map(|_| self.ask().ok()).collect();
        say(&format!("\n>>> The first answers come from: {}.", names.join(", ")));
    }

    fn wait_until_it_serves(&self) -> Result<(), Over> {
        while ctl::status(&self.socket, ctl::Form::Json).is_err() || TcpStream::connect(self.address).is_err() {
            self.check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends requests for this long, or until `enough` says so.
    fn traffic(&mut self, time: Duration, enough: impl Fn(&Show) -> bool) -> Result<(), Over> {
        let begin = Instant::now();
        while begin.elapsed() < time && !enough(self) {
            self.check()?;
            match self.ask() {
                Ok(_) => self.tally.good += 1,
                // Between two looks the proxy was told to stop.
                Err(_) if self.check().is_err() => return Err(Over),
                Err(_) => self.tally.bad += 1,
            }
            std::thread::sleep(PACE);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Over> {
        let over = self.proxy.is_finished() || self.until.is_some_and(|until| Instant::now() >= until);
        if over { Err(Over) } else { Ok(()) }
    }

    /// The name of the backend that answers one request.
    fn ask(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: www.shop.test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let name = answer.split_once("Hello from ").and_then(|(_, rest)| rest.split_once('.')).map(|(name, _)| name);
        match name {
            Some(name) if answer.starts_with("HTTP/1.1 200 ") => Ok(name.to_owned()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn state_of_two(&self) -> String {
        let status = ctl::status(&self.socket, ctl::Form::Json).unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        status["clusters"]["hello"]["backends"]["two"]["state"].as_str().unwrap_or_default().to_owned()
    }

    fn show_status(&self) {
        if let Ok(table) = ctl::status(Path::new(&self.socket), ctl::Form::Text) {
            say(&format!("\n$ ringway ctl status\n{table}"));
        }
    }
}
