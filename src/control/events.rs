//! What has happened, numbered without gaps: the latest are kept, and streamed to whoever asks.
//!
//! A reader has a place in the ring and gets lines while it takes them. One that is so slow that the ring has gone over its
//! place is cut: nobody waits for it, and it never misses a number without knowing.

use super::Control;
use super::socket::{ClientId, ControlSocket};
use crate::config::answer::{Code, Error};
use crate::config::events::{Event, Happening, Stream};
use crate::limits;
use crate::route::ClusterId;
use crate::route::balance::fails_open;
use crate::route::table::Cluster;
use crate::route::waits::WaitCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two looks at the queues.
const LOOK: Duration = Duration::from_secs(1);

/// The latest events, and who reads them.
#[derive(Debug, Default)]
pub(super) struct Events {
    latest: VecDeque<Event>,
    /// Number of the next.
    next: u64,
    readers: Vec<Reader>,
    /// Clusters that fail open.
    open: BTreeSet<ClusterId>,
    /// What the queues had refused at the last look.
    refused: BTreeMap<ClusterId, (u64, u64)>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Reader {
    client: ClientId,
    next: u64,
}

impl Events {
    /// The latest, the newest first.
    pub(super) fn latest(&self, most: usize) -> Vec<Event> {
        self.latest.iter().rev().take(most).cloned().collect()
    }

    fn oldest(&self) -> u64 {
        self.next - self.latest.len() as u64
    }

    fn add(&mut self, what: Happening, at_us: u64) {
        if self.latest.len() == limits::EVENTS_KEPT {
            self.latest.pop_front();
        }
        self.next = self.next.max(1);
        self.latest.push_back(Event { n: self.next, at_us, text: what.to_string(), what });
        self.next += 1;
    }

    /// Takes a reader in: from this number on, or from the next that happens.
    fn read(&mut self, client: ClientId, from: Option<u64>) -> Stream {
        self.next = self.next.max(1);
        let wanted = from.unwrap_or(self.next).clamp(1, self.next);
        let next = wanted.max(self.oldest());
        self.readers.retain(|reader| reader.client != client);
        self.readers.push(Reader { client, next });
        Stream { from: next, lost: next - wanted }
    }

    /// Hands lines to the readers that have taken those before, as many as fit one turn.
    fn stream(&mut self, socket: &mut ControlSocket, now: Instant) {
        let oldest = self.oldest();
        let (latest, end) = (&self.latest, self.next);
        self.readers.retain_mut(|reader| {
            if !socket.is_there(reader.client) {
                return false;
            }
            if reader.next < oldest {
                socket.cut(reader.client, "it reads its events too slowly");
                return false;
            }
            if reader.next < end && socket.has_taken_all(reader.client) {
                let mut lines = Vec::new();
                for event in latest.range((reader.next - oldest) as usize..) {
                    // Texts and numbers always serialise.
                    let _ = serde_json::to_writer(&mut lines, event);
                    lines.push(b'\n');
                    reader.next += 1;
                    if lines.len() >= limits::EVENTS_BYTES_PER_TURN {
                        break;
                    }
                }
                socket.answer(reader.client, &lines, now);
            }
            true
        });
    }
}

impl Control {
    /// Something has happened: a line in the operational log, and an event.
    pub(super) fn tell(&mut self, what: Happening) {
        if what.is_bad() {
            tracing::warn!("{what}");
        } else {
            tracing::info!("{what}");
        }
        self.note(what);
    }

    /// The same where the log has its own words.
    pub(super) fn note(&mut self, what: Happening) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.events.add(what, at.as_micros() as u64);
    }

    /// Begins a stream.
    pub(super) fn begin_events(&mut self, client: ClientId, from: Option<u64>) -> Result<Stream, Error> {
        if self.events.readers.len() >= limits::EVENTS_READERS_MAX {
            let message = format!("{} clients read the events already", limits::EVENTS_READERS_MAX);
            return Err(Error::new(Code::Failed, message));
        }
        if let Some(socket) = &mut self.socket {
            socket.keep(client);
        }
        Ok(self.events.read(client, from))
    }

