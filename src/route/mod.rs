//! Names to backends, as pure data and functions: the table (`table`), the choice of a backend (`balance`), what a
//! backend's state means (`health`) and how many exchanges it may have at once (`permits`); why a rule takes a request
//! (`trace`) and a backend is not picked (`skip`); what two tables
//! treat alike (`classes`); and the cells in which cores count (`counts`, `waits`, `histogram`). Knows nothing of HTTP messages.

pub mod balance;
pub mod classes;
pub mod counts;
mod failure_rate;
pub mod health;
pub mod health_policy;
pub mod histogram;
pub mod host;
pub mod judge;
mod paths;
pub mod permits;
pub mod skip;
pub mod table;
pub mod trace;
pub mod waits;

use std::net::SocketAddr;
use std::path::PathBuf;

/// A cluster's identity, the same over reloads as long as its name stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u32);

/// An endpoint's identity: the same over reloads as long as (cluster, backend id, endpoint) stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

/// One resolved address of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// TCP
    Ip(SocketAddr),
    /// Unix stream socket
    Unix(PathBuf),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Ip(a) => a.fmt(f),
            Endpoint::Unix(p) => write!(f, "unix:{}", p.display()),
        }
    }
}
