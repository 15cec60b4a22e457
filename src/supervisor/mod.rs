//! Pure: (event, now) to actions. Hold-downs, probes, reload, drain.
//!
//! Owned by the control thread, which brings the events and carries out the actions. All times are milliseconds since the
//! process began (the workers' ticks count seconds from about the same moment).
//!
//! An endpoint is up until a look at its cells finds a fault. Then it is down: it takes no traffic and is left alone for
//! `limits::HOLD_DOWN_SECONDS`. Then it is probed (still down); a good probe makes it up again, a bad one or none holds
//! it down once more for as long. Faults found while it is down change nothing: one mark never extends another. The last
//! endpoint of a cluster that is up is never held down, because a bad backend is better than none: the fault is noted,
//! and only new ones count when another has come back.
//!
//! A reload is prepared (all checks, nothing changed), then the caller opens sockets, then it is committed or dropped.
//! What stays keeps its number, its cells and its state.

mod admin;
mod change;
mod compose;
#[cfg(test)]
mod simulation;
mod status;
#[cfg(test)]
mod tests;

pub use admin::{Administered, Paused, Whose};
pub use change::{Change, Labels, Names, Refusal};
pub use compose::{Resolution, Resolutions, names_of};
pub use status::{BackendStatus, ClusterStatus, Status, Unresolved};

use crate::config::command::Level;
use crate::config::{Listener, ListenerId, Plan, Settings};
use crate::limits::{DRAIN_GRACE_SECONDS, HOLD_DOWN_SECONDS, PROBE_LOST_MS, PROBE_TIMEOUT_MS, PROBES_MAX, TICK_MS};
use crate::publish::Snapshot;
use crate::route::health::{self, Judge, State};
use crate::route::table::{Backend, Cluster, RouteTable};
use crate::route::{BackendId, ClusterId, Endpoint};
use admin::Admin;
use compose::{Composed, Identities};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

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
    /// The drain is over: end the process.
    Stop {
        /// Connections that were cut, over all cores.
        cut: u64,
        /// Cores that have not answered.
        missing: usize,
    },
}

/// One recovery probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which endpoint.
    pub backend: BackendId,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Path to ask for with GET; `None`: a connect is enough.
    pub path: Option<String>,
    /// Milliseconds it may take.
    pub timeout_ms: u64,
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
    /// When something has to happen to an endpoint that is not up; exactly one entry for each of those.
    due: BTreeSet<(u64, BackendId)>,
    probing: usize,
    admin: Admin,
    paused: Arc<[ClusterId]>,
    drain: Option<Drain>,
}

/// What is known of one endpoint, and where it stands in the table.
#[derive(Clone, Debug)]
struct Entry {
    cluster: usize,
    index: usize,
    standing: Standing,
    since_ms: u64,
    why: String,
    /// A fault that was not acted upon, since this was the last one up.
    kept_up: Option<(u64, String)>,
    judge: Judge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Up,
    /// Left alone until then.
    Down {
        probe_ms: u64,
    },
    /// A probe is under way; without verdict until then it counts as bad.
    Probing {
        lost_ms: u64,
    },
}

impl Standing {
    fn due_ms(self) -> Option<u64> {
        match self {
            Standing::Up => None,
            Standing::Down { probe_ms: at } | Standing::Probing { lost_ms: at } => Some(at),
        }
    }

    fn published(self) -> health::Standing {
        if self == Standing::Up { health::Standing::Up } else { health::Standing::Down }
    }
}

#[derive(Debug)]
struct Drain {
    since_ms: u64,
    until_ms: u64,
    drained: Vec<bool>,
    cut: u64,
    stopped: bool,
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
            probing: 0,
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

    /// A core reported something about this endpoint: looks at its cells. Endpoints that are gone, and such that are
    /// down already, are let be.
    pub fn look(&mut self, backend: BackendId, now: u64) -> Vec<Action> {
        self.look_at([backend], now)
    }

    /// Looks at all endpoints: when reports may have been lost (`CoreStats::look_at_all`).
    pub fn look_at_all(&mut self, now: u64) -> Vec<Action> {
        let all: Vec<BackendId> = self.table.clusters().iter().flat_map(|c| &c.backends).map(|b| b.id).collect();
        self.look_at(all, now)
    }