    pub(super) fn stream_events(&mut self) {
        if let Some(socket) = &mut self.socket
            && !self.events.readers.is_empty()
        {
            self.events.stream(socket, Instant::now());
        }
    }

    /// Looks for clusters that fail open from now on, or no longer: to be called when states or table are others.
    pub(super) fn look_for_fail_open(&mut self) {
        let snapshot = self.supervisor.snapshot();
        let may = snapshot.table.clusters().iter().filter(|cluster| cluster.policy.fail_open > 0);
        let is_open = |cluster: &Cluster| {
            let states = snapshot.states.get(cluster.first_state..cluster.first_state + cluster.backends.len());
            states.is_some_and(|states| fails_open(cluster, states))
        };
        let open: BTreeSet<ClusterId> = may.filter(|cluster| is_open(cluster)).map(|cluster| cluster.id).collect();
        if open == self.events.open {
            return;
        }
        let before = std::mem::replace(&mut self.events.open, open.clone());
        for id in open.symmetric_difference(&before) {
            if let Some(cluster) = snapshot.table.cluster(*id) {
                self.tell(Happening::FailOpen { cluster: cluster.name.clone(), open: open.contains(id) });
            }
        }
    }

    /// Once a second: which queues have refused requests meanwhile.
    pub(super) fn look_at_queues(&mut self, now: Instant) {
        if self.events.looked.is_some_and(|at| now < at + LOOK) {
            return;
        }
        self.events.looked = Some(now);
        let snapshot = self.supervisor.snapshot();
        let mut happened = Vec::new();
        let mut refused = BTreeMap::new();
        for cluster in snapshot.table.clusters() {
            let sum = |count: fn(&WaitCell) -> u64| cluster.waits.all().iter().map(count).sum::<u64>();
            let (full, timeouts) =
                (sum(|cell| cell.overflowed.load(Relaxed)), sum(|cell| cell.timed_out.load(Relaxed)));
            if full == 0 && timeouts == 0 {
                continue;
            }
            refused.insert(cluster.id, (full, timeouts));
            let before = self.events.refused.get(&cluster.id).copied().unwrap_or_default();
            if before != (full, timeouts) {
                happened.push(Happening::QueueOverflow {
                    cluster: cluster.name.clone(),
                    full: full.saturating_sub(before.0),
                    timeouts: timeouts.saturating_sub(before.1),
                    queued: sum(|cell| u64::from(cell.waiting.load(Relaxed))),
                });
            }
        }
        self.events.refused = refused;
        happened.into_iter().for_each(|what| self.tell(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_gaps_and_what_is_forgotten_is_told() {
        let client = ClientId::default();
        let mut events = Events::default();
        assert_eq!(events.read(client, None), Stream { from: 1, lost: 0 });
        for n in 0..limits::EVENTS_KEPT as u64 + 10 {
            events.add(Happening::Ready { ready: n % 2 == 0 }, n);
        }
        let numbers: Vec<u64> = events.latest.iter().rev().map(|event| event.n).collect();
        assert_eq!((numbers.len(), numbers[0]), (limits::EVENTS_KEPT, limits::EVENTS_KEPT as u64 + 10));
        assert!(numbers.windows(2).all(|pair| pair[0] == pair[1] + 1));
        assert_eq!(events.read(client, Some(0)), Stream { from: 11, lost: 10 });
        assert_eq!(events.read(client, Some(20)), Stream { from: 20, lost: 0 });
        let next = limits::EVENTS_KEPT as u64 + 11;
        assert_eq!(events.read(client, None), Stream { from: next, lost: 0 });
        assert_eq!(events.read(client, Some(u64::MAX)), Stream { from: next, lost: 0 });
        assert_eq!(events.readers.len(), 1);
    }
}
