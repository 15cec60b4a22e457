//! The route table: host, then path, to a cluster (docs/CONFIG.md, "routes").

use super::counts::ClusterEnds;
use super::health::Cells;
use super::health_policy::HealthPolicy;
use super::host::{self, Pattern};
use super::paths::{self, NewPrefix, Paths};
use super::waits::Waits;
use super::{BackendId, ClusterId, Endpoint};
use crate::limits;
use crate::limits::HOST_BYTES_MAX;
use rustc_hash::FxHashMap;
use std::fmt;
use std::sync::Arc;

/// How a cluster picks a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, staggered per core.
    #[default]
    RoundRobin,
    /// Weighted random.
    Random,
    /// The less loaded of two random backends.
    LeastConn,
    /// The same key to the same backend.
    Hash(Hash),
}

/// How a cluster keeps requests that belong together with one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash {
    /// What belongs together.
    pub by: HashBy,
    /// Percent of its share by weight that a backend may have before requests go elsewhere; 0 is no bound.
    pub bounded_load: u32,
}

/// What is the key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address, by the listener's trusted proxies.
    ClientIp,
    /// The path as sent, without the query.
    Path,
    /// The value of the first field of this name (case does not matter) that is not empty.
    Header(Box<str>),
    /// The value of the first cookie of this name that is not empty.
    Cookie(Box<str>),
}

/// When a response timeout marks a backend down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTimeout {
    /// Only if no response head came from it since the request was sent.
    #[default]
    Silent,
    /// Any response timeout does.
    Any,
}

/// Ticks (seconds) and sizes that govern one cluster's exchanges; all resolved, no defaults left.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// See [`Balance`].
    pub balance: Balance,
    /// Percent of the primaries that have to be up, or those that are down get requests, too; 0 is never.
    pub fail_open: u32,
    /// Seconds to connect.
    pub connect_timeout: u32,
    /// Seconds from the request sent to the response head.
    pub head_timeout: u32,
    /// Seconds of silence of the backend: in a response body, or while it takes no bytes of a request's.
    pub body_timeout: u32,
    /// Seconds of silence of the client: in a request body, or while it takes no bytes of a response's.
    pub client_body_timeout: u32,
    /// Bytes per second a request body must come with after the grace; 0 is off.
    pub client_rate_min: u64,
    /// Seconds of silence in a tunnel.
    pub tunnel_timeout: u32,
    /// Largest request body in bytes; [`u64::MAX`] is no limit.
    pub body_max: u64,
    /// Attempts after the first.
    pub retries: u32,
    /// Retries per hundred requests that the cluster affords.
    pub retry_percent: u32,
    /// Retries a second that it affords beside those, all cores together.
    pub retry_min_per_second: u32,
    /// Requests that may wait for their turn, all cores together.
    pub queue_max: u32,
    /// Seconds that one may wait.
    pub queue_timeout: u32,
    /// Seconds a pooled connection may idle.
    pub pool_idle: u32,
    /// Idle connections kept per backend and core.
    pub pool_max: u32,
    /// When a backend counts as down, and how it is probed.
    pub health: HealthPolicy,
}

impl Default for Policy {
    /// What governs where the operator says nothing.
    fn default() -> Policy {
        Policy {
            balance: Balance::default(),
            fail_open: 0,
            connect_timeout: limits::CONNECT_SECONDS,
            head_timeout: limits::BACKEND_HEAD_SECONDS,
            body_timeout: limits::BODY_SECONDS,
            client_body_timeout: limits::BODY_SECONDS,
            client_rate_min: limits::CLIENT_RATE_MIN,
            tunnel_timeout: limits::TUNNEL_SECONDS,
            body_max: u64::MAX,
            retries: limits::RETRIES,
            retry_percent: limits::RETRY_PERCENT,
            retry_min_per_second: limits::RETRY_MIN_PER_SECOND,
            queue_max: limits::QUEUE_MAX,
            queue_timeout: limits::QUEUE_SECONDS,
            pool_idle: limits::POOL_IDLE_SECONDS,
            pool_max: limits::POOL_DEFAULT,
            health: HealthPolicy::default(),
        }
    }
}

