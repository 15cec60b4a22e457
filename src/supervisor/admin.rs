//! What operators have overruled: the layer between config and observed health.
//!
//! A backend may have one word about whether it serves (drain, maint) and one about its weight, each with who, when, why
//! and perhaps an end. A cluster may be paused. Words hold for the backend's id, so for all of its endpoints, also those
//! that come later; they go with the backend's id from the config.

use super::change::labels;
use super::{Action, Labels, Supervisor};
use crate::config::orders::Wish;
use crate::config::state::Override;
use crate::event::TakenAway;
use crate::limits::{OVERRIDES_MAX, WEIGHT_MAX};
use crate::route::health::Standing;
use crate::route::table::Cluster;
use crate::route::{BackendId, ClusterId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who wants something, and for how long.
#[derive(Clone, Debug, Default)]
pub struct Whose {
    /// For people.
    pub who: String,
    /// As they said.
    pub why: Option<String>,
    /// Now, in seconds since 1970.
    pub unix: u64,
    /// Seconds until it ends by itself.
    pub seconds: Option<u64>,
}

/// What an operator's word leads to.
#[derive(Debug, Default)]
pub struct Administered {
    /// To be carried out.
    pub actions: Vec<Action>,
    /// What takes no new requests from here on.
    pub away: TakenAway,
    /// Names of that.
    pub labels: Labels,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Names of what is other than before.
    pub changed: BTreeMap<String, Vec<String>>,
}

/// A pause of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paused {
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Until when.
    pub until: u64,
    /// By whom.
    pub who: String,
    /// Why, if it was said.
    pub why: Option<String>,
    until_ms: u64,
}

/// All words that hold.
#[derive(Debug, Default)]
pub(super) struct Admin {
    /// By names of cluster and backend.
    words: BTreeMap<(String, String), Words>,
    pauses: BTreeMap<String, Paused>,
}

#[derive(Debug, Default)]
struct Words {
    standing: Option<Word>,
    weight: Option<Word>,
}

#[derive(Debug)]
struct Word {
    said: Override,
    /// When it ends, in the supervisor's milliseconds.
    until_ms: Option<u64>,
}

impl Words {
    fn all(&self) -> impl Iterator<Item = &Word> {
        self.standing.iter().chain(&self.weight)
    }
}

impl Admin {
    fn of(&self, cluster: &str, backend: &str) -> Option<&Words> {
        if self.words.is_empty() {
            return None;
        }
        self.words.get(&(cluster.to_owned(), backend.to_owned()))
    }

    /// Whether operators let this backend serve, else how they put it out.
    pub(super) fn standing(&self, cluster: &str, backend: &str) -> Option<Standing> {
        match self.of(cluster, backend)?.standing.as_ref()?.said.set {
            Wish::Drain => Some(Standing::Drain),
            Wish::Maint => Some(Standing::Maint),
            Wish::Up | Wish::Weight(_) => None,
        }
    }

    /// The weight that operators gave it.
    pub(super) fn weight(&self, cluster: &str, backend: &str) -> Option<u32> {
        match self.of(cluster, backend)?.weight.as_ref()?.said.set {
            Wish::Weight(weight) => Some(weight),
            _ => None,
        }
    }

    /// Everything that was said about it.
    pub(super) fn said(&self, cluster: &str, backend: &str) -> Vec<Override> {
        self.of(cluster, backend).into_iter().flat_map(Words::all).map(|word| word.said.clone()).collect()
    }

    /// When the first word or pause ends.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let words = self.words.values().flat_map(Words::all).filter_map(|word| word.until_ms);
        words.chain(self.pauses.values().map(|pause| pause.until_ms)).min()
    }

    /// Takes a word; one about the same thing is forgotten.
    fn say(&mut self, said: Override, until_ms: Option<u64>) {
        let words = self.words.entry((said.cluster.clone(), said.backend.clone())).or_default();
        let word = Some(Word { until_ms, said });
        match word.as_ref().map(|w| w.said.set) {
            Some(Wish::Weight(_)) => words.weight = word,
            _ => words.standing = word,
        }
    }

    fn count(&self) -> usize {
        self.words.values().map(|words| words.all().count()).sum()
    }
}

