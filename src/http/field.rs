//! Field lines: which names Ringway knows, what a line must look like, and lists in values.

use super::Span;
use super::reject::Fault;
use crate::limits;

/// A field that Ringway knows by name; all others are [`Known::Other`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    /// not looked at, passed on
    #[default]
    Other,
    /// Accept: what form of own answer the client likes
    Accept,
    /// Connection
    Connection,
    /// Content-Length
    ContentLength,
    /// Date
    Date,
    /// Expect
    Expect,
    /// Forwarded (RFC 7239)
    Forwarded,
    /// Host
    Host,
    /// HTTP2-Settings: names a protocol change that Ringway never passes on
    Http2Settings,
    /// Keep-Alive
    KeepAlive,
    /// Max-Forwards
    MaxForwards,
    /// Proxy: no field of HTTP, but CGI would make HTTP_PROXY of it (CVE-2016-5385)
    Proxy,
    /// Proxy-Connection
    ProxyConnection,
    /// TE
    Te,
    /// Trailer
    Trailer,
    /// Transfer-Encoding
    TransferEncoding,
    /// Upgrade
    Upgrade,
    /// Via
    Via,
    /// X-Forwarded-For
    XForwardedFor,
    /// X-Forwarded-Host
    XForwardedHost,
    /// X-Forwarded-Port
    XForwardedPort,
    /// X-Forwarded-Proto
    XForwardedProto,
    /// Every other X-Forwarded, X-Forwarded-*, X-Original-* and X-Rewrite-*: backends take host, scheme or path from
    /// them, so they are a trusted proxy's to send and nobody else's.
    XForwardedOther,
    /// X-Real-IP
    XRealIp,
    /// X-Request-Id
    XRequestId,
    /// A spelling with `_` of a field above: never passed on, for a server behind that takes `_` for `-` would believe
    /// it.
    Alias,
    /// Any other name with `_`.
    Underscored,
}

impl Known {
    /// Its bit in a set of fields.
    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Hop-by-hop by name (RFC 9110 section 7.6.1, RFC 7540 section 3.2.1).
const HOP: u32 = Known::Connection.bit()
    | Known::KeepAlive.bit()
    | Known::ProxyConnection.bit()
    | Known::Te.bit()
    | Known::TransferEncoding.bit()
    | Known::Upgrade.bit()
    | Known::Http2Settings.bit();

/// Fields that a Connection option cannot remove: what frames and routes the message, and what Ringway itself sets or
/// answers for. RFC 9110 section 7.6.1 forbids senders to name end-to-end fields; attackers do, to strip them on the way.
const NOT_NOMINABLE: u32 = Known::Host.bit()
    | Known::ContentLength.bit()
    | Known::Date.bit()
    | Known::Expect.bit()
    | Known::Forwarded.bit()
    | Known::MaxForwards.bit()
    | Known::Trailer.bit()
    | Known::Via.bit()
    | Known::XForwardedFor.bit()
    | Known::XForwardedHost.bit()
    | Known::XForwardedPort.bit()
    | Known::XForwardedProto.bit()
    | Known::XForwardedOther.bit()
    | Known::XRealIp.bit()
    | Known::XRequestId.bit();

const _: () = assert!((Known::Underscored as u32) < u32::BITS);

/// One field line of a head. The line's bytes run from `name.start` to the next line's `name.start`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Field {
    /// The name, without the colon.
    pub name: Span,
    /// The value, without the white space around it.
    pub value: Span,
    /// Which field it is.
    pub known: Known,
    /// Hop-by-hop: by its name or because a Connection field names it (RFC 9110 section 7.6.1).
    pub hop: bool,
}

/// The field lines of one head, in order; storage is inline and reused from message to message.
#[derive(Clone, Debug)]
pub struct Fields {
    list: [Field; limits::FIELDS_MAX],
    len: usize,
    /// Which of the known fields are present: `Known::bit` of each.
    present: u32,
}

impl Default for Fields {
    fn default() -> Self {
        Fields { list: [Field::default(); limits::FIELDS_MAX], len: 0, present: 0 }
    }
}

impl std::ops::Deref for Fields {
    type Target = [Field];
    fn deref(&self) -> &[Field] {
        &self.list[..self.len]
    }
}