/// One endpoint of a cluster.
#[derive(Debug)]
pub struct Backend {
    /// Identity over reloads.
    pub id: BackendId,
    /// The operator's id, the key in `backends`.
    pub name: String,
    /// Where to connect.
    pub endpoint: Endpoint,
    /// As configured, at least 1. Balancers go by the weight in the published state.
    pub weight: u32,
    /// Takes requests only when no other one of its cluster can.
    pub backup: bool,
    /// Exchanges it may have at once; 0 is no limit.
    pub max_conns: u32,
    /// What the cores count, kept over reloads.
    pub cells: Arc<Cells>,
}

/// The backends behind one application.
#[derive(Debug)]
pub struct Cluster {
    /// Identity over reloads.
    pub id: ClusterId,
    /// The operator's name.
    pub name: String,
    /// May be empty: every request is then answered with 503.
    pub backends: Vec<Backend>,
    /// Index of `backends[0]` in the snapshot's states; `backends[i]` has `first_state + i`.
    pub first_state: usize,
    /// What governs its exchanges.
    pub policy: Policy,
    /// How its exchanges ended, kept over reloads.
    pub ends: Arc<ClusterEnds>,
    /// Its waiting requests as the cores count them, kept over reloads.
    pub waits: Arc<Waits>,
}

/// One route as configured.
#[derive(Debug)]
pub struct Route {
    /// `host/path` as the operator wrote it.
    pub name: String,
    /// Where it leads.
    pub cluster: Arc<Cluster>,
}

/// One route before it is in a table.
#[derive(Clone, Debug)]
pub struct NewRoute {
    /// `host/path` as the operator wrote it; the route's name.
    pub name: String,
    /// Exact name, `*.suffix`, `*`, or an IPv6 literal in brackets. Case and one trailing dot do not matter.
    pub host: String,
    /// The path prefix; empty means `/`.
    pub path: String,
    /// Where it leads; one of the table's clusters.
    pub cluster: Arc<Cluster>,
}

/// Why a route cannot be in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRoute {
    /// [`NewRoute::name`].
    pub route: String,
    /// What is wrong, for the operator.
    pub why: String,
}

impl fmt::Display for BadRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {:?}: {}", self.route, self.why)
    }
}

/// The immutable table: exact host, else longest wildcard, else default; then the longest path prefix at segment
/// boundaries, on raw bytes.
#[derive(Debug, Default)]
pub struct RouteTable {
    clusters: Box<[Arc<Cluster>]>,
    by_id: FxHashMap<ClusterId, usize>,
    routes: Box<[Route]>,
    pub(super) exact: FxHashMap<Box<[u8]>, Paths>,
    /// By what stands behind `*.`.
    pub(super) wildcards: FxHashMap<Box<[u8]>, Paths>,
    /// Bit n: there is a wildcard whose suffix has n labels. Most tables have wildcards of one or two lengths, so that
    /// a host costs one or two look-ups however many labels it has.
    wildcard_labels: u128,
    pub(super) default: Option<Paths>,
}

