//! Pure: (event, now) to actions. Hold-downs, probes, reload, drain.
//!
//! Owned by the control thread, which brings the events and carries out the actions. All times are milliseconds since the
//! process began (the workers' ticks count seconds from about the same moment).
//!
//! An endpoint is up until a look at its cells finds a fault. Then it is held down: it takes no traffic and is left alone
//! for a time that doubles when it fails again (`hold_down`). Then it has to prove itself (still down): good probes make it
//! up again, its share growing slowly if the cluster wants that; a bad one holds it down once more. Faults found while it
//! is down change nothing: one mark never extends another. A cluster with active checks probes its endpoints all the time
//! (`checks`); bad probes in a row mark one that is up, which then has to prove itself, without being left alone first.
//!
//! The last endpoint of a cluster that is up is never held down, because a bad backend is better than none: the fault is
//! noted, and only new ones count when another has come back.
//!
//! A reload is prepared (all checks, nothing changed), then the caller opens sockets, then it is committed or dropped.
//! What stays keeps its number, its cells and its state.

mod admin;
mod change;
mod checks;
mod compose;
mod drain;
mod entry;
mod hold_down;
mod judging;
#[cfg(test)]
mod simulation;
mod status;
#[cfg(test)]
mod tests;

pub use admin::{Administered, Paused, Whose};
pub use change::{Change, Labels, Names, Refusal, restart_keys};
pub use compose::{Resolution, Resolutions, names_of};
pub use status::{BackendStatus, ClusterStatus, Status, Unresolved};

use crate::config::command::Level;
use crate::config::{Listener, ListenerId, Plan, Settings};
use crate::limits::{SLOW_START_STEPS, TICK_MS};
use crate::publish::Snapshot;
use crate::route::health::{self, State};
use crate::route::health_policy::ProbeSpec;
use crate::route::table::{Backend, Cluster, RouteTable};
use crate::route::{BackendId, ClusterId, Endpoint};
use admin::Admin;
use checks::{Checks, Due};
use compose::{Composed, Identities};
use drain::Drain;
use entry::{Entry, Health, Ramp};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What control has to do, in this order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Give this to the publisher and ring the workers.
    Publish(Snapshot),
    /// Probe an endpoint and come back with [`Supervisor::probe_result`].
    Probe(Probe),
    /// Tell the workers (`ToWorker::Rest`).
    Rest {
        /// Endpoints.
        backends: Vec<BackendId>,
        /// Taken out by an operator, or back in.
        rests: bool,
    },
    /// Tell the operator.
    Log(Note),
    /// Tell the operator that a word about a backend, or the pause of a cluster, has ended by itself.
    Over {
        /// Name of the cluster.
        cluster: String,
        /// The backend's id; `None` if it was a pause.
        backend: Option<String>,
    },
    /// The drain is over: end the process.
    Stop {
        /// Connections that were cut, over all cores.
        cut: u64,
        /// Cores that have not answered.
        missing: usize,
    },
}

/// A prober's number. Given once and never again: the verdict of one that is gone reaches nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeId(pub u64);

/// One probe to make now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whose verdict this will be; one is under way at a time for each.
    pub id: ProbeId,
    /// Where it goes.
    pub endpoint: Endpoint,
    /// What it does.
    pub spec: Arc<ProbeSpec>,
}

/// One line for the operator about one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What happened.
    pub what: What,
    /// Name of the cluster.
    pub cluster: String,
    /// The operator's id of the backend.
    pub backend: String,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Why.
    pub why: String,
}

/// What happened to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is held down.
    Down,
    /// It is up again.
    Up,
    /// It would be held down, but is the last of its cluster that is up.
    KeptUp,
    /// A probe found it still bad: held down once more.
    StillDown,
}

/// A plan that has passed all checks, with numbers given. Dropping it changes nothing.
#[derive(Debug)]
pub struct Prepared {
    plan: Plan,
    resolutions: Resolutions,
    composed: Composed,
    change: Change,
    serial: u64,
}

impl Prepared {
    /// What a commit will change.
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// Sockets to open before the commit.
    pub fn listeners_to_open(&self) -> Vec<(ListenerId, &Listener)> {
        let opens = |(id, _): &(ListenerId, _)| self.change.listeners_to_open.contains(id);
        compose::numbered(&self.composed.identities.listeners).filter(opens).collect()
    }
}

/// A new table is in place.
#[derive(Debug)]
pub struct Committed {
    /// To publish.
    pub snapshot: Snapshot,
    /// What it changes; the workers are told after the publication.
    pub change: Change,
    /// Endpoints that came up because they are the last of their cluster.
    pub notes: Vec<Note>,
}

