//! The latest minutes, one sample a second: what the page plots.

use crate::limits;
use crate::route::histogram::{BOUNDS_US, Durations};
use std::collections::VecDeque;
use std::fmt::Write as _;

/// What had been counted at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests answered.
    pub requests: u64,
    /// Of those, with a 5xx.
    pub errors: u64,
    /// Time to the response heads of backends; `None` where that would be too many places to look at.
    pub heads: Option<Durations>,
    /// The busiest core's load in thousandths.
    pub load_permille: u32,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests in each second.
    pub requests: f64,
    /// Of those, answered with a 5xx.
    pub errors: f64,
    /// Mean time to a backend's response head, microseconds; `None` if there was none.
    pub mean_us: Option<f64>,
    /// 99 of 100 came within this.
    pub p99_us: Option<f64>,
    /// The busiest core's load in percent.
    pub load: f64,
}

/// The samples, the oldest first.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    before: Option<(Counts, u64)>,
}

impl History {
    /// Enters what has been counted now. Counters of what a reload took away are gone: what falls counts as nothing.
    pub fn add(&mut self, counts: Counts, now_us: u64) {
        let Some((before, then_us)) = self.before.replace((counts, now_us)) else { return };
        let seconds = now_us.saturating_sub(then_us).max(1) as f64 / 1e6;
        let heads = counts.heads.zip(before.heads).map(|(now, then)| risen(&now, &then));
        let count = heads.map_or(0, |heads| heads.buckets.iter().sum::<u64>());
        let sample = Sample {
            requests: counts.requests.saturating_sub(before.requests) as f64 / seconds,
            errors: counts.errors.saturating_sub(before.errors) as f64 / seconds,
            mean_us: heads.filter(|_| count > 0).map(|heads| heads.sum_us as f64 / count as f64),
            p99_us: heads.and_then(|heads| quantile(&heads, 0.99)),
            load: f64::from(counts.load_permille) / 10.0,
        };
        if self.samples.len() == limits::PAGE_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The latest.
    pub fn latest(&self) -> Sample {
        self.samples.back().copied().unwrap_or_default()
    }

    /// Whether times of response heads are among them.
    pub fn has_heads(&self) -> bool {
        self.before.is_none_or(|(counts, _)| counts.heads.is_some())
    }

    /// The greatest of these values.
    pub fn most(&self, of: fn(&Sample) -> Option<f64>) -> f64 {
        self.samples.iter().filter_map(of).fold(0.0, f64::max)
    }

    /// Samples that fit a plot: a minute at first, so that a young process shows something, later all that are kept.
    pub fn width(&self) -> usize {
        self.samples.len().max(60)
    }

    /// One line of a plot as the `d` of an SVG path, in a box of [`History::width`] by `height`; the newest at its right
    /// end, `most` at its top. Where there is no value the line has a gap.
    pub fn line(&self, of: fn(&Sample) -> Option<f64>, most: f64, height: f64) -> String {
        let mut path = String::new();
        let begin = self.width() - self.samples.len();
        let mut pen_down = false;
        for (i, value) in self.samples.iter().map(of).enumerate() {
            if let Some(value) = value {
                let y = height - height * value / most.max(f64::MIN_POSITIVE);
                // Writing into a string cannot fail. A lone value is a short dash.
                let _ = write!(path, "{}{} {y:.1}h.9", if pen_down { 'L' } else { 'M' }, begin + i);
            }
            pen_down = value.is_some();
        }
        path
    }
}

/// What was entered between the two.
fn risen(now: &Durations, then: &Durations) -> Durations {
    let mut risen = Durations { sum_us: now.sum_us.saturating_sub(then.sum_us), ..Durations::default() };
    for ((risen, now), then) in risen.buckets.iter_mut().zip(now.buckets).zip(then.buckets) {
        *risen = now.saturating_sub(then);
    }
    risen
}

/// The value below which this share lies, evenly spread within its bucket as Prometheus has it; beyond all bounds, the
/// greatest bound.
fn quantile(of: &Durations, share: f64) -> Option<f64> {
    let count: u64 = of.buckets.iter().sum();
    if count == 0 {
        return None;
    }
    let wanted = share * count as f64;
    let mut below = 0.0;
    for (i, entries) in of.buckets.iter().map(|n| *n as f64).enumerate() {
        if below + entries >= wanted && entries > 0.0 {
            let floor = if i == 0 { 0 } else { BOUNDS_US[i - 1] } as f64;
            let ceiling = BOUNDS_US.get(i).map_or(floor, |bound| *bound as f64);
            return Some(floor + (ceiling - floor) * (wanted - below) / entries);
        }
        below += entries;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durations(us: &[u64]) -> Durations {
        let histogram = crate::route::histogram::Histogram::default();
        us.iter().for_each(|us| histogram.add(*us));
        let mut sum = Durations::default();
        histogram.read_into(&mut sum);
        sum
    }

    #[test]
    fn samples_are_differences_in_a_second() {
        let mut history = History::default();
        let counts = |requests, heads: &[u64]| Counts {
            requests,
            errors: requests / 10,
            heads: Some(durations(heads)),
            load_permille: 250,
        };
        history.add(counts(100, &[700]), 1_000_000);
        assert_eq!(history.latest(), Sample::default());
        history.add(counts(200, &[700, 300, 500]), 3_000_000);
        let sample = history.latest();
        assert_eq!((sample.requests, sample.errors, sample.load), (50.0, 5.0, 25.0));
        assert_eq!(sample.mean_us, Some(400.0));
        assert!(sample.p99_us.is_some_and(|us| us > 900.0 && us <= 1000.0), "{sample:?}");
        // A reload took counters away; nothing came since.
        history.add(counts(50, &[]), 4_000_000);
        assert_eq!((history.latest().requests, history.latest().mean_us), (0.0, None));
        history.add(Counts { heads: None, ..counts(50, &[]) }, 5_000_000);
        assert!(!history.has_heads() && history.latest().p99_us.is_none());
    }

    #[test]
    fn it_keeps_the_latest_and_draws_them_at_the_right_end() {
        let mut history = History::default();
        for i in 0..limits::PAGE_SAMPLES as u64 + 50 {
            if i == 2 {
                assert_eq!(history.line(|s| Some(s.requests), 20.0, 40.0), "M59 20.0h.9");
            }
            history.add(Counts { requests: 10 * i, ..Counts::default() }, i * 1_000_000);
        }
        assert_eq!(history.samples.len(), limits::PAGE_SAMPLES);
        let line = history.line(|s| Some(s.requests), 20.0, 40.0);
        assert!(line.starts_with("M0 20.0h.9L1 20.0h.9"), "{line}");
        assert!(line.ends_with(&format!("L{} 20.0h.9", limits::PAGE_SAMPLES - 1)), "{line}");
        assert_eq!(history.line(|s| s.mean_us, 0.0, 40.0), "");
        assert_eq!(history.most(|s| Some(s.requests)), 10.0);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        assert_eq!(quantile(&Durations::default(), 0.5), None);
        assert_eq!(quantile(&durations(&[1500, 1500]), 0.5), Some(1500.0));
        assert_eq!(quantile(&durations(&[700, 700_000_000]), 0.99), Some(60_000_000.0));
        let even = durations(&(0..1000).map(|i| i * 10).collect::<Vec<_>>());
        assert!(quantile(&even, 0.99).is_some_and(|us| (9_000.0..=10_000.0).contains(&us)));
    }
}
