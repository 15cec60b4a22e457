//! The config file as the operator types it. The JSON Schema is derived from these types, and with it the check of the
//! file's shape (`shape`), `ringway schema`, and the table of keys in docs/CONFIG.md: a key is described here and
//! nowhere else. Only `check` sees these types, and what writes configs by itself (`brief`).

use super::words::*;
use super::{LogField, LogFields};
use crate::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The config of one Ringway process.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Ringway config")]
pub struct File {
    /// Where the JSON Schema of this file is, for editors. Ringway does not read it.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub schema: Option<String>,
    /// Where clients connect, by a name of your choice.
    #[schemars(extend("propertyNames" = {"format": "ringway-name"}, "minProperties" = 1))]
    pub listeners: BTreeMap<String, ListenerEntry>,
    /// The applications: each a set of backends with the policy towards them.
    #[schemars(extend("propertyNames" = {"format": "ringway-name"}))]
    pub clusters: BTreeMap<String, Cluster>,
    /// Which requests go to which cluster. The key is `host/path`: an exact host, `*.suffix` or `*`, and a path prefix.
    /// An exact host wins over the longest wildcard, that over `*`; then the longest path prefix wins. Order is of no
    /// meaning.
    #[schemars(extend("propertyNames" = {"format": "ringway-route"}))]
    pub routes: BTreeMap<String, RouteEntry>,
    /// Policy of every cluster that does not say otherwise.
    #[serde(default)]
    pub defaults: Policy,
    /// Number of workers, each a thread on a core of its own; `null` is one per core that the process may use.
    /// Needs a restart.
    #[serde(default)]
    #[schemars(range(min = 1, max = limits::WORKERS_MAX))]
    pub workers: Option<u32>,
    /// What moves the bytes: `auto` takes io_uring if it can be had and epoll otherwise, `uring` refuses to start
    /// without, `epoll` forces epoll. Needs a restart.
    #[serde(default)]
    pub io: IoWord,
    /// The control socket.
    #[serde(default)]
    pub control: Control,
    /// Where patches and overrides given over the control socket are kept, so that a restart brings them back; `null`
    /// keeps them in memory only. Relative paths begin at the config file's directory. Needs a restart.
    #[serde(default)]
    pub state_file: Option<FilePath>,
    /// Metrics and health for monitoring.
    #[serde(default)]
    pub status: Status,
    /// Limits of the whole process.
    #[serde(default)]
    pub limits: Limits,
    /// Time that clients get before a route is known, and what a half-closed connection means.
    #[serde(default)]
    pub client: Client,
    /// Treatment of header fields.
    #[serde(default)]
    pub headers: Headers,
    /// The access log.
    #[serde(default)]
    pub log: Log,
    /// Pages for Ringway's own answers: status to file (`.html`, `.txt` or `.json`). Relative paths begin at the config
    /// file's directory. Read when the config is.
    #[serde(default)]
    #[schemars(extend("propertyNames" = {"format": "ringway-own-status"}))]
    pub pages: BTreeMap<String, FilePath>,
    /// Time that connections get to end at a stop before they are cut.
    #[serde(default = "drain_timeout")]
    pub drain_timeout: Duration,
    /// Value of Retry-After on the 503 that says that no backend is up.
    #[serde(default = "retry_after")]
    pub retry_after: Duration,
}

/// A listener: its address alone, or with settings.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ListenerEntry {
    /// The address alone.
    Short(ListenAddress),
    /// With settings.
    Full(Listener),
}

/// A listener with settings.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// `IP:PORT`, `[IPV6]:PORT` or `unix:PATH`.
    pub address: ListenAddress,
    /// Peers whose X-Forwarded-For and the like are believed: blocks such as `10.0.0.0/8`, or single addresses.
    #[serde(default)]
    pub trusted_proxies: Vec<Block>,
    /// Path that Ringway itself answers on this listener, for any Host: 200 while it is ready for traffic, else 503.
    /// `null` is none.
    #[serde(default)]
    #[schemars(extend("format" = "ringway-health-path"))]
    pub health_path: Option<String>,
}