/// All that control knows and decides.
#[derive(Debug)]
pub struct Supervisor {
    cores: usize,
    plan: Plan,
    resolutions: Resolutions,
    identities: Identities,
    table: Arc<RouteTable>,
    settings: Arc<Settings>,
    generation: u64,
    epoch: u64,
    /// Counts tables, so that a plan prepared against another one is noticed.
    serial: u64,
    states: Vec<State>,
    entries: FxHashMap<BackendId, Entry>,
    /// When something has to happen to an endpoint by itself; exactly one entry for each such.
    due: BTreeSet<(u64, BackendId)>,
    checks: Checks,
    admin: Admin,
    paused: Arc<[ClusterId]>,
    drain: Option<Drain>,
}

impl Supervisor {
    /// Generation 1, epoch 1, everything up. `cores` is how many workers there are; `resolutions` what is known of
    /// [`names_of`] this plan.
    ///
    /// # Errors
    /// See [`Refusal`]; a checked plan has none.
    pub fn new(plan: Plan, cores: usize, resolutions: Resolutions) -> Result<Supervisor, Refusal> {
        let composed = compose::compose(&plan, &resolutions, &Identities::default(), cores)?;
        let mut supervisor = Supervisor {
            cores,
            plan,
            resolutions,
            identities: Identities::default(),
            table: Arc::default(),
            settings: composed.settings.clone(),
            generation: 1,
            epoch: 1,
            serial: 0,
            states: Vec::new(),
            entries: FxHashMap::default(),
            due: BTreeSet::new(),
            checks: Checks::default(),
            admin: Admin::default(),
            paused: Arc::default(),
            drain: None,
        };
        supervisor.install(composed, 0);
        Ok(supervisor)
    }

