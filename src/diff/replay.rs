//! Requests of an access log against two configs: what share of them would go elsewhere.
//!
//! A line is made into a request again, as far as the log tells, and asked of the functions that serve traffic. Where the
//! request decides the backend (a cluster that hashes), both picks are compared. Elsewhere it is a matter of chance, and
//! counts with the probability that a backend picked by the new weights cannot be the one that it went to.

use super::{Diff, Side};
use crate::affinity;
use crate::explain;
use crate::http::head::{HeadScan, RequestHead, Scan};
use crate::route::balance::Balancer;
use crate::route::health::State;
use crate::route::table::{Balance, Cluster, Route};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// What real requests would have met. All backends count as up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Replay {
    /// Requests that the log has.
    pub requests: u64,
    /// Of those, led to another cluster.
    pub moved: u64,
    /// Led nowhere from now on.
    pub lost: u64,
    /// Led somewhere only from now on.
    pub gained: u64,
    /// With the same cluster, and another backend: where chance decides, the expected number.
    pub other_backend: f64,
    /// With a cluster that hashes by what the log does not tell; counted as if chance decided.
    pub without_key: u64,
    /// Share of all requests that would meet another backend, or none, or one for the first time.
    pub share: f64,
    /// Requests that are led elsewhere, by `host/path` of the rule that had them, the most first.
    pub most: Vec<(String, u64)>,
    /// Lines of requests that no config would route: malformed ones, health checks, other protocols.
    pub unrouted: u64,
}

/// Rules told in [`Replay::most`].
const MOST: usize = 20;

/// A log line, as far as it is of use.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    method: String,
    host: Option<String>,
    path: Option<String>,
    client: Option<IpAddr>,
    backend: Option<String>,
    key: Option<String>,
    reason: Option<String>,
}

/// Takes lines one by one.
pub struct Replayer<'s> {
    old: &'s Side,
    new: &'s Side,
    /// By cluster that stays and is another.
    changed: HashMap<&'s str, Changed<'s>>,
    /// All backends up.
    states: (Vec<State>, Vec<State>),
    most: BTreeMap<String, u64>,
    replay: Replay,
    head: RequestHead,
}

/// A cluster that stays and is another.
struct Changed<'s> {
    was: One<'s>,
    is: One<'s>,
}

/// One side of it.
struct One<'s> {
    cluster: &'s Cluster,
    balancer: Balancer,
    /// Of each backend that may be picked, by id.
    shares: BTreeMap<&'s str, f64>,
}

impl<'s> One<'s> {
    fn new(cluster: &'s Cluster) -> One<'s> {
        let primaries = cluster.backends.iter().any(|backend| !backend.backup);
        let may = || cluster.backends.iter().filter(|backend| backend.backup != primaries);
        let sum: f64 = may().map(|backend| f64::from(backend.weight)).sum();
        let mut shares = BTreeMap::new();
        may().for_each(|backend| *shares.entry(&backend.name[..]).or_default() += f64::from(backend.weight) / sum);
        One { cluster, balancer: Balancer::new(cluster, 0, 1), shares }
    }

    fn pick(&mut self, states: &[State], key: u64) -> Option<&'s str> {
        let (index, _) = explain::pick(self.cluster, states, Some(key), (&mut self.balancer, 1));
        self.cluster.backends.get(index?).map(|backend| &backend.name[..])
    }
}

