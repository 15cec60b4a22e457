//! From text to [`Plan`]: the one way in. A file with faults gives all of them; a faultless one gives a plan with every
//! default filled in.

use super::budget;
use super::command::Level;
use super::fault::{Faults, Findings, Step};
use super::file::{self, BackendEntry, BalanceWord, File, HashBalance, HashKey, HashName, HashWord};
use super::file::{ListenerEntry, RouteEntry};
use super::place::{self, member};
use super::value::Refusal;
use super::words::{BackendAddress, Patience, Rate, Size, Token};
use super::{Address, BackendPlan, ClusterPlan, ControlAccess, Listener, LogTarget, Page, Plan, RoutePlan, Settings};
use super::{LogFields, LogLines, Share};
use super::{cross, health, pages, route_key, shape};
use crate::limits;
use crate::route::table::{Balance, Hash, HashBy, Policy};
use jsonc_parser::ast::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Client connections and pooled connections per worker before [`budget::apply`] has put the real numbers.
const UNBUDGETED: usize = 256;

/// Reads a config. `file` names it in faults, and relative paths in it begin at its directory; page files are read.
pub fn load(text: &str, file: &str) -> Result<Plan, Faults> {
    let (typed, pages) = understand(text, file)?;
    Ok(plan(&typed, pages, directory(file)))
}

/// Reads a config, and fits it to a machine: `cores` is the number of workers where the config gives none, and
/// `open_files_max` the limit of open files (RLIMIT_NOFILE). The plan's budgets are filled in.
pub fn load_for(text: &str, file: &str, cores: usize, open_files_max: u64) -> Result<Plan, Faults> {
    let mut plan = load(text, file)?;
    let workers = plan.workers.unwrap_or(cores);
    match budget::apply(&mut plan, workers, open_files_max) {
        Ok(_) => Ok(plan),
        Err(refusal) => {
            let mut findings = Findings::default();
            let at = connections_place(text);
            findings.add(at, &[Step::Key("limits"), Step::Key("connections")], refusal);
            Err(findings.into_faults(text, file))
        }
    }
}

/// The effective config: every default filled in and every entry in its full form, as JSON that [`load`] takes for an
/// equal plan. Paths stay as typed, so `file` must stay in the same directory.
pub fn show(text: &str, file: &str) -> Result<String, Faults> {
    let (mut typed, _) = understand(text, file)?;
    let defaults = resolve(&typed.defaults, &Policy::default());
    typed.defaults = spelled(&defaults);
    for entry in typed.listeners.values_mut() {
        if let ListenerEntry::Short(address) = entry {
            *entry = ListenerEntry::Full(file::Listener {
                address: address.clone(),
                trusted_proxies: Vec::new(),
                health_path: None,
            });
        }
    }
    for cluster in typed.clusters.values_mut() {
        cluster.policy = spelled(&resolve(&cluster.policy, &defaults));
        for entry in cluster.backends.values_mut() {
            if let BackendEntry::Short(address) = entry {
                *entry = BackendEntry::Full(alone(address.clone()));
            }
        }
    }
    for entry in typed.routes.values_mut() {
        *entry = RouteEntry::Full(file::Route { cluster: entry.cluster().into() });
    }
    Ok(pretty(&typed))
}

/// The JSON Schema of the config file.
pub fn schema() -> String {
    pretty(&shape::schema())
}

pub(super) fn pretty(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("maps with text keys and plain values always serialise");
    text.push('\n');
    text
}

/// From text to a faultless file and its pages.
fn understand(text: &str, file: &str) -> Result<(File, BTreeMap<u16, Page>), Faults> {
    let mut findings = Findings::default();
    let understood = look(text, directory(file), &mut findings);
    match understood {
        Some(understood) if findings.is_empty() => Ok(understood),
        _ => Err(findings.into_faults(text, file)),
    }
}

/// `None` only with a finding.
fn look(text: &str, directory: &Path, findings: &mut Findings) -> Option<(File, BTreeMap<u16, Page>)> {
    if text.len() > limits::CONFIG_BYTES_MAX {
        findings.add(0, &[], Refusal::new(format!("the file has more than {} bytes", limits::CONFIG_BYTES_MAX)));
        return None;
    }
    let tree = place::tree(text, findings)?;
    shape::check(&tree, &shape::schema(), findings);
    // What is not an object at the top is a fault of shape.
    let root = tree.as_object()?;
    cross::check(root, directory, findings);
    let pages = pages::read_all(root, directory, findings);
    if !findings.is_empty() {
        return None;
    }
    // A second reading by an independent parser, which also refuses what the first is lenient about (control
    // characters in strings, white space outside RFC 8259).
    match serde_json::from_str(text) {
        Ok(typed) => Some((typed, pages)),
        Err(error) => {
            let at = place::offset_of(text, error.line(), error.column());
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            findings.add(at, &[], Refusal::new(message));
            None
        }
    }
}

