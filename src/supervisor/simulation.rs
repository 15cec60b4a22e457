//! Random reports, probes, answers of names and reloads over a fake clock, against a second, simpler bookkeeping of what
//! is allowed. `SEED=n cargo test simulation` runs one seed alone.

use super::tests::{CORES, plan};
use super::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

const STEPS: usize = 3_000;
const SEEDS: u64 = 40;

/// xorshift64: enough for choices in a test.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

type Key = (String, String, Endpoint);

/// What must be true, kept beside the supervisor from its actions alone.
#[derive(Default)]
struct Model {
    epoch: u64,
    generation: u64,
    /// Who had which number, ever.
    owners: BTreeMap<BackendId, Key>,
    /// Those of the latest table.
    present: BTreeMap<Key, BackendId>,
    /// Down, and since when it is left alone: the mark, or the latest verdict.
    left_alone: BTreeMap<BackendId, u64>,
    /// Probes whose verdict is still to come, and when it comes (never, if it is lost).
    probes: Vec<(u64, BackendId)>,
    /// Answered well, but not yet published as up.
    answered: Option<BackendId>,
    flips: usize,
    probed: usize,
    reloads: usize,
}

impl Model {
    fn published(&mut self, snapshot: &Snapshot, reload: bool, now: u64) {
        assert!(snapshot.epoch > self.epoch, "the epoch rises");
        assert_eq!(snapshot.states.len(), snapshot.table.state_count());
        self.epoch = snapshot.epoch;
        self.generation = snapshot.generation;
        let mut present = BTreeMap::new();
        for cluster in snapshot.table.clusters() {
            let states = &snapshot.states[cluster.first_state..cluster.first_state + cluster.backends.len()];
            assert!(states.is_empty() || states.iter().any(|s| s.is_up()), "one of a cluster is up");
            for (backend, state) in cluster.backends.iter().zip(states) {
                let key = (cluster.name.clone(), backend.name.clone(), backend.endpoint.clone());
                let owner = self.owners.entry(backend.id).or_insert_with(|| key.clone());
                assert_eq!(*owner, key, "a number has one owner for ever");
                if let Some(id) = self.present.get(&key) {
                    assert_eq!(*id, backend.id, "what stays keeps its number");
                } else {
                    assert!(reload, "a flip brings nothing new");
                    assert!(state.is_up(), "new ones are up");
                }
                self.flipped(backend.id, state.standing, reload, now);
                assert!(present.insert(key, backend.id).is_none());
            }
        }
        self.left_alone.retain(|id, _| present.values().any(|p| p == id));
        self.present = present;
        self.answered = None;
    }

    fn flipped(&mut self, id: BackendId, state: health::Standing, reload: bool, now: u64) {
        match (self.left_alone.contains_key(&id), state) {
            (false, health::Standing::Down) => {
                assert!(!reload, "a reload marks nothing");
                self.left_alone.insert(id, now);
                self.flips += 1;
            }
            (true, health::Standing::Up) => {
                assert!(reload || self.answered == Some(id), "up again only after a good probe");
                self.left_alone.remove(&id);
            }
            _ => {}
        }
    }

    fn apply(&mut self, actions: Vec<Action>, dice: &mut Dice, now: u64) {
        for action in actions {
            match action {
                Action::Publish(snapshot) => {
                    assert_eq!(snapshot.generation, self.generation, "a flip is no reload");
                    self.published(&snapshot, false, now);
                }
                Action::Probe(probe) => {
                    let waited = now - self.left_alone[&probe.backend];
                    assert!((30_000..=31_000).contains(&waited), "probed after {waited} ms");
                    assert!(self.present.values().any(|id| *id == probe.backend), "nothing for removed ones");
                    self.probed += 1;
                    if dice.roll(8) > 0 {
                        self.probes.push((now + dice.roll(probe.timeout_ms), probe.backend));
                    }
                }
                Action::Log(note) => {
                    let key = (note.cluster, note.backend, note.endpoint);
                    let id = self.present[&key];
                    if note.what == What::StillDown {
                        self.left_alone.insert(id, now);
                    }
                }
                Action::Rest { .. } => {}
                Action::Stop { .. } => panic!("nobody drains"),
            }
        }
    }
}

fn random_plan(dice: &mut Dice) -> Plan {
    let names = ["one", "two", "three", "four"];
    let backends = [
        ("a", "10.0.0.1:80"),
        ("b", "10.0.0.2:80"),
        ("b", "10.0.0.3:80"),
        ("c", "unix:/run/c"),
        ("n", "n.local:80"),
        ("m", "m.local:81"),
    ];
    let mut chosen = Vec::new();
    for name in names {
        if dice.roll(4) > 0 {
            let mut list: Vec<(&str, &str)> = backends.into_iter().filter(|_| dice.roll(3) > 0).collect();
            list.dedup_by_key(|b| b.0);
            chosen.push((name, list));
        }
    }
    plan(&chosen.iter().map(|(name, list)| (*name, list.as_slice())).collect::<Vec<_>>())
}

