//! JSON merge patches (RFC 7396) over a config: what `ctl apply` changes on top of the file.
//!
//! The merged text is checked like a file. A fault is then told at its place in the patch, since that is what its author
//! wrote; what the patch does not name itself is told at the nearest part of it.

use super::fault::{Fault, Faults, Findings, Step};
use super::place::{self, Member};
use super::value::Refusal;
use jsonc_parser::ast;
use serde_json::Value;
use std::collections::BTreeMap;

/// A patch that is JSON: its text and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    text: String,
    value: Value,
}

impl Patch {
    /// Reads a patch; `file` names it in faults.
    ///
    /// # Errors
    /// It is not strict JSON, has duplicate keys, or is no object: a merge patch that is no object would replace the
    /// whole config.
    pub fn parse(text: &str, file: &str) -> Result<Patch, Faults> {
        let mut findings = Findings::default();
        if let Some(tree) = place::tree(text, &mut findings) {
            duplicates(&tree, &mut Vec::new(), &mut findings);
            if tree.as_object().is_none() {
                let refusal = Refusal::hint("a patch is an object", "{\"clusters\": {\"app\": {...}}}");
                findings.add(place::start(&tree), &[], refusal);
            }
        }
        let value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => {
                if findings.is_empty() {
                    let at = place::offset_of(text, error.line(), error.column());
                    findings.add(at, &[], Refusal::new(error.to_string()));
                }
                Value::Null
            }
        };
        if findings.is_empty() {
            Ok(Patch { text: text.to_owned(), value })
        } else {
            Err(findings.into_faults(text, file))
        }
    }

    /// One patch that does to this text what all of these do.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn together<'p>(text: &str, patches: impl IntoIterator<Item = &'p Patch>) -> Result<Patch, serde_json::Error> {
        let old: Value = serde_json::from_str(text)?;
        let mut new = old.clone();
        patches.into_iter().for_each(|patch| merge(&mut new, &patch.value));
        let value = between(&old, &new);
        Ok(Patch { text: serde_json::to_string(&value)?, value })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it says.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Turns places in the merged text into places in this patch.
    pub fn relocate(&self, faults: Faults, file: &str) -> Faults {
        let mut places = BTreeMap::new();
        let mut ignored = Findings::default();
        if let Some(tree) = place::tree(&self.text, &mut ignored) {
            collect(&tree, &mut Vec::new(), &mut places);
        }
        let mut findings = Findings::default();
        for Fault { path, message, suggestion, .. } in faults.list {
            let named = |known: &&String| path.strip_prefix(known.as_str()).is_some_and(is_below);
            let nearest = places.keys().rev().filter(named).max_by_key(|known| known.len());
            let at = nearest.and_then(|known| places.get(known)).copied().unwrap_or(0);
            findings.add_at_path(at, path, Refusal { message, suggestion });
        }
        Faults { more: faults.more, ..findings.into_faults(&self.text, file) }
    }
}

/// Whether what follows a path leads to it or into it.
fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}

/// The text of a config with patches merged in, one after the other; the text itself if there are none.
///
/// # Errors
/// The text is not JSON.
pub fn merged<'p>(text: &str, patches: impl IntoIterator<Item = &'p Patch>) -> Result<String, serde_json::Error> {
    let mut patches = patches.into_iter().peekable();
    if patches.peek().is_none() {
        return Ok(text.to_owned());
    }
    let mut config: Value = serde_json::from_str(text)?;
    for patch in patches {
        merge(&mut config, &patch.value);
    }
    let mut text = serde_json::to_string_pretty(&config)?;
    text.push('\n');
    Ok(text)
}

