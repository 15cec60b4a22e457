//! What is wrong between two places of the file: a route to a cluster that is not there, two routes that are one, two
//! sockets on one address. It looks at the tree, so that these faults are found beside faults of shape.

use super::Address;
use super::fault::{Findings, Step};
use super::place::{Member, Text, member, members};
use super::shape::nearest;
use super::value::{self, Refusal};
use super::{place, route_key};
use jsonc_parser::ast::Object;
use rustc_hash::{FxHashMap, FxHashSet};
use std::path::Path;

/// Names that are compared for "did you mean" in one file. A thousand dangling routes among a hundred thousand clusters
/// would take minutes without a bound.
const COMPARISONS_MAX: usize = 1_000_000;

/// Looks at the whole file. `directory` is where relative paths begin.
pub(super) fn check(root: &Object<'_>, directory: &Path, findings: &mut Findings) {
    clusters_exist(root, findings);
    routes_differ(root, findings);
    sockets_differ(root, directory, findings);
    backend_paths_fit(root, directory, findings);
    limits_agree(root, findings);
    let default = member(root, "defaults").and_then(|d| d.value.as_object()).map(|d| (vec!["defaults"], d));
    let clusters = members(root, "clusters").filter_map(|c| Some((vec!["clusters", c.key], c.value.as_object()?)));
    default.into_iter().chain(clusters).for_each(|(path, policy)| probe_can_succeed(policy, path, findings));
    log_fields_differ(root, findings);
}

/// The response to HEAD has no body in which a text could stand (RFC 9110 section 9.3.2).
fn probe_can_succeed(policy: &Object<'_>, path: Vec<&str>, findings: &mut Findings) {
    let Some(probe) = member(policy, "probe").and_then(|p| p.value.as_object()) else { return };
    let head = member(probe, "method").and_then(|m| m.value.as_string_lit()).is_some_and(|m| m.value == "HEAD");
    if let Some(text) = member(probe, "body").filter(|_| head) {
        let steps: Vec<Step<'_>> = path.into_iter().chain(["probe", "body"]).map(Step::Key).collect();
        let refusal = Refusal::hint("a response to HEAD has no body to find a text in", "probe with GET");
        findings.add(place::start(text.value), &steps, refusal);
    }
}

fn clusters_exist(root: &Object<'_>, findings: &mut Findings) {
    let names: FxHashSet<&str> = members(root, "clusters").map(|m| m.key).collect();
    let mut comparisons = COMPARISONS_MAX;
    for route in members(root, "routes") {
        let Some(Text { text, at, inner }) = route.text("cluster") else { continue };
        if names.contains(text) {
            continue;
        }
        let near = match comparisons.checked_sub(names.len()) {
            Some(left) => {
                comparisons = left;
                nearest(text, names.iter().copied())
            }
            None => None,
        };
        let suggestion = near.map(|n| format!("did you mean \"{n}\"?"));
        let steps = [Step::Key("routes"), Step::Key(route.key), Step::Key("cluster")];
        let refusal = Refusal { message: format!("there is no cluster {text:?}"), suggestion };
        findings.add(at, &steps[..2 + usize::from(inner)], refusal);
    }
}

fn routes_differ(root: &Object<'_>, findings: &mut Findings) {
    let mut seen: FxHashMap<(String, String), Member<'_, '_>> = FxHashMap::default();
    for route in members(root, "routes") {
        // A key that cannot be parsed is a fault of shape.
        let Ok(key) = route_key::parse(route.key) else { continue };
        match seen.entry(key) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(route);
            }
            // The very same key twice is a fault of shape, too.
            std::collections::hash_map::Entry::Occupied(first) if first.get().key != route.key => {
                let message = format!("this is the same route as {:?}", first.get().key);
                let steps = [Step::Key("routes"), Step::Key(route.key)];
                let advice = "case, a trailing dot and the spelling of an IPv6 address do not tell hosts apart";
                findings.add_second(route.at, first.get().at, &steps, Refusal::hint(message, advice));
            }
            std::collections::hash_map::Entry::Occupied(_) => {}
        }
    }
}

