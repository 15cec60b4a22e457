//! Request and response heads: where one ends, and what it says. The only file that names httparse.
//!
//! A head is read in two steps. [`HeadScan`] (in `scan`) finds its end in bytes that come piecemeal, and refuses what
//! cannot become one. Then [`RequestHead::parse`] or [`ResponseHead::parse`] judges it as a whole: the start line here, the target in
//! `target`, the framing in `framing`. httparse finds the field lines; where it refuses, `explain` says which rule was
//! broken, for the log, but can never turn that into an acceptance.

use super::framing::{self, Evidence, Framing};
use super::reject::{Broken, Failure, Fault, Reject};
use super::{Method, Span, Version};
use super::{field, target};
use crate::limits;

pub use super::field::{Field, Fields, Known};
pub use super::scan::{HeadScan, Scan};
pub use super::target::Form;

/// What a strict reader makes of field names that contain `_` (several servers take `_` for `-`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// Drop the field (the default, as nginx does).
    #[default]
    Drop,
    /// Pass it on, except spellings of fields that Ringway itself sets.
    Pass,
    /// Reject the request with 400.
    Reject,
}

/// One request head, judged. All spans point into the head's bytes.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// Bytes of the head, leading empty lines and final empty line included.
    pub bytes: usize,
    /// The method, as far as behaviour depends on it.
    pub method: Method,
    /// The method as sent.
    pub method_span: Span,
    /// HTTP/1.0 or 1.1.
    pub version: Version,
    /// Form of the target.
    pub form: Form,
    /// The target is in absolute form and its scheme is `https`: only over a secured connection is this ours to serve
    /// (RFC 9110 section 7.4).
    pub https: bool,
    /// The whole target as sent.
    pub target: Span,
    /// Path as sent, without query; starts with `/` (empty for `*` and for `http://host`, which mean `/` to the router).
    pub path: Span,
    /// Query with its `?`, or empty.
    pub query: Span,
    /// Host without port, as sent (IPv6 literals with brackets): of the target if absolute, else of the Host field.
    /// Empty for an HTTP/1.0 request without Host.
    pub host: Span,
    /// `host[:port]` as sent, what goes on in the Host field.
    pub authority: Span,
    /// How the body ends. Never `UntilClose`.
    pub framing: Framing,
    /// The client lets the connection live after this exchange (RFC 9112 section 9.3).
    pub persist: bool,
    /// The client expects 100 (Continue) before it sends the body. Never for HTTP/1.0, nor where no body follows.
    pub expect_continue: bool,
    /// Value of the Upgrade field if the request validly asks for an upgrade (1.1, Connection: upgrade, no body). Never
    /// one that names `h2c`.
    pub upgrade: Span,
    /// Max-Forwards of an OPTIONS or TRACE request. At 0 the request must not be forwarded: [`super::reply::final_recipient`]
    /// writes the answer (RFC 9110 section 7.6.2).
    pub max_forwards: Option<u32>,
    /// The field lines.
    pub fields: Fields,
}

/// One response head, judged.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// Bytes of the head, final empty line included.
    pub bytes: usize,
    /// Status code, 100 to 599.
    pub status: u16,
    /// Reason phrase as sent.
    pub reason: Span,
    /// HTTP/1.0 or 1.1.
    pub version: Version,
    /// How the body ends (RFC 9112 section 6.3, the request's method considered).
    pub framing: Framing,
    /// The backend lets the connection live after this response.
    pub persist: bool,
    /// `timeout` parameter of a Keep-Alive field, in seconds.
    pub keep_alive_timeout: Option<u32>,
    /// The Upgrade field of a 101 response; not empty there.
    pub upgrade: Span,
    /// The field lines.
    pub fields: Fields,
}

impl RequestHead {
    /// Judges one complete head; `bytes` is exactly what [`Scan::Complete`] delimited. Overwrites `self`; after an error
    /// its content means nothing.
    pub fn parse(&mut self, bytes: &[u8], underscores: Underscores) -> Result<(), Reject> {
        self.judge(bytes, underscores).map_err(Reject::from)
    }

    fn judge(&mut self, bytes: &[u8], underscores: Underscores) -> Result<(), Broken> {
        check_size(bytes)?;
        self.bytes = bytes.len();
        let fields_at = self.request_line(bytes)?;
        read_fields(&mut self.fields, bytes, fields_at)?;
        if underscores == Underscores::Reject
            && let Some(field) = self.fields.iter().find(|f| matches!(f.known, Known::Alias | Known::Underscored))
        {
            return Err(Broken::new(Fault::Underscore, field.name.start.into()));
        }
        self.target(bytes)?;
        let options = connection(&mut self.fields, bytes, true)?;
        self.persist = match self.version {
            Version::Http11 => !options.close,
            Version::Http10 => options.keep_alive && !options.close,
        };
        self.framing = framing::judge(
            framing::Message::Request,
            self.version,
            evidence(&self.fields, Known::TransferEncoding, bytes),
            evidence(&self.fields, Known::ContentLength, bytes),
        )
        .map_err(|broken| framing_place(broken, &self.fields, bytes))?;
        if self.method == Method::Trace && self.framing.has_body() {
            return Err(framing_place(Broken::new(Fault::TraceBody, 0), &self.fields, bytes));
        }
        self.expectation(bytes)?;
        self.max_forwards = self.hops_left(bytes)?;
        self.upgrade = match self.fields.first_of(Known::Upgrade) {
            // RFC 9110 section 7.8: ignored in HTTP/1.0 and without the connection option. Behind a body it would wait for
            // the whole body; nobody does that.
            Some(field) if options.upgrade && self.version == Version::Http11 && !self.framing.has_body() => {
                let single = self.fields.all(Known::Upgrade).nth(1).is_none();
                if single && upgradable(field.value.of(bytes)) { field.value } else { Span::default() }
            }
            _ => Span::default(),
        };
        // Last, so that a malformed CONNECT is malformed first. RFC 9110 section 9.3.6.
        match self.method {
            Method::Connect => Err(Broken::new(Fault::Connect, self.method_span.start.into())),
            _ => Ok(()),
        }
    }

