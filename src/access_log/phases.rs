//! Where the time of an exchange goes: a stopwatch that never stands still and always runs for exactly one phase, so that
//! the phases sum to the whole by construction.

/// What an exchange waits for, and so what its time is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The rest of the request's head.
    Head,
    /// A turn: its cluster is paused, or its backends have as many requests as they may.
    Queue,
    /// A backend: from picking one to being connected.
    Connect,
    /// Whatever attempts waited for that failed and were followed by another.
    Retry,
    /// The head of the response; sending the request as far as it was there is part of it.
    FirstByte,
    /// The client, which sends a request's body or takes a response.
    BodyClient,
    /// The backend, which takes a request's body or sends a response's.
    BodyBackend,
    /// Either side of a tunnel.
    Tunnel,
}

impl Phase {
    /// All of them, in the order in which an exchange may pass through them.
    pub const ALL: [Phase; PHASES] = [
        Phase::Head,
        Phase::Queue,
        Phase::Connect,
        Phase::Retry,
        Phase::FirstByte,
        Phase::BodyClient,
        Phase::BodyBackend,
        Phase::Tunnel,
    ];

    /// As the access log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Head => "head",
            Phase::Queue => "queue",
            Phase::Connect => "connect",
            Phase::Retry => "retry",
            Phase::FirstByte => "first_byte",
            Phase::BodyClient => "body_client",
            Phase::BodyBackend => "body_backend",
            Phase::Tunnel => "tunnel",
        }
    }
}

const PHASES: usize = Phase::Tunnel as usize + 1;

/// The stopwatch of one exchange. Times are in microseconds; a clock that goes back stands still.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    since_us: u64,
    phase: Phase,
    spent_us: [u64; PHASES],
}

impl Phases {
    /// Begins with [`Phase::Head`].
    pub fn new(now_us: u64) -> Phases {
        Phases { since_us: now_us, phase: Phase::Head, spent_us: [0; PHASES] }
    }

    /// Charges what has passed to the phase that is left.
    pub fn enter(&mut self, phase: Phase, now_us: u64) {
        self.end(now_us);
        self.phase = phase;
    }

    /// Enters a phase without asking the clock, where nothing was waited for in the one that is left: what has passed
    /// since the last reading is charged to the new one.
    pub fn pass_to(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// The attempt before has failed and another one begins: its time becomes [`Phase::Retry`]. What follows is
    /// [`Phase::Connect`].
    pub fn retry(&mut self, now_us: u64) {
        self.enter(Phase::Connect, now_us);
        for phase in [Phase::Connect, Phase::FirstByte, Phase::BodyClient, Phase::BodyBackend] {
            self.spent_us[Phase::Retry as usize] += std::mem::take(&mut self.spent_us[phase as usize]);
        }
    }

    /// Charges what has passed to the phase under way.
    pub fn end(&mut self, now_us: u64) {
        self.spent_us[self.phase as usize] += now_us.saturating_sub(self.since_us);
        self.since_us = self.since_us.max(now_us);
    }

    /// What was charged to a phase.
    pub fn of(&self, phase: Phase) -> u64 {
        self.spent_us[phase as usize]
    }

    /// What was charged in all: the time from the first reading of the clock to the last.
    pub fn total(&self) -> u64 {
        self.spent_us.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Phase; PHASES] = Phase::ALL;

    #[test]
    fn an_exchange_with_everything() {
        let mut phases = Phases::new(1000);
        phases.enter(Phase::Queue, 1010);
        phases.enter(Phase::Connect, 1030);
        phases.enter(Phase::FirstByte, 1100);
        phases.retry(1600);
        phases.pass_to(Phase::FirstByte);
        phases.enter(Phase::BodyClient, 1800);
        phases.enter(Phase::BodyBackend, 1801);
        phases.enter(Phase::BodyClient, 1805);
        phases.end(1900);
        assert_eq!(ALL.map(|phase| phases.of(phase)), [10, 20, 0, 570, 200, 96, 4, 0]);
        assert_eq!(phases.total(), 900);
    }

    proptest! {
        #[test]
        fn the_phases_sum_to_the_whole_time(
            begin in 0..u64::MAX / 4,
            steps in proptest::collection::vec((0..4u8, 0..ALL.len(), 0..u64::from(u32::MAX)), 0..50),
        ) {
            let (mut phases, mut now) = (Phases::new(begin), begin);
            for (what, phase, passed) in steps {
                now += passed;
                match what {
                    0 => phases.enter(ALL[phase], now),
                    1 => phases.retry(now),
                    // A clock that goes back changes nothing.
                    2 => phases.end(now.saturating_sub(2 * passed)),
                    _ => phases.pass_to(ALL[phase]),
                }
            }
            phases.end(now);
            prop_assert_eq!(phases.total(), now - begin);
            prop_assert_eq!(ALL.iter().map(|phase| phases.of(*phase)).sum::<u64>(), phases.total());
        }
    }
}
