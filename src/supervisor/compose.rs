//! From a plan to a table and settings, with identities that stay the same over reloads.

use super::Refusal;
use crate::config::{Address, BackendPlan, ClusterPlan, Listener, ListenerId, Plan, Settings};
use crate::limits::ADDRESSES_PER_NAME_MAX;
use crate::route::counts::ClusterEnds;
use crate::route::health::Cells;
use crate::route::table::{Backend, Cluster, NewRoute, RouteTable};
use crate::route::waits::Waits;
use crate::route::{BackendId, ClusterId, Endpoint};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What is known of the names of backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolutions {
    names: BTreeMap<String, Resolution>,
}

/// What is known of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Of the last good answer, ascending, without repetition, at most `limits::ADDRESSES_PER_NAME_MAX`.
    pub addresses: Vec<IpAddr>,
    /// Why the latest attempt failed, if it did.
    pub failure: Option<String>,
}

impl Resolutions {
    /// Takes in an answer. A failure, or an answer without addresses, keeps the last good ones. Whether the addresses
    /// have changed.
    pub fn record(&mut self, name: &str, answer: Result<Vec<IpAddr>, String>) -> bool {
        let known = self.names.entry(name.to_owned()).or_default();
        match answer {
            Ok(addresses) if !addresses.is_empty() => {
                let sorted: BTreeSet<IpAddr> = addresses.into_iter().collect();
                let addresses: Vec<IpAddr> = sorted.into_iter().take(ADDRESSES_PER_NAME_MAX).collect();
                known.failure = None;
                let changed = known.addresses != addresses;
                known.addresses = addresses;
                changed
            }
            Ok(_) => {
                known.failure = Some("the name has no address".to_owned());
                false
            }
            Err(why) => {
                known.failure = Some(why);
                false
            }
        }
    }

    /// What is known of this name.
    pub fn get(&self, name: &str) -> Option<&Resolution> {
        self.names.get(name)
    }

    /// Takes over all that `newer` knows, under the rule of `record`, and forgets names that are not in `wanted`.
    pub(super) fn merge(&mut self, newer: Resolutions, wanted: &BTreeSet<String>) {
        for (name, resolution) in newer.names {
            if !resolution.addresses.is_empty() {
                self.record(&name, Ok(resolution.addresses));
            }
            if let Some(why) = resolution.failure {
                self.record(&name, Err(why));
            }
        }
        self.names.retain(|name, _| wanted.contains(name));
    }
}

/// The names of backends in a plan: what to resolve before it is prepared, and from time to time later.
pub fn names_of(plan: &Plan) -> BTreeSet<String> {
    let backends = plan.clusters.values().flat_map(|c| &c.backends);
    backends.filter_map(|b| if let Address::Name(name, _) = &b.address { Some(name.clone()) } else { None }).collect()
}

/// Who is who. Numbers are given once and never again: a number that came back could reach a worker before the order to
/// forget its former owner does, and its pooled connections lead elsewhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Identities {
    pub(super) clusters: BTreeMap<String, (ClusterId, Arc<ClusterEnds>)>,
    pub(super) backends: FxHashMap<BackendKey, (BackendId, Arc<Cells>)>,
    pub(super) waits: FxHashMap<ClusterId, Arc<Waits>>,
    /// By [`ListenerId`]. A removed one stays a hole: connections that it accepted may still live.
    pub(super) listeners: Vec<Option<Listener>>,
    next_cluster: u32,
    next_backend: u32,
}

impl Identities {
    /// The number of the cluster of this name.
    pub(super) fn cluster(&self, name: &str) -> Option<ClusterId> {
        self.clusters.get(name).map(|(id, _)| *id)
    }
}

/// Cluster, backend id, endpoint.
pub(super) type BackendKey = (ClusterId, String, Endpoint);

/// A plan made ready to run.
#[derive(Debug)]
pub(super) struct Composed {
    pub(super) identities: Identities,
    pub(super) table: Arc<RouteTable>,
    pub(super) settings: Arc<Settings>,
}

