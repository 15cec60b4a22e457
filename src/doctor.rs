//! `ringway doctor`: what this machine offers, and what of it would hurt under load, with the cure.

use crate::limits;
use crate::worker::net::driver::{Choice, Rung};
use crate::worker::net::machine::Facts;
use std::fmt;

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// As it should be.
    Good,
    /// Works; could be better.
    Note,
    /// Would hurt under load.
    Bad,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// See [`Grade`].
    pub grade: Grade,
    /// What was looked at.
    pub what: &'static str,
    /// What it is, and why that matters.
    pub says: String,
    /// What to do.
    pub cure: Option<String>,
}

/// All findings, to be printed.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    kernel: String,
    findings: Vec<Finding>,
}

/// Open files that one process wants for ten thousand clients, each with a backend connection.
const FILES_WANTED: u64 = 20_000;
/// Ports for outgoing connections below which a busy backend on TCP runs out of them.
const PORTS_WANTED: u32 = 20_000;

/// Judges the facts.
pub fn examine(facts: &Facts) -> Diagnosis {
    let mut findings = driver(facts);
    findings.push(open_files(facts.nofile));
    findings.push(backlog(facts.somaxconn));
    findings.push(ports(facts.port_range));
    findings.push(cores(&facts.affinity, facts.quota));
    Diagnosis { kernel: facts.kernel.clone(), findings }
}

impl Diagnosis {
    /// Whether nothing would hurt.
    pub fn is_healthy(&self) -> bool {
        self.findings.iter().all(|f| f.grade != Grade::Bad)
    }

    /// The findings in the order of printing.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ringway {} on Linux {}\n", env!("CARGO_PKG_VERSION"), self.kernel)?;
        for finding in &self.findings {
            let grade = match finding.grade {
                Grade::Good => "ok",
                Grade::Note => "note",
                Grade::Bad => "BAD",
            };
            writeln!(f, "{grade:<5} {:<12} {}", finding.what, finding.says)?;
            if let Some(cure) = &finding.cure {
                writeln!(f, "{:<18} cure: {cure}", "")?;
            }
        }
        writeln!(f)?;
        match self.findings.iter().filter(|f| f.grade == Grade::Bad).count() {
            0 => writeln!(f, "Nothing here would hurt."),
            1 => writeln!(f, "One thing here would hurt under load."),
            n => writeln!(f, "{n} things here would hurt under load."),
        }
    }
}

fn driver(facts: &Facts) -> Vec<Finding> {
    let (grade, chosen) = match facts.ring.rung {
        Some(rung @ Rung::Full) => (Grade::Good, Choice::Ring(rung)),
        Some(rung) => (Grade::Note, Choice::Ring(rung)),
        None => (Grade::Bad, Choice::Epoll),
    };
    let mut findings = vec![Finding { grade, what: "driver", says: chosen.to_string(), cure: None }];
    for step in &facts.ring.steps {
        findings.push(Finding {
            grade: if grade == Grade::Bad { Grade::Bad } else { Grade::Note },
            what: "",
            says: format!("not {}: {}", step.tried, step.cause),
            cure: Some(step.cure.clone()),
        });
    }
    if !facts.ring.features.is_empty() {
        findings.push(Finding { grade: Grade::Good, what: "ring", says: facts.ring.features.join(", "), cure: None });
    }
    findings
}

fn open_files((soft, hard): (u64, u64)) -> Finding {
    let says = format!("{hard} at most ({soft} now; ringway raises it to the most)");
    let enough = hard >= FILES_WANTED;
    Finding {
        grade: if enough { Grade::Good } else { Grade::Bad },
        what: "open files",
        says: if enough { says } else { format!("{says}: fewer than two for each of 10,000 clients") },
        cure: (!enough).then(|| "LimitNOFILE=1048576 in the unit, or `ulimit -Hn 1048576`, or --ulimit nofile".into()),
    }
}

fn backlog(somaxconn: Option<u32>) -> Finding {
    let wanted = limits::LISTEN_BACKLOG as u32;
    let (grade, says, cure) = match somaxconn {
        Some(n) if n >= wanted => (Grade::Good, format!("net.core.somaxconn {n}"), None),
        Some(n) => (
            Grade::Bad,
            format!("net.core.somaxconn {n}: bursts of new connections beyond it are dropped"),
            Some(format!("`sysctl net.core.somaxconn={wanted}`")),
        ),
        None => (Grade::Note, "net.core.somaxconn cannot be read".into(), None),
    };
    Finding { grade, what: "backlog", says, cure }
}

