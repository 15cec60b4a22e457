//! What another config would change, by meaning: which requests go elsewhere, what clusters gain and lose, which settings
//! are others.
//!
//! Routes are compared class by class (`route::classes`), by the look-up that serves traffic; everything else by the
//! effective configs, all defaults filled in.

pub mod replay;
mod text;

use crate::config::differ::{KeyChange, differences};
use crate::config::{BackendPlan, Plan};
use crate::route::classes::classes;
use crate::route::table::{Route, RouteTable};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use replay::Replay;
pub use text::{json, text};

/// One of two configs.
#[derive(Debug)]
pub struct Side {
    /// What is to run.
    pub plan: Plan,
    /// Its routes, with every backend up.
    pub table: Arc<RouteTable>,
    /// The effective config.
    pub shown: Value,
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Diff {
    /// The requests that go to another cluster, or from or to nowhere.
    pub routes: Vec<RouteChange>,
    /// The clusters that come, go or are others, by name.
    pub clusters: BTreeMap<String, ClusterChange>,
    /// Listeners.
    pub listeners: Vec<KeyChange>,
    /// All other settings.
    pub settings: Vec<KeyChange>,
    /// Those of them that a running process keeps: it refuses a reload that changes them.
    pub restart: Vec<String>,
    /// Why a running process would refuse a reload with it, if it would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Against a running process: what is under way that the change concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub touched: Option<Touched>,
    /// What real requests would have met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

/// Requests that go elsewhere: those whose closest host pattern and longest path prefix, of both configs together, are
/// these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// `host/path`.
    pub class: String,
    /// The cluster so far; `None` is nowhere (404).
    pub was: Option<String>,
    /// The cluster from then on.
    pub is: Option<String>,
}

/// How a cluster changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterChange {
    /// `added`, `removed` or `changed`.
    pub what: String,
    /// Sum of the weights of its backends, backups not counted: before and after.
    pub capacity: (u64, u64),
    /// Backends that come, go or are others.
    pub backends: Vec<KeyChange>,
    /// What else is another of it.
    pub policy: Vec<KeyChange>,
    /// The classes of requests that it has before and after.
    pub classes: Vec<String>,
}

/// What is under way on what goes away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// Exchanges with backends that go away; they end there by themselves. No client connection is closed.
    pub exchanges: u64,
}

impl Diff {
    /// Whether anything is another.
    pub fn is_empty(&self) -> bool {
        let Diff { routes, clusters, listeners, settings, restart, .. } = self;
        routes.is_empty() && clusters.is_empty() && listeners.is_empty() && settings.is_empty() && restart.is_empty()
    }
}

/// Tells the exchanges that are with a backend now, by cluster and id.
pub type InFlight<'a> = &'a dyn Fn(&str, &str) -> u64;

/// What differs. `in_flight` is known of a running process.
pub fn diff(old: &Side, new: &Side, in_flight: Option<InFlight>) -> Diff {
    let mut routes = Vec::new();
    let mut kept: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let classes = classes(&old.table, &new.table);
    for class in &classes {
        let (was, is) = (cluster_of(class.was), cluster_of(class.is));
        match (was, is) {
            (Some(was), Some(is)) if was == is => kept.entry(is).or_default().push(class.name()),
            _ if was == is => {}
            _ => {
                routes.push(RouteChange { class: class.name(), was: was.map(str::to_owned), is: is.map(str::to_owned) })
            }
        }
    }
    let (was, is) = (&old.plan.clusters, &new.plan.clusters);
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let clusters: BTreeMap<String, ClusterChange> =
        names.into_iter().filter_map(|name| Some((name.clone(), cluster_change(old, new, name, &mut kept)?))).collect();
    let of = |side: &'_ Side, key: &str| side.shown.get(key).cloned();
    let (listeners_was, listeners_is) = (of(old, "listeners"), of(new, "listeners"));
    // What `defaults` says stands in every cluster that it holds for.
    let but = ["listeners", "clusters", "routes", "defaults", "$schema"];
    Diff {
        touched: in_flight.map(|in_flight| touched(&old.plan, &new.plan, in_flight)),
        routes,
        clusters,
        listeners: differences(&["listeners"], listeners_was.as_ref(), listeners_is.as_ref(), &[]),
        settings: differences(&[], Some(&old.shown), Some(&new.shown), &but),
        restart: Vec::new(),
        refused: None,
        replay: None,
    }
}

fn cluster_of(route: Option<&Route>) -> Option<&str> {
    route.map(|route| route.cluster.name.as_str())
}

fn cluster_change(old: &Side, new: &Side, name: &str, kept: &mut BTreeMap<&str, Vec<String>>) -> Option<ClusterChange> {
    fn of<'s>(side: &'s Side, name: &str) -> Option<&'s Value> {
        side.shown.get("clusters")?.get(name)
    }
    let (was, is) = (of(old, name), of(new, name));
    let at = ["clusters", name, "backends"];
    let backends = |side: Option<&Value>| side.map(|cluster| cluster["backends"].clone());
    // A cluster that comes or goes is told with its backends alone.
    let nothing = Value::Object(serde_json::Map::new());
    let both = was.is_some() && is.is_some();
    let backends =
        differences(&at, Some(&backends(was).unwrap_or(nothing.clone())), Some(&backends(is).unwrap_or(nothing)), &[]);
    let policy = if both { differences(&at[..2], was, is, &["backends"]) } else { Vec::new() };
    let capacity = |side: &Side| {
        let primaries =
            side.plan.clusters.get(name).into_iter().flat_map(|cluster| &cluster.backends).filter(|b| !b.backup);
        primaries.map(|backend| u64::from(backend.weight)).sum()
    };
    let what = match (was, is) {
        (None, Some(_)) => "added",
        (Some(_), None) => "removed",
        _ if backends.is_empty() && policy.is_empty() => return None,
        _ => "changed",
    };
    let classes = kept.remove(name).unwrap_or_default();
    Some(ClusterChange { what: what.to_owned(), capacity: (capacity(old), capacity(new)), backends, policy, classes })
}

fn touched(old: &Plan, new: &Plan, in_flight: InFlight) -> Touched {
    let stays = |cluster: &str, backend: &BackendPlan| {
        let same = |other: &&BackendPlan| other.name == backend.name && other.address == backend.address;
        new.clusters.get(cluster).is_some_and(|cluster| cluster.backends.iter().any(|other| same(&other)))
    };
    let all = old.clusters.iter().flat_map(|(name, cluster)| cluster.backends.iter().map(move |b| (name, b)));
    let gone = all.filter(|(cluster, backend)| !stays(cluster, backend));
    Touched { exchanges: gone.map(|(cluster, backend)| in_flight(cluster, &backend.name)).sum() }
}
