//! Verdicts as text for people and as JSON for programs.

use super::{CLIENT, End, Head, Message, PORT, Parsed, Side, Start, Verdict};
use crate::http::body::Encoding;
use crate::http::framing::Framing;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Bytes shown before the place of a fault, and behind it.
const BEFORE: usize = 48;
const BEHIND: usize = 24;

/// Bytes as one line: what is not printable ASCII as `\r`, `\x00` and so on.
pub fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The bytes around an offset, escaped, and in which column of them the byte at that offset begins.
pub fn place(bytes: &[u8], at: usize) -> (String, usize) {
    let at = at.min(bytes.len());
    let from = at.saturating_sub(BEFORE);
    // From the beginning of its line, if that is near.
    let line = bytes[from..at].iter().rposition(|&byte| byte == b'\n').map_or(from, |lf| from + lf + 1);
    let from = if line == at { from } else { line };
    let before = escaped(&bytes[from..at]);
    let column = before.len();
    (before + &escaped(&bytes[at..bytes.len().min(at + BEHIND)]), column)
}

/// The verdicts for people.
pub fn text(bytes: &[u8], side: Side, parsed: &Parsed) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    for (i, message) in parsed.messages.iter().enumerate() {
        let word = match &message.verdict {
            Verdict::Forwarded { .. } => "accepted".to_owned(),
            Verdict::Answered => "accepted, and answered here: its Max-Forwards is 0".to_owned(),
            Verdict::Refused(refusal) => format!("REFUSED, {} {}", refusal.status, refusal.reason),
        };
        let _ = writeln!(text, "{} {} at byte {}: {word}", kind(side), i + 1, message.at);
        if let Some(head) = &message.head {
            let _ = writeln!(text, "  {}", start(head));
            let _ = writeln!(text, "  body: {}, {} bytes", framing(head.framing), message.body_bytes);
        }
        match &message.verdict {
            Verdict::Refused(refusal) => {
                let (line, column) = place(bytes, refusal.at);
                let (lead, blank) = (format!("  byte {}: ", refusal.at), "");
                let width = lead.len() + column;
                let _ = writeln!(text, "  {} ({})\n{lead}{line}\n{blank:width$}^", refusal.detail, refusal.clause);
            }
            Verdict::Answered => {}
            Verdict::Forwarded { head, encoding } => {
                let _ = writeln!(text, "  goes on as{}:", circumstances(side));
                for line in head.split_inclusive(|&byte| byte == b'\n') {
                    let _ = writeln!(text, "    {}", escaped(line));
                }
                if message.body_bytes > 0 || *encoding == Encoding::Chunked {
                    let coded = if *encoding == Encoding::Chunked { ", in chunks" } else { "" };
                    let _ = writeln!(text, "    ({} bytes of body{coded})", message.body_bytes);
                }
            }
        }
    }
    if parsed.messages.is_empty() {
        let _ = writeln!(text, "no {} in {} bytes", kind(side), bytes.len());
    }
    let unread = bytes.len() - parsed.read;
    let why = match parsed.end {
        End::Input => return text,
        End::Refused => "the connection is closed",
        End::Close => "the connection ends with this message",
        End::Tunnel => "they belong to the tunnel",
    };
    if unread > 0 {
        let _ = writeln!(text, "{unread} bytes from byte {} on were not read: {why}", parsed.read);
    }
    text
}

/// The same for programs.
pub fn json(bytes: &[u8], side: Side, parsed: &Parsed) -> String {
    let messages: Vec<Value> = parsed.messages.iter().map(|message| one(bytes, message)).collect();
    let answer = json!({
        "side": kind(side),
        "accepted": parsed.refusal().is_none(),
        "messages": messages,
        "bytes": bytes.len(),
        "read": parsed.read,
    });
    format!("{answer:#}\n")
}