fn random_answer(dice: &mut Dice) -> Result<Vec<IpAddr>, String> {
    match dice.roll(4) {
        0 => Err("no answer".to_owned()),
        n => Ok((0..n).map(|_| IpAddr::from([10, 9, 0, dice.roll(4) as u8])).collect()),
    }
}

/// Failures, heads and timeouts on any core; also for endpoints that are down, whose cores have exchanges left over.
fn traffic(supervisor: &mut Supervisor, dice: &mut Dice, now: u64) -> Vec<Action> {
    let all: Vec<(BackendId, Arc<crate::route::health::Cells>)> =
        supervisor.table.clusters().iter().flat_map(|c| &c.backends).map(|b| (b.id, b.cells.clone())).collect();
    if all.is_empty() {
        return Vec::new();
    }
    let (id, cells) = &all[dice.roll(all.len() as u64) as usize];
    let cell = cells.core(dice.roll(CORES as u64) as usize);
    match dice.roll(8) {
        0..5 => cell.failures_in_row.store(cell.failures_in_row.load(Relaxed) + 1, Relaxed),
        5..7 => {
            cell.failures_in_row.store(0, Relaxed);
            cell.head_tick.store(tick_of(now) + 1, Relaxed);
            cell.statuses[1].fetch_add(1, Relaxed);
        }
        _ => {
            cell.timeout_sent_tick.store(tick_of(now.saturating_sub(30_000)) + 1, Relaxed);
            cell.timeouts.fetch_add(1, Relaxed);
        }
    }
    if dice.roll(50) == 0 { supervisor.look_at_all(now) } else { supervisor.look(*id, now) }
}

fn run(seed: u64) -> Model {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut supervisor = Supervisor::new(random_plan(&mut dice), CORES, Resolutions::default()).unwrap();
    let mut model = Model::default();
    model.published(&supervisor.snapshot(), true, 0);
    let mut now = 0;
    let mut next_tick = 0;
    for _ in 0..STEPS {
        now += dice.roll(400);
        while next_tick <= now {
            let actions = supervisor.tick(next_tick);
            model.apply(actions, &mut dice, next_tick);
            next_tick += 1000;
        }
        let answers: Vec<_> = model.probes.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, id) in answers {
            let good = dice.roll(2) == 0;
            model.answered = good.then_some(id);
            let verdict = if good { Ok(()) } else { Err("refused".to_owned()) };
            let actions = supervisor.probe_result(id, verdict, now);
            model.apply(actions, &mut dice, now);
        }
        match dice.roll(60) {
            0 => {
                let prepared = supervisor.prepare(random_plan(&mut dice), Resolutions::default()).unwrap();
                if dice.roll(3) > 0 {
                    let done = supervisor.commit(prepared, now);
                    assert_eq!(done.snapshot.generation, model.generation + 1, "one more reload");
                    let was: Vec<BackendId> = model.present.values().copied().collect();
                    model.published(&done.snapshot, true, now);
                    let gone = was.into_iter().filter(|id| !model.present.values().any(|p| p == id));
                    assert_eq!(
                        gone.collect::<std::collections::BTreeSet<_>>(),
                        done.change.removed_backends.into_iter().collect()
                    );
                    model.reloads += 1;
                }
            }
            1 | 2 => {
                let name = ["n.local", "m.local"][dice.roll(2) as usize];
                let answer = random_answer(&mut dice);
                if let Some(done) = supervisor.resolved(name, answer, now) {
                    assert_eq!(done.snapshot.generation, model.generation, "an answer is no reload");
                    model.published(&done.snapshot, true, now);
                }
            }
            3 => {
                // A report about one that is gone, or a verdict that nobody waits for.
                let id = BackendId(dice.roll(200) as u32);
                if !model.present.values().any(|p| *p == id) {
                    assert!(supervisor.look(id, now).is_empty());
                    assert!(supervisor.probe_result(id, Ok(()), now).is_empty());
                }
            }
            _ => {
                let actions = traffic(&mut supervisor, &mut dice, now);
                model.apply(actions, &mut dice, now);
            }
        }
        supervisor.invariants();
        assert_eq!(supervisor.snapshot().epoch, model.epoch, "nothing changes unpublished");
        for since in model.left_alone.values() {
            assert!(now - since <= 31_000 + PROBE_LOST_MS + 1000, "nobody is forgotten");
        }
    }
    model
}

#[test]
fn seeds() {
    let one = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seeds = one.map_or(1..SEEDS + 1, |seed| seed..seed + 1);
    let (mut flips, mut probed, mut reloads) = (0, 0, 0);
    for seed in seeds.clone() {
        let result = std::panic::catch_unwind(|| run(seed));
        let model = result.unwrap_or_else(|_| panic!("replay with SEED={seed}"));
        (flips, probed, reloads) = (flips + model.flips, probed + model.probed, reloads + model.reloads);
    }
    // A simulation in which nothing happens proves nothing.
    let runs = seeds.count();
    assert!(flips >= 10 * runs && probed >= 10 * runs && reloads >= 10 * runs, "{flips} {probed} {reloads}");
}
