//! From what the operator typed to what the program runs.
//!
//! In the order of the work: `place` makes a tree of the text, in which every value knows its place; `shape` walks it
//! against the JSON Schema, which is derived from the types in `file`; `cross` finds what is wrong between two places;
//! `check` turns a faultless file into a [`Plan`]; `budget` sets the plan against the limit of open files; `patch` merges
//! changes over the file; `brief` writes a file that a program has put together; `differ` sets two configs against each other.
//! `value`, `words` and `route_key` know how single values are written, `log` what the access log can tell; `keys` lists the
//! schema's keys for people. `command` with `orders`, and `answer` with `receipt`, `stories` and `events`, are what travels over
//! the control socket. Only this room and the code that prints JSON names serde.

pub mod answer;
pub mod brief;
pub mod budget;
pub mod check;
pub mod command;
mod cross;
pub mod differ;
pub mod events;
pub mod fault;
pub mod file;
mod health;
pub mod keys;
mod log;
pub mod orders;
mod pages;
pub mod patch;
mod place;
pub mod receipt;
pub mod route_key;
mod shape;
pub mod state;
pub mod stories;
pub mod value;
pub mod words;

pub use log::{LogField, LogFields, LogLines, Share};
pub use shape::nearest;

use self::command::Level;
use crate::http::head::Underscores;
use crate::route::table::Policy;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Where a listener listens or a backend is, as typed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// `IP:PORT`
    Ip(SocketAddr),
    /// `NAME:PORT`, resolved by control
    Name(String, u16),
    /// `unix:PATH`
    Unix(PathBuf),
}

/// A listener's index in [`Settings::listeners`]; stable over reloads as long as its name stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u32);

/// One listener, checked. `Name` addresses are refused here.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The operator's name.
    pub name: String,
    /// IP or Unix.
    pub address: Address,
    /// Peers whose X-Forwarded-* are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Path that is answered here, with the state of the process.
    pub health_path: Option<String>,
}

impl Listener {
    /// Whether this peer is one of the trusted proxies.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}

/// What a FIN from the client means while its request is being served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HalfClose {
    /// A half-close: the answer is still delivered.
    #[default]
    Serve,
    /// The client is gone: the exchange is cancelled.
    Abort,
}

/// Which driver moves the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// The ring if it can be had, else epoll, with the cause in the log.
    #[default]
    Auto,
    /// The ring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// How the access log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Values with a space between them, strings in quotes.
    Text,
}

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// An operator's page for one status of Ringway's own answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Content-Type, by the file's ending.
    pub content_type: String,
    /// The file's bytes, read when the config was.
    pub body: Vec<u8>,
}

/// Everything beside the table that workers obey; published with each snapshot. Times are in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// By [`ListenerId`]; holes are listeners that were removed.
    pub listeners: Vec<Option<Listener>>,
    /// Absolute time for a request head, from its first byte (or the connection's begin).
    pub client_head_timeout: u32,
    /// Keep-alive idle time.
    pub client_idle_timeout: u32,
    /// Silence in a request body, and a client that takes no response bytes, where no cluster is known: the default of
    /// [`Policy::client_body_timeout`], which governs elsewhere.
    pub client_body_timeout: u32,
    /// See [`HalfClose`].
    pub client_half_close: HalfClose,
    /// Bytes per second a request body must come with after the grace, where no cluster is known; 0 is off. The default
    /// of [`Policy::client_rate_min`], which governs elsewhere.
    pub client_rate_min: u64,
    /// Client connections per worker. As loaded a cautious guess; [`budget::apply`] puts the real number.
    pub connections_per_worker: usize,
    /// Idle backend connections that one worker keeps, all backends together. As loaded a cautious guess;
    /// [`budget::apply`] puts the real number.
    pub pooled_per_worker: usize,
    /// Pipes that one worker may have for spliced bodies. As loaded a cautious guess; [`budget::apply`] puts the real
    /// number.
    pub pipes_per_worker: usize,
    /// Names with `_`.
    pub underscores: Underscores,
    /// Via pseudonym, `None` is off.
    pub via: Option<String>,
    /// Pages by status.
    pub pages: BTreeMap<u16, Page>,
    /// Access log.
    pub log_target: LogTarget,
    /// Its format.
    pub log_format: LogFormat,
    /// Which lines it has, and what they tell.
    pub log_lines: LogLines,
    /// Exchanges that each core remembers beside those that went wrong.
    pub recent: u32,
    /// Seconds for a drain at stop.
    pub drain_timeout: u32,
    /// Value of Retry-After on 503, in seconds.
    pub retry_after: u32,
    /// Browsers get the status page on the status listener.
    pub status_page: bool,
}

impl Settings {
    /// A listener that has not been removed.
    pub fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(id.0 as usize)?.as_ref()
    }
}

/// A backend as configured (before names are resolved).
#[derive(Clone, Debug, PartialEq)]
pub struct BackendPlan {
    /// The operator's id.
    pub name: String,
    /// As typed.
    pub address: Address,
    /// At least 1.
    pub weight: u32,
    /// Takes requests only when no other one of its cluster can.
    pub backup: bool,
    /// Exchanges it may have at once; 0 is no limit.
    pub max_conns: u32,
}

/// A cluster as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterPlan {
    /// In the order of their ids.
    pub backends: Vec<BackendPlan>,
    /// All resolved.
    pub policy: Policy,
}

/// A route as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePlan {
    /// The host part, lower case, without trailing dot: exact name, `*.suffix`, `*` for the default, or an IPv6 literal
    /// in brackets.
    pub host: String,
    /// The path prefix, `/` at least.
    pub path: String,
    /// Name of the cluster.
    pub cluster: String,
}

/// A faultless config: everything a run needs, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// By name.
    pub clusters: BTreeMap<String, ClusterPlan>,
    /// By `host/path` as typed.
    pub routes: BTreeMap<String, RoutePlan>,
    /// Listeners by name (ids are given by the supervisor, so that they are stable over reloads).
    pub listeners: BTreeMap<String, Listener>,
    /// `settings.listeners` is empty here; the supervisor fills it.
    pub settings: Settings,
    /// Number of workers; `None` is one per usable core. Needs a restart.
    pub workers: Option<usize>,
    /// Client connections of all workers together, as configured; `None` is what the limit of open files allows.
    pub connections: Option<usize>,
    /// Needs a restart.
    pub io: Io,
    /// Control socket path; `None` is off. Needs a restart.
    pub control_socket: Option<PathBuf>,
    /// Who may use the control socket.
    pub control_access: ControlAccess,
    /// Where patches and overrides are kept. Needs a restart.
    pub state_file: Option<PathBuf>,
    /// Where metrics and health are answered; `None` is nowhere.
    pub status_listen: Option<Address>,
}

/// Who may use the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlAccess {
    /// Permission bits of the file.
    pub mode: u32,
    /// Its group, by name or number.
    pub group: Option<String>,
    /// What each user may do; `None` is everything.
    pub uids: Option<BTreeMap<u32, Level>>,
}

impl Plan {
    /// What is allowed and may yet be a mistake, each a sentence that begins with its key.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(Address::Ip(address)) = &self.status_listen
            && !address.ip().to_canonical().is_loopback()
        {
            warnings.push(format!(
                "$.status.listen: {address} is no loopback address: whoever reaches it can read the names, addresses and \
                 figures of all applications"
            ));
        }
        warnings
    }
}
