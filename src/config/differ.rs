//! Two configs as values, key by key.

use super::fault::{Step, json_path};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// One key whose value is another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyChange {
    /// JSON path.
    pub path: String,
    /// The old value; `None` if the key was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Value>,
    /// The new value; `None` if the key is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is: Option<Value>,
}

/// The keys below `at` that differ, each as far down as both sides have objects; those named in `but` are left out.
pub fn differences(at: &[&str], old: Option<&Value>, new: Option<&Value>, but: &[&str]) -> Vec<KeyChange> {
    let mut changes = Vec::new();
    let mut steps: Vec<Step<'_>> = at.iter().map(|key| Step::Key(key)).collect();
    look(&mut steps, (old, new), but, &mut changes);
    changes
}

fn look<'v>(
    steps: &mut Vec<Step<'v>>,
    (old, new): (Option<&'v Value>, Option<&'v Value>),
    but: &[&str],
    changes: &mut Vec<KeyChange>,
) {
    if let (Some(Value::Object(was)), Some(Value::Object(is))) = (old, new) {
        let keys: BTreeSet<&str> = was.keys().chain(is.keys()).map(String::as_str).collect();
        for key in keys.into_iter().filter(|key| !but.contains(key)) {
            steps.push(Step::Key(key));
            look(steps, (was.get(key), is.get(key)), &[], changes);
            steps.pop();
        }
    } else if old != new {
        changes.push(KeyChange { path: json_path(steps), was: old.cloned(), is: new.cloned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_that_differ_are_found_with_their_paths() {
        let old = json!({"a": {"b": 1, "c": [1, 2], "d": {"x": 1}}, "e": 1, "same": {"z": null}, "left": 1});
        let new = json!({"a": {"b": 2, "c": [1], "d": 7}, "f.g": {"h": 1}, "same": {"z": null}, "left": 2});
        let found = differences(&["top"], Some(&old), Some(&new), &["left"]);
        let paths: Vec<_> = found.iter().map(|c| (&c.path[..], c.was.clone(), c.is.clone())).collect();
        assert_eq!(
            paths,
            [
                ("$.top.a.b", Some(json!(1)), Some(json!(2))),
                ("$.top.a.c", Some(json!([1, 2])), Some(json!([1]))),
                ("$.top.a.d", Some(json!({"x": 1})), Some(json!(7))),
                ("$.top.e", Some(json!(1)), None),
                ("$.top[\"f.g\"]", None, Some(json!({"h": 1}))),
            ]
        );
        assert!(differences(&[], Some(&old), Some(&old), &[]).is_empty());
    }
}
