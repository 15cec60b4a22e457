//! Who probes what: one prober for each endpoint, way to probe and interval, however many clusters want its verdicts.
//!
//! A prober without an interval serves endpoints whose hold-down is over: it probes when told to, and is dropped once
//! nobody waits for it. One with an interval goes on for as long as it has subscribers.

use super::ProbeId;
use crate::limits::{PROBE_LOST_MS, PROBES_MAX, TICK_MS};
use crate::route::health_policy::ProbeSpec;
use crate::route::{BackendId, Endpoint};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What makes two probes the same: where, how, and how often (seconds; `None`: only when told to).
pub(super) type Key = (Endpoint, Arc<ProbeSpec>, Option<u32>);

/// All probers.
#[derive(Debug, Default)]
pub(super) struct Checks {
    by_key: FxHashMap<Key, ProbeId>,
    probers: BTreeMap<ProbeId, Prober>,
    /// When something has to happen to a prober; one entry for each that does not rest.
    due: BTreeSet<(u64, ProbeId)>,
    running: usize,
    next: u64,
}

#[derive(Debug)]
struct Prober {
    key: Key,
    subscribers: BTreeSet<BackendId>,
    phase: Phase,
    /// Probes so far; spreads them in time.
    begun: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until it is told to probe.
    Resting,
    /// Until then.
    Waiting { at_ms: u64 },
    /// Without a verdict until then it counts as failed.
    Running { began_ms: u64, lost_ms: u64 },
}

impl Phase {
    fn due_ms(self) -> Option<u64> {
        match self {
            Phase::Resting => None,
            Phase::Waiting { at_ms: at } | Phase::Running { lost_ms: at, .. } => Some(at),
        }
    }

    fn is_running(self) -> bool {
        matches!(self, Phase::Running { .. })
    }
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// This probe begins now.
    Begin(ProbeId, Endpoint, Arc<ProbeSpec>),
    /// The verdict of this one never came.
    Lost(ProbeId),
}

impl Checks {
    /// Makes `backend` a subscriber. A new prober with an interval begins at a random moment within it, so that a
    /// thousand endpoints are not probed at once.
    pub(super) fn subscribe(&mut self, backend: BackendId, key: Key, now: u64) {
        let id = match self.by_key.get(&key) {
            Some(id) => *id,
            None => {
                let id = ProbeId(self.next);
                self.next += 1;
                self.by_key.insert(key.clone(), id);
                let interval = key.2;
                let prober = Prober { key, subscribers: BTreeSet::new(), phase: Phase::Resting, begun: 0 };
                self.probers.insert(id, prober);
                if let Some(seconds) = interval {
                    self.turn(id, Phase::Waiting { at_ms: now + dice(id, 0, u64::from(seconds) * 1000) });
                }
                id
            }
        };
        if let Some(prober) = self.probers.get_mut(&id) {
            prober.subscribers.insert(backend);
        }
    }

    /// Probes as soon as possible, rather than at its time.
    pub(super) fn hasten(&mut self, key: &Key, now: u64) {
        let Some(id) = self.by_key.get(key).copied() else { return };
        match self.probers[&id].phase {
            Phase::Resting => self.turn(id, Phase::Waiting { at_ms: now }),
            Phase::Waiting { at_ms } if at_ms > now => self.turn(id, Phase::Waiting { at_ms: now }),
            Phase::Waiting { .. } | Phase::Running { .. } => {}
        }
    }

    /// Takes all subscriptions back, as a reload begins; probers that nobody subscribes again are dropped by
    /// [`Checks::sweep`].
    pub(super) fn unsubscribe_all(&mut self) {
        self.probers.values_mut().for_each(|prober| prober.subscribers.clear());
    }