    /// `method SP target SP version CRLF`, with exactly one space each (RFC 9112 section 3). Returns where the fields
    /// begin.
    fn request_line(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut begin = 0;
        while bytes[begin..].starts_with(b"\r\n") {
            begin += 2;
        }
        let (line, after) = start_line(bytes, begin)?;
        let method = line.iter().position(|&b| !field::is_tchar(b)).unwrap_or(line.len());
        match line.get(method) {
            Some(b' ') if method > 0 => {}
            None => return Err(Broken::new(Fault::RequestLine, begin + method)),
            Some(&byte) => return Err(Broken::new(control_or(byte, Fault::BadMethod), begin + method)),
        }
        let rest = &line[method + 1..];
        let target_at = begin + method + 1;
        let Some(len) = memchr::memchr(b' ', rest) else {
            return Err(Broken::new(Fault::NoVersion, begin + line.len()));
        };
        let version_at = target_at + len + 1;
        if len == 0 {
            return Err(Broken::new(Fault::RequestLine, target_at));
        }
        self.method_span = Span { start: begin as u16, end: (begin + method) as u16 };
        self.method = Method::of(&line[..method]);
        self.target = Span { start: target_at as u16, end: (version_at - 1) as u16 };
        self.version = version(&rest[len + 1..]).map_err(|fault| match line {
            // RFC 9113 section 3.4: made to fail at servers that do not speak HTTP/2. It gets a fault of its own so that
            // the log says what came.
            b"PRI * HTTP/2.0" => Broken::new(Fault::Http2Preface, begin),
            _ => Broken::new(fault, version_at),
        })?;
        Ok(after)
    }

    /// Judges target and Host field together: they say in one whose the request is (RFC 9112 sections 3.2 and 3.3).
    fn target(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut hosts = self.fields.all(Known::Host);
        let mut named = target::Authority::default();
        if let Some(host) = hosts.next() {
            if let Some(second) = hosts.next() {
                return Err(Broken::new(Fault::RepeatedHost, second.name.start.into()));
            }
            // An empty Host is for targets without an authority; an http URI always has one (RFC 9110 section 4.2.1).
            named = target::authority(bytes, host.value)?;
        } else if self.version == Version::Http11 {
            // It is missing as soon as the fields have ended.
            return Err(Broken::new(Fault::NoHost, bytes.len() - 2));
        }
        let begin = self.target.start.into();
        if self.method == Method::Connect {
            // RFC 9112 section 3.2.3: authority-form, and the port is not optional.
            let wanted = target::authority(bytes, self.target)?;
            if wanted.whole.end - wanted.host.end < 2 {
                return Err(Broken::new(Fault::BadTarget, begin));
            }
            return Ok(());
        }
        let target = target::judge(bytes, self.target)?;
        if target.form == Form::Asterisk && self.method != Method::Options {
            return Err(Broken::new(Fault::Asterisk, begin));
        }
        self.form = target.form;
        self.https = target.https;
        self.path = target.path;
        self.query = target.query;
        // RFC 9112 section 3.2.2: the Host field must be ignored where the target has an authority.
        let authority = if target.form == Form::Absolute { target.authority } else { named };
        self.authority = authority.whole;
        self.host = authority.host;
        Ok(())
    }

    /// RFC 9110 section 10.1.1. In HTTP/1.0 no expectation counts.
    fn expectation(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.expect_continue = false;
        if self.version == Version::Http10 {
            return Ok(());
        }
        for field in self.fields.all(Known::Expect) {
            for member in field::members(field.value.of(bytes)).filter(|m| !m.is_empty()) {
                if !member.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Broken::new(Fault::Expectation, offset_of(member, bytes)));
                }
                self.expect_continue = self.framing.has_body();
            }
        }
        Ok(())
    }

    /// RFC 9110 section 7.6.2. Values beyond what we can count become the greatest we can.
    fn hops_left(&self, bytes: &[u8]) -> Result<Option<u32>, Broken> {
        if !matches!(self.method, Method::Options | Method::Trace) {
            return Ok(None);
        }
        let mut found = self.fields.all(Known::MaxForwards);
        let Some(field) = found.next() else { return Ok(None) };
        let value = field.value.of(bytes);
        if found.next().is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Broken::new(Fault::BadMaxForwards, field.value.start.into()));
        }
        let hops = framing::decimal(value).and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX);
        Ok(Some(hops))
    }

    /// Value of the Accept field, for own answers.
    pub fn accept<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.fields.value(Known::Accept, bytes)
    }
}

impl ResponseHead {
    /// Judges one complete response head to a request of the given method. Overwrites `self`; after an error its content
    /// means nothing.
    pub fn parse(&mut self, bytes: &[u8], request_method: Method) -> Result<(), Failure> {
        self.judge(bytes, request_method).map_err(Failure::from)
    }