fn sockets_differ(root: &Object<'_>, directory: &Path, findings: &mut Findings) {
    let mut seen: FxHashMap<Address, (String, usize)> = FxHashMap::default();
    let control = member(root, "control").and_then(|c| c.value.as_object()).and_then(|c| member(c, "socket"));
    if let Some(socket) = control
        && let Some(text) = socket.value.as_string_lit()
    {
        let path = directory.join(text.value.as_ref());
        fits(&path, text.range.start, &[Step::Key("control"), Step::Key("socket")], findings);
        seen.insert(Address::Unix(path), ("the control socket".into(), text.range.start));
    }
    let status = member(root, "status").and_then(|s| s.value.as_object()).and_then(|s| member(s, "listen"));
    let status = status.and_then(|listen| listen.value.as_string_lit()).map(|text| {
        let steps = vec![Step::Key("status"), Step::Key("listen")];
        (text.value.as_ref(), text.range.start, steps, "the status listener".to_owned())
    });
    let listeners = members(root, "listeners").filter_map(|listener| {
        let Text { text, at, inner } = listener.text("address")?;
        let mut steps = vec![Step::Key("listeners"), Step::Key(listener.key)];
        steps.extend(inner.then_some(Step::Key("address")));
        Some((text, at, steps, format!("listener {:?}", listener.key)))
    });
    for (text, at, steps, name) in status.into_iter().chain(listeners) {
        let Ok(address) = value::listen_address(text) else { continue };
        let steps = &steps[..];
        let address = match address {
            Address::Unix(path) => {
                let path = directory.join(path);
                fits(&path, at, steps, findings);
                Address::Unix(path)
            }
            other => other,
        };
        if let Some((other, first)) = seen.get(&address) {
            findings.add_second(at, *first, steps, Refusal::new(format!("{other} has the same address {text:?}")));
        } else {
            seen.insert(address, (name, at));
        }
    }
}

fn backend_paths_fit(root: &Object<'_>, directory: &Path, findings: &mut Findings) {
    for cluster in members(root, "clusters") {
        let Some(object) = cluster.value.as_object() else { continue };
        for backend in members(object, "backends") {
            let Some(Text { text, at, inner }) = backend.text("address") else { continue };
            if let Some(path) = text.strip_prefix("unix:") {
                let steps = ["clusters", cluster.key, "backends", backend.key, "address"].map(Step::Key);
                fits(&directory.join(path), at, &steps[..4 + usize::from(inner)], findings);
            }
        }
    }
}

fn fits(path: &Path, at: usize, steps: &[Step<'_>], findings: &mut Findings) {
    if !value::unix_path_fits(path) {
        let message = format!("{} is too long for the address of a Unix socket", path.display());
        findings.add(at, steps, Refusal::new(message));
    }
}

fn limits_agree(root: &Object<'_>, findings: &mut Findings) {
    let number = |m: Member<'_, '_>| m.value.as_number_lit().and_then(|n| n.value.parse::<u64>().ok());
    let limits = member(root, "limits").and_then(|l| l.value.as_object());
    let Some(limit) = limits.and_then(|l| member(l, "connections")) else { return };
    let (Some(connections), Some(workers)) = (number(limit), member(root, "workers").and_then(number)) else { return };
    if connections < workers && connections > 0 {
        let message = format!("{connections} connections are fewer than {workers} workers: each needs one at least");
        let steps = [Step::Key("limits"), Step::Key("connections")];
        findings.add(place::start(limit.value), &steps, Refusal::new(message));
    }
}

/// A line tells something, and nothing twice: a JSON object has each key once.
fn log_fields_differ(root: &Object<'_>, findings: &mut Findings) {
    let log = member(root, "log").and_then(|l| l.value.as_object());
    let Some(fields) = log.and_then(|l| member(l, "fields")) else { return };
    let Some(list) = fields.value.as_array() else { return };
    if list.elements.is_empty() {
        let steps = [Step::Key("log"), Step::Key("fields")];
        let refusal = Refusal::hint("lines without any field", "leave the key out for the usual fields");
        findings.add(list.range.start, &steps, refusal);
    }
    let mut seen: FxHashMap<&str, usize> = FxHashMap::default();
    for (i, field) in list.elements.iter().enumerate() {
        let Some(name) = field.as_string_lit() else { continue };
        let steps = [Step::Key("log"), Step::Key("fields"), Step::Index(i)];
        if let Some(first) = seen.get(name.value.as_ref()) {
            let refusal = Refusal::hint(format!("the field {:?} stands twice", name.value), "remove one");
            findings.add_second(name.range.start, *first, &steps, refusal);
        } else {
            seen.insert(name.value.as_ref(), name.range.start);
        }
    }
}
