//! The dialogue with a running Redis, without the socket: replies come in, commands go out. It only reads.
//!
//! AUTH where there is a password, SELECT where the database is not 0, SCAN until its cursor is back at 0 (KEYS where the
//! server is older than 2.8), then LRANGE for every key, many at a time.

use super::Unusable;
use super::note::shown;
use super::resp::{self, Reply};
use super::store::{At, Store};
use crate::limits;
use std::collections::{BTreeSet, VecDeque};

/// Keys that are asked for at a time.
const BATCH: usize = 256;
const SCAN_COUNT: &[u8] = b"1000";

/// What has to be said to the server, and what to do then.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// These bytes; then its replies are to be handed in.
    Send(Vec<u8>),
    /// Nothing, more of its replies have to come.
    Wait,
    /// Nothing, all was read.
    Done,
}

#[derive(Debug)]
enum Step {
    Auth,
    Select,
    Scan,
    Keys,
    Lists,
}

/// One dialogue.
#[derive(Debug)]
pub struct Live {
    step: Step,
    database: u64,
    pattern: Vec<u8>,
    /// Bytes of replies that are not yet whole.
    ahead: Vec<u8>,
    keys: BTreeSet<Vec<u8>>,
    /// Keys whose lists were asked for, in order.
    asked: VecDeque<Vec<u8>>,
}

impl Live {
    /// With the server at `address`, which is named in notes, and what is to be sent first.
    pub fn begin(address: &str, password: Option<String>, database: u64, store: &mut Store) -> (Live, Vec<u8>) {
        store.begin(&format!("redis {address}"));
        store.database = database;
        let mut live = Live {
            step: Step::Auth,
            database,
            pattern: store.pattern(),
            ahead: Vec::new(),
            keys: BTreeSet::new(),
            asked: VecDeque::new(),
        };
        let mut out = Vec::new();
        match password {
            Some(password) => resp::write(&[b"AUTH", password.as_bytes()], &mut out),
            None => live.select(&mut out),
        }
        (live, out)
    }

    fn select(&mut self, out: &mut Vec<u8>) {
        if self.database == 0 {
            return self.scan(b"0", out);
        }
        self.step = Step::Select;
        resp::write(&[b"SELECT", self.database.to_string().as_bytes()], out);
    }

    fn scan(&mut self, cursor: &[u8], out: &mut Vec<u8>) {
        self.step = Step::Scan;
        resp::write(&[b"SCAN", cursor, b"MATCH", &self.pattern, b"COUNT", SCAN_COUNT], out);
    }

    /// Asks for the next lists.
    fn ask(&mut self, out: &mut Vec<u8>) {
        self.step = Step::Lists;
        while self.asked.len() < BATCH
            && let Some(key) = self.keys.pop_first()
        {
            resp::write(&[b"LRANGE", &key, b"0", b"-1"], out);
            self.asked.push_back(key);
        }
    }

    /// Takes bytes that the server has sent.
    ///
    /// # Errors
    /// It refuses, or is no Redis, or says more than any Hipache's Redis would.
    pub fn take(&mut self, bytes: &[u8], store: &mut Store) -> Result<Next, Unusable> {
        self.ahead.extend_from_slice(bytes);
        let (mut at, mut out) = (0, Vec::new());
        let mut done = false;
        while !done && let Some((reply, next)) = resp::reply(&self.ahead, at)? {
            at = next;
            done = self.understand(reply, store, &mut out)?;
        }
        self.ahead.drain(..at);
        if self.ahead.len() > limits::IMPORT_REPLY_BYTES_MAX {
            let message = format!("a reply of more than {} bytes", limits::IMPORT_REPLY_BYTES_MAX);
            return Err(Unusable::new(at, message));
        }
        Ok(match (done, out.is_empty()) {
            (true, _) => Next::Done,
            (false, true) => Next::Wait,
            (false, false) => Next::Send(out),
        })
    }

    /// Takes one reply; true if it was the last.
    fn understand(&mut self, reply: Reply, store: &mut Store, out: &mut Vec<u8>) -> Result<bool, Unusable> {
        let unusable = |message: String| Err(Unusable::new(0, message));
        match (&self.step, reply) {
            (Step::Auth, Reply::Status(_)) => self.select(out),
            (Step::Select, Reply::Status(_)) => self.scan(b"0", out),
            (Step::Scan, Reply::Array(parts)) => match <[Reply; 2]>::try_from(parts) {
                Ok([Reply::Bulk(cursor), Reply::Array(keys)]) => {
                    self.collect(keys, store)?;
                    if cursor == b"0" { self.ask(out) } else { self.scan(&cursor, out) }
                }
                _ => return unusable("its reply to SCAN is none".into()),
            },
            (Step::Scan, Reply::Error(why)) if why.to_ascii_lowercase().starts_with(b"err unknown command") => {
                self.step = Step::Keys;
                resp::write(&[b"KEYS", &self.pattern], out);
            }
            (Step::Keys, Reply::Array(keys)) => {
                self.collect(keys, store)?;
                self.ask(out);
            }
            (Step::Lists, reply) => {
                let Some(key) = self.asked.pop_front() else { return unusable("a reply to nothing".into()) };
                self.list(&key, reply, store)?;
                if self.asked.is_empty() {
                    self.ask(out);
                }
            }
            (_, Reply::Error(why)) => {
                let advice = if why.starts_with(b"NOAUTH") { " (--password-env VARIABLE names one)" } else { "" };
                return unusable(format!("it says {}{advice}", shown(&why)));
            }
            _ => return unusable("its reply is none of Redis".into()),
        }
        Ok(matches!(self.step, Step::Lists) && self.asked.is_empty())
    }

    fn collect(&mut self, keys: Vec<Reply>, store: &Store) -> Result<(), Unusable> {
        for key in keys {
            if let Reply::Bulk(key) = key
                && store.host(&key).is_some()
            {
                self.keys.insert(key);
            }
        }
        if self.keys.len() > limits::IMPORT_KEYS_MAX {
            return Err(Unusable::new(0, format!("more than {} keys", limits::IMPORT_KEYS_MAX)));
        }
        Ok(())
    }

    fn list(&mut self, key: &[u8], reply: Reply, store: &mut Store) -> Result<(), Unusable> {
        match reply {
            Reply::Array(elements) => {
                let bytes = |element| if let Reply::Bulk(bytes) = element { Some(bytes) } else { None };
                store.put(At::Within, key, elements.into_iter().filter_map(bytes));
            }
            Reply::Error(why) if why.starts_with(b"WRONGTYPE") => {
                store.leave_out(At::Within, key, "it is no list, and a Hipache could not read it either");
            }
            Reply::Error(why) => return Err(Unusable::new(0, format!("it says {} of {}", shown(&why), shown(key)))),
            _ => return Err(Unusable::new(0, "its reply to LRANGE is none")),
        }
        Ok(())
    }
}