/// Makes table and settings. What was there before, by `prior`, keeps its number and its cells.
pub(super) fn compose(
    plan: &Plan,
    resolutions: &Resolutions,
    prior: &Identities,
    cores: usize,
) -> Result<Composed, Refusal> {
    let mut identities = Identities {
        listeners: place_listeners(&plan.listeners, &prior.listeners),
        next_cluster: prior.next_cluster,
        next_backend: prior.next_backend,
        ..Identities::default()
    };
    let mut clusters: BTreeMap<&str, Arc<Cluster>> = BTreeMap::new();
    let mut list = Vec::with_capacity(plan.clusters.len());
    let mut first_state = 0;
    for (name, cluster_plan) in &plan.clusters {
        let (id, ends) = match prior.clusters.get(name) {
            Some(known) => known.clone(),
            None => (ClusterId(take(&mut identities.next_cluster)?), Arc::new(ClusterEnds::new(cores))),
        };
        identities.clusters.insert(name.clone(), (id, ends.clone()));
        let mut backends = Vec::with_capacity(cluster_plan.backends.len());
        for (plan, endpoint) in endpoints(cluster_plan, resolutions) {
            let key = (id, plan.name.clone(), endpoint.clone());
            let (backend, cells) = match prior.backends.get(&key) {
                Some(known) => known.clone(),
                None => (BackendId(take(&mut identities.next_backend)?), Arc::new(Cells::new(cores))),
            };
            identities.backends.insert(key, (backend, cells.clone()));
            backends.push(Backend {
                id: backend,
                name: plan.name.clone(),
                endpoint,
                weight: plan.weight.max(1),
                backup: plan.backup,
                max_conns: plan.max_conns,
                cells,
            });
        }
        let count = backends.len();
        let policy = cluster_plan.policy.clone();
        let waits = prior.waits.get(&id).cloned().unwrap_or_else(|| Arc::new(Waits::new(cores)));
        identities.waits.insert(id, waits.clone());
        let cluster = Arc::new(Cluster { id, name: name.clone(), backends, first_state, policy, ends, waits });
        first_state += count;
        clusters.insert(name, cluster.clone());
        list.push(cluster);
    }
    let mut routes = Vec::with_capacity(plan.routes.len());
    for (name, route) in &plan.routes {
        let Some(cluster) = clusters.get(route.cluster.as_str()) else {
            return Err(Refusal::NoCluster { route: name.clone(), cluster: route.cluster.clone() });
        };
        let (host, path) = (route.host.clone(), route.path.clone());
        routes.push(NewRoute { name: name.clone(), host, path, cluster: (*cluster).clone() });
    }
    let table = Arc::new(RouteTable::build(list, routes).map_err(Refusal::Routes)?);
    let settings = Arc::new(Settings { listeners: identities.listeners.clone(), ..plan.settings.clone() });
    Ok(Composed { identities, table, settings })
}

/// The endpoints of a cluster with their backends, in the operator's order; those of one name
/// ascending. A name without known address has none.
fn endpoints<'a>(plan: &'a ClusterPlan, resolutions: &'a Resolutions) -> Vec<(&'a BackendPlan, Endpoint)> {
    let mut list = Vec::with_capacity(plan.backends.len());
    for backend in &plan.backends {
        let mut push = |endpoint| list.push((backend, endpoint));
        match &backend.address {
            Address::Ip(address) => push(Endpoint::Ip(*address)),
            Address::Unix(path) => push(Endpoint::Unix(path.clone())),
            Address::Name(name, port) => {
                let addresses = resolutions.get(name).map_or(&[][..], |r| &r.addresses);
                addresses.iter().for_each(|ip| push(Endpoint::Ip(SocketAddr::new(*ip, *port))));
            }
        }
    }
    list
}

/// Those with a known name stay where they are, new ones come behind all others.
fn place_listeners(plan: &BTreeMap<String, Listener>, prior: &[Option<Listener>]) -> Vec<Option<Listener>> {
    let kept = |slot: &Option<Listener>| slot.as_ref().and_then(|l| plan.get(&l.name)).cloned();
    let mut slots: Vec<Option<Listener>> = prior.iter().map(kept).collect();
    let known: BTreeSet<&str> = prior.iter().flatten().map(|l| l.name.as_str()).collect();
    slots.extend(plan.values().filter(|l| !known.contains(l.name.as_str())).cloned().map(Some));
    slots
}

/// The listeners that are there, with their numbers.
pub(super) fn numbered(slots: &[Option<Listener>]) -> impl Iterator<Item = (ListenerId, &Listener)> {
    slots.iter().enumerate().filter_map(|(i, slot)| slot.as_ref().map(|l| (ListenerId(i as u32), l)))
}

fn take(next: &mut u32) -> Result<u32, Refusal> {
    let number = *next;
    *next = number.checked_add(1).ok_or(Refusal::Exhausted)?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_answer_is_kept() {
        let mut known = Resolutions::default();
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(known.record("n", Ok(vec![b, a, b])));
        assert!(!known.record("n", Ok(vec![a, b])));
        assert!(!known.record("n", Err("timed out".into())));
        assert!(!known.record("n", Ok(vec![])));
        assert_eq!(known.get("n").unwrap().addresses, [a, b]);
        assert!(known.get("n").unwrap().failure.is_some());
        assert!(known.record("n", Ok(vec![a])));
        assert_eq!(known.get("n").unwrap().failure, None);
        known.merge(Resolutions::default(), &BTreeSet::new());
        assert_eq!(known.get("n"), None);
    }

    #[test]
    fn an_answer_of_thousands_is_cut() {
        let mut known = Resolutions::default();
        let many = (0..5000u32).map(|i| IpAddr::from(i.to_be_bytes())).collect();
        assert!(known.record("n", Ok(many)));
        assert_eq!(known.get("n").unwrap().addresses.len(), ADDRESSES_PER_NAME_MAX);
    }
}
