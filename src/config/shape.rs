//! The shape of the file: every value against the JSON Schema. All faults are found, each with its place; the schema is
//! the one that `ringway schema` prints, so that the two cannot differ.

use super::fault::{Findings, Step};
use super::file::File;
use super::place::{Member, start};
use super::value::Refusal;
use super::words;
use jsonc_parser::ast::{NumberLit, Object, StringLit, Value};
use rustc_hash::FxHashMap;
use serde_json::Value as Json;

/// The JSON Schema of the config file.
pub(super) fn schema() -> Json {
    schemars::schema_for!(File).to_value()
}

/// Walks a file against the schema and adds what it finds.
pub(super) fn check(value: &Value<'_>, schema: &Json, findings: &mut Findings) {
    Walk { root: schema, steps: Vec::new(), findings }.value(value, schema);
}

struct Walk<'s, 'v, 'f> {
    root: &'s Json,
    steps: Vec<Step<'v>>,
    findings: &'f mut Findings,
}

impl<'s, 'v> Walk<'s, 'v, '_> {
    fn fault(&mut self, at: usize, refusal: Refusal) {
        self.findings.add(at, &self.steps, refusal);
    }

    fn inside(&mut self, step: Step<'v>, look: impl FnOnce(&mut Self)) {
        self.steps.push(step);
        look(self);
        self.steps.pop();
    }

    fn value(&mut self, value: &'v Value<'_>, schema: &'s Json) {
        let schema = resolve(self.root, schema);
        let Some(schema) = self.alternative(value, schema) else {
            return self.wrong(value, schema);
        };
        match value {
            Value::StringLit(text) => self.string(text, schema),
            Value::NumberLit(number) => self.number(number, schema),
            Value::Object(object) => self.object(object, schema),
            Value::Array(array) => {
                let minimum = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
                if (array.elements.len() as u64) < minimum {
                    self.fault(array.range.start, Refusal::new(format!("at least {minimum} is needed here")));
                }
                if let Some(items) = schema.get("items") {
                    for (i, element) in array.elements.iter().enumerate() {
                        self.inside(Step::Index(i), |w| w.value(element, items));
                    }
                }
            }
            Value::BooleanLit(_) | Value::NullKeyword(_) => {}
        }
    }

    /// The schema that holds for a value of this type: the schema itself, or the first of its alternatives that takes
    /// the type. Alternatives of our schemas always differ in type.
    fn alternative(&self, value: &Value<'_>, schema: &'s Json) -> Option<&'s Json> {
        match alternatives(schema) {
            None => takes(schema, value).then_some(schema),
            // Named words, each an alternative with a description of its own, are looked at together.
            Some(list) if list.iter().all(|a| a.get("const").is_some()) => {
                matches!(value, Value::StringLit(_)).then_some(schema)
            }
            Some(list) => list.iter().find_map(|a| self.alternative(value, resolve(self.root, a))),
        }
    }

    fn wrong(&mut self, value: &Value<'_>, schema: &'s Json) {
        let mut expected = Vec::new();
        let mut formats = Vec::new();
        self.expected(schema, &mut expected, &mut formats);
        let message = format!("expected {}, found {}", expected.join(" or "), describe(value));
        let suggestion = match value {
            Value::NumberLit(n) => formats.iter().find_map(|format| match *format {
                "ringway-duration" | "ringway-patience" | "ringway-latency" => Some(format!("write \"{}s\"", n.value)),
                "ringway-size" => Some(format!("write \"{}B\"", n.value)),
                "ringway-mode" => Some(format!("write \"0{}\"", n.value)),
                _ => None,
            }),
            Value::StringLit(s) if expected.contains(&"an integer") && s.value.parse::<u64>().is_ok() => {
                Some(format!("write {}", s.value))
            }
            Value::NullKeyword(_) => Some("leave the key out".into()),
            _ => None,
        };
        self.fault(start(value), Refusal { message, suggestion });
    }

    /// Collects the types, in words, and the formats that a schema takes.
    fn expected(&self, schema: &'s Json, types: &mut Vec<&'static str>, formats: &mut Vec<&'s str>) {
        let schema = resolve(self.root, schema);
        match alternatives(schema) {
            Some(list) => list.iter().for_each(|a| self.expected(a, types, formats)),
            None => {
                for name in type_names(schema) {
                    let words = type_words(name);
                    if !types.contains(&words) {
                        types.push(words);
                    }
                }
                formats.extend(schema.get("format").and_then(Json::as_str));
            }
        }
    }

    fn string(&mut self, text: &StringLit<'_>, schema: &'s Json) {
        let choices: Vec<&str> = match (schema.get("enum").and_then(Json::as_array), alternatives(schema)) {
            (Some(list), _) => list.iter().filter_map(Json::as_str).collect(),
            (None, Some(list)) => list.iter().filter_map(|a| a.get("const")?.as_str()).collect(),
            (None, None) => schema.get("const").and_then(Json::as_str).into_iter().collect(),
        };
        if !choices.is_empty() && !choices.contains(&text.value.as_ref()) {
            let one_of = choices.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", ");
            let message = format!("expected one of {one_of}, found {:?}", text.value);
            let suggestion = nearest(&text.value, choices.into_iter()).map(|c| format!("did you mean \"{c}\"?"));
            return self.fault(text.range.start, Refusal { message, suggestion });
        }
        if let Some(format) = schema.get("format").and_then(Json::as_str)
            && let Err(refusal) = words::check(format, &text.value)
        {
            self.fault(text.range.start, refusal);
        }
    }

    fn number(&mut self, number: &NumberLit<'_>, schema: &'s Json) {
        if type_names(schema).any(|name| name == "number") {
            return self.fraction(number, schema);
        }
        let minimum = schema.get("minimum").and_then(Json::as_u64);
        let maximum = schema.get("maximum").and_then(Json::as_u64);
        let outside = match number.value.parse::<u64>() {
            Ok(n) => minimum.is_some_and(|m| n < m) || maximum.is_some_and(|m| n > m),
            // Whole, as `takes` has seen: negative, or too large for anything.
            Err(_) => true,
        };
        if outside {
            let range = match (minimum, maximum) {
                (min, Some(max)) => format!("{} to {max}", min.unwrap_or(0)),
                (min, None) => format!("{} or more", min.unwrap_or(0)),
            };
            let message = format!("{} is out of range", number.value);
            self.fault(number.range.start, Refusal::hint(message, range));
        }
    }

    /// A number that need not be whole; all of ours have both bounds.
    fn fraction(&mut self, number: &NumberLit<'_>, schema: &'s Json) {
        let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
        let (Some(minimum), Some(maximum)) = (bound("minimum"), bound("maximum")) else { return };
        if !number.value.parse::<f64>().is_ok_and(|n| (minimum..=maximum).contains(&n)) {
            let message = format!("{} is out of range", number.value);
            self.fault(number.range.start, Refusal::hint(message, format!("{minimum} to {maximum}")));
        }
    }

    fn object(&mut self, object: &'v Object<'_>, schema: &'s Json) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let additional = schema.get("additionalProperties").filter(|a| a.is_object());
        let names = schema.get("propertyNames").and_then(|n| n.get("format")).and_then(Json::as_str);
        // What the unknown keys were probably meant to be: those are not reported as missing once more.
        let mut meant = Vec::new();
        let mut seen: FxHashMap<&str, usize> = FxHashMap::default();
        seen.reserve(object.properties.len());
        for property in &object.properties {
            let Member { key, at, value } = Member::of(property);
            self.inside(Step::Key(key), |w| {
                if let Some(first) = seen.get(key) {
                    let refusal = Refusal::hint(format!("the key {key:?} stands twice"), "remove one");
                    w.findings.add_second(at, *first, &w.steps, refusal);
                } else {
                    seen.insert(key, at);
                }
                match (properties.and_then(|p| p.get(key)), additional) {
                    (Some(schema), _) => w.value(value, schema),
                    (None, Some(schema)) => {
                        if let Some(format) = names
                            && let Err(refusal) = words::check(format, key)
                        {
                            w.fault(at, refusal);
                        }
                        w.value(value, schema);
                    }
                    (None, None) => {
                        let near = properties.and_then(|p| nearest(key, p.keys().map(String::as_str)));
                        meant.extend(near);
                        let suggestion = near.map(|n| format!("did you mean \"{n}\"?"));
                        w.fault(at, Refusal { message: format!("unknown key {key:?}"), suggestion });
                    }
                }
            });
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for key in required.filter(|k| !seen.contains_key(k) && !meant.contains(k)) {
            self.fault(object.range.start, Refusal::new(format!("missing key \"{key}\"")));
        }
        let minimum = schema.get("minProperties").and_then(Json::as_u64).unwrap_or(0);
        if (object.properties.len() as u64) < minimum {
            self.fault(object.range.start, Refusal::new(format!("at least {minimum} is needed here")));
        }
        let maximum = schema.get("maxProperties").and_then(Json::as_u64).unwrap_or(u64::MAX);
        if (object.properties.len() as u64) > maximum {
            self.fault(object.range.start, Refusal::new(format!("only {maximum} can be here")));
        }
    }
}

