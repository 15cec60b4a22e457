//! The text as a tree in which every value knows its place. Strict JSON (RFC 8259): comments, trailing commas and
//! single quotes are refused, because every other tool that reads the file would refuse them too.

use super::fault::Findings;
use super::value::Refusal;
use jsonc_parser::ast::{Object, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::{ParseError, ParseErrorKind};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

/// Parses the text. On a syntax error, which ends the parse, adds the fault and returns `None`.
pub(super) fn tree<'t>(text: &'t str, findings: &mut Findings) -> Option<Value<'t>> {
    if text.starts_with('\u{feff}') {
        findings.add(0, &[], Refusal::hint("the file begins with a byte order mark", "save it as UTF-8 without"));
        return None;
    }
    let strict = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    match parse_to_ast(text, &CollectOptions::default(), &strict) {
        Ok(parsed) if parsed.value.is_some() => parsed.value,
        Ok(_) => {
            findings.add(
                0,
                &[],
                Refusal::hint("the file is empty", "\"listeners\", \"clusters\" and \"routes\" are needed"),
            );
            None
        }
        Err(error) => {
            findings.add(boundary(text, error.range().start), &[], syntax(&error));
            None
        }
    }
}

fn syntax(error: &ParseError) -> Refusal {
    use ParseErrorKind::*;
    let advice = match error.kind() {
        CommentsNotAllowed | UnterminatedCommentBlock => "remove the comment: JSON has none",
        TrailingCommasNotAllowed => "remove the comma",
        ExpectedComma => "a comma stands between two members",
        SingleQuotedStringsNotAllowed | ExpectedStringObjectProperty | UnexpectedWord => {
            "strings stand in double quotes"
        }
        _ => return Refusal::new(lowered(&error.kind().to_string())),
    };
    Refusal::hint(lowered(&error.kind().to_string()), advice)
}

fn lowered(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

/// The fault that a second, independent parser finds behind the first: its line and byte column, both from 1.
pub(super) fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    boundary(text, start + column.saturating_sub(1))
}

/// The first byte of the character at or around `at`, or the text's end.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

/// First byte of a value.
pub(super) fn start(value: &Value<'_>) -> usize {
    value.range().start
}

/// The members of an object that is itself a member; none if it is not there or of another type, which `shape` reports.
pub(super) fn members<'v, 't>(object: &'v Object<'t>, key: &str) -> impl Iterator<Item = Member<'v, 't>> {
    let inner = member(object, key).and_then(|m| m.value.as_object());
    inner.into_iter().flat_map(|o| &o.properties).map(Member::of)
}

/// The first member with this key.
pub(super) fn member<'v, 't>(object: &'v Object<'t>, key: &str) -> Option<Member<'v, 't>> {
    object.properties.iter().map(Member::of).find(|m| m.key == key)
}

/// One member of an object.
#[derive(Clone, Copy)]
pub(super) struct Member<'v, 't> {
    /// Its key, escapes resolved.
    pub(super) key: &'v str,
    /// First byte of the key, the quote.
    pub(super) at: usize,
    /// Its value.
    pub(super) value: &'v Value<'t>,
}

impl<'v, 't> Member<'v, 't> {
    pub(super) fn of(property: &'v jsonc_parser::ast::ObjectProp<'t>) -> Member<'v, 't> {
        Member { key: property.name.as_str(), at: property.range.start, value: &property.value }
    }

    /// The text in the short form of an entry, or that under `key` in its full form.
    pub(super) fn text(&self, key: &str) -> Option<Text<'v>> {
        match self.value {
            Value::StringLit(s) => Some(Text { text: &s.value, at: s.range.start, inner: false }),
            Value::Object(full) => match member(full, key)?.value {
                Value::StringLit(s) => Some(Text { text: &s.value, at: s.range.start, inner: true }),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A string and its place.
#[derive(Clone, Copy)]
pub(super) struct Text<'v> {
    pub(super) text: &'v str,
    /// First byte, the quote.
    pub(super) at: usize,
    /// Whether it stood in an entry's full form.
    pub(super) inner: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (usize, usize, String) {
        let mut findings = Findings::default();
        assert!(tree(text, &mut findings).is_none(), "{text}");
        let fault = findings.into_faults(text, "f").list.remove(0);
        (fault.line, fault.column, fault.message)
    }

    #[test]
    fn only_json_is_json() {
        for (text, line, column) in [
            ("", 1, 1),
            ("{\n  // why\n}", 2, 3),
            ("{\"a\": 1,}", 1, 8),
            ("{\"ü\": 'x'}", 1, 7),
            ("{a: 1}", 1, 2),
            ("{\"a\": 0x1}", 1, 7),
            ("{\"a\": 1 \"b\": 2}", 1, 8),
            ("{\"a\": tru}", 1, 7),
            ("{\"a\": \"x", 1, 7),
            ("\u{feff}{}", 1, 1),
            ("{} {}", 1, 4),
        ] {
            let (found_line, found_column, message) = fault(text);
            assert_eq!((found_line, found_column), (line, column), "{text}: {message}");
        }
        let deep = "[".repeat(100_000);
        assert!(fault(&deep).2.contains("depth"));
    }

    #[test]
    fn offsets_stay_inside() {
        assert_eq!(offset_of("ab\ncü", 2, 3), 4);
        assert_eq!(offset_of("ab\ncd", 2, 2), 4);
        assert_eq!(offset_of("ab", 9, 9), 2);
        assert_eq!(offset_of("", 0, 0), 0);
    }
}
