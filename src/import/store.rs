//! The lists of a Redis, as far as a Hipache reads them: what its commands make of `frontend:HOST`.

use super::note::{Note, Place, shown};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// What a Hipache's keys begin with.
pub(super) const FRONTEND: &str = "frontend:";
const DEAD: &str = "dead:";

/// One element of a list, with the place where it was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub(super) bytes: Vec<u8>,
    pub(super) place: Place,
}

/// One list, with the place where it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    pub(super) elements: VecDeque<Element>,
    pub(super) place: Place,
}

/// A place in the file that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    Line(usize),
    Byte(usize),
    Within,
}

/// The lists that have been read so far, and what there is to say about the rest.
#[derive(Debug)]
pub struct Store {
    prefix: Vec<u8>,
    file: Rc<str>,
    pub(super) lists: BTreeMap<(u64, Vec<u8>), List>,
    /// The database that commands go to.
    pub(super) database: u64,
    pub(super) notes: Vec<Note>,
    dead: u64,
    others: u64,
}

impl Store {
    /// An empty one. `prefix` is what stands before `frontend:` in keys (the part behind `#` in Hipache's `driver`).
    pub fn new(prefix: &str) -> Store {
        Store {
            prefix: prefix.as_bytes().into(),
            file: "".into(),
            lists: BTreeMap::new(),
            database: 0,
            notes: Vec::new(),
            dead: 0,
            others: 0,
        }
    }

    /// From here on, places are in this file.
    pub fn begin(&mut self, file: &str) {
        self.file = file.into();
        self.database = 0;
    }

    pub(super) fn place(&self, at: At) -> Place {
        match at {
            At::Line(line) => Place::Line(self.file.clone(), line),
            At::Byte(at) => Place::Byte(self.file.clone(), at),
            At::Within => Place::Within(self.file.clone()),
        }
    }

    /// Something that is not in the config.
    pub(super) fn leave_out(&mut self, at: At, key: &[u8], message: impl Into<String>) {
        let note = Note { place: self.place(at), key: shown(key), message: message.into(), left_out: true };
        self.notes.push(note);
    }

    /// Something to know.
    pub(super) fn remark(&mut self, at: At, key: &[u8], message: impl Into<String>) {
        let note = Note { place: self.place(at), key: shown(key), message: message.into(), left_out: false };
        self.notes.push(note);
    }

