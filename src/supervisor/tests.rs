//! The supervisor step by step; `simulation` drives it at random.

use super::*;
use crate::config::ControlAccess;
use crate::config::{Address, BackendPlan, ClusterPlan, HalfClose, Io, LogFormat, LogTarget, RoutePlan};
use crate::http::head::Underscores;
use crate::route::health::Standing::{Down, Up};
use crate::route::table::tests::policy;
use crate::route::table::{Balance, OnTimeout};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

pub(super) const CORES: usize = 2;
const HOLD_MS: u64 = HOLD_DOWN_SECONDS * 1000;

/// A plan of clusters with backends by id and address, each routed as its own host.
pub(super) fn plan(clusters: &[(&str, &[(&str, &str)])]) -> Plan {
    let backend =
        |(id, at): &(&str, &str)| BackendPlan { name: (*id).into(), address: address(at), weight: 1, backup: false };
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
        underscores: Underscores::default(),
        via: None,
        pages: BTreeMap::new(),
        log_target: LogTarget::Off,
        log_format: LogFormat::Json,
        drain_timeout: 10,
        retry_after: 5,
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
    let actions = s.tick(35_000);
    let [Action::Probe(probe)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(probe.endpoint.to_string(), "10.0.0.1:80");
    assert!(state(&s, "a").probing && state(&s, "a").state == Down);
    assert!(s.tick(36_000).is_empty());

    let a = id(&s, "app", "a");
    let actions = s.probe_result(a, Err("refused".into()), 36_000);
    assert_eq!(noted(&actions), [(What::StillDown, "a")]);
    assert_eq!((state(&s, "a").since_ms, state(&s, "a").next_probe_ms), (5_000, Some(66_000)));
    assert_eq!(s.tick(66_000).len(), 1);
    let actions = s.probe_result(a, Ok(()), 66_100);
    let [Action::Publish(snapshot), Action::Log(note)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((snapshot.epoch, note.what, snapshot.states[0]), (3, What::Up, State::up(1)));
    s.invariants();

    // What was counted before does not count again.
    assert!(s.look(a, 66_200).is_empty());
    assert!(s.probe_result(a, Ok(()), 66_300).is_empty());
    assert_eq!(noted(&fail(&mut s, "a", 67_000)), [(What::Down, "a")]);
}

#[test]
fn a_probe_without_verdict_is_a_bad_one() {
    let mut s = begin(two());
    fail(&mut s, "a", 0);
    s.tick(HOLD_MS);
    assert!(s.tick(HOLD_MS + PROBE_LOST_MS - 1).is_empty());
    assert_eq!(noted(&s.tick(HOLD_MS + PROBE_LOST_MS)), [(What::StillDown, "a")]);
    assert_eq!(s.next_deadline(), Some(2 * HOLD_MS + PROBE_LOST_MS));
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

    s.tick(HOLD_MS);
    let a = id(&s, "app", "a");
    s.probe_result(a, Ok(()), HOLD_MS);
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
        plan.clusters.get_mut("app").unwrap().policy.on_timeout = on_timeout;
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
    assert_eq!(s.tick(HOLD_MS).len(), PROBES_MAX);
    assert_eq!(s.next_deadline(), Some(HOLD_MS + TICK_MS), "no busy waiting");
    s.probe_result(id(&s, "app", "b1"), Ok(()), HOLD_MS + 10);
    let probes = s.tick(HOLD_MS + TICK_MS);
    assert_eq!(probes.len(), 1);
    s.invariants();
}
