//! What a reload changes, and why it may be refused.

use super::compose::{Identities, numbered};
use crate::config::{ControlAccess, ListenerId, Plan};
use crate::event::TakenAway;
use crate::route::table::BadRoute;
use crate::route::{BackendId, ClusterId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Why a plan is not taken over; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// These keys need a restart.
    Restart(Vec<&'static str>),
    /// Routes that cannot be in a table.
    Routes(Vec<BadRoute>),
    /// A route leads to a cluster that the plan does not have.
    NoCluster {
        /// The route's name.
        route: String,
        /// The cluster's.
        cluster: String,
    },
    /// The process drains.
    Draining,
    /// Four billion backends have come and gone: only a restart gives new numbers.
    Exhausted,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Restart(keys) => write!(f, "needs a restart, the running process keeps it: {}", keys.join(", ")),
            Refusal::Routes(bad) => {
                let bad: Vec<String> = bad.iter().map(BadRoute::to_string).collect();
                f.write_str(&bad.join("; "))
            }
            Refusal::NoCluster { route, cluster } => write!(f, "route {route:?}: there is no cluster {cluster:?}"),
            Refusal::Draining => f.write_str("the process is about to end"),
            Refusal::Exhausted => f.write_str("the process has run out of backend numbers; restart it"),
        }
    }
}

/// What is another after a commit, for messages and for the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Endpoints that are gone, for `ToWorker::Forget`.
    pub removed_backends: Vec<BackendId>,
    /// Clusters that are gone, for `ToWorker::Forget`.
    pub removed_clusters: Vec<ClusterId>,
    /// Listeners to close: removed, or with another address. To be sent before those to open: a listener with another
    /// address keeps its number and is in both.
    pub listeners_to_close: Vec<ListenerId>,
    /// Listeners to open: new, or with another address.
    pub listeners_to_open: Vec<ListenerId>,
    /// Names of clusters; changed are those with other backends, weights or policy.
    pub clusters: Names,
    /// Names of routes; changed are those that lead elsewhere.
    pub routes: Names,
    /// Names of listeners.
    pub listeners: Names,
    /// Some setting is another.
    pub settings: bool,
    /// Who may use the control socket, if that is another.
    pub control_access: Option<ControlAccess>,
    /// What no request is started on any more once every worker runs on the new table.
    pub taken_away: TakenAway,
    /// What is in `taken_away`, for people.
    pub labels: Labels,
}

/// Names of endpoints and clusters, for people: those that are gone have none in the table any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// `CLUSTER/ID (ENDPOINT)`.
    pub backends: BTreeMap<BackendId, String>,
    /// `CLUSTER`.
    pub clusters: BTreeMap<ClusterId, String>,
}

/// Names that came, went, or stand for something else now; each in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// New.
    pub added: Vec<String>,
    /// Gone.
    pub removed: Vec<String>,
    /// There before and after, but not the same.
    pub changed: Vec<String>,
}

impl Names {
    fn between<T: PartialEq>(old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) -> Names {
        let missing = |a: &BTreeMap<String, T>, b: &BTreeMap<String, T>| {
            a.keys().filter(|name| !b.contains_key(*name)).cloned().collect()
        };
        let changed = old.iter().filter(|(name, was)| new.get(*name).is_some_and(|is| is != *was));
        Names {
            added: missing(new, old),
            removed: missing(old, new),
            changed: changed.map(|(n, _)| n.clone()).collect(),
        }
    }
}

/// What differs between two plans and who is who in them. With no plan before, all is new.
pub(super) fn change(old: Option<&Plan>, new: &Plan, was: &Identities, is: &Identities) -> Change {
    let kept: BTreeSet<BackendId> = is.backends.values().map(|(id, _)| *id).collect();
    let mut removed_backends: Vec<_> =
        was.backends.values().map(|(id, _)| *id).filter(|id| !kept.contains(id)).collect();
    removed_backends.sort();
    let gone = was.clusters.iter().filter(|(name, _)| !is.clusters.contains_key(*name));
    let mut change =
        Change { removed_backends, removed_clusters: gone.map(|(_, (id, _))| *id).collect(), ..Change::default() };
    let address = |slots: &Identities, id: ListenerId| {
        slots.listeners.get(id.0 as usize).and_then(|l| l.as_ref()).map(|l| l.address.clone())
    };
    let moved = |id: &ListenerId| address(was, *id) != address(is, *id);
    change.listeners_to_close = numbered(&was.listeners).map(|(id, _)| id).filter(moved).collect();
    change.listeners_to_open = numbered(&is.listeners).map(|(id, _)| id).filter(moved).collect();
    let nothing =
        Plan { clusters: BTreeMap::new(), routes: BTreeMap::new(), listeners: BTreeMap::new(), ..new.clone() };
    let old = old.unwrap_or(&nothing);
    change.clusters = Names::between(&old.clusters, &new.clusters);
    change.routes = Names::between(&old.routes, &new.routes);
    change.listeners = Names::between(&old.listeners, &new.listeners);
    change.settings = old.settings != new.settings;
    let led_to = |route: &String| old.routes.get(route).and_then(|route| was.cluster(&route.cluster));
    change.taken_away = TakenAway {
        backends: change.removed_backends.iter().copied().collect(),
        clusters: change.removed_clusters.iter().copied().collect(),
        rerouted: change.routes.removed.iter().chain(&change.routes.changed).filter_map(led_to).collect(),
        epoch: 0,
        queued: true,
    };
    change.labels = labels(was, &change.taken_away);
    change.control_access = (old.control_access != new.control_access).then(|| new.control_access.clone());
    change
}

/// Names of all that is taken away, by who was who.
pub(super) fn labels(was: &Identities, away: &TakenAway) -> Labels {
    let names: BTreeMap<ClusterId, &String> = was.clusters.iter().map(|(name, (id, _))| (*id, name)).collect();
    let concerned = |id: &ClusterId| away.clusters.contains(id) || away.rerouted.contains(id);
    let mut labels = Labels::default();
    for ((cluster, backend, endpoint), (id, _)) in &was.backends {
        if away.backends.contains(id) || concerned(cluster) {
            let cluster = names.get(cluster).map_or("?", |name| name.as_str());
            labels.backends.insert(*id, format!("{cluster}/{backend} ({endpoint})"));
        }
    }
    labels.clusters = names.iter().filter(|(id, _)| concerned(id)).map(|(id, name)| (*id, (*name).clone())).collect();
    labels
}

/// Keys that differ and are fixed for the life of the process. A number of workers that says what already runs is none.
pub fn restart_keys(old: &Plan, new: &Plan, cores: usize) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if old.workers != new.workers && new.workers != Some(cores) {
        keys.push("workers");
    }
    if old.io != new.io {
        keys.push("io");
    }
    if old.control_socket != new.control_socket {
        keys.push("control.socket");
    }
    if old.state_file != new.state_file {
        keys.push("state_file");
    }
    keys
}