    /// The host of a key, if a Hipache would look for it.
    pub(super) fn host<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.strip_prefix(self.prefix.as_slice())?.strip_prefix(FRONTEND.as_bytes())
    }

    fn is_dead_mark(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix.as_slice()).is_some_and(|rest| rest.starts_with(DEAD.as_bytes()))
    }

    /// What `KEYS` and `SCAN` take for the keys that a Hipache looks for.
    pub(super) fn pattern(&self) -> Vec<u8> {
        let mut pattern = Vec::new();
        for byte in &self.prefix {
            if b"*?[]\\^".contains(byte) {
                pattern.push(b'\\');
            }
            pattern.push(*byte);
        }
        pattern.extend_from_slice(FRONTEND.as_bytes());
        pattern.push(b'*');
        pattern
    }

    /// A key that is none of Hipache's, or a dead mark, was met and is passed over.
    pub(super) fn pass_over(&mut self, key: &[u8]) {
        if self.is_dead_mark(key) { self.dead += 1 } else { self.others += 1 }
    }

    /// A whole list takes the place of whatever was there.
    pub(super) fn put(&mut self, at: At, key: &[u8], elements: impl IntoIterator<Item = Vec<u8>>) {
        let place = self.place(at);
        let elements: VecDeque<Element> =
            elements.into_iter().map(|bytes| Element { bytes, place: place.clone() }).collect();
        if !elements.is_empty() {
            self.lists.insert((self.database, key.into()), List { elements, place });
        }
    }

    /// Carries out one command, as Redis would.
    pub(super) fn apply(&mut self, at: At, words: &[Vec<u8>]) {
        let Some((name, args)) = words.split_first() else { return };
        let name = name.to_ascii_lowercase();
        match (name.as_slice(), args) {
            (b"select", [database]) => match number(database).and_then(|n| u64::try_from(n).ok()) {
                Some(database) => self.database = database,
                None => {
                    self.leave_out(at, b"", "SELECT without the number of a database; what follows stays where it was")
                }
            },
            (b"flushall", _) => self.lists.clear(),
            (b"flushdb", _) => {
                let database = self.database;
                self.lists.retain(|(db, _), _| *db != database);
            }
            (b"del" | b"unlink", keys) => keys.iter().for_each(|key| {
                self.lists.remove(&(self.database, key.clone()));
            }),
            (b"multi" | b"exec" | b"ping" | b"auth" | b"quit" | b"save" | b"bgsave" | b"bgrewriteaof", _) => {}
            (_, [key, rest @ ..]) if self.host(key).is_some() => self.change(at, &name, key, rest),
            _ => self.other(at, &name, args),
        }
    }

    /// A command whose first argument is one of Hipache's keys.
    fn change(&mut self, at: At, name: &[u8], key: &[u8], rest: &[Vec<u8>]) {
        let id = (self.database, key.to_vec());
        match (name, rest) {
            (b"rpush" | b"lpush" | b"rpushx" | b"lpushx", []) => self.leave_out(at, key, "a push of nothing"),
            (b"rpush" | b"lpush" | b"rpushx" | b"lpushx", values) => self.push(at, name, id, values),
            (b"lpop" | b"rpop", count) => self.pop(name, id, count),
            (b"rename", [to]) => {
                if let Some(list) = self.lists.remove(&id)
                    && self.host(to).is_some()
                {
                    self.lists.insert((self.database, to.clone()), list);
                }
            }
            (b"lrem", [count, value]) => self.with(at, id, number(count), |list, count| {
                remove(&mut list.elements, count, value);
                true
            }),
            (b"lset", [index, value]) => {
                let element = Element { bytes: value.clone(), place: self.place(at) };
                self.with(at, id, number(index), |list, index| {
                    let slot = position(&list.elements, index).and_then(|i| list.elements.get_mut(i));
                    slot.map(|slot| *slot = element).is_some()
                });
            }
            (b"ltrim", [first, last]) => {
                let range = number(first).zip(number(last));
                self.with(at, id, range, |list, (first, last)| {
                    trim(&mut list.elements, first, last);
                    true
                });
            }
            (b"linsert", [side, pivot, value]) => {
                let element = Element { bytes: value.clone(), place: self.place(at) };
                self.with(at, id, Some(()), |list, ()| {
                    if let Some(i) = list.elements.iter().position(|e| e.bytes == *pivot) {
                        list.elements.insert(i + usize::from(side.eq_ignore_ascii_case(b"after")), element);
                    }
                    true
                });
            }
            (b"expire" | b"pexpire" | b"expireat" | b"pexpireat", _) => {
                self.remark(at, key, "it has a time to live, which a route has not: it stays until it is taken away");
            }
            (b"persist" | b"lrange" | b"llen" | b"lindex" | b"exists" | b"type" | b"ttl" | b"pttl" | b"keys", _) => {}
            _ => {
                let message = format!("{} is not understood; the list may be another one than in Redis", upper(name));
                self.leave_out(at, key, message);
            }
        }
    }

    /// A command that is about none of Hipache's lists, at least not in its first argument.
    fn other(&mut self, at: At, name: &[u8], args: &[Vec<u8>]) {
        if let Some(key) = args.iter().find(|arg| self.host(arg).is_some()) {
            let key = key.clone();
            let message = format!("{} is not understood; the list may be another one than in Redis", upper(name));
            return self.leave_out(at, &key, message);
        }
        match args.first() {
            Some(key) => self.pass_over(key),
            None => self.others += 1,
        }
    }

    fn push(&mut self, at: At, name: &[u8], id: (u64, Vec<u8>), values: &[Vec<u8>]) {
        let place = self.place(at);
        if name.ends_with(b"x") && !self.lists.contains_key(&id) {
            return;
        }
        let list = self.lists.entry(id).or_insert_with(|| List { elements: VecDeque::new(), place: place.clone() });
        for value in values {
            let element = Element { bytes: value.clone(), place: place.clone() };
            if name.starts_with(b"r") { list.elements.push_back(element) } else { list.elements.push_front(element) }
        }
    }

    fn pop(&mut self, name: &[u8], id: (u64, Vec<u8>), count: &[Vec<u8>]) {
        let count = count.first().map_or(Some(1), |n| number(n)).unwrap_or(0);
        if let Some(list) = self.lists.get_mut(&id) {
            for _ in 0..count.clamp(0, list.elements.len() as i64) {
                if name.starts_with(b"l") {
                    list.elements.pop_front()
                } else {
                    list.elements.pop_back()
                };
            }
        }
        self.drop_empty(&id);
    }

    /// Changes a list by a number that was given, and takes it away if it is empty then.
    fn with<N>(&mut self, at: At, id: (u64, Vec<u8>), n: Option<N>, change: impl FnOnce(&mut List, N) -> bool) {
        let Some(n) = n else { return self.leave_out(at, &id.1, "a number was expected; the command is passed over") };
        let done = self.lists.get_mut(&id).map(|list| change(list, n));
        if done == Some(false) {
            self.leave_out(at, &id.1, "there is no element at this place; the command is passed over");
        }
        self.drop_empty(&id);
    }

    fn drop_empty(&mut self, id: &(u64, Vec<u8>)) {
        if self.lists.get(id).is_some_and(|list| list.elements.is_empty()) {
            self.lists.remove(id);
        }
    }

    /// The lists of one database, by key, and all that was to be said on the way.
    pub(super) fn finish(mut self, database: u64) -> (Vec<(Vec<u8>, List)>, Vec<Note>) {
        self.database = 0;
        if self.dead > 0 {
            let message = "marks of dead backends are not carried over: Ringway finds out for itself";
            self.remark(At::Within, format!("{DEAD}*").as_bytes(), message);
        }
        if self.others > 0 {
            let n = self.others;
            let message =
                format!("{n} other {} passed over", if n == 1 { "key or command is" } else { "keys or commands are" });
            self.remark(At::Within, b"", message);
        }
        let mut elsewhere: BTreeMap<u64, usize> = BTreeMap::new();
        let mut found = Vec::new();
        let prefix = self.prefix.len() + FRONTEND.len();
        for ((db, key), list) in std::mem::take(&mut self.lists) {
            if db == database {
                // Every key that is kept begins with both.
                found.push((key.get(prefix..).unwrap_or_default().to_vec(), list));
            } else {
                *elsewhere.entry(db).or_default() += 1;
            }
        }
        for (db, n) in elsewhere {
            self.leave_out(
                At::Within,
                b"",
                format!("database {db} has {n} of {FRONTEND}* (--db {db} takes these instead)"),
            );
        }
        (found, self.notes)
    }
}

