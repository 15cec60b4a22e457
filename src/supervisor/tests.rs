//! The supervisor step by step; `simulation` drives it at random.

use super::*;
use crate::config::ControlAccess;
use crate::config::{Address, BackendPlan, ClusterPlan, HalfClose, Io, LogFormat, LogTarget, RoutePlan};
use crate::http::head::Underscores;
use crate::limits::{HOLD_DOWN_SECONDS, PROBE_LOST_MS, PROBE_SECONDS, PROBES_MAX};
use crate::route::health::Standing::{Down, Up};
use crate::route::health_policy::{Check, FailureRate, HealthPolicy, ProbeRequest};
use crate::route::table::tests::policy;
use crate::route::table::{Balance, OnTimeout};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

pub(super) const CORES: usize = 2;
const HOLD_MS: u64 = HOLD_DOWN_SECONDS as u64 * 1000;
/// When a probe without a verdict counts as lost.
const LOST_MS: u64 = PROBE_SECONDS as u64 * 1000 + PROBE_LOST_MS;

/// A plan of clusters with backends by id and address, each routed as its own host.
pub(super) fn plan(clusters: &[(&str, &[(&str, &str)])]) -> Plan {
    let backend = |(id, at): &(&str, &str)| BackendPlan {
        name: (*id).into(),
        address: address(at),
        weight: 1,
        backup: false,
        max_conns: 0,
    };
    let cluster = |backends: &[(&str, &str)]| ClusterPlan {
        backends: backends.iter().map(backend).collect(),
        policy: policy(Balance::RoundRobin),
    };
    let route = |name: &str| RoutePlan { host: name.into(), path: "/".into(), cluster: name.into() };
    Plan {
        clusters: clusters.iter().map(|(name, backends)| ((*name).into(), cluster(backends))).collect(),
        routes: clusters.iter().map(|(name, _)| (format!("{name}/"), route(name))).collect(),
        listeners: BTreeMap::new(),
        settings: settings(),
        connections: None,
        workers: None,
        io: Io::Auto,
        control_socket: None,
        control_access: ControlAccess { mode: 0o600, group: None, uids: None },
        state_file: None,
        status_listen: None,
    }
}

fn address(text: &str) -> Address {
    if let Some(path) = text.strip_prefix("unix:") {
        return Address::Unix(path.into());
    }
    let (name, port) = text.split_once(':').unwrap();
    let port = port.parse().unwrap();
    name.parse().map_or_else(|_| Address::Name(name.into(), port), |ip: IpAddr| Address::Ip((ip, port).into()))
}

fn settings() -> Settings {
    Settings {
        listeners: Vec::new(),
        client_head_timeout: 10,
        client_idle_timeout: 60,
        client_body_timeout: 30,
        client_half_close: HalfClose::Serve,
        client_rate_min: 240,
        connections_per_worker: 1000,
        pooled_per_worker: 1000,
        pipes_per_worker: 0,
        underscores: Underscores::default(),
        via: None,
        pages: BTreeMap::new(),
        log_target: LogTarget::Off,
        log_format: LogFormat::Json,
        log_lines: Default::default(),
        recent: 0,
        drain_timeout: 10,
        retry_after: 5,
        status_page: true,
    }
}

fn with_listeners(mut plan: Plan, listeners: &[(&str, &str)]) -> Plan {
    let listener = |(name, at): &(&str, &str)| {
        let listener =
            Listener { name: (*name).into(), address: address(at), trusted_proxies: Vec::new(), health_path: None };
        ((*name).into(), listener)
    };
    plan.listeners = listeners.iter().map(listener).collect();
    plan
}

