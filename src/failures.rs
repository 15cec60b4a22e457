//! The latest exchanges of each core that went wrong, for `ringway ctl errors`: bounded, and the worker never waits for
//! whoever reads them.

use crate::limits::{FAILURE_TEXT_BYTES_MAX, FAILURES_KEPT};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// One exchange that Ringway answered with an error, or whose response was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Seconds since 1970.
    pub unix: u64,
    /// The client's address, if it has one.
    pub client: Option<IpAddr>,
    /// As far as the request was understood; see [`text`].
    pub method: String,
    /// The same.
    pub host: String,
    /// The same.
    pub path: String,
    /// What the client got; 0 is nothing.
    pub status: u16,
    /// Reason code.
    pub reason: &'static str,
    /// What that means.
    pub detail: &'static str,
    /// The cluster, if it got that far.
    pub cluster: Option<String>,
    /// The last backend that was tried.
    pub backend: Option<String>,
}

/// The latest of one core.
#[derive(Debug, Default)]
pub struct Failures {
    latest: Mutex<VecDeque<Failure>>,
    total: AtomicU64,
}

impl Failures {
    /// Takes one in. Called by the core alone; where a reader is at it just then, it is only counted.
    pub fn add(&self, failure: impl FnOnce() -> Failure) {
        self.total.store(self.total.load(Relaxed) + 1, Relaxed);
        let Ok(mut latest) = self.latest.try_lock() else { return };
        if latest.len() == FAILURES_KEPT {
            latest.pop_front();
        }
        latest.push_back(failure());
    }

    /// The latest, the oldest first.
    pub fn latest(&self) -> Vec<Failure> {
        // A poisoned lock holds whole entries all the same.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

/// Bytes of a request as text that can be shown: cut, and what is not printable ASCII escaped.
pub fn text(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(FAILURE_TEXT_BYTES_MAX)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(unix: u64) -> Failure {
        Failure {
            unix,
            client: None,
            method: text(b"GET"),
            host: text(b"a\r\nb"),
            path: text(&[b'x'; 10 * FAILURE_TEXT_BYTES_MAX]),
            status: 400,
            reason: "REJECTED",
            detail: "",
            cluster: None,
            backend: None,
        }
    }

    #[test]
    fn the_latest_are_kept_and_all_are_counted() {
        let failures = Failures::default();
        let many = 3 * FAILURES_KEPT as u64;
        (0..many).for_each(|i| failures.add(|| failure(i)));
        let latest = failures.latest();
        assert_eq!((latest.len(), failures.total()), (FAILURES_KEPT, many));
        assert_eq!((latest[0].unix, latest[0].host.as_str()), (many - FAILURES_KEPT as u64, "a\\r\\nb"));
        assert_eq!(latest[0].path.len(), FAILURE_TEXT_BYTES_MAX);
    }

    #[test]
    fn nobody_waits_for_a_reader() {
        let failures = Failures::default();
        let reading = failures.latest.lock().expect("not poisoned");
        failures.add(|| unreachable!("not made in vain"));
        drop(reading);
        assert_eq!((failures.total(), failures.latest().len()), (1, 0));
    }
}