    fn judge(&mut self, bytes: &[u8], request_method: Method) -> Result<(), Broken> {
        check_size(bytes)?;
        self.bytes = bytes.len();
        let fields_at = self.status_line(bytes)?;
        read_fields(&mut self.fields, bytes, fields_at)?;
        let options = connection(&mut self.fields, bytes, false)?;
        let coding = evidence(&self.fields, Known::TransferEncoding, bytes);
        let length = evidence(&self.fields, Known::ContentLength, bytes);
        let message = framing::Message::Response { request_method, status: self.status };
        self.framing = framing::judge(message, self.version, coding, length)
            .map_err(|broken| framing_place(broken, &self.fields, bytes))?;
        // RFC 9110 section 8.6, RFC 9112 section 6.1: neither field may come with 204. A backend that announces a body
        // there may well send it, so its connection is not used again.
        let stray_body = self.status == 204
            && (coding.value.is_some() || length.value.is_some_and(|v| v.iter().any(|&digit| digit != b'0')));
        self.persist = !options.close
            && (options.keep_alive || self.version == Version::Http11)
            && self.framing != Framing::UntilClose
            && !stray_body;
        self.keep_alive_timeout = self.fields.value(Known::KeepAlive, bytes).and_then(keep_alive_timeout);
        self.upgrade = Span::default();
        if self.status == 101 {
            // One line, as in the request: the protocols of a second one would be compared with nothing and told to nobody.
            let mut named = self.fields.all(Known::Upgrade);
            match (named.next(), named.next()) {
                (Some(field), None) if !field.value.is_empty() => self.upgrade = field.value,
                _ => return Err(Broken::new(Fault::NoUpgrade, STATUS_AT)),
            }
        }
        Ok(())
    }

    /// `version SP status [SP reason] CRLF` (RFC 9112 section 4). The space before an empty reason may be missing: many
    /// servers forget it, and nothing can be misread by that.
    fn status_line(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let (line, after) = start_line(bytes, 0)?;
        let malformed = |at: usize| Broken::new(Fault::StatusLine, at);
        if line.len() < 12 || line[8] != b' ' {
            return Err(malformed(unlike_a_status_line(line)));
        }
        self.version = version(&line[..8]).map_err(|fault| match unlike_a_status_line(line) {
            // The form is right: the number is not.
            8.. => Broken::new(fault, "HTTP/".len()),
            at => Broken::new(fault, at),
        })?;
        let mut status = 0;
        for (i, byte) in line[9..12].iter().enumerate() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return Err(malformed(9 + i));
            }
            status = status * 10 + u16::from(digit);
        }
        if !(100..600).contains(&status) {
            return Err(Broken::new(Fault::BadStatus, STATUS_AT));
        }
        let reason = match line.get(12) {
            None => 12,
            Some(b' ') => 13,
            Some(_) => return Err(malformed(12)),
        };
        if let Some(i) = line[reason..].iter().position(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return Err(Broken::new(control_or(line[reason + i], Fault::StatusLine), reason + i));
        }
        self.status = status;
        self.reason = Span { start: reason as u16, end: line.len() as u16 };
        Ok(after)
    }

    /// Whether a field of this name, in small letters, is there; `bytes` is the head. For names that are asked for rarely:
    /// it goes through all lines.
    pub fn has_field(&self, bytes: &[u8], name: &[u8]) -> bool {
        self.fields.iter().any(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
    }

    /// 1xx, but not 101.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Whether this response may come here: a 101 only to the upgrade that was asked for (`asked` is the request's Upgrade
    /// value), and no more than `limits::INTERIM_RESPONSES_MAX` interim ones, `interims` of which came before.
    pub fn in_place(&self, bytes: &[u8], asked: &[u8], interims: u32) -> Result<(), Failure> {
        if self.status == 101 && !self.switches_to(bytes, asked) {
            return Err(Failure { fault: Fault::UnsolicitedUpgrade, at: STATUS_AT });
        }
        if self.is_interim() && interims >= limits::INTERIM_RESPONSES_MAX {
            return Err(Failure { fault: Fault::TooManyInterim, at: STATUS_AT });
        }
        Ok(())
    }

    /// Whether this is a 101 to the upgrade that was asked for: all protocols it names are among those of `asked`, the
    /// request's Upgrade value (RFC 9110 section 7.8).
    fn switches_to(&self, bytes: &[u8], asked: &[u8]) -> bool {
        self.status == 101
            && field::members(self.upgrade.of(bytes)).all(|got| {
                // The version part may be left out or differ in case: what matters is that nobody gets another protocol.
                let name = |p: &[u8]| p.split(|&b| b == b'/').next().unwrap_or_default().to_ascii_lowercase();
                !got.is_empty() && field::members(asked).any(|want| name(want) == name(got))
            })
    }
}

/// Where the status code of a response stands.
const STATUS_AT: usize = "HTTP/1.1 ".len();

/// Where a line stops to look like `HTTP/d.d ddd`; its end, where that is all that is wrong with it.
#[cold]
fn unlike_a_status_line(line: &[u8]) -> usize {
    let fits = |(have, want): (&u8, &u8)| if *want == b'd' { have.is_ascii_digit() } else { have == want };
    line.iter().zip(b"HTTP/d.d ddd").position(|pair| !fits(pair)).unwrap_or(line.len())
}

/// Where `part` stands in `bytes`, of which it is a piece.
#[cold]
fn offset_of(part: &[u8], bytes: &[u8]) -> usize {
    part.as_ptr() as usize - bytes.as_ptr() as usize
}

/// Moves the place of a framing fault from the first field that had a part in it to the first byte from which on no reader
/// can agree any more: the second field of two, the first byte that is no digit.
#[cold]
fn framing_place(broken: Broken, fields: &Fields, bytes: &[u8]) -> Broken {
    let line = |known: Known, nth: usize| fields.all(known).nth(nth).map(|field| usize::from(field.name.start));
    let (coding, length) = (Known::TransferEncoding, Known::ContentLength);
    let at = match broken.fault {
        Fault::RepeatedLength => line(length, 1),
        Fault::RepeatedCoding => line(coding, 1),
        Fault::LengthAndCoding => line(coding, 0).max(line(length, 0)),
        Fault::TraceBody => line(coding, 0).or(line(length, 0)),
        Fault::BadLength => fields.value(length, bytes).and_then(|value| {
            let strange = value.iter().position(|byte| !byte.is_ascii_digit())?;
            Some(broken.at + strange)
        }),
        _ => None,
    };
    Broken { at: at.unwrap_or(broken.at), ..broken }
}