pub(super) fn resolve<'s>(root: &'s Json, schema: &'s Json) -> &'s Json {
    let name = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
    name.and_then(|n| root.get("$defs")?.get(n)).unwrap_or(schema)
}

pub(super) fn alternatives(schema: &Json) -> Option<&Vec<Json>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array)
}

pub(super) fn type_names(schema: &Json) -> impl Iterator<Item = &str> {
    let types = schema.get("type");
    let list = types.and_then(Json::as_array).into_iter().flatten();
    list.chain(types.filter(|t| t.is_string())).filter_map(Json::as_str)
}

/// Whether a schema without alternatives takes a value's type; one without types takes all.
fn takes(schema: &Json, value: &Value<'_>) -> bool {
    let mut untyped = true;
    for name in type_names(schema) {
        untyped = false;
        let fits = match (name, value) {
            ("integer", Value::NumberLit(n)) => {
                let digits = n.value.strip_prefix('-').unwrap_or(n.value);
                digits.bytes().all(|b| b.is_ascii_digit())
            }
            ("number", Value::NumberLit(_))
            | ("string", Value::StringLit(_))
            | ("object", Value::Object(_))
            | ("array", Value::Array(_))
            | ("boolean", Value::BooleanLit(_))
            | ("null", Value::NullKeyword(_)) => true,
            _ => false,
        };
        if fits {
            return true;
        }
    }
    untyped
}

