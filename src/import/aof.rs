//! The append-only file of a Redis: every command that changed something, one behind the other.

use super::store::{At, Store};
use super::{Unusable, resp};

/// Applies the commands from `bytes[at]` on.
pub(super) fn read(bytes: &[u8], mut at: usize, store: &mut Store) -> Result<(), Unusable> {
    while let Some(first) = bytes.get(at) {
        // With aof-timestamp-enabled, Redis writes the time as a line between commands.
        if *first == b'#' {
            let Some((_, next)) = resp::line(bytes, at)? else { break };
            at = next;
            continue;
        }
        let Some((words, next)) = resp::command(bytes, at)? else { break };
        store.apply(At::Byte(at), &words);
        at = next;
    }
    if at < bytes.len() {
        store.leave_out(At::Byte(at), b"", "the file ends in the middle of a command: the rest is missing");
    }
    Ok(())
}