/// Spans are 16 bits wide, and nobody scans more than this.
fn check_size(bytes: &[u8]) -> Result<(), Broken> {
    match bytes.len() > limits::HEAD_BYTES_MAX {
        true => Err(Broken::new(Fault::HeadTooLarge, limits::HEAD_BYTES_MAX)),
        false => Ok(()),
    }
}

/// The start line without its CRLF, and where the fields begin.
fn start_line(bytes: &[u8], begin: usize) -> Result<(&[u8], usize), Broken> {
    let Some(len) = memchr::memchr(b'\n', &bytes[begin..]) else {
        return Err(Broken::new(Fault::Malformed, bytes.len()));
    };
    match bytes[begin..begin + len].strip_suffix(b"\r") {
        Some(line) => Ok((line, begin + len + 1)),
        None => Err(Broken::new(Fault::BareLf, begin + len)),
    }
}

fn control_or(byte: u8, other: Fault) -> Fault {
    match byte {
        0 => Fault::Nul,
        b'\r' => Fault::BareCr,
        _ => other,
    }
}

/// `HTTP/` DIGIT `.` DIGIT. A later minor version speaks HTTP/1.1 to us (RFC 9110 section 2.5).
fn version(text: &[u8]) -> Result<Version, Fault> {
    match text {
        [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] => match (major, minor) {
            (b'1', b'0') => Ok(Version::Http10),
            (b'1', _) => Ok(Version::Http11),
            // HTTP/0.9 never named its version.
            (b'0', _) => Err(Fault::BadVersion),
            _ => Err(Fault::UnsupportedVersion),
        },
        _ if text.contains(&0) => Err(Fault::Nul),
        _ if text.contains(&b' ') => Err(Fault::RequestLine),
        _ => Err(Fault::BadVersion),
    }
}

/// Reads all field lines from `from` to the end of `bytes`.
fn read_fields(fields: &mut Fields, bytes: &[u8], from: usize) -> Result<(), Broken> {
    // Most heads have far fewer lines than may be, and clearing the slots of the rest would cost more than parsing.
    const FEW: usize = 32;
    let mut few = [httparse::EMPTY_HEADER; FEW];
    match httparse::parse_headers(&bytes[from..], &mut few) {
        Ok(httparse::Status::Complete((len, lines))) if from + len == bytes.len() => take_fields(fields, bytes, lines),
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = [httparse::EMPTY_HEADER; limits::FIELDS_MAX];
            match httparse::parse_headers(&bytes[from..], &mut many) {
                Ok(httparse::Status::Complete((len, lines))) if from + len == bytes.len() => {
                    take_fields(fields, bytes, lines)
                }
                _ => Err(explain(bytes, from)),
            }
        }
        _ => Err(explain(bytes, from)),
    }
}

fn take_fields(fields: &mut Fields, bytes: &[u8], lines: &[httparse::Header]) -> Result<(), Broken> {
    // What httparse returns are slices of `bytes`; their addresses say where.
    let base = bytes.as_ptr() as usize;
    let span = |part: &[u8]| {
        let start = part.as_ptr() as usize - base;
        Span { start: start as u16, end: (start + part.len()) as u16 }
    };
    // httparse lets a line end with LF alone.
    let ends_with_crlf = |end: usize| match bytes[..end].ends_with(b"\r\n") {
        true => Ok(()),
        false => Err(Broken::new(Fault::BareLf, end - 1)),
    };
    fields.clear();
    for line in lines {
        let name = span(line.name.as_bytes());
        ends_with_crlf(name.start.into())?;
        if !fields.push(line.name.as_bytes(), name, span(line.value)) {
            return Err(Broken::new(Fault::TooManyFields, name.start.into()));
        }
    }
    // The empty line, and the end of the line before it.
    ends_with_crlf(bytes.len())?;
    ends_with_crlf(bytes.len() - 2)
}

/// Which rule field lines broke that httparse refused.
#[cold]
fn explain(bytes: &[u8], from: usize) -> Broken {
    let mut begin = from;
    for count in 0.. {
        let Some(len) = memchr::memchr(b'\n', &bytes[begin..]) else { break };
        let Some(line) = bytes[begin..begin + len].strip_suffix(b"\r") else {
            return Broken::new(Fault::BareLf, begin + len);
        };
        if line.is_empty() {
            break;
        }
        if let Some((fault, at)) = field::judge_line(line) {
            return Broken::new(fault, begin + at);
        }
        if count == limits::FIELDS_MAX {
            return Broken::new(Fault::TooManyFields, begin);
        }
        begin += len + 1;
    }
    Broken::new(Fault::Malformed, begin)
}

/// What the framing fields of one name say.
fn evidence<'a>(fields: &Fields, known: Known, bytes: &'a [u8]) -> Evidence<'a> {
    let mut found = fields.all(known);
    match found.next() {
        None => Evidence::default(),
        Some(field) => Evidence {
            value: Some(field.value.of(bytes)),
            at: field.value.start.into(),
            repeated: found.next().is_some(),
        },
    }
}

/// The connection options that mean something to Ringway.
#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

/// Reads all Connection fields and marks the fields that they name (RFC 9110 section 7.6.1). Members that are no tokens
/// are an error if `strict`, and else ignored, since no Connection field ever goes on.
fn connection(fields: &mut Fields, bytes: &[u8], strict: bool) -> Result<Options, Broken> {
    let mut options = Options::default();
    if !fields.has(Known::Connection) {
        return Ok(options);
    }
    let mut count = 0;
    for i in 0..fields.len() {
        if fields[i].known != Known::Connection {
            continue;
        }
        let value = fields[i].value;
        for option in field::members(value.of(bytes)).filter(|m| !m.is_empty()) {
            count += 1;
            if count > limits::CONNECTION_OPTIONS_MAX || (strict && !field::is_token(option)) {
                return Err(Broken::new(Fault::BadConnection, offset_of(option, bytes)));
            }
            if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
                // No field of this name is registered, and one that comes is nominated as well.
                fields.nominate(bytes, option);
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else {
                fields.nominate(bytes, option);
            }
        }
    }
    Ok(options)
}