fn type_words(name: &str) -> &'static str {
    match name {
        "string" => "a string",
        "integer" => "an integer",
        "number" => "a number",
        "object" => "an object",
        "array" => "an array",
        "boolean" => "true or false",
        _ => "null",
    }
}

fn describe(value: &Value<'_>) -> String {
    match value {
        Value::StringLit(_) => "a string".into(),
        Value::NumberLit(n) => format!("the number {}", n.value),
        Value::BooleanLit(b) => b.value.to_string(),
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "an array".into(),
        Value::NullKeyword(_) => "null".into(),
    }
}

/// The candidate that was probably meant: near, in proportion to its length.
pub fn nearest<'c>(typed: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let far = typed.len() / 3 + 1;
    let near = candidates.filter(|c| c.len().abs_diff(typed.len()) <= far);
    let scored = near.map(|c| (strsim::osa_distance(&c.to_lowercase(), &typed.to_lowercase()), c));
    scored.filter(|(distance, _)| *distance <= far).min_by_key(|(distance, _)| *distance).map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_uses_what_the_walk_knows() {
        // A keyword that the walk does not know would be a check that is printed and not made.
        const KNOWN: &[&str] = &[
            "$schema",
            "$defs",
            "$ref",
            "title",
            "description",
            "default",
            "type",
            "properties",
            "additionalProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
            "required",
            "items",
            "minItems",
            "anyOf",
            "oneOf",
            "enum",
            "const",
            "minimum",
            "maximum",
            "format",
            "pattern",
        ];
        fn look(schema: &Json, seen: &mut usize) {
            let Some(object) = schema.as_object() else { return };
            for (key, inner) in object {
                assert!(KNOWN.contains(&key.as_str()), "the walk does not know {key:?} in {schema}");
                *seen += 1;
                match key.as_str() {
                    "properties" | "$defs" => inner.as_object().unwrap().values().for_each(|s| look(s, seen)),
                    "anyOf" | "oneOf" => inner.as_array().unwrap().iter().for_each(|s| look(s, seen)),
                    "items" | "additionalProperties" | "propertyNames" => look(inner, seen),
                    _ => {}
                }
            }
            if object.contains_key("properties") {
                assert_eq!(object.get("additionalProperties"), Some(&Json::Bool(false)), "{schema}");
            }
        }
        let mut seen = 0;
        look(&schema(), &mut seen);
        assert!(seen > 200, "{seen}");
    }

    #[test]
    fn every_key_is_described() {
        let manual = include_str!("../../docs/CONFIG.md");
        let look = |schema: &Json, path: &str| {
            for (key, inner) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
                assert!(inner.get("description").is_some(), "{path}.{key}");
                // Objects of one key have no table of their own; their form is shown whole.
                let told = manual.contains(&format!("| `{key}` |")) || manual.contains(&format!("{{\"{key}\": "));
                assert!(told, "docs/CONFIG.md does not tell of {path}.{key}");
            }
        };
        let schema = schema();
        look(&schema, "$");
        schema["$defs"].as_object().unwrap().iter().for_each(|(name, def)| look(def, name));
    }

    #[test]
    fn near_is_in_proportion() {
        assert_eq!(nearest("adress", ["address", "weight"].into_iter()), Some("address"));
        assert_eq!(nearest("Weight", ["address", "weight"].into_iter()), Some("weight"));
        assert_eq!(nearest("xy", ["address", "io"].into_iter()), None);
    }
}
