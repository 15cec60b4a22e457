//! Where Ringway and the grammar do not agree on purpose: all of it, as data.
//!
//! * Ringway refuses more: each [`Policy`] names the fault, says why, and has a test of its own that the message gives
//!   cause. A refusal of what the grammar takes, by a fault that is not here or without cause, is a finding.
//! * Ringway takes more: [`forgive_request`] and [`forgive_response`] change these few things in a message before the
//!   grammar sees it. Nothing else that the grammar refuses may be taken.

use super::grammar::head::{Request, Response};
use super::grammar::uri::{self, Authority, Target};
use super::grammar::{Line, members};
use ringway::http::reject::Fault;
use ringway::limits;

/// A message that the grammar takes, or may yet take.
pub struct Case<'a> {
    /// From its first byte on.
    pub bytes: &'a [u8],
    /// Its head, if that is complete and a request's.
    pub request: Option<&'a Request>,
    /// Its head, if that is complete and a response's.
    pub response: Option<&'a Response>,
}

impl Case<'_> {
    /// The lines of its head.
    pub fn lines(&self) -> &[Line] {
        let request = self.request.map(|head| head.lines.as_slice());
        request.or(self.response.map(|head| head.lines.as_slice())).unwrap_or_default()
    }

    fn all(&self, name: &str) -> Vec<&Line> {
        self.lines().iter().filter(|line| line.is(name)).collect()
    }

    fn target(&self) -> &[u8] {
        self.request.map(|head| head.target_text.as_slice()).unwrap_or_default()
    }

    fn authorities(&self) -> Vec<&Authority> {
        let Some(head) = self.request else { return Vec::new() };
        let in_target = match &head.target {
            Target::Absolute { authority, .. } | Target::Authority(authority) => Some(authority),
            _ => None,
        };
        head.host.iter().chain(in_target).collect()
    }

    /// What stands behind the head.
    fn body(&self) -> &[u8] {
        let head = self.request.map(|head| head.bytes).or(self.response.map(|head| head.bytes)).unwrap_or_default();
        &self.bytes[head.min(self.bytes.len())..]
    }
}

/// A reason for which Ringway refuses what the grammar takes.
pub struct Policy {
    /// What Ringway calls it.
    pub fault: Fault,
    /// Why it is refused.
    pub why: &'static str,
    /// Whether there is cause.
    pub cause: fn(&Case) -> bool,
}

const fn policy(fault: Fault, why: &'static str, cause: fn(&Case) -> bool) -> Policy {
    Policy { fault, why, cause }
}

/// All of them.
pub const POLICIES: &[Policy] = &[
    policy(Fault::LeadingEmptyLines, "a limit; one is what RFC 9112 section 2.2 asks for", |case| {
        case.bytes.starts_with(&b"\r\n".repeat(limits::LEADING_EMPTY_LINES_MAX))
    }),
    policy(Fault::UriTooLong, "a limit", |case| case.bytes.len() >= limits::HEAD_BYTES_MAX),
    policy(Fault::HeadTooLarge, "a limit", |case| case.bytes.len() >= limits::HEAD_BYTES_MAX),
    policy(Fault::TooManyFields, "a limit, of heads and of trailer sections", |case| {
        let lines = |text: &[u8]| text.iter().filter(|&&byte| byte == b'\n').count();
        case.lines().len() > limits::FIELDS_MAX || lines(case.body()) > limits::FIELDS_MAX
    }),
    policy(Fault::Connect, "Ringway is no forward proxy: 501", |case| {
        case.request.is_some_and(|head| head.method == b"CONNECT")
    }),
    policy(Fault::DotSegment, "servers disagree on what such a path means", |case| has_dot_segment(case.target())),
    policy(Fault::EncodedNul, "it ends the path for servers that decode into C strings", |case| {
        case.target().windows(3).any(|w| w == b"%00")
    }),
    policy(Fault::Scheme, "only http and https are served", is_foreign),
    policy(Fault::BadTarget, "only http and https are served", is_foreign),
    policy(
        Fault::BadHost,
        "empty hosts name nobody, long ones neither; IPvFuture has no version yet; a comma makes a list; \
         no name has a space or a control in it, encoded or not",
        |case| {
            case.authorities().iter().any(|found| {
                let host = String::from_utf8_lossy(&found.host).to_ascii_lowercase();
                let encoded = |piece: &str| piece.get(..2).is_some_and(|hex| hex <= "20" || hex == "7f");
                let control = host.split('%').skip(1).any(encoded);
                host.is_empty() || host.len() > 255 || host.starts_with("[v") || host.contains(',') || control
            })
        },
    ),
    policy(Fault::BadPort, "no port is greater", |case| {
        let great = |port: &Vec<u8>| super::grammar::decimal(port).is_some_and(|n| n > 65_535);
        case.authorities().iter().any(|found| found.port.as_ref().is_some_and(great))
    }),
    policy(Fault::BadConnection, "a limit of the list", |case| {
        let commas = |line: &&Line| line.value.iter().filter(|&&byte| byte == b',').count() + 1;
        case.all("connection").iter().map(commas).sum::<usize>() > limits::CONNECTION_OPTIONS_MAX
    }),
    policy(Fault::Expectation, "RFC 9110 section 10.1.1: 417 to what is not understood", |case| {
        members(case.lines(), "expect").iter().any(|member| !member.eq_ignore_ascii_case(b"100-continue"))
    }),
    policy(Fault::RepeatedLength, "two readers may take different ones, though they be equal today", |case| {
        case.all("content-length").len() > 1
    }),
    policy(Fault::BadLength, "lists of equal lengths; numbers of more than 63 bits", |case| {
        let odd = |line: &&Line| super::grammar::decimal(&line.value).is_none_or(|n| n > i64::MAX as u128);
        case.all("content-length").iter().any(odd)
    }),
    policy(Fault::RepeatedCoding, "two readers may take different ones", |case| {
        case.all("transfer-encoding").len() > 1
    }),
    policy(Fault::BadCoding, "lists with empty members", has_empty_members),
    policy(Fault::UnknownCoding, "lists with empty members", has_empty_members),
    policy(Fault::NoUpgrade, "a 101 says in one line what follows", |case| case.all("upgrade").len() > 1),
    policy(Fault::ChunkOverflow, "sizes of more than 63 bits", |case| {
        case.body().split(|byte| !super::grammar::hexdig(*byte)).any(|digits| digits.len() >= 16)
    }),
    policy(Fault::ChunkLineTooLong, "a limit", |case| {
        case.body().split(|&byte| byte == b'\n').any(|line| line.len() + 1 >= limits::CHUNK_LINE_BYTES_MAX)
    }),
    policy(Fault::ChunkExtensions, "a limit", |case| case.body().len() > limits::CHUNK_EXTENSION_BYTES_MAX),
    policy(Fault::TrailerTooLarge, "a limit", |case| case.body().len() > limits::TRAILER_BYTES_MAX),
];

