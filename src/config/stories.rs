//! Answer to `why` of the control protocol.
//!
//! Fields are added, never changed in meaning or taken away; readers ignore what they do not know.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Answer to `why`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Why {
    /// What is kept, the newest first; of one X-Request-Id there may be several exchanges.
    pub stories: Vec<Story>,
}

/// One exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Story {
    /// When it ended, in seconds since 1970 (UTC).
    pub at: u64,
    /// The worker.
    pub core: usize,
    /// X-Request-Id as the backend got it, or as the client was told in an own answer; empty if there was none.
    pub request_id: String,
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
    /// Bytes sent to the client, heads included.
    pub bytes: u64,
    /// Bytes of the request's body, without its framing.
    pub received: u64,
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
    /// Generation of the config that it was served by.
    pub generation: u64,
    /// Microseconds by phase, as in the access log; empty if neither the log nor `log.recent` is on.
    pub phases: BTreeMap<String, u64>,
    /// Its attempts: those that failed, and with `log.recent` or the log the last one, too, if others failed before it.
    pub attempts: Vec<Attempt>,
}

/// One attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// The backend's id.
    pub backend: String,
    /// Where it is.
    pub endpoint: String,
    /// Whether the connection came from the pool; none if there never was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reused: Option<bool>,
    /// Microseconds that it took.
    pub took_us: u64,
    /// Of the head, and of the body as far as it was there, the bytes that the kernel took; without this, it took all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handed: Option<u64>,
    /// Bytes that the backend's kernel has acknowledged, since the connection was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<u64>,
    /// Bytes that have come back, since the connection was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// How it ended.
    pub outcome: String,
    /// Why it was or was not followed by another; empty if it was answered.
    pub then: String,
}
