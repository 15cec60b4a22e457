//! What is published of an endpoint: config, operators' words and observed health put together.

use super::{Action, Health, Note, Supervisor, tick_of};
use crate::limits::SLOW_START_STEPS;
use crate::route::BackendId;
use crate::route::health::State;
use crate::route::table::{Backend, Cluster};

impl Supervisor {
    /// What is published of an endpoint, from its three layers: the operator's word goes before observed health, and the
    /// operator's weight before that of the config. While it starts slowly, it gets a part of that weight.
    pub(super) fn state_of(&self, cluster: &Cluster, backend: &Backend) -> State {
        let health = self.entries[&backend.id].health;
        let standing = self.admin.standing(&cluster.name, &backend.name).unwrap_or(health.published());
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
    pub(super) fn refresh(&mut self, id: BackendId) {
        let (cluster, index) = self.place(id);
        self.states[cluster.first_state + index] = self.state_of(&cluster, &cluster.backends[index]);
    }

    /// Whether an operator has put it out.
    pub(super) fn is_out(&self, id: BackendId) -> bool {
        let (cluster, index) = self.place(id);
        self.admin.standing(&cluster.name, &cluster.backends[index].name).is_some()
    }

    /// Of those that operators let serve one is up, whatever happens: a bad backend is better than none. Brings up the one
    /// that is nearest to a probe.
    pub(super) fn keep_one_up(&mut self, cluster: &Cluster, why: &str, now: u64) -> Option<Note> {
        if self.up_count(cluster) > 0 {
            return None;
        }
        let serving = cluster.backends.iter().filter(|b| !self.is_out(b.id));
        let first = serving.min_by_key(|b| self.entries[&b.id].health.due_ms())?.id;
        Some(self.bring_up(first, why.to_owned(), now, None))
    }

    /// What the cells of an endpoint say until now does not count.
    pub(super) fn settle(&mut self, id: BackendId, now: u64) {
        let (cluster, index) = self.place(id);
        if let Some(entry) = self.entries.get_mut(&id) {
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

    /// The one place where an endpoint's health changes, and with it state and due time.
    pub(super) fn stand(&mut self, id: BackendId, health: Health) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let was = std::mem::replace(&mut entry.health, health);
        if let Some(at) = was.due_ms() {
            self.due.remove(&(at, id));
        }
        if let Some(at) = health.due_ms() {
            self.due.insert((at, id));
        }
        self.refresh(id);
    }

    pub(super) fn up_count(&self, cluster: &Cluster) -> usize {
        let states = &self.states[cluster.first_state..cluster.first_state + cluster.backends.len()];
        states.iter().filter(|s| s.is_up()).count()
    }
}