/// Whether Ringway may refuse this message for this fault.
pub fn allows(fault: Fault, case: &Case) -> bool {
    POLICIES.iter().any(|policy| policy.fault == fault && (policy.cause)(case))
}

/// A target of another scheme than http and https: `a:b` is one, though it be meant as host and port.
fn is_foreign(case: &Case) -> bool {
    case.request.is_some_and(|head| head.target == Target::Foreign)
}

fn has_empty_members(case: &Case) -> bool {
    case.all("transfer-encoding").iter().any(|line| line.value.split(|&b| b == b',').count() > 1)
}

/// Whether some reader of this path may see `.` or `..` in it: one that decodes first, takes `\` for a slash, or cuts
/// parameters off.
fn has_dot_segment(target: &[u8]) -> bool {
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let text = String::from_utf8_lossy(path).to_ascii_lowercase();
    let text = text.replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    text.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

/// Bytes that RFC 3986 wants encoded in a path and that browsers and curl send as they are: no server reads them as
/// anything else.
pub const FORGIVEN_IN_PATHS: &[u8] = b"[]|^{}";

/// The same for queries (WHATWG URL leaves these, too).
pub const FORGIVEN_IN_QUERIES: &[u8] = b"[]|^{}\\`";

/// The message with `x` in place of the bytes above, in the path and the query of its request line. No offset changes.
pub fn forgive_request(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let begin = bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(0);
    let end = bytes[begin..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |len| begin + len);
    let mut words = bytes[begin..end].split(|&byte| byte == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return out };
    let target_at = begin + method.len() + 1;
    let path_at = match target.windows(3).position(|w| w == b"://") {
        _ if target.starts_with(b"/") => 0,
        Some(scheme) => {
            let from = scheme + 3;
            target[from..].iter().position(|byte| b"/?".contains(byte)).map_or(target.len(), |len| from + len)
        }
        None => return out,
    };
    let mut forgiven = FORGIVEN_IN_PATHS;
    for byte in &mut out[target_at + path_at..target_at + target.len()] {
        if *byte == b'?' {
            forgiven = FORGIVEN_IN_QUERIES;
        } else if forgiven.contains(byte) {
            *byte = b'x';
        }
    }
    out
}

/// The message with the space behind the status code that many servers forget where no reason follows, and with `~` for
/// all bytes of Connection options that are no tokens: those are ignored, since no Connection field of a backend's goes
/// on. Also returns how many bytes there are more.
pub fn forgive_response(bytes: &[u8]) -> (Vec<u8>, usize) {
    let (mut out, more) = match bytes.get(8..14) {
        Some([b' ', _, _, _, b'\r', b'\n']) => ([&bytes[..12], b" ", &bytes[12..]].concat(), 1),
        _ => (bytes.to_vec(), 0),
    };
    for line in out.split_mut(|&byte| byte == b'\n') {
        if line == b"\r" {
            break;
        }
        let name = line.iter().position(|&byte| byte == b':').unwrap_or(0);
        if line[..name].eq_ignore_ascii_case(b"connection") {
            let end = line.len() - usize::from(line.ends_with(b"\r"));
            for option in line[name + 1..end].split_mut(|&byte| byte == b',') {
                let visible = option.iter().all(|&b| super::grammar::space(b) || b >= 0x80 || super::grammar::vchar(b));
                let word = super::grammar::ows_trimmed(option);
                if visible && !word.is_empty() && !super::grammar::is_token(word) {
                    option.fill(b'~');
                }
            }
        }
    }
    (out, more)
}

/// `host[:port]` as text.
pub fn authority_text(authority: &Authority) -> Vec<u8> {
    let uri::Authority { host, port } = authority;
    match port {
        Some(port) => [host.as_slice(), b":", port].concat(),
        None => host.clone(),
    }
}
