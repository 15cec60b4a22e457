//! Names to addresses, by the system's resolver, in threads of its own: it may hang for as long as it likes.
//!
//! Each name is resolved when it is first wanted and every `limits::RESOLVE_SECONDS` from then on. A failure keeps the
//! last good addresses.

use crate::limits;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A name and the port that its addresses get.
pub type Name = (String, u16);

/// How a name is resolved: the system's way, or a test's.
pub type Lookup = dyn Fn(&Name) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The system's resolver.
///
/// # Errors
/// As getaddrinfo gives them; no address at all is an error too.
pub fn system(name: &Name) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (name.0.as_str(), name.1).to_socket_addrs()?.collect();
    if found.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(found) }
}

#[derive(Debug)]
struct Entry {
    /// Sorted, without doubles; `None` if it never resolved.
    addresses: Option<Vec<SocketAddr>>,
    /// The latest failure, until the next success.
    failure: Option<String>,
    /// A thread has it, or it is in line for one.
    under_way: bool,
    /// When to ask next.
    due: Instant,
}

/// All names that are wanted, and what is known of them.
pub struct Resolver {
    names: BTreeMap<Name, Entry>,
    /// Bounded by `names`: each is in it at most once.
    jobs: Sender<Name>,
    answers: Receiver<(Name, io::Result<Vec<SocketAddr>>)>,
}

impl Resolver {
    /// Starts the threads. `done` is called from them after each answer, for the loop to look.
    ///
    /// # Errors
    /// A thread could not be made.
    pub fn new(lookup: Arc<Lookup>, done: impl Fn() + Send + Clone + 'static) -> io::Result<Resolver> {
        let (jobs, to_do) = unbounded::<Name>();
        let (answer, answers) = unbounded();
        for _ in 0..limits::RESOLVE_THREADS {
            let (to_do, answer, lookup, done) = (to_do.clone(), answer.clone(), lookup.clone(), done.clone());
            std::thread::Builder::new().name("ringway-resolve".into()).spawn(move || {
                for name in to_do {
                    let result = lookup(&name);
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
    pub fn want(&mut self, names: BTreeSet<Name>, now: Instant) {
        self.names.retain(|name, _| names.contains(name));
        for name in names {
            self.names.entry(name).or_insert(Entry { addresses: None, failure: None, under_way: false, due: now });
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

    /// Takes the answers that have come; whether any of them changed the addresses of a name.
    pub fn take(&mut self) -> bool {
        let mut changed = false;
        for (name, result) in self.answers.try_iter() {
            // A name that is no longer wanted, or is again: its answer is as good as any.
            let Some(entry) = self.names.get_mut(&name) else { continue };
            entry.under_way = false;
            match result {
                Ok(mut found) => {
                    found.sort_unstable();
                    found.dedup();
                    if entry.failure.take().is_some() {
                        tracing::info!("{} resolves again", name.0);
                    }
                    changed |= entry.addresses.as_ref() != Some(&found);
                    entry.addresses = Some(found);
                }
                Err(e) => {
                    if entry.failure.is_none() {
                        let kept = if entry.addresses.is_some() { "; the last addresses are kept" } else { "" };
                        tracing::warn!("{} does not resolve: {e}{kept}", name.0);
                    }
                    entry.failure = Some(e.to_string());
                }
            }
        }
        changed
    }

    /// Whether every name was answered once, well or badly.
    pub fn is_settled(&self) -> bool {
        self.names.values().all(|entry| entry.addresses.is_some() || entry.failure.is_some())
    }

    /// Waits until every name was answered once, but not beyond `deadline`. For the start only: it blocks.
    pub fn settle(&mut self, deadline: Instant) {
        while !self.is_settled() && Instant::now() < deadline {
            self.take();
            std::thread::sleep(Duration::from_millis(5));
        }
        self.take();
        for (name, _) in self.names.iter().filter(|(_, e)| e.addresses.is_none() && e.failure.is_none()) {
            tracing::warn!("{} has not resolved yet; its backends are missing until it does", name.0);
        }
    }

    /// The last good addresses, sorted; empty if it never resolved.
    pub fn addresses(&self, name: &str, port: u16) -> &[SocketAddr] {
        let entry = self.names.get(&(name.to_owned(), port));
        entry.and_then(|entry| entry.addresses.as_deref()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use std::sync::Mutex;

    fn name(text: &str) -> Name {
        (text.to_owned(), 80)
    }

    fn names(texts: &[&str]) -> BTreeSet<Name> {
        texts.iter().map(|t| name(t)).collect()
    }

    fn ip(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 80))
    }

    #[test]
    fn a_name_that_hangs_delays_no_other_and_the_last_good_answer_is_kept() {
        let (release, hang) = bounded::<()>(0);
        let answers = Arc::new(Mutex::new(BTreeMap::from([("a".to_owned(), vec![ip(2), ip(1), ip(2)])])));
        let known = answers.clone();
        let lookup = move |name: &Name| match name.0.as_str() {
            "hangs" => {
                let _ = hang.recv();
                Err(io::ErrorKind::TimedOut.into())
            }
            other => {
                known.lock().expect("no poison").get(other).cloned().ok_or_else(|| io::Error::other("no such name"))
            }
        };
        let (rang, bell) = bounded(100);
        let mut resolver = Resolver::new(Arc::new(lookup), move || {
            let _ = rang.send(());
        })
        .expect("threads");
        let begin = Instant::now();
        resolver.want(names(&["a", "b", "hangs"]), begin);
        bell.recv().expect("rung");
        bell.recv().expect("rung");
        assert!(resolver.take());
        assert_eq!(resolver.addresses("a", 80), [ip(1), ip(2)]);
        assert!(resolver.addresses("b", 80).is_empty() && resolver.addresses("a", 81).is_empty());
        assert!(!resolver.is_settled());
        resolver.settle(Instant::now() + Duration::from_millis(20));
        assert!(!resolver.is_settled(), "the deadline holds");

        answers.lock().expect("no poison").clear();
        let later = begin + Duration::from_secs(limits::RESOLVE_SECONDS);
        assert_eq!(resolver.deadline(), Some(later));
        resolver.tick(later);
        bell.recv().expect("rung");
        bell.recv().expect("rung");
        assert!(!resolver.take(), "a failure changes nothing");
        assert_eq!(resolver.addresses("a", 80), [ip(1), ip(2)]);

        drop(release);
        bell.recv().expect("rung");
        resolver.take();
        assert!(resolver.is_settled());
        resolver.want(names(&["b"]), later);
        assert!(resolver.addresses("a", 80).is_empty());
    }

    #[test]
    fn the_system_knows_literal_addresses() {
        assert_eq!(system(&("127.0.0.1".into(), 7)).ok(), Some(vec![SocketAddr::from(([127, 0, 0, 1], 7))]));
        assert!(system(&("no-such-name.invalid".into(), 7)).is_err());
    }
}
