//! A family of metrics: its name, what it means, and how its value is read from a row.

use crate::event::{TURN_BOUNDS_US, TurnTimes};
use crate::route::histogram::{BOUNDS_US, Durations};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;

/// One family over rows of one kind. Its name is whole but for what the text's format adds to it (`_total`, `_info`,
/// `_bucket` ...); an ending `_seconds`, `_bytes` or `_ratio` is its unit.
pub(super) struct Family<R> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) value: Value<R>,
}

/// How a value is read. A counter only rises, a gauge is a level.
pub(super) enum Value<R> {
    Counter(fn(&R) -> u64),
    /// Whole microseconds, shown in seconds.
    CounterUs(fn(&R) -> u64),
    /// One counter for each value of a further label; what is not there yet is left out.
    Counters(&'static str, fn(&R) -> Vec<(&'static str, u64)>),
    Gauge(fn(&R) -> f64),
    /// One gauge for each value of a further label.
    Gauges(&'static str, fn(&R) -> Vec<(&'static str, f64)>),
    Histogram(fn(&R) -> Filled),
    /// Texts as labels.
    Info(fn(&R) -> Vec<(&'static str, String)>),
}

/// What stands in a histogram.
pub(super) struct Filled {
    bounds_us: &'static [u64],
    /// By bucket, not accumulated; one more than there are bounds.
    buckets: Vec<u64>,
    sum_us: u64,
}

impl From<Durations> for Filled {
    fn from(read: Durations) -> Filled {
        Filled { bounds_us: &BOUNDS_US, buckets: read.buckets.to_vec(), sum_us: read.sum_us }
    }
}

impl From<TurnTimes> for Filled {
    fn from(read: TurnTimes) -> Filled {
        Filled { bounds_us: &TURN_BOUNDS_US, buckets: read.buckets.to_vec(), sum_us: read.sum_us }
    }
}

/// One subject of a kind.
pub(super) trait Row {
    /// What tells it from the others; empty where there is one alone.
    fn labels(&self) -> &[Label];
}

pub(super) type Label = (&'static str, String);

const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

impl<R: Row> Family<R> {
    /// Writes each family with all rows: a family's lines stand together.
    pub(super) fn write_all(families: &[Family<R>], rows: &[R], encoder: &mut DescriptorEncoder) -> fmt::Result {
        families.iter().try_for_each(|family| family.write(rows, encoder))
    }

    fn write(&self, rows: &[R], encoder: &mut DescriptorEncoder) -> fmt::Result {
        let (name, unit) = self.name_and_unit();
        let mut encoder = encoder.encode_descriptor(name, self.help, unit.as_ref(), self.value.kind())?;
        rows.iter().try_for_each(|row| self.value.write(row, &mut encoder))
    }

    /// The library puts the unit behind the name by itself.
    fn name_and_unit(&self) -> (&'static str, Option<Unit>) {
        let split = |unit: &&'static str| Some((self.name.strip_suffix(*unit)?.strip_suffix('_')?, *unit));
        match UNITS.iter().find_map(split) {
            Some((name, unit)) => (name, Some(Unit::Other(unit.to_owned()))),
            None => (self.name, None),
        }
    }
}

impl<R: Row> Value<R> {
    fn kind(&self) -> MetricType {
        match self {
            Value::Counter(_) | Value::CounterUs(_) | Value::Counters(..) => MetricType::Counter,
            Value::Gauge(_) | Value::Gauges(..) => MetricType::Gauge,
            Value::Histogram(_) => MetricType::Histogram,
            Value::Info(_) => MetricType::Info,
        }
    }

    fn write(&self, row: &R, to: &mut MetricEncoder) -> fmt::Result {
        let labels = row.labels();
        match self {
            Value::Counter(read) => labelled(labels, to, |to| counter(to, read(row))),
            Value::CounterUs(read) => {
                let seconds = read(row) as f64 / 1e6;
                labelled(labels, to, |to| to.encode_counter::<NoLabelSet, f64, u64>(&seconds, None))
            }
            Value::Counters(label, read) => read(row).into_iter().try_for_each(|(value, n)| {
                to.encode_family(&(labels, [(*label, value)])).and_then(|mut to| counter(&mut to, n))
            }),
            Value::Gauge(read) => labelled(labels, to, |to| to.encode_gauge(&read(row))),
            Value::Gauges(label, read) => read(row).into_iter().try_for_each(|(value, level)| {
                to.encode_family(&(labels, [(*label, value)])).and_then(|mut to| to.encode_gauge(&level))
            }),
            Value::Histogram(read) => {
                let Filled { bounds_us, buckets, sum_us } = read(row);
                let bound = |i: usize| bounds_us.get(i).map_or(f64::INFINITY, |us| *us as f64 / 1e6);
                let filled: Vec<(f64, u64)> = buckets.iter().enumerate().map(|(i, n)| (bound(i), *n)).collect();
                let (sum, count) = (sum_us as f64 / 1e6, buckets.iter().sum());
                labelled(labels, to, |to| to.encode_histogram::<NoLabelSet>(sum, count, &filled, None))
            }
            Value::Info(read) => to.encode_info(&read(row)),
        }
    }
}

fn counter(to: &mut MetricEncoder, n: u64) -> fmt::Result {
    to.encode_counter::<NoLabelSet, u64, u64>(&n, None)
}

/// Writes with these labels, and without braces if there are none.
fn labelled(
    labels: &[Label],
    to: &mut MetricEncoder,
    write: impl FnOnce(&mut MetricEncoder) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() { write(to) } else { write(&mut to.encode_family(&labels)?) }
}