impl Fields {
    /// Forgets all lines.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.present = 0;
    }

    /// Appends a line whose name is `text`; `false` if there is no room.
    pub(super) fn push(&mut self, text: &[u8], name: Span, value: Span) -> bool {
        let Some(slot) = self.list.get_mut(self.len) else { return false };
        let known = known(text);
        *slot = Field { name, value, known, hop: HOP & known.bit() != 0 };
        self.len += 1;
        self.present |= known.bit();
        true
    }

    /// Whether a field is present.
    pub fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// The first field of this kind.
    pub fn first_of(&self, known: Known) -> Option<&Field> {
        if !self.has(known) {
            return None;
        }
        self.iter().find(|f| f.known == known)
    }

    /// Value of the first field of this kind; `bytes` is the head.
    pub fn value<'a>(&self, known: Known, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.first_of(known).map(|f| f.value.of(bytes))
    }

    /// Values of all fields of this name, in order; case does not matter. For names that are no [`Known`] ones; `bytes` is
    /// the head.
    pub fn named<'a>(&self, bytes: &'a [u8], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let is = |f: &&Field| usize::from(f.name.end) - usize::from(f.name.start) == name.len();
        let named = self.iter().filter(is).map(|f| (f.name.of(bytes), f.value.of(bytes)));
        named.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All fields of this kind, in order.
    pub fn all(&self, known: Known) -> impl DoubleEndedIterator<Item = &Field> {
        let len = if self.has(known) { self.len } else { 0 };
        self.list[..len].iter().filter(move |f| f.known == known)
    }

    /// The options of all Connection fields, as sent; `bytes` is the head.
    pub(super) fn options<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.all(Known::Connection).flat_map(|field| members(field.value.of(bytes)))
    }

    /// Marks the fields that a Connection option names as hop-by-hop, save those that must stay.
    pub(super) fn nominate(&mut self, bytes: &[u8], option: &[u8]) {
        for field in &mut self.list[..self.len] {
            let name = field.name.of(bytes);
            if name.len() == option.len() && NOT_NOMINABLE & field.known.bit() == 0 && name.eq_ignore_ascii_case(option)
            {
                field.hop = true;
            }
        }
    }
}

/// Which field this name is: a switch on length and first letter, so that at most two names are compared.
pub(super) fn known(name: &[u8]) -> Known {
    if name.contains(&b'_') {
        return underscored(name);
    }
    by_name(name)
}

fn by_name(name: &[u8]) -> Known {
    let is = |text: &[u8], known: Known| if name.eq_ignore_ascii_case(text) { known } else { Known::Other };
    let Some(first) = name.first() else { return Known::Other };
    match (name.len(), first | 0x20) {
        (2, b't') => is(b"te", Known::Te),
        (3, b'v') => is(b"via", Known::Via),
        (4, b'd') => is(b"date", Known::Date),
        (4, b'h') => is(b"host", Known::Host),
        (5, b'p') => is(b"proxy", Known::Proxy),
        (6, b'a') => is(b"accept", Known::Accept),
        (6, b'e') => is(b"expect", Known::Expect),
        (7, b't') => is(b"trailer", Known::Trailer),
        (7, b'u') => is(b"upgrade", Known::Upgrade),
        (9, b'f') => is(b"forwarded", Known::Forwarded),
        (9, b'x') => is(b"x-real-ip", Known::XRealIp),
        (10, b'c') => is(b"connection", Known::Connection),
        (10, b'k') => is(b"keep-alive", Known::KeepAlive),
        (12, b'm') => is(b"max-forwards", Known::MaxForwards),
        (12, b'x') if name.eq_ignore_ascii_case(b"x-request-id") => Known::XRequestId,
        (14, b'c') => is(b"content-length", Known::ContentLength),
        (14, b'h') => is(b"http2-settings", Known::Http2Settings),
        (15, b'x') if name.eq_ignore_ascii_case(b"x-forwarded-for") => Known::XForwardedFor,
        (16, b'p') => is(b"proxy-connection", Known::ProxyConnection),
        (16, b'x') if name.eq_ignore_ascii_case(b"x-forwarded-host") => Known::XForwardedHost,
        (16, b'x') if name.eq_ignore_ascii_case(b"x-forwarded-port") => Known::XForwardedPort,
        (17, b't') => is(b"transfer-encoding", Known::TransferEncoding),
        (17, b'x') if name.eq_ignore_ascii_case(b"x-forwarded-proto") => Known::XForwardedProto,
        (11.., b'x') => {
            let begins = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix));
            match begins(b"x-forwarded") || begins(b"x-original-") || begins(b"x-rewrite-") {
                true => Known::XForwardedOther,
                false => Known::Other,
            }
        }
        _ => Known::Other,
    }
}

#[cold]
fn underscored(name: &[u8]) -> Known {
    // Longer than every known name and prefix; what is cut off cannot change the kind to a lesser one.
    let mut dashed = [0; 32];
    let len = name.len().min(dashed.len());
    for (to, from) in dashed.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    match by_name(&dashed[..len]) {
        Known::Other => Known::Underscored,
        _ => Known::Alias,
    }
}

/// Whether a trailer field may be passed on (RFC 9110 section 6.5.1: not what frames, routes, authenticates, modifies the
/// request, or describes how to process the content, because a recipient may merge trailers into the head).
pub(super) fn may_be_trailer(name: &[u8]) -> bool {
    const FORBIDDEN: &[&[u8]] = &[
        b"age",
        b"authorization",
        b"cache-control",
        b"close",
        b"cookie",
        b"expires",
        b"location",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"vary",
        b"warning",
        b"www-authenticate",
    ];
    const PREFIXES: &[&[u8]] = &[b"content-", b"if-", b"sec-", b"access-control-"];
    known(name) == Known::Other
        && !FORBIDDEN.iter().any(|f| name.eq_ignore_ascii_case(f))
        && !PREFIXES.iter().any(|p| name.get(..p.len()).is_some_and(|n| n.eq_ignore_ascii_case(p)))
}