impl Supervisor {
    /// An operator's word about a backend. [`Wish::Up`] takes all words about it back, and has it probed at once if it is
    /// down: it is health that says when it serves again.
    ///
    /// # Errors
    /// A sentence; nothing has changed then.
    pub fn administer(
        &mut self,
        cluster: &str,
        backend: &str,
        set: Wish,
        whose: Whose,
        now: u64,
    ) -> Result<Administered, String> {
        self.exists(cluster, backend)?;
        if let Wish::Weight(weight) = set
            && !(1..=WEIGHT_MAX).contains(&weight)
        {
            return Err(format!("a weight is a number from 1 to {WEIGHT_MAX}; to send it nothing, drain it"));
        }
        if self.admin.count() >= OVERRIDES_MAX && set != Wish::Up {
            return Err(format!("{OVERRIDES_MAX} overrides hold already"));
        }
        if set == Wish::Up {
            self.admin.words.remove(&(cluster.to_owned(), backend.to_owned()));
        } else {
            let said = Override {
                cluster: cluster.to_owned(),
                backend: backend.to_owned(),
                set,
                since: whose.unix,
                until: whose.seconds.map(|seconds| whose.unix.saturating_add(seconds)),
                who: whose.who,
                why: whose.why,
            };
            let until_ms = whose.seconds.map(|seconds| now.saturating_add(seconds.saturating_mul(1000)));
            self.admin.say(said, until_ms);
        }
        let mut done = Administered { actions: self.readminister(cluster, backend, now), ..Administered::default() };
        if set == Wish::Up {
            done.actions.extend(self.probe_soon(cluster, backend, now));
        }
        done.changed.insert("backends_changed".to_owned(), vec![format!("{cluster}/{backend}")]);
        if matches!(set, Wish::Drain | Wish::Maint) {
            done.away.backends = self.endpoint_ids(cluster, backend).into_iter().collect();
            done.away.epoch = self.epoch;
            done.labels = labels(&self.identities, &done.away);
            if self.cluster_named(cluster).is_some_and(|found| self.up_count(found) == 0) {
                done.warnings.push(format!("no backend of {cluster} takes requests now: they are answered with 503"));
            }
        }
        Ok(done)
    }

