//! Answers that Ringway gives by itself.

use super::Method;
use super::field;
use super::head::{Known, RequestHead};

/// What an own answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Status code.
    pub status: u16,
    /// The request's Accept field value, if one is known: `text/html` before `text/plain` gets the HTML page.
    pub accept: Option<&'a [u8]>,
    /// HEAD: no body, but its length.
    pub head_only: bool,
    /// Say `Connection: close`.
    pub close: bool,
    /// Client's version is 1.0 and the connection lives: say `Connection: keep-alive`.
    pub keep_alive: bool,
    /// Seconds for Retry-After, with 503.
    pub retry_after: Option<u32>,
    /// Current Date value.
    pub date: &'a [u8; 29],
    /// The operator's own page for this status: content type and body.
    pub page: Option<(&'a str, &'a [u8])>,
    /// One sentence for the body; never anything the client sent.
    pub detail: &'a str,
    /// Why, for programs and for whoever looks into it.
    pub cause: Option<Cause<'a>>,
}

/// Why Ringway answers by itself: the field Proxy-Status (RFC 9209).
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    /// Who answers: a token, as in Via.
    pub by: &'a str,
    /// Type of the error.
    pub error: &'a str,
    /// Reason code.
    pub code: &'a str,
    /// X-Request-Id of the exchange; empty if it has none.
    pub request_id: &'a str,
}

/// Appends the whole answer. `Cache-Control: no-store` is set, so that no cache keeps an error.
pub fn write(reply: &Reply, out: &mut Vec<u8>) {
    let text;
    let (content_type, body) = match reply.page {
        Some(page) => page,
        None if prefers_html(reply.accept) => {
            text = html(reply);
            ("text/html; charset=utf-8", text.as_bytes())
        }
        None => {
            text = format!("{} {}\n{}\n", reply.status, reason(reply.status), reply.detail);
            ("text/plain; charset=utf-8", text.as_bytes())
        }
    };
    status_and_date(reply.status, reply.date, out);
    line(out, "Content-Type", content_type.as_bytes());
    line(out, "Content-Length", itoa::Buffer::new().format(body.len()).as_bytes());
    line(out, "Cache-Control", b"no-store");
    if let (503, Some(seconds)) = (reply.status, reply.retry_after) {
        line(out, "Retry-After", itoa::Buffer::new().format(seconds).as_bytes());
    }
    if reply.status == 405 {
        // RFC 9110 section 15.5.6 demands it. Where Ringway answers so, it does for this reason alone.
        line(out, "Allow", b"GET, HEAD");
    }
    if let Some(Cause { by, error, code, request_id }) = reply.cause {
        let parts = [by, "; error=", error, "; details=\"", code, "\""];
        line(out, "Proxy-Status", parts.concat().as_bytes());
        if !request_id.is_empty() {
            line(out, "X-Request-Id", request_id.as_bytes());
        }
    }
    connection(reply.close, reply.keep_alive, out);
    out.extend_from_slice(b"\r\n");
    if !reply.head_only {
        out.extend_from_slice(body);
    }
}

/// Appends the whole answer to an OPTIONS or TRACE request that must not be forwarded, because its Max-Forwards is 0
/// (RFC 9110 section 7.6.2): Ringway is the final recipient.
///
/// OPTIONS is told which methods pass. TRACE gets the head back as it came (section 9.3.8), without the fields that
/// section tells to leave out: those that might carry credentials.
pub fn final_recipient(
    head: &RequestHead,
    bytes: &[u8],
    date: &[u8; 29],
    close: bool,
    keep_alive: bool,
    out: &mut Vec<u8>,
) {
    status_and_date(200, date, out);
    line(out, "Cache-Control", b"no-store");
    connection(close, keep_alive, out);
    if head.method != Method::Trace {
        line(out, "Allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH");
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        return;
    }
    let end = |i: usize| head.fields.get(i + 1).map_or(head.bytes - 2, |next| next.name.start.into());
    let echoed = || {
        let lines = head.fields.iter().enumerate().filter(|(_, f)| !is_sensitive(f.name.of(bytes)));
        let fields = lines.map(|(i, f)| &bytes[f.name.start.into()..end(i)]);
        let first = head.fields.first().map_or(head.bytes - 2, |f| f.name.start.into());
        std::iter::once(&bytes[head.method_span.start.into()..first]).chain(fields).chain([&b"\r\n"[..]])
    };
    line(out, "Content-Type", b"message/http");
    // Nobody may take the echo for a page.
    line(out, "X-Content-Type-Options", b"nosniff");
    line(out, "Content-Length", itoa::Buffer::new().format(echoed().map(<[u8]>::len).sum::<usize>()).as_bytes());
    out.extend_from_slice(b"\r\n");
    echoed().for_each(|part| out.extend_from_slice(part));
}

fn is_sensitive(name: &[u8]) -> bool {
    let has = |part: &[u8]| name.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part));
    has(b"auth")
        || has(b"cookie")
        || has(b"token")
        || has(b"secret")
        || has(b"key")
        || field::known(name) == Known::Alias
}

fn status_and_date(status: u16, date: &[u8; 29], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    line(out, "Date", date);
}

fn connection(close: bool, keep_alive: bool, out: &mut Vec<u8>) {
    if close {
        line(out, "Connection", b"close");
    } else if keep_alive {
        line(out, "Connection", b"keep-alive");
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn html(reply: &Reply) -> String {
    let (status, reason) = (reply.status, reason(reply.status));
    let detail = reply.detail.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status} {reason}</title></head>\n\
         <body><h1>{status} {reason}</h1><p>{detail}</p></body></html>\n"
    )
}