/// A cluster: backends, and whatever differs from `defaults`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Cluster {
    /// The backends by an id of your choice. Counters, state and admin commands go by the id. With none, every request
    /// is answered with 503.
    #[schemars(extend("propertyNames" = {"format": "ringway-name"}))]
    pub backends: BTreeMap<String, BackendEntry>,
    /// The policy.
    #[serde(flatten)]
    pub policy: Policy,
}

/// A backend: its address alone, or with settings.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BackendEntry {
    /// The address alone.
    Short(BackendAddress),
    /// With settings.
    Full(Backend),
}

/// A backend with settings.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// `IP:PORT`, `[IPV6]:PORT`, `NAME:PORT` or `unix:PATH`.
    pub address: BackendAddress,
    /// Share of the requests against the other backends' weights.
    #[serde(default = "weight")]
    #[schemars(range(min = 1, max = limits::WEIGHT_MAX))]
    pub weight: u32,
    /// Takes requests only when no other backend of the cluster can.
    #[serde(default)]
    pub backup: bool,
    /// Exchanges that it may have at once, tunnels included, all workers together; what comes beyond waits (`queue`).
    /// `null` is no limit.
    #[serde(default)]
    #[schemars(range(min = 1, max = limits::MAX_CONNS_MAX))]
    pub max_conns: Option<u32>,
}

/// A route: the cluster's name alone, or with settings.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RouteEntry {
    /// The cluster's name alone.
    Short(String),
    /// With settings.
    Full(Route),
}

impl RouteEntry {
    /// The name of the cluster, in either form.
    pub(super) fn cluster(&self) -> &str {
        match self {
            RouteEntry::Short(cluster) | RouteEntry::Full(Route { cluster }) => cluster,
        }
    }
}

/// A route with settings.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Name of the cluster that answers.
    pub cluster: String,
}

/// What governs the exchanges of a cluster. Each key that is left out is taken from `defaults`, then from Ringway.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// How a backend is picked: `round_robin` (weighted, the default), `random` (weighted), `least_conn` (the less
    /// loaded of two random ones), or `{"hash": ...}`, which keeps what belongs together with one backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Balance")]
    pub balance: Option<Balance>,
    /// Percent of the backends, by weight and without backups, that have to be up: if fewer are, those that are down
    /// get requests, too. Default: 0, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(max = 100))]
    pub fail_open: Option<u32>,
    /// The patience of an exchange.
    pub timeouts: Timeouts,
    /// Largest request body; a larger one is answered with 413. Default: `unlimited`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Size")]
    pub body_max: Option<Size>,
    /// Bytes per second that a request body must come with after its first 5 s; time in which Ringway does not read
    /// does not count. `0B` is off. Default: `240B`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Rate")]
    pub client_rate_min: Option<Rate>,
    /// Attempts after the first, for requests that may be sent again. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(max = limits::RETRIES_MAX))]
    pub retries: Option<u32>,
    /// How many retries the cluster affords, so that an outage is not made worse by sending everything again.
    pub retry_budget: RetryBudget,
    /// Requests that wait for their turn: while the cluster is paused, or all its backends have as many as they may.
    pub queue: Queue,
    /// Idle connections kept to each backend.
    pub pool: Pool,
    /// When a backend counts as down.
    pub health: Health,
    /// How a backend is probed: `connect` (the default), or an object for a request, such as `{"path": "/health"}` for a
    /// GET that must be answered with 2xx or 3xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Probe")]
    pub probe: Option<Probe>,
}

/// How a backend is picked.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Balance {
    /// Without regard to what the request is.
    Word(BalanceWord),
    /// By a part of the request.
    Hash(HashBalance),
}

/// How a backend is picked without regard to what the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum BalanceWord {
    /// Weighted round robin.
    RoundRobin,
    /// Weighted random.
    Random,
    /// The less loaded of two random backends.
    LeastConn,
}

