//! Answers to commands that change something, and to those that tell about it (`answer` has the status).
//!
//! Fields are added, never changed in meaning or taken away; readers ignore what they do not know.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Proof of a change: what is in force, on which workers since when, and what remains of what was before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Receipt {
    /// The generation that runs now; it counts changes of the config.
    pub generation: u64,
    /// Its epoch; it counts all publications.
    pub epoch: u64,
    /// SHA-256 of the text of the running config, in hex. Without patches that is the file's.
    pub hash: String,
    /// Patches that lie over the file.
    pub patches: usize,
    /// How many workers there are.
    pub workers: usize,
    /// How many of them run on it.
    pub acknowledged: usize,
    /// When each of them took over, in the order of the cores.
    pub acks: Vec<Ack>,
    /// What can be relied on, in a sentence.
    pub claim: String,
    /// Milliseconds from the request to here.
    pub took_ms: u64,
    /// Names of what is other than before, by `clusters_added`, `routes_removed`, `listeners_changed` and so on.
    pub changed: BTreeMap<String, Vec<String>>,
    /// What the operator should know beside that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Whether the state file has it; `None` without a state file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<bool>,
    /// What remains on what was taken away; `None` if that was not waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Vec<Left>>,
}

/// One worker's word.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ack {
    /// Its number, from 0.
    pub core: usize,
    /// When it took over, in microseconds since 1970 (UTC).
    pub at_us: u64,
    /// Microseconds from the publication to then.
    pub after_us: u64,
}

/// What one worker still has on one thing that was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// The worker.
    pub core: usize,
    /// `CLUSTER/ID (ENDPOINT)`, or `CLUSTER`.
    pub of: String,
    /// Exchanges under way, tunnels not counted.
    pub exchanges: u64,
    /// Tunnels.
    pub tunnels: u64,
    /// Requests that wait for their turn.
    pub queued: u64,
    /// Idle pooled connections.
    pub pooled: u64,
}

/// Answer to commands that have nothing else to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// In a sentence.
    pub done: String,
}

/// Answer to `config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Running {
    /// The generation that runs.
    pub generation: u64,
    /// The file that it began with.
    pub file: String,
    /// SHA-256 of `text`, in hex.
    pub hash: String,
    /// The running config: the file's text, or with patches the merged one.
    pub text: String,
    /// What lies over the file, the oldest first.
    pub patches: Vec<Applied>,
}

/// A patch that lies over the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// When it was applied, in seconds since 1970 (UTC).
    pub at: u64,
    /// By whom.
    pub who: String,
    /// Its text.
    pub patch: String,
}

/// Answer to `routes`: cluster by `host/path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Routes {
    /// The generation that runs.
    pub generation: u64,
    /// Cluster by `host/path`.
    pub routes: BTreeMap<String, String>,
}

/// Answer to `why_slow`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slow {
    /// What each worker did meanwhile.
    pub cores: Vec<Busy>,
    /// Workers that have not answered in time: whatever they do, it takes long.
    pub silent: Vec<usize>,
}

/// What one worker did while it was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Busy {
    /// Its number, from 0.
    pub core: usize,
    /// Microseconds for which it was measured.
    pub took_us: u64,
    /// Of those, its thread ran.
    pub cpu_us: u64,
    /// Of those, it waited for its CPU, which others had.
    pub waited_us: u64,
    /// Longest turn of its event loop so far, microseconds.
    pub longest_turn_us: u64,
    /// Client connections that had something to do.
    pub connections: u64,
    /// Those that cost most, the dearest first.
    pub hogs: Vec<Hog>,
}

/// One connection, and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hog {
    /// Address and port, or `unix`.
    pub client: String,
    /// Where it came in.
    pub listener: String,
    /// Where its requests went, if that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Its part of what all connections of the worker cost, thousandths.
    pub share_permille: u32,
    /// CPU time of its task, and an estimate of what the kernel did for it besides; microseconds.
    pub cost_us: u64,
    /// The longest that it kept the worker at a stretch, microseconds.
    pub longest_us: u64,
    /// Requests served since it connected, those of its latest busy period left out.
    pub requests: u64,
    /// Bytes received from it since it connected; `None` if the kernel does not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// Bytes that it has got since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
}

/// Answer to `errors`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Errors {
    /// The latest of each worker, the newest first.
    pub errors: Vec<Failed>,
    /// How many there were since the process began; more than are kept are forgotten.
    pub total: u64,
    /// The latest messages that were refused, of each worker and kind (side and reason), the newest first.
    pub malformed: Vec<Malformed>,
    /// How many there were since the process began.
    pub malformed_total: u64,
}

/// One message that was refused, and where it is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Malformed {
    /// Seconds since 1970 (UTC).
    pub at: u64,
    /// The worker.
    pub core: usize,
    /// Which of the refused messages of this worker it was, from 1.
    pub number: u64,
    /// `request` or `response`.
    pub side: String,
    /// The listener that its exchange came by.
    pub listener: String,
    /// Who sent it: an address and port, `unix`, or `CLUSTER/ID ADDRESS` of a backend.
    pub peer: String,
    /// Status of the answer that the rule asks for; 502 for every response.
    pub status: u16,
    /// The rule that was broken, as a word.
    pub reason: String,
    /// Where that rule stands.
    pub clause: String,
    /// The rule in a sentence.
    pub detail: String,
    /// Offset of the first offending byte in what is kept of the message.
    pub offset: usize,
    /// The bytes around that, escaped.
    pub around: String,
    /// Where in `around` the offending byte stands.
    pub column: usize,
    /// Bytes that were masked, since they are secrets.
    pub masked: usize,
    /// Bytes of the body that were left out before the line with the fault.
    pub left_out: u64,
    /// What is kept does not have the fault by itself.
    pub partial: bool,
    /// What is kept, in hex, if it was asked for. Left out of the oldest where an answer would become too large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// Where `ringway ctl` has written the bytes; never sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The bytes that [`hex`] made this of.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// One request that Ringway answered itself with an error, or one whose response was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failed {
    /// Seconds since 1970 (UTC).
    pub at: u64,
    /// The worker.
    pub core: usize,
    /// The client's address, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Method, as far as it was understood.
    pub method: String,
    /// Host, cut at some length.
    pub host: String,
    /// Path, cut at some length.
    pub path: String,
    /// The status that the client got; 0 is none.
    pub status: u16,
    /// Reason code, as in the access log.
    pub reason: String,
    /// What that means.
    pub detail: String,
    /// The cluster, if it got that far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The last backend that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Its X-Request-Id, for `why`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_way() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&all)), Some(all));
        assert_eq!(
            (hex(b"\x0f\xa0"), unhex(""), unhex("0g"), unhex("0")),
            ("0fa0".to_owned(), Some(vec![]), None, None)
        );
    }
}
