//! From the lists of a Hipache to a config.
//!
//! A list becomes a route (its host) and a cluster (its backends), named after the identifier at its head. Lists with the
//! same identifier and the same backends share one cluster. A URL that stands there several times is one backend of that
//! weight: that is how a Hipache was given weights. The config's health keys say what a Hipache does.

use super::note::{Note, Place, shown};
use super::store::{Element, List, Store};
use crate::config::check;
use crate::config::fault::Faults;
use crate::config::file::{Backend, BackendEntry, Cluster, Control, File, Health, ListenerEntry, Policy};
use crate::config::file::{RouteEntry, StatusEntry};
use crate::config::words::{BackendAddress, FilePath, ListenAddress, OnTimeoutWord, Patience};
use crate::config::{Address, brief, route_key, value};
use crate::limits;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// The port of a URL that names none.
const PORT: u16 = 80;
/// Bytes of a name of the config.
const NAME_BYTES_MAX: usize = 128;
/// A name where the identifier gives none.
const NAMELESS: &str = "app";

/// What the user wants beside the lists.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The database that is taken.
    pub database: u64,
    /// Where the config is to listen.
    pub listen: Address,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The config, as JSON that `ringway check` takes for good; none if there is no list that a Hipache would look for.
    pub config: Option<String>,
    /// What there is to know, first of reading, then in the order of keys.
    pub notes: Vec<Note>,
    /// Routes, clusters and backends of the config.
    pub counts: (usize, usize, usize),
}

/// Makes a config of all that was read.
///
/// # Errors
/// The config does not pass its own check: it is too large, say.
pub fn import(store: Store, wish: &Wish) -> Result<Imported, Faults> {
    let (lists, notes) = store.finish(wish.database);
    let mut mapping = Mapping { notes, ..Mapping::default() };
    for (host, list) in ordered(lists) {
        mapping.add(&host, &list);
    }
    let Mapping { notes, clusters, routes, .. } = mapping;
    if routes.is_empty() {
        return Ok(Imported { config: None, notes, counts: (0, 0, 0) });
    }
    let counts = (routes.len(), clusters.len(), clusters.values().map(|cluster| cluster.backends.len()).sum());
    let file = File {
        listeners: [("main".into(), ListenerEntry::Short(ListenAddress(wish.listen.clone())))].into(),
        clusters,
        routes: routes.into_iter().map(|(key, (cluster, _))| (key, RouteEntry::Short(cluster))).collect(),
        defaults: Policy { health: health(), ..Policy::default() },
        // What a Hipache's Redis was for: changes while it runs, and that they stay.
        control: Control { socket: Some(FilePath("ringway.sock".into())), ..Control::default() },
        state_file: Some(FilePath("ringway.state".into())),
        ..File::default()
    };
    let config = brief::text(&file);
    check::load(&config, "the config")?;
    Ok(Imported { config: Some(config), notes, counts })
}

/// Hipache's rules: one failure is enough, so is any response that takes too long, and some statuses; then a rest of 30 s,
/// always the same. A Hipache counts 501 to 599; these are the ones that happen.
fn health() -> Health {
    Health {
        failures: Some(1),
        on_timeout: Some(OnTimeoutWord::Any),
        statuses: Some([501, 502, 503, 504].map(StatusEntry::One).into()),
        hold_down_max: Some(Patience(limits::HOLD_DOWN_SECONDS)),
        ..Health::default()
    }
}

/// Of hosts that differ only in case, the one in lower case first: it is what a Hipache finds for nearly all clients.
fn ordered(mut lists: Vec<(Vec<u8>, List)>) -> Vec<(Vec<u8>, List)> {
    lists.sort_by_cached_key(|(host, _)| (host.to_ascii_lowercase(), host.iter().any(u8::is_ascii_uppercase)));
    lists
}

/// The backends of a list: addresses in the order in which they first stand there, each with its weight.
type Weighed = Vec<(Address, u32)>;

/// What a cluster is made of: an identifier, and backends with their weights in any order.
type MadeOf = (Vec<u8>, BTreeSet<(Address, u32)>);

#[derive(Default)]
struct Mapping {
    notes: Vec<Note>,
    clusters: BTreeMap<String, Cluster>,
    /// Route to cluster and the key that it came from.
    routes: BTreeMap<String, (String, String)>,
    /// Names of clusters by what they are made of.
    known: BTreeMap<MadeOf, String>,
    /// The number to try next behind a name that is taken.
    numbers: BTreeMap<String, usize>,
}

impl Mapping {
    fn note(&mut self, place: &Place, host: &[u8], left_out: bool, message: impl Into<String>) {
        let key = format!("frontend:{}", shown(host));
        self.notes.push(Note { place: place.clone(), key, message: message.into(), left_out });
    }

    fn add(&mut self, host: &[u8], list: &List) {
        let mut elements = list.elements.iter();
        // No list of Redis is empty.
        let Some(identifier) = elements.next() else { return };
        let route = match route_of(host) {
            Ok(route) => route,
            Err(why) => return self.note(&list.place, host, true, why),
        };
        let backends = self.backends(host, elements);
        if backends.is_empty() {
            self.note(&list.place, host, false, "it has no backend: requests are answered with 503 until one is added");
        }
        let name = self.cluster(host, identifier, backends);
        let key = shown(host);
        match self.routes.entry(route) {
            Entry::Vacant(free) => drop(free.insert((name, key))),
            Entry::Occupied(taken) => {
                let (cluster, first) = taken.get().clone();
                let same = cluster == name;
                let message = format!(
                    "frontend:{first} is the same host, as letters have no case in it; {}",
                    if same { "both say the same" } else { "that one is taken" }
                );
                self.note(&list.place, host, !same, message);
                self.forget_unused(&name);
            }
        }
    }