/// The same key to the same backend.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashBalance {
    /// What the key is: `client_ip` (by the listener's trusted proxies), `path` (without the query), `{"header": NAME}`
    /// or `{"cookie": NAME}`. Requests without it go to the less loaded of two random backends.
    pub hash: HashKey,
    /// Percent of its share that a backend may have of the exchanges under way before requests go to the next one of
    /// their key; `null` is no bound.
    #[serde(default = "bounded_load")]
    #[schemars(range(min = 100, max = limits::BOUNDED_LOAD_PERCENT_MAX))]
    pub bounded_load: Option<u32>,
}

/// What the key is.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum HashKey {
    /// What every request has.
    Word(HashWord),
    /// A field or a cookie.
    Named(HashName),
}

/// What every request has.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum HashWord {
    /// The client's address.
    ClientIp,
    /// The path.
    Path,
}

/// A field or a cookie: one of them.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct HashName {
    /// The first field of this name that is not empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Token")]
    pub header: Option<Token>,
    /// The first cookie of this name that is not empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Token")]
    pub cookie: Option<Token>,
}

/// The patience of an exchange, phase by phase.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// To connect to a backend. Default: `3s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Patience")]
    pub connect: Option<Patience>,
    /// From the request sent to the head of the response; then 504. Default: `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Patience")]
    pub head: Option<Patience>,
    /// Silence of the backend in a response body, or a backend that takes no bytes of the request's. Default: `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Patience")]
    pub body: Option<Patience>,
    /// Silence of the client in a request body, or a client that takes no bytes of the response's. Default: `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Patience")]
    pub client_body: Option<Patience>,
    /// Silence in both directions of a tunnel (an upgraded connection). Default: `1h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Patience")]
    pub tunnel: Option<Patience>,
}

/// Idle connections kept to each backend.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// How long one may idle. Stay below the time after which the backend itself closes. Default: `4s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Patience")]
    pub idle: Option<Patience>,
    /// How many each worker keeps per backend; 0 makes a new connection for each request. Default: 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(max = limits::POOL_MAX))]
    pub max: Option<u32>,
}

/// How many retries a cluster affords.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Retries per hundred requests. Default: 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(max = limits::RETRY_PERCENT_MAX))]
    pub percent: Option<u32>,
    /// Retries a second beside those, all workers together. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(max = limits::RETRY_MIN_PER_SECOND_MAX))]
    pub min_per_second: Option<u32>,
}

/// Requests that wait for their turn.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// How many may wait, all workers together; each has its share. With one more, the oldest of a worker is answered
    /// with 503. Default: 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = limits::QUEUE_MAX_MAX))]
    pub max: Option<u32>,
    /// How long one may wait; then 503. Stay above the length of the pauses you make. Default: `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Patience")]
    pub timeout: Option<Patience>,
}

/// When a backend counts as down.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Whether a response timeout marks the backend down: `silent` (the default) only if no response head came from it
    /// since the request was sent, `any` always.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OnTimeoutWord")]
    pub on_timeout: Option<OnTimeoutWord>,
    /// Failures in a row that mark a backend down: connect errors, resets before a response, and `statuses`. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 1000))]
    pub failures: Option<u32>,
    /// Statuses of responses that count as failures: numbers, or classes such as `"5xx"`. A 503 with Retry-After never
    /// does. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<StatusEntry>")]
    pub statuses: Option<Vec<StatusEntry>>,
    /// The share of requests that must have failed, within the latest seconds, to mark a backend down even if they were
    /// not in a row; `off` (the default) looks at rows only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FailureRateEntry")]
    pub rate: Option<FailureRateEntry>,
    /// How long a backend that was marked down is left alone before it is probed. It doubles each time that a probe fails
    /// or that the backend is marked again soon after it came back. Default: `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Patience")]
    pub hold_down: Option<Patience>,
    /// What `hold_down` doubles to at most; and for how long a backend must have been up until it begins anew. Default:
    /// `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Patience")]
    pub hold_down_max: Option<Patience>,
    /// Time in which the share of a backend that came back by a probe grows to its weight, in ten steps. Default: `0s`,
    /// at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub slow_start: Option<Duration>,
    /// Probes of backends that are up, too; `off` (the default) probes only those that have been held down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CheckEntry")]
    pub check: Option<CheckEntry>,
}