/// RFC 7396 section 2: objects are merged member by member, `null` takes a member away, everything else replaces.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(object) = target else { return };
    for (key, value) in members {
        if value.is_null() {
            // The others stay in their order.
            object.shift_remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The patch that makes `new` of `old`. Exact where `new` came of `old` by patches: they cannot make a `null`.
pub(super) fn between(old: &Value, new: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (old, new) else { return new.clone() };
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let other = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    let other = other.map(|(key, value)| {
        let change = match before.get(key) {
            // What is no object is replaced as a whole, and so is one by something else.
            Some(was) if was.is_object() => between(was, value),
            _ => value.clone(),
        };
        (key.clone(), change)
    });
    Value::Object(gone.chain(other).collect())
}

/// Finds keys that stand twice in one object.
fn duplicates<'v>(value: &'v ast::Value<'_>, steps: &mut Vec<Step<'v>>, findings: &mut Findings) {
    match value {
        ast::Value::Object(object) => {
            let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
            for member in object.properties.iter().map(Member::of) {
                steps.push(Step::Key(member.key));
                match seen.get(member.key) {
                    Some(first) => {
                        findings.add_second(member.at, *first, steps, Refusal::new("the key is there twice"));
                    }
                    None => drop(seen.insert(member.key, member.at)),
                }
                duplicates(member.value, steps, findings);
                steps.pop();
            }
        }
        ast::Value::Array(array) => {
            for (index, element) in array.elements.iter().enumerate() {
                steps.push(Step::Index(index));
                duplicates(element, steps, findings);
                steps.pop();
            }
        }
        _ => {}
    }
}

/// The offset of every value of the patch, by its path.
fn collect<'v>(value: &'v ast::Value<'_>, steps: &mut Vec<Step<'v>>, places: &mut BTreeMap<String, usize>) {
    places.insert(super::fault::json_path(steps), place::start(value));
    match value {
        ast::Value::Object(object) => {
            for member in object.properties.iter().map(Member::of) {
                steps.push(Step::Key(member.key));
                collect(member.value, steps, places);
                steps.pop();
            }
        }
        ast::Value::Array(array) => {
            for (index, element) in array.elements.iter().enumerate() {
                steps.push(Step::Index(index));
                collect(element, steps, places);
                steps.pop();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7396 appendix A.
        for (target, patch, want) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, want, "{target} with {patch}");
        }
    }

    #[test]
    fn a_config_without_patches_is_its_own_text() {
        let text = "{ \"a\" :1}";
        assert_eq!(merged(text, []).unwrap(), text);
        let one = Patch::parse(r#"{"b": {"c": 2}}"#, "p").unwrap();
        let two = Patch::parse(r#"{"b": {"c": null}, "a": null}"#, "p").unwrap();
        let both: Value = serde_json::from_str(&merged(text, [&one, &two]).unwrap()).unwrap();
        assert_eq!(both, json!({"b": {}}));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..4u8).prop_map(Value::from), Just(json!(null))];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn patches_taken_together_do_the_same(
            base in json_value(),
            patches in prop::collection::vec(json_value(), 1..5),
        ) {
            let object = |value: Value| if value.is_object() { value } else { json!({ "a": value }) };
            let patches: Vec<Patch> =
                patches.into_iter().map(|p| Patch::parse(&object(p).to_string(), "p").unwrap()).collect();
            let text = object(base).to_string();
            let one = Patch::together(&text, &patches).unwrap();
            let by_one: Value = serde_json::from_str(&merged(&text, [&one]).unwrap()).unwrap();
            let by_each: Value = serde_json::from_str(&merged(&text, &patches).unwrap()).unwrap();
            prop_assert_eq!(by_one, by_each);
        }
    }

    #[test]
    fn what_is_no_patch() {
        for (text, line, column) in
            [("", 1, 1), ("[]", 1, 1), ("null", 1, 1), ("{\"a\": 1,}", 1, 8), ("{\"a\": {\"b\": 1,\n \"b\": 2}}", 2, 2)]
        {
            let faults = Patch::parse(text, "p.json").unwrap_err();
            assert_eq!((faults.list[0].line, faults.list[0].column), (line, column), "{text}: {faults}");
        }
    }

    #[test]
    fn faults_are_told_where_the_patch_has_them() {
        let base = r#"{"listeners": {"a": "127.0.0.1:1"}, "clusters": {"c": {"backends": {}}}, "routes": {"*": "c"}}"#;
        let patch = "{\"clusters\": {\n  \"c\": {\"backends\": {\"x\": \"nonsense\"}},\n  \"d\": {\"balanse\": 1}},\n \
                     \"routes\": {\"*\": \"e\"}}";
        let patch = Patch::parse(patch, "p.json").unwrap();
        let text = merged(base, [&patch]).unwrap();
        let faults = crate::config::check::load(&text, "c.json").unwrap_err();
        let faults = patch.relocate(faults, "p.json");
        let places: Vec<(usize, &str)> = faults.list.iter().map(|f| (f.line, f.path.as_str())).collect();
        assert!(places.contains(&(2, "$.clusters.c.backends.x")), "{faults}");
        assert!(places.iter().any(|(line, path)| *line == 3 && path.starts_with("$.clusters.d")), "{faults}");
        assert!(places.iter().any(|(line, path)| *line == 4 && path.starts_with("$.routes")), "{faults}");
        assert!(faults.to_string().starts_with("p.json:"));
    }

    #[test]
    fn what_only_the_base_names_is_told_at_the_nearest_part() {
        let base = r#"{"listeners": {"a": "127.0.0.1:1"}, "clusters": {"c": {"backends": {}}}, "routes": {"*": "c"}}"#;
        let patch = Patch::parse("{\n \"clusters\": {\"c\": null}}", "p.json").unwrap();
        let faults = crate::config::check::load(&merged(base, [&patch]).unwrap(), "c.json").unwrap_err();
        let faults = patch.relocate(faults, "p.json");
        assert_eq!((faults.list[0].line, faults.list[0].column), (1, 1), "{faults}");
        assert!(faults.list[0].path.starts_with("$.routes"));
    }
}
