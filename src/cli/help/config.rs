//! `ringway help config`: the keys of the config file, as the JSON Schema has them.

use super::text::{row, wrap};
use super::unknown;
use ringway::config::keys::{self, Key};
use std::collections::BTreeSet;

/// Policy of every cluster: the keys below it are those of a cluster.
const DEFAULTS: &str = "defaults.";
const CLUSTER: &str = "clusters.*.";

/// Every key.
pub fn all() -> String {
    let keys = keys::all();
    let mut out = String::new();
    wrap(
        &mut out,
        0,
        "The keys of the config file, each with what may stand there, its default and what it does. A * is a \
        name of your choice. ringway help config KEY tells of one key and those below it; KEY is the begin of a path, as \
        clusters.*.timeouts, or a name, as hold_down. ringway check FILE --show prints a config with all defaults, \
        ringway schema the JSON Schema.",
    );
    for key in &keys {
        if !is_repeated(&keys, key) {
            write(&mut out, key);
        }
        if format!("{}.", key.path) == DEFAULTS {
            wrap(&mut out, 4, "Keys: those of clusters.* but backends; ringway help config defaults lists them.");
        }
    }
    out
}

/// One key and what is below it, or those of a name.
///
/// # Errors
/// There is none.
pub fn of(asked: &str) -> Result<String, String> {
    let keys = keys::all();
    let found = keys::matching(&keys, asked);
    if found.is_empty() {
        let known: BTreeSet<&str> =
            keys.iter().flat_map(|key| [&*key.path, key.path.rsplit('.').next().unwrap_or_default()]).collect();
        let last = asked.rsplit('.').next().unwrap_or_default();
        let word = if known.contains(last) { asked } else { last };
        return Err(unknown("key of that name", word, known.into_iter(), "ringway help config"));
    }
    let mut out = String::new();
    found.into_iter().for_each(|key| write(&mut out, key));
    Ok(out.trim_start().to_owned())
}

/// Whether it is told of a cluster already.
fn is_repeated(keys: &[Key], key: &Key) -> bool {
    key.path.strip_prefix(DEFAULTS).is_some_and(|rest| {
        let told = keys.iter().find(|other| other.path.strip_prefix(CLUSTER) == Some(rest));
        told.is_some_and(|other| Key { path: key.path.clone(), ..other.clone() } == *key)
    })
}

fn write(out: &mut String, key: &Key) {
    out.push('\n');
    out.push_str(&key.path);
    out.push('\n');
    let default = match &key.default {
        Some(default) => format!("; default {default}"),
        None if key.needed => "; needed".to_owned(),
        None => String::new(),
    };
    wrap(out, 4, &format!("{}{default}", key.kind));
    wrap(out, 4, &key.meaning);
    // One word alone is told by the key.
    for (word, meaning) in key.words.iter().filter(|_| key.words.len() > 1) {
        row(out, 8, word, 26, meaning);
    }
}