impl RouteTable {
    /// Makes the table. The order of `routes` does not matter; `clusters` are in the order of their states.
    ///
    /// # Errors
    /// All routes that have a host or path that can never match, or that say the same as another.
    pub fn build(clusters: Vec<Arc<Cluster>>, mut routes: Vec<NewRoute>) -> Result<RouteTable, Vec<BadRoute>> {
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hosts: FxHashMap<Pattern, Vec<NewPrefix>> = FxHashMap::default();
        let mut bad = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            match (host::pattern(&route.host), paths::check(&route.path)) {
                (Ok(pattern), Ok(path)) => hosts.entry(pattern).or_default().push((path.into(), index as u32)),
                (Err(why), _) | (_, Err(why)) => bad.push(BadRoute { route: route.name.clone(), why: why.into() }),
            }
        }
        let mut table = RouteTable::default();
        for (pattern, prefixes) in hosts {
            let paths = match Paths::build(prefixes) {
                Ok(paths) => paths,
                Err(pairs) => {
                    bad.extend(pairs.into_iter().map(|(first, second)| BadRoute {
                        route: routes[second as usize].name.clone(),
                        why: format!("says the same as {:?}", routes[first as usize].name),
                    }));
                    continue;
                }
            };
            table.insert(pattern, paths);
        }
        if !bad.is_empty() {
            bad.sort_by(|a, b| a.route.cmp(&b.route));
            return Err(bad);
        }
        table.by_id = clusters.iter().enumerate().map(|(i, c)| (c.id, i)).collect();
        table.clusters = clusters.into();
        table.routes = routes.into_iter().map(|r| Route { name: r.name, cluster: r.cluster }).collect();
        table.invariants();
        Ok(table)
    }

    /// Finds the route. `host` is the host as sent: no port; case and one trailing dot do not matter; IPv6 literals in
    /// brackets, in any spelling. `path` is the raw path without query; one that does not begin with `/` (empty, or the
    /// `*` of OPTIONS) is looked up as `/`. Allocates nothing.
    ///
    /// The host decides first, and alone: exact name, else the longest wildcard (`*.a.b` matches one or more labels
    /// before `.a.b`, never `a.b`), else the default `*`. There is no way back from it: a host that has only `/api`
    /// finds nothing for `/`, even if a wildcard or the default has a `/`. So what an operator writes for one host is
    /// all that happens to it, and a new default never changes what an existing host answers.
    ///
    /// Then the longest prefix: `/api` matches `/api` and all below `/api/`, not `/apix`; `/api/` matches only what
    /// begins with `/api/`, so not `/api`. Bytes are compared as they are: no case folding, no percent-decoding.
    #[inline]
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<&Route> {
        self.routes.get(self.paths_of(host)?.find(path)?)
    }

    /// All clusters, by [`Cluster::first_state`].
    pub fn clusters(&self) -> &[Arc<Cluster>] {
        &self.clusters
    }

    /// The cluster with this identity: what an exchange that outlives its table goes on with.
    pub fn cluster(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.by_id.get(&id).map(|i| &self.clusters[*i])
    }

    /// All routes, in the order of their names.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Length that the states of a snapshot with this table have.
    pub fn state_count(&self) -> usize {
        self.clusters.last().map_or(0, |c| c.first_state + c.backends.len())
    }

    fn insert(&mut self, pattern: Pattern, paths: Paths) {
        match pattern {
            Pattern::Exact(name) => {
                self.exact.insert(name, paths);
            }
            Pattern::Wildcard(suffix) => {
                self.wildcard_labels |= 1 << host::labels(&suffix);
                self.wildcards.insert(suffix, paths);
            }
            Pattern::Default => self.default = Some(paths),
        }
    }

    fn paths_of(&self, host: &[u8]) -> Option<&Paths> {
        let mut buffer = [0; HOST_BYTES_MAX];
        if let Some(key) = host::key(host, &mut buffer) {
            if let Some(paths) = self.exact.get(key) {
                return Some(paths);
            }
            if self.wildcard_labels != 0
                && let Some(paths) = self.wildcard_of(key)
            {
                return Some(paths);
            }
        }
        self.default.as_ref()
    }

    /// Tries the suffixes behind each dot, the longest first, but only those of a length that exists.
    fn wildcard_of(&self, key: &[u8]) -> Option<&Paths> {
        for (labels, suffix) in host::suffixes(key) {
            // A suffix of more labels than bits is in no table.
            if labels < u128::BITS as usize
                && self.wildcard_labels >> labels & 1 == 1
                && let Some(paths) = self.wildcards.get(suffix)
            {
                return Some(paths);
            }
        }
        None
    }

    /// States are numbered without gap or overlap, and routes lead to clusters of this table.
    fn invariants(&self) {
        let mut next = 0;
        for cluster in &self.clusters {
            assert_eq!(cluster.first_state, next, "states of {} begin where those before end", cluster.name);
            next += cluster.backends.len();
        }
        assert_eq!(self.by_id.len(), self.clusters.len(), "cluster ids are unique");
        assert!(self.routes.iter().all(|r| self.by_id.contains_key(&r.cluster.id)), "routes lead to known clusters");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The policy of a cluster that says nothing.
    pub(crate) fn policy(balance: Balance) -> Policy {
        Policy { balance, pool_max: 64, ..Policy::default() }
    }

    /// A cluster with one backend per weight, named b0, b1, ...
    pub(crate) fn cluster(id: u32, balance: Balance, first_state: usize, weights: &[u32]) -> Cluster {
        let backend = |(i, weight): (usize, &u32)| Backend {
            id: BackendId((first_state + i) as u32),
            name: format!("b{i}"),
            endpoint: Endpoint::Ip(([127, 0, 0, 1], 1 + i as u16).into()),
            weight: *weight,
            backup: false,
            max_conns: 0,
            cells: Arc::new(Cells::new(2)),
        };
        Cluster {
            id: ClusterId(id),
            name: format!("c{id}"),
            backends: weights.iter().enumerate().map(backend).collect(),
            first_state,
            policy: policy(balance),
            ends: Arc::new(ClusterEnds::new(2)),
            waits: Arc::new(Waits::new(2)),
        }
    }

    fn routes(list: &[(&str, &str)]) -> (Vec<Arc<Cluster>>, Vec<NewRoute>) {
        let one = Arc::new(cluster(0, Balance::RoundRobin, 0, &[1]));
        let route = |(host, path): &(&str, &str)| NewRoute {
            name: format!("{host}{path}"),
            host: (*host).into(),
            path: (*path).into(),
            cluster: one.clone(),
        };
        (vec![one.clone()], list.iter().map(route).collect())
    }

    fn table(list: &[(&str, &str)]) -> RouteTable {
        let (clusters, routes) = routes(list);
        RouteTable::build(clusters, routes).unwrap()
    }

    fn find<'a>(table: &'a RouteTable, host: &str, path: &str) -> Option<&'a str> {
        table.find(host.as_bytes(), path.as_bytes()).map(|r| r.name.as_str())
    }

    #[test]
    fn exact_then_longest_wildcard_then_default() {
        let mut list = vec![("a.b", "/"), ("*.a.b", "/"), ("*.b", "/"), ("x.a.b", "/"), ("*", "/"), ("[::1]", "/")];
        for _ in 0..list.len() {
            list.rotate_left(1);
            let table = table(&list);
            for (host, route) in [
                ("a.b", "a.b/"),
                ("A.B.", "a.b/"),
                ("x.a.b", "x.a.b/"),
                ("y.a.b", "*.a.b/"),
                ("z.y.a.b", "*.a.b/"),
                ("Z.x.A.b", "*.a.b/"),
                ("xa.b", "*.b/"),
                ("b", "*/"),
                (".b", "*/"),
                (".a.b", "*.b/"),
                ("b.c", "*/"),
                ("", "*/"),
                ("[0::1]", "[::1]/"),
                ("[::2]", "*/"),
                ("127.0.0.1", "*/"),
            ] {
                assert_eq!(find(&table, host, "/p"), Some(route), "{host}");
            }
        }
    }

    #[test]
    fn a_host_owns_its_names() {
        let table = table(&[("a.b", "/api"), ("*.b", "/"), ("*.c", "/only"), ("*", "/")]);
        assert_eq!(find(&table, "a.b", "/api/x"), Some("a.b/api"));
        assert_eq!(find(&table, "a.b", "/"), None);
        assert_eq!(find(&table, "x.b", "/"), Some("*.b/"));
        assert_eq!(find(&table, "x.c", "/"), None);
        assert_eq!(find(&table, "d", ""), Some("*/"));
    }

    #[test]
    fn nothing_matches_in_an_empty_table_or_without_default() {
        assert_eq!(find(&RouteTable::default(), "a", "/"), None);
        let table = table(&[("a.b", "/")]);
        for host in ["", "b", "x.a.b", "[::1]", &"a.".repeat(200)] {
            assert_eq!(find(&table, host, "/"), None, "{host}");
        }
    }

    #[test]
    fn all_faults_at_once() {
        let (clusters, list) =
            routes(&[("a.b", "/"), ("A.b.", "/"), ("a..b", "/"), ("c", "x"), ("[::1]", ""), ("[0::1]", "/")]);
        let bad = RouteTable::build(clusters, list).unwrap_err();
        let names: Vec<_> = bad.iter().map(|b| b.route.as_str()).collect();
        assert_eq!(names, ["[::1]", "a..b/", "a.b/", "cx"]);
        assert_eq!(bad[0].to_string(), "route \"[::1]\": says the same as \"[0::1]/\"");
    }

    #[test]
    fn clusters_are_found_by_id() {
        let clusters = [
            cluster(7, Balance::Random, 0, &[1, 2]),
            cluster(3, Balance::Random, 2, &[]),
            cluster(9, Balance::Random, 2, &[1]),
        ];
        let table = RouteTable::build(clusters.into_iter().map(Arc::new).collect(), Vec::new()).unwrap();
        assert_eq!(table.state_count(), 3);
        assert_eq!(table.cluster(ClusterId(9)).map(|c| c.first_state), Some(2));
        assert!(table.cluster(ClusterId(4)).is_none());
        assert_eq!(table.clusters().len(), 3);
    }

    #[test]
    fn ten_thousand_paths_and_deep_names() {
        let paths: Vec<String> = (0..10_000).map(|i| format!("/p{i}")).collect();
        let deep = "l.".repeat(126) + "z";
        let mut list: Vec<(&str, &str)> = paths.iter().map(|p| ("h", p.as_str())).collect();
        let wild = format!("*.{deep}");
        list.push((&wild, "/"));
        let table = table(&list);
        assert_eq!(find(&table, "h", "/p77/x"), Some("h/p77"));
        assert_eq!(find(&table, "h", "/p10000"), None);
        assert_eq!(find(&table, &format!("q.{deep}"), "/"), Some(format!("{wild}/").as_str()));
        assert_eq!(find(&table, &deep, "/"), None);
        assert_eq!(find(&table, &".".repeat(255), "/"), None);
    }

    /// The rule of hosts, as directly as possible.
    fn naive<'a>(hosts: &'a [String], host: &str) -> Option<&'a String> {
        let rank = |pattern: &&String| match pattern.strip_prefix('*') {
            Some("") => Some(0),
            Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some(pattern.len()),
            None => (**pattern == host).then_some(usize::MAX),
        };
        hosts.iter().filter(|p| rank(p).is_some()).max_by_key(rank)
    }

    proptest! {
        #[test]
        fn hosts_same_as_a_linear_search(
            hosts in prop::collection::hash_set("\\*|(\\*\\.)?[ab](\\.[ab]){0,3}", 0..12),
            host in "[ab](\\.[ab]){0,4}",
        ) {
            let hosts: Vec<String> = hosts.into_iter().collect();
            let table = table(&hosts.iter().map(|h| (h.as_str(), "/")).collect::<Vec<_>>());
            let want = naive(&hosts, &host).map(|h| format!("{h}/"));
            prop_assert_eq!(find(&table, &host, "/x"), want.as_deref());
        }

        #[test]
        fn no_bytes_panic(host in prop::collection::vec(any::<u8>(), 0..300), path in prop::collection::vec(any::<u8>(), 0..50)) {
            let table = table(&[("*.a", "/x"), ("b.a", "/"), ("[::1]", "/")]);
            let found = table.find(&host, &path).map(|r| r.name.as_str());
            prop_assert!(found != Some("*.a/x") || path.starts_with(b"/x"), "{:?}", found);
        }
    }
}
