//! What is written from given cells.

use super::*;
use crate::event::TurnTimes;
use crate::exchange::Reason;
use crate::route::health::{Standing, State};
use crate::route::table::tests::cluster;
use crate::route::table::{Balance, RouteTable};
use std::sync::atomic::Ordering::Relaxed;

/// Two clusters: `c0` with backends `b0` and `b1`, `c1` without any.
fn sources() -> Sources {
    let clusters =
        vec![Arc::new(cluster(0, Balance::Random, 0, &[1, 3])), Arc::new(cluster(1, Balance::Random, 2, &[]))];
    let table = Arc::new(RouteTable::build(clusters, Vec::new()).expect("no routes"));
    let settings =
        crate::config::check::load(r#"{"listeners": {"a": "127.0.0.1:1"}, "clusters": {}, "routes": {}}"#, "test.json")
            .expect("a good config")
            .settings;
    let states = [State::up(1), State::new(Standing::Down, 3)].into();
    let snapshot =
        Snapshot { generation: 3, epoch: 9, table, states, paused: Arc::default(), settings: Arc::new(settings) };
    let cores = vec![Arc::new(CoreStats::default()), Arc::new(CoreStats::default())];
    Sources { snapshot: Arc::new(snapshot), cores, process: Process { driver: "epoll", ..Process::default() } }
}

fn written(sources: &Sources) -> String {
    let mut text = String::new();
    write(sources.clone(), &mut text);
    text
}

/// The value of the one line that begins with this name and has all of these labels.
fn value(text: &str, name: &str, labels: &[&str]) -> f64 {
    let fits = |line: &&str| {
        let (series, _) = line.rsplit_once(' ').unwrap_or_default();
        series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
    };
    let found: Vec<&str> = text.lines().filter(fits).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}\n{text}");
    found[0].rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).expect("a number")
}

