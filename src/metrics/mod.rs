//! The metrics as OpenMetrics text: what the cores have counted, summed at the moment somebody asks.
//!
//! Nothing is registered and nothing is copied while the proxy works: a core counts in its own cells, and the text is
//! written from the cells that a snapshot leads to. One file tells one kind of row (`backend`, `cluster`, `core`,
//! `process`), each with a table of its families in which a family is one line; `family` knows how they are written.
//! docs/METRICS.md lists them all, and a test keeps it so.

mod backend;
mod cluster;
mod core;
mod family;
mod process;

pub use process::{Process, Reloads, Vitals};

use crate::event::CoreStats;
use crate::publish::Snapshot;
use family::Family;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a text is written from.
#[derive(Clone)]
pub struct Sources {
    /// Clusters, backends and their states.
    pub snapshot: Arc<Snapshot>,
    /// By core.
    pub cores: Vec<Arc<CoreStats>>,
    /// Everything else.
    pub process: Process,
}

/// Writes the whole text, the line `# EOF` included.
pub fn write(sources: Sources, out: &mut String) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources));
    // A String takes whatever is written to it.
    let written = text::encode(out, &registry);
    debug_assert!(written.is_ok(), "a family refused to be written");
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        Family::write_all(backend::FAMILIES, &backend::rows(&self.snapshot), &mut encoder)?;
        Family::write_all(cluster::FAMILIES, &cluster::rows(&self.snapshot, &self.cores), &mut encoder)?;
        Family::write_all(core::FAMILIES, &core::rows(&self.cores), &mut encoder)?;
        Family::write_all(process::FAMILIES, &process::rows(self), &mut encoder)
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sources of {} cores at epoch {}", self.cores.len(), self.snapshot.epoch)
    }
}

#[cfg(test)]
mod tests;
