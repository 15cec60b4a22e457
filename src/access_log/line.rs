//! One exchange as one line, which no byte of a request can forge or break.

use super::escape::{Room, Second, address, hex, json_string, number, quoted, word};
use super::phases::{Phase, Phases};
use crate::config::{LogField, LogFields, LogFormat};
use crate::limits;
use crate::route::Endpoint;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// What a line can tell. Fields that came over the wire are bytes as received.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Seconds since 1970 at which the exchange ended.
    pub time: u64,
    /// The client by the rules of `trusted_proxies`; `None` on Unix listeners.
    pub client: Option<IpAddr>,
    /// Empty if the head was refused before it was known.
    pub method: &'a [u8],
    /// Host as sent, or empty.
    pub host: &'a [u8],
    /// Request target with its query, or empty.
    pub path: &'a [u8],
    /// Status sent to the client; 0 if none was.
    pub status: u16,
    /// Bytes sent to the client, heads included.
    pub bytes: u64,
    /// Where the time went, from the first byte of the request to the end of the exchange.
    pub phases: &'a Phases,
    /// The cluster, if a route was found.
    pub cluster: Option<&'a str>,
    /// The backend that answered or failed last.
    pub backend: Option<&'a str>,
    /// Attempts after the first.
    pub retries: u32,
    /// Generation of the table that routed it.
    pub generation: u64,
    /// Why it ended as it did, for example `OK` or `CLIENT_ABORT`.
    pub reason: &'static str,
    /// What few ask for: [`NOTHING`] if nobody did.
    pub more: &'a More<'a>,
}

/// Nothing of what few ask for.
pub static NOTHING: More<'static> = More {
    version: "",
    scheme: "",
    listener: None,
    endpoint: None,
    reused: None,
    received: 0,
    user_agent: None,
    referer: None,
    request_id: RequestId::None,
    rule: None,
    skipped: None,
    key: None,
};

/// What a line tells only if it is asked to; whatever is not asked for may be left as in [`NOTHING`].
#[derive(Clone, Debug)]
pub struct More<'a> {
    /// The client's version of the protocol; empty if the head was refused.
    pub version: &'static str,
    /// Scheme by which the client came.
    pub scheme: &'static str,
    /// The listener, unless it was removed meanwhile.
    pub listener: Option<&'a str>,
    /// Where the backend is.
    pub endpoint: Option<&'a Endpoint>,
    /// Whether its connection came from the pool; `None` if there never was one.
    pub reused: Option<bool>,
    /// Bytes of the request's body, without framing.
    pub received: u64,
    /// User-Agent, if there is one.
    pub user_agent: Option<&'a [u8]>,
    /// Referer, if there is one.
    pub referer: Option<&'a [u8]>,
    /// X-Request-Id as it went to the backend.
    pub request_id: RequestId<'a>,
    /// The route that took it, if one did.
    pub rule: Option<&'a str>,
    /// Who could not be picked and why, if a backend was looked for.
    pub skipped: Option<&'a str>,
    /// What it was hashed by, if its cluster hashes and it has that.
    pub key: Option<&'a str>,
}

/// The X-Request-Id of an exchange.
#[derive(Clone, Copy, Debug)]
pub enum RequestId<'a> {
    /// It never went anywhere.
    None,
    /// Made here.
    Made(u128),
    /// Of a trusted proxy, as received.
    Kept(&'a [u8]),
}

impl RequestId<'_> {
    /// As text that can be shown: 32 hex digits, or as received, cut and escaped; empty if there is none.
    pub fn shown(self) -> String {
        match self {
            RequestId::None => String::new(),
            RequestId::Made(id) => format!("{id:032x}"),
            RequestId::Kept(id) => id[..id.len().min(ID_BYTES_MAX)].escape_ascii().to_string(),
        }
    }
}

const HOST_BYTES_MAX: usize = 256;
const METHOD_BYTES_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 128;
const AGENT_BYTES_MAX: usize = 512;
const REFERER_BYTES_MAX: usize = 1024;
const ID_BYTES_MAX: usize = 128;
const ENDPOINT_BYTES_MAX: usize = 128;
const RULE_BYTES_MAX: usize = 512;
const SKIPPED_BYTES_MAX: usize = 512;

