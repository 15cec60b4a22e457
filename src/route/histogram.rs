//! A histogram of durations that one core writes and control reads: fixed bounds, one load and one store per entry.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Upper bounds of the buckets in microseconds, inclusive, ascending: 1 ms to 60 s. One more bucket has no bound.
pub const BOUNDS_US: [u64; 16] = [
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000,
    10_000_000, 20_000_000, 30_000_000, 60_000_000,
];

/// Buckets, the one without a bound included.
pub const BUCKETS: usize = BOUNDS_US.len() + 1;

/// One core's durations. One writer: relaxed loads and stores only. The number of entries is the sum of the buckets, so
/// that a reader never finds the two disagree.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// What one or several histograms hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// Entries by bucket, not accumulated; the last one is beyond all bounds.
    pub buckets: [u64; BUCKETS],
    /// All durations together, microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Enters one duration.
    pub fn add(&self, us: u64) {
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        let bump = |cell: &AtomicU64, by| cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
        bump(&self.buckets[bucket], 1);
        bump(&self.sum_us, us);
    }

    /// Adds what it holds to `sum`.
    pub fn read_into(&self, sum: &mut Durations) {
        for (sum, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        sum.sum_us += self.sum_us.load(Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_belong_to_their_bucket() {
        assert!(BOUNDS_US.is_sorted_by(|a, b| a < b));
        for (i, bound) in BOUNDS_US.into_iter().enumerate() {
            let of = |us| {
                let (histogram, mut read) = (Histogram::default(), Durations::default());
                histogram.add(us);
                histogram.read_into(&mut read);
                assert_eq!((read.buckets.iter().sum::<u64>(), read.sum_us), (1, us));
                read.buckets.iter().position(|n| *n == 1)
            };
            assert_eq!((of(bound), of(bound + 1)), (Some(i), Some(i + 1)));
        }
    }

    #[test]
    fn several_add_up() {
        let (one, two, mut read) = (Histogram::default(), Histogram::default(), Durations::default());
        one.add(0);
        two.add(u64::from(u32::MAX));
        two.add(700);
        one.read_into(&mut read);
        two.read_into(&mut read);
        assert_eq!((read.buckets[0], read.buckets[BUCKETS - 1]), (2, 1));
        assert_eq!(read.sum_us, u64::from(u32::MAX) + 700);
    }
}
