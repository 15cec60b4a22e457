//! Any bytes are a file of Redis that is read, or not, with its place; what was read becomes a config without a fault, or
//! faults that can be said. Handed in as the replies of a running Redis they come to the same in pieces as at once. Input: the
//! file, or the replies.

use ringway::config::Address;
use ringway::config::check::load;
use ringway::import::live::{Live, Next};
use ringway::import::{Store, Wish, import, read};

const FILE: &str = "fuzz";

/// Judges one input.
pub fn check(bytes: &[u8]) {
    let mut store = Store::new("");
    match read(bytes, FILE, &mut store) {
        Ok(()) => drop(made(store)),
        Err(unusable) => assert!(unusable.at <= bytes.len() && !unusable.message.is_empty(), "{unusable}"),
    }
    assert_eq!(told(bytes.chunks(bytes.len().max(1))), told(bytes.chunks(1)));
    assert_eq!(told(bytes.chunks(7)), told(bytes.chunks(1)));
}

/// What the lists make, and what is noted.
fn made(store: Store) -> (Option<String>, Vec<String>) {
    let wish = Wish { database: 0, listen: Address::Ip(([127, 0, 0, 1], 80).into()) };
    match import(store, &wish) {
        Ok(imported) => {
            if let Some(config) = &imported.config {
                assert!(load(config, FILE).is_ok(), "{config}");
            }
            let notes: Vec<String> = imported.notes.iter().map(ToString::to_string).collect();
            assert!(notes.iter().all(|note| !note.is_empty()));
            (imported.config, notes)
        }
        Err(faults) => {
            assert!(!faults.list.is_empty() && !faults.to_string().is_empty());
            (None, vec![faults.to_string()])
        }
    }
}

/// What comes of a dialogue in which the server says this, and why it ended early.
fn told<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Option<String>, bool, Option<String>, Vec<String>) {
    let mut store = Store::new("");
    let (mut live, first) = Live::begin("127.0.0.1:6379", None, 0, &mut store);
    assert!(!first.is_empty());
    let mut done = false;
    for piece in pieces {
        match live.take(piece, &mut store) {
            Ok(Next::Done) => {
                done = true;
                break;
            }
            Ok(Next::Wait) => {}
            Ok(Next::Send(more)) => assert!(!more.is_empty()),
            Err(unusable) => return (Some(unusable.message), false, None, Vec::new()),
        }
    }
    let (config, notes) = made(store);
    (None, done, config, notes)
}
