//! Heads of requests and responses (RFC 9112 sections 2 to 6 and 9.3).

use super::uri::{self, Authority, Target};
use super::{
    Framing, Line, No, Parsed, Reader, decimal, digit, is_token, members, obs_text, section, space, tchar, vchar,
};

/// The head of a request that a strict server would serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the head, empty lines before it included.
    pub bytes: usize,
    /// Empty lines before it.
    pub empty_lines: usize,
    /// The method.
    pub method: Vec<u8>,
    /// The target as sent.
    pub target_text: Vec<u8>,
    /// The target understood.
    pub target: Target,
    /// HTTP/1.0, and not a later 1.x.
    pub http10: bool,
    /// The Host field, if there is one.
    pub host: Option<Authority>,
    /// The field lines.
    pub lines: Vec<Line>,
    /// How its body ends.
    pub framing: Framing,
    /// Whether the connection may live on.
    pub persist: bool,
    /// It expects 100 (Continue), and a body follows.
    pub expect_continue: bool,
}

/// The head of a response that a strict client would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Bytes of the head.
    pub bytes: usize,
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: Vec<u8>,
    /// HTTP/1.0, and not a later 1.x.
    pub http10: bool,
    /// The field lines.
    pub lines: Vec<Line>,
    /// How its body ends.
    pub framing: Framing,
    /// Whether the connection may live on.
    pub persist: bool,
}

/// `*CRLF request-line CRLF *( field-line CRLF ) CRLF`, and the rules on what the fields say.
pub fn request(bytes: &[u8]) -> Parsed<Request> {
    let mut reader = Reader::new(bytes);
    // RFC 9112 section 2.2: empty lines before a request-line are ignored.
    let mut empty_lines = 0;
    while reader.peek()? == b'\r' {
        reader.crlf("empty line")?;
        empty_lines += 1;
    }
    let method = reader.some("method", tchar)?.to_vec();
    reader.text("request-line", " ")?;
    let target_at = reader.at();
    let target_text = reader.some("request-target", vchar_or_text)?.to_vec();
    reader.text("request-line", " ")?;
    let http10 = version(&mut reader)?;
    reader.crlf("request-line")?;
    let lines = section(&mut reader)?;
    let no = |rule| No::Refused { rule, at: target_at };

    let Some(target) = uri::request_target(&method, &target_text) else { return Err(no("request-target")) };
    let hosts: Vec<&Line> = lines.iter().filter(|line| line.is("host")).collect();
    let host = match hosts.as_slice() {
        [] if http10 => None,
        [] => return Err(no("Host is missing")),
        [line] => match uri::authority(&line.value) {
            Some(host) => Some(host),
            None => return Err(no("Host")),
        },
        _ => return Err(no("Host is repeated")),
    };
    let persist = persist(http10, &lines).map_err(no)?;
    let framing = declared(http10, &lines).map_err(no)?.unwrap_or(Framing::None);
    // RFC 9110 section 9.3.8: no content in a TRACE request.
    let body = !matches!(framing, Framing::None | Framing::Length(0));
    if method == b"TRACE" && body {
        return Err(no("TRACE with content"));
    }
    // RFC 9110 section 7.6.2, for the methods where it means anything. One number, not a list of them.
    if method == b"TRACE" || method == b"OPTIONS" {
        let hops: Vec<&Line> = lines.iter().filter(|line| line.is("max-forwards")).collect();
        if hops.len() > 1 || hops.iter().any(|line| decimal(&line.value).is_none()) {
            return Err(no("Max-Forwards"));
        }
    }
    let continues = members(&lines, "expect").iter().any(|member| member.eq_ignore_ascii_case(b"100-continue"));
    let expect_continue = continues && !http10 && body;
    let bytes = reader.at();
    Ok(Request {
        bytes,
        empty_lines,
        method,
        target_text,
        target,
        http10,
        host,
        lines,
        framing,
        persist,
        expect_continue,
    })
}

/// `status-line CRLF *( field-line CRLF ) CRLF`, as an answer to a request of method HEAD or another one.
pub fn response(bytes: &[u8], to_head: bool) -> Parsed<Response> {
    let mut reader = Reader::new(bytes);
    let http10 = version(&mut reader)?;
    reader.text("status-line", " ")?;
    let code_at = reader.at();
    let mut status = 0;
    for _ in 0..3 {
        status = status * 10 + u16::from(reader.one("status-code", digit)? - b'0');
    }
    // RFC 9110 section 15: values outside of 100..599 are invalid.
    if !(100..=599).contains(&status) {
        return Err(No::Refused { rule: "status-code", at: code_at });
    }
    reader.text("status-line", " ")?;
    let reason = reader.many(|byte| space(byte) || vchar(byte) || obs_text(byte))?.to_vec();
    reader.crlf("reason-phrase")?;
    let lines = section(&mut reader)?;
    let no = |rule| No::Refused { rule, at: code_at };

    let persist = persist(http10, &lines).map_err(no)?;
    let declared = declared(http10, &lines).map_err(no)?;
    let bodiless = to_head || status < 200 || status == 204 || status == 304;
    let framing = if bodiless { Framing::None } else { declared.unwrap_or(Framing::UntilClose) };
    // RFC 9110 section 15.2.2: a 101 says which protocols follow.
    if status == 101 && members(&lines, "upgrade").is_empty() {
        return Err(no("101 without Upgrade"));
    }
    let persist = persist && framing != Framing::UntilClose;
    Ok(Response { bytes: reader.at(), status, reason, http10, lines, framing, persist })
}

fn vchar_or_text(byte: u8) -> bool {
    // What of this is no URI is found when the target is looked at as a whole.
    vchar(byte) || obs_text(byte)
}

/// `HTTP-version = "HTTP" "/" DIGIT "." DIGIT`, of major version 1. Whether it is HTTP/1.0.
fn version(reader: &mut Reader) -> Parsed<bool> {
    reader.text("HTTP-version", "HTTP/")?;
    reader.text("major version", "1")?;
    reader.text("HTTP-version", ".")?;
    Ok(reader.one("HTTP-version", digit)? == b'0')
}

/// RFC 9112 section 9.3.
fn persist(http10: bool, lines: &[Line]) -> Result<bool, &'static str> {
    let options = members(lines, "connection");
    if !options.iter().all(|option| is_token(option)) {
        return Err("Connection");
    }
    let has = |name: &str| options.iter().any(|option| option.eq_ignore_ascii_case(name.as_bytes()));
    Ok(!has("close") && (!http10 || has("keep-alive")))
}

/// What the framing fields declare (RFC 9112 sections 6.1 to 6.3).
fn declared(http10: bool, lines: &[Line]) -> Result<Option<Framing>, &'static str> {
    let has = |name: &str| lines.iter().any(|line| line.is(name));
    if has("transfer-encoding") {
        if has("content-length") {
            return Err("Transfer-Encoding and Content-Length");
        }
        if http10 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        // One coding, chunked: all others are not understood here.
        return match members(lines, "transfer-encoding").as_slice() {
            [coding] if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
            _ => Err("Transfer-Encoding"),
        };
    }
    // Equal numbers, in one line or more, are one number.
    let mut number = None;
    for line in lines.iter().filter(|line| line.is("content-length")) {
        for member in line.value.split(|&byte| byte == b',') {
            let Some(n) = decimal(super::ows_trimmed(member)) else { return Err("Content-Length") };
            if number.is_some_and(|before| before != n) {
                return Err("Content-Length with two values");
            }
            number = Some(n);
        }
    }
    Ok(number.map(Framing::Length))
}
