//! What travels over the control socket from Ringway: `{"id":1,"ok":...}` or `{"id":1,"error":...}`, one a line.
//!
//! Fields are added, never changed in meaning or taken away; readers ignore what they do not know.

use super::command::VERSION;
use super::fault::{Fault, Faults};
use super::receipt::Receipt;
use super::state::Override;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A client's name for a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A whole number.
    Number(u64),
    /// A text.
    Text(String),
}

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request's line is longer than `limits::CONTROL_LINE_BYTES_MAX`.
    LineTooLong,
    /// The line is not JSON.
    NotJson,
    /// The line is JSON, but no request.
    BadRequest,
    /// Another version of the protocol.
    UnsupportedVersion,
    /// No such command.
    UnknownCommand,
    /// The command does not take these arguments.
    BadArguments,
    /// The config has faults: see `faults`.
    BadConfig,
    /// The config is faultless, but cannot be applied to the running process: `path` names the key.
    NotApplicable,
    /// The command was understood and failed.
    Failed,
    /// This client may not give this command.
    NotAllowed,
    /// Another generation runs than the one the change was meant for; nothing has changed.
    OtherGeneration,
    /// The change is in force, but not every worker has taken it over in time: see `receipt`.
    NotAcknowledged,
    /// The change is in force, but something remains on what was taken away: see `receipt`.
    NotDrained,
    /// A code that this reader does not know yet.
    #[serde(other)]
    Other,
}

/// Why a request was not obeyed. With several faults, path, line and column are those of the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Error {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
    /// JSON path in the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Line in the config, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in the config, from 1, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// All faults of the config.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// Of a change that is in force all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
}

impl Error {
    /// Without a place.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), path: None, line: None, column: None, faults: Vec::new(), receipt: None }
    }

    /// A change that needs a restart, or otherwise cannot be applied; `path` is the key's JSON path.
    pub fn not_applicable(path: impl Into<String>, message: impl Into<String>) -> Error {
        Error { path: Some(path.into()), ..Error::new(Code::NotApplicable, message) }
    }
}

impl From<Faults> for Error {
    fn from(faults: Faults) -> Error {
        let first = faults.list.first();
        Error {
            code: Code::BadConfig,
            message: format!("{} has {} fault(s)", faults.file, faults.list.len() + faults.more),
            path: first.map(|f| f.path.clone()),
            line: first.map(|f| f.line),
            column: first.map(|f| f.column),
            faults: faults.list,
            receipt: None,
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's; `None` if it could not be read.
    pub id: Option<Id>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was obeyed; what it holds depends on the command.
    Ok(Value),
    /// It was not.
    Error(Error),
}

impl Answer {
    /// A request that was obeyed. `result` must have text keys and finite numbers, as all types of this file do.
    pub fn ok(id: Id, result: &impl Serialize) -> Answer {
        let value = serde_json::to_value(result).expect("maps with text keys and plain values always serialise");
        Answer { id: Some(id), outcome: Outcome::Ok(value) }
    }

    /// A request that was not.
    pub fn error(id: Option<Id>, error: Error) -> Answer {
        Answer { id, outcome: Outcome::Error(error) }
    }

    /// The answer as a line, with its line end.
    pub fn to_line(&self) -> String {
        line(self)
    }
}

/// A value as one line, with its line end: JSON escapes the line ends inside.
pub(super) fn line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("maps with text keys and plain values always serialise");
    text.push('\n');
    text
}

/// Answer to `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the protocol.
    pub v: u32,
    /// The program's version.
    pub version: String,
    /// Counts reloads; the first is 1.
    pub generation: u64,
    /// Counts publications, reloads and health flips alike.
    pub epoch: u64,
    /// Begin of the process, in seconds since 1970 (UTC).
    pub since: u64,
    /// Seconds since then.
    pub uptime: u64,
    /// `uring` or `epoll`.
    pub driver: String,
    /// The process is about to end.
    #[serde(default)]
    pub draining: bool,
    /// One per core.
    pub workers: Vec<Worker>,
    /// By name.
    pub listeners: BTreeMap<String, ListenerStatus>,
    /// By name.
    pub clusters: BTreeMap<String, ClusterStatus>,
    /// Sums over the workers, by name: `accepted`, `exchanges`, `retries`, ...
    pub counters: BTreeMap<String, u64>,
}

impl Status {
    /// An empty status of this program, to be filled in.
    pub fn new() -> Status {
        Status {
            v: VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            generation: 0,
            epoch: 0,
            since: 0,
            uptime: 0,
            driver: String::new(),
            draining: false,
            workers: Vec::new(),
            listeners: BTreeMap::new(),
            clusters: BTreeMap::new(),
            counters: BTreeMap::new(),
        }
    }
}

impl Default for Status {
    fn default() -> Status {
        Status::new()
    }
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// Its number, from 0.
    pub core: usize,
    /// Epoch of the snapshot that it runs on.
    pub epoch: u64,
    /// Client connections now.
    pub connections: u64,
    /// Of those, idle between requests.
    pub idle: u64,
    /// Exchanges ended.
    pub exchanges: u64,
    /// Client connections that it has accepted.
    pub accepted: u64,
    /// Share of the latest second in which it had work, in thousandths: its thread ran, or waited for its CPU.
    pub load_permille: u32,
    /// Share of it in which its thread ran.
    pub busy_permille: u32,
    /// How late its latest tick came, microseconds: so long, what became ready then had to wait.
    pub lag_us: u64,
    /// Newcomers given to other workers.
    pub handed_out: u64,
    /// Newcomers of other workers.
    pub handed_in: u64,
    /// Connections given to other workers between two requests.
    pub moved_out: u64,
    /// Connections of other workers, taken over between two requests.
    pub moved_in: u64,
    /// Idle backend connections now.
    pub pooled: u64,
    /// Buffers in use now.
    pub buffers: u64,
    /// Connections to clients that are not idle: each has a slot for its deadlines.
    pub busy: u64,
    /// Pipes in use now.
    pub pipes: u64,
    /// Longest turn of its event loop so far, microseconds.
    pub longest_turn_us: u64,
    /// Turns that took more than 5 ms.
    pub turns_over_5ms: u64,
}