pub(super) fn two() -> Plan {
    plan(&[("app", &[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")])])
}

pub(super) fn begin(plan: Plan) -> Supervisor {
    Supervisor::new(plan, CORES, Resolutions::default()).unwrap()
}

pub(super) fn reload(s: &mut Supervisor, plan: Plan, now: u64) -> Committed {
    let prepared = s.prepare(plan, Resolutions::default()).unwrap();
    s.commit(prepared, now)
}

pub(super) fn standings(snapshot: &Snapshot) -> Vec<health::Standing> {
    snapshot.states.iter().map(|s| s.standing).collect()
}

fn backend<'a>(s: &'a Supervisor, cluster: &str, name: &str) -> &'a Backend {
    let cluster = s.table.clusters().iter().find(|c| c.name == cluster).unwrap();
    cluster.backends.iter().find(|b| b.name == name).unwrap()
}

pub(super) fn id(s: &Supervisor, cluster: &str, name: &str) -> BackendId {
    backend(s, cluster, name).id
}

/// Three failures on one core, and the look that follows.
pub(super) fn fail(s: &mut Supervisor, name: &str, now: u64) -> Vec<Action> {
    backend(s, "app", name).cells.core(1).failures_in_row.fetch_add(3, Relaxed);
    s.look(id(s, "app", name), now)
}

pub(super) fn state(s: &Supervisor, name: &str) -> BackendStatus {
    s.status().clusters[0].backends.iter().find(|b| b.name == name).unwrap().clone()
}

fn noted(actions: &[Action]) -> Vec<(What, &str)> {
    let note = |a: &'_ Action| if let Action::Log(n) = a { Some(n.clone()) } else { None };
    let backends = |n: Note| (n.what, if n.backend == "a" { "a" } else { "b" });
    actions.iter().filter_map(note).map(backends).collect()
}

/// The probes among the actions.
fn probes(actions: &[Action]) -> Vec<(ProbeId, String)> {
    let probe = |a: &Action| if let Action::Probe(p) = a { Some((p.id, p.endpoint.to_string())) } else { None };
    actions.iter().filter_map(probe).collect()
}

/// Ticks each second from `now` until something is probed; when, and whose probe.
fn until_probe(s: &mut Supervisor, mut now: u64) -> (u64, ProbeId) {
    for _ in 0..1000 {
        let begun = probes(&s.tick(now));
        s.invariants();
        if let [(id, _)] = begun[..] {
            return (now, id);
        }
        assert!(begun.is_empty(), "one at a time: {begun:?}");
        now += 1000;
    }
    panic!("never probed");
}

fn good() -> Result<String, String> {
    Ok("status 200".to_owned())
}

fn bad() -> Result<String, String> {
    Err("status 500".to_owned())
}

/// Two backends under this policy.
fn under(health: HealthPolicy) -> Plan {
    let mut plan = two();
    plan.clusters.get_mut("app").unwrap().policy.health = health;
    plan
}

#[test]
fn a_mark_holds_down_for_thirty_seconds_then_probes() {
    let mut s = begin(two());
    let actions = fail(&mut s, "a", 5_000);
    let [Action::Publish(snapshot), Action::Log(note)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((snapshot.epoch, snapshot.generation, standings(snapshot)), (2, 1, vec![Down, Up]));
    assert!(Arc::ptr_eq(&snapshot.table, &s.table));
    assert_eq!((note.what, note.why.as_str()), (What::Down, "3 connect errors or resets in a row"));
    assert_eq!(state(&s, "a").next_probe_ms, Some(35_000));

    // Faults while it is down change nothing.
    assert!(fail(&mut s, "a", 20_000).is_empty());
    assert_eq!(s.next_deadline(), Some(5_000 + HOLD_MS));
    assert!(s.tick(34_999).is_empty());
    let begun = probes(&s.tick(35_000));
    let [(id, at)] = &begun[..] else { panic!("{begun:?}") };
    assert_eq!(at, "10.0.0.1:80");
    assert!(state(&s, "a").probing && state(&s, "a").state == Down);
    assert!(s.tick(36_000).is_empty());

    let actions = s.probe_result(*id, Err("refused".into()), 36_000);
    assert_eq!(noted(&actions), [(What::StillDown, "a")]);
    assert_eq!((state(&s, "a").since_ms, state(&s, "a").next_probe_ms), (5_000, Some(96_000)), "twice as long");
    assert_eq!(state(&s, "a").evidence.as_deref(), Some("refused"));
    assert!(s.tick(95_999).is_empty());
    let (_, id) = until_probe(&mut s, 96_000);
    let actions = s.probe_result(id, good(), 96_100);
    let [Action::Publish(snapshot), Action::Log(note)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((snapshot.epoch, note.what, snapshot.states[0]), (3, What::Up, State::up(1)));
    assert_eq!(note.why, "a probe was answered: status 200");
    s.invariants();

    // What was counted before does not count again.
    let a = self::id(&s, "app", "a");
    assert!(s.look(a, 96_200).is_empty());
    assert!(s.probe_result(id, good(), 96_300).is_empty());
    assert_eq!(noted(&fail(&mut s, "a", 97_000)), [(What::Down, "a")]);
    assert_eq!(state(&s, "a").next_probe_ms, Some(97_000 + 4 * HOLD_MS), "marked again soon");
}

#[test]
fn a_probe_without_verdict_is_a_bad_one() {
    let mut s = begin(two());
    fail(&mut s, "a", 0);
    s.tick(HOLD_MS);
    assert!(s.tick(HOLD_MS + LOST_MS - 1).is_empty());
    assert_eq!(noted(&s.tick(HOLD_MS + LOST_MS)), [(What::StillDown, "a")]);
    assert_eq!(s.next_deadline(), Some(3 * HOLD_MS + LOST_MS));
}

#[test]
fn steady_for_long_enough_begins_anew() {
    let health = HealthPolicy { hold_down: 2, hold_down_max: 5, ..HealthPolicy::default() };
    let mut s = begin(under(health));
    let mut now = 0;
    for (up_for, held) in [(0, 2), (4_999, 4), (1_000, 5), (1_000, 5), (5_000, 2), (0, 4)] {
        now += up_for;
        fail(&mut s, "a", now);
        assert_eq!(state(&s, "a").next_probe_ms, Some(now + held * 1000));
        now += held * 1000;
        let (_, id) = until_probe(&mut s, now);
        s.probe_result(id, good(), now);
    }
}

#[test]
fn checks_mark_an_idle_backend_down_and_up_again() {
    let check = Some(Check { interval: 10, rise: 2, fall: 3 });
    let mut s = begin(under(HealthPolicy { check, ..HealthPolicy::default() }));
    let (mut now, mut told) = (0, Vec::new());
    let mut round = |s: &mut Supervisor, a: Result<String, String>, b: Result<String, String>| {
        told.clear();
        let mut answered = 0;
        while answered < 2 {
            now += 100;
            for (id, at) in probes(&s.tick(now)) {
                let verdict = if at == "10.0.0.1:80" { a.clone() } else { b.clone() };
                told.extend(noted(&s.probe_result(id, verdict, now)).into_iter().map(|(what, _)| what));
                s.invariants();
                answered += 1;
            }
        }
        told.clone()
    };
    assert_eq!(round(&mut s, good(), good()), []);
    assert_eq!(round(&mut s, bad(), good()), []);
    assert_eq!(round(&mut s, bad(), good()), []);
    assert_eq!(round(&mut s, good(), good()), [], "not in a row");
    assert_eq!(round(&mut s, bad(), good()), []);
    assert_eq!(round(&mut s, bad(), good()), []);
    assert_eq!(round(&mut s, bad(), bad()), [What::Down]);
    assert_eq!(state(&s, "a").why, "3 bad checks in a row, the latest: status 500");
    assert_eq!(round(&mut s, bad(), bad()), [], "no news");
    assert_eq!(round(&mut s, good(), bad()), [What::KeptUp], "b is the last one");
    assert_eq!(round(&mut s, Err("refused".into()), good()), [What::StillDown]);
    assert_eq!(round(&mut s, good(), good()), []);
    assert_eq!(state(&s, "a").state, Down, "one good check is not enough");
    assert_eq!(round(&mut s, good(), good()), [What::Up]);
    assert_eq!((state(&s, "a").state, state(&s, "b").state), (Up, Up));
}

#[test]
fn clusters_that_share_an_endpoint_share_its_probes() {
    let mut both = plan(&[
        ("app", &[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")]),
        ("web", &[("x", "10.0.0.1:80"), ("y", "10.0.0.3:80")]),
        ("own", &[("o", "10.0.0.1:80"), ("p", "10.0.0.2:80")]),
    ]);
    let check = |fall| Some(Check { interval: 5, rise: 1, fall });
    both.clusters.get_mut("app").unwrap().policy.health.check = check(1);
    both.clusters.get_mut("web").unwrap().policy.health.check = check(2);
    let own = &mut both.clusters.get_mut("own").unwrap().policy.health;
    (own.check, own.probe) = (check(1), Arc::new(ProbeSpec { timeout: 5, request: Some(ProbeRequest::get("/")) }));
    let mut s = begin(both);
    let mut seen: BTreeMap<(String, bool), usize> = BTreeMap::new();
    for now in (0..61_000).step_by(250) {
        for action in s.tick(now) {
            let Action::Probe(probe) = action else { continue };
            *seen.entry((probe.endpoint.to_string(), probe.spec.request.is_some())).or_default() += 1;
            let connect_to_a = probe.endpoint.to_string() == "10.0.0.1:80" && probe.spec.request.is_none();
            s.probe_result(probe.id, if connect_to_a { bad() } else { good() }, now);
        }
    }
    // a and x are one; o is asked in another way, as is p.
    let connects = |at: &str| seen[&(at.to_owned(), false)];
    assert!(
        ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].iter().all(|at| (10..=14).contains(&connects(at))),
        "{seen:?}"
    );
    assert!((10..=14).contains(&seen[&("10.0.0.1:80".to_owned(), true)]), "{seen:?}");
    let down: Vec<String> = s
        .status()
        .clusters
        .iter()
        .flat_map(|c| &c.backends)
        .filter(|b| b.state == Down)
        .map(|b| b.name.clone())
        .collect();
    assert_eq!(down, ["a", "x"], "the verdict reached both");
    s.invariants();
}

#[test]
fn a_reload_keeps_probers_and_brings_and_takes_checks() {
    let check = Some(Check { interval: 100, rise: 2, fall: 1 });
    let with = || under(HealthPolicy { check, ..HealthPolicy::default() });
    let mut s = begin(with());
    let next = state(&s, "a").next_probe_ms;
    assert!(next.is_some());
    reload(&mut s, with(), 500);
    assert_eq!(state(&s, "a").next_probe_ms, next, "the same prober");
    fail(&mut s, "a", 1_000);
    let (now, id) = until_probe(&mut s, 1_000 + HOLD_MS);
    reload(&mut s, two(), now);
    assert!(s.probe_result(id, good(), now).is_empty(), "nobody waits for that one any more");
    assert_eq!(state(&s, "a").state, Down);
    // Without checks, one good probe is enough.
    let (now, id) = until_probe(&mut s, now + 1);
    assert_eq!(noted(&s.probe_result(id, good(), now)), [(What::Up, "a")]);
    assert_eq!(s.next_deadline(), None);
}

#[test]
fn a_slow_start_grows_in_ten_steps() {
    let mut s = begin(under(HealthPolicy { slow_start: 20, ..HealthPolicy::default() }));
    let full = s.snapshot().states[0].weight;
    fail(&mut s, "a", 0);
    let (now, id) = until_probe(&mut s, HOLD_MS);
    let actions = s.probe_result(id, good(), now);
    let Action::Publish(snapshot) = &actions[0] else { panic!("{actions:?}") };
    let (a, b) = (snapshot.states[0], snapshot.states[1]);
    assert!(a.is_up() && a.weight == full / 10 && b.weight == full, "{a:?} {b:?}");
    let mut weights = Vec::new();
    for second in 0..=20 {
        let actions = s.tick(now + second * 1000);
        s.invariants();
        weights.extend(
            actions.iter().filter_map(|a| if let Action::Publish(p) = a { Some(p.states[0].weight) } else { None }),
        );
    }
    assert_eq!(weights, (2..=10).map(|step| full * step / 10).collect::<Vec<_>>());
    assert_eq!(s.next_deadline(), None);

    // A clock that jumps takes several steps at once; a mark in between ends the slow start.
    fail(&mut s, "a", 600_000);
    let (now, id) = until_probe(&mut s, 600_000);
    s.probe_result(id, good(), now);
    s.tick(now + 9_000);
    assert_eq!(s.snapshot().states[0].weight, full / 2);
    fail(&mut s, "a", now + 9_500);
    assert_eq!(s.snapshot().states[0], State { standing: Down, weight: full });
    s.invariants();
}

#[test]
fn a_share_of_failures_marks() {
    let rate = Some(FailureRate { percent: 20, requests: 100, within: 10 });
    let mut s = begin(under(HealthPolicy { rate, ..HealthPolicy::default() }));
    let cells = backend(&s, "app", "a").cells.clone();
    let (a, cell) = (id(&s, "app", "a"), cells.core(0));
    for second in 0..20 {
        s.tick(second * 1000);
        cell.statuses[1].fetch_add(10, Relaxed);
        let bad = if second < 10 { 1 } else { 3 };
        cell.resets.fetch_add(bad, Relaxed);
        cell.failures_in_row.store(1, Relaxed);
        cell.head_tick.store(second as u32 + 1, Relaxed);
        let actions = s.look(a, second * 1000 + 500);
        let marked = noted(&actions);
        if second >= 18 {
            assert_eq!(marked, [(What::Down, "a")]);
            assert!(state(&s, "a").why.contains("requests failed within 10 s"), "{}", state(&s, "a").why);
            return;
        }
        assert_eq!(marked, [], "{second}");
    }
}

#[test]
fn the_last_one_up_is_kept_up_until_another_comes_back() {
    let mut s = begin(two());
    fail(&mut s, "a", 0);
    let actions = fail(&mut s, "b", 1_000);
    assert_eq!(noted(&actions), [(What::KeptUp, "b")]);
    assert!(!actions.iter().any(|a| matches!(a, Action::Publish(_))));
    assert_eq!(state(&s, "b").state, Up);
    assert_eq!(state(&s, "b").kept_up.unwrap().0, 1_000);
    assert!(fail(&mut s, "b", 2_000).is_empty(), "not told again at once");
    assert_eq!(noted(&fail(&mut s, "b", 31_000)), [(What::KeptUp, "b")]);

    let (_, id_of_a) = until_probe(&mut s, HOLD_MS);
    s.probe_result(id_of_a, good(), HOLD_MS);
    assert_eq!(state(&s, "b").kept_up, None);
    assert!(s.look(id(&s, "app", "b"), 32_000).is_empty(), "only fresh faults count");
    assert_eq!(noted(&fail(&mut s, "b", 33_000)), [(What::Down, "b")]);
}

#[test]
fn an_only_backend_is_never_held_down() {
    let mut s = begin(plan(&[("app", &[("a", "unix:/run/a")])]));
    assert_eq!(noted(&fail(&mut s, "a", 0)), [(What::KeptUp, "a")]);
    assert_eq!(s.snapshot().epoch, 1);
    assert_eq!(s.next_deadline(), None);
}

#[test]
fn a_look_takes_the_reports_away_first() {
    let mut s = begin(two());
    backend(&s, "app", "a").cells.core(0).reported.store(1, Relaxed);
    fail(&mut s, "a", 0);
    assert_eq!(backend(&s, "app", "a").cells.core(0).reported.load(Relaxed), 0);
    assert!(s.look(BackendId(77), 0).is_empty());
}

#[test]
fn looking_at_all_publishes_once() {
    let mut s = begin(plan(&[("app", &[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80"), ("c", "10.0.0.3:80")])]));
    for name in ["a", "b", "c"] {
        backend(&s, "app", name).cells.core(0).failures_in_row.store(3, Relaxed);
    }
    let actions = s.look_at_all(9);
    assert_eq!(actions.iter().filter(|a| matches!(a, Action::Publish(_))).count(), 1);
    assert_eq!(noted(&actions).iter().map(|n| n.0).collect::<Vec<_>>(), [What::Down, What::Down, What::KeptUp]);
    assert_eq!(s.snapshot().epoch, 2);
}

#[test]
fn a_timeout_marks_by_the_policy_of_the_cluster() {
    for (on_timeout, marked) in [(OnTimeout::Silent, false), (OnTimeout::Any, true)] {
        let mut plan = two();
        plan.clusters.get_mut("app").unwrap().policy.health.on_timeout = on_timeout;
        let mut s = begin(plan);
        let cells = backend(&s, "app", "a").cells.clone();
        cells.core(1).head_tick.store(50, Relaxed);
        cells.core(0).timeout_sent_tick.store(20, Relaxed);
        cells.core(0).timeouts.store(1, Relaxed);
        let a = id(&s, "app", "a");
        assert_eq!(!s.look(a, 50_000).is_empty(), marked, "{on_timeout:?}");
    }
}

#[test]
fn a_reload_carries_over_what_stays() {
    let mut s = begin(two());
    fail(&mut s, "a", 1_000);
    let (a, b, cells) = (id(&s, "app", "a"), id(&s, "app", "b"), backend(&s, "app", "a").cells.clone());
    let next = plan(&[("app", &[("a", "10.0.0.1:80"), ("b", "10.0.0.9:80")]), ("aaa", &[("x", "10.0.0.1:80")])]);
    let done = reload(&mut s, next, 2_000);
    assert_eq!((done.snapshot.generation, done.snapshot.epoch), (2, 3));
    assert_eq!(id(&s, "app", "a"), a);
    assert!(Arc::ptr_eq(&backend(&s, "app", "a").cells, &cells));
    assert_eq!(standings(&done.snapshot), [Up, Down, Up], "aaa is before app");
    assert_eq!(done.change.removed_backends, [b]);
    assert!(done.change.removed_clusters.is_empty());
    assert_eq!(done.change.clusters, Names { added: vec!["aaa".into()], removed: vec![], changed: vec!["app".into()] });
    assert_eq!(done.change.routes.added, ["aaa/"]);
    assert_eq!(s.next_deadline(), Some(31_000));
    assert!(s.look(b, 3_000).is_empty());

    let gone = id(&s, "aaa", "x");
    let done = reload(&mut s, two(), 3_000);
    assert_eq!(done.change.removed_clusters.len(), 1);
    assert!(done.change.removed_backends.contains(&gone));
    assert!(id(&s, "app", "b") > gone, "numbers never come back");
}

#[test]
fn a_reload_leaves_no_cluster_without_one_that_is_up() {
    let mut s = begin(two());
    fail(&mut s, "a", 0);
    let done = reload(&mut s, plan(&[("app", &[("a", "10.0.0.1:80")])]), 1_000);
    assert_eq!(standings(&done.snapshot), [Up]);
    assert_eq!(done.notes[0].what, What::Up);
    assert_eq!(s.next_deadline(), None);
}

#[test]
fn keys_that_need_a_restart_refuse_the_whole_reload() {
    let s = begin(two());
    let mut other = two();
    (other.workers, other.io, other.control_socket) = (Some(9), Io::Epoll, Some("/run/c".into()));
    let refusal = s.prepare(other, Resolutions::default()).unwrap_err();
    assert_eq!(refusal, Refusal::Restart(vec!["workers", "io", "control.socket"]));
    assert!(refusal.to_string().contains("workers, io, control.socket"));
    let same = Plan { workers: Some(CORES), ..two() };
    assert!(s.prepare(same, Resolutions::default()).is_ok(), "that many run already");
    s.invariants();
}

#[test]
fn what_cannot_be_a_table_is_refused() {
    let s = begin(two());
    let mut dangling = two();
    dangling.routes.get_mut("app/").unwrap().cluster = "none".into();
    assert!(matches!(s.prepare(dangling, Resolutions::default()), Err(Refusal::NoCluster { .. })));
    let mut twice = two();
    twice.routes.insert("APP/".into(), RoutePlan { host: "APP".into(), path: "/".into(), cluster: "app".into() });
    assert!(matches!(s.prepare(twice, Resolutions::default()), Err(Refusal::Routes(bad)) if bad.len() == 1));
}

#[test]
fn listeners_keep_their_numbers_and_leave_holes() {
    let mut s = begin(with_listeners(two(), &[("l", "0.0.0.0:80"), ("m", "0.0.0.0:81")]));
    let (l, m, k) = (ListenerId(0), ListenerId(1), ListenerId(2));
    assert_eq!(s.listeners().iter().map(|(id, l)| (*id, l.name.as_str())).collect::<Vec<_>>(), [(l, "l"), (m, "m")]);
    let next = with_listeners(two(), &[("k", "0.0.0.0:82"), ("m", "0.0.0.0:91")]);
    let prepared = s.prepare(next, Resolutions::default()).unwrap();
    assert_eq!(prepared.listeners_to_open().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [m, k]);
    assert_eq!(s.listeners().len(), 2, "nothing has changed yet");
    assert_eq!(s.listeners()[0].1.name, "l");
    let done = s.commit(prepared, 0);
    assert_eq!(done.change.listeners_to_close, [l, m]);
    assert_eq!(done.change.listeners_to_open, [m, k]);
    assert!(done.snapshot.settings.listeners[0].is_none() && done.snapshot.settings.listeners.len() == 3);
    let done = reload(&mut s, with_listeners(two(), &[("l", "0.0.0.0:80")]), 0);
    assert_eq!(done.change.listeners_to_open, [ListenerId(3)], "a hole stays a hole");
}

#[test]
fn names_become_endpoints_and_keep_the_last_good_answer() {
    let named = plan(&[("app", &[("a", "db.local:80"), ("b", "10.0.0.2:80")])]);
    let mut s = begin(named);
    assert_eq!(s.names_to_resolve().into_iter().collect::<Vec<_>>(), ["db.local"]);
    assert_eq!(s.status().clusters[0].unresolved[0].why, "it was not resolved yet");
    assert_eq!(s.snapshot().states.len(), 1);
    let ip = |n: u8| IpAddr::from([10, 1, 0, n]);
    assert!(s.resolved("db.local", Err("no such name".into()), 10).is_none());
    assert_eq!(s.status().clusters[0].unresolved[0].why, "no such name");

    let done = s.resolved("db.local", Ok(vec![ip(2), ip(1)]), 20).unwrap();
    assert_eq!((done.snapshot.generation, done.snapshot.epoch, done.snapshot.states.len()), (1, 2, 3));
    let endpoints: Vec<_> =
        s.status().clusters[0].backends.iter().map(|b| format!("{} {}", b.name, b.endpoint)).collect();
    assert_eq!(endpoints, ["a 10.1.0.1:80", "a 10.1.0.2:80", "b 10.0.0.2:80"]);
    let first = id(&s, "app", "a");
    assert!(s.resolved("db.local", Ok(vec![ip(1), ip(2)]), 30).is_none(), "the same addresses");
    assert!(s.resolved("db.local", Err("timed out".into()), 40).is_none());
    assert_eq!(s.status().clusters[0].unresolved[0].addresses_kept, 2);
    assert!(s.resolved("other", Ok(vec![ip(1)]), 50).is_none());
    let done = s.resolved("db.local", Ok(vec![ip(2), ip(3)]), 60).unwrap();
    assert_eq!(done.change.removed_backends, [first]);
    assert_eq!(done.change.clusters, Names::default(), "the plan is the same");
}

#[test]
fn a_drain_ends_with_the_last_core_or_without_it() {
    let mut s = begin(two());
    fail(&mut s, "a", 0);
    assert_eq!(s.drain(1_000), Some(10));
    assert_eq!(s.drain(1_000), None);
    assert_eq!(s.prepare(two(), Resolutions::default()).unwrap_err(), Refusal::Draining);
    assert!(s.tick(12_999).is_empty(), "no probe, and not over");
    assert_eq!(s.next_deadline(), Some(13_000));
    assert!(s.drained(0, 3, 2_000).is_empty());
    assert!(s.drained(0, 3, 2_000).is_empty(), "counted once");
    let over = s.tick(13_000);
    assert!(matches!(over[..], [Action::Stop { cut: 3, missing: 1 }]), "{over:?}");
    assert!(s.drained(1, 1, 14_000).is_empty(), "told once");

    let mut s = begin(two());
    s.drain(0);
    s.drained(1, 0, 5);
    let over = s.drained(0, 2, 6);
    assert!(matches!(over[..], [Action::Stop { cut: 2, missing: 0 }]), "{over:?}");
    assert_eq!(s.next_deadline(), None);
}

#[test]
fn probes_are_bounded_and_the_rest_waits_for_the_next_tick() {
    let names: Vec<(String, String)> =
        (0..PROBES_MAX + 10).map(|i| (format!("b{i}"), format!("10.0.{}.{}:80", i / 256, i % 256))).collect();
    let backends: Vec<(&str, &str)> = names.iter().map(|(n, a)| (n.as_str(), a.as_str())).collect();
    let mut s = begin(plan(&[("app", &backends)]));
    for (name, _) in &backends[1..] {
        backend(&s, "app", name).cells.core(0).failures_in_row.store(3, Relaxed);
    }
    s.look_at_all(0);
    let first = probes(&s.tick(HOLD_MS));
    assert_eq!(first.len(), PROBES_MAX);
    assert_eq!(s.next_deadline(), Some(HOLD_MS + TICK_MS), "no busy waiting");
    s.probe_result(first[0].0, good(), HOLD_MS + 10);
    assert_eq!(probes(&s.tick(HOLD_MS + TICK_MS)).len(), 1);
    s.invariants();
}
