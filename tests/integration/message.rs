//! A second, independent and strict reading of HTTP/1.1, for both ends of the proxy. It shares no code with the product.

use std::os::fd::RawFd;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// What a buffer holds of a body.
#[derive(Debug)]
pub enum Taken {
    All { body: Vec<u8>, used: usize },
    More,
    Wrong(String),
}

/// Offset behind the empty line that ends a head.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

/// Name and value of each field line; the start line is left out. Panics on anything RFC 9112 does not allow.
pub fn fields(head: &[u8]) -> Vec<(String, String)> {
    let text: String = head.iter().map(|b| *b as char).collect();
    let lines = text.strip_suffix("\r\n\r\n").expect("a head ends with an empty line");
    assert!(!lines.replace("\r\n", "").contains(['\r', '\n']), "a bare CR or LF: {text:?}");
    let parse = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no colon: {line:?}"));
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        assert!(!name.is_empty() && name.chars().all(token), "no token: {line:?}");
        let value = value.trim_matches([' ', '\t']);
        assert!(value.chars().all(|c| c == '\t' || (c as u32 >= 0x20 && c as u32 != 0x7f)), "{line:?}");
        (name.to_string(), value.to_string())
    };
    lines.split("\r\n").skip(1).map(parse).collect()
}

fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let same = |f: &&(String, String)| f.0.eq_ignore_ascii_case(name);
    fields.iter().filter(same).map(|f| f.1.as_str()).collect()
}

fn length(fields: &[(String, String)]) -> Option<usize> {
    let all = values(fields, "content-length");
    assert!(all.len() < 2, "Content-Length {} times", all.len());
    let digits = all.first()?;
    assert!(!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()), "{digits:?}");
    Some(digits.parse().expect("a length"))
}

fn chunked(fields: &[(String, String)]) -> bool {
    let all = values(fields, "transfer-encoding");
    assert!(all.len() < 2, "Transfer-Encoding {} times", all.len());
    let Some(value) = all.first() else { return false };
    assert!(value.eq_ignore_ascii_case("chunked"), "Transfer-Encoding: {value}");
    assert!(length(fields).is_none(), "Content-Length beside Transfer-Encoding");
    true
}

/// Of a request that a proxy sent.
pub fn request_framing(head: &[u8]) -> Framing {
    let fields = fields(head);
    if chunked(&fields) {
        return Framing::Chunked;
    }
    length(&fields).map_or(Framing::None, Framing::Length)
}

/// Of a response to `method`.
pub fn response_framing(head: &[u8], method: &str, status: u16) -> Framing {
    let fields = fields(head);
    let (chunked, length) = (chunked(&fields), length(&fields));
    if method == "HEAD" || status < 200 || status == 204 || status == 304 {
        assert!(!(chunked && (status < 200 || status == 204)), "a body with {status}");
        return Framing::None;
    }
    if chunked {
        return Framing::Chunked;
    }
    length.map_or(Framing::UntilClose, Framing::Length)
}

/// The body at the start of `bytes`, if all of it is there. `UntilClose` is never complete.
pub fn take_body(bytes: &[u8], framing: Framing) -> Taken {
    match framing {
        Framing::None => Taken::All { body: Vec::new(), used: 0 },
        Framing::Length(n) if bytes.len() < n => Taken::More,
        Framing::Length(n) => Taken::All { body: bytes[..n].to_vec(), used: n },
        Framing::Chunked => take_chunks(bytes),
        Framing::UntilClose => Taken::More,
    }
}

fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let at = bytes.windows(2).position(|w| w == b"\r\n")?;
    Some((&bytes[..at], at + 2))
}

fn take_chunks(bytes: &[u8]) -> Taken {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let Some((size, used)) = line(&bytes[at..]) else { return Taken::More };
        let digits = size.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let text = String::from_utf8_lossy(&size[..digits]).into_owned();
        let Ok(n) = usize::from_str_radix(&text, 16) else {
            return Taken::Wrong(format!("chunk size {:?}", String::from_utf8_lossy(size)));
        };
        if digits < size.len() && size[digits] != b';' {
            return Taken::Wrong(format!("chunk line {:?}", String::from_utf8_lossy(size)));
        }
        at += used;
        if n == 0 {
            break;
        }
        if bytes.len() < at + n + 2 {
            return Taken::More;
        }
        body.extend_from_slice(&bytes[at..at + n]);
        if &bytes[at + n..at + n + 2] != b"\r\n" {
            return Taken::Wrong("no CRLF behind a chunk".into());
        }
        at += n + 2;
    }
    loop {
        let Some((trailer, used)) = line(&bytes[at..]) else { return Taken::More };
        let end = trailer.is_empty();
        at += used;
        if end {
            return Taken::All { body, used: at };
        }
    }
}

/// `data` in chunks of `size` bytes, with the last one.
pub fn chunks(data: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in data.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// Ends a TCP connection with RST at once, whoever else holds the descriptor: connect(2) to AF_UNSPEC disconnects.
pub fn reset(fd: RawFd) {
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    let size = std::mem::size_of::<libc::sockaddr>() as u32;
    unsafe { libc::connect(fd, &nobody, size) };
}
