//! The route table: host, then path, to a cluster (docs/CONFIG.md, "routes").

use super::health::Cells;
use super::{BackendId, ClusterId, Endpoint};
use crate::limits;
use std::sync::Arc;

/// How a cluster picks a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, staggered per core.
    #[default]
    RoundRobin,
    /// Weighted random.
    Random,
    /// The less loaded of two random backends.
    LeastConn,
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
    /// Seconds a pooled connection may idle.
    pub pool_idle: u32,
    /// Idle connections kept per backend and core.
    pub pool_max: u32,
    /// See [`OnTimeout`].
    pub on_timeout: OnTimeout,
    /// Path that recovery probes ask for with GET; `None` is a plain connect.
    pub probe_path: Option<String>,
}

impl Default for Policy {
    /// What governs where the operator says nothing.
    fn default() -> Policy {
        Policy {
            balance: Balance::default(),
            connect_timeout: limits::CONNECT_SECONDS,
            head_timeout: limits::BACKEND_HEAD_SECONDS,
            body_timeout: limits::BODY_SECONDS,
            client_body_timeout: limits::BODY_SECONDS,
            client_rate_min: limits::CLIENT_RATE_MIN,
            tunnel_timeout: limits::TUNNEL_SECONDS,
            body_max: u64::MAX,
            retries: limits::RETRIES,
            pool_idle: limits::POOL_IDLE_SECONDS,
            pool_max: limits::POOL_DEFAULT,
            on_timeout: OnTimeout::default(),
            probe_path: None,
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
    /// At least 1.
    pub weight: u32,
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
}

/// One route as configured.
#[derive(Debug)]
pub struct Route {
    /// `host/path` as the operator wrote it.
    pub name: String,
    /// Where it leads.
    pub cluster: Arc<Cluster>,
}

/// The immutable table: exact host, else longest wildcard, else default; then the longest path prefix at segment
/// boundaries, on raw bytes.
#[derive(Debug, Default)]
pub struct RouteTable {
    _todo: (),
}

impl RouteTable {
    /// Finds the route. `host` is the host as sent: no port; case and one trailing dot do not matter; IPv6 literals in
    /// brackets. `path` is the raw path without query; empty means `/`. Allocates nothing.
    pub fn find(&self, _host: &[u8], _path: &[u8]) -> Option<&Route> {
        todo!()
    }

    /// All clusters, by [`Cluster::first_state`].
    pub fn clusters(&self) -> &[Arc<Cluster>] {
        todo!()
    }

    /// All routes, in the order of their names.
    pub fn routes(&self) -> &[Route] {
        todo!()
    }
}
