//! For how long an endpoint is left alone: longer each time it fails again.

use crate::route::health_policy::HealthPolicy;

/// What is remembered of earlier marks. Times are milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HoldDown {
    /// How often the time has doubled.
    doubled: u32,
    /// When the endpoint came up after it had been down.
    recovered_ms: Option<u64>,
}

impl HoldDown {
    /// The endpoint is marked; gives until when it is left alone. One that has been up for `hold_down_max`, or was never
    /// down, begins with `hold_down`.
    pub(super) fn marked(&mut self, policy: &HealthPolicy, now: u64) -> u64 {
        let steady = |at: u64| now >= at.saturating_add(u64::from(policy.hold_down_max) * 1000);
        match self.recovered_ms {
            Some(at) if !steady(at) => self.again(policy, now),
            _ => {
                self.doubled = 0;
                now + self.length_ms(policy)
            }
        }
    }

    /// A probe failed; gives until when the endpoint is left alone once more.
    pub(super) fn again(&mut self, policy: &HealthPolicy, now: u64) -> u64 {
        self.doubled = self.doubled.saturating_add(1);
        now + self.length_ms(policy)
    }

    /// The endpoint is up again.
    pub(super) fn recovered(&mut self, now: u64) {
        self.recovered_ms = Some(now);
    }

    /// Never shorter than `hold_down`, whatever the most is.
    fn length_ms(&self, policy: &HealthPolicy) -> u64 {
        let most = u64::from(policy.hold_down_max.max(policy.hold_down));
        // A year doubled 32 times still fits.
        (u64::from(policy.hold_down) << self.doubled.min(32)).min(most) * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_most_and_begins_anew_after_as_long() {
        let policy = HealthPolicy { hold_down: 30, hold_down_max: 300, ..HealthPolicy::default() };
        let mut hold = HoldDown::default();
        let mut now = hold.marked(&policy, 0);
        assert_eq!(now, 30_000);
        for seconds in [60, 120, 240, 300, 300] {
            let until = hold.again(&policy, now);
            assert_eq!(until - now, seconds * 1000);
            now = until;
        }
        hold.recovered(now);
        assert_eq!(hold.marked(&policy, now + 299_999) - now, 599_999, "soon after");
        hold.recovered(now);
        assert_eq!(hold.marked(&policy, now + 300_000) - now, 330_000, "steady since");
        assert_eq!(hold.again(&policy, now) - now, 60_000);
    }

    #[test]
    fn a_year_and_a_least_longer_than_the_most_are_no_trouble() {
        let year = 365 * 86_400;
        let policy = HealthPolicy { hold_down: year, hold_down_max: 1, ..HealthPolicy::default() };
        let mut hold = HoldDown::default();
        for _ in 0..100 {
            assert_eq!(hold.again(&policy, 5), u64::from(year) * 1000 + 5);
        }
    }
}