    /// Drops probers without subscribers. One whose probe is under way stays until that has ended, so that probes are
    /// counted as long as their sockets live.
    pub(super) fn sweep(&mut self) {
        let idle = |p: &Prober| p.subscribers.is_empty() && !p.phase.is_running();
        let gone: Vec<ProbeId> = self.probers.iter().filter(|(_, p)| idle(p)).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.forget(id));
    }

    /// What is due first; to be called until there is nothing. Probes beyond `limits::PROBES_MAX` wait for a tick.
    pub(super) fn next_due(&mut self, now: u64) -> Option<Due> {
        loop {
            let (_, id) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
            match self.probers[&id].phase {
                Phase::Running { .. } => return Some(Due::Lost(id)),
                _ if self.running >= PROBES_MAX => self.turn(id, Phase::Waiting { at_ms: now + TICK_MS }),
                _ => {
                    let (endpoint, spec, _) = self.probers[&id].key.clone();
                    let lost_ms = now + u64::from(spec.timeout) * 1000 + PROBE_LOST_MS;
                    self.turn(id, Phase::Running { began_ms: now, lost_ms });
                    return Some(Due::Begin(id, endpoint, spec));
                }
            }
        }
    }

    /// A probe has ended: its subscribers, who are to be told. `None` if nobody knows of it.
    pub(super) fn ended(&mut self, id: ProbeId, now: u64) -> Option<Vec<BackendId>> {
        let prober = self.probers.get_mut(&id)?;
        let Phase::Running { began_ms, .. } = prober.phase else { return None };
        prober.begun += 1;
        let subscribers: Vec<BackendId> = prober.subscribers.iter().copied().collect();
        let phase = match prober.key.2 {
            Some(seconds) => {
                // Give or take a tenth, or probes that once met would meet for ever.
                let tenth = u64::from(seconds) * 100;
                let apart = 9 * tenth + dice(id, prober.begun, 2 * tenth);
                Phase::Waiting { at_ms: (began_ms + apart).max(now) }
            }
            None => {
                prober.subscribers.clear();
                Phase::Resting
            }
        };
        self.turn(id, phase);
        if self.probers[&id].subscribers.is_empty() {
            self.forget(id);
        }
        Some(subscribers)
    }

    /// When this prober probes next, and whether it does so now.
    pub(super) fn state(&self, key: &Key) -> (Option<u64>, bool) {
        match self.by_key.get(key).map(|id| self.probers[id].phase) {
            Some(Phase::Waiting { at_ms }) => (Some(at_ms), false),
            Some(Phase::Running { .. }) => (None, true),
            Some(Phase::Resting) | None => (None, false),
        }
    }

    /// What a prober is found by.
    #[cfg(test)]
    pub(super) fn key_of(&self, id: ProbeId) -> Key {
        self.probers[&id].key.clone()
    }

    /// When [`Checks::next_due`] has something at the earliest.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The prober with this key serves this endpoint.
    pub(super) fn serves(&self, key: &Key, backend: BackendId) -> bool {
        self.by_key.get(key).is_some_and(|id| self.probers[id].subscribers.contains(&backend))
    }

    /// What another path could break.
    pub(super) fn invariants(&self) {
        assert!(self.running <= PROBES_MAX, "probes are bounded");
        assert_eq!(self.by_key.len(), self.probers.len(), "one prober for each key");
        assert_eq!(self.probers.values().filter(|p| p.phase.is_running()).count(), self.running, "running ones count");
        let due = self.probers.iter().filter_map(|(id, p)| p.phase.due_ms().map(|at| (at, *id)));
        assert_eq!(due.collect::<BTreeSet<_>>(), self.due, "each prober that does not rest is due once");
        for (key, id) in &self.by_key {
            let prober = &self.probers[id];
            assert_eq!(prober.key, *key, "a prober is found by its key");
            assert!(!prober.subscribers.is_empty() || prober.phase.is_running(), "nobody is probed for nothing");
        }
    }

    /// The one place where a phase changes.
    fn turn(&mut self, id: ProbeId, phase: Phase) {
        let Some(prober) = self.probers.get_mut(&id) else { return };
        let was = std::mem::replace(&mut prober.phase, phase);
        if let Some(at) = was.due_ms() {
            self.due.remove(&(at, id));
        }
        if let Some(at) = phase.due_ms() {
            self.due.insert((at, id));
        }
        self.running = self.running + usize::from(phase.is_running()) - usize::from(was.is_running());
    }

    fn forget(&mut self, id: ProbeId) {
        self.turn(id, Phase::Resting);
        if let Some(prober) = self.probers.remove(&id) {
            self.by_key.remove(&prober.key);
        }
    }
}

/// A number below `sides`, the same for the same prober and time (splitmix64): a pure room has no other dice.
fn dice(id: ProbeId, turn: u64, sides: u64) -> u64 {
    let mut x = (id.0 << 32 ^ turn).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) % sides.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(host: u8, interval: Option<u32>) -> Key {
        (Endpoint::Ip(([10, 0, 0, host], 80).into()), Arc::default(), interval)
    }

    #[test]
    fn one_prober_for_all_who_want_the_same() {
        let mut checks = Checks::default();
        for backend in 0..5 {
            checks.subscribe(BackendId(backend), key(1, Some(10)), 0);
        }
        checks.subscribe(BackendId(9), key(1, Some(20)), 0);
        checks.invariants();
        let (mut now, mut begun) = (0, Vec::new());
        while now < 60_000 {
            now += 100;
            while let Some(due) = checks.next_due(now) {
                let Due::Begin(id, ..) = due else { panic!("{due:?}") };
                begun.push((now, id));
                let told = checks.ended(id, now + 50).unwrap();
                assert!(told.len() == 5 || told == [BackendId(9)], "{told:?}");
            }
            checks.invariants();
        }
        let times: Vec<u64> = begun.iter().filter(|(_, id)| id.0 == 0).map(|(at, _)| *at).collect();
        assert!((5..=7).contains(&times.len()), "{times:?}");
        assert!(times.windows(2).all(|w| (9_000..=11_100).contains(&(w[1] - w[0]))), "{times:?}");
        assert!(times.windows(2).any(|w| w[1] - w[0] != times[1] - times[0]), "there is jitter: {times:?}");
    }

    #[test]
    fn one_without_interval_probes_once_and_goes() {
        let mut checks = Checks::default();
        checks.subscribe(BackendId(1), key(1, None), 5);
        assert_eq!(checks.next_due(1_000_000), None, "it was not told to");
        checks.hasten(&key(1, None), 7);
        checks.subscribe(BackendId(2), key(1, None), 8);
        let Some(Due::Begin(id, ..)) = checks.next_due(9) else { panic!() };
        assert_eq!(checks.next_due(9), None);
        assert_eq!(checks.ended(id, 10), Some(vec![BackendId(1), BackendId(2)]));
        assert_eq!(checks.ended(id, 11), None);
        assert!(checks.probers.is_empty());
        checks.invariants();
    }

    #[test]
    fn a_probe_that_nobody_wants_any_more_still_counts_until_it_ends() {
        let mut checks = Checks::default();
        checks.subscribe(BackendId(1), key(1, Some(1)), 0);
        checks.subscribe(BackendId(2), key(2, Some(1)), 0);
        let Some(Due::Begin(id, ..)) = checks.next_due(1_000) else { panic!() };
        checks.unsubscribe_all();
        checks.sweep();
        assert_eq!((checks.probers.len(), checks.running), (1, 1));
        checks.invariants();
        assert_eq!(checks.ended(id, 1_100), Some(vec![]));
        assert!(checks.probers.is_empty() && checks.due.is_empty());
    }
}