fn upper(name: &[u8]) -> String {
    shown(&name.to_ascii_uppercase())
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The index of an element that is counted from the end where it is negative.
fn position(list: &VecDeque<Element>, index: i64) -> Option<usize> {
    let index = if index < 0 { index.checked_add(list.len() as i64)? } else { index };
    usize::try_from(index).ok().filter(|i| *i < list.len())
}

/// LREM: so many from the front, from the back where negative, all where zero.
fn remove(list: &mut VecDeque<Element>, count: i64, value: &[u8]) {
    let most = if count == 0 { usize::MAX } else { usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX) };
    let mut hits: Vec<usize> = list.iter().enumerate().filter(|(_, e)| e.bytes == value).map(|(i, _)| i).collect();
    if count < 0 {
        hits.reverse();
    }
    hits.truncate(most);
    let mut index = 0;
    hits.sort_unstable();
    list.retain(|_| {
        index += 1;
        hits.binary_search(&(index - 1)).is_err()
    });
}

/// LTRIM: what lies outside of the two goes.
fn trim(list: &mut VecDeque<Element>, first: i64, last: i64) {
    let len = list.len() as i64;
    let from = if first < 0 { first.saturating_add(len).max(0) } else { first };
    let to = if last < 0 { last.saturating_add(len) } else { last.min(len - 1) };
    let mut index = -1;
    list.retain(|_| {
        index += 1;
        from <= index && index <= to
    });
}