/// What is wrong with one field line (without its CRLF), and at which offset; `None` if nothing is.
pub(super) fn judge_line(line: &[u8]) -> Option<(Fault, usize)> {
    if let Some(b' ' | b'\t') = line.first() {
        return Some((Fault::ObsFold, 0));
    }
    let Some(end) = line.iter().position(|&b| !is_tchar(b)) else {
        return Some((Fault::NoColon, line.len()));
    };
    match line[end] {
        b':' if end == 0 => return Some((Fault::EmptyName, 0)),
        b':' => {}
        b' ' | b'\t' if line[end..].trim_ascii_start().starts_with(b":") => {
            return Some((Fault::SpaceBeforeColon, end));
        }
        0 => return Some((Fault::Nul, end)),
        b'\r' => return Some((Fault::BareCr, end)),
        _ => return Some((Fault::BadName, end)),
    }
    let bad = line[end..].iter().position(|&b| (b < b' ' && b != b'\t') || b == 0x7f)?;
    let fault = match line[end + bad] {
        0 => Fault::Nul,
        b'\r' => Fault::BareCr,
        _ => Fault::Control,
    };
    Some((fault, end + bad))
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1), white space trimmed, empty ones included.
pub(super) fn members(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// Without optional white space (SP and HTAB only) around it.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// tchar of RFC 9110 section 5.6.2.
const TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < 128 {
        let b = i as u8;
        table[i] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        i += 1;
    }
    table
};

/// Whether a byte may stand in a token.
pub(super) fn is_tchar(byte: u8) -> bool {
    TCHAR[byte as usize]
}

/// Whether this is a token: at least one tchar and nothing else.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_tchar(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_case() {
        for (name, want) in [
            ("host", Known::Host),
            ("HOST", Known::Host),
            ("tRANSFER-eNCODING", Known::TransferEncoding),
            ("Content-Length", Known::ContentLength),
            ("X-Transfer-Encoding", Known::Other),
            ("X-Forwarded-For", Known::XForwardedFor),
            ("x-forwarded-port", Known::XForwardedPort),
            ("X-Forwarded-Prefix", Known::XForwardedOther),
            ("X-Forwarded", Known::XForwardedOther),
            ("X-Original-URL", Known::XForwardedOther),
            ("X-Rewrite-Url", Known::XForwardedOther),
            ("X-Request-Id", Known::XRequestId),
            ("X-Request-If", Known::Other),
            ("X_Forwarded_For", Known::Alias),
            ("x-forwarded_for", Known::Alias),
            ("Content_Length", Known::Alias),
            ("Transfer_Encoding", Known::Alias),
            ("X_Forwarded_Some_Very_Long_Name_Indeed_Yes", Known::Alias),
            ("X_A", Known::Underscored),
            ("Te", Known::Te),
            ("t", Known::Other),
        ] {
            assert_eq!(known(name.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn lines() {
        assert_eq!(judge_line(b"A: b"), None);
        assert_eq!(judge_line(b"A:"), None);
        assert_eq!(judge_line(b"A: \xff\tb"), None);
        for (line, fault, at) in [
            (&b" A: b"[..], Fault::ObsFold, 0),
            (b"", Fault::NoColon, 0),
            (b"A", Fault::NoColon, 1),
            (b": b", Fault::EmptyName, 0),
            (b"A : b", Fault::SpaceBeforeColon, 1),
            (b"A\t: b", Fault::SpaceBeforeColon, 1),
            (b"A B: b", Fault::BadName, 1),
            (b"A(: b", Fault::BadName, 1),
            (b"\xefA: b", Fault::BadName, 0),
            (b"A\0: b", Fault::Nul, 1),
            (b"A: b\0", Fault::Nul, 4),
            (b"A: b\rc", Fault::BareCr, 4),
            (b"A: \x7f", Fault::Control, 3),
        ] {
            assert_eq!(judge_line(line), Some((fault, at)), "{:?}", line.escape_ascii().to_string());
        }
    }

    #[test]
    fn trailers_that_may_go_on() {
        for name in ["X-Checksum", "Server-Timing", "Grpc-Status", "ETag", "Digest"] {
            assert!(may_be_trailer(name.as_bytes()), "{name}");
        }
        for name in [
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Authorization",
            "Set-Cookie",
            "Content-Type",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "a_b",
            "Trailer",
            "If-Match",
            "Upgrade",
            "Via",
            "close",
        ] {
            assert!(!may_be_trailer(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn lists_and_trimming() {
        let got: Vec<_> = members(b" a ,\tb,, c d ").collect();
        assert_eq!(got, [&b"a"[..], b"b", b"", b"c d"]);
        assert_eq!(trim(b" \t "), b"");
    }
}
