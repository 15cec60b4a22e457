//! The one row of the process.

use super::family::{Family, Label, Row, Value};
use super::{Sources, core};

/// What is known of the process as a whole.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Begin of the process, seconds since 1970.
    pub since: u64,
    /// `uring` or `epoll`.
    pub driver: &'static str,
    /// It wants traffic: no drain, and not told otherwise.
    pub ready: bool,
    /// A drain is under way.
    pub draining: bool,
    /// The limit of open files.
    pub open_files_max: u64,
    /// Reloads so far.
    pub reloads: Reloads,
    /// What the system says.
    pub vitals: Vitals,
    /// Microseconds that the text before this one took to write; 0 for the first.
    pub written_us: u64,
}

/// Reloads so far; the config of the start is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// Done.
    pub done: u64,
    /// Rejected.
    pub rejected: u64,
    /// When the latest was done, or the process began; seconds since 1970.
    pub done_at: u64,
    /// The latest was rejected: the file is not what runs.
    pub refused: bool,
}

/// What the system says of the process; 0 where it does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vitals {
    /// Bytes of memory that are resident.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub open_files: u64,
}

/// The row.
pub(super) struct Whole {
    process: Process,
    generation: u64,
    epoch: u64,
    workers: usize,
    imbalance: f64,
}

pub(super) const FAMILIES: &[Family<Whole>] = &[
    Family {
        name: "ringway_build",
        help: "What runs.",
        value: Value::Info(|w| {
            vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("driver", w.process.driver.to_owned())]
        }),
    },
    Family { name: "ringway_workers", help: "Workers, one a core.", value: Value::Gauge(|w| w.workers as f64) },
    Family {
        name: "ringway_core_imbalance_ratio",
        help: "The busiest core's share of its latest tick over the mean of all cores: 1 is even.",
        value: Value::Gauge(|w| w.imbalance),
    },
    Family {
        name: "ringway_ready",
        help: "1 while health checks are told that traffic is welcome.",
        value: Value::Gauge(|w| flag(w.process.ready)),
    },
    Family {
        name: "ringway_draining",
        help: "1 once the process has begun to end.",
        value: Value::Gauge(|w| flag(w.process.draining)),
    },
    Family {
        name: "ringway_config_generation",
        help: "Counts the configs that ran, the first one included.",
        value: Value::Gauge(|w| w.generation as f64),
    },
    Family {
        name: "ringway_config_epoch",
        help: "Counts publications to the cores: configs, addresses and states.",
        value: Value::Gauge(|w| w.epoch as f64),
    },
    Family {
        name: "ringway_config_reloads",
        help: "Reloads by result.",
        value: Value::Counters("result", |w| {
            vec![("done", w.process.reloads.done), ("rejected", w.process.reloads.rejected)]
        }),
    },
    Family {
        name: "ringway_config_last_reload_successful",
        help: "0 if the latest reload was rejected.",
        value: Value::Gauge(|w| flag(!w.process.reloads.refused)),
    },
    Family {
        name: "ringway_config_last_reload_success_timestamp_seconds",
        help: "When the config that runs was taken over, in Unix time.",
        value: Value::Gauge(|w| w.process.reloads.done_at as f64),
    },
    Family {
        name: "ringway_metrics_write_seconds",
        help: "Time that the metrics before these took to write, on a thread of their own.",
        value: Value::Gauge(|w| w.process.written_us as f64 / 1e6),
    },
    Family {
        name: "process_start_time_seconds",
        help: "Begin of the process in Unix time.",
        value: Value::Gauge(|w| w.process.since as f64),
    },
    Family {
        name: "process_resident_memory_bytes",
        help: "Resident memory.",
        value: Value::Gauge(|w| w.process.vitals.resident_bytes as f64),
    },
    Family {
        name: "process_open_fds",
        help: "Open descriptors.",
        value: Value::Gauge(|w| w.process.vitals.open_files as f64),
    },
    Family {
        name: "process_max_fds",
        help: "The limit of open descriptors.",
        value: Value::Gauge(|w| w.process.open_files_max as f64),
    },
];

impl Row for Whole {
    fn labels(&self) -> &[Label] {
        &[]
    }
}

pub(super) fn rows(sources: &Sources) -> [Whole; 1] {
    [Whole {
        process: sources.process.clone(),
        generation: sources.snapshot.generation,
        epoch: sources.snapshot.epoch,
        workers: sources.cores.len(),
        imbalance: core::imbalance(&sources.cores),
    }]
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}