/// Whether HTML is named and liked at least as much as plain text; of equals the first one wins (RFC 9110 section
/// 12.5.1, as much of it as two answers need). Whoever takes anything gets text: that is a program.
pub fn prefers_html(accept: Option<&[u8]>) -> bool {
    let weight_of = |wanted: &[u8]| {
        let members = field::members(accept.unwrap_or_default()).enumerate();
        members.into_iter().find_map(|(i, member)| {
            let mut parts = member.split(|&b| b == b';').map(field::trim);
            if !parts.next()?.eq_ignore_ascii_case(wanted) {
                return None;
            }
            let quality = parts.find_map(|p| p.strip_prefix(b"q=").or_else(|| p.strip_prefix(b"Q=")));
            Some((quality.map_or(1000, thousandths), i))
        })
    };
    match (weight_of(b"text/html"), weight_of(b"text/plain")) {
        (None | Some((0, _)), _) => false,
        (Some(_), None) => true,
        (Some((html, i)), Some((plain, j))) => html > plain || (html == plain && i < j),
    }
}

/// `0.5` as 500; what is malformed counts as 0.
fn thousandths(quality: &[u8]) -> u32 {
    match quality {
        [b'1', ..] => 1000,
        [b'0', b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => {
            digits.iter().zip([100, 10, 1]).map(|(d, unit)| u32::from(d - b'0') * unit).sum()
        }
        _ => 0,
    }
}

/// The reason phrase of the statuses that Ringway answers with.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Underscores;

    const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    fn reply() -> Reply<'static> {
        Reply {
            status: 503,
            accept: None,
            head_only: false,
            close: true,
            keep_alive: false,
            retry_after: Some(5),
            date: DATE,
            page: None,
            detail: "No backend is up.",
            cause: None,
        }
    }

    fn written(reply: &Reply) -> String {
        let mut out = Vec::new();
        write(reply, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text() {
        assert_eq!(
            written(&reply()),
            "HTTP/1.1 503 Service Unavailable\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 42\r\nCache-Control: no-store\r\nRetry-After: 5\r\n\
             Connection: close\r\n\r\n503 Service Unavailable\nNo backend is up.\n"
        );
    }

    #[test]
    fn the_cause_is_a_field_of_its_own() {
        let cause = Cause { by: "edge", error: "destination_unavailable", code: "NO_BACKEND", request_id: "00ab" };
        let text = written(&Reply { cause: Some(cause), ..reply() });
        let fields =
            "\r\nProxy-Status: edge; error=destination_unavailable; details=\"NO_BACKEND\"\r\nX-Request-Id: 00ab\r\n";
        assert!(text.contains(fields), "{text}");
        let text = written(&Reply { cause: Some(Cause { request_id: "", ..cause }), ..reply() });
        assert!(text.contains("Proxy-Status") && !text.contains("X-Request-Id"), "{text}");
    }

    #[test]
    fn html_head_and_own_pages() {
        let html = written(&Reply { accept: Some(b"text/html"), detail: "a < b & c", status: 400, ..reply() });
        assert!(
            html.contains("text/html") && html.contains("<p>a &lt; b &amp; c</p>") && !html.contains("Retry-After")
        );
        let head = written(&Reply { head_only: true, close: false, keep_alive: true, ..reply() });
        assert!(head.contains("Content-Length: 42\r\n") && head.ends_with("Connection: keep-alive\r\n\r\n"));
        assert!(written(&Reply { status: 405, ..reply() }).contains("405 Method Not Allowed\r\n"));
        assert!(written(&Reply { status: 405, ..reply() }).contains("\r\nAllow: GET, HEAD\r\n"));
        let page = written(&Reply { page: Some(("image/gif", b"GIF")), ..reply() });
        assert!(page.contains("Content-Type: image/gif\r\nContent-Length: 3\r\n") && page.ends_with("\r\n\r\nGIF"));
    }

    #[test]
    fn what_the_client_accepts() {
        for (accept, html) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", true),
            ("TEXT/HTML", true),
            ("text/html;level=1;q=0.5", true),
            ("text/plain, text/html", false),
            ("text/html, text/plain", true),
            ("text/html;q=0.2, text/plain;q=0.3", false),
            ("text/plain;q=0.5, text/html", true),
            ("text/html;q=0", false),
            ("text/html;q=x", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(prefers_html(Some(accept.as_bytes())), html, "{accept}");
        }
        assert!(!prefers_html(None));
    }

    fn last(text: &str) -> String {
        let mut head = RequestHead::default();
        head.parse(text.as_bytes(), Underscores::Drop).unwrap();
        let mut out = Vec::new();
        final_recipient(&head, text.as_bytes(), DATE, false, false, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn final_recipients() {
        let options = last("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
        assert!(options.contains("\r\nAllow: GET, ") && options.ends_with("Content-Length: 0\r\n\r\n"));
        let trace = last(
            "\r\nTRACE /x HTTP/1.1\r\nHost: a\r\nAuthorization: s\r\nMax-Forwards: 0\r\nX-A: b\r\nCookie: s\r\nX-Api-Key: s\r\n\r\n",
        );
        let (head, body) = trace.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "TRACE /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nX-A: b\r\n\r\n");
        assert!(
            head.contains("Content-Type: message/http") && head.contains(&format!("Content-Length: {}", body.len()))
        );
        assert!(
            last("TRACE / HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n")
                .ends_with("TRACE / HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n")
        );
    }
}