    /// The snapshot of now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            generation: self.generation,
            epoch: self.epoch,
            table: self.table.clone(),
            states: self.states.as_slice().into(),
            paused: self.paused.clone(),
            settings: self.settings.clone(),
        }
    }

    /// The listeners of now, with their numbers.
    pub fn listeners(&self) -> Vec<(ListenerId, &Listener)> {
        compose::numbered(&self.identities.listeners).collect()
    }

    /// What each user of the control socket may do; `None` is everything.
    pub fn control_uids(&self) -> Option<&BTreeMap<u32, Level>> {
        self.plan.control_access.uids.as_ref()
    }

    /// Checks a new plan and gives numbers to what is new; changes nothing. `answers` is what the names in it
    /// resolve to, as far as it was asked.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn prepare(&self, plan: Plan, answers: Resolutions) -> Result<Prepared, Refusal> {
        if self.drain.is_some() {
            return Err(Refusal::Draining);
        }
        let keys = change::restart_keys(&self.plan, &plan, self.cores);
        if !keys.is_empty() {
            return Err(Refusal::Restart(keys));
        }
        let mut resolutions = self.resolutions.clone();
        resolutions.merge(answers, &names_of(&plan));
        let composed = compose::compose(&plan, &resolutions, &self.identities, self.cores)?;
        let change = change::change(Some(&self.plan), &plan, &self.identities, &composed.identities);
        Ok(Prepared { plan, resolutions, composed, change, serial: self.serial })
    }

    /// Takes over a prepared plan: generation and epoch rise by one. Nothing but health may have happened since it was
    /// prepared (asserted).
    pub fn commit(&mut self, prepared: Prepared, now: u64) -> Committed {
        assert_eq!(prepared.serial, self.serial, "a plan is committed to the table it was prepared against");
        self.plan = prepared.plan;
        self.resolutions = prepared.resolutions;
        self.generation += 1;
        self.epoch += 1;
        let notes = self.install(prepared.composed, now);
        let mut change = prepared.change;
        change.taken_away.epoch = self.epoch;
        Committed { snapshot: self.snapshot(), change, notes }
    }

    /// The names of backends, to be resolved from time to time.
    pub fn names_to_resolve(&self) -> BTreeSet<String> {
        names_of(&self.plan)
    }

    /// A name was resolved, or could not be. If its addresses are others than before, there is a new table: the epoch
    /// rises, the generation (which counts reloads) does not.
    pub fn resolved(
        &mut self,
        name: &str,
        answer: Result<Vec<std::net::IpAddr>, String>,
        now: u64,
    ) -> Option<Committed> {
        if self.drain.is_some() || !self.names_to_resolve().contains(name) {
            return None;
        }
        let before = self.resolutions.clone();
        if !self.resolutions.record(name, answer) {
            return None;
        }
        let Ok(composed) = compose::compose(&self.plan, &self.resolutions, &self.identities, self.cores) else {
            self.resolutions = before;
            return None;
        };
        let change = change::change(Some(&self.plan), &self.plan, &self.identities, &composed.identities);
        self.epoch += 1;
        let notes = self.install(composed, now);
        Some(Committed { snapshot: self.snapshot(), change, notes })
    }

    /// What is due: ends of hold-downs, steps of a slow start, probes, verdicts that never came, the end of a drain. To be
    /// called about each second, or at [`Supervisor::next_deadline`].
    pub fn tick(&mut self, now: u64) -> Vec<Action> {
        let mut actions = self.expire_admin(now);
        if self.drain.is_some() {
            // A pause whose time is over ends all the same: who waits in it is among those that the drain waits for.
            actions.extend(self.drain_over(now));
            return actions;
        }
        self.sample(now);
        let mut stepped = false;
        while let Some((_, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            match self.entries[&id].health {
                Health::Up { bad, ramp } => {
                    stepped = true;
                    self.stand(id, Health::Up { bad, ramp: ramp.and_then(|ramp| ramp.next(now)) });
                }
                Health::Held { .. } | Health::Proving { .. } => self.prove(id, now),
            }
        }
        let (mut notes, mut probes) = (Vec::new(), Vec::new());
        while let Some(due) = self.checks.next_due(now) {
            match due {
                Due::Begin(id, endpoint, spec) => probes.push(Action::Probe(Probe { id, endpoint, spec })),
                Due::Lost(id) => notes.extend(self.verdict(id, &Err("the probe gave no verdict".to_owned()), now)),
            }
        }
        actions.extend(self.tell(notes, stepped));
        actions.extend(probes);
        actions
    }

    /// When [`Supervisor::tick`] has something to do at the earliest.
    pub fn next_deadline(&self) -> Option<u64> {
        match &self.drain {
            Some(drain) => drain.deadline().map(|at| self.admin.next_deadline().map_or(at, |end| at.min(end))),
            None => {
                let due = self.due.first().map(|(at, _)| *at);
                due.into_iter().chain(self.checks.deadline()).chain(self.admin.next_deadline()).min()
            }
        }
    }

    /// What another path could break. Cheap enough for tests and for each commit, not for each event.
    pub fn invariants(&self) {
        assert_eq!(self.states.len(), self.table.state_count(), "one state per endpoint");
        assert_eq!(self.entries.len(), self.states.len(), "one entry per endpoint, none for removed ones");
        let waiting = self.entries.iter().filter_map(|(id, e)| e.health.due_ms().map(|at| (at, *id)));
        assert_eq!(waiting.collect::<BTreeSet<_>>(), self.due, "each endpoint that waits for a time is due once");
        self.checks.invariants();
        for (at, cluster) in self.table.clusters().iter().enumerate() {
            for (index, backend) in cluster.backends.iter().enumerate() {
                let entry = &self.entries[&backend.id];
                assert_eq!((entry.cluster, entry.index), (at, index), "an entry knows its place");
                let state = self.states[cluster.first_state + index];
                assert_eq!(state, self.state_of(backend.id), "states follow from their layers");
                assert!(state.weight > 0, "whatever may be picked has a weight");
                let wanted = cluster.policy.health.check.is_some() || matches!(entry.health, Health::Proving { .. });
                let probed = wanted && !self.is_in_maintenance(backend.id);
                assert_eq!(
                    self.checks.serves(&self.probe_key(backend.id), backend.id),
                    probed,
                    "who is to be probed is"
                );
            }
            let all_out = cluster.backends.iter().all(|b| self.is_out(b.id));
            assert!(all_out || self.up_count(cluster) > 0, "one of those that operators let serve is always up");
        }
        assert_eq!(self.settings.listeners, self.identities.listeners, "workers see the listeners that are open");
    }

    /// Puts a table in place: what stays keeps its entry, what is new is up, and each cluster has one that is up.
    fn install(&mut self, composed: Composed, now: u64) -> Vec<Note> {
        self.serial += 1;
        self.identities = composed.identities;
        let before = std::mem::replace(&mut self.table, composed.table);
        self.settings = composed.settings;
        self.install_admin();
        let mut old = std::mem::take(&mut self.entries);
        let table = self.table.clone();
        for (at, cluster) in table.clusters().iter().enumerate() {
            for (index, backend) in cluster.backends.iter().enumerate() {
                let mut entry = old.remove(&backend.id).unwrap_or_else(|| Entry::fresh(now));
                if before.clusters().get(entry.cluster).is_some_and(|was| !probed_alike(was, cluster)) {
                    entry.health.forget_probes();
                }
                (entry.cluster, entry.index) = (at, index);
                self.entries.insert(backend.id, entry);
            }
        }
        let ids = || table.clusters().iter().flat_map(|c| &c.backends).map(|b| b.id);
        self.states = ids().map(|id| self.state_of(id)).collect();
        self.due = self.entries.iter().filter_map(|(id, e)| e.health.due_ms().map(|at| (at, *id))).collect();
        let mut notes = Vec::new();
        for cluster in table.clusters() {
            notes.extend(self.keep_one_up(cluster, "the others of its cluster were removed", (self.epoch, now)));
        }
        self.subscribe_all(now);
        self.invariants();
        notes
    }

    /// Has everyone probed who is to be, and nobody else.
    fn subscribe_all(&mut self, now: u64) {
        self.checks.unsubscribe_all();
        let table = self.table.clone();
        table.clusters().iter().flat_map(|c| &c.backends).for_each(|b| self.subscribe(b.id, now));
        self.checks.sweep();
    }

    /// What is published of an endpoint, put together here and nowhere else: the operator's word goes before observed
    /// health, and the operator's weight before that of the config.
    fn state_of(&self, id: BackendId) -> State {
        let (cluster, index) = self.place(id);
        let (backend, health) = (&cluster.backends[index], self.entries[&id].health);
        let standing = self.admin.standing(&cluster.name, &backend.name).unwrap_or(health.observed());
        let weight = self.admin.weight(&cluster.name, &backend.name).unwrap_or(backend.weight);
        let state = State::new(standing, weight);
        match health {
            Health::Up { ramp: Some(ramp), .. } => {
                let share = u64::from(state.weight) * u64::from(ramp.step) / u64::from(SLOW_START_STEPS);
                State { weight: (share as u32).max(1), ..state }
            }
            _ => state,
        }
    }

    /// Brings the published state of an endpoint in line with its layers.
    fn refresh(&mut self, id: BackendId) {
        let entry = &self.entries[&id];
        let at = self.table.clusters()[entry.cluster].first_state + entry.index;
        let (was, is) = (self.states[at], self.state_of(id));
        if was.standing != is.standing {
            let (cluster, index) = self.place(id);
            cluster.backends[index].cells.flips[is.index()].fetch_add(1, Relaxed);
        }
        self.states[at] = is;
    }

    /// How an operator has put it out, if so.
    fn put_out(&self, id: BackendId) -> Option<health::Standing> {
        let (cluster, index) = self.place(id);
        self.admin.standing(&cluster.name, &cluster.backends[index].name)
    }

    fn is_out(&self, id: BackendId) -> bool {
        self.put_out(id).is_some()
    }

    fn is_in_maintenance(&self, id: BackendId) -> bool {
        self.put_out(id) == Some(health::Standing::Maint)
    }

    /// Of those that operators let serve one is up, whatever happens: a bad backend is better than none. Brings up the one
    /// that is nearest to its next probe, from this epoch on.
    fn keep_one_up(&mut self, cluster: &Cluster, why: &str, (epoch, now): (u64, u64)) -> Option<Note> {
        if self.up_count(cluster) > 0 {
            return None;
        }
        let serving = cluster.backends.iter().filter(|b| !self.is_out(b.id));
        let first = serving.min_by_key(|b| self.entries[&b.id].health.due_ms())?.id;
        Some(self.bring_up(first, why.to_owned(), (epoch, now), None))
    }

    /// The one place where an endpoint's health changes, and with it state and due time.
    fn stand(&mut self, id: BackendId, health: Health) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let was = std::mem::replace(&mut entry.health, health);
        self.refresh(id);
        if let Some(at) = was.due_ms() {
            self.due.remove(&(at, id));
        }
        if let Some(at) = health.due_ms() {
            self.due.insert((at, id));
        }
    }

    fn publish(&mut self) -> Action {
        self.epoch += 1;
        Action::Publish(self.snapshot())
    }

    /// Cluster of an endpoint that has an entry, and its index therein.
    fn place(&self, id: BackendId) -> (Arc<Cluster>, usize) {
        let entry = &self.entries[&id];
        (self.table.clusters()[entry.cluster].clone(), entry.index)
    }

    fn up_count(&self, cluster: &Cluster) -> usize {
        let states = &self.states[cluster.first_state..cluster.first_state + cluster.backends.len()];
        states.iter().filter(|s| s.is_up()).count()
    }

    fn note(&self, id: BackendId, what: What, why: String) -> Note {
        let (cluster, index) = self.place(id);
        let Backend { name, endpoint, .. } = &cluster.backends[index];
        Note { what, cluster: cluster.name.clone(), backend: name.clone(), endpoint: endpoint.clone(), why }
    }
}

/// Whether two clusters, or two states of one, probe in the same way and as often.
fn probed_alike(a: &Cluster, b: &Cluster) -> bool {
    let (a, b) = (&a.policy.health, &b.policy.health);
    a.probe == b.probe && a.check.map(|c| c.interval) == b.check.map(|c| c.interval)
}

/// The workers' tick at this time.
fn tick_of(now: u64) -> u32 {
    u32::try_from(now / TICK_MS).unwrap_or(u32::MAX)
}
