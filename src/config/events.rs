//! What happens in a running process, one event a line: the stream that `events` of the control protocol begins.
//!
//! Fields and kinds are added, never changed in meaning or taken away; readers ignore what they do not know.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Answer to `events`: events follow, each a line of its own without `id`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stream {
    /// Number of the first event that follows.
    pub from: u64,
    /// Events from where was asked on that are forgotten already.
    pub lost: u64,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; the first of a process is 1, and there are no gaps.
    pub n: u64,
    /// When it happened, in microseconds since 1970 (UTC).
    pub at_us: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
    /// The same for people.
    pub text: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// A backend is held down.
    BackendDown(BackendEvent),
    /// It is up again.
    BackendUp(BackendEvent),
    /// It fails, but is the last of its cluster that is up.
    BackendKeptUp(BackendEvent),
    /// A probe found it still bad.
    BackendStillDown(BackendEvent),
    /// Whoever commands has changed what runs: reload, apply, an override, a pause or its end.
    Changed {
        /// The command, as `reload` or `backend app/b1 Drain`.
        command: String,
        /// Who gave it.
        who: String,
        /// The generation from then on.
        generation: u64,
        /// The epoch from then on.
        epoch: u64,
        /// Names by kind and by what happened to them.
        changed: BTreeMap<String, Vec<String>>,
    },
    /// A change was refused; nothing is another.
    Rejected {
        /// The command.
        command: String,
        /// Who gave it.
        who: String,
        /// Why.
        why: String,
    },
    /// An operator's word about a backend, or a pause, has ended by itself.
    OverrideEnded {
        /// The cluster.
        cluster: String,
        /// The backend; `None` if it was a pause.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backend: Option<String>,
    },
    /// So few backends are up that those that are down get requests, too; or that is over.
    FailOpen {
        /// The cluster.
        cluster: String,
        /// It began.
        open: bool,
    },
    /// Requests were refused because too many waited already, or had waited too long. Told at most once a second.
    QueueOverflow {
        /// The cluster.
        cluster: String,
        /// Refused since the last look because too many waited.
        full: u64,
        /// Refused since then because they had waited too long.
        timeouts: u64,
        /// Waiting now.
        queued: u64,
    },
    /// A core has so much more work than another that it gives some away; or no longer.
    CoreImbalance {
        /// The core with more.
        core: usize,
        /// Its load, thousandths of a second in each.
        load_permille: u32,
        /// The core that gets it; `None` if it is over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<usize>,
    },
    /// A name of backends has other addresses.
    Resolved {
        /// The name.
        name: String,
        /// The epoch from then on.
        epoch: u64,
    },
    /// What readiness probes are told is another.
    Ready {
        /// Traffic is welcome.
        ready: bool,
    },
    /// The process is about to end.
    Draining {
        /// Seconds at most.
        seconds: u32,
    },
    /// A kind that this reader does not know yet.
    #[serde(other)]
    Other,
}

/// A backend, and why something is so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendEvent {
    /// The cluster.
    pub cluster: String,
    /// The operator's id.
    pub backend: String,
    /// Where it is.
    pub endpoint: String,
    /// The evidence.
    pub why: String,
}

impl fmt::Display for BackendEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.cluster, self.backend, self.endpoint)
    }
}

impl Happening {
    /// Whether an operator should look at it.
    pub fn is_bad(&self) -> bool {
        match self {
            Happening::BackendDown(_) | Happening::BackendKeptUp(_) | Happening::BackendStillDown(_) => true,
            Happening::Rejected { .. } | Happening::QueueOverflow { .. } => true,
            Happening::FailOpen { open, .. } => *open,
            _ => false,
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::BackendDown(backend) => write!(f, "{backend} is down: {}", backend.why),
            Happening::BackendUp(backend) => write!(f, "{backend} is up: {}", backend.why),
            Happening::BackendKeptUp(backend) => {
                write!(f, "{backend} fails, but is the last one up: {}", backend.why)
            }
            Happening::BackendStillDown(backend) => write!(f, "{backend} is still down: {}", backend.why),
            Happening::Changed { command, who, generation, epoch, .. } => {
                write!(f, "{command} {who}: published as generation {generation}, epoch {epoch}")
            }
            Happening::Rejected { command, who, why } => {
                write!(f, "{command} {who}: rejected, nothing has changed: {why}")
            }
            Happening::OverrideEnded { cluster, backend: Some(backend) } => {
                write!(f, "{cluster}/{backend}: what an operator said of it has ended")
            }
            Happening::OverrideEnded { cluster, backend: None } => write!(f, "the pause of {cluster} has ended"),
            Happening::FailOpen { cluster, open: true } => {
                write!(f, "{cluster} fails open: too few backends are up, those that are down get requests")
            }
            Happening::FailOpen { cluster, open: false } => write!(f, "{cluster} no longer fails open"),
            Happening::QueueOverflow { cluster, full, timeouts, queued } => {
                write!(f, "{cluster}: {full} requests refused for a full queue, {timeouts} after too long a wait; ")?;
                write!(f, "{queued} wait")
            }
            Happening::CoreImbalance { core, load_permille, to: Some(to) } => {
                write!(f, "core {core} ({} %) gives work to core {to}", load_permille / 10)
            }
            Happening::CoreImbalance { core, load_permille, to: None } => {
                write!(f, "core {core} ({} %) gives no more work away", load_permille / 10)
            }
            Happening::Resolved { name, epoch } => write!(f, "{name} has other addresses: epoch {epoch}"),
            Happening::Ready { ready: true } => f.write_str("readiness probes are told: ready"),
            Happening::Ready { ready: false } => f.write_str("readiness probes are told: not ready"),
            Happening::Draining { seconds } => write!(f, "stop: draining for at most {seconds} s"),
            Happening::Other => f.write_str("something that this version does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_way_and_newer_kinds_are_taken() {
        let backend =
            BackendEvent { cluster: "app".into(), backend: "b1".into(), why: "3 resets".into(), ..Default::default() };
        for what in [
            Happening::BackendDown(backend),
            Happening::CoreImbalance { core: 0, load_permille: 990, to: Some(1) },
            Happening::OverrideEnded { cluster: "app".into(), backend: None },
        ] {
            let event = Event { n: 7, at_us: 1, text: what.to_string(), what };
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
        }
        let line = r#"{"n":1,"at_us":2,"event":"moon_full","text":"t","phase":3}"#;
        assert_eq!(serde_json::from_str::<Event>(line).unwrap().what, Happening::Other);
    }
}