    /// What is due: probes, verdicts that never came, the end of a drain. To be called about each second, or at
    /// [`Supervisor::next_deadline`].
    pub fn tick(&mut self, now: u64) -> Vec<Action> {
        if self.drain.is_some() {
            return self.drain_over(now);
        }
        let mut actions = self.expire_admin(now);
        let due: Vec<BackendId> = self.due.range(..=(now, BackendId(u32::MAX))).map(|(_, id)| *id).collect();
        for id in due {
            match self.entries[&id].standing {
                Standing::Up => {}
                Standing::Probing { .. } => {
                    actions.extend(self.probe_result(id, Err("the probe gave no verdict".to_owned()), now));
                }
                Standing::Down { .. } if self.is_out(id) => {
                    self.stand(id, Standing::Down { probe_ms: now + HOLD_DOWN_SECONDS * 1000 });
                }
                Standing::Down { .. } if self.probing < PROBES_MAX => {
                    self.stand(id, Standing::Probing { lost_ms: now + PROBE_LOST_MS });
                    let (cluster, index) = self.place(id);
                    actions.push(Action::Probe(Probe {
                        backend: id,
                        endpoint: cluster.backends[index].endpoint.clone(),
                        path: cluster.policy.probe_path.clone(),
                        timeout_ms: PROBE_TIMEOUT_MS,
                    }));
                }
                Standing::Down { .. } => self.stand(id, Standing::Down { probe_ms: now + TICK_MS }),
            }
        }
        actions
    }

    /// The verdict of a probe. One that nobody waits for any more is let be.
    pub fn probe_result(&mut self, backend: BackendId, verdict: Result<(), String>, now: u64) -> Vec<Action> {
        let probing = |e: &Entry| matches!(e.standing, Standing::Probing { .. });
        if self.drain.is_some() || !self.entries.get(&backend).is_some_and(probing) {
            return Vec::new();
        }
        match verdict {
            Ok(()) => {
                let note = self.bring_up(backend, "a probe was answered".to_owned(), now);
                vec![self.publish(), Action::Log(note)]
            }
            Err(why) => {
                self.stand(backend, Standing::Down { probe_ms: now + HOLD_DOWN_SECONDS * 1000 });
                vec![Action::Log(self.note(backend, What::StillDown, format!("probe: {why}")))]
            }
        }
    }

    /// When [`Supervisor::tick`] has something to do at the earliest.
    pub fn next_deadline(&self) -> Option<u64> {
        match &self.drain {
            Some(drain) if drain.stopped => None,
            Some(drain) => Some(drain.until_ms),
            None => self.due.first().map(|(at, _)| *at).into_iter().chain(self.admin.next_deadline()).min(),
        }
    }

    /// Begins to end the process: no reload, mark or probe from here on. Returns the seconds the workers get
    /// (`ToWorker::Drain`); `None` if it has begun before.
    pub fn drain(&mut self, now: u64) -> Option<u32> {
        if self.drain.is_some() {
            return None;
        }
        let seconds = self.settings.drain_timeout;
        let until_ms = now + (u64::from(seconds) + DRAIN_GRACE_SECONDS) * 1000;
        let drained = vec![false; self.cores];
        self.drain = Some(Drain { since_ms: now, until_ms, drained, cut: 0, stopped: false });
        Some(seconds)
    }

    /// A core has ended its last connection, after cutting so many.
    pub fn drained(&mut self, core: usize, cut: u32, now: u64) -> Vec<Action> {
        let Some(drain) = &mut self.drain else { return Vec::new() };
        if let Some(drained) = drain.drained.get_mut(core)
            && !std::mem::replace(drained, true)
        {
            drain.cut += u64::from(cut);
        }
        self.drain_over(now)
    }

