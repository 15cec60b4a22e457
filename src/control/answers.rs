//! What control knows, in the words of the control protocol.

use super::WorkerLink;
use crate::access_log;
use crate::config::answer::{self, Answer, Code, Error};
use crate::config::orders::Wish;
use crate::config::receipt::{self, Left};
use crate::config::state::Override;
use crate::config::stories;
use crate::config::{Address, Listener, ListenerId, command};
use crate::event::CoreStats;
use crate::explain::Note;
use crate::limits;
use crate::malformed::Side;
use crate::parse;
use crate::publish::Snapshot;
use crate::route::health::{CoreCell, Standing};
use crate::route::waits::WaitCell;
use crate::stories::{Attempt, Story};
use crate::supervisor::{self, BackendStatus, Change};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The line that greets a client.
pub(super) fn hello() -> Vec<u8> {
    let mut line = serde_json::to_vec(&command::Hello::new()).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The line for a client that is dropped.
pub(super) fn refusal(why: &str) -> Vec<u8> {
    Answer::error(None, Error::new(Code::Failed, why)).to_line().into_bytes()
}

/// Names by kind and by what happened to them; what did not change is left out.
pub(super) fn changed(change: &Change) -> BTreeMap<String, Vec<String>> {
    let mut changed = BTreeMap::new();
    for (kind, names) in [("clusters", &change.clusters), ("routes", &change.routes), ("listeners", &change.listeners)]
    {
        for (what, names) in [("added", &names.added), ("removed", &names.removed), ("changed", &names.changed)] {
            if !names.is_empty() {
                changed.insert(format!("{kind}_{what}"), names.clone());
            }
        }
    }
    changed
}

/// The answer to `routes`.
pub(super) fn routes(snapshot: &Snapshot) -> receipt::Routes {
    let routes = snapshot.table.routes().iter().map(|route| (route.name.clone(), route.cluster.name.clone()));
    receipt::Routes { generation: snapshot.generation, routes: routes.collect() }
}

/// The answer to `errors`; `bytes` are those of the refused messages.
pub(super) fn errors(workers: &[WorkerLink], bytes: bool) -> receipt::Errors {
    let mut errors: Vec<receipt::Failed> = Vec::new();
    for (core, worker) in workers.iter().enumerate() {
        errors.extend(worker.stats.stories.failed().iter().map(|story| receipt::Failed {
            at: story.unix,
            core,
            client: story.client.map(|client| client.to_string()),
            method: story.method.clone(),
            host: story.host.clone(),
            path: story.path.clone(),
            status: story.status,
            reason: story.reason.to_owned(),
            detail: story.detail.to_owned(),
            cluster: story.cluster.clone(),
            backend: story.backend.clone(),
            request_id: (!story.request_id.is_empty()).then(|| story.request_id.clone()),
        }));
    }
    // Stable: those of one core and second stay in their order.
    errors.sort_by_key(|one| one.at);
    errors.reverse();
    receipt::Errors {
        errors,
        total: workers.iter().map(|worker| worker.stats.stories.total()).sum(),
        malformed: malformed(workers, bytes),
        malformed_total: workers.iter().map(|worker| worker.stats.malformed.total()).sum(),
    }
}

/// The answer to `why`: the stories of this X-Request-Id, or without one the latest, the newest first.
pub(super) fn why(workers: &[WorkerLink], request_id: Option<&str>) -> stories::Why {
    let mut found: Vec<(usize, Arc<Story>)> = Vec::new();
    for (core, worker) in workers.iter().enumerate() {
        let kept = worker.stats.stories.all().into_iter();
        let asked = kept.filter(|story| request_id.is_none_or(|id| story.request_id.eq_ignore_ascii_case(id)));
        found.extend(asked.map(|story| (core, story)));
    }
    found.sort_by_key(|(_, story)| std::cmp::Reverse(story.unix));
    found.truncate(limits::STORIES_ANSWERED);
    stories::Why { stories: found.iter().map(|(core, story)| told(*core, story)).collect() }
}

fn told(core: usize, story: &Story) -> stories::Story {
    let attempt = |attempt: &Attempt| stories::Attempt {
        backend: attempt.backend.clone(),
        endpoint: attempt.endpoint.clone(),
        reused: attempt.reused,
        took_us: attempt.took_us,
        handed: attempt.handed,
        acknowledged: attempt.carried.map(|carried| carried.acknowledged),
        received: attempt.carried.map(|carried| carried.received),
        outcome: attempt.outcome.to_owned(),
        then: attempt.then.to_owned(),
    };
    stories::Story {
        at: story.unix,
        core,
        request_id: story.request_id.clone(),
        client: story.client.map(|client| client.to_string()),
        method: story.method.clone(),
        host: story.host.clone(),
        path: story.path.clone(),
        status: story.status,
        bytes: story.bytes,
        received: story.received,
        reason: story.reason.to_owned(),
        detail: story.detail.to_owned(),
        cluster: story.cluster.clone(),
        backend: story.backend.clone(),
        generation: story.generation,
        phases: story.phases.iter().map(|(name, us)| ((*name).to_owned(), *us)).collect(),
        attempts: story.attempts.iter().map(attempt).collect(),
    }
}

/// The latest messages that were refused, the newest first.
fn malformed(workers: &[WorkerLink], bytes: bool) -> Vec<receipt::Malformed> {
    let of = |(core, worker): (usize, &WorkerLink)| {
        worker.stats.malformed.latest().into_iter().map(move |message| (core, message))
    };
    let mut latest: Vec<_> = workers.iter().enumerate().flat_map(of).collect();
    latest.sort_by_key(|(_, message)| std::cmp::Reverse((message.unix, message.number)));
    let mut room = if bytes { limits::MALFORMED_ANSWER_BYTES_MAX } else { 0 };
    let shown = latest.into_iter().map(|(core, message)| {
        let kept = &message.kept;
        let fits = room.checked_sub(kept.bytes.len());
        // The oldest of them go without, not those in between that happen to be small.
        room = fits.unwrap_or(0);
        let (around, column) = parse::place(&kept.bytes, kept.at);
        receipt::Malformed {
            at: message.unix,
            core,
            number: message.number,
            side: if kept.side == Side::Client { "request" } else { "response" }.to_owned(),
            listener: message.listener.clone(),
            peer: message.peer.clone(),
            status: kept.status(),
            reason: kept.fault.name().to_owned(),
            clause: kept.fault.clause().to_owned(),
            detail: kept.fault.describe().to_owned(),
            offset: kept.at,
            around,
            column,
            masked: kept.masked,
            left_out: kept.left_out,
            partial: kept.partial,
            bytes: fits.map(|_| receipt::hex(&kept.bytes)),
            file: None,
        }
    });
    shown.collect()
}

/// A moment, by RFC 3339 in UTC.
pub(super) fn utc(unix_us: u64) -> String {
    let mut text = access_log::rfc3339(unix_us / 1_000_000);
    // In front of the Z.
    text.insert_str(text.len() - 1, &format!(".{:06}", unix_us % 1_000_000));
    text
}

/// What is left, in a few words.
pub(super) fn left(left: &Left) -> String {
    let counts = [
        (left.exchanges, "exchanges"),
        (left.tunnels, "tunnels"),
        (left.queued, "waiting requests"),
        (left.pooled, "idle connections"),
    ];
    let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    format!("{} on {} (worker {})", counts.join(", "), left.of, left.core)
}

/// What a status is made of.
pub(super) struct Sources<'a> {
    /// The supervisor's part.
    pub status: &'a supervisor::Status,
    /// The workers' counters.
    pub workers: &'a [WorkerLink],
    /// Those of now.
    pub listeners: Vec<(ListenerId, &'a Listener)>,
    /// Name of the driver.
    pub driver: &'static str,
    /// Begin of the process, seconds since 1970.
    pub since: u64,
    /// Milliseconds since then.
    pub now_ms: u64,
}

/// The answer to `status`.
pub(super) fn status(sources: &Sources) -> answer::Status {
    let mut status = answer::Status::new();
    status.generation = sources.status.generation;
    status.epoch = sources.status.epoch;
    status.since = sources.since;
    status.uptime = sources.now_ms / 1000;
    status.driver = sources.driver.to_owned();
    status.draining = sources.status.draining_since_ms.is_some();
    status.workers = sources.workers.iter().enumerate().map(|(core, link)| worker(core, &link.stats)).collect();
    status.counters = counters(sources.workers);
    for (_, listener) in &sources.listeners {
        let address = match &listener.address {
            Address::Ip(address) => address.to_string(),
            Address::Name(name, port) => format!("{name}:{port}"),
            Address::Unix(path) => format!("unix:{}", path.display()),
        };
        status.listeners.insert(listener.name.clone(), answer::ListenerStatus { address });
    }
    for cluster in &sources.status.clusters {
        let sum = |counter: fn(&WaitCell) -> &AtomicU64| {
            cluster.waits.all().iter().map(|cell| counter(cell).load(Relaxed)).sum()
        };
        let mut shown = answer::ClusterStatus {
            paused: cluster.paused.as_ref().map(|pause| answer::Pause {
                since: pause.since,
                until: pause.until,
                who: pause.who.clone(),
                why: pause.why.clone(),
            }),
            queued: cluster.waits.all().iter().map(|cell| u64::from(cell.waiting.load(Relaxed))).sum(),
            waited: sum(|cell| &cell.waited),
            queue_full: sum(|cell| &cell.overflowed),
            queue_timeouts: sum(|cell| &cell.timed_out),
            retries_refused: sum(|cell| &cell.retries_refused),
            ..answer::ClusterStatus::default()
        };
        for one in &cluster.backends {
            // A name with several addresses is several endpoints of one id.
            let alone = cluster.backends.iter().filter(|other| other.name == one.name).count() == 1;
            let key = if alone { one.name.clone() } else { format!("{}@{}", one.name, one.endpoint) };
            shown.backends.insert(key, backend(one, sources.since));
        }
        shown.unresolved =
            cluster.unresolved.iter().map(|u| (u.backend.clone(), format!("{}: {}", u.name, u.why))).collect();
        status.clusters.insert(cluster.name.clone(), shown);
    }
    for cluster in status.clusters.values() {
        let counts = [
            ("queued", cluster.queued),
            ("waited", cluster.waited),
            ("queue_full", cluster.queue_full),
            ("queue_timeouts", cluster.queue_timeouts),
            ("retries_refused", cluster.retries_refused),
        ];
        counts.into_iter().for_each(|(name, n)| *status.counters.entry(name.to_owned()).or_default() += n);
    }
    status
}

fn worker(core: usize, stats: &CoreStats) -> answer::Worker {
    let turns = stats.turns.load();
    answer::Worker {
        core,
        epoch: stats.epoch.load(Relaxed),
        connections: stats.connections.load(Relaxed),
        idle: stats.idle.load(Relaxed),
        exchanges: stats.exchanges.load(Relaxed),
        accepted: stats.accepted.load(Relaxed),
        load_permille: stats.load_permille.load(Relaxed),
        busy_permille: stats.busy_permille.load(Relaxed),
        lag_us: stats.late_us.load(Relaxed),
        handed_out: stats.handed_out.load(Relaxed),
        handed_in: stats.handed_in.load(Relaxed),
        moved_out: stats.moved_out.load(Relaxed),
        moved_in: stats.moved_in.load(Relaxed),
        pooled: stats.pooled.load(Relaxed),
        buffers: stats.buffers.load(Relaxed),
        busy: stats.busy.load(Relaxed),
        pipes: stats.pipes.load(Relaxed),
        longest_turn_us: turns.longest_us,
        turns_over_5ms: turns.over(5_000),
    }
}

fn counters(workers: &[WorkerLink]) -> BTreeMap<String, u64> {
    type Counter = fn(&CoreStats) -> &AtomicU64;
    let counters: [(&str, Counter); 15] = [
        ("accepted", |s| &s.accepted),
        ("connections", |s| &s.connections),
        ("idle", |s| &s.idle),
        ("exchanges", |s| &s.exchanges),
        ("own_answers_4xx", |s| &s.own_answers[0]),
        ("own_answers_5xx", |s| &s.own_answers[1]),
        ("retries", |s| &s.retries),
        ("pooled", |s| &s.pooled),
        ("connects", |s| &s.connects),
        ("log_dropped", |s| &s.log_dropped),
        ("log_sampled_out", |s| &s.log_sampled_out),
        ("accept_failures", |s| &s.accept_failures),
        ("panics", |s| &s.panics),
        ("buffers", |s| &s.buffers),
        ("epoch_oldest", |s| &s.epoch),
    ];
    let mut sums: BTreeMap<String, u64> = counters
        .iter()
        .map(|(name, counter)| ((*name).to_owned(), workers.iter().map(|w| counter(&w.stats).load(Relaxed)).sum()))
        .collect();
    let oldest = workers.iter().map(|w| w.stats.epoch.load(Relaxed)).min().unwrap_or(0);
    sums.insert("epoch_oldest".to_owned(), oldest);
    sums
}

/// What is known of a backend's state, by whoever decided it: an operator, or health.
pub(super) fn note(backend: BackendStatus, now_ms: u64, unix: u64) -> Note {
    let taken_out = |one: &&Override| matches!(one.set, Wish::Drain | Wish::Maint);
    match backend.overrides.iter().find(taken_out) {
        Some(word) => Note {
            why: word.why.as_ref().map_or_else(|| word.who.clone(), |why| format!("{why}; {}", word.who)),
            seconds: unix.saturating_sub(word.since),
        },
        None => Note { why: backend.why, seconds: now_ms.saturating_sub(backend.since_ms) / 1000 },
    }
}

fn backend(of: &BackendStatus, since: u64) -> answer::BackendStatus {
    let cells = of.cells.all();
    let sum = |counter: fn(&CoreCell) -> &AtomicU64| cells.iter().map(|c| counter(c).load(Relaxed)).sum();
    let why = match (&of.kept_up, of.state) {
        (Some((_, why)), Standing::Up) => Some(format!("{why}; kept up, since no other one is")),
        _ if of.why.is_empty() => None,
        _ => Some(of.why.clone()),
    };
    answer::BackendStatus {
        endpoint: of.endpoint.to_string(),
        state: of.state.into(),
        observed: of.observed.into(),
        overrides: of.overrides.clone(),
        since: since + of.since_ms / 1000,
        why,
        probe: of.evidence.clone(),
        next_probe: of.next_probe_ms.map(|ms| since + ms / 1000),
        weight: of.weight,
        max_conns: (of.max_conns > 0).then_some(of.max_conns),
        in_flight: cells.iter().map(|c| u64::from(c.in_flight.load(Relaxed))).sum(),
        requests: sum(|c| &c.requests),
        statuses: [0, 1, 2, 3, 4].map(|class| cells.iter().map(|c| c.statuses[class].load(Relaxed)).sum()),
        connect_errors: sum(|c| &c.connect_errors),
        resets: sum(|c| &c.resets),
        timeouts: sum(|c| &c.timeouts),
        fail_open: sum(|c| &c.fail_open),
    }
}