/// A list of `name[/version]`, none of them HTTP/2: a tunnel that speaks HTTP would carry requests past all checks.
fn upgradable(value: &[u8]) -> bool {
    field::members(value).all(|protocol| {
        protocol.split(|&b| b == b'/').all(field::is_token)
            && !protocol.get(..2).is_some_and(|p| p.eq_ignore_ascii_case(b"h2"))
            && !protocol.get(..4).is_some_and(|p| p.eq_ignore_ascii_case(b"http"))
    })
}

/// `timeout=N` among the parameters of a Keep-Alive field (RFC 2068 section 19.7.1.1).
fn keep_alive_timeout(value: &[u8]) -> Option<u32> {
    field::members(value).find_map(|member| {
        let (name, seconds) = member.split_at_checked(8)?;
        if !name.eq_ignore_ascii_case(b"timeout=") {
            return None;
        }
        framing::decimal(seconds).and_then(|n| u32::try_from(n).ok())
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judge(text: &str) -> Result<RequestHead, Reject> {
        let bytes = text.as_bytes();
        assert_eq!(HeadScan::default().request(bytes), Ok(Scan::Complete(bytes.len())), "{text:?}");
        let mut head = RequestHead::default();
        head.parse(bytes, Underscores::Drop)?;
        Ok(head)
    }

    fn request(line: &str, fields: &str) -> Result<RequestHead, Fault> {
        judge(&format!("{line}\r\n{fields}\r\n")).map_err(|r| r.fault)
    }

    /// With a Host field.
    fn with(fields: &str) -> Result<RequestHead, Fault> {
        request("POST /x HTTP/1.1", &format!("Host: a.test\r\n{fields}"))
    }

    fn respond(text: &str, method: Method) -> Result<ResponseHead, Fault> {
        let mut head = ResponseHead::default();
        head.parse(text.as_bytes(), method).map_err(|f| f.fault)?;
        Ok(head)
    }

    #[test]
    fn faults_tell_their_place() {
        for (text, fault, part) in [
            ("GET / HTTP/1.1\r\nA: b\r\n\r\n", Fault::NoHost, "\r\n\r\n"),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-length: 6\r\n\r\n",
                Fault::RepeatedLength,
                "Content-length",
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5x\r\n\r\n", Fault::BadLength, "x\r\n"),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", Fault::BadLength, "+5"),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", Fault::BadLength, "9999"),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                Fault::LengthAndCoding,
                "Content-Length",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
                Fault::RepeatedCoding,
                "transfer-encoding",
            ),
            ("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", Fault::TraceBody, "Content-Length"),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, a b\r\n\r\n", Fault::BadConnection, "a b"),
            ("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\n\r\n", Fault::Expectation, "x\r\n"),
        ] {
            // That of the last CRLF pair is the empty line.
            let at = text.find(part).map(|at| if part == "\r\n\r\n" { at + 2 } else { at });
            let reject = judge(text).expect_err(text);
            assert_eq!((reject.fault, Some(reject.at)), (fault, at), "{text:?}");
        }
        for (line, fault, at) in [
            ("HTTP/1.1", Fault::StatusLine, 8),
            ("HTTP 200 OK", Fault::StatusLine, 4),
            ("HTTP/1.1  200", Fault::StatusLine, 9),
            ("HTTP/1.1 20", Fault::StatusLine, 11),
            ("HTTP/1.1\t200 OK", Fault::StatusLine, 8),
            ("HTTP/2.0 200 OK", Fault::UnsupportedVersion, 5),
            ("HTTP/1,1 200 OK", Fault::BadVersion, 6),
            ("HTTP/1.1 600 OK", Fault::BadStatus, 9),
            ("HTTP/1.1 101 S", Fault::NoUpgrade, 9),
        ] {
            let failure = ResponseHead::default().parse(format!("{line}\r\n\r\n").as_bytes(), Method::Get);
            assert_eq!(failure, Err(Failure { fault, at }), "{line}");
        }
    }

    #[test]
    fn responses_that_come_out_of_place() {
        let text = b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n";
        let mut head = ResponseHead::default();
        assert_eq!(head.parse(text, Method::Get), Ok(()));
        assert_eq!(head.in_place(text, b"", 0), Err(Failure { fault: Fault::UnsolicitedUpgrade, at: 9 }));
        assert_eq!(head.in_place(text, b"WebSocket/13", limits::INTERIM_RESPONSES_MAX), Ok(()));
        let text = b"HTTP/1.1 103 Hints\r\n\r\n";
        assert_eq!(head.parse(text, Method::Get), Ok(()));
        assert_eq!(head.in_place(text, b"", limits::INTERIM_RESPONSES_MAX - 1), Ok(()));
        let late = head.in_place(text, b"", limits::INTERIM_RESPONSES_MAX);
        assert_eq!(late, Err(Failure { fault: Fault::TooManyInterim, at: 9 }));
    }

    #[test]
    fn heads_that_never_end() {
        let max = limits::HEAD_BYTES_MAX;
        let line = "G".repeat(2 * max);
        let reject = HeadScan::default().request(line.as_bytes()).unwrap_err();
        assert_eq!((reject.status, reject.fault, reject.at), (414, Fault::UriTooLong, max));
        let fields = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(max));
        let reject = HeadScan::default().request(fields.as_bytes()).unwrap_err();
        assert_eq!((reject.status, reject.fault, reject.at), (431, Fault::HeadTooLarge, max));
        let frame = "GET / HTTP/1.1\r\nHost: a\r\nA: \r\n\r\n".len();
        let largest = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "b".repeat(max - frame));
        assert_eq!(judge(&largest).unwrap().bytes, max);
    }

    #[test]
    fn a_plain_request() {
        let text = "\r\nGET /a/b?c HTTP/1.1\r\nHost: A.test:81\r\nX-A: \t b c \t\r\nX-B:\r\n\r\n";
        let head = judge(text).unwrap();
        let of = |span: Span| std::str::from_utf8(span.of(text.as_bytes())).unwrap();
        assert_eq!((head.method, of(head.method_span), head.version), (Method::Get, "GET", Version::Http11));
        assert_eq!((of(head.target), of(head.path), of(head.query)), ("/a/b?c", "/a/b", "?c"));
        assert_eq!((of(head.host), of(head.authority), head.form), ("A.test", "A.test:81", Form::Origin));
        assert_eq!((head.framing, head.persist, head.bytes), (Framing::None, true, text.len()));
        let fields: Vec<_> = head.fields.iter().map(|f| (of(f.name), of(f.value))).collect();
        assert_eq!(fields, [("Host", "A.test:81"), ("X-A", "b c"), ("X-B", "")]);
    }

    #[test]
    fn request_lines() {
        let host = "Host: a.test\r\n";
        for good in
            ["GET / HTTP/1.1", "GET / HTTP/1.9", "get / HTTP/1.1", "A!#$%&'*+-.^_`|~1 / HTTP/1.1", "OPTIONS * HTTP/1.1"]
        {
            assert!(request(good, host).is_ok(), "{good}");
        }
        for (bad, fault) in [
            ("GET", Fault::RequestLine),
            ("GET /", Fault::NoVersion),
            ("GET / ", Fault::BadVersion),
            ("GET HTTP/1.1", Fault::NoVersion),
            ("GET  / HTTP/1.1", Fault::RequestLine),
            ("GET /  HTTP/1.1", Fault::RequestLine),
            ("GET / HTTP/1.1 ", Fault::RequestLine),
            ("GET / HTTP/1.1 x", Fault::RequestLine),
            ("GET /a b HTTP/1.1", Fault::RequestLine),
            ("GET\t/\tHTTP/1.1", Fault::BadMethod),
            ("GET\u{b}/ HTTP/1.1", Fault::BadMethod),
            ("GET /\u{c}HTTP/1.1", Fault::NoVersion),
            ("GET /\rHTTP/1.1", Fault::NoVersion),
            ("GET / http/1.1", Fault::BadVersion),
            ("GET / HTTP/0.9", Fault::BadVersion),
            ("GET / HTTP/1.10", Fault::BadVersion),
            ("GET / HTTP/1", Fault::BadVersion),
            ("GET / HTTP/1.1\0", Fault::Nul),
            ("GET / HTTP/2.0", Fault::UnsupportedVersion),
            ("PRI * HTTP/2.0", Fault::Http2Preface),
            ("PRI * HTTP/3.0", Fault::UnsupportedVersion),
            ("GE(T / HTTP/1.1", Fault::BadMethod),
            ("GE\0T / HTTP/1.1", Fault::Nul),
            ("GET * HTTP/1.1", Fault::Asterisk),
            ("HTTP/1.1 200 OK", Fault::BadMethod),
            ("PROXY TCP4 6.6.6.6 127.0.0.1 1 80", Fault::RequestLine),
            ("SSH-2.0-OpenSSH_9.2", Fault::RequestLine),
            ("CONNECT a.test:80 HTTP/1.1", Fault::Connect),
            ("CONNECT a.test HTTP/1.1", Fault::BadTarget),
            ("CONNECT /x HTTP/1.1", Fault::BadHost),
        ] {
            assert_eq!(request(bad, host).map(|_| ()), Err(fault), "{bad:?}");
        }
    }

    #[test]
    fn hosts() {
        let get = "GET / HTTP/1.1";
        assert_eq!(request(get, "").map(|_| ()), Err(Fault::NoHost));
        assert_eq!(request("GET http://a/ HTTP/1.1", "").map(|_| ()), Err(Fault::NoHost));
        assert_eq!(request(get, "Host: a\r\nhOST: a\r\n").map(|_| ()), Err(Fault::RepeatedHost));
        assert_eq!(request("GET / HTTP/1.0", "Host: a\r\nHost: b\r\n").map(|_| ()), Err(Fault::RepeatedHost));
        assert_eq!(request(get, "Host:\r\n").map(|_| ()), Err(Fault::BadHost));
        assert_eq!(request(get, "Host: a, b\r\n").map(|_| ()), Err(Fault::BadHost));
        assert!(request("GET / HTTP/1.0", "").unwrap().authority.is_empty());
        let text = "GET http://a.test:81/x HTTP/1.1\r\nHost: b.test\r\n\r\n";
        let head = judge(text).unwrap();
        assert_eq!((head.form, head.host.of(text.as_bytes())), (Form::Absolute, &b"a.test"[..]));
        assert_eq!(request("GET http://a/ HTTP/1.1", "Host: a@b\r\n").map(|_| ()), Err(Fault::Userinfo));
    }

    #[test]
    fn field_lines() {
        for (bad, fault) in [
            ("A : b\r\n", Fault::SpaceBeforeColon),
            ("A\t: b\r\n", Fault::SpaceBeforeColon),
            ("A B: b\r\n", Fault::BadName),
            (": b\r\n", Fault::EmptyName),
            ("garbage\r\n", Fault::NoColon),
            ("A: a\r\n b\r\n", Fault::ObsFold),
            ("A: b\r\n \r\n", Fault::ObsFold),
            ("A: a\0b\r\n", Fault::Nul),
            ("A: a\rb\r\n", Fault::BareCr),
            ("A: a\r\r\nB: c\r\n", Fault::BareCr),
            ("A: a\u{1}b\r\n", Fault::Control),
            ("A: \u{7f}\r\n", Fault::Control),
            ("\u{feff}A: b\r\n", Fault::BadName),
            ("Content-Length\0: 5\r\n", Fault::Nul),
            ("Connection: @@@\r\n", Fault::BadConnection),
            ("Connection: \"x\"\r\n", Fault::BadConnection),
            ("Expect: tea\r\n", Fault::Expectation),
        ] {
            assert_eq!(with(bad).map(|_| ()), Err(fault), "{bad:?}");
        }
        let first = judge("GET / HTTP/1.1\r\n Host: a\r\n\r\n").unwrap_err();
        assert_eq!((first.status, first.fault, first.at), (400, Fault::ObsFold, 16));
        let many = |n: usize| (0..n).map(|i| format!("X-{i}: v\r\n")).collect::<String>();
        assert!(with(&many(limits::FIELDS_MAX - 1)).is_ok());
        assert_eq!(with(&many(limits::FIELDS_MAX)).map(|_| ()), Err(Fault::TooManyFields));
        let options = format!("Connection: {}\r\n", "a,".repeat(limits::CONNECTION_OPTIONS_MAX));
        assert!(with(&options).is_ok());
        let options = format!("Connection: {}\r\n", "a,".repeat(limits::CONNECTION_OPTIONS_MAX + 1));
        assert_eq!(with(&options).map(|_| ()), Err(Fault::BadConnection));
    }

    #[test]
    fn obs_text_and_token_names_pass() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX!#$%&'*+-.^`|~9: caf\xe9 \xff\x80\r\n\r\n";
        let mut head = RequestHead::default();
        head.parse(bytes, Underscores::Drop).unwrap();
        assert_eq!(head.fields[1].value.of(bytes), b"caf\xe9 \xff\x80");
    }

    #[test]
    fn framing_of_requests() {
        assert_eq!(with("Content-Length: 5\r\n").unwrap().framing, Framing::Length(5));
        assert_eq!(with("tRANSFER-eNCODING:Chunked\r\n").unwrap().framing, Framing::Chunked);
        assert_eq!(with("Content-Length: 5\r\ncontent-length: 5\r\n").map(|_| ()), Err(Fault::RepeatedLength));
        assert_eq!(
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n").map(|_| ()),
            Err(Fault::RepeatedCoding)
        );
        assert_eq!(request("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n").map(|_| ()), Err(Fault::CodingIn10));
        // Connection cannot hide it.
        assert_eq!(with("Connection: Content-Length\r\nContent-Length: 5\r\n").unwrap().framing, Framing::Length(5));
        let trace = request("TRACE / HTTP/1.1", "Host: a\r\nContent-Length: 1\r\n");
        assert_eq!(trace.map(|_| ()), Err(Fault::TraceBody));
        // Another field altogether, and never passed on.
        assert_eq!(with("Transfer_Encoding: chunked\r\n").unwrap().framing, Framing::None);
    }

    #[test]
    fn persistence() {
        for (version, fields, persist) in [
            ("1.1", "", true),
            ("1.1", "Connection: CLOSE\r\n", false),
            ("1.1", "Connection: keep-alive, close\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: ,close,\r\n", false),
            ("1.1", "Connection: close-ish\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
            ("1.0", "Proxy-Connection: keep-alive\r\n", false),
        ] {
            let head = request(&format!("GET / HTTP/{version}"), &format!("Host: a\r\n{fields}")).unwrap();
            assert_eq!(head.persist, persist, "{version} {fields:?}");
        }
    }

    #[test]
    fn nominated_fields_are_hop_by_hop_save_ours() {
        let head = with(
            "X-Hop: 1\r\nConnection: , x-hop ,,\t,Host, Content-Length, X-Forwarded-For, te, close\r\nContent-Length: 0\r\n\
             X-Forwarded-For: 1\r\nX-End: 1\r\nTE: gzip\r\nHTTP2-Settings: a\r\nKeep-Alive: 1\r\nClose: 1\r\n",
        )
        .unwrap();
        let hops: Vec<_> = head.fields.iter().map(|f| f.hop).collect();
        assert_eq!(hops, [false, true, true, false, false, false, true, true, true, true]);
    }

    #[test]
    fn upgrades() {
        let ask =
            |line: &str, fields: &str| !request(line, &format!("Host: a\r\n{fields}")).unwrap().upgrade.is_empty();
        let get = "GET / HTTP/1.1";
        assert!(ask(get, "Connection: keep-alive, uPgrade\r\nUpgrade: WebSocket\r\n"));
        assert!(ask(get, "Connection: Upgrade\r\nUpgrade: foo/2, bar\r\n"));
        assert!(!ask(get, "Upgrade: websocket\r\n"));
        assert!(!ask("GET / HTTP/1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n"));
        assert!(!ask(get, "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n"));
        assert!(!ask(get, "Connection: Upgrade\r\nUpgrade: h2c\r\n"));
        assert!(!ask(get, "Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n"));
        assert!(!ask(get, "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n"));
        assert!(!ask(get, "Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n"));
        assert!(!ask(get, "Connection: Upgrade\r\nUpgrade: a b\r\n"));
    }

    #[test]
    fn expectations_and_hops() {
        let expects = |line: &str, fields: &str| request(line, fields).unwrap().expect_continue;
        let body = "Host: a\r\nContent-Length: 5\r\n";
        assert!(expects("POST / HTTP/1.1", &format!("{body}Expect: 100-Continue\r\n")));
        assert!(!expects("POST / HTTP/1.1", "Host: a\r\nExpect: 100-continue\r\n"));
        assert!(!expects("POST / HTTP/1.0", &format!("{body}Expect: tea\r\n")));
        let hops = |method: &str, value: &str| {
            request(&format!("{method} / HTTP/1.1"), &format!("Host: a\r\nMax-Forwards: {value}\r\n"))
                .map(|h| h.max_forwards)
        };
        assert_eq!(hops("OPTIONS", "0"), Ok(Some(0)));
        assert_eq!(hops("TRACE", "5"), Ok(Some(5)));
        assert_eq!(hops("TRACE", "99999999999999999999"), Ok(Some(u32::MAX)));
        assert_eq!(hops("GET", "x"), Ok(None));
        assert_eq!(hops("OPTIONS", "-1"), Err(Fault::BadMaxForwards));
        assert_eq!(hops("OPTIONS", ""), Err(Fault::BadMaxForwards));
    }

    #[test]
    fn underscores_can_be_rejected() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX_A: b\r\n\r\n";
        let mut head = RequestHead::default();
        assert!(head.parse(bytes, Underscores::Pass).is_ok());
        let reject = head.parse(bytes, Underscores::Reject).unwrap_err();
        assert_eq!((reject.status, reject.fault, reject.at), (400, Fault::Underscore, 25));
    }

    #[test]
    fn status_lines() {
        for (line, status, reason) in [
            ("HTTP/1.1 200 OK", 200, "OK"),
            ("HTTP/1.1 200 ", 200, ""),
            ("HTTP/1.1 200", 200, ""),
            ("HTTP/1.0 599 Odd one", 599, "Odd one"),
            ("HTTP/1.1 299 déjà", 299, "déjà"),
        ] {
            let text = format!("{line}\r\nContent-Length: 5\r\n\r\n");
            let head = respond(&text, Method::Get).unwrap();
            assert_eq!((head.status, head.reason.of(text.as_bytes())), (status, reason.as_bytes()));
            assert_eq!(head.framing, Framing::Length(5));
        }
        for (line, fault) in [
            ("HTTP/1.1 99 X", Fault::StatusLine),
            ("HTTP/1.1 1000 X", Fault::StatusLine),
            ("HTTP/1.1 099 X", Fault::BadStatus),
            ("HTTP/1.1 600 X", Fault::BadStatus),
            ("HTTP/1.1 abc X", Fault::StatusLine),
            ("HTTP/1.1 200OK", Fault::StatusLine),
            ("HTTP/1.1  200 OK", Fault::StatusLine),
            ("HTTP/1.1", Fault::StatusLine),
            ("HTTP/2.0 200 OK", Fault::UnsupportedVersion),
            ("http/1.1 200 OK", Fault::BadVersion),
            ("ICY 200 OK xxxx", Fault::StatusLine),
            ("HTTP/1.1 200 O\0K", Fault::Nul),
            ("HTTP/1.1 200 O\rK", Fault::BareCr),
            ("HTTP/1.1 101 S", Fault::NoUpgrade),
            ("HTTP/1.1 101 S\r\nUpgrade:", Fault::NoUpgrade),
            ("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nUpgrade: h2c", Fault::NoUpgrade),
        ] {
            assert_eq!(respond(&format!("{line}\r\n\r\n"), Method::Get).map(|_| ()), Err(fault), "{line:?}");
        }
    }

    #[test]
    fn responses() {
        let of = |method: Method, text: &str| {
            let head = respond(text, method).unwrap();
            (head.framing, head.persist)
        };
        assert_eq!(of(Method::Get, "HTTP/1.1 200 OK\r\n\r\n"), (Framing::UntilClose, false));
        assert_eq!(of(Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), (Framing::Length(5), true));
        assert_eq!(of(Method::Get, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n"), (Framing::Length(5), false));
        assert_eq!(
            of(Method::Get, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n"),
            (Framing::Length(5), true)
        );
        assert_eq!(of(Method::Head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), (Framing::None, true));
        assert_eq!(of(Method::Get, "HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n"), (Framing::None, true));
        assert_eq!(of(Method::Get, "HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\n"), (Framing::None, false));
        assert_eq!(of(Method::Get, "HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n"), (Framing::None, true));
        assert!(respond("HTTP/1.1 103 Early\r\n\r\n", Method::Get).unwrap().is_interim());
        let alive =
            respond("HTTP/1.1 200 OK\r\nKeep-Alive: max=9, Timeout=7\r\nContent-Length: 0\r\n\r\n", Method::Get);
        assert_eq!(alive.unwrap().keep_alive_timeout, Some(7));
        for (text, fault) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Fault::RepeatedLength),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::LengthAndCoding),
            ("HTTP/1.1 200 OK\r\nX-A : a\r\n\r\n", Fault::SpaceBeforeColon),
            ("HTTP/1.1 200 OK\r\n X-A: a\r\n\r\n", Fault::ObsFold),
            ("HTTP/1.1 200 OK\r\ngarbage\r\n\r\n", Fault::NoColon),
            ("HTTP/1.1 200 OK\r\nX-A: a\n\r\n", Fault::BareLf),
            ("HTTP/1.1 200 OK\r\n", Fault::Malformed),
        ] {
            assert_eq!(respond(text, Method::Get).map(|_| ()), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_switched_to() {
        let text = b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let mut head = ResponseHead::default();
        head.parse(text, Method::Get).unwrap();
        assert!(head.switches_to(text, b"WebSocket"));
        assert!(head.switches_to(text, b"foo, websocket/13"));
        assert!(!head.switches_to(text, b"foo"));
        assert!(!head.switches_to(text, b""));
    }

    /// Pieces of heads, good and bad, so that random joins reach far.
    pub(in crate::http) fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\0".to_vec()),
            Just(b" ".to_vec()),
            Just(b"GET / HTTP/1.1\r\n".to_vec()),
            Just(b"Host: a\r\n".to_vec()),
            Just(b"X: y\r\n".to_vec()),
            Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Just(b"\x16".to_vec()),
            Just(b"Content-Length: 5\r\n".to_vec()),
            Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|p| p.concat())
    }

    proptest! {
        #[test]
        fn nothing_panics_and_faults_lie_inside(bytes in pieces()) {
            if let Err(reject) = RequestHead::default().parse(&bytes, Underscores::Drop) {
                prop_assert!(reject.at <= bytes.len());
            }
            if let Err(failure) = ResponseHead::default().parse(&bytes, Method::Get) {
                prop_assert!(failure.at <= bytes.len());
            }
        }
    }
}
