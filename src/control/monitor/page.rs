//! The status page: who waits for one, and what it shows, gathered on control's thread.
//!
//! Thousands of clusters are looked at, some of them are shown. One page is written in a turn, and the next only after a rest.

use super::Control;
use super::server::ClientId;
use crate::control::answers;
use crate::control::requests::unix_now;
use crate::limits;
use crate::publish::Snapshot;
use crate::route::balance::fails_open;
use crate::route::health::{Standing, State};
use crate::route::histogram::Durations;
use crate::route::table::Cluster;
use crate::route::waits::WaitCell;
use crate::status_page::{self, Asked, Counts, View};
use crate::supervisor;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Between two samples.
const SAMPLE: Duration = Duration::from_secs(1);

/// Clients that wait for a page, in the order of their coming; there are never more than clients.
#[derive(Debug, Default)]
pub(super) struct Pages {
    asked: VecDeque<(ClientId, Box<Asked>)>,
    rest_until: Option<Instant>,
}

impl Pages {
    pub(super) fn order(&mut self, client: ClientId, asked: Box<Asked>) {
        self.asked.push_back((client, asked));
    }

    /// The next to be served, unless it is time to rest.
    pub(super) fn next(&mut self, now: Instant) -> Option<(ClientId, Box<Asked>)> {
        if self.rest_until.is_some_and(|until| now < until) {
            return None;
        }
        self.asked.pop_front()
    }

    /// A page was written in this time.
    pub(super) fn took(&mut self, begin: Instant, end: Instant) {
        self.rest_until = Some(end + end.saturating_duration_since(begin) * limits::PAGE_REST);
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.asked.front().map(|_| self.rest_until.unwrap_or(now))
    }
}

/// How bad a cluster is; the worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// Nobody is up, or only one who fails, or it fails open, or its requests wait for an operator.
    Hurt,
    /// Some are down, or have no address, or requests wait.
    Thinned,
    /// Operators have taken some out.
    Meant,
    /// None.
    None,
}

impl Control {
    /// Once a second: what the plots are made of.
    pub(super) fn sample(&mut self, now: Instant) {
        if self.monitor.sampled.is_some_and(|at| now < at + SAMPLE) {
            return;
        }
        self.monitor.sampled = Some(now);
        let snapshot = self.publisher.current();
        if !snapshot.settings.status_page {
            return;
        }
        let counts = self.counts(&snapshot);
        self.monitor.history.add(counts, now.saturating_duration_since(self.began).as_micros() as u64);
    }

    fn counts(&self, snapshot: &Snapshot) -> Counts {
        let mut counts = Counts::default();
        let mut own = 0;
        for worker in &self.workers {
            counts.requests += worker.stats.exchanges.load(Relaxed);
            counts.errors += worker.stats.ends.classes[5].load(Relaxed);
            own += worker.stats.own_answers[1].load(Relaxed);
            counts.load_permille = counts.load_permille.max(worker.stats.load_permille.load(Relaxed));
        }
        let clusters = snapshot.table.clusters();
        if (snapshot.states.len() + clusters.len()) * self.workers.len() > limits::PAGE_CELLS_MAX {
            counts.errors = own;
            return counts;
        }
        let mut heads = Durations::default();
        for cluster in clusters {
            counts.errors += cluster.ends.all().iter().map(|ends| ends.classes[5].load(Relaxed)).sum::<u64>();
            let cells = cluster.backends.iter().flat_map(|backend| backend.cells.all());
            cells.for_each(|cell| cell.latency.read_into(&mut heads));
        }
        counts.heads = Some(heads);
        counts
    }

    /// The page as it is now.
    pub(super) fn page(&self, asked: &Asked) -> String {
        let snapshot = self.supervisor.snapshot();
        let mut endpoints = [0; 4];
        for state in snapshot.states.iter() {
            endpoints[state.index()] += 1;
        }
        let table = &snapshot.table;
        let mut found: Vec<(Trouble, &Arc<Cluster>)> =
            table.clusters().iter().map(|cluster| (self.trouble(cluster, &snapshot.states), cluster)).collect();
        let troubled = found.iter().filter(|(trouble, _)| *trouble < Trouble::Meant).count();
        found.retain(|(_, cluster)| cluster.name.contains(&asked.find));
        let fitting = found.len();
        found.sort_by(|(bad, one), (worse, other)| (bad, &one.name).cmp(&(worse, &other.name)));
        found.truncate(limits::PAGE_CLUSTERS);
        let shown = found.iter().map(|(_, cluster)| self.supervisor.cluster_status(cluster)).collect();
        let status = answers::status(&answers::Sources {
            status: &supervisor::Status {
                generation: snapshot.generation,
                epoch: snapshot.epoch,
                draining_since_ms: self.stopped_ms,
                clusters: shown,
            },
            workers: &self.workers,
            listeners: self.supervisor.listeners(),
            driver: self.origin.driver,
            since: self.origin.since,
            now_ms: self.now_ms(),
        });
        status_page::write(&View {
            status,
            order: found.iter().map(|(_, cluster)| cluster.name.clone()).collect(),
            clusters: (table.clusters().len(), fitting),
            troubled,
            endpoints,
            ready: self.publisher.is_ready(),
            refused: self.monitor.reloads.refused,
            history: &self.monitor.history,
            events: self.events.latest(limits::PAGE_EVENTS),
            asked,
            explained: asked.question().map(|question| self.explain(&question?)),
            now: unix_now(),
        })
    }

    fn trouble(&self, cluster: &Cluster, states: &[State]) -> Trouble {
        let states = states.get(cluster.first_state..cluster.first_state + cluster.backends.len()).unwrap_or_default();
        let count = |standing| states.iter().filter(|state| state.standing == standing).count();
        let up = count(Standing::Up);
        let waits = |cell: &WaitCell| cell.waiting.load(Relaxed) > 0;
        if up == 0
            || self.supervisor.pauses().contains_key(&cluster.name)
            || fails_open(cluster, states)
            || cluster.backends.iter().any(|backend| self.supervisor.is_kept_up(backend.id))
        {
            Trouble::Hurt
        } else if count(Standing::Down) > 0
            || cluster.waits.all().iter().any(waits)
            || !self.supervisor.unresolved(&cluster.name).is_empty()
        {
            Trouble::Thinned
        } else if up < states.len() {
            Trouble::Meant
        } else {
            Trouble::None
        }
    }
}
