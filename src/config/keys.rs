//! The keys of the file as a list, for `ringway help config`: read off the JSON Schema, so that nothing is told twice.

use super::shape::{alternatives, resolve, schema, type_names};
use super::words;
use serde_json::Value as Json;

/// One key of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// From the top, with dots; `*` stands for a name of the operator's choice.
    pub path: String,
    /// What may stand there, with its range: all forms.
    pub kind: String,
    /// What holds where it is left out; none if it must be there, or if nothing holds instead.
    pub default: Option<String>,
    /// It may not be left out.
    pub needed: bool,
    /// What it does, in sentences.
    pub meaning: String,
    /// The words that it takes, each with what it does.
    pub words: Vec<(String, String)>,
}

/// All keys, each before those below it.
pub fn all() -> Vec<Key> {
    let root = schema();
    let mut keys = Vec::new();
    Walk { root: &root, keys: &mut keys }.below(&root, "");
    keys
}

/// The keys that somebody asks for: by the begin of a path, in which a name may stand for `*`, or else by some of its
/// parts in their order, of which the last is the key. Whatever is below them is among them.
pub fn matching<'k>(keys: &'k [Key], asked: &str) -> Vec<&'k Key> {
    let asked: Vec<&str> = asked.trim_start_matches("$.").trim_end_matches('.').split('.').collect();
    let fits = |want: &str, part: &str| want == part || part == "*";
    let begins = |key: &&Key| {
        let parts: Vec<&str> = key.path.split('.').collect();
        parts.len() >= asked.len() && asked.iter().zip(&parts).all(|(want, part)| fits(want, part))
    };
    let begin: Vec<&Key> = keys.iter().filter(begins).collect();
    if !begin.is_empty() {
        return begin;
    }
    let holds = |key: &&Key| {
        let mut parts = key.path.split('.');
        asked.iter().all(|want| parts.any(|part| part == *want))
    };
    keys.iter().filter(holds).collect()
}

struct Walk<'s, 'k> {
    root: &'s Json,
    keys: &'k mut Vec<Key>,
}

impl<'s> Walk<'s, '_> {
    /// Adds the keys that may stand in a value of this schema.
    fn below(&mut self, schema: &'s Json, path: &str) {
        for form in forms(self.root, schema) {
            let needed: Vec<&str> =
                form.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
            for (name, inner) in form.get("properties").and_then(Json::as_object).into_iter().flatten() {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                self.key(inner, path, needed.contains(&name.as_str()));
            }
            if let Some(inner) = form.get("additionalProperties").filter(|a| a.is_object()) {
                let path = format!("{path}.*");
                // A map of plain values says all at its own key.
                let plain =
                    inner.get("description").is_none() && resolve(self.root, inner).get("description").is_none();
                if plain { self.below(inner, &path) } else { self.key(inner, path, false) }
            }
        }
    }

    fn key(&mut self, schema: &'s Json, path: String, needed: bool) {
        let described = schema.get("description").or_else(|| resolve(self.root, schema).get("description"));
        let text = described.and_then(Json::as_str).unwrap_or_default().replace('\n', " ");
        let (meaning, told) = without_default(&text);
        // An object that is left out is one whose keys are all left out.
        let default = schema.get("default").filter(|d| !d.is_object()).map(spaced).or(told);
        let forms = forms(self.root, schema);
        let kinds: Vec<String> = unique(forms.iter().flat_map(|form| self.kinds(form)));
        let words = forms.iter().flat_map(|form| words_of(self.root, form)).collect();
        self.keys.push(Key { path: path.clone(), kind: listed(&kinds), default, needed, meaning, words });
        self.below(schema, &path);
    }

    /// What a schema without alternatives takes, in words.
    fn kinds(&self, schema: &Json) -> Vec<String> {
        if let Some(word) = schema.get("const") {
            return vec![word.to_string()];
        }
        let bound = |name: &str| schema.get(name).map(Json::to_string);
        let kind = |name: &str| match name {
            "integer" | "number" => match (bound("minimum"), bound("maximum")) {
                (Some(min), Some(max)) => format!("{min} to {max}"),
                (Some(min), None) => format!("a whole number from {min}"),
                _ => "a number".to_owned(),
            },
            "string" => match schema.get("format").and_then(Json::as_str) {
                Some(format) => words::kind(format).to_owned(),
                None => "a text".to_owned(),
            },
            "boolean" => "true or false".to_owned(),
            "array" => format!("a list, each {}", self.items(schema)),
            "object" if schema.get("properties").is_some() => "an object".to_owned(),
            "object" => self.map(schema),
            other => other.to_owned(),
        };
        type_names(schema).map(kind).collect()
    }

    fn items(&self, schema: &Json) -> String {
        let Some(items) = schema.get("items") else { return "any value".to_owned() };
        let forms = forms(self.root, items);
        let words = forms.iter().filter(|form| form.get("const").is_some()).count();
        // Too many to stand in a line: they follow, each with what it does.
        if words > 4 {
            "one of the words below".to_owned()
        } else {
            listed(&unique(forms.iter().flat_map(|form| self.kinds(form))))
        }
    }

    fn map(&self, schema: &Json) -> String {
        let names = schema.get("propertyNames").and_then(|n| n.get("format")).and_then(Json::as_str);
        let to = schema.get("additionalProperties").filter(|a| resolve(self.root, a).get("description").is_none());
        let to = to.map(|a| listed(&unique(forms(self.root, a).iter().flat_map(|form| self.kinds(form)))));
        let from = names.map_or("a text", words::kind);
        to.map_or_else(|| format!("a map by {from}"), |to| format!("a map from {from} to {to}"))
    }
}

