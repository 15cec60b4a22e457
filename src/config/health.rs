//! The keys of health and probes: what the operator said, over what holds otherwise, and back to words.

use super::file::{self, CheckEntry, FailureRateEntry, Off, Probe, StatusEntry};
use super::words::{Duration, FieldValue, Patience, StatusClass};
use crate::route::health_policy::{Check, FailureRate, HealthPolicy, ProbeRequest, ProbeSpec, StatusSet};
use std::sync::Arc;

/// What a policy says of health, over what holds otherwise.
pub(super) fn resolve(said: &file::Policy, otherwise: &HealthPolicy) -> HealthPolicy {
    let health = &said.health;
    HealthPolicy {
        on_timeout: health.on_timeout.map_or(otherwise.on_timeout, Into::into),
        failures: health.failures.unwrap_or(otherwise.failures),
        statuses: health.statuses.as_deref().map_or(otherwise.statuses, set),
        rate: match &health.rate {
            None => otherwise.rate,
            Some(FailureRateEntry::Off(_)) => None,
            Some(FailureRateEntry::On(r)) => {
                Some(FailureRate { percent: r.percent, requests: r.requests, within: r.within.0 })
            }
        },
        hold_down: health.hold_down.map_or(otherwise.hold_down, |p| p.0),
        hold_down_max: health.hold_down_max.map_or(otherwise.hold_down_max, |p| p.0),
        slow_start: health.slow_start.map_or(otherwise.slow_start, |d| d.0),
        check: match &health.check {
            None => otherwise.check,
            Some(CheckEntry::Off(_)) => None,
            Some(CheckEntry::On(c)) => Some(Check { interval: c.interval.0, rise: c.rise, fall: c.fall }),
        },
        probe: said.probe.as_ref().map_or_else(|| otherwise.probe.clone(), |probe| Arc::new(spec(probe))),
    }
}

fn spec(probe: &Probe) -> ProbeSpec {
    let Probe::Http(probe) = probe else { return ProbeSpec::default() };
    let request = ProbeRequest {
        method: probe.method.clone(),
        path: probe.path.clone(),
        host: probe.host.clone(),
        headers: probe.headers.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
        statuses: set(&probe.statuses),
        body: probe.body.clone(),
    };
    ProbeSpec { timeout: probe.timeout.0, request: Some(request) }
}

fn set(entries: &[StatusEntry]) -> StatusSet {
    entries.iter().fold(StatusSet::default(), |set, entry| match entry {
        StatusEntry::One(status) => set.with(*status),
        StatusEntry::Class(class) => set.with_class(class.0),
    })
}

/// The inverse of [`resolve`] for `health`, with nothing left unsaid.
pub(super) fn spelled(policy: &HealthPolicy) -> file::Health {
    let rate = policy.rate.map_or(FailureRateEntry::Off(Off::Off), |r| {
        let within = Patience(r.within);
        FailureRateEntry::On(file::FailureRate { percent: r.percent, requests: r.requests, within })
    });
    let check = policy.check.map_or(CheckEntry::Off(Off::Off), |c| {
        CheckEntry::On(file::Check { interval: Patience(c.interval), rise: c.rise, fall: c.fall })
    });
    file::Health {
        on_timeout: Some(policy.on_timeout.into()),
        failures: Some(policy.failures),
        statuses: Some(entries(policy.statuses)),
        rate: Some(rate),
        hold_down: Some(Patience(policy.hold_down)),
        hold_down_max: Some(Patience(policy.hold_down_max)),
        slow_start: Some(Duration(policy.slow_start)),
        check: Some(check),
    }
}

/// The inverse of [`resolve`] for `probe`.
pub(super) fn spelled_probe(spec: &ProbeSpec) -> Probe {
    let Some(request) = &spec.request else { return Probe::Connect(file::Connect::Connect) };
    Probe::Http(file::HttpProbe {
        path: request.path.clone(),
        method: request.method.clone(),
        host: request.host.clone(),
        headers: request.headers.iter().map(|(name, value)| (name.clone(), FieldValue(value.clone()))).collect(),
        statuses: entries(request.statuses),
        body: request.body.clone(),
        timeout: Patience(spec.timeout),
    })
}

fn entries(set: StatusSet) -> Vec<StatusEntry> {
    let (classes, rest) = set.parts();
    let classes = classes.into_iter().map(|class| StatusEntry::Class(StatusClass(class)));
    classes.chain(rest.into_iter().map(StatusEntry::One)).collect()
}
