//! A config that a program has put together, as text: only what differs from the defaults stands in it.

use super::check;
use super::file::{Client, Cluster, Control, File, Headers, Limits, Log, Policy, Status, drain_timeout, retry_after};
use super::words::IoWord;
use serde_json::Value;
use std::collections::BTreeMap;

/// The config as JSON that [`check::load`] takes for an equal plan.
pub fn text(file: &File) -> String {
    let cluster = Cluster { backends: BTreeMap::new(), policy: Policy::default() };
    let (Ok(mut typed), Ok(plain), Ok(cluster)) =
        (serde_json::to_value(file), serde_json::to_value(File::default()), serde_json::to_value(cluster))
    else {
        return check::pretty(file);
    };
    if let Some(clusters) = typed.get_mut("clusters").and_then(Value::as_object_mut) {
        for (_, value) in clusters {
            shorten(value, &cluster, &["backends"]);
            let backends = value.get_mut("backends").and_then(Value::as_object_mut);
            backends.into_iter().flat_map(|map| map.iter_mut()).for_each(|(_, entry)| shorten_backend(entry));
        }
    }
    shorten(&mut typed, &plain, &["listeners", "clusters", "routes"]);
    check::pretty(&typed)
}

/// A file of which nothing is said, not even what is needed.
impl Default for File {
    fn default() -> File {
        File {
            schema: None,
            listeners: BTreeMap::new(),
            clusters: BTreeMap::new(),
            routes: BTreeMap::new(),
            defaults: Policy::default(),
            workers: None,
            io: IoWord::default(),
            control: Control::default(),
            state_file: None,
            status: Status::default(),
            limits: Limits::default(),
            client: Client::default(),
            headers: Headers::default(),
            log: Log::default(),
            pages: BTreeMap::new(),
            drain_timeout: drain_timeout(),
            retry_after: retry_after(),
        }
    }
}

/// Takes away what is the same in `plain`, but for the members that are needed.
fn shorten(value: &mut Value, plain: &Value, needed: &[&str]) {
    let (Value::Object(value), Value::Object(plain)) = (value, plain) else { return };
    value.retain(|key, member| needed.contains(&key.as_str()) || plain.get(key) != Some(&*member));
    for (key, member) in value.iter_mut() {
        if let Some(plain) = plain.get(key)
            && !needed.contains(&key.as_str())
        {
            shorten(member, plain, &[]);
        }
    }
}

fn shorten_backend(entry: &mut Value) {
    if let Value::Object(members) = entry {
        members.retain(|key, member| match key.as_str() {
            "backup" => *member != Value::Bool(false),
            "max_conns" => !member.is_null(),
            _ => true,
        });
    }
}
