//! What reports and probes mean for an endpoint: who is marked, who comes back.

use super::checks::Key;
use super::{Action, Entry, Health, Note, ProbeId, Ramp, Supervisor, What, tick_of};
use crate::route::BackendId;
use crate::route::table::Cluster;
use std::sync::atomic::Ordering::SeqCst;

impl Supervisor {
    /// A core reported something about this endpoint: looks at its cells. Endpoints that are gone, and such that are
    /// down already, are let be.
    pub fn look(&mut self, backend: BackendId, now: u64) -> Vec<Action> {
        let notes = self.look_at_one(backend, now).into_iter().collect();
        self.tell(notes, false)
    }

    /// Looks at all endpoints: when reports may have been lost (`CoreStats::look_at_all`).
    pub fn look_at_all(&mut self, now: u64) -> Vec<Action> {
        let all: Vec<BackendId> = self.table.clusters().iter().flat_map(|c| &c.backends).map(|b| b.id).collect();
        let notes = all.into_iter().filter_map(|id| self.look_at_one(id, now)).collect();
        self.tell(notes, false)
    }

    /// The verdict of a probe, with what it found. One that nobody waits for any more is let be.
    pub fn probe_result(&mut self, id: ProbeId, verdict: Result<String, String>, now: u64) -> Vec<Action> {
        if self.drain.is_some() {
            return Vec::new();
        }
        let notes = self.verdict(id, &verdict, now);
        self.tell(notes, false)
    }

    /// A publication if somebody's state has changed, then what there is to say.
    pub(super) fn tell(&mut self, notes: Vec<Note>, changed: bool) -> Vec<Action> {
        let mut actions = Vec::with_capacity(notes.len() + 1);
        if changed || notes.iter().any(|n| matches!(n.what, What::Down | What::Up)) {
            actions.push(self.publish());
        }
        actions.extend(notes.into_iter().map(Action::Log));
        actions
    }

    /// Tells a probe's verdict to all who want it.
    pub(super) fn verdict(&mut self, id: ProbeId, verdict: &Result<String, String>, now: u64) -> Vec<Note> {
        let Some(told) = self.checks.ended(id, now) else { return Vec::new() };
        told.into_iter().filter_map(|backend| self.take_verdict(backend, verdict, now)).collect()
    }

    fn take_verdict(&mut self, id: BackendId, verdict: &Result<String, String>, now: u64) -> Option<Note> {
        let entry = self.entries.get_mut(&id)?;
        let found = match verdict {
            Ok(found) | Err(found) => found.clone(),
        };
        let before = entry.evidence.replace(found.clone());
        match (entry.health, verdict) {
            (Health::Held { .. }, _) => None,
            (Health::Up { ramp, .. }, Ok(_)) => {
                self.stand(id, Health::Up { bad: 0, ramp });
                None
            }
            (Health::Up { bad, ramp }, Err(why)) => self.bad_check(id, (bad.saturating_add(1), ramp), why, now),
            (Health::Proving { good }, Ok(found)) => {
                let (cluster, _) = self.place(id);
                let policy = &cluster.policy.health;
                let rise = policy.check.map_or(1, |check| check.rise);
                if good + 1 < rise {
                    self.stand(id, Health::Proving { good: good + 1 });
                    return None;
                }
                // Published behind this.
                let epoch = self.epoch + 1;
                let ramp = Ramp::begin(policy.slow_start, now);
                Some(self.bring_up(id, format!("a probe was answered: {found}"), (epoch, now), ramp))
            }
            (Health::Proving { good }, Err(why)) => {
                let (cluster, _) = self.place(id);
                let policy = &cluster.policy.health;
                if policy.check.is_some() {
                    self.stand(id, Health::Proving { good: 0 });
                    // The same as at the last check is no news.
                    let news = good > 0 || before.as_ref() != Some(&found);
                    return news.then(|| self.note(id, What::StillDown, format!("probe: {why}")));
                }
                let until_ms = entry_of(self, id)?.hold.again(policy, now);
                self.stand(id, Health::Held { until_ms });
                Some(self.note(id, What::StillDown, format!("probe: {why}")))
            }
        }
    }

    /// An endpoint that is up has failed so many checks in a row.
    fn bad_check(&mut self, id: BackendId, (bad, ramp): (u32, Option<Ramp>), why: &str, now: u64) -> Option<Note> {
        self.stand(id, Health::Up { bad, ramp });
        let (cluster, _) = self.place(id);
        let fall = cluster.policy.health.check?.fall;
        if bad < fall {
            return None;
        }
        let why = format!("{bad} bad checks in a row, the latest: {why}");
        if self.up_count(&cluster) < 2 && !self.is_out(id) {
            return self.keep_up(id, why, &cluster, now);
        }
        Some(self.mark(id, Health::Proving { good: 0 }, why, now))
    }