    /// Lets the requests for a cluster wait from here on.
    ///
    /// # Errors
    /// A sentence; nothing has changed then.
    pub fn pause(&mut self, cluster: &str, whose: Whose, now: u64) -> Result<Administered, String> {
        let id = self.cluster_id(cluster)?;
        let seconds = whose.seconds.unwrap_or(0);
        let paused = Paused {
            since: whose.unix,
            until: whose.unix.saturating_add(seconds),
            who: whose.who,
            why: whose.why,
            until_ms: now.saturating_add(seconds.saturating_mul(1000)),
        };
        self.admin.pauses.insert(cluster.to_owned(), paused);
        let mut done = self.pauses_changed(cluster);
        let patience = self.table.cluster(id).map_or(0, |found| found.policy.queue_timeout);
        if u64::from(patience) < seconds {
            let (all, each) = (format!("the pause may last {seconds} s"), format!("a request waits for {patience} s"));
            done.warnings.push(format!("{all}, but {each} at most (queue.timeout) and is then answered with 503"));
        }
        done.away = TakenAway { clusters: BTreeSet::from([id]), epoch: self.epoch, ..TakenAway::default() };
        done.labels = labels(&self.identities, &done.away);
        Ok(done)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// A sentence; nothing has changed then.
    pub fn resume(&mut self, cluster: &str) -> Result<Administered, String> {
        self.cluster_id(cluster)?;
        if self.admin.pauses.remove(cluster).is_none() {
            return Err(format!("{cluster} is not paused"));
        }
        Ok(self.pauses_changed(cluster))
    }

    /// All words that hold, for the state file.
    pub fn overrides(&self) -> Vec<Override> {
        self.admin.words.values().flat_map(Words::all).map(|word| word.said.clone()).collect()
    }

    /// The pauses that hold, by cluster.
    pub fn pauses(&self) -> &BTreeMap<String, Paused> {
        &self.admin.pauses
    }

    /// Takes over words that were said to a process before this one; to be called before the first publication. Returns
    /// a sentence for each that no longer fits.
    pub fn restore(&mut self, overrides: Vec<Override>, unix: u64, now: u64) -> Vec<String> {
        let mut dropped = Vec::new();
        for said in overrides {
            let Override { cluster, backend, .. } = said.clone();
            let fits = match self.exists(&cluster, &backend) {
                Ok(()) if said.until.is_some_and(|until| until <= unix) => Err("its time is over".to_owned()),
                other => other,
            };
            if let Err(why) = fits {
                dropped.push(format!("{cluster}/{backend} {:?}: {why}", said.set));
                continue;
            }
            let until_ms = said.until.map(|until| now.saturating_add((until - unix).saturating_mul(1000)));
            self.admin.say(said, until_ms);
            // Nothing runs yet that would have to be told.
            drop(self.readminister(&cluster, &backend, now));
        }
        dropped
    }

    /// Ends words and pauses whose time is over.
    pub(super) fn expire_admin(&mut self, now: u64) -> Vec<Action> {
        if self.admin.next_deadline().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let over = |until: Option<u64>| until.is_some_and(|until| until <= now);
        let mut ended = Vec::new();
        self.admin.words.retain(|name, words| {
            let before = words.all().count();
            words.standing.take_if(|word| over(word.until_ms));
            words.weight.take_if(|word| over(word.until_ms));
            if words.all().count() != before {
                ended.push(name.clone());
            }
            words.all().count() > 0
        });
        let mut actions = Vec::new();
        for (cluster, backend) in ended {
            actions.extend(self.readminister(&cluster, &backend, now));
            actions.push(Action::Over { cluster, backend: Some(backend) });
        }
        let paused = &mut self.admin.pauses;
        let ended: Vec<String> =
            paused.iter().filter(|(_, p)| p.until_ms <= now).map(|(name, _)| name.clone()).collect();
        if !ended.is_empty() {
            paused.retain(|_, pause| pause.until_ms > now);
            self.repause();
            actions.push(self.publish());
            actions.extend(ended.into_iter().map(|cluster| Action::Over { cluster, backend: None }));
        }
        actions
    }

    /// Forgets what was said about backends and clusters that are gone, and brings the published states in line.
    pub(super) fn install_admin(&mut self) {
        let plan = &self.plan;
        self.admin.words.retain(|(cluster, backend), _| {
            plan.clusters.get(cluster).is_some_and(|c| c.backends.iter().any(|b| b.name == *backend))
        });
        self.admin.pauses.retain(|cluster, _| plan.clusters.contains_key(cluster));
        self.repause();
    }

    /// Brings what is published of a backend's endpoints in line with what was said of it. Publishes, and tells the
    /// workers which endpoints rest.
    fn readminister(&mut self, cluster: &str, backend: &str, now: u64) -> Vec<Action> {
        let endpoints = self.endpoint_ids(cluster, backend);
        let out = self.admin.standing(cluster, backend).is_some();
        for id in &endpoints {
            if !out {
                // What the cells say of the time in which it was out does not count.
                self.settle(*id, now);
            }
            if self.is_in_maintenance(*id)
                && let Some(entry) = self.entries.get_mut(id)
            {
                // Nobody probes it from here on, and what comes back may be another program: rows of probes begin anew.
                entry.health.forget_probes();
            }
            self.refresh(*id);
        }
        let mut notes = Vec::new();
        if let Some(found) = self.cluster_named(cluster).cloned() {
            // Published behind this.
            let epoch = self.epoch + 1;
            notes.extend(self.keep_one_up(&found, "the others of its cluster were taken out", (epoch, now)));
        }
        self.subscribe_all(now);
        let mut actions = vec![self.publish(), Action::Rest { backends: endpoints, rests: out }];
        actions.extend(notes.into_iter().map(Action::Log));
        actions
    }

    fn pauses_changed(&mut self, cluster: &str) -> Administered {
        self.repause();
        let mut done = Administered { actions: vec![self.publish()], ..Administered::default() };
        done.changed.insert("clusters_changed".to_owned(), vec![cluster.to_owned()]);
        done
    }

    /// Writes down who is paused as workers read it.
    fn repause(&mut self) {
        let mut ids: Vec<ClusterId> =
            self.admin.pauses.keys().filter_map(|name| self.identities.cluster(name)).collect();
        ids.sort();
        self.paused = ids.into();
    }

    fn exists(&self, cluster: &str, backend: &str) -> Result<(), String> {
        self.cluster_id(cluster)?;
        let backends = self.plan.clusters.get(cluster).map_or(&[][..], |c| &c.backends);
        if backends.iter().any(|b| b.name == backend) {
            return Ok(());
        }
        let names: Vec<&str> = backends.iter().map(|b| b.name.as_str()).take(10).collect();
        Err(format!("there is no backend {backend:?} in {cluster}; it has {}", names.join(", ")))
    }

    fn cluster_id(&self, cluster: &str) -> Result<ClusterId, String> {
        if self.drain.is_some() {
            return Err("the process is about to end".to_owned());
        }
        self.identities.cluster(cluster).ok_or_else(|| format!("there is no cluster {cluster:?}"))
    }

    fn cluster_named(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.table.cluster(self.identities.cluster(name)?)
    }

    /// The endpoints of a backend; none if its name has no address.
    pub(super) fn endpoint_ids(&self, cluster: &str, backend: &str) -> Vec<BackendId> {
        let backends = self.cluster_named(cluster).into_iter().flat_map(|c| &c.backends);
        backends.filter(|b| b.name == backend).map(|b| b.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{begin, fail, id, plan, reload, standings, state, two};
    use super::*;
    use crate::limits::WEIGHT_ONE;
    use crate::route::health::Standing::{Down, Drain, Maint, Up};
    use crate::route::health_policy::Check;

    fn whose(seconds: Option<u64>) -> Whose {
        Whose { who: "me".into(), why: Some("a test".into()), unix: 1_000, seconds }
    }

    fn say(s: &mut Supervisor, backend: &str, set: Wish, seconds: Option<u64>, now: u64) -> Administered {
        let done = s.administer("app", backend, set, whose(seconds), now).unwrap();
        s.invariants();
        done
    }

    fn published(s: &Supervisor) -> Vec<Standing> {
        standings(&s.snapshot())
    }

    #[test]
    fn the_operators_word_goes_before_health_and_neither_forgets_the_other() {
        let mut s = begin(two());
        fail(&mut s, "a", 0);
        let done = say(&mut s, "a", Wish::Maint, None, 1_000);
        assert_eq!(published(&s), [Maint, Up]);
        assert!(done.away.backends.contains(&id(&s, "app", "a")) && done.warnings.is_empty());
        assert_eq!(done.labels.backends.values().next().unwrap(), "app/a (10.0.0.1:80)");
        assert_eq!((state(&s, "a").state, state(&s, "a").observed), (Maint, Down));
        // It is not probed while it is out, and failures do not count.
        assert!(s.tick(30_000).iter().all(|action| !matches!(action, Action::Probe(_))));
        assert!(fail(&mut s, "a", 31_000).is_empty());
        // Taken back, it is as health left it, and it is probed at once.
        let done = say(&mut s, "a", Wish::Up, None, 32_000);
        let probe = done.actions.iter().find_map(|a| if let Action::Probe(probe) = a { Some(probe.id) } else { None });
        assert!(done.actions.iter().any(|action| matches!(action, Action::Rest { rests: false, .. })));
        assert_eq!(published(&s), [Down, Up]);
        let a = id(&s, "app", "a");
        s.probe_result(probe.expect("it is probed"), Ok("200".into()), 32_500);
        assert_eq!(published(&s), [Up, Up]);
        assert!(s.look(a, 33_000).is_empty(), "what it did while it was out is forgotten");
    }

    #[test]
    fn the_last_that_may_serve_serves() {
        let mut s = begin(two());
        fail(&mut s, "a", 0);
        say(&mut s, "b", Wish::Drain, None, 1_000);
        assert_eq!(published(&s), [Up, Drain], "a bad one is better than none");
        let done = say(&mut s, "a", Wish::Drain, None, 2_000);
        assert_eq!(published(&s), [Drain, Drain], "operators may want none");
        assert!(done.warnings[0].contains("503"));
    }

    #[test]
    fn words_end_by_themselves_and_survive_reloads() {
        let mut s = begin(two());
        say(&mut s, "a", Wish::Weight(9), Some(60), 0);
        say(&mut s, "a", Wish::Drain, Some(120), 0);
        reload(&mut s, two(), 1_000);
        assert_eq!(s.snapshot().states[0].weight, 9 * WEIGHT_ONE);
        assert_eq!((published(&s)[0], state(&s, "a").overrides.len()), (Drain, 2));
        assert_eq!(s.next_deadline(), Some(60_000));
        let done = s.tick(60_000);
        let [Action::Publish(_), Action::Rest { .. }, Action::Over { cluster, backend }] = &done[..] else {
            panic!("{done:?}")
        };
        assert_eq!((&cluster[..], backend.as_deref()), ("app", Some("a")));
        assert_eq!((s.snapshot().states[0].weight, published(&s)[0]), (WEIGHT_ONE, Drain));
        s.tick(120_000);
        assert_eq!((published(&s)[0], s.overrides().len(), s.next_deadline()), (Up, 0, None));
        // They go with the backend.
        say(&mut s, "b", Wish::Drain, None, 130_000);
        reload(&mut s, plan(&[("app", &[("a", "10.0.0.1:80")])]), 131_000);
        reload(&mut s, two(), 132_000);
        assert_eq!(published(&s), [Up, Up]);
    }

    #[test]
    fn probes_before_a_maintenance_do_not_count_behind_it() {
        let mut checked = two();
        for cluster in checked.clusters.values_mut() {
            cluster.policy.health.check = Some(Check { interval: 10, rise: 2, fall: 2 });
        }
        let mut s = begin(checked);
        fail(&mut s, "a", 0);
        // The next probe of `a` finds this; those of `b` are good. Returns when it was.
        let probe = |s: &mut Supervisor, mut now: u64, verdict: Result<String, String>| {
            let a = s.snapshot().table.clusters()[0].backends[0].endpoint.clone();
            loop {
                now += 1_000;
                assert!(now < 1_000_000, "it is probed");
                let mut seen = false;
                for action in s.tick(now) {
                    let Action::Probe(probe) = action else { continue };
                    let of_a = probe.endpoint == a;
                    s.probe_result(probe.id, if of_a { verdict.clone() } else { Ok("200".into()) }, now);
                    seen |= of_a;
                }
                if seen {
                    return now;
                }
            }
        };
        let mut now = 40_000;
        let (well, ill) = (Ok("200".to_owned()), Err("refused".to_owned()));
        for (found, before, after) in [(&well, [Down, Up], [Up, Up]), (&ill, [Up, Up], [Down, Up])] {
            now = probe(&mut s, now, found.clone());
            say(&mut s, "a", Wish::Maint, Some(60), now);
            now += 60_000;
            s.tick(now);
            assert_eq!(published(&s), before, "as health left it");
            now = probe(&mut s, now, found.clone());
            assert_eq!(published(&s), before, "the first of two");
            now = probe(&mut s, now, found.clone());
            assert_eq!(published(&s), after);
        }
    }

    #[test]
    fn what_is_restored_is_what_was_said() {
        let mut s = begin(two());
        say(&mut s, "a", Wish::Drain, Some(500), 0);
        say(&mut s, "b", Wish::Weight(3), None, 0);
        let said = s.overrides();
        let mut again = begin(two());
        let gone = Override { backend: "c".into(), ..said[0].clone() };
        let dropped = again.restore([said.clone(), vec![gone]].concat(), 1_100, 0);
        assert_eq!((dropped.len(), again.overrides()), (1, said.clone()), "{dropped:?}");
        again.invariants();
        assert_eq!((published(&again), again.next_deadline()), (vec![Drain, Up], Some(400_000)));
        let mut late = begin(two());
        assert_eq!(late.restore(said, 1_500, 0).len(), 1, "its time is over");
    }

    #[test]
    fn a_pause_is_published_and_ends() {
        let mut s = begin(two());
        let done = s.pause("app", whose(Some(5)), 1_000).unwrap();
        let Action::Publish(snapshot) = &done.actions[0] else { panic!("{:?}", done.actions) };
        let app = s.snapshot().table.clusters()[0].id;
        assert_eq!((&snapshot.paused[..], done.away.clusters.contains(&app)), (&[app][..], true));
        assert_eq!(
            (done.warnings.len(), begin(two()).pause("app", whose(Some(31)), 0).unwrap().warnings.len()),
            (0, 1)
        );
        assert!(!done.away.queued, "those that wait are not in flight");
        assert_eq!(s.pauses()["app"].until, 1_005);
        reload(&mut s, two(), 2_000);
        assert_eq!(s.snapshot().paused.len(), 1);
        assert!(matches!(&s.tick(6_000)[..], [Action::Publish(_), Action::Over { backend: None, .. }]));
        assert!(s.snapshot().paused.is_empty());
        assert!(s.resume("app").is_err() && s.pause("none", whose(None), 0).is_err());
    }

    #[test]
    fn a_pause_ends_in_a_drain_too() {
        let mut s = begin(two());
        s.pause("app", whose(Some(5)), 1_000).unwrap();
        s.drain(2_000).unwrap();
        assert_eq!(s.next_deadline(), Some(6_000));
        assert!(matches!(&s.tick(6_000)[..], [Action::Publish(_), Action::Over { backend: None, .. }]));
        assert!(s.snapshot().paused.is_empty() && s.next_deadline().is_some_and(|at| at > 6_000));
    }

    #[test]
    fn what_makes_no_sense_changes_nothing() {
        let mut s = begin(two());
        for (cluster, backend, set) in [
            ("none", "a", Wish::Drain),
            ("app", "c", Wish::Drain),
            ("app", "a", Wish::Weight(0)),
            ("app", "a", Wish::Weight(WEIGHT_MAX + 1)),
        ] {
            assert!(s.administer(cluster, backend, set, whose(None), 0).is_err());
        }
        assert_eq!((s.snapshot().epoch, s.overrides().len()), (1, 0));
        s.drain(0);
        assert!(s.administer("app", "a", Wish::Drain, whose(None), 0).is_err());
    }
}