/// A schema's alternatives, and theirs, each resolved; the schema itself, if it has none.
fn forms<'s>(root: &'s Json, schema: &'s Json) -> Vec<&'s Json> {
    let schema = resolve(root, schema);
    match alternatives(schema) {
        Some(list) => list.iter().flat_map(|form| forms(root, form)).collect(),
        None => vec![schema],
    }
}

/// The words that a form takes, or the elements of a list do.
fn words_of(root: &Json, form: &Json) -> Vec<(String, String)> {
    if let Some(items) = form.get("items") {
        return forms(root, items).into_iter().flat_map(|form| words_of(root, form)).collect();
    }
    let word = form.get("const").and_then(Json::as_str);
    let told = form.get("description").and_then(Json::as_str);
    word.zip(told).map(|(word, told)| (word.to_owned(), told.replace('\n', " "))).into_iter().collect()
}

/// A description without the sentence that tells the default, and the default. Keys of a cluster have none in the schema,
/// as what holds instead is that of `defaults`.
fn without_default(text: &str) -> (String, Option<String>) {
    if let Some((meaning, default)) = text.split_once("Default: ") {
        return (meaning.trim_end().to_owned(), Some(plain(default.trim_end_matches('.'))));
    }
    // "`connect` (the default), or ...", "`round_robin` (weighted, the default)".
    let before = text.find("the default)").map(|at| &text[..at]);
    let word = before.and_then(|before| before.rsplit('`').nth(1));
    (text.to_owned(), word.map(|word| format!("\"{word}\"")))
}

/// As it stands in the file: a value in backticks is a text there, unless it is JSON already. Words may follow it.
fn plain(default: &str) -> String {
    let Some((value, more)) = default.strip_prefix('`').and_then(|rest| rest.split_once('`')) else {
        return default.to_owned();
    };
    let is_json = serde_json::from_str::<Json>(value).is_ok();
    if is_json { format!("{value}{more}") } else { format!("\"{value}\"{more}") }
}

/// JSON as people write it, so that a list can be broken into lines.
fn spaced(value: &Json) -> String {
    match value.as_array() {
        Some(list) => format!("[{}]", list.iter().map(Json::to_string).collect::<Vec<_>>().join(", ")),
        None => value.to_string(),
    }
}

fn unique(kinds: impl Iterator<Item = String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    kinds.for_each(|kind| {
        if !found.contains(&kind) {
            found.push(kind)
        }
    });
    found
}

/// `a, b or c`.
fn listed(kinds: &[String]) -> String {
    match kinds {
        [] => "any value".to_owned(),
        [only] => only.clone(),
        // Where one says more of itself, the comma is taken.
        _ if kinds.iter().any(|kind| kind.contains(',')) => kinds.join("; or "),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check;

    fn key<'k>(keys: &'k [Key], path: &str) -> &'k Key {
        keys.iter().find(|key| key.path == path).unwrap_or_else(|| panic!("{path}"))
    }

    #[test]
    fn each_key_has_a_kind_and_a_meaning() {
        let keys = all();
        assert!(keys.len() > 100, "{}", keys.len());
        for key in &keys {
            assert!(!key.meaning.is_empty() && key.meaning.matches('`').count() % 2 == 0, "{key:?}");
            assert!(!key.kind.contains("any value") && !key.kind.contains("ringway"), "{key:?}");
        }
        let hold_down = key(&keys, "clusters.*.health.hold_down");
        assert_eq!(hold_down.default.as_deref(), Some("\"30s\""));
        assert!(!hold_down.meaning.contains("Default"), "{hold_down:?}");
        assert_eq!(key(&keys, "workers").kind, "1 to 1024 or null");
        assert_eq!(key(&keys, "workers").default.as_deref(), Some("null"));
        assert_eq!(key(&keys, "clusters.*.balance").default.as_deref(), Some("\"round_robin\""));
        assert_eq!(key(&keys, "io").words.len(), 3);
        assert!(key(&keys, "clusters").needed && key(&keys, "clusters.*.backends.*.address").needed);
    }

    #[test]
    fn the_defaults_that_are_told_are_those_that_hold() {
        let text = r#"{"listeners": {"any": "127.0.0.1:80"}, "routes": {"*": "any"},
            "clusters": {"any": {"backends": {"any": "127.0.0.1:81"}}}}"#;
        let shown = check::show(text, "test").expect("a good config");
        let shown: Json = serde_json::from_str(&shown).expect("JSON");
        let mut compared = 0;
        for key in all().iter().filter(|key| !key.path.starts_with("defaults.")) {
            let pointer = format!("/{}", key.path.replace('.', "/").replace('*', "any"));
            let (Some(told), Some(holds)) = (&key.default, shown.pointer(&pointer)) else { continue };
            if holds.is_object() || told == "none" {
                continue;
            }
            // Words may follow: "0, never".
            let value = serde_json::Deserializer::from_str(told).into_iter().next().and_then(Result::ok);
            assert_eq!(value.as_ref(), Some(holds), "{}", key.path);
            compared += 1;
        }
        assert!(compared > 40, "{compared}");
    }

    #[test]
    fn keys_are_found_by_prefix_name_and_parts() {
        let keys = all();
        let found = |asked: &str| matching(&keys, asked).iter().map(|key| key.path.clone()).collect::<Vec<_>>();
        assert_eq!(found("clusters.app.health.hold_down"), ["clusters.*.health.hold_down"]);
        assert_eq!(found("clusters.*.hold_down"), ["clusters.*.health.hold_down"]);
        assert_eq!(found("hold_down"), ["clusters.*.health.hold_down", "defaults.health.hold_down"]);
        assert!(found("log").contains(&"log.fields".to_owned()));
        assert!(found("clusters").len() > 50);
        assert!(found("nonsense").is_empty() && found("clusters.*.nonsense").is_empty());
    }
}