fn one(bytes: &[u8], message: &Message) -> Value {
    let mut shown = json!({ "at": message.at, "bytes": message.bytes, "body_bytes": message.body_bytes });
    if let Some(head) = &message.head {
        shown["framing"] = framing(head.framing).into();
        match &head.start {
            Start::Request { method, host, path } => {
                shown["method"] = escaped(method).into();
                shown["host"] = escaped(host).into();
                shown["path"] = escaped(path).into();
            }
            Start::Response { status } => shown["status"] = (*status).into(),
        }
    }
    match &message.verdict {
        Verdict::Forwarded { head, encoding } => {
            shown["verdict"] = "accepted".into();
            shown["forwarded"] = json!({ "head": escaped(head), "chunked": *encoding == Encoding::Chunked });
        }
        Verdict::Answered => shown["verdict"] = "answered".into(),
        Verdict::Refused(refusal) => {
            let (line, column) = place(bytes, refusal.at);
            shown["verdict"] = "refused".into();
            shown["refusal"] = json!({
                "status": refusal.status,
                "reason": refusal.reason,
                "at": refusal.at,
                "clause": refusal.clause,
                "detail": refusal.detail,
                "around": line,
                "column": column,
            });
        }
    }
    shown
}

fn kind(side: Side) -> &'static str {
    match side {
        Side::Client => "request",
        Side::Backend { .. } => "response",
    }
}

fn start(head: &Head) -> String {
    match &head.start {
        Start::Request { method, host, path } if host.is_empty() => format!("{} {}", escaped(method), escaped(path)),
        Start::Request { method, host, path } => {
            format!(
                "{} {}, host {}",
                escaped(method),
                if path.is_empty() { "/".to_owned() } else { escaped(path) },
                escaped(host)
            )
        }
        Start::Response { status } => format!("status {status}"),
    }
}

fn framing(framing: Framing) -> String {
    match framing {
        Framing::None => "none".to_owned(),
        Framing::Length(n) => format!("length {n}"),
        Framing::Chunked => "chunked".to_owned(),
        Framing::UntilClose => "until close".to_owned(),
    }
}

/// What the shown head depends on beside the message.
fn circumstances(side: Side) -> String {
    match side {
        Side::Client => format!(" (client {CLIENT}, trusted with nothing, listener on port {PORT})"),
        Side::Backend { .. } => " (client of HTTP/1.1)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    #[test]
    fn the_caret_stands_under_the_byte() {
        for (bytes, at, line, column) in [
            (&b"GET / HTTP/1.1\r\nHost : a\r\n"[..], 20, r"Host : a\r\n", 4),
            (b"GET /\0 HTTP/1.1\r\n", 5, r"GET /\x00 HTTP/1.1\r\n", 5),
            (b"a: b\r\n\r\n", 6, r"a: b\r\n\r\n", 8),
            (b"a\r\nb", 4, "b", 1),
            (b"", 0, "", 0),
        ] {
            assert_eq!(place(bytes, at), (line.to_owned(), column));
        }
        let (line, column) = place(&[b'a'; 1000], 500);
        assert_eq!((line.len(), column), (BEFORE + BEHIND, BEFORE));
    }

    #[test]
    fn verdicts_for_people_and_programs() {
        let bytes = b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\nHost : a\r\n\r\n";
        let parsed = parse(bytes, Side::Client);
        let shown = text(bytes, Side::Client, &parsed);
        for part in [
            "request 1 at byte 0: accepted\n  GET /a, host a.test\n  body: none, 0 bytes\n",
            "    GET /a HTTP/1.1\\r\\n\n    Host: a.test\\r\\n\n",
            "request 2 at byte 33: REFUSED, 400 space-before-colon\n",
            "  byte 53: Host : a\\r\\n\\r\\n\n               ^\n",
            "(RFC 9112 section 5.1)",
            "8 bytes from byte 53 on were not read: the connection is closed\n",
        ] {
            assert!(shown.contains(part), "{part:?} in\n{shown}");
        }
        let shown: Value = serde_json::from_str(&json(bytes, Side::Client, &parsed)).expect("JSON");
        assert_eq!(shown["accepted"], json!(false));
        assert_eq!(shown["messages"][0]["host"], json!("a.test"));
        assert_eq!(shown["messages"][1]["refusal"]["at"], json!(53));
        assert_eq!(text(b"", Side::Client, &parse(b"", Side::Client)), "no request in 0 bytes\n");
    }
}