fn directory(file: &str) -> &Path {
    Path::new(file).parent().unwrap_or(Path::new(""))
}

/// The offset of `$.limits.connections`, of the top where the file does not say.
fn connections_place(text: &str) -> usize {
    let tree = place::tree(text, &mut Findings::default());
    let Some(Value::Object(root)) = &tree else { return 0 };
    let limits = member(root, "limits").and_then(|l| l.value.as_object());
    limits.and_then(|l| member(l, "connections")).map_or(root.range.start, |c| place::start(c.value))
}

fn plan(typed: &File, pages: BTreeMap<u16, Page>, directory: &Path) -> Plan {
    let defaults = resolve(&typed.defaults, &Policy::default());
    let listeners = typed.listeners.iter().map(|(name, entry)| {
        let (address, trusted_proxies, health_path) = match entry {
            ListenerEntry::Short(address) => (address, Vec::new(), None),
            ListenerEntry::Full(l) => {
                (&l.address, l.trusted_proxies.iter().map(|b| b.0).collect(), l.health_path.clone())
            }
        };
        let address = joined(&address.0, directory);
        (name.clone(), Listener { name: name.clone(), address, trusted_proxies, health_path })
    });
    let clusters = typed.clusters.iter().map(|(name, cluster)| {
        let backends = cluster.backends.iter().map(|(id, entry)| {
            let full = match entry {
                BackendEntry::Short(address) => alone(address.clone()),
                BackendEntry::Full(full) => full.clone(),
            };
            BackendPlan {
                name: id.clone(),
                address: joined(&full.address.0, directory),
                weight: full.weight,
                backup: full.backup,
                max_conns: full.max_conns.unwrap_or(0),
            }
        });
        (name.clone(), ClusterPlan { backends: backends.collect(), policy: resolve(&cluster.policy, &defaults) })
    });
    let routes = typed.routes.iter().filter_map(|(key, entry)| {
        // Every key was parsed before; one that fails here cannot be.
        let (host, path) = route_key::parse(key).ok()?;
        Some((key.clone(), RoutePlan { host, path, cluster: entry.cluster().into() }))
    });
    Plan {
        listeners: listeners.collect(),
        clusters: clusters.collect(),
        routes: routes.collect(),
        settings: settings(typed, &defaults, pages, directory),
        workers: typed.workers.map(|n| n as usize),
        connections: typed.limits.connections.map(|n| n as usize),
        io: typed.io.into(),
        control_socket: typed.control.socket.as_ref().map(|p| directory.join(&p.0)),
        control_access: access(&typed.control),
        state_file: typed.state_file.as_ref().map(|p| directory.join(&p.0)),
        status_listen: typed.status.listen.as_ref().map(|address| joined(&address.0, directory)),
    }
}

/// A backend of which only the address was said.
fn alone(address: BackendAddress) -> file::Backend {
    file::Backend { address, weight: 1, backup: false, max_conns: None }
}

fn access(control: &file::Control) -> ControlAccess {
    let levels = control.uids.as_ref().map(|uids| {
        let read = uids.read.iter().map(|uid| (*uid, Level::Read));
        // The higher level counts.
        read.chain(uids.change.iter().map(|uid| (*uid, Level::Change))).collect()
    });
    ControlAccess { mode: control.mode.0, group: control.group.clone(), uids: levels }
}

fn settings(typed: &File, defaults: &Policy, pages: BTreeMap<u16, Page>, directory: &Path) -> Settings {
    Settings {
        listeners: Vec::new(),
        client_head_timeout: typed.client.head_timeout.0,
        client_idle_timeout: typed.client.idle_timeout.0,
        client_body_timeout: defaults.client_body_timeout,
        client_half_close: typed.client.half_close.into(),
        client_rate_min: defaults.client_rate_min,
        connections_per_worker: UNBUDGETED,
        pooled_per_worker: UNBUDGETED,
        pipes_per_worker: limits::PIPES_MAX,
        underscores: typed.headers.underscores.into(),
        via: typed.headers.via.clone(),
        pages,
        log_target: match typed.log.access.as_str() {
            "off" => LogTarget::Off,
            "stdout" => LogTarget::Stdout,
            path => LogTarget::File(directory.join(path)),
        },
        log_format: typed.log.format.into(),
        log_lines: LogLines {
            fields: LogFields::new(&typed.log.fields),
            sample: Share::new(typed.log.sample),
            slow_us: typed.log.slow.map(|slow| slow.0 * 1000),
        },
        recent: typed.log.recent,
        drain_timeout: typed.drain_timeout.0,
        retry_after: typed.retry_after.0,
        status_page: typed.status.page,
    }
}

