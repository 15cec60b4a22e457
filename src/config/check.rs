//! From text to [`Plan`]: the one way in. A file with faults gives all of them; a faultless one gives a plan with every
//! default filled in.

use super::budget;
use super::fault::{Faults, Findings, Step};
use super::file::{self, BackendEntry, File, ListenerEntry, Probe, RouteEntry};
use super::place::{self, member};
use super::value::Refusal;
use super::words::{Patience, Rate, Size};
use super::{Address, BackendPlan, ClusterPlan, Listener, LogTarget, Page, Plan, RoutePlan, Settings};
use super::{cross, pages, route_key, shape};
use crate::limits;
use crate::route::table::Policy;
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
            *entry = ListenerEntry::Full(file::Listener { address: address.clone(), trusted_proxies: Vec::new() });
        }
    }
    for cluster in typed.clusters.values_mut() {
        cluster.policy = spelled(&resolve(&cluster.policy, &defaults));
        for entry in cluster.backends.values_mut() {
            if let BackendEntry::Short(address) = entry {
                *entry = BackendEntry::Full(file::Backend { address: address.clone(), weight: 1 });
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

fn pretty(value: &impl serde::Serialize) -> String {
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
        let (address, trusted_proxies) = match entry {
            ListenerEntry::Short(address) => (address, Vec::new()),
            ListenerEntry::Full(l) => (&l.address, l.trusted_proxies.iter().map(|b| b.0).collect()),
        };
        (name.clone(), Listener { name: name.clone(), address: joined(&address.0, directory), trusted_proxies })
    });
    let clusters = typed.clusters.iter().map(|(name, cluster)| {
        let backends = cluster.backends.iter().map(|(id, entry)| {
            let (address, weight) = match entry {
                BackendEntry::Short(address) => (address, 1),
                BackendEntry::Full(b) => (&b.address, b.weight),
            };
            BackendPlan { name: id.clone(), address: joined(&address.0, directory), weight }
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
        control_mode: typed.control.mode.0,
    }
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
        underscores: typed.headers.underscores.into(),
        via: typed.headers.via.clone(),
        pages,
        log_target: match typed.log.access.as_str() {
            "off" => LogTarget::Off,
            "stdout" => LogTarget::Stdout,
            path => LogTarget::File(directory.join(path)),
        },
        log_format: typed.log.format.into(),
        drain_timeout: typed.drain_timeout.0,
        retry_after: typed.retry_after.0,
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
        balance: said.balance.map_or(otherwise.balance, Into::into),
        connect_timeout: timeout(said.timeouts.connect, otherwise.connect_timeout),
        head_timeout: timeout(said.timeouts.head, otherwise.head_timeout),
        body_timeout: timeout(said.timeouts.body, otherwise.body_timeout),
        client_body_timeout: timeout(said.timeouts.client_body, otherwise.client_body_timeout),
        client_rate_min: said.client_rate_min.map_or(otherwise.client_rate_min, |s| s.0),
        tunnel_timeout: timeout(said.timeouts.tunnel, otherwise.tunnel_timeout),
        body_max: said.body_max.map_or(otherwise.body_max, |s| s.0),
        retries: said.retries.unwrap_or(otherwise.retries),
        pool_idle: timeout(said.pool.idle, otherwise.pool_idle),
        pool_max: said.pool.max.unwrap_or(otherwise.pool_max),
        on_timeout: said.health.on_timeout.map_or(otherwise.on_timeout, Into::into),
        probe_path: match &said.probe {
            None => otherwise.probe_path.clone(),
            Some(Probe::Connect(_)) => None,
            Some(Probe::Http(probe)) => Some(probe.path.clone()),
        },
    }
}

/// The inverse of [`resolve`], with nothing left unsaid.
fn spelled(policy: &Policy) -> file::Policy {
    file::Policy {
        balance: Some(policy.balance.into()),
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
        pool: file::Pool { idle: Some(Patience(policy.pool_idle)), max: Some(policy.pool_max) },
        health: file::Health { on_timeout: Some(policy.on_timeout.into()) },
        probe: Some(match &policy.probe_path {
            None => Probe::Connect(file::Connect::Connect),
            Some(path) => Probe::Http(file::HttpProbe { path: path.clone() }),
        }),
    }
}