fn ports(range: Option<(u16, u16)>) -> Finding {
    let (grade, says, cure) = match range {
        Some((low, high)) => {
            let count = u32::from(high).saturating_sub(u32::from(low)) + 1;
            let says = format!("{low} to {high}: {count} connections to one backend address");
            let cure = "`sysctl net.ipv4.ip_local_port_range=\"10240 65535\"`";
            if count >= PORTS_WANTED { (Grade::Good, says, None) } else { (Grade::Bad, says, Some(cure.into())) }
        }
        None => (Grade::Note, "net.ipv4.ip_local_port_range cannot be read".into(), None),
    };
    Finding { grade, what: "local ports", says, cure }
}

fn cores(affinity: &[usize], quota: Option<f64>) -> Finding {
    let (grade, says, cure) = match quota {
        None => (Grade::Good, format!("{}, no quota", affinity.len()), None),
        Some(quota) if quota < 1.0 => (
            Grade::Bad,
            format!("a quota of {quota} of one core: the worker is stopped in the middle of requests"),
            Some("give the control group a whole core or more (cpu.max, --cpus)".into()),
        ),
        Some(quota) => {
            let used = affinity.len().min(quota as usize);
            let says = format!("{used} used: {} allowed, a quota of {quota}", affinity.len());
            let fraction = quota.fract() > 0.0 && quota < affinity.len() as f64;
            let cure = fraction.then(|| "a whole number of cores wastes nothing (cpu.max, --cpus)".into());
            (if fraction { Grade::Note } else { Grade::Good }, says, cure)
        }
    };
    Finding { grade, what: "cores", says, cure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::net::driver::{RingFacts, Step};

    fn good() -> Facts {
        Facts {
            kernel: "6.8.0".into(),
            ring: RingFacts { features: vec!["nodrop"], rung: Some(Rung::Full), steps: Vec::new() },
            nofile: (1024, 1 << 20),
            memlock: 1 << 20,
            somaxconn: Some(4096),
            port_range: Some((32768, 60999)),
            affinity: vec![0, 1, 2, 3],
            quota: None,
        }
    }

    fn bad(facts: Facts) -> (String, bool) {
        let diagnosis = examine(&facts);
        (diagnosis.to_string(), diagnosis.is_healthy())
    }

    #[test]
    fn a_good_machine_is_healthy() {
        let (text, healthy) = bad(good());
        assert!(healthy && text.contains("Nothing here would hurt."), "{text}");
        assert!(text.contains("4, no quota") && text.contains("28232 connections"));
    }

    #[test]
    fn each_pain_is_named_with_its_cure() {
        let refused = Step {
            tried: Choice::Ring(Rung::Full),
            errno: libc::EPERM,
            cause: "A seccomp filter refuses it.".into(),
            cure: "Allow it.".into(),
        };
        let no_ring = RingFacts { features: vec![], rung: None, steps: vec![refused] };
        for (facts, want) in [
            (Facts { ring: no_ring, ..good() }, "A seccomp filter refuses it."),
            (Facts { nofile: (1024, 4096), ..good() }, "LimitNOFILE"),
            (Facts { somaxconn: Some(128), ..good() }, "sysctl net.core.somaxconn=4096"),
            (Facts { port_range: Some((50000, 50100)), ..good() }, "ip_local_port_range"),
            (Facts { quota: Some(0.5), ..good() }, "cpu.max"),
        ] {
            let (text, healthy) = bad(facts);
            assert!(!healthy, "{text}");
            assert!(text.contains(want) && text.contains("cure: "), "{text}");
        }
    }

    #[test]
    fn what_could_be_better_does_not_fail() {
        let older = RingFacts { rung: Some(Rung::Cooperative), ..good().ring };
        for facts in [
            Facts { ring: older, ..good() },
            Facts { somaxconn: None, port_range: None, ..good() },
            Facts { quota: Some(1.5), ..good() },
        ] {
            let (text, healthy) = bad(facts);
            assert!(healthy && text.contains("note "), "{text}");
        }
    }
}