impl<'s> Replayer<'s> {
    /// `diff` is that of these two.
    pub fn new(old: &'s Side, new: &'s Side, diff: &Diff) -> Replayer<'s> {
        let by_name = |side: &'s Side| side.table.clusters().iter().map(|c| (&c.name[..], &**c));
        let is: HashMap<&str, &Cluster> = by_name(new).collect();
        let stay = by_name(old).filter(|(name, _)| diff.clusters.contains_key(*name));
        let both = |(name, was): (&'s str, &'s Cluster)| {
            Some((name, Changed { was: One::new(was), is: One::new(is.get(name)?) }))
        };
        let changed = stay.filter_map(both).collect();
        let states = |side: &Side| {
            let backends = side.table.clusters().iter().flat_map(|cluster| &cluster.backends);
            backends.map(|backend| State::up(backend.weight)).collect()
        };
        Replayer {
            old,
            new,
            changed,
            states: (states(old), states(new)),
            most: BTreeMap::new(),
            replay: Replay::default(),
            head: RequestHead::default(),
        }
    }

    /// Takes a line of the log, as JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn line(&mut self, text: &str) -> Result<(), String> {
        let line: Line = serde_json::from_str(text).map_err(|e| format!("no line of a log in JSON: {e}"))?;
        let (Some(host), Some(path)) = (&line.host, &line.path) else {
            return Err("the line needs the fields host and path".to_owned());
        };
        let answered_anyway = matches!(line.reason.as_deref(), Some("HEALTH" | "OWN"));
        let Some((was, is, key)) = (!answered_anyway).then(|| self.routes(host, path, &line)).flatten() else {
            self.replay.unrouted += 1;
            return Ok(());
        };
        self.replay.requests += 1;
        let counter = match (was, is) {
            (None, None) => return Ok(()),
            (Some(was), Some(is)) if was.cluster.name == is.cluster.name => {
                self.stays(&was.cluster.name, key, line.backend.as_deref());
                return Ok(());
            }
            (Some(_), Some(_)) => &mut self.replay.moved,
            (Some(_), None) => &mut self.replay.lost,
            (None, Some(_)) => &mut self.replay.gained,
        };
        *counter += 1;
        let rule = was.or(is).map_or("", |route| &route.name);
        match self.most.get_mut(rule) {
            Some(count) => *count += 1,
            None => drop(self.most.insert(rule.to_owned(), 1)),
        }
        Ok(())
    }

    /// The routes of both sides, and the key; `None` if the request is malformed.
    fn routes(
        &mut self,
        host: &str,
        path: &str,
        line: &Line,
    ) -> Option<(Option<&'s Route>, Option<&'s Route>, Option<u64>)> {
        let method = if line.method.is_empty() { "GET" } else { &line.method };
        let bytes = match host {
            "" => format!("{method} {path} HTTP/1.0\r\n\r\n"),
            _ => format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        };
        let bytes = bytes.as_bytes();
        match HeadScan::default().request(bytes) {
            Ok(Scan::Complete(len)) if len == bytes.len() => {}
            _ => return None,
        }
        self.head.parse(bytes, self.old.plan.settings.underscores).ok()?;
        let (host, path) = (self.head.host.of(bytes), self.head.path.of(bytes));
        let (was, is) = (self.old.table.find(host, path), self.new.table.find(host, path));
        let told = line.key.as_deref().and_then(|key| u64::from_str_radix(key, 16).ok());
        let key = was.and_then(|was| affinity::key(&was.cluster.policy.balance, &self.head, bytes, line.client));
        Some((was, is, told.or(key)))
    }

    /// The cluster is the same by name.
    fn stays(&mut self, cluster: &str, key: Option<u64>, went_to: Option<&str>) {
        let Some(changed) = self.changed.get_mut(cluster) else { return };
        let hashes = |one: &One| {
            if let Balance::Hash(hash) = &one.cluster.policy.balance { Some(hash.by.clone()) } else { None }
        };
        let by = (hashes(&changed.was), hashes(&changed.is));
        if let (Some(was), Some(is)) = &by
            && was == is
        {
            match key {
                Some(key) => {
                    self.replay.other_backend += f64::from(u8::from(
                        changed.was.pick(&self.states.0, key) != changed.is.pick(&self.states.1, key),
                    ));
                    return;
                }
                None => self.replay.without_key += 1,
            }
        }
        let (was, is) = (&changed.was.shares, &changed.is.shares);
        let share = |of: &BTreeMap<&str, f64>, name: &str| of.get(name).copied().unwrap_or_default();
        self.replay.other_backend += match went_to {
            Some(name) if was.contains_key(name) => 1.0 - (share(is, name) / share(was, name)).min(1.0),
            _ => 1.0 - was.iter().map(|(name, share_was)| share_was.min(share(is, name))).sum::<f64>(),
        };
    }

    /// The sums.
    pub fn end(self) -> Replay {
        let mut most: Vec<(String, u64)> = self.most.into_iter().collect();
        most.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        most.truncate(MOST);
        let replay = self.replay;
        let elsewhere = (replay.moved + replay.lost + replay.gained) as f64 + replay.other_backend;
        let share = if replay.requests == 0 { 0.0 } else { elsewhere / replay.requests as f64 };
        Replay { share, most, ..replay }
    }
}