/// Bytes of all texts of a line, none of which may need more than six times as many.
const TEXT_BYTES_MAX: usize = limits::LOG_PATH_BYTES_MAX
    + HOST_BYTES_MAX
    + METHOD_BYTES_MAX
    + 4 * NAME_BYTES_MAX
    + RULE_BYTES_MAX
    + SKIPPED_BYTES_MAX
    + AGENT_BYTES_MAX
    + REFERER_BYTES_MAX
    + ID_BYTES_MAX
    + ENDPOINT_BYTES_MAX;

/// Bytes of everything else in a line: keys, numbers, addresses, marks of cut texts.
const REST_BYTES_MAX: usize = 1024;

/// Bytes of the longest possible line.
pub(super) const LINE_BYTES_MAX: usize = 6 * TEXT_BYTES_MAX + REST_BYTES_MAX;

const _: () = assert!(LINE_BYTES_MAX <= limits::LOG_BATCH_BYTES);

impl Record<'_> {
    /// Bytes that its line cannot exceed.
    pub(super) fn line_bytes_max(&self) -> usize {
        let more = self.more;
        let kept = if let RequestId::Kept(id) = more.request_id { id.len() } else { 0 };
        let texts = [more.user_agent, more.referer].map(|text| text.map_or(0, <[u8]>::len));
        let names = [self.cluster, self.backend, more.listener, more.rule, more.skipped, more.key]
            .map(|name| name.map_or(0, str::len));
        let wire = self.method.len() + self.host.len() + self.path.len() + kept;
        let all = wire + texts.iter().sum::<usize>() + names.iter().sum::<usize>() + ENDPOINT_BYTES_MAX;
        (6 * all + REST_BYTES_MAX).min(LINE_BYTES_MAX)
    }
}

/// Writes `record` as exactly one line of printable ASCII with its line feed to the front of `to`: these fields, in this
/// order. Returns the line's bytes; there must be room for [`Record::line_bytes_max`].
///
/// JSON: one object; texts that are valid UTF-8 parse back as they were, everything outside printable ASCII being
/// written as `\uXXXX`. Bytes that are not UTF-8 stand as `\u00XX`. Text: the values with a space between them; those
/// that may hold spaces stand in quotes; bytes outside printable ASCII, quotes and backslashes are `\xXX`; what is
/// missing is `-`. A text that is too long is cut and ends in `...`.
pub(super) fn format(
    record: &Record,
    (how, fields): (LogFormat, &LogFields),
    second: &mut Second,
    to: &mut [u8],
) -> usize {
    match how {
        LogFormat::Json => {
            let used = write::<Json>(record, fields, second, to);
            // In place of the first key's comma.
            to[0] = b'{';
            used
        }
        LogFormat::Text => {
            let used = write::<Text>(record, fields, second, to);
            // In place of the space behind the last value.
            to[used - 1] = b'\n';
            used
        }
    }
}

/// How values are written.
trait Form {
    /// What is missing.
    const ABSENT: &'static [u8];
    /// Before a value; `text` is `,"name":`.
    fn key<'a, const N: usize>(text: &[u8; N], room: Room<'a>) -> Room<'a>;
    /// Around values that need no escape and hold no space.
    fn mark<'a>(room: Room<'a>) -> Room<'a>;
    /// A text that may hold anything.
    fn text<'a>(value: &[u8], max: usize, room: Room<'a>) -> Room<'a>;
    /// A text without spaces.
    fn word<'a>(value: &[u8], max: usize, room: Room<'a>) -> Room<'a>;
    /// Behind each value.
    fn after<'a>(room: Room<'a>) -> Room<'a>;
    /// Behind the last.
    fn close<'a>(room: Room<'a>) -> Room<'a>;
}

struct Json;

impl Form for Json {
    const ABSENT: &'static [u8] = b"null";

    #[inline(always)]
    fn key<'a, const N: usize>(text: &[u8; N], room: Room<'a>) -> Room<'a> {
        room.put(text)
    }

    #[inline(always)]
    fn mark<'a>(room: Room<'a>) -> Room<'a> {
        room.put(b"\"")
    }

    #[inline]
    fn text<'a>(value: &[u8], max: usize, room: Room<'a>) -> Room<'a> {
        json_string(value, max, room)
    }

    #[inline]
    fn word<'a>(value: &[u8], max: usize, room: Room<'a>) -> Room<'a> {
        json_string(value, max, room)
    }

    fn after<'a>(room: Room<'a>) -> Room<'a> {
        room
    }

    fn close<'a>(room: Room<'a>) -> Room<'a> {
        room.put(b"}\n")
    }
}