/// One listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerStatus {
    /// As in the config.
    pub address: String,
}

/// One cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterStatus {
    /// By id; where one id has several addresses, by `ID@ADDRESS`.
    pub backends: BTreeMap<String, BackendStatus>,
    /// Its requests wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// Requests that wait now.
    pub queued: u64,
    /// Requests that have had to wait.
    pub waited: u64,
    /// Of those, answered with 503 because more came than may wait.
    pub queue_full: u64,
    /// Of those, answered with 503 because they had waited too long.
    pub queue_timeouts: u64,
    /// Retries that the cluster did not afford.
    pub retries_refused: u64,
    /// Backends whose name does not resolve now, by id: the name and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unresolved: BTreeMap<String, String>,
}

/// Why requests wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pause {
    /// Since when, in seconds since 1970 (UTC).
    pub since: u64,
    /// Until when at most.
    pub until: u64,
    /// By whom.
    pub who: String,
    /// Why, if it was said.
    pub why: Option<String>,
}

/// What is known of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateWord {
    /// Takes traffic.
    #[default]
    Up,
    /// Held down, or being probed.
    Down,
    /// Takes no new requests.
    Drain,
    /// Out of service.
    Maint,
    /// A state that this reader does not know yet.
    #[serde(other)]
    Other,
}

impl From<crate::route::health::Standing> for StateWord {
    fn from(standing: crate::route::health::Standing) -> StateWord {
        use crate::route::health::Standing;
        match standing {
            Standing::Up => StateWord::Up,
            Standing::Down => StateWord::Down,
            Standing::Drain => StateWord::Drain,
            Standing::Maint => StateWord::Maint,
        }
    }
}

/// One backend. Counters are sums over the workers since the process began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendStatus {
    /// Where it is.
    pub endpoint: String,
    /// Its state.
    pub state: StateWord,
    /// Its state by observed health alone, whatever operators say.
    pub observed: StateWord,
    /// What operators have overruled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
    /// Since when it has that observed state, in seconds since 1970 (UTC).
    pub since: u64,
    /// Why, for people; `None` for a backend that has always been up.
    pub why: Option<String>,
    /// When it will be probed next, in seconds since 1970 (UTC); `None` if it is up and its cluster has no checks, or if
    /// a probe is under way.
    pub next_probe: Option<u64>,
    /// What the latest probe found; `None` if there was none.
    pub probe: Option<String>,
    /// As configured.
    pub weight: u32,
    /// Exchanges that are with it now.
    pub in_flight: u64,
    /// How many it may have, if that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_conns: Option<u32>,
    /// Requests sent.
    pub requests: u64,
    /// Response heads by class: 1xx to 5xx.
    pub statuses: [u64; 5],
    /// Connect errors.
    pub connect_errors: u64,
    /// Resets or closes before a head, and malformed heads.
    pub resets: u64,
    /// Response timeouts.
    pub timeouts: u64,
    /// Of the requests, those sent although it was not up: its cluster fails open, or everyone up was tried in vain.
    pub fail_open: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survive_the_way() {
        let mut status = Status::new();
        let backend =
            BackendStatus { state: StateWord::Down, why: Some("3 resets\nin a row".into()), ..Default::default() };
        let backends = BTreeMap::from([("b1".to_string(), backend)]);
        status.clusters.insert("app".into(), ClusterStatus { backends, ..Default::default() });
        let answer = Answer::ok(Id::Number(3), &status);
        let line = answer.to_line();
        assert!(line.starts_with("{\"id\":3,\"ok\":{\"v\":1,") && line.matches('\n').count() == 1, "{line}");
        let back: Answer = serde_json::from_str(&line).unwrap();
        assert_eq!(back, answer);
        let Outcome::Ok(value) = back.outcome else { panic!("{line}") };
        assert_eq!(serde_json::from_value::<Status>(value).unwrap(), status);
    }

    #[test]
    fn faults_become_an_error_that_programs_can_read() {
        let faults = super::super::check::load("{}", "c.json").unwrap_err();
        let count = faults.list.len();
        let line = Answer::error(Some(Id::Text("x".into())), faults.into()).to_line();
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["id"], "x");
        assert_eq!(value["error"]["code"], "bad_config");
        assert_eq!((&value["error"]["line"], &value["error"]["path"]), (&1.into(), &"$".into()));
        assert_eq!(value["error"]["faults"].as_array().unwrap().len(), count);
        assert_eq!(Answer::error(None, Error::new(Code::NotJson, "no")).to_line().matches("null").count(), 1);
    }

    #[test]
    fn an_older_reader_takes_what_is_newer() {
        let text = r#"{"id":1,"error":{"code":"on_fire","message":"m","hint":"run"},"took":3}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        assert!(matches!(answer.outcome, Outcome::Error(Error { code: Code::Other, .. })));
        let backend: BackendStatus = serde_json::from_str(r#"{"state":"warming","zone":"b"}"#).unwrap();
        assert_eq!(backend.state, StateWord::Other);
    }
}
