//! Bodies (RFC 9112 sections 6 and 7.1).

use super::{Framing, Line, No, Parsed, Reader, hexdig, obs_text, section, space, tchar, vchar};

/// A body as far as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its content, before any fault.
    pub content: Vec<u8>,
    /// Where it ends, or why it does not.
    pub end: Parsed<End>,
}

/// The end of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Bytes that belong to the body.
    pub bytes: usize,
    /// The trailer section.
    pub trailers: Vec<Line>,
}

/// The body that stands at the beginning of `bytes`. One that ends with the connection has no end here.
pub fn body(framing: Framing, bytes: &[u8]) -> Body {
    let whole = |len: usize| Body { content: bytes[..len].to_vec(), end: Ok(End { bytes: len, trailers: Vec::new() }) };
    match framing {
        Framing::None => whole(0),
        Framing::Length(n) if n <= bytes.len() as u128 => whole(n as usize),
        Framing::Length(_) | Framing::UntilClose => Body { content: bytes.to_vec(), end: Err(No::Partial) },
        Framing::Chunked => {
            let mut content = Vec::new();
            let end = chunked_body(bytes, &mut content);
            Body { content, end }
        }
    }
}

/// `*chunk last-chunk trailer-section CRLF`
fn chunked_body(bytes: &[u8], content: &mut Vec<u8>) -> Parsed<End> {
    let mut reader = Reader::new(bytes);
    loop {
        // chunk-size = 1*HEXDIG
        let mut size: u128 = 0;
        for &digit in reader.some("chunk-size", hexdig)? {
            let value = char::from(digit).to_digit(16).unwrap_or_default();
            size = size.saturating_mul(16).saturating_add(value.into());
        }
        chunk_ext(&mut reader)?;
        reader.crlf("chunk")?;
        if size == 0 {
            let trailers = section(&mut reader)?;
            return Ok(End { bytes: reader.at(), trailers });
        }
        for _ in 0..size {
            content.push(reader.one("chunk-data", |_| true)?);
        }
        reader.crlf("chunk-data")?;
    }
}

/// `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`
fn chunk_ext(reader: &mut Reader) -> Parsed<()> {
    loop {
        let spaces = reader.many(space)?;
        match reader.peek()? {
            b';' => reader.text("chunk-ext", ";")?,
            // White space stands only in front of a semicolon or an equals sign.
            _ if spaces.is_empty() => return Ok(()),
            _ => return reader.refuse("chunk-ext"),
        }
        reader.many(space)?;
        reader.some("chunk-ext-name", tchar)?;
        // White space here is followed by "=", or by the semicolon of the next extension.
        let spaces = reader.many(space)?;
        match reader.peek()? {
            b'=' => reader.text("chunk-ext", "=")?,
            b';' => continue,
            _ if spaces.is_empty() => return Ok(()),
            _ => return reader.refuse("chunk-ext"),
        }
        reader.many(space)?;
        if reader.peek()? == b'"' {
            quoted_string(reader)?;
        } else {
            reader.some("chunk-ext-val", tchar)?;
        }
    }
}

/// `DQUOTE *( qdtext / quoted-pair ) DQUOTE`
fn quoted_string(reader: &mut Reader) -> Parsed<()> {
    reader.text("quoted-string", "\"")?;
    loop {
        match reader.peek()? {
            b'"' => return reader.text("quoted-string", "\""),
            b'\\' => {
                reader.text("quoted-pair", "\\")?;
                reader.one("quoted-pair", |byte| space(byte) || vchar(byte) || obs_text(byte))?;
            }
            _ => {
                reader.one("qdtext", |byte| space(byte) || vchar(byte) || obs_text(byte))?;
            }
        }
    }
}