struct Text;

impl Form for Text {
    const ABSENT: &'static [u8] = b"-";

    fn key<'a, const N: usize>(_: &[u8; N], room: Room<'a>) -> Room<'a> {
        room
    }

    fn mark<'a>(room: Room<'a>) -> Room<'a> {
        room
    }

    #[inline]
    fn text<'a>(value: &[u8], max: usize, room: Room<'a>) -> Room<'a> {
        quoted(value, max, room)
    }

    #[inline]
    fn word<'a>(value: &[u8], max: usize, room: Room<'a>) -> Room<'a> {
        word(value, max, room)
    }

    #[inline(always)]
    fn after<'a>(room: Room<'a>) -> Room<'a> {
        room.put(b" ")
    }

    fn close<'a>(room: Room<'a>) -> Room<'a> {
        room
    }
}

fn write<F: Form>(r: &Record, fields: &LogFields, second: &mut Second, to: &mut [u8]) -> usize {
    let all = to.len();
    let mut room = Room::new(to);
    if fields.is_default() {
        room = usual::<F>(r, second, room);
    } else {
        for field in fields.list() {
            room = one::<F>(r, *field, second, room);
        }
    }
    all - F::close(room).len()
}

/// The fields that a line has by default, without a look at which is next.
fn usual<'a, F: Form>(r: &Record, second: &mut Second, room: Room<'a>) -> Room<'a> {
    macro_rules! each {
        ($($field:ident)*) => {{
            $(let room = F::after(value::<F>(r, LogField::$field, second, room));)*
            room
        }};
    }
    each!(
        Time Client Method Host Path Status Bytes DurationUs HeadUs QueueUs ConnectUs RetryUs FirstByteUs BodyClientUs
        BodyBackendUs TunnelUs Cluster Backend Retries Generation Reason
    )
}

#[inline(never)]
fn one<'a, F: Form>(r: &Record, field: LogField, second: &mut Second, room: Room<'a>) -> Room<'a> {
    F::after(value::<F>(r, field, second, room))
}

/// One key and its value.
#[inline(always)]
fn value<'a, F: Form>(r: &Record, field: LogField, second: &mut Second, room: Room<'a>) -> Room<'a> {
    let more = r.more;
    match field {
        LogField::Time => marked::<F, _>(b",\"time\":", |room| room.put(second.text(r.time)), room),
        LogField::Client => client::<F>(r.client, room),
        LogField::Method => wire_word::<F, _>(b",\"method\":", r.method, METHOD_BYTES_MAX, room),
        LogField::Host => wire::<F, _>(b",\"host\":", Some(r.host), HOST_BYTES_MAX, room),
        LogField::Path => wire::<F, _>(b",\"path\":", Some(r.path), limits::LOG_PATH_BYTES_MAX, room),
        LogField::Status => count::<F, _>(b",\"status\":", u64::from(r.status), room),
        LogField::Bytes => count::<F, _>(b",\"bytes\":", r.bytes, room),
        LogField::DurationUs => count::<F, _>(b",\"duration_us\":", r.phases.total(), room),
        LogField::HeadUs => count::<F, _>(b",\"head_us\":", r.phases.of(Phase::Head), room),
        LogField::QueueUs => count::<F, _>(b",\"queue_us\":", r.phases.of(Phase::Queue), room),
        LogField::ConnectUs => count::<F, _>(b",\"connect_us\":", r.phases.of(Phase::Connect), room),
        LogField::RetryUs => count::<F, _>(b",\"retry_us\":", r.phases.of(Phase::Retry), room),
        LogField::FirstByteUs => count::<F, _>(b",\"first_byte_us\":", r.phases.of(Phase::FirstByte), room),
        LogField::BodyClientUs => count::<F, _>(b",\"body_client_us\":", r.phases.of(Phase::BodyClient), room),
        LogField::BodyBackendUs => count::<F, _>(b",\"body_backend_us\":", r.phases.of(Phase::BodyBackend), room),
        LogField::TunnelUs => count::<F, _>(b",\"tunnel_us\":", r.phases.of(Phase::Tunnel), room),
        LogField::Cluster => name::<F, _>(b",\"cluster\":", r.cluster, room),
        LogField::Backend => name::<F, _>(b",\"backend\":", r.backend, room),
        LogField::Retries => count::<F, _>(b",\"retries\":", u64::from(r.retries), room),
        LogField::Generation => count::<F, _>(b",\"generation\":", r.generation, room),
        LogField::Reason => marked::<F, _>(b",\"reason\":", |room| room.put_all(r.reason.as_bytes()), room),
        LogField::Version => name::<F, _>(b",\"version\":", Some(more.version), room),
        LogField::Scheme => name::<F, _>(b",\"scheme\":", Some(more.scheme), room),
        LogField::Listener => name::<F, _>(b",\"listener\":", more.listener, room),
        LogField::Endpoint => endpoint::<F>(more.endpoint, room),
        LogField::Reused => F::key(b",\"reused\":", room).put_all(match more.reused {
            Some(true) => b"true",
            Some(false) => b"false",
            None => F::ABSENT,
        }),
        LogField::Received => count::<F, _>(b",\"received\":", more.received, room),
        LogField::UserAgent => wire::<F, _>(b",\"user_agent\":", more.user_agent, AGENT_BYTES_MAX, room),
        LogField::Referer => wire::<F, _>(b",\"referer\":", more.referer, REFERER_BYTES_MAX, room),
        LogField::RequestId => match more.request_id {
            RequestId::None => wire::<F, _>(b",\"request_id\":", None, ID_BYTES_MAX, room),
            RequestId::Made(id) => marked::<F, _>(b",\"request_id\":", |room| hex(id, room), room),
            RequestId::Kept(id) => wire::<F, _>(b",\"request_id\":", Some(id), ID_BYTES_MAX, room),
        },
        LogField::Rule => {
            let key = F::key(b",\"rule\":", room);
            match more.rule {
                Some(rule) => F::word(rule.as_bytes(), RULE_BYTES_MAX, key),
                None => key.put_all(F::ABSENT),
            }
        }
        LogField::Skipped => wire::<F, _>(b",\"skipped\":", more.skipped.map(str::as_bytes), SKIPPED_BYTES_MAX, room),
        LogField::Key => name::<F, _>(b",\"key\":", more.key, room),
    }
}

