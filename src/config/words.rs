//! The values of the config file as types: text in the file, parsed by `value`, written back in its shortest form.
//! Each text has a `format` of its own in the JSON Schema, by which `shape` finds the parser.

use super::value::{self, Refusal};
use super::{Address, HalfClose, Io, LogFormat};
use crate::http::head::Underscores;
use crate::route::table::OnTimeout;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::borrow::Cow;

/// Checks a text against one of the formats below; an unknown format accepts everything, as JSON Schema wants it.
pub(super) fn check(format: &str, text: &str) -> Result<(), Refusal> {
    match format {
        "ringway-duration" => value::duration(text).map(drop),
        "ringway-patience" => patience(text).map(drop),
        "ringway-latency" => latency(text).map(drop),
        "ringway-size" => value::size(text).map(drop),
        "ringway-rate" => rate(text).map(drop),
        "ringway-address" => value::address(text).map(drop),
        "ringway-listen-address" => value::listen_address(text).map(drop),
        "ringway-block" => value::block(text).map(drop),
        "ringway-mode" => value::mode(text).map(drop),
        "ringway-name" => value::name(text),
        "ringway-route" => super::route_key::parse(text).map(drop),
        "ringway-own-status" => value::own_status(text).map(drop),
        "ringway-pseudonym" => value::pseudonym(text),
        "ringway-log-target" => value::log_target(text),
        "ringway-path" => value::file_path(text),
        "ringway-token" => value::token(text),
        "ringway-probe-path" => value::probe_path(text),
        "ringway-method" => value::method(text),
        "ringway-probe-host" => value::probe_host(text),
        "ringway-probe-field" => value::probe_field(text),
        "ringway-field-value" => value::field_value(text),
        "ringway-probe-text" => value::probe_text(text),
        "ringway-status-class" => value::status_class(text).map(drop),
        "ringway-health-path" => value::health_path(text),
        _ => Ok(()),
    }
}

/// What a format is called, with an example where that says more.
pub(super) fn kind(format: &str) -> &'static str {
    match format {
        "ringway-duration" => "a duration, as \"30s\"",
        "ringway-patience" => "a duration above zero, as \"30s\"",
        "ringway-latency" => "a duration above zero, as \"250ms\"",
        "ringway-size" => "a size, as \"16KiB\", or \"unlimited\"",
        "ringway-rate" => "bytes a second, as \"240B\"",
        "ringway-address" => "an address, as \"10.0.0.1:80\", \"app.internal:80\" or \"unix:/run/app.sock\"",
        "ringway-listen-address" => "an address, as \"0.0.0.0:80\", \"[::]:80\" or \"unix:/run/app.sock\"",
        "ringway-block" => "a block of addresses, as \"10.0.0.0/8\"",
        "ringway-mode" => "an octal number, as \"0660\"",
        "ringway-name" => "name",
        "ringway-route" => "host and path",
        "ringway-own-status" => "status",
        "ringway-pseudonym" => "a name",
        "ringway-log-target" => "\"off\", \"stdout\" or a path, as \"./access.log\"",
        "ringway-path" => "a path of a file",
        "ringway-token" => "a name of a field or cookie",
        "ringway-probe-path" | "ringway-health-path" => "a path, as \"/health\"",
        "ringway-method" => "a method",
        "ringway-probe-host" => "a host",
        "ringway-probe-field" => "name of a field",
        "ringway-field-value" => "its value",
        "ringway-probe-text" => "a text",
        "ringway-status-class" => "a class, as \"5xx\"",
        _ => "a text",
    }
}

/// A duration that cannot be zero: it would end every exchange at once.
fn patience(text: &str) -> Result<u32, Refusal> {
    match value::duration(text)? {
        0 => Err(Refusal::write("a timeout of zero would end everything at once", "1s")),
        seconds => Ok(seconds),
    }
}

/// Milliseconds; none at all would be no limit.
fn latency(text: &str) -> Result<u64, Refusal> {
    match value::millis(text)? {
        0 => Err(Refusal::write("everything takes longer than no time at all", "1s")),
        millis => Ok(millis),
    }
}

/// Bytes a second: a size, but not an unlimited one, which no client could keep up with.
fn rate(text: &str) -> Result<u64, Refusal> {
    match value::size(text)? {
        u64::MAX => Err(Refusal::hint("a least rate cannot be unlimited", "write \"0B\" to ask for none")),
        bytes => Ok(bytes),
    }
}

