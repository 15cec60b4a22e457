//! Why a backend is not picked: told by `explain` and by the access log.

use super::health::{Standing, State};
use super::table::{Backend, Cluster};
use std::sync::atomic::Ordering::Relaxed;

/// Why a backend of the cluster is none that may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Held down, or being probed.
    Down,
    /// Drained by an operator.
    Drain,
    /// Taken out of service by an operator.
    Maint,
    /// A backup, and there are others.
    Backup,
    /// It has as many exchanges as it may.
    Full,
    /// This exchange has tried it.
    Tried,
    /// It has let a request of this core time out, and control has not judged yet.
    Suspected,
}

impl Skip {
    /// One word, as the log tells it.
    pub fn word(self) -> &'static str {
        match self {
            Skip::Down => "down",
            Skip::Drain => "drain",
            Skip::Maint => "maint",
            Skip::Backup => "backup",
            Skip::Full => "full",
            Skip::Tried => "tried",
            Skip::Suspected => "suspected",
        }
    }
}

/// For each backend of the cluster, in order: why it may not be picked, or nothing. `candidates` are those of the balancer
/// ([`super::balance::Balancer::candidates`]), `avoided` tells whom the exchange avoids, `full` who has no room.
pub fn skips<'a>(
    cluster: &'a Cluster,
    states: &'a [State],
    candidates: &'a [usize],
    avoided: &'a dyn Fn(usize) -> Option<Skip>,
    full: &'a dyn Fn(&Backend) -> bool,
) -> impl Iterator<Item = Option<Skip>> + 'a {
    let free =
        |index: usize| candidates.contains(&index) && avoided(index).is_none() && !full(&cluster.backends[index]);
    let primaries = (0..cluster.backends.len()).any(|i| !cluster.backends[i].backup && free(i));
    cluster.backends.iter().enumerate().map(move |(index, backend)| {
        let standing = states.get(cluster.first_state + index).map_or(Standing::Up, |state| state.standing);
        match standing {
            _ if !candidates.contains(&index) => Some(match standing {
                Standing::Drain => Skip::Drain,
                Standing::Maint => Skip::Maint,
                Standing::Down | Standing::Up => Skip::Down,
            }),
            _ if full(backend) => avoided(index).or(Some(Skip::Full)),
            _ => avoided(index).or((backend.backup && primaries).then_some(Skip::Backup)),
        }
    })
}

/// Whether it has as many exchanges as it may, over all cores.
pub fn is_full(backend: &Backend) -> bool {
    backend.max_conns > 0 && in_flight(backend) >= u64::from(backend.max_conns)
}

/// Exchanges that are with it now, over all cores.
pub fn in_flight(backend: &Backend) -> u64 {
    backend.cells.all().iter().map(|cell| u64::from(cell.in_flight.load(Relaxed))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::{Balance, tests::cluster};

    #[test]
    fn each_reason_has_its_backend() {
        let mut cluster = cluster(0, Balance::RoundRobin, 2, &[1; 8]);
        cluster.backends[6].backup = true;
        cluster.backends[7].max_conns = 1;
        let mut states = vec![State::up(1); 10];
        for (index, standing) in [(1, Standing::Down), (2, Standing::Drain), (3, Standing::Maint)] {
            states[2 + index].standing = standing;
        }
        let of = |tried: &[usize], full: usize| -> Vec<&str> {
            let (tried, full) =
                (|i: usize| tried.contains(&i).then_some(Skip::Tried), |b: &Backend| b.name == format!("b{full}"));
            let all = skips(&cluster, &states, &[0, 4, 5, 6, 7], &tried, &full);
            all.map(|skip| skip.map_or("", Skip::word)).collect()
        };
        assert_eq!(of(&[4], 7), ["", "down", "drain", "maint", "tried", "", "backup", "full"]);
        // Nobody but the backup is left.
        assert_eq!(of(&[0, 4, 5], 7), ["tried", "down", "drain", "maint", "tried", "tried", "", "full"]);
        assert!(!is_full(&cluster.backends[7]) && !is_full(&cluster.backends[0]));
        cluster.backends[7].cells.core(1).in_flight.store(1, Relaxed);
        assert!(is_full(&cluster.backends[7]) && in_flight(&cluster.backends[7]) == 1);
    }
}