/// One status, or a class of them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum StatusEntry {
    /// One.
    One(#[schemars(range(min = 200, max = 599))] u16),
    /// A class.
    Class(StatusClass),
}

/// The word that turns something off.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Off {
    /// Off.
    Off,
}

/// The share of failures that marks a backend down, or none.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum FailureRateEntry {
    /// Only rows of failures count.
    Off(Off),
    /// This share does, too.
    On(FailureRate),
}

/// The share of failures that marks a backend down.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailureRate {
    /// So many of a hundred requests failed: connect errors, resets, response timeouts, and `statuses`.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u32,
    /// Of at least so many requests that ended, with all workers.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// Within this time.
    pub within: Patience,
}

impl Default for FailureRate {
    fn default() -> FailureRate {
        FailureRate {
            percent: limits::FAILURE_PERCENT,
            requests: limits::FAILURE_REQUESTS,
            within: Patience(limits::FAILURE_WITHIN_SECONDS),
        }
    }
}

/// Probes of backends that are up, or none.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum CheckEntry {
    /// None.
    Off(Off),
    /// At this interval.
    On(Check),
}

/// Probes of backends that are up.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Check {
    /// From one probe to the next, give or take a tenth. Clusters that probe one address in the same way at the same
    /// interval share the probes.
    pub interval: Patience,
    /// Good probes in a row that bring a backend up again.
    #[schemars(range(min = 1, max = 100))]
    pub rise: u32,
    /// Bad probes in a row that mark a backend down.
    #[schemars(range(min = 1, max = 100))]
    pub fall: u32,
}

impl Default for Check {
    fn default() -> Check {
        Check { interval: Patience(limits::CHECK_SECONDS), rise: limits::CHECK_RISE, fall: limits::CHECK_FALL }
    }
}

/// How a backend is probed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Probe {
    /// By a connection alone.
    Connect(Connect),
    /// By a request.
    Http(HttpProbe),
}

/// The word for a probe by a connection alone.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// A connection alone.
    Connect,
}

/// A probe by a request.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// Path to ask for, with a query if need be.
    #[schemars(extend("format" = "ringway-probe-path"))]
    pub path: String,
    /// The method.
    #[serde(default = "probe_method")]
    #[schemars(extend("format" = "ringway-method"))]
    pub method: String,
    /// Value of Host. Default: the backend's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "ringway-probe-host"))]
    pub host: Option<String>,
    /// More fields of the request.
    #[serde(default)]
    #[schemars(extend("propertyNames" = {"format": "ringway-probe-field"}))]
    pub headers: BTreeMap<String, FieldValue>,
    /// Statuses that are good: numbers, or classes such as `"2xx"`. Default: `["2xx", "3xx"]`.
    #[serde(default = "probe_statuses")]
    #[schemars(extend("minItems" = 1))]
    pub statuses: Vec<StatusEntry>,
    /// Text that must stand in the first 64 KiB of the response's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "ringway-probe-text"))]
    pub body: Option<String>,
    /// Time for all of it, the connection included.
    #[serde(default = "probe_timeout")]
    pub timeout: Patience,
}

fn probe_method() -> String {
    "GET".into()
}

fn probe_statuses() -> Vec<StatusEntry> {
    [2, 3].map(|class| StatusEntry::Class(StatusClass(class))).into()
}

fn probe_timeout() -> Patience {
    Patience(limits::PROBE_SECONDS)
}

/// The control socket.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Path of the Unix socket that `ringway ctl` talks to; `null` is none. Relative paths begin at the config
    /// file's directory. Needs a restart.
    pub socket: Option<FilePath>,
    /// Permission bits of the socket, octal.
    pub mode: Mode,
    /// Group of the socket, by name or number; `null` leaves it as it is made.
    pub group: Option<String>,
    /// Users that may do something, by number, out of those that the permissions let in; `null` lets them do everything.
    /// Root and the user that Ringway runs as always may.
    pub uids: Option<Uids>,
}