/// Gives a type with one field its text form and its place in the JSON Schema.
macro_rules! word {
    ($name:ident($inner:ty), $format:literal, $pattern:expr, $parse:expr, $text:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let text = <Cow<'de, str>>::deserialize(input)?;
                let parse: fn(&str) -> Result<$inner, Refusal> = $parse;
                parse(&text).map($name).map_err(D::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
                let text: fn(&$inner) -> String = $text;
                output.serialize_str(&text(&self.0))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": $format, "pattern": $pattern})
            }
        }
    };
}

/// Whole seconds, zero allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub u32);
word!(Duration(u32), "ringway-duration", "^[0-9]+(ms|s|m|h|d)$", value::duration, |s| value::duration_text(*s));

/// Whole seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience(pub u32);
word!(Patience(u32), "ringway-patience", "^[0-9]+(ms|s|m|h|d)$", patience, |s| value::duration_text(*s));

/// Milliseconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency(pub u64);
word!(Latency(u64), "ringway-latency", "^[0-9]+(ms|s|m|h|d)$", latency, |ms| value::millis_text(*ms));

/// Bytes; [`u64::MAX`] is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);
word!(Size(u64), "ringway-size", "^([0-9]+([KMG]iB|[kKMG]?B)|unlimited)$", value::size, |s| value::size_text(*s));

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);
word!(Rate(u64), "ringway-rate", "^[0-9]+([KMG]iB|[kKMG]?B)$", rate, |s| value::size_text(*s));

/// The first digit of a class of statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusClass(pub u16);
word!(StatusClass(u16), "ringway-status-class", "^[2-5]xx$", value::status_class, |class| format!("{class}xx"));

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValue(pub String);
word!(
    FieldValue(String),
    "ringway-field-value",
    "^([^ \\t]|[^ \\t].*[^ \\t])?$",
    |t| value::field_value(t).map(|()| t.into()),
    String::clone
);

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendAddress(pub Address);
word!(BackendAddress(Address), "ringway-address", "^(unix:.+|.+:[0-9]+)$", value::address, value::address_text);

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub Address);
word!(
    ListenAddress(Address),
    "ringway-listen-address",
    "^(unix:.+|[0-9.]+:[0-9]+|\\[[0-9A-Fa-f:.]+\\]:[0-9]+)$",
    value::listen_address,
    value::address_text
);

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(pub IpNet);
word!(Block(IpNet), "ringway-block", "^[0-9A-Fa-f:.]+(/[0-9]+)?$", value::block, IpNet::to_string);

/// Permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);
word!(Mode(u32), "ringway-mode", "^[0-7]{3,4}$", value::mode, |bits| format!("{bits:04o}"));

/// The path of a file, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub String);
word!(FilePath(String), "ringway-path", "[^/]$", |t| value::file_path(t).map(|()| t.into()), String::clone);

/// The name of a field or a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(pub Box<str>);
word!(Token(Box<str>), "ringway-token", "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", |t| value::token(t).map(|()| t.into()), |t| t
    .as_ref()
    .to_owned());

/// Names the variants of a type of the program in the file, and leads there and back.
macro_rules! choice {
    ($(#[$doc:meta])* $word:ident => $target:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(inline)]
        pub enum $word {
            $($(#[$variant_doc])* $variant),+
        }

        impl From<$word> for $target {
            fn from(word: $word) -> $target {
                match word {
                    $($word::$variant => $target::$variant),+
                }
            }
        }

        impl From<$target> for $word {
            fn from(target: $target) -> $word {
                match target {
                    $($target::$variant => $word::$variant),+
                }
            }
        }
    };
}

choice! {
    /// See [`OnTimeout`].
    OnTimeoutWord => OnTimeout {
        /// Only a backend that has been silent since.
        #[default]
        Silent,
        /// Any.
        Any,
    }
}

choice! {
    /// See [`Io`].
    IoWord => Io {
        /// io_uring if it can be had.
        #[default]
        Auto,
        /// io_uring or nothing.
        Uring,
        /// epoll.
        Epoll,
    }
}

choice! {
    /// See [`HalfClose`].
    HalfCloseWord => HalfClose {
        /// The answer is delivered.
        #[default]
        Serve,
        /// The request is cancelled.
        Abort,
    }
}

choice! {
    /// See [`Underscores`].
    UnderscoresWord => Underscores {
        /// The field is dropped.
        #[default]
        Drop,
        /// It is passed on.
        Pass,
        /// The request is rejected.
        Reject,
    }
}

choice! {
    /// See [`LogFormat`].
    LogFormatWord => LogFormat {
        /// One JSON object a line.
        #[default]
        Json,
        /// Words and quoted strings.
        Text,
    }
}
