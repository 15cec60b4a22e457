//! Names to addresses, by the system's resolver, in threads of its own: it may hang for as long as it likes.
//!
//! Each name is resolved when it is first wanted and every `limits::RESOLVE_SECONDS` from then on. What an answer means is
//! the supervisor's to say.

use crate::limits;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a name is resolved: the system's way, or a test's.
pub type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// What a name resolved to, or why it did not.
pub type Answer = Result<Vec<IpAddr>, String>;

/// The system's resolver.
///
/// # Errors
/// As getaddrinfo gives them.
pub fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

#[derive(Debug)]
struct Entry {
    /// It was answered once, well or badly.
    answered: bool,
    failing: bool,
    /// A thread has it, or it is in line for one.
    under_way: bool,
    /// When to ask next.
    due: Instant,
}

/// All names that are wanted, and when they are asked for.
pub struct Resolver {
    names: BTreeMap<String, Entry>,
    /// Bounded by `names`: each is in it at most once.
    jobs: Sender<String>,
    answers: Receiver<(String, Answer)>,
}

impl Resolver {
    /// Starts the threads. `done` is called from them after each answer, for the loop to look.
    ///
    /// # Errors
    /// A thread could not be made.
    pub fn new(lookup: Arc<Lookup>, done: Arc<dyn Fn() + Send + Sync>) -> io::Result<Resolver> {
        let (jobs, to_do) = unbounded::<String>();
        let (answer, answers) = unbounded();
        for _ in 0..limits::RESOLVE_THREADS {
            let (to_do, answer, lookup, done) = (to_do.clone(), answer.clone(), lookup.clone(), done.clone());
            std::thread::Builder::new().name("ringway-resolve".into()).spawn(move || {
                for name in to_do {
                    let result = lookup(&name).map_err(|e| e.to_string());
                    if answer.send((name, result)).is_err() {
                        return;
                    }
                    done();
                }
            })?;
        }
        Ok(Resolver { names: BTreeMap::new(), jobs, answers })
    }

    /// From now on exactly these names are wanted; new ones are asked for at once.
    pub fn want(&mut self, names: BTreeSet<String>, now: Instant) {
        self.names.retain(|name, _| names.contains(name));
        for name in names {
            let fresh = Entry { answered: false, failing: false, under_way: false, due: now };
            self.names.entry(name).or_insert(fresh);
        }
        self.tick(now);
    }

    /// Asks again for what is due.
    pub fn tick(&mut self, now: Instant) {
        for (name, entry) in &mut self.names {
            if entry.due <= now && !entry.under_way {
                // The threads end only when this sender does.
                entry.under_way = self.jobs.send(name.clone()).is_ok();
                entry.due = now + Duration::from_secs(limits::RESOLVE_SECONDS);
            }
        }
    }

    /// When [`Resolver::tick`] has work next.
    pub fn deadline(&self) -> Option<Instant> {
        self.names.values().filter(|entry| !entry.under_way).map(|entry| entry.due).min()
    }

    /// Takes the answers that have come.
    pub fn take(&mut self) -> Vec<(String, Answer)> {
        let mut taken = Vec::new();
        for (name, answer) in self.answers.try_iter() {
            // Of a name that is no longer wanted nobody wants to know.
            let Some(entry) = self.names.get_mut(&name) else { continue };
            (entry.under_way, entry.answered) = (false, true);
            match &answer {
                Ok(_) if entry.failing => tracing::info!("{name} resolves again"),
                Err(e) if !entry.failing => tracing::warn!("{name} does not resolve: {e}"),
                _ => {}
            }
            entry.failing = answer.is_err();
            taken.push((name, answer));
        }
        taken
    }

    /// Whether each of these was answered once, well or badly. Such that are not wanted count as answered.
    pub fn has_answered(&self, names: &BTreeSet<String>) -> bool {
        names.iter().all(|name| self.names.get(name).is_none_or(|entry| entry.answered))
    }

    /// Waits until every name was answered once, but not beyond `deadline`, and gives all answers. For the start only: it
    /// blocks.
    pub fn settle(&mut self, deadline: Instant) -> Vec<(String, Answer)> {
        let mut answers = self.take();
        while self.names.values().any(|entry| !entry.answered) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
            answers.extend(self.take());
        }
        for (name, _) in self.names.iter().filter(|(_, entry)| !entry.answered) {
            tracing::warn!("{name} has not resolved yet; its backends are missing until it does");
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    fn names(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn a_name_that_hangs_delays_no_other_and_each_is_asked_again() {
        let (release, hang) = bounded::<()>(0);
        let lookup = move |name: &str| match name {
            "a" => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
            "hangs" => {
                let _ = hang.recv();
                Err(io::ErrorKind::TimedOut.into())
            }
            _ => Err(io::Error::other("no such name")),
        };
        let (rang, bell) = bounded(100);
        let done = move || {
            let _ = rang.send(());
        };
        let mut resolver = Resolver::new(Arc::new(lookup), Arc::new(done)).expect("threads");
        let begin = Instant::now();
        resolver.want(names(&["a", "b", "hangs"]), begin);
        bell.recv().expect("rung");
        bell.recv().expect("rung");
        let mut answers = resolver.settle(Instant::now() + Duration::from_millis(20));
        answers.sort();
        let (a, b) = (Ok(vec![IpAddr::from([192, 0, 2, 1])]), Err("no such name".to_owned()));
        assert_eq!(answers, [("a".to_owned(), a), ("b".to_owned(), b)]);
        assert!(resolver.has_answered(&names(&["a", "b", "never wanted"])));
        assert!(!resolver.has_answered(&names(&["a", "hangs"])));

        let later = begin + Duration::from_secs(limits::RESOLVE_SECONDS);
        assert_eq!(resolver.deadline(), Some(later));
        resolver.tick(later);
        bell.recv().expect("rung");
        bell.recv().expect("rung");
        assert_eq!(resolver.take().len(), 2);

        drop(release);
        bell.recv().expect("rung");
        resolver.want(names(&["b"]), later);
        assert!(resolver.take().is_empty(), "nobody wants to know of it any more");
    }

    #[test]
    fn the_system_knows_literal_addresses() {
        assert_eq!(system("127.0.0.1").ok(), Some(vec![IpAddr::from([127, 0, 0, 1])]));
        assert!(system("no-such-name.invalid").is_err());
    }
}