/// Users of the control socket.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Uids {
    /// Who may look.
    pub read: Vec<u32>,
    /// Who may look and change.
    pub change: Vec<u32>,
}

impl Default for Control {
    fn default() -> Control {
        Control { socket: None, mode: Mode(0o660), group: None, uids: None }
    }
}

/// Metrics, health and the status page.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Status {
    /// `IP:PORT`, `[IPV6]:PORT` or `unix:PATH` where `/metrics`, `/live`, `/ready` and the status page (`/`) are answered
    /// over HTTP; `null` is nowhere. Whoever reaches it can read it: keep it on a loopback address, or behind a firewall.
    pub listen: Option<ListenAddress>,
    /// Whether browsers get the status page there. It tells more than the metrics: why backends are down, what operators
    /// said, recent events, and where a request would go.
    pub page: bool,
}

impl Default for Status {
    fn default() -> Status {
        Status { listen: None, page: true }
    }
}

/// Limits of the whole process.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections at one time, all workers together; beyond it none is accepted until one ends. `null` is as
    /// many as the limit of open files allows.
    #[schemars(range(min = 1, max = limits::CONNECTIONS_MAX))]
    pub connections: Option<u32>,
}

/// Time that clients get before a route is known.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Client {
    /// For a whole request head, from its first byte; bytes that trickle do not prolong it. Then 408.
    pub head_timeout: Patience,
    /// Between two requests of one connection.
    pub idle_timeout: Patience,
    /// What a client means that sends FIN while it waits: `serve` delivers the answer, `abort` cancels the request.
    pub half_close: HalfCloseWord,
}

impl Default for Client {
    fn default() -> Client {
        Client {
            head_timeout: Patience(limits::CLIENT_HEAD_SECONDS),
            idle_timeout: Patience(limits::CLIENT_IDLE_SECONDS),
            half_close: HalfCloseWord::default(),
        }
    }
}

/// Treatment of header fields.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// Request fields with `_` in their names, which many backends take for `-`: `drop` them, `pass` them on, or
    /// `reject` the request with 400.
    pub underscores: UnderscoresWord,
    /// Name under which Ringway adds itself to Via; `null` leaves Via alone.
    #[schemars(extend("format" = "ringway-pseudonym"))]
    pub via: Option<String>,
}

impl Default for Headers {
    fn default() -> Headers {
        Headers { underscores: UnderscoresWord::default(), via: Some("ringway".into()) }
    }
}

/// The access log.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `off`, `stdout`, or the path of a file (with a `/` in it), which is appended to. Relative paths begin at the
    /// config file's directory.
    #[schemars(extend("format" = "ringway-log-target"))]
    pub access: String,
    /// `json`: one object a line; `text`: words and quoted strings.
    pub format: LogFormatWord,
    /// The fields of a line, in this order; each at most once.
    pub fields: Vec<LogField>,
    /// Share of the exchanges that get a line, picked at random, from 0 to 1. Whatever ended with a status from 500 on or
    /// otherwise than it should always gets one.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
    /// An exchange that took as long always gets a line; `null` is none.
    #[schemars(with = "Option<Latency>")]
    pub slow: Option<Latency>,
    /// So many of the latest exchanges are kept per worker for `ringway ctl why`, beside those that went wrong, which always
    /// are.
    #[schemars(range(max = limits::RECENT_MAX))]
    pub recent: u32,
}

impl Default for Log {
    fn default() -> Log {
        let fields = LogFields::default().list().to_vec();
        Log { access: "off".into(), format: LogFormatWord::default(), fields, sample: 1.0, slow: None, recent: 0 }
    }
}

pub(super) fn drain_timeout() -> Duration {
    Duration(limits::DRAIN_SECONDS)
}

pub(super) fn retry_after() -> Duration {
    Duration(limits::RETRY_AFTER_SECONDS)
}

fn bounded_load() -> Option<u32> {
    Some(limits::BOUNDED_LOAD_PERCENT)
}

fn weight() -> u32 {
    1
}