fn joined(address: &Address, directory: &Path) -> Address {
    match address {
        Address::Unix(path) => Address::Unix(directory.join(path)),
        other => other.clone(),
    }
}

/// What the operator said, over what holds otherwise.
fn resolve(said: &file::Policy, otherwise: &Policy) -> Policy {
    let timeout = |said: Option<Patience>, otherwise| said.map_or(otherwise, |p| p.0);
    Policy {
        balance: said.balance.as_ref().map_or_else(|| otherwise.balance.clone(), balance),
        fail_open: said.fail_open.unwrap_or(otherwise.fail_open),
        connect_timeout: timeout(said.timeouts.connect, otherwise.connect_timeout),
        head_timeout: timeout(said.timeouts.head, otherwise.head_timeout),
        body_timeout: timeout(said.timeouts.body, otherwise.body_timeout),
        client_body_timeout: timeout(said.timeouts.client_body, otherwise.client_body_timeout),
        client_rate_min: said.client_rate_min.map_or(otherwise.client_rate_min, |s| s.0),
        tunnel_timeout: timeout(said.timeouts.tunnel, otherwise.tunnel_timeout),
        body_max: said.body_max.map_or(otherwise.body_max, |s| s.0),
        retries: said.retries.unwrap_or(otherwise.retries),
        retry_percent: said.retry_budget.percent.unwrap_or(otherwise.retry_percent),
        retry_min_per_second: said.retry_budget.min_per_second.unwrap_or(otherwise.retry_min_per_second),
        queue_max: said.queue.max.unwrap_or(otherwise.queue_max),
        queue_timeout: timeout(said.queue.timeout, otherwise.queue_timeout),
        pool_idle: timeout(said.pool.idle, otherwise.pool_idle),
        pool_max: said.pool.max.unwrap_or(otherwise.pool_max),
        health: health::resolve(said, &otherwise.health),
    }
}

fn balance(said: &file::Balance) -> Balance {
    match said {
        file::Balance::Word(BalanceWord::RoundRobin) => Balance::RoundRobin,
        file::Balance::Word(BalanceWord::Random) => Balance::Random,
        file::Balance::Word(BalanceWord::LeastConn) => Balance::LeastConn,
        file::Balance::Hash(said) => {
            let by = match &said.hash {
                HashKey::Word(HashWord::ClientIp) => HashBy::ClientIp,
                HashKey::Word(HashWord::Path) => HashBy::Path,
                HashKey::Named(HashName { header: Some(name), .. }) => HashBy::Header(name.0.clone()),
                // One of them is there, as `shape` has seen.
                HashKey::Named(HashName { cookie, .. }) => {
                    HashBy::Cookie(cookie.as_ref().map(|name| name.0.clone()).unwrap_or_default())
                }
            };
            Balance::Hash(Hash { by, bounded_load: said.bounded_load.unwrap_or(0) })
        }
    }
}

/// The inverse of [`balance`].
fn spelled_balance(balance: &Balance) -> file::Balance {
    match balance {
        Balance::RoundRobin => file::Balance::Word(BalanceWord::RoundRobin),
        Balance::Random => file::Balance::Word(BalanceWord::Random),
        Balance::LeastConn => file::Balance::Word(BalanceWord::LeastConn),
        Balance::Hash(hash) => {
            let named = |header, cookie| HashKey::Named(HashName { header, cookie });
            let key = match &hash.by {
                HashBy::ClientIp => HashKey::Word(HashWord::ClientIp),
                HashBy::Path => HashKey::Word(HashWord::Path),
                HashBy::Header(name) => named(Some(Token(name.clone())), None),
                HashBy::Cookie(name) => named(None, Some(Token(name.clone()))),
            };
            let bounded_load = (hash.bounded_load > 0).then_some(hash.bounded_load);
            file::Balance::Hash(HashBalance { hash: key, bounded_load })
        }
    }
}

