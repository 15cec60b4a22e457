//! What the supervisor knows, for `ringway ctl status`. Plain data; whoever prints it reads the counters in the cells.

use super::{Health, Paused, Supervisor};
use crate::config::Address;
use crate::config::state::Override;
use crate::route::health::{self, Cells};
use crate::route::table::{Backend, Cluster};
use crate::route::waits::Waits;
use crate::route::{BackendId, ClusterId, Endpoint};
use std::sync::Arc;

/// All of it. Times are milliseconds since the process began.
#[derive(Clone, Debug)]
pub struct Status {
    /// Counts reloads.
    pub generation: u64,
    /// Counts publications.
    pub epoch: u64,
    /// When a drain began.
    pub draining_since_ms: Option<u64>,
    /// In the order of their names.
    pub clusters: Vec<ClusterStatus>,
}

/// One cluster.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// Identity.
    pub id: ClusterId,
    /// The operator's name.
    pub name: String,
    /// Its endpoints.
    pub backends: Vec<BackendStatus>,
    /// Its requests wait.
    pub paused: Option<Paused>,
    /// What the cores count of its requests that wait.
    pub waits: Arc<Waits>,
    /// Backends whose name could not be resolved at the latest attempt.
    pub unresolved: Vec<Unresolved>,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub struct BackendStatus {
    /// Identity.
    pub id: BackendId,
    /// The operator's id.
    pub name: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its weight.
    pub weight: u32,
    /// Exchanges that it may have at once; 0 is no limit.
    pub max_conns: u32,
    /// As published.
    pub state: health::Standing,
    /// As health alone would have it.
    pub observed: health::Standing,
    /// What operators have overruled.
    pub overrides: Vec<Override>,
    /// Since when.
    pub since_ms: u64,
    /// Why it is in this state.
    pub why: String,
    /// When it will be probed at the earliest; `None` if it is up and its cluster has no checks, or if a probe is under
    /// way.
    pub next_probe_ms: Option<u64>,
    /// A probe is under way.
    pub probing: bool,
    /// What the latest probe found.
    pub evidence: Option<String>,
    /// When and why it would have been held down, had it not been the last one up.
    pub kept_up: Option<(u64, String)>,
    /// What the cores count.
    pub cells: Arc<Cells>,
}

/// A backend whose name has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// The operator's id of the backend.
    pub backend: String,
    /// The name that was asked for.
    pub name: String,
    /// Why there is no answer.
    pub why: String,
    /// Addresses of an earlier answer, which are in use.
    pub addresses_kept: usize,
}

impl Supervisor {
    /// The state of everything.
    pub fn status(&self) -> Status {
        Status {
            generation: self.generation,
            epoch: self.epoch,
            draining_since_ms: self.drain.as_ref().map(|d| d.since_ms),
            clusters: self.table.clusters().iter().map(|cluster| self.cluster_status(cluster)).collect(),
        }
    }

    /// The state of a cluster of the current table.
    pub fn cluster_status(&self, cluster: &Cluster) -> ClusterStatus {
        ClusterStatus {
            id: cluster.id,
            name: cluster.name.clone(),
            backends: cluster.backends.iter().map(|b| self.backend_status(cluster, b)).collect(),
            paused: self.pauses().get(&cluster.name).cloned(),
            waits: cluster.waits.clone(),
            unresolved: self.unresolved(&cluster.name),
        }
    }

    /// Whether a backend fails and is up only because no other one of its cluster is.
    pub fn is_kept_up(&self, backend: BackendId) -> bool {
        self.entries.get(&backend).is_some_and(|entry| entry.kept_up.is_some())
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    fn backend_status(&self, cluster: &Cluster, backend: &Backend) -> BackendStatus {
        let entry = &self.entries[&backend.id];
        let (checked_ms, probing) = self.checks.state(&self.probe_key(backend.id));
        let next_probe_ms = match entry.health {
            Health::Held { until_ms } => Some(until_ms),
            _ => checked_ms,
        };
        BackendStatus {
            id: backend.id,
            name: backend.name.clone(),
            endpoint: backend.endpoint.clone(),
            weight: backend.weight,
            max_conns: backend.max_conns,
            state: self.state_of(backend.id).standing,
            observed: entry.health.observed(),
            overrides: self.admin.said(&cluster.name, &backend.name),
            since_ms: entry.since_ms,
            why: entry.why.clone(),
            next_probe_ms,
            probing,
            evidence: entry.evidence.clone(),
            kept_up: entry.kept_up.clone(),
            cells: backend.cells.clone(),
        }
    }

    /// Backends of a cluster whose name could not be resolved at the latest attempt.
    pub fn unresolved(&self, cluster: &str) -> Vec<Unresolved> {
        let backends = self.plan.clusters.get(cluster).map_or(&[][..], |c| &c.backends);
        let unresolved = backends.iter().filter_map(|backend| {
            let Address::Name(name, _) = &backend.address else { return None };
            let (why, kept) = match self.resolutions.get(name) {
                None => ("it was not resolved yet".to_owned(), 0),
                Some(known) => (known.failure.clone()?, known.addresses.len()),
            };
            Some(Unresolved { backend: backend.name.clone(), name: name.clone(), why, addresses_kept: kept })
        });
        unresolved.collect()
    }
}