#[test]
fn cores_add_up() {
    let sources = sources();
    let cluster = &sources.snapshot.table.clusters()[0];
    let cells = &cluster.backends[1].cells;
    for (core, n) in [(0, 5), (1, 7)] {
        let cell = cells.core(core);
        cell.requests.store(n, Relaxed);
        cell.statuses[4].store(n + 1, Relaxed);
        cell.timeouts.store(2, Relaxed);
        cell.in_flight.store(3, Relaxed);
        cell.pooled.store(4, Relaxed);
        (0..n).for_each(|i| cell.latency.add(i * 900));
        cluster.ends.core(core).add(Reason::NoBackend.index(), 503);
        let waits = cluster.waits.core(core);
        waits.waiting.store(n as u32, Relaxed);
        waits.waited.store(n + 10, Relaxed);
        waits.retries_refused.store(1, Relaxed);
        sources.cores[core].ends.add(Reason::NoRoute.index(), 404);
    }
    cells.flips[Standing::Down as usize].store(6, Relaxed);
    let text = written(&sources);
    let b1 = [r#"cluster="c0""#, r#"backend="b1""#, r#"endpoint="127.0.0.1:2""#];
    let of = |name, more: &[&'static str]| value(&text, name, &[&b1[..], more].concat());
    assert_eq!(of("ringway_backend_requests_total", &[]), 12.0);
    assert_eq!(of("ringway_backend_responses_total", &[r#"class="5xx""#]), 14.0);
    assert_eq!(of("ringway_backend_failures_total", &[r#"kind="timeout""#]), 4.0);
    assert_eq!(of("ringway_backend_failures_total", &[r#"kind="reset""#]), 0.0);
    assert_eq!((of("ringway_backend_in_flight", &[]), of("ringway_backend_pooled_connections", &[])), (6.0, 8.0));
    assert_eq!(of("ringway_backend_state", &[r#"state="down""#]), 1.0);
    assert_eq!(of("ringway_backend_state", &[r#"state="up""#]), 0.0);
    assert_eq!(of("ringway_backend_transitions_total", &[r#"to="down""#]), 6.0);
    assert_eq!(of("ringway_backend_weight", &[]), 3.0);
    let bucket = |le| of("ringway_backend_response_head_seconds_bucket", &[le]);
    assert_eq!((bucket(r#"le="0.001""#), bucket(r#"le="0.002""#), bucket(r#"le="+Inf""#)), (4.0, 6.0, 12.0));
    assert_eq!(of("ringway_backend_response_head_seconds_count", &[]), 12.0);
    let sum = f64::from((0..5).sum::<u32>() + (0..7).sum::<u32>()) * 0.0009;
    assert!((of("ringway_backend_response_head_seconds_sum", &[]) - sum).abs() < 1e-9);

    let exchanges = |cluster, reason| value(&text, "ringway_exchanges_total", &[cluster, reason]);
    assert_eq!(exchanges(r#"cluster="c0""#, r#"reason="NO_BACKEND""#), 2.0);
    assert_eq!(exchanges(r#"cluster="c1""#, r#"reason="NO_BACKEND""#), 0.0);
    assert_eq!(exchanges(r#"cluster="""#, r#"reason="NO_ROUTE""#), 2.0);
    assert_eq!(value(&text, "ringway_responses_total", &[r#"cluster="c0""#, r#"class="5xx""#]), 2.0);
    assert_eq!(value(&text, "ringway_cluster_endpoints", &[r#"cluster="c0""#, r#"state="down""#]), 1.0);
    let of_cluster = |name| value(&text, name, &[r#"cluster="c0""#]);
    assert_eq!((of_cluster("ringway_cluster_queued"), of_cluster("ringway_cluster_waited_total")), (12.0, 32.0));
    assert_eq!(of_cluster("ringway_cluster_retries_refused_total"), 2.0);
    assert_eq!((of_cluster("ringway_cluster_paused"), of("ringway_backend_exchanges_max", &[])), (0.0, 0.0));
    assert_eq!(value(&text, "ringway_cluster_endpoints", &[r#"cluster="c1""#, r#"state="up""#]), 0.0);
}

#[test]
fn cores_and_process() {
    let sources = sources();
    let [one, two] = [&sources.cores[0], &sources.cores[1]];
    one.cpu_us.store(1_500_000, Relaxed);
    one.busy_permille.store(900, Relaxed);
    two.busy_permille.store(300, Relaxed);
    two.lag.add(1500);
    two.ticks.store(8, Relaxed);
    let mut times = TurnTimes { sum_us: 5_000, ..TurnTimes::default() };
    times.buckets[0] = 7;
    times.buckets[5] = 2;
    one.turns.store(&times);
    let text = written(&sources);
    let core = |name, core: &str| value(&text, name, &[&format!("core=\"{core}\"")]);
    assert_eq!(core("ringway_core_cpu_seconds_total", "0"), 1.5);
    assert_eq!((core("ringway_core_busy_ratio", "0"), core("ringway_core_busy_ratio", "1")), (0.9, 0.3));
    assert_eq!((core("ringway_core_ticks_total", "1"), core("ringway_core_tick_late_seconds_count", "1")), (8.0, 1.0));
    let turns = |le: &str| value(&text, "ringway_worker_turn_seconds_bucket", &[r#"core="0""#, le]);
    assert_eq!((turns(r#"le="0.00025""#), turns(r#"le="0.005""#), turns(r#"le="0.01""#)), (7.0, 7.0, 9.0));
    assert_eq!(core("ringway_worker_turn_seconds_sum", "0"), 0.005);
    assert_eq!((times.over(5_000), times.over(10_000)), (2, 0));
    assert_eq!(value(&text, "ringway_core_imbalance_ratio", &[]), 1.5);
    assert_eq!(value(&text, "ringway_config_generation", &[]), 3.0);
    assert_eq!(value(&text, "ringway_build_info", &[r#"driver="epoll""#]), 1.0);
    one.busy_permille.store(0, Relaxed);
    two.busy_permille.store(0, Relaxed);
    assert_eq!(value(&written(&sources), "ringway_core_imbalance_ratio", &[]), 1.0);
}

#[test]
fn names_keep_to_the_conventions() {
    let text = written(&sources());
    assert!(text.ends_with("\n# EOF\n"));
    let of_kind = |kind: &str| -> Vec<String> {
        let types = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.strip_suffix(kind)?.strip_suffix(' '));
        types.map(str::to_owned).collect()
    };
    let (counters, gauges, histograms) = (of_kind("counter"), of_kind("gauge"), of_kind("histogram"));
    assert!(counters.len() > 15 && gauges.len() > 15 && histograms.len() == 3);
    let all: Vec<&String> = counters.iter().chain(&gauges).chain(&histograms).collect();
    for name in &all {
        assert!(name.starts_with("ringway_") || name.starts_with("process_"), "{name}");
        assert!(
            !["_total", "_count", "_sum", "_bucket", "_created", "_info"].iter().any(|s| name.ends_with(s)),
            "{name}"
        );
        assert_eq!(all.iter().filter(|n| n == &name).count(), 1, "{name}");
        for unit in ["seconds", "bytes", "ratio"] {
            let has = name.ends_with(&format!("_{unit}"));
            assert_eq!(text.contains(&format!("# UNIT {name} {unit}\n")), has, "{name}");
        }
    }
    for help in text.lines().filter(|l| l.starts_with("# HELP ")) {
        assert!(help.ends_with('.') && !help.contains('\\'), "{help}");
    }
}