/// A number.
#[inline(always)]
fn count<'a, F: Form, const N: usize>(key: &[u8; N], n: u64, room: Room<'a>) -> Room<'a> {
    number(n, F::key(key, room))
}

/// A value of our own making: it needs no escape and holds no space.
#[inline(always)]
fn marked<'a, F: Form, const N: usize>(
    key: &[u8; N],
    put: impl FnOnce(Room<'a>) -> Room<'a>,
    room: Room<'a>,
) -> Room<'a> {
    F::mark(put(F::mark(F::key(key, room))))
}

/// A text that came over the wire.
#[inline]
fn wire<'a, F: Form, const N: usize>(key: &[u8; N], value: Option<&[u8]>, max: usize, room: Room<'a>) -> Room<'a> {
    let room = F::key(key, room);
    match value {
        Some(value) => F::text(value, max, room),
        None => room.put_all(F::ABSENT),
    }
}

/// A token that came over the wire.
#[inline]
fn wire_word<'a, F: Form, const N: usize>(key: &[u8; N], value: &[u8], max: usize, room: Room<'a>) -> Room<'a> {
    F::word(value, max, F::key(key, room))
}

/// A name that the operator chose, or a word of our own.
#[inline]
fn name<'a, F: Form, const N: usize>(key: &[u8; N], value: Option<&str>, room: Room<'a>) -> Room<'a> {
    let room = F::key(key, room);
    match value {
        Some(value) => F::word(value.as_bytes(), NAME_BYTES_MAX, room),
        None => room.put_all(F::ABSENT),
    }
}

fn client<'a, F: Form>(client: Option<IpAddr>, room: Room<'a>) -> Room<'a> {
    let room = F::key(b",\"client\":", room);
    match client {
        Some(ip) => F::mark(address(ip, F::mark(room))),
        None => room.put_all(F::ABSENT),
    }
}