    /// What another path could break. Cheap enough for tests and for each commit, not for each event.
    pub fn invariants(&self) {
        assert_eq!(self.states.len(), self.table.state_count(), "one state per endpoint");
        assert_eq!(self.entries.len(), self.states.len(), "one entry per endpoint, none for removed ones");
        let waiting = self.entries.iter().filter_map(|(id, e)| e.standing.due_ms().map(|at| (at, *id)));
        assert_eq!(waiting.collect::<BTreeSet<_>>(), self.due, "each endpoint that is not up is due once");
        let probing = self.entries.values().filter(|e| matches!(e.standing, Standing::Probing { .. })).count();
        assert_eq!(probing, self.probing, "probes under way are counted");
        assert!(probing <= PROBES_MAX, "probes are bounded");
        for (at, cluster) in self.table.clusters().iter().enumerate() {
            for (index, backend) in cluster.backends.iter().enumerate() {
                let entry = &self.entries[&backend.id];
                assert_eq!((entry.cluster, entry.index), (at, index), "an entry knows its place");
                let state = self.states[cluster.first_state + index];
                assert_eq!(state, self.state_of(cluster, backend), "states follow from their layers");
                assert!(state.weight > 0, "whatever may be picked has a weight");
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
        self.table = composed.table;
        self.settings = composed.settings;
        let mut old = std::mem::take(&mut self.entries);
        self.states.clear();
        self.install_admin();
        let table = self.table.clone();
        for (at, cluster) in table.clusters().iter().enumerate() {
            for (index, backend) in cluster.backends.iter().enumerate() {
                let mut entry = old.remove(&backend.id).unwrap_or_else(|| Entry::fresh(now));
                (entry.cluster, entry.index) = (at, index);
                self.entries.insert(backend.id, entry);
                self.states.push(self.state_of(cluster, backend));
            }
        }
        self.due = self.entries.iter().filter_map(|(id, e)| e.standing.due_ms().map(|at| (at, *id))).collect();
        self.probing = self.entries.values().filter(|e| matches!(e.standing, Standing::Probing { .. })).count();
        let mut notes = Vec::new();
        for cluster in table.clusters() {
            notes.extend(self.keep_one_up(cluster, "the others of its cluster were removed", now));
        }
        self.invariants();
        notes
    }

    /// What is published of an endpoint, from its three layers: the operator's word goes before observed health, and the
    /// operator's weight before that of the config.
    fn state_of(&self, cluster: &Cluster, backend: &Backend) -> State {
        let observed = self.entries[&backend.id].standing.published();
        let standing = self.admin.standing(&cluster.name, &backend.name).unwrap_or(observed);
        State::new(standing, self.admin.weight(&cluster.name, &backend.name).unwrap_or(backend.weight))
    }

    /// Brings the published state of an endpoint in line with its layers.
    fn refresh(&mut self, id: BackendId) {
        let (cluster, index) = self.place(id);
        self.states[cluster.first_state + index] = self.state_of(&cluster, &cluster.backends[index]);
    }

    /// Whether an operator has put it out.
    fn is_out(&self, id: BackendId) -> bool {
        let (cluster, index) = self.place(id);
        self.admin.standing(&cluster.name, &cluster.backends[index].name).is_some()
    }

    /// Of those that operators let serve one is up, whatever happens: a bad backend is better than none. Brings up the one
    /// that would be probed next.
    fn keep_one_up(&mut self, cluster: &Cluster, why: &str, now: u64) -> Option<Note> {
        if self.up_count(cluster) > 0 {
            return None;
        }
        let serving = cluster.backends.iter().filter(|b| !self.is_out(b.id));
        let first = serving.min_by_key(|b| self.entries[&b.id].standing.due_ms())?.id;
        Some(self.bring_up(first, why.to_owned(), now))
    }

    /// What the cells of an endpoint say until now does not count.
    fn settle(&mut self, id: BackendId) {
        let (cluster, index) = self.place(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.judge.settle(cluster.backends[index].cells.all());
        }
    }

    /// Has the endpoints of a backend that are held down probed now.
    fn probe_soon(&mut self, cluster: &str, backend: &str, now: u64) -> Vec<Action> {
        for id in self.endpoint_ids(cluster, backend) {
            if matches!(self.entries[&id].standing, Standing::Down { .. }) {
                self.stand(id, Standing::Down { probe_ms: now });
            }
        }
        self.tick(now)
    }

    fn look_at(&mut self, backends: impl IntoIterator<Item = BackendId>, now: u64) -> Vec<Action> {
        let mut notes = Vec::new();
        for id in backends {
            notes.extend(self.look_at_one(id, now));
        }
        let mut actions = Vec::with_capacity(notes.len() + 1);
        if notes.iter().any(|n| n.what == What::Down) {
            actions.push(self.publish());
        }
        actions.extend(notes.into_iter().map(Action::Log));
        actions
    }

    fn look_at_one(&mut self, id: BackendId, now: u64) -> Option<Note> {
        if self.drain.is_some() || !self.entries.contains_key(&id) {
            return None;
        }
        let (cluster, index) = self.place(id);
        let (others_up, on_timeout) = (self.up_count(&cluster) > 1, cluster.policy.on_timeout);
        let cells = cluster.backends[index].cells.all();
        // Before the cells are read: what a core writes from here on, it reports again.
        for cell in cells {
            cell.reported.swap(0, SeqCst);
        }
        let out = self.is_out(id);
        let entry = self.entries.get_mut(&id)?;
        if entry.standing != Standing::Up || out {
            return None;
        }
        let fault = entry.judge.look(cells, on_timeout, tick_of(now))?;
        let why = fault.to_string();
        if others_up {
            entry.kept_up = None;
            (entry.since_ms, entry.why) = (now, why.clone());
            self.stand(id, Standing::Down { probe_ms: now + HOLD_DOWN_SECONDS * 1000 });
            return Some(self.note(id, What::Down, why));
        }
        entry.judge.settle(cells);
        // A backend that keeps failing is told of as often as it would be if it could be held down.
        let told = entry.kept_up.as_ref().is_some_and(|(at, _)| now < at + HOLD_DOWN_SECONDS * 1000);
        if told {
            return None;
        }
        entry.kept_up = Some((now, why.clone()));
        Some(self.note(id, What::KeptUp, why))
    }

    /// Up again, with a clean slate: what the cells say until now does not count. The others of its cluster may be
    /// held down from here on.
    fn bring_up(&mut self, id: BackendId, why: String, now: u64) -> Note {
        self.stand(id, Standing::Up);
        let (cluster, index) = self.place(id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.judge.settle_well(cluster.backends[index].cells.all(), tick_of(now));
            (entry.since_ms, entry.why) = (now, why.clone());
        }
        for backend in &cluster.backends {
            if let Some(entry) = self.entries.get_mut(&backend.id) {
                entry.kept_up = None;
            }
        }
        self.note(id, What::Up, why)
    }

    /// The one place where a standing changes, and with it state, due time and the count of probes.
    fn stand(&mut self, id: BackendId, standing: Standing) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let was = std::mem::replace(&mut entry.standing, standing);
        if let Some(at) = was.due_ms() {
            self.due.remove(&(at, id));
        }
        if let Some(at) = standing.due_ms() {
            self.due.insert((at, id));
        }
        let probes = |s: Standing| usize::from(matches!(s, Standing::Probing { .. }));
        self.probing = self.probing + probes(standing) - probes(was);
        self.refresh(id);
    }

    fn publish(&mut self) -> Action {
        self.epoch += 1;
        Action::Publish(self.snapshot())
    }

    fn drain_over(&mut self, now: u64) -> Vec<Action> {
        let Some(drain) = &mut self.drain else { return Vec::new() };
        let missing = drain.drained.iter().filter(|d| !**d).count();
        if drain.stopped || (missing > 0 && now < drain.until_ms) {
            return Vec::new();
        }
        drain.stopped = true;
        vec![Action::Stop { cut: drain.cut, missing }]
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

impl Entry {
    fn fresh(now: u64) -> Entry {
        Entry {
            cluster: 0,
            index: 0,
            standing: Standing::Up,
            since_ms: now,
            why: "it is new".to_owned(),
            kept_up: None,
            judge: Judge::default(),
        }
    }
}

/// The workers' tick at this time.
fn tick_of(now: u64) -> u32 {
    u32::try_from(now / TICK_MS).unwrap_or(u32::MAX)
}
