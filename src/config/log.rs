//! What the access log tells: the fields of its lines, and which exchanges get a line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One field of a line. Its name in the file is its key in a JSON line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum LogField {
    /// Second in which the exchange ended, RFC 3339 in UTC.
    Time,
    /// The client's address, by the listener's trusted proxies.
    Client,
    /// As sent.
    Method,
    /// Host with its port, as sent.
    Host,
    /// Request target with its query, as sent.
    Path,
    /// Sent to the client; 0 if none was.
    Status,
    /// Bytes sent to the client, heads included.
    Bytes,
    /// The whole time of the exchange: the sum of the phases.
    DurationUs,
    /// From the first byte of the request's head to its end.
    HeadUs,
    /// Waiting for a turn.
    QueueUs,
    /// From picking a backend to being connected.
    ConnectUs,
    /// Attempts that failed and were followed by another.
    RetryUs,
    /// Sending the request, and waiting for the head of the response.
    FirstByteUs,
    /// Waiting for the client within a body.
    BodyClientUs,
    /// Waiting for the backend within a body.
    BodyBackendUs,
    /// In the tunnel behind an upgrade.
    TunnelUs,
    /// The cluster's name.
    Cluster,
    /// The id of the backend that answered or failed last.
    Backend,
    /// Attempts after the first.
    Retries,
    /// Generation of the config.
    Generation,
    /// Why the exchange ended as it did.
    Reason,
    /// `HTTP/1.0` or `HTTP/1.1`, as the client spoke.
    Version,
    /// `http` or `https`.
    Scheme,
    /// The listener's name.
    Listener,
    /// The address of the backend that answered or failed last.
    Endpoint,
    /// Whether the backend's connection came from the pool.
    Reused,
    /// Bytes of the request's body, without its framing; in a tunnel the bytes of the client.
    Received,
    /// User-Agent as sent.
    UserAgent,
    /// Referer as sent.
    Referer,
    /// X-Request-Id as the backend got it.
    RequestId,
    /// The route that took it, as the config has it.
    Rule,
    /// Backends of the cluster that could not be picked at the last attempt, each with the reason.
    Skipped,
    /// Hash of what its cluster hashes by, in hex.
    Key,
}

use LogField::*;

/// What a line tells where the config does not say.
const USUAL: [LogField; 21] = [
    Time,
    Client,
    Method,
    Host,
    Path,
    Status,
    Bytes,
    DurationUs,
    HeadUs,
    QueueUs,
    ConnectUs,
    RetryUs,
    FirstByteUs,
    BodyClientUs,
    BodyBackendUs,
    TunnelUs,
    Cluster,
    Backend,
    Retries,
    Generation,
    Reason,
];

/// The fields of a line, in their order; none stands twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFields {
    list: Vec<LogField>,
    set: u64,
    usual: bool,
}

impl LogFields {
    /// These, in this order; the second of two equal ones is left out. None at all are the usual ones.
    pub fn new(list: &[LogField]) -> LogFields {
        let list = if list.is_empty() { &USUAL } else { list };
        let mut fields = LogFields { list: Vec::with_capacity(list.len()), set: 0, usual: list == USUAL };
        for field in list {
            if !fields.has(*field) {
                fields.set |= 1 << *field as u64;
                fields.list.push(*field);
            }
        }
        fields
    }

    /// Whether this is one of them.
    pub fn has(&self, field: LogField) -> bool {
        self.set & 1 << field as u64 != 0
    }

    /// They are those that a line has by default, in that order.
    pub fn is_default(&self) -> bool {
        self.usual
    }

    /// None of those is among them that a line does not have by default.
    pub fn is_usual(&self) -> bool {
        const SET: u64 = {
            let (mut set, mut i) = (0, 0);
            while i < USUAL.len() {
                set |= 1 << USUAL[i] as u64;
                i += 1;
            }
            set
        };
        self.set & !SET == 0
    }

    /// One of them tells how the backend was picked.
    pub fn tell_pick(&self) -> bool {
        [Rule, Skipped, Key].iter().any(|field| self.has(*field))
    }

    /// In their order.
    pub fn list(&self) -> &[LogField] {
        &self.list
    }
}

impl Default for LogFields {
    fn default() -> LogFields {
        LogFields::new(&USUAL)
    }
}

/// A share of all, from none to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// All of them.
    pub const ALL: Share = Share(1 << 32);

    /// From 0 (none) to 1 (all); what lies outside counts as the nearer of the two.
    pub fn new(share: f64) -> Share {
        // Saturating, and not a number becomes none.
        Share(((share * Share::ALL.0 as f64).round() as u64).min(Share::ALL.0))
    }

    /// Whether this one belongs to the share; `draw` is random.
    pub fn takes(self, draw: u32) -> bool {
        u64::from(draw) < self.0
    }
}

/// Which lines the access log has, and what stands in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLines {
    /// What a line tells.
    pub fields: LogFields,
    /// Of the exchanges that nothing was wrong with, those that get a line.
    pub sample: Share,
    /// Microseconds from which on an exchange gets a line in any case.
    pub slow_us: Option<u64>,
}

impl Default for LogLines {
    fn default() -> LogLines {
        LogLines { fields: LogFields::default(), sample: Share::ALL, slow_us: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_stand_once() {
        let fields = LogFields::new(&[Path, Time, Path]);
        assert_eq!(fields.list(), [Path, Time]);
        assert!(fields.has(Time) && fields.has(Path) && !fields.has(RequestId));
        assert_eq!(LogFields::default().list(), USUAL);
        assert_eq!(LogFields::new(&[]), LogFields::default());
        assert!(fields.is_usual() && LogFields::default().is_usual());
        assert!(!LogFields::new(&[Time, RequestId]).is_usual());
    }

    #[test]
    fn a_share_is_none_all_or_as_many() {
        let taken = |share: Share| (0..1000).filter(|n| share.takes(n * (u32::MAX / 1000))).count();
        assert_eq!(taken(Share::new(0.0)), 0);
        assert!((248..=252).contains(&taken(Share::new(0.25))));
        assert_eq!(Share::new(1.0), Share::ALL);
        assert!(Share::ALL.takes(u32::MAX) && !Share::new(0.0).takes(0));
        for odd in [f64::NAN, -1.0] {
            assert_eq!(Share::new(odd), Share::new(0.0));
        }
        assert_eq!(Share::new(7.0), Share::ALL);
    }
}
