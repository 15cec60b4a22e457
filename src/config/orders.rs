//! Arguments of the commands of the control protocol (`command`): what stands in `args`.
//!
//! Unknown keys are errors, because a command that is half understood is not obeyed.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Arguments of a command that takes none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoArguments {}

/// Arguments of `errors`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// With the bytes of the messages that were refused.
    pub bytes: bool,
}

/// Arguments of `why_slow`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WhySlow {
    /// Milliseconds to measure for; `limits::WEIGH_MS` by default, at most `limits::WEIGH_MS_MAX`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
}

/// Arguments of `events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Number of the first event; what has happened already is told as far as it is kept. Without it, only what happens
    /// from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// Arguments of `why`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Why {
    /// X-Request-Id of the exchange. Without it, the latest that are kept are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Arguments of `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The head of the request, with its line ends.
    pub head: String,
    /// Address of its peer.
    pub from: IpAddr,
    /// Name of the listener that it comes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Port by which the listener is chosen where it is not named.
    #[serde(default)]
    pub port: u16,
}

/// How much of a change its answer waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Until every worker runs on it: no request is started by the old state any more.
    #[default]
    Acked,
    /// Also until nothing remains on what was taken away: exchanges, tunnels, idle pooled connections.
    Drained,
}

/// How long to wait, for all commands that change what runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patience {
    /// For what.
    #[serde(rename = "for")]
    pub wait: Wait,
    /// Seconds to wait for `drained`; then the answer says what is left. At most `limits::WAIT_SECONDS_MAX`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// Arguments of `reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// Names the file; relative paths in the config begin at its directory. Without it, the file that the process was
    /// started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The config's text. Without it, the file is read by the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Patches applied before are forgotten: only the file counts.
    pub drop_patches: bool,
    /// Nothing is to change: the answer is `crate::diff::Diff`, what would.
    pub dry_run: bool,
    /// See [`Patience`].
    pub wait: Patience,
}

/// Arguments of `apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The text of a JSON merge patch (RFC 7396) over the running config.
    pub patch: String,
    /// Names the patch in faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Only if this generation runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_generation: Option<u64>,
    /// See [`Reload::dry_run`].
    #[serde(default)]
    pub dry_run: bool,
    /// See [`Patience`].
    #[serde(default)]
    pub wait: Patience,
}

/// What an operator wishes of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// No new requests; those under way end by themselves.
    Drain,
    /// As drain, and it is not probed and does not count as failed meanwhile.
    Maint,
    /// What was wished before is forgotten; if it is down it is probed at once.
    Up,
    /// This weight instead of the config's.
    Weight(u32),
}

/// Arguments of `backend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Which one: `CLUSTER/ID`.
    pub backend: String,
    /// What is wished of it.
    pub set: Wish,
    /// Seconds after which the wish ends by itself.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Shown beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// See [`Patience`].
    #[serde(default)]
    pub wait: Patience,
}

/// Arguments of `pause`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Whose requests wait.
    pub cluster: String,
    /// Seconds after which they go on by themselves; `limits::PAUSE_SECONDS` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// Shown beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Arguments of `resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// Whose requests go on.
    pub cluster: String,
}

/// Arguments of `log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Log {
    /// Open the access log's file again.
    Reopen,
    /// The least level of the operational log: error, warn, info, debug, trace, off.
    Level(String),
}

/// Arguments of `ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// What readiness probes are told from here on.
    pub ready: bool,
}