fn endpoint<'a, F: Form>(endpoint: Option<&Endpoint>, room: Room<'a>) -> Room<'a> {
    let room = F::key(b",\"endpoint\":", room);
    match endpoint {
        None => room.put_all(F::ABSENT),
        Some(Endpoint::Ip(at)) => {
            let room = F::mark(room);
            let room = match at {
                SocketAddr::V4(_) => address(at.ip(), room).put(b":"),
                SocketAddr::V6(_) => address(at.ip(), room.put(b"[")).put(b"]:"),
            };
            F::mark(number(u64::from(at.port()), room))
        }
        Some(Endpoint::Unix(path)) => {
            F::text(&[b"unix:", path.as_os_str().as_bytes()].concat(), ENDPOINT_BYTES_MAX, room)
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVERY: [LogField; 33] = {
        use LogField::*;
        [
            Time,
            Client,
            Method,
            Host,
            Path,
            Status,
            Bytes,
            DurationUs,
            HeadUs,
            QueueUs,
            ConnectUs,
            RetryUs,
            FirstByteUs,
            BodyClientUs,
            BodyBackendUs,
            TunnelUs,
            Cluster,
            Backend,
            Retries,
            Generation,
            Reason,
            Version,
            Scheme,
            Listener,
            Endpoint,
            Reused,
            Received,
            UserAgent,
            Referer,
            RequestId,
            Rule,
            Skipped,
            Key,
        ]
    };

    /// 567 microseconds: 500 to the first byte, 67 to the client.
    pub fn phases() -> Phases {
        let mut phases = Phases::new(1000);
        phases.pass_to(Phase::FirstByte);
        phases.enter(Phase::BodyClient, 1500);
        phases.end(1567);
        phases
    }

    pub fn record(phases: &Phases) -> Record<'_> {
        Record {
            time: 1_709_210_096,
            client: Some(IpAddr::from([192, 0, 2, 7])),
            method: b"GET",
            host: b"a.example",
            path: b"/x?y=1",
            status: 200,
            bytes: 1234,
            phases,
            cluster: Some("app"),
            backend: Some("b1"),
            retries: 1,
            generation: 3,
            reason: "OK",
            more: &NOTHING,
        }
    }

    fn line_of(record: &Record, how: LogFormat, fields: &[LogField]) -> String {
        // As much room as was asked for, and not a byte more.
        let mut to = vec![0; record.line_bytes_max()];
        let used = format(record, (how, &LogFields::new(fields)), &mut Second::default(), &mut to);
        assert!(used < to.len(), "{used} of {}", to.len());
        to.truncate(used);
        String::from_utf8(to).expect("lines are ASCII")
    }

    fn line(record: &Record, how: LogFormat) -> String {
        line_of(record, how, LogFields::default().list())
    }

    fn parsed(record: &Record) -> serde_json::Value {
        serde_json::from_str(&line_of(record, LogFormat::Json, &EVERY)).expect("a line of the log is JSON")
    }

    /// A text line taken apart: a quoted string is one part, with its quotes.
    fn parts(line: &str) -> Vec<String> {
        let (mut parts, mut inside) = (vec![String::new()], false);
        for c in line.strip_suffix('\n').expect("a line").chars() {
            inside ^= c == '"';
            match parts.last_mut() {
                Some(last) if inside || c != ' ' => last.push(c),
                _ => parts.push(String::new()),
            }
        }
        parts
    }

    #[test]
    fn a_plain_exchange_in_both_formats() {
        let phases = phases();
        assert_eq!(
            line(&record(&phases), LogFormat::Json),
            concat!(
                r#"{"time":"2024-02-29T12:34:56Z","client":"192.0.2.7","method":"GET","host":"a.example","#,
                r#""path":"/x?y=1","status":200,"bytes":1234,"duration_us":567,"head_us":0,"queue_us":0,"#,
                r#""connect_us":0,"retry_us":0,"first_byte_us":500,"body_client_us":67,"body_backend_us":0,"#,
                r#""tunnel_us":0,"cluster":"app","backend":"b1","retries":1,"generation":3,"reason":"OK"}"#,
                "\n"
            )
        );
        assert_eq!(
            line(&record(&phases), LogFormat::Text),
            "2024-02-29T12:34:56Z 192.0.2.7 GET \"a.example\" \"/x?y=1\" 200 1234 567 0 0 0 0 500 67 0 0 app b1 1 3 OK\n"
        );
    }

    #[test]
    fn the_fields_of_choice_in_their_order() {
        let phases = phases();
        let at = Endpoint::Ip(([127, 0, 0, 1], 9001).into());
        let more = More {
            version: "HTTP/1.1",
            scheme: "https",
            listener: Some("main"),
            endpoint: Some(&at),
            reused: Some(true),
            received: 64,
            user_agent: Some(b"curl \"8\""),
            referer: None,
            request_id: RequestId::Made(0xabc),
            rule: Some("*.example/x"),
            skipped: Some("b2=down b3=full"),
            key: Some("00ff"),
        };
        let r = Record { more: &more, ..record(&phases) };
        let fields = {
            use LogField::*;
            [
                Reason, Endpoint, Reused, UserAgent, Referer, Received, Version, Scheme, Listener, RequestId, Rule,
                Skipped, Key,
            ]
        };
        assert_eq!(
            line_of(&r, LogFormat::Text, &fields),
            concat!(
                r#"OK 127.0.0.1:9001 true "curl \x228\x22" - 64 HTTP/1.1 https main "#,
                "00000000000000000000000000000abc *.example/x \"b2=down b3=full\" 00ff\n"
            )
        );
        assert_eq!(
            line_of(&r, LogFormat::Json, &fields),
            concat!(
                r#"{"reason":"OK","endpoint":"127.0.0.1:9001","reused":true,"user_agent":"curl \"8\"","referer":null,"#,
                r#""received":64,"version":"HTTP/1.1","scheme":"https","listener":"main","#,
                r#""request_id":"00000000000000000000000000000abc","rule":"*.example/x","#,
                r#""skipped":"b2=down b3=full","key":"00ff"}"#,
                "\n"
            )
        );
        assert_eq!(line_of(&r, LogFormat::Text, &[LogField::Path]), "\"/x?y=1\"\n");
        let six = Endpoint::Ip("[2001:db8::1]:80".parse().expect("an address"));
        let unix = Endpoint::Unix("/run/a b".into());
        for (at, shown) in [(&six, "[2001:db8::1]:80"), (&unix, "\"unix:/run/a b\"")] {
            let r = Record { more: &More { endpoint: Some(at), ..NOTHING.clone() }, ..record(&phases) };
            assert_eq!(line_of(&r, LogFormat::Text, &[LogField::Endpoint]), format!("{shown}\n"));
        }
    }

    #[test]
    fn every_key_is_the_name_of_its_field() {
        let phases = phases();
        for field in EVERY {
            let line = line_of(&record(&phases), LogFormat::Json, &[field]);
            let v: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            let name = serde_json::to_value(field).expect("a word");
            assert_eq!(v.as_object().and_then(|o| o.keys().next()).map(String::as_str), name.as_str(), "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_null_or_a_dash() {
        let phases = phases();
        let r =
            Record { client: None, cluster: None, backend: None, method: b"", host: b"", path: b"", ..record(&phases) };
        let v = parsed(&r);
        for name in [
            "client",
            "cluster",
            "backend",
            "listener",
            "endpoint",
            "reused",
            "user_agent",
            "request_id",
            "rule",
            "key",
        ] {
            assert!(v[name].is_null(), "{name}: {v}");
        }
        assert_eq!((&v["path"], &v["method"]), (&"".into(), &"".into()));
        assert_eq!(
            line(&r, LogFormat::Text),
            "2024-02-29T12:34:56Z - - \"\" \"\" 200 1234 567 0 0 0 0 500 67 0 0 - - 1 3 OK\n"
        );
    }

    #[test]
    fn a_request_cannot_forge_a_line_or_a_field() {
        let phases = phases();
        let more = More {
            user_agent: Some(b"x\" 500 \"\n"),
            request_id: RequestId::Kept(b"1 2\"\r\n"),
            referer: Some(b"\",\"status\":1"),
            ..NOTHING.clone()
        };
        let r = Record {
            method: b"GE T\"",
            path: b"/\r\n{\"time\":\"x\"}\",\"status\":200,\"x\":\"\\",
            host: b"\x00\x1b[2J\x7f\xff\xe2\x80\xa8\xc2\x85",
            more: &more,
            ..record(&phases)
        };
        let v = parsed(&r);
        assert_eq!(v["path"], "/\r\n{\"time\":\"x\"}\",\"status\":200,\"x\":\"\\");
        assert_eq!(v["host"], "\0\u{1b}[2J\u{7f}\u{ff}\u{2028}\u{85}");
        assert_eq!((&v["status"], &v["request_id"]), (&200.into(), &"1 2\"\r\n".into()));
        assert_eq!(v.as_object().map(|o| o.len()), Some(EVERY.len()));
        let parts = parts(&line_of(&r, LogFormat::Text, &EVERY));
        assert_eq!(parts.len(), EVERY.len(), "{parts:?}");
        assert_eq!(parts[2], r"GE\x20T\x22");
        assert_eq!(parts[3], r#""\x00\x1b[2J\x7f\xff\xe2\x80\xa8\xc2\x85""#);
        assert_eq!(parts[27], r#""x\x22 500 \x22\x0a""#);
    }

    #[test]
    fn characters_beyond_ascii_parse_back() {
        let phases = phases();
        let r = Record { path: "/ü/€/😀".as_bytes(), ..record(&phases) };
        assert_eq!(parsed(&r)["path"], "/ü/€/😀");
        assert!(line(&r, LogFormat::Json).contains(r"/\u00fc/\u20ac/\ud83d\ude00"));
    }

    #[test]
    fn long_texts_are_cut_and_the_longest_line_fits_a_batch() {
        let mut phases = Phases::new(0);
        phases.end(u64::MAX);
        let evil = vec![1; 70_000];
        let name = "\u{1}".repeat(70_000);
        let endpoint = Endpoint::Unix(std::path::PathBuf::from(&name));
        let more = More {
            version: "HTTP/1.1",
            scheme: "https",
            listener: Some(&name),
            endpoint: Some(&endpoint),
            reused: Some(false),
            received: u64::MAX,
            user_agent: Some(&evil),
            referer: Some(&evil),
            request_id: RequestId::Kept(&evil),
            rule: Some(&name),
            skipped: Some(&name),
            key: Some(&name),
        };
        let r = Record {
            time: u64::MAX,
            client: Some(IpAddr::from([0xffff; 8])),
            method: &evil,
            host: &evil,
            path: &evil,
            status: u16::MAX,
            bytes: u64::MAX,
            phases: &phases,
            cluster: Some(&name),
            backend: Some(&name),
            retries: u32::MAX,
            generation: u64::MAX,
            reason: "CLIENT_TRUNCATED",
            more: &more,
        };
        for how in [LogFormat::Json, LogFormat::Text] {
            let line = line_of(&r, how, &EVERY);
            assert!(line.len() <= LINE_BYTES_MAX, "{} of {LINE_BYTES_MAX}", line.len());
            assert!(line.contains("...\""));
        }
    }

    proptest! {
        #[test]
        fn always_exactly_one_line_that_parses_back(
            wire in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 5),
            host in any::<String>(),
            numbers in any::<(u64, u16, u64, u32, u32, u64)>(),
            chosen in proptest::collection::vec(0..EVERY.len(), 1..EVERY.len()),
        ) {
            let mut phases = Phases::new(0);
            phases.enter(Phase::FirstByte, u64::from(numbers.3));
            let more = More {
                user_agent: Some(&wire[1]),
                referer: Some(&wire[2]),
                request_id: RequestId::Kept(&wire[3]),
                ..NOTHING.clone()
            };
            let r = Record {
                time: numbers.0, status: numbers.1, bytes: numbers.2, retries: numbers.4, generation: numbers.5,
                path: &wire[0], host: &host.as_bytes()[..host.len().min(HOST_BYTES_MAX)], method: &wire[4],
                cluster: None, more: &more, ..record(&phases)
            };
            let fields = LogFields::new(&chosen.iter().map(|i| EVERY[*i]).collect::<Vec<_>>());
            for (how, fields) in [LogFormat::Json, LogFormat::Text].into_iter().flat_map(|h| [(h, &EVERY[..]), (h, fields.list())]) {
                let line = line_of(&r, how, fields);
                prop_assert_eq!(line.bytes().filter(|b| !(0x20..0x7f).contains(b)).count(), 1);
                prop_assert!(line.ends_with('\n'));
                if how == LogFormat::Text {
                    prop_assert_eq!(parts(&line).len(), fields.len());
                } else {
                    let v: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                    prop_assert_eq!(v.as_object().map(|o| o.len()), Some(fields.len()));
                }
            }
            let v = parsed(&r);
            prop_assert_eq!(v["bytes"].as_u64(), Some(numbers.2));
            prop_assert_eq!(v["head_us"].as_u64(), Some(u64::from(numbers.3)));
            for (name, bytes) in [("path", &wire[0]), ("user_agent", &wire[1]), ("referer", &wire[2])] {
                if let Ok(text) = std::str::from_utf8(bytes) {
                    prop_assert_eq!(v[name].as_str(), Some(text));
                }
            }
            if host.len() <= HOST_BYTES_MAX {
                prop_assert_eq!(v["host"].as_str(), Some(host.as_str()));
            }
        }
    }
}
