//! The stories of the latest exchanges of each core, for `ringway ctl errors` and `ctl why`: bounded, and the worker never
//! waits for whoever reads them.
//!
//! Exchanges that went wrong, or of which an attempt did, are always kept; all others only if the config asks for them.

use crate::limits::{STORIES_KEPT, STORY_TEXT_BYTES_MAX};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// One exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Seconds since 1970 at which it ended.
    pub unix: u64,
    /// X-Request-Id as the backend got it, or as the client was told in an own answer; see [`text`].
    pub request_id: String,
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
    /// Bytes sent to the client.
    pub bytes: u64,
    /// Bytes of the request's body, without framing.
    pub received: u64,
    /// Reason code.
    pub reason: &'static str,
    /// What that means.
    pub detail: &'static str,
    /// Whether it ended as it should.
    pub regular: bool,
    /// The cluster, if it got that far.
    pub cluster: Option<String>,
    /// The last backend that was tried.
    pub backend: Option<String>,
    /// Of the config that it was served by.
    pub generation: u64,
    /// Microseconds by phase, those that took any; empty if nobody measured.
    pub phases: Vec<(&'static str, u64)>,
    /// In order; the last one is among them if it failed or all exchanges are kept.
    pub attempts: Vec<Attempt>,
}

/// One attempt of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The operator's id.
    pub backend: String,
    /// Where it is.
    pub endpoint: String,
    /// Whether its connection came from the pool; `None` if there never was one.
    pub reused: Option<bool>,
    /// Microseconds from its begin to its end.
    pub took_us: u64,
    /// Bytes of the head, and of the body as far as it was there, that the kernel took; `None` if it took all.
    pub handed: Option<u64>,
    /// Bytes that the backend's kernel has acknowledged and that have come from it, of the whole connection, if the kernel
    /// counts them.
    pub carried: Option<Carried>,
    /// How it ended.
    pub outcome: &'static str,
    /// Why it was or was not followed by another; empty if it was answered.
    pub then: &'static str,
}

/// What one backend connection has carried since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Bytes that the backend's kernel has acknowledged.
    pub acknowledged: u64,
    /// Bytes that have come back.
    pub received: u64,
}

/// Those of one core.
#[derive(Debug, Default)]
pub struct Stories {
    failed: Ring,
    recent: Ring,
    total: AtomicU64,
    /// The tick of the latest, counted from 1, and what that tick may still tell.
    tick: AtomicU32,
    left: AtomicU32,
}

/// The latest of one kind. Whole entries are shared with readers, so that the lock is held for a moment only.
#[derive(Debug, Default)]
struct Ring(Mutex<VecDeque<Arc<Story>>>);

impl Ring {
    /// Where a reader is at it just then, the story is lost.
    fn add(&self, most: usize, story: impl FnOnce() -> Story) {
        let Ok(mut latest) = self.0.try_lock() else { return };
        while latest.len() >= most.max(1) {
            latest.pop_front();
        }
        latest.push_back(Arc::new(story()));
    }

    fn latest(&self) -> Vec<Arc<Story>> {
        // A poisoned lock holds whole entries all the same.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Stories {
    /// Whether what goes wrong in this tick is still to be told: in a storm of failures, as many as are kept are enough.
    /// Called by the core alone.
    pub fn has_room(&self, tick: u32) -> bool {
        // 0 is none yet.
        let number = tick.wrapping_add(1);
        if self.tick.load(Relaxed) != number {
            self.tick.store(number, Relaxed);
            self.left.store(STORIES_KEPT as u32, Relaxed);
        }
        self.left.load(Relaxed) > 0
    }

    /// One that went wrong, or of which an attempt did, in this tick. Called by the core alone.
    pub fn add_failed(&self, tick: u32, regular: bool, story: impl FnOnce() -> Story) {
        if !regular {
            self.total.store(self.total.load(Relaxed) + 1, Relaxed);
        }
        if self.has_room(tick) {
            self.left.store(self.left.load(Relaxed) - 1, Relaxed);
            self.failed.add(STORIES_KEPT, story);
        }
    }

    /// Any other; so many are kept. Called by the core alone.
    pub fn add_recent(&self, most: usize, story: impl FnOnce() -> Story) {
        self.recent.add(most, story);
    }

    /// The latest that went wrong, the oldest first.
    pub fn failed(&self) -> Vec<Arc<Story>> {
        let mut failed = self.failed.latest();
        failed.retain(|story| !story.regular);
        failed
    }

    /// All that are kept, the oldest of each kind first.
    pub fn all(&self) -> Vec<Arc<Story>> {
        let mut all = self.failed.latest();
        all.extend(self.recent.latest());
        all
    }

    /// How many went wrong.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}

/// Bytes of a request as text that can be shown: cut, and what is not printable ASCII escaped.
pub fn text(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(STORY_TEXT_BYTES_MAX)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(unix: u64, regular: bool) -> Story {
        Story {
            unix,
            request_id: String::new(),
            client: None,
            method: text(b"GET"),
            host: text(b"a\r\nb"),
            path: text(&[b'x'; 10 * STORY_TEXT_BYTES_MAX]),
            status: 400,
            bytes: 0,
            received: 0,
            reason: "REJECTED",
            detail: "",
            regular,
            cluster: None,
            backend: None,
            generation: 1,
            phases: Vec::new(),
            attempts: Vec::new(),
        }
    }

    #[test]
    fn the_latest_are_kept_and_those_that_went_wrong_are_counted() {
        let stories = Stories::default();
        let many = 3 * STORIES_KEPT as u64;
        (0..many).for_each(|i| stories.add_failed(i as u32, false, || story(i, false)));
        stories.add_failed(1, true, || story(many, true));
        (0..10).for_each(|i| stories.add_recent(4, || story(i, true)));
        let failed = stories.failed();
        assert_eq!((failed.len(), stories.total()), (STORIES_KEPT - 1, many));
        assert_eq!((failed[0].unix, failed[0].host.as_str()), (many + 1 - STORIES_KEPT as u64, "a\\r\\nb"));
        assert_eq!(failed[0].path.len(), STORY_TEXT_BYTES_MAX);
        let all: Vec<u64> = stories.all().iter().map(|story| story.unix).collect();
        assert_eq!((all.len(), &all[STORIES_KEPT - 1..]), (STORIES_KEPT + 4, &[many, 6, 7, 8, 9][..]));
    }

    #[test]
    fn a_storm_is_told_as_far_as_it_is_kept() {
        let stories = Stories::default();
        let many = 3 * STORIES_KEPT as u64;
        (0..many).for_each(|i| stories.add_failed(0, false, || story(i, false)));
        assert_eq!((stories.total(), stories.failed().len(), stories.has_room(0)), (many, STORIES_KEPT, false));
        assert_eq!(stories.failed().last().map(|story| story.unix), Some(STORIES_KEPT as u64 - 1));
        stories.add_failed(8, false, || story(many, false));
        assert_eq!(stories.failed().last().map(|story| story.unix), Some(many));
    }

    #[test]
    fn nobody_waits_for_a_reader() {
        let stories = Stories::default();
        let reading = stories.failed.0.lock().expect("not poisoned");
        stories.add_failed(1, false, || unreachable!("not made in vain"));
        drop(reading);
        assert_eq!((stories.total(), stories.failed().len()), (1, 0));
    }
}