    /// Takes a cluster away to which no route leads.
    fn forget_unused(&mut self, name: &str) {
        if !self.routes.values().any(|(cluster, _)| cluster == name) {
            self.clusters.remove(name);
            self.known.retain(|_, known| known != name);
        }
    }

    fn backends<'e>(&mut self, host: &[u8], elements: impl Iterator<Item = &'e Element>) -> Weighed {
        let mut found: Weighed = Vec::new();
        let mut index: BTreeMap<Address, usize> = BTreeMap::new();
        for element in elements {
            let (address, beside) = match address_of(&element.bytes) {
                Ok(url) => url,
                Err(why) => {
                    self.note(&element.place, host, true, why);
                    continue;
                }
            };
            if let Some(beside) = beside {
                self.note(&element.place, host, true, beside);
            }
            match index.entry(address.clone()) {
                Entry::Vacant(free) => {
                    free.insert(found.len());
                    found.push((address, 1));
                }
                Entry::Occupied(at) => match found.get_mut(*at.get()) {
                    Some((_, weight)) if *weight < limits::WEIGHT_MAX => *weight += 1,
                    _ => {
                        let message =
                            format!("it stands there more than {} times, which no weight is", limits::WEIGHT_MAX);
                        self.note(&element.place, host, true, message);
                    }
                },
            }
        }
        found
    }

    /// The name of the cluster with this identifier and these backends, which is made if there is none.
    fn cluster(&mut self, host: &[u8], identifier: &Element, backends: Weighed) -> String {
        let made_of = (identifier.bytes.clone(), backends.iter().cloned().collect());
        if let Some(name) = self.known.get(&made_of) {
            return name.clone();
        }
        let plain = plain_name(&identifier.bytes);
        let mut name = plain.clone();
        while self.clusters.contains_key(&name) {
            let number = self.numbers.entry(plain.clone()).or_insert(1);
            *number += 1;
            let end = format!("-{number}");
            name = format!("{}{end}", &plain[..plain.len().min(NAME_BYTES_MAX - end.len())]);
        }
        if plain.as_bytes() != identifier.bytes {
            let message = format!("the identifier {:?} becomes the name {name}", shown(&identifier.bytes));
            self.note(&identifier.place, host, false, message);
        } else if name != plain {
            let message = format!("{plain} is the identifier of other backends, too: here it becomes the name {name}");
            self.note(&identifier.place, host, false, message);
        }
        let numbered = backends.into_iter().enumerate();
        let backends = numbered.map(|(i, (address, weight))| (format!("b{}", i + 1), entry(address, weight))).collect();
        self.clusters.insert(name.clone(), Cluster { backends, policy: Policy::default() });
        self.known.insert(made_of, name.clone());
        name
    }
}

fn entry(address: Address, weight: u32) -> BackendEntry {
    let address = BackendAddress(address);
    if weight == 1 {
        return BackendEntry::Short(address);
    }
    BackendEntry::Full(Backend { address, weight, backup: false, max_conns: None })
}

/// The identifier as a name that the config takes.
fn plain_name(identifier: &[u8]) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = String::from_utf8_lossy(identifier).chars().map(plain).take(NAME_BYTES_MAX).collect();
    if name.is_empty() { NAMELESS.into() } else { name }
}

/// The key of a route to this host, or why there is none.
fn route_of(host: &[u8]) -> Result<String, String> {
    let Ok(text) = std::str::from_utf8(host) else { return Err("the host is no text".into()) };
    if text.contains('/') {
        return Err("a Hipache knows no paths, and never finds it".into());
    }
    let (host, _) = route_key::parse(text).map_err(|why| why.to_string())?;
    Ok(host)
}

/// The address of a backend's URL, and what else it says that is left out; or why it cannot be a backend.
fn address_of(url: &[u8]) -> Result<(Address, Option<String>), String> {
    let said = without_user(url);
    let Ok(text) = std::str::from_utf8(url) else { return Err(format!("the backend {said} is no text")) };
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!(
            "the backend {said} has no scheme, and a Hipache answers 502 for it (it should begin with http://)"
        ));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => return Err(format!("the backend {said}: Ringway speaks no TLS with backends yet")),
        _ => return Err(format!("the backend {said}: its scheme is not http")),
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
    let bare = place.strip_suffix(':').unwrap_or(place);
    let named = bare.rfind(':').is_some_and(|at| !bare[at..].contains(']'));
    let full = if named { bare.to_string() } else { format!("{bare}:{PORT}") };
    if full.starts_with("unix:") {
        return Err(format!("the backend {said}: \"unix\" is no host"));
    }
    let address = value::address(&full).map_err(|why| format!("the backend {said}: {why}"))?;
    let beside = match (user.is_some(), behind.trim_start_matches('/').is_empty()) {
        (false, true) => None,
        (true, _) => {
            Some(format!("user and password in the URL of backend {full}, which a Hipache does not send either"))
        }
        (false, false) => {
            Some(format!("{} behind the backend {full}, which a Hipache does not use either", shown(behind.as_bytes())))
        }
    };
    Ok((address, beside))
}

/// A URL as it may be shown: nobody's password.
fn without_user(url: &[u8]) -> String {
    let text = shown(url);
    let begin = text.find("://").map_or(0, |at| at + 3);
    let end = text[begin..].find(['/', '?', '#']).map_or(text.len(), |at| begin + at);
    match text[begin..end].rfind('@') {
        Some(at) => format!("{}{}", &text[..begin], &text[begin + at + 1..]),
        None => text,
    }
}