    fn look_at_one(&mut self, id: BackendId, now: u64) -> Option<Note> {
        if self.drain.is_some() || !self.entries.contains_key(&id) {
            return None;
        }
        let (cluster, index) = self.place(id);
        let (others_up, policy) = (self.up_count(&cluster) > 1, &cluster.policy.health);
        let cells = cluster.backends[index].cells.all();
        // Before the cells are read: what a core writes from here on, it reports again.
        for cell in cells {
            cell.reported.swap(0, SeqCst);
        }
        let out = self.is_out(id);
        let entry = entry_of(self, id)?;
        if !entry.health.is_up() || out {
            return None;
        }
        let why = entry.judge.look(cells, policy, tick_of(now))?.to_string();
        if others_up {
            let until_ms = entry.hold.marked(policy, now);
            return Some(self.mark(id, Health::Held { until_ms }, why, now));
        }
        entry.judge.settle(cells, tick_of(now));
        self.keep_up(id, why, &cluster, now)
    }

    fn mark(&mut self, id: BackendId, health: Health, why: String, now: u64) -> Note {
        if let Some(entry) = entry_of(self, id) {
            entry.kept_up = None;
            (entry.since_ms, entry.why) = (now, why.clone());
        }
        self.stand(id, health);
        self.note(id, What::Down, why)
    }

    /// Notes a fault of the last one that is up, and has the others probed at once. One that keeps failing is told of as often
    /// as it would be if it could be held down.
    fn keep_up(&mut self, id: BackendId, why: String, cluster: &Cluster, now: u64) -> Option<Note> {
        let entry = entry_of(self, id)?;
        let again = u64::from(cluster.policy.health.hold_down) * 1000;
        if entry.kept_up.as_ref().is_some_and(|(at, _)| now < at + again) {
            return None;
        }
        entry.kept_up = Some((now, why.clone()));
        // Now that nobody is well, whoever is well again is wanted before its time.
        for other in cluster.backends.iter().map(|b| b.id) {
            if matches!(self.entries[&other].health, Health::Held { .. }) && !self.is_in_maintenance(other) {
                self.prove(other, now);
            }
        }
        Some(self.note(id, What::KeptUp, why))
    }

    /// The hold-down is over: probes decide.
    pub(super) fn prove(&mut self, id: BackendId, now: u64) {
        self.stand(id, Health::Proving { good: 0 });
        self.subscribe(id, now);
        if !self.is_in_maintenance(id) {
            self.checks.hasten(&self.probe_key(id), now);
        }
    }

    /// What the cells of an endpoint say until now does not count.
    pub(super) fn settle(&mut self, id: BackendId, now: u64) {
        let (cluster, index) = self.place(id);
        if let Some(entry) = entry_of(self, id) {
            entry.judge.settle(cluster.backends[index].cells.all(), tick_of(now));
        }
    }

    /// Has the endpoints of a backend that are down probed now.
    pub(super) fn probe_soon(&mut self, cluster: &str, backend: &str, now: u64) -> Vec<Action> {
        for id in self.endpoint_ids(cluster, backend) {
            if !self.entries[&id].health.is_up() {
                self.prove(id, now);
            }
        }
        self.tick(now)
    }

    /// Up again from this epoch on, with a clean slate: what the cells say until now does not count. The others of its
    /// cluster may be held down from here on.
    pub(super) fn bring_up(
        &mut self,
        id: BackendId,
        why: String,
        (epoch, now): (u64, u64),
        ramp: Option<Ramp>,
    ) -> Note {
        self.stand(id, Health::Up { bad: 0, ramp });
        let (cluster, index) = self.place(id);
        if let Some(entry) = entry_of(self, id) {
            entry.judge.settle_well(cluster.backends[index].cells.all(), epoch, tick_of(now));
            entry.hold.recovered(now);
            (entry.since_ms, entry.why) = (now, why.clone());
        }
        for backend in &cluster.backends {
            if let Some(entry) = entry_of(self, backend.id) {
                entry.kept_up = None;
            }
        }
        self.note(id, What::Up, why)
    }

    /// Sees to it that an endpoint is probed, if it is to be.
    pub(super) fn subscribe(&mut self, id: BackendId, now: u64) {
        if self.is_in_maintenance(id) {
            return;
        }
        let key = self.probe_key(id);
        let proving = matches!(self.entries[&id].health, Health::Proving { .. });
        if key.2.is_some() || proving {
            self.checks.subscribe(id, key.clone(), now);
        }
        // A prober without an interval rests until it is told to.
        if key.2.is_none() && proving {
            self.checks.hasten(&key, now);
        }
    }

    /// What the prober of an endpoint is found by.
    pub(super) fn probe_key(&self, id: BackendId) -> Key {
        let (cluster, index) = self.place(id);
        let policy = &cluster.policy.health;
        (cluster.backends[index].endpoint.clone(), policy.probe.clone(), policy.check.map(|check| check.interval))
    }

    /// Keeps shares of failures up to date, where they count.
    pub(super) fn sample(&mut self, now: u64) {
        let table = self.table.clone();
        for cluster in table.clusters().iter().filter(|c| c.policy.health.rate.is_some()) {
            for backend in &cluster.backends {
                if let Some(entry) = entry_of(self, backend.id) {
                    entry.judge.sample(backend.cells.all(), &cluster.policy.health, tick_of(now));
                }
            }
        }
    }
}

fn entry_of(supervisor: &mut Supervisor, id: BackendId) -> Option<&mut Entry> {
    supervisor.entries.get_mut(&id)
}
