//! A second opinion: HTTP/1.1 messages by the letter of the ABNF, byte by byte, slow and simple.
//!
//! Written from RFC 9110, 9112 and 3986 alone. It shares no code, no table and no limit with the product, and it does not
//! forgive: where an RFC lets a recipient repair what was sent, this grammar refuses. Rules carry the names that they have in
//! the ABNF. Three outcomes: a value, [`No::Partial`] (all bytes matched, more are needed), [`No::Refused`].

pub mod body;
pub mod head;
pub mod uri;

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// What is there is the beginning of something valid.
    Partial,
    /// Whatever may come, it is not valid.
    Refused {
        /// The rule that was broken.
        rule: &'static str,
        /// Offset of the byte where it broke, or of the message if a rule beyond the ABNF did.
        at: usize,
    },
}

/// A value or why there is none.
pub type Parsed<T> = Result<T, No>;

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// This many bytes; numbers beyond what can be counted become the greatest.
    Length(u128),
    /// The chunked coding.
    Chunked,
    /// Until the connection ends.
    UntilClose,
}

/// One field line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The name as sent.
    pub name: Vec<u8>,
    /// The value without the white space around it.
    pub value: Vec<u8>,
}

impl Line {
    /// Whether this is a field of that name.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// All members of all lines of a name, as one list (RFC 9110 sections 5.3 and 5.6.1); empty members are left out.
///
/// Splits at every comma: good for lists of tokens, wrong for lists with quoted strings, which then are no tokens.
pub fn members(lines: &[Line], name: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for line in lines.iter().filter(|line| line.is(name)) {
        for member in line.value.split(|&byte| byte == b',') {
            let member = ows_trimmed(member);
            if !member.is_empty() {
                found.push(member.to_vec());
            }
        }
    }
    found
}

/// Without `OWS` at both ends.
pub fn ows_trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// A position in a message.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next byte, which stays there.
    pub fn peek(&self) -> Parsed<u8> {
        self.bytes.get(self.at).copied().ok_or(No::Partial)
    }

    /// Refuses what stands here.
    pub fn refuse<T>(&self, rule: &'static str) -> Parsed<T> {
        Err(No::Refused { rule, at: self.at })
    }

    /// The next byte, if it is one of these.
    pub fn one(&mut self, rule: &'static str, of: fn(u8) -> bool) -> Parsed<u8> {
        let byte = self.peek()?;
        if !of(byte) {
            return self.refuse(rule);
        }
        self.at += 1;
        Ok(byte)
    }

    /// This text.
    pub fn text(&mut self, rule: &'static str, text: &str) -> Parsed<()> {
        for wanted in text.bytes() {
            if self.peek()? != wanted {
                return self.refuse(rule);
            }
            self.at += 1;
        }
        Ok(())
    }

    /// As many of these as come, and the byte behind them, which says that no more come.
    pub fn many(&mut self, of: fn(u8) -> bool) -> Parsed<&'a [u8]> {
        let begin = self.at;
        while of(self.peek()?) {
            self.at += 1;
        }
        Ok(&self.bytes[begin..self.at])
    }

    /// At least one of these.
    pub fn some(&mut self, rule: &'static str, of: fn(u8) -> bool) -> Parsed<&'a [u8]> {
        let found = self.many(of)?;
        if found.is_empty() { self.refuse(rule) } else { Ok(found) }
    }

    /// `CRLF`
    pub fn crlf(&mut self, rule: &'static str) -> Parsed<()> {
        self.text(rule, "\r\n")
    }
}

/// `ALPHA`
pub fn alpha(byte: u8) -> bool {
    byte.is_ascii_alphabetic()
}

/// `DIGIT`
pub fn digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

/// `HEXDIG`, of any case (RFC 5234 section 2.3).
pub fn hexdig(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// `tchar` (RFC 9110 section 5.6.2).
pub fn tchar(byte: u8) -> bool {
    let sign = matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    );
    sign || digit(byte) || alpha(byte)
}

/// `VCHAR`
pub fn vchar(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e)
}

/// `obs-text`
pub fn obs_text(byte: u8) -> bool {
    byte >= 0x80
}

/// `SP / HTAB`, the bytes of `OWS` and `BWS`.
pub fn space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// `token` as a whole text.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| tchar(byte))
}

/// A decimal number as a whole text, or `None`. Those too great to count become the greatest.
pub fn decimal(text: &[u8]) -> Option<u128> {
    if text.is_empty() || !text.iter().all(|&byte| digit(byte)) {
        return None;
    }
    let add = |sum: u128, byte: &u8| sum.saturating_mul(10).saturating_add(u128::from(byte - b'0'));
    Some(text.iter().fold(0, add))
}

/// `field-line CRLF` (RFC 9112 section 5): `field-name ":" OWS field-value OWS`, without `obs-fold`.
pub fn field_line(reader: &mut Reader) -> Parsed<Line> {
    let name = reader.some("field-name", tchar)?.to_vec();
    reader.text("field-line", ":")?;
    // field-value = *field-content: field-vchar, with SP and HTAB between and, as OWS, around them.
    let value = reader.many(|byte| space(byte) || vchar(byte) || obs_text(byte))?;
    let value = ows_trimmed(value).to_vec();
    reader.crlf("field-value")?;
    Ok(Line { name, value })
}

/// `*( field-line CRLF ) CRLF`, which ends a head and a trailer section alike.
pub fn section(reader: &mut Reader) -> Parsed<Vec<Line>> {
    let mut lines = Vec::new();
    while reader.peek()? != b'\r' {
        lines.push(field_line(reader)?);
    }
    reader.crlf("empty line")?;
    Ok(lines)
}