/// The inverse of [`resolve`], with nothing left unsaid.
fn spelled(policy: &Policy) -> file::Policy {
    file::Policy {
        balance: Some(spelled_balance(&policy.balance)),
        fail_open: Some(policy.fail_open),
        timeouts: file::Timeouts {
            connect: Some(Patience(policy.connect_timeout)),
            head: Some(Patience(policy.head_timeout)),
            body: Some(Patience(policy.body_timeout)),
            client_body: Some(Patience(policy.client_body_timeout)),
            tunnel: Some(Patience(policy.tunnel_timeout)),
        },
        body_max: Some(Size(policy.body_max)),
        client_rate_min: Some(Rate(policy.client_rate_min)),
        retries: Some(policy.retries),
        retry_budget: file::RetryBudget {
            percent: Some(policy.retry_percent),
            min_per_second: Some(policy.retry_min_per_second),
        },
        queue: file::Queue { max: Some(policy.queue_max), timeout: Some(Patience(policy.queue_timeout)) },
        pool: file::Pool { idle: Some(Patience(policy.pool_idle)), max: Some(policy.pool_max) },
        health: health::spelled(&policy.health),
        probe: Some(health::spelled_probe(&policy.health.probe)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HalfClose, Io, LogField, LogFormat};
    use crate::http::head::Underscores;
    use crate::route::health_policy::*;
    use crate::route::table::OnTimeout;
    use std::sync::Arc;

    /// Path and text of a file of the repository.
    fn sample(path: &str) -> (String, String) {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    }

    fn load_sample(path: &str) -> Result<Plan, Faults> {
        let (path, text) = sample(path);
        load(&text, &path)
    }

    /// Line, column and path of every fault.
    fn places(faults: &Faults) -> Vec<(usize, usize, &str)> {
        faults.list.iter().map(|f| (f.line, f.column, f.path.as_str())).collect()
    }

    /// The minimal config with more keys.
    fn with(keys: &str) -> Result<Plan, Faults> {
        let text = format!(
            r#"{{"listeners": {{"a": "127.0.0.1:1"}}, "clusters": {{"c": {{"backends": {{}}}}}}, "routes": {{}}, {keys}}}"#
        );
        load(&text, "test.json")
    }

    #[test]
    fn the_minimal_file_gives_the_defaults() {
        let plan = load_sample("tests/data/config/minimal.json").unwrap();
        let app = &plan.clusters["app"];
        assert_eq!(app.policy, Policy::default());
        assert_eq!((app.backends[0].name.as_str(), app.backends[0].weight), ("b1", 1));
        assert_eq!(plan.routes["*"], RoutePlan { host: "*".into(), path: "/".into(), cluster: "app".into() });
        assert_eq!(plan.listeners["main"].address, Address::Ip("127.0.0.1:8080".parse().unwrap()));
        let s = &plan.settings;
        assert_eq!((s.client_head_timeout, s.client_idle_timeout, s.client_body_timeout), (10, 60, 30));
        assert_eq!((s.drain_timeout, s.retry_after, s.client_rate_min), (30, 10, 240));
        assert_eq!(
            (s.via.as_deref(), &s.log_target, s.underscores),
            (Some("ringway"), &LogTarget::Off, Underscores::Drop)
        );
        assert_eq!((plan.workers, plan.connections, plan.io), (None, None, Io::Auto));
        assert_eq!((plan.control_socket, plan.control_access.mode), (None, 0o660));
        assert_eq!((plan.status_listen, &plan.listeners["main"].health_path), (None, &None));
        let p = Policy::default();
        assert_eq!((p.connect_timeout, p.head_timeout, p.body_timeout, p.tunnel_timeout), (3, 30, 30, 3600));
        assert_eq!((p.pool_idle, p.retries, p.body_max, p.health.on_timeout), (4, 3, u64::MAX, OnTimeout::Silent));
        assert_eq!((p.retry_percent, p.retry_min_per_second, p.queue_max, p.queue_timeout), (20, 10, 1024, 30));
        assert_eq!(app.backends[0].max_conns, 0);
    }

    #[test]
    fn every_key_arrives() {
        let plan = load_sample("tests/data/config/everything.json").unwrap();
        let app = &plan.clusters["app"];
        let expected = Policy {
            balance: Balance::Random,
            fail_open: 50,
            connect_timeout: 1,
            head_timeout: 120,
            body_timeout: 60,
            client_body_timeout: 300,
            client_rate_min: 0,
            tunnel_timeout: 86_400,
            body_max: 10_000_000,
            retries: 0,
            retry_percent: 50,
            retry_min_per_second: 3,
            queue_max: 100,
            queue_timeout: 20,
            pool_idle: 55,
            pool_max: 8,
            health: HealthPolicy {
                on_timeout: OnTimeout::Any,
                failures: 5,
                statuses: StatusSet::default().with(502).with(503),
                rate: Some(FailureRate { percent: 30, requests: 50, within: 60 }),
                hold_down: 10,
                hold_down_max: 600,
                slow_start: 20,
                check: None,
                probe: Arc::default(),
            },
        };
        assert_eq!(app.policy, expected);
        assert_eq!(app.backends[0].weight, 3);
        assert_eq!(app.backends[1].address, Address::Name("app-2.internal".into(), 9002));
        assert_eq!(app.backends[2].address, Address::Unix("/run/app.sock".into()));
        assert_eq!(app.backends.iter().map(|b| b.backup).collect::<Vec<_>>(), [false, false, true, false]);
        assert_eq!(app.backends.iter().map(|b| b.max_conns).collect::<Vec<_>>(), [200, 0, 0, 0]);
        let empty = &plan.clusters["empty"].policy;
        let by_session = Balance::Hash(Hash { by: HashBy::Cookie("session".into()), bounded_load: 150 });
        assert_eq!((&empty.balance, empty.retries, empty.connect_timeout), (&by_session, 5, 1));
        let probe = ProbeRequest {
            method: "OPTIONS".into(),
            host: Some("app.internal".into()),
            headers: [("X-Probe".into(), "1".into())].into(),
            statuses: StatusSet::default().with_class(2).with(404),
            body: Some("well".into()),
            ..ProbeRequest::get("/health?full=1")
        };
        assert_eq!(*empty.health.probe, ProbeSpec { timeout: 2, request: Some(probe) });
        assert_eq!(empty.health.check, Some(Check { interval: 7, rise: 2, fall: 4 }));
        assert_eq!(plan.listeners["six"].trusted_proxies.len(), 3);
        assert_eq!(plan.listeners["six"].health_path.as_deref(), Some("/healthz"));
        assert!(matches!(&plan.status_listen, Some(Address::Unix(p)) if p.ends_with("config/run/status.sock")));
        let Address::Unix(path) = &plan.listeners["local"].address else { panic!() };
        assert!(path.ends_with("tests/data/config/run/ringway.sock"), "{path:?}");
        let access = &plan.control_access;
        let levels = BTreeMap::from([(7, Level::Change), (33, Level::Read)]);
        assert_eq!((access.group.as_deref(), access.uids.as_ref()), (Some("adm"), Some(&levels)));
        assert!(plan.state_file.is_some_and(|path| path.ends_with("tests/data/config/state/ringway.json")));
        assert_eq!(plan.routes["App.Example.io"].host, "app.example.io");
        assert_eq!(plan.routes["[2001:DB8::1]"].host, "[2001:db8::1]");
        assert_eq!((plan.workers, plan.connections, plan.io), (Some(2), Some(10_000), Io::Epoll));
        assert_eq!((plan.control_socket, plan.control_access.mode), (Some("/run/ringway/control.sock".into()), 0o600));
        let s = &plan.settings;
        assert_eq!((s.client_head_timeout, s.client_idle_timeout, s.client_half_close), (5, 120, HalfClose::Abort));
        assert_eq!((s.underscores, &s.via, s.drain_timeout, s.retry_after), (Underscores::Reject, &None, 0, 5));
        assert!(matches!(&s.log_target, LogTarget::File(p) if p.ends_with("access.log")));
        let fields = LogFields::new(&[LogField::Time, LogField::Path, LogField::RequestId]);
        assert_eq!(s.log_lines, LogLines { fields, sample: Share::new(0.25), slow_us: Some(1_500_000) });
        assert_eq!(s.log_format, LogFormat::Text);
        assert_eq!(s.pages[&502].content_type, "text/html; charset=utf-8");
        assert_eq!(s.pages[&404].body, b"Nothing here.\n");
    }

    #[test]
    fn faults_of_the_log() {
        let fault = |log: &str| {
            let faults = with(&format!(r#""log": {log}"#)).unwrap_err();
            assert_eq!(faults.list.len(), 1, "{faults}");
            faults.to_string().split_once(": ").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
        };
        for (log, said) in [
            (r#"{"fields": ["time", "durations_us"]}"#, "(did you mean \"duration_us\"?)"),
            (r#"{"fields": ["duration"]}"#, "$.log.fields[0]: expected one of \"time\", \"client\""),
            (
                r#"{"fields": ["time", "path", "time"]}"#,
                "$.log.fields[2]: the field \"time\" stands twice; the first is",
            ),
            (r#"{"fields": []}"#, "$.log.fields: lines without any field (leave the key out for the usual fields)"),
            (r#"{"fields": "time"}"#, "$.log.fields: expected an array, found a string"),
            (r#"{"sample": 1.01}"#, "$.log.sample: 1.01 is out of range (0 to 1)"),
            (r#"{"sample": -0.5}"#, "$.log.sample: -0.5 is out of range (0 to 1)"),
            (r#"{"sample": "1%"}"#, "$.log.sample: expected a number, found a string"),
            (r#"{"slow": "0s"}"#, "$.log.slow: everything takes longer than no time at all (write \"1s\")"),
            (r#"{"slow": 5}"#, "(write \"5s\")"),
        ] {
            let fault = fault(log);
            assert!(fault.contains(said), "{log}: {fault}");
        }
        let lines = with(r#""log": {"sample": 1e-3, "slow": null}"#).unwrap().settings.log_lines;
        assert_eq!(lines, LogLines { sample: Share::new(0.001), ..LogLines::default() });
    }

    #[test]
    fn seven_faults_of_seven_kinds_at_seven_places() {
        let faults = load_sample("tests/data/config/seven_faults.json").unwrap_err();
        let expected = [
            (2, 26, "$.listeners.main"),
            (5, 68, "$.clusters.app.backends.b1.weight"),
            (6, 7, "$.clusters.app.balanse"),
            (7, 18, "$.clusters.app.retries"),
            (8, 7, "$.clusters.app.retries"),
            (10, 12, "$.clusters.api"),
            (12, 20, "$.routes[\"*\"]"),
        ];
        assert_eq!(places(&faults), expected, "\n{faults}");
        let lines = faults.to_string();
        for part in [
            "(write \"127.0.0.1:8080\")",
            "0 is out of range (1 to 65535)",
            "unknown key \"balanse\" (did you mean \"balance\"?)",
            "expected an integer, found a string (write 3)",
            "the key \"retries\" stands twice; the first is at line 7, column 7 (remove one)",
            "missing key \"backends\"",
            "there is no cluster \"ap\" (did you mean \"app\"?)",
        ] {
            assert!(lines.contains(part), "{part}\n{lines}");
        }
    }

    #[test]
    fn faults_between_places_are_found_together() {
        let faults = load_sample("tests/data/config/semantic_faults.json").unwrap_err();
        let expected = [
            (2, 59, "$.listeners.b.address"),
            (2, 84, "$.listeners.c"),
            (6, 5, "$.routes[\"APP.example.io.\"]"),
            (7, 5, "$.routes[\"app.example.io:8080/x\"]"),
            (8, 36, "$.routes[\"web.example.io\"].cluster"),
            (12, 30, "$.limits.connections"),
            (13, 21, "$.pages.502"),
            (13, 47, "$.pages.504"),
        ];
        assert_eq!(places(&faults), expected, "\n{faults}");
        assert!(faults.to_string().contains("same route as \"app.example.io\"; the first is at line 5, column 5"));
    }

    #[test]
    fn show_gives_an_equal_plan_with_nothing_left_to_say() {
        for path in ["tests/data/config/minimal.json", "tests/data/config/everything.json", "config.json"] {
            let (path, text) = sample(path);
            let shown = show(&text, &path).unwrap();
            assert_eq!(load(&shown, &path), load(&text, &path), "{shown}");
            assert_eq!(show(&shown, &path).as_ref(), Ok(&shown));
            assert!(shown.contains("\"client_body\"") && shown.contains("\"weight\"") && shown.contains("\"workers\""));
        }
    }

    #[test]
    fn the_example_is_a_good_one() {
        let plan = load_sample("config.json").unwrap();
        assert_eq!((plan.listeners.len(), plan.clusters.len()), (2, 2));
        assert!(plan.routes.contains_key("*.web.example.io"));
        assert!(
            plan.listeners
                .values()
                .all(|l| matches!(l.address, Address::Ip(a) if a.ip().is_loopback() && a.port() > 1023))
        );
    }

    #[test]
    fn single_values_are_refused_where_they_stand() {
        for (keys, path) in [
            (r#""workers": 0"#, "$.workers"),
            (r#""workers": 1.5"#, "$.workers"),
            (r#""workers": -1"#, "$.workers"),
            (r#""workers": 1e2"#, "$.workers"),
            (r#""workers": 99999999999999999999999"#, "$.workers"),
            (r#""io": "urning""#, "$.io"),
            (r#""io": 1"#, "$.io"),
            (r#""defaults": {"balance": {}}"#, "$.defaults.balance"),
            (r#""defaults": {"balance": {"hash": "cookie"}}"#, "$.defaults.balance.hash"),
            (r#""defaults": {"balance": {"hash": 1}}"#, "$.defaults.balance.hash"),
            (r#""defaults": {"balance": {"hash": {}}}"#, "$.defaults.balance.hash"),
            (r#""defaults": {"balance": {"hash": {"header": "A", "cookie": "B"}}}"#, "$.defaults.balance.hash"),
            (r#""defaults": {"balance": {"hash": {"header": "A:"}}}"#, "$.defaults.balance.hash.header"),
            (r#""defaults": {"balance": {"hash": {"cookie": ""}}}"#, "$.defaults.balance.hash.cookie"),
            (r#""defaults": {"balance": {"hash": {"cookies": "a"}}}"#, "$.defaults.balance.hash.cookies"),
            (r#""defaults": {"balance": {"hash": "path", "bounded_load": 99}}"#, "$.defaults.balance.bounded_load"),
            (r#""defaults": {"fail_open": 101}"#, "$.defaults.fail_open"),
            (r#""statis": {}"#, "$.statis"),
            (r#""status": {"listen": "localhost:9180"}"#, "$.status.listen"),
            (r#""status": {"listen": "127.0.0.1:0"}"#, "$.status.listen"),
            (r#""status": {"listen": "127.0.0.1:1"}"#, "$.listeners.a"),
            (r#""defaults": {"timeouts": {"head": "0s"}}"#, "$.defaults.timeouts.head"),
            (r#""defaults": {"timeouts": {"head": 30}}"#, "$.defaults.timeouts.head"),
            (r#""defaults": {"timeouts": {"head": null}}"#, "$.defaults.timeouts.head"),
            (r#""defaults": {"retries": 16}"#, "$.defaults.retries"),
            (r#""defaults": {"retry_budget": {"percent": 1001}}"#, "$.defaults.retry_budget.percent"),
            (r#""defaults": {"retry_budget": {"min_per_second": -1}}"#, "$.defaults.retry_budget.min_per_second"),
            (r#""defaults": {"retry_budget": 20}"#, "$.defaults.retry_budget"),
            (r#""defaults": {"queue": {"max": 0}}"#, "$.defaults.queue.max"),
            (r#""defaults": {"queue": {"timeout": "0s"}}"#, "$.defaults.queue.timeout"),
            (r#""defaults": {"queue": {"timeout": 5}}"#, "$.defaults.queue.timeout"),
            (r#""defaults": {"queue": {"size": 5}}"#, "$.defaults.queue.size"),
            (r#""defaults": {"client_rate_min": "unlimited"}"#, "$.defaults.client_rate_min"),
            (r#""defaults": {"probe": "http"}"#, "$.defaults.probe"),
            (r#""defaults": {"probe": {"path": "health"}}"#, "$.defaults.probe.path"),
            (r#""defaults": {"probe": {}}"#, "$.defaults.probe"),
            (r#""defaults": {"probe": {"path": "/", "method": "get"}}"#, "$.defaults.probe.method"),
            (r#""defaults": {"probe": {"path": "/", "host": "a b"}}"#, "$.defaults.probe.host"),
            (r#""defaults": {"probe": {"path": "/", "headers": {"Host": "a"}}}"#, "$.defaults.probe.headers.Host"),
            (r#""defaults": {"probe": {"path": "/", "headers": {"A": "\r\nB: c"}}}"#, "$.defaults.probe.headers.A"),
            (r#""defaults": {"probe": {"path": "/", "statuses": []}}"#, "$.defaults.probe.statuses"),
            (r#""defaults": {"probe": {"path": "/", "statuses": [100]}}"#, "$.defaults.probe.statuses[0]"),
            (r#""defaults": {"probe": {"path": "/", "body": ""}}"#, "$.defaults.probe.body"),
            (r#""defaults": {"probe": {"path": "/", "body": "x", "method": "HEAD"}}"#, "$.defaults.probe.body"),
            (r#""defaults": {"health": {"failures": 0}}"#, "$.defaults.health.failures"),
            (r#""defaults": {"health": {"statuses": [502, "5xy"]}}"#, "$.defaults.health.statuses[1]"),
            (r#""defaults": {"health": {"rate": {"percent": 101}}}"#, "$.defaults.health.rate.percent"),
            (r#""defaults": {"health": {"rate": "on"}}"#, "$.defaults.health.rate"),
            (r#""defaults": {"health": {"hold_down": "0s"}}"#, "$.defaults.health.hold_down"),
            (r#""defaults": {"health": {"check": {"rise": 0}}}"#, "$.defaults.health.check.rise"),
            (r#""defaults": {"health": {"check": {"intervall": "1s"}}}"#, "$.defaults.health.check.intervall"),
            (r#""defaults": {"backends": {}}"#, "$.defaults.backends"),
            (r#""control": {"mode": "rw"}"#, "$.control.mode"),
            (r#""headers": {"via": "a b"}"#, "$.headers.via"),
            (r#""log": {"access": "stdot"}"#, "$.log.access"),
            (r#""pages": {"200": "x.html"}"#, "$.pages.200"),
            (r#""pages": {"502": "/dev/zero.html"}"#, "$.pages.502"),
            (r#""limits": {"connections": 0}"#, "$.limits.connections"),
            (r#""drain_timeout": "366d""#, "$.drain_timeout"),
            (r#""listeners": []"#, "$.listeners"),
        ] {
            let faults = with(keys).unwrap_err();
            assert!(faults.list.iter().all(|f| f.path == path), "{keys}: {faults}");
            assert!(faults.list.len() <= 2, "{keys}: {faults}");
        }
    }

    #[test]
    fn health_paths_are_paths() {
        for (path, good) in [("/", true), ("/healthz", true), ("healthz", false), ("/a?b", false), ("/a b", false)] {
            let listeners = format!(r#"{{"a": {{"address": "127.0.0.1:1", "health_path": "{path}"}}}}"#);
            let text = format!(r#"{{"listeners": {listeners}, "clusters": {{}}, "routes": {{}}}}"#);
            match load(&text, "test.json") {
                Ok(plan) => assert_eq!((plan.listeners["a"].health_path.as_deref(), good), (Some(path), true)),
                Err(faults) => {
                    assert!(!good && places(&faults)[0].2 == "$.listeners.a.health_path", "{faults}");
                }
            }
        }
    }

    #[test]
    fn a_status_listener_that_others_reach_is_warned_of() {
        for (address, warned) in [
            ("127.0.0.1:9180", false),
            ("127.3.2.1:9180", false),
            ("[::1]:9180", false),
            ("unix:/run/status.sock", false),
            ("0.0.0.0:9180", true),
            ("192.0.2.1:9180", true),
            ("[::]:9180", true),
        ] {
            let plan = with(&format!(r#""status": {{"listen": "{address}"}}"#)).unwrap();
            let warnings = plan.warnings();
            assert_eq!(warnings.iter().any(|w| w.starts_with("$.status.listen: ")), warned, "{address}");
        }
        assert!(with(r#""status": {"listen": null}"#).unwrap().warnings().is_empty());
    }

    #[test]
    fn what_only_a_second_parser_sees_has_a_place_too() {
        // A raw tab in a string, white space that JSON does not know, and number forms.
        for text in
            ["{\n\"\t\": 1}", "{\u{a0}}", "\u{b}{}", "[1]", "3", "{\"workers\": 01}", "\0", "\"", "{\"\\ud800\":1}"]
        {
            let faults = load(text, "x").unwrap_err();
            assert!(
                !faults.list.is_empty() && faults.list.iter().all(|f| f.line > 0 && f.column > 0),
                "{text:?}: {faults}"
            );
        }
        let (_, text) = sample("tests/data/config/minimal.json");
        let faults = load(&text.replacen("  \"routes\"", "\u{a0}\"routes\"", 1), "x").unwrap_err();
        assert_eq!(places(&faults), [(4, 1, "$")], "{faults}");
    }

    #[test]
    fn a_machine_too_small_is_refused_at_the_key() {
        let (path, text) = sample("tests/data/config/everything.json");
        let faults = load_for(&text, &path, 8, 1024).unwrap_err();
        let line = text.lines().position(|line| line.contains("\"limits\"")).unwrap() + 1;
        assert_eq!(places(&faults), [(line, 30, "$.limits.connections")], "{faults}");
        let plan = load_for(&text, &path, 8, 65_536).unwrap();
        assert_eq!((plan.settings.connections_per_worker, plan.settings.pooled_per_worker), (5000, 32));
    }

    #[test]
    fn the_schema_is_json_and_names_every_top_key() {
        let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
        let (_, text) = sample("tests/data/config/everything.json");
        let everything: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys =
            |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(keys(&schema["properties"]), keys(&everything));
    }

    proptest::proptest! {
        /// Whatever is cut from or put into a good file: a plan, or faults with places inside the text.
        #[test]
        fn mutations_never_surprise(at in 0usize..2200, cut in 0usize..12, put in "[\\[\\]{}\",:0-9a-zü \\n\\\\]{0,6}") {
            let (path, text) = sample("tests/data/config/everything.json");
            let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
            let end = (0..=(at + cut).min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
            let mutated = format!("{}{put}{}", &text[..at], &text[end..]);
            let lines = mutated.split('\n').count();
            match load(&mutated, &path) {
                Ok(plan) => assert_eq!(load(&show(&mutated, &path).unwrap(), &path).unwrap(), plan),
                Err(faults) => {
                    assert!(!faults.list.is_empty());
                    for fault in &faults.list {
                        assert!((1..=lines).contains(&fault.line), "{faults}");
                        let line = mutated.split('\n').nth(fault.line - 1).unwrap();
                        assert!((1..=line.chars().count() + 1).contains(&fault.column), "{faults}");
                    }
                }
            }
        }
    }
}
