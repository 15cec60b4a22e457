//! The chunked coding (RFC 9112 section 7.1), strict and resumable at every byte.
//!
//! ```text
//!  Size -> (Space ->) [extension ...] -> SizeLf -> Data(n) -> DataCr -> DataLf -> Size ...
//!                                          \-> (n = 0) TrailerStart -> Trailer -> TrailerLf -> TrailerStart ... -> Done
//! ```
//! What comes out is written anew by the pump: sizes are never copied, extensions never passed on, trailers only after
//! each line was judged. So no reader behind can see other chunk borders than this one, whatever came in.

use super::field;
use super::reject::{Broken, Fault};
use crate::limits;

/// Where in the grammar the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the size; `digits` says whether one has come.
    Size { digits: bool },
    /// White space behind the size, which only an extension may follow (BWS, RFC 9112 section 7.1.1).
    SizeSpace,
    /// Inside an extension.
    Extension(Extension),
    /// Behind the CR of the size line.
    SizeLf,
    /// In the data of a chunk: `left` bytes of it.
    Data,
    /// Behind the data: its CR.
    DataCr,
    /// Its LF.
    DataLf,
    /// At the beginning of a line of the trailer section.
    TrailerStart,
    /// In such a line.
    Trailer,
    /// Behind its CR.
    TrailerLf,
    /// Behind the CR of the empty line.
    EndLf,
    /// The body has ended.
    Done,
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// Behind the semicolon.
    Start,
    Name,
    /// White space behind the name.
    NameSpace,
    /// Behind the equals sign.
    Value,
    Token,
    Quoted,
    /// Behind a backslash.
    Escaped,
    /// Behind the closing quote.
    ValueEnd,
    /// White space behind the value: as the grammar has it, only another extension may follow, and not the line's end.
    ValueSpace,
}

/// What the decoder found next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This many bytes were coding, or are needed for more: nothing but coding was given.
    Coding(usize),
    /// After `skip` bytes of coding come `len` bytes of payload.
    Payload {
        /// Coding before the payload.
        skip: usize,
        /// Payload.
        len: usize,
    },
}

/// Digits of a size that is read at once: some more than any that is sent.
const PLAIN_DIGITS: usize = 8;

/// Walks one chunked body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// The chunk's size while it is read, then how much of it is still to come.
    left: u64,
    /// Bytes of the current size line.
    line: usize,
    /// Bytes of extensions so far.
    extensions: usize,
    /// Bytes of the trailer section so far, those of dropped lines included.
    trailer: usize,
    /// Lines of the trailer section so far.
    trailer_lines: usize,
    /// Trailer lines to pass on, and behind `kept` the one that is being read. Trailers are rare: until one comes this
    /// owns no memory.
    lines: Vec<u8>,
    /// Bytes of `lines` that were judged.
    kept: usize,
    /// Names of trailers that do not go on although others of their kind may, each with a comma. Rare.
    dropped: Vec<u8>,
    /// Bytes of the body so far, as far as the caller has said.
    taken: u64,
}

impl Decoder {
    pub(super) fn new() -> Decoder {
        Decoder {
            state: State::Size { digits: false },
            left: 0,
            line: 0,
            extensions: 0,
            trailer: 0,
            trailer_lines: 0,
            lines: Vec::new(),
            kept: 0,
            dropped: Vec::new(),
            taken: 0,
        }
    }

    /// Trailers of this name do not go on.
    pub(super) fn drop_trailers(&mut self, name: &[u8]) {
        if !name.is_empty() && field::may_be_trailer(name) {
            self.dropped.extend_from_slice(name);
            self.dropped.push(b',');
        }
    }

    fn drops(&self, name: &[u8]) -> bool {
        self.dropped.split(|&b| b == b',').any(|dropped| dropped.eq_ignore_ascii_case(name))
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// This many bytes more were taken.
    pub(super) fn took(&mut self, bytes: usize) {
        self.taken += bytes as u64;
    }

    /// The sum of what [`Decoder::took`] was told.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Where the line with a fault at `at` begins, and what stands for the body before it: see
    /// [`super::body::Body::faulty_line`].
    #[cold]
    pub(super) fn faulty_line(&self, fault: Fault, at: usize) -> Option<(&'static [u8], usize)> {
        // The state is that in which the byte came; `line` counts it only in a size line.
        let trailer = self.lines.len() - self.kept;
        let (before, back): (&[u8], usize) = match (self.state, fault) {
            (_, Fault::ChunkExtensions | Fault::TrailerTooLarge | Fault::TooManyFields) => return None,
            (State::Size { .. } | State::SizeSpace | State::Extension(_), _) => (b"", self.line - 1),
            (State::SizeLf, _) => (b"", self.line),
            (State::DataCr, _) => (b"1\r\nx", 0),
            (State::DataLf, _) => (b"1\r\nx\r", 0),
            (State::TrailerStart | State::Trailer, _) => (b"0\r\n", trailer),
            (State::TrailerLf, _) => (b"0\r\n", trailer + 1),
            (State::EndLf, _) => (b"0\r\n\r", 0),
            (State::Data | State::Done, _) => return None,
        };
        Some((before, at.checked_sub(back)?))
    }

    /// The trailer lines that may go on, each with CRLF. Complete only when done.
    pub(super) fn trailers(&self) -> &[u8] {
        &self.lines[..self.kept]
    }

    /// Takes coding up to the next payload, that payload as far as it is there, or everything given. Stops at the end of
    /// the body. The offset of an error is that in `bytes`.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Step, Broken> {
        let mut at = self.plain_line(bytes);
        while at < bytes.len() {
            match self.state {
                State::Data => {
                    let here = bytes.len() - at;
                    let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(here);
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step::Payload { skip: at, len });
                }
                State::Done => break,
                _ => self.byte(bytes[at]).map_err(|fault| Broken::new(fault, at))?,
            }
            at += 1;
        }
        Ok(Step::Coding(at))
    }

    /// Takes what mostly stands between two payloads, if it is all there: the end of the chunk before, and a line of a few
    /// digits. Whatever else stands there is for [`Decoder::byte`]. Byte by byte a flood of tiny chunks, which is
    /// nearly all coding, would cost twice as much.
    fn plain_line(&mut self, bytes: &[u8]) -> usize {
        let line = match (self.state, bytes) {
            (State::DataCr, [b'\r', b'\n', line @ ..]) => line,
            (State::Size { digits: false }, line) => line,
            _ => return 0,
        };
        let mut size = 0;
        for (digits, pair) in line.windows(2).take(PLAIN_DIGITS + 1).enumerate() {
            if let Some(digit) = char::from(pair[0]).to_digit(16) {
                size = size << 4 | u64::from(digit);
            } else if size > 0 && pair == b"\r\n" {
                self.left = size;
                self.state = State::Data;
                return bytes.len() - line.len() + digits + 2;
            } else {
                return 0;
            }
        }
        0
    }

    /// Takes one byte of coding.
    fn byte(&mut self, byte: u8) -> Result<(), Fault> {
        self.state = match self.state {
            State::Size { .. } | State::SizeSpace | State::Extension(_) => {
                self.line += 1;
                // The LF of this line is still to come.
                if self.line >= limits::CHUNK_LINE_BYTES_MAX {
                    return Err(Fault::ChunkLineTooLong);
                }
                self.size_line(byte)?
            }
            State::SizeLf => match byte {
                b'\n' if self.left == 0 => State::TrailerStart,
                b'\n' => State::Data,
                _ => return Err(Fault::BareCr),
            },
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataLf if byte == b'\n' => {
                self.line = 0;
                State::Size { digits: false }
            }
            State::DataCr | State::DataLf => return Err(Fault::ChunkEnd),
            State::TrailerStart | State::Trailer | State::TrailerLf | State::EndLf => self.trailer_byte(byte)?,
            State::Data | State::Done => unreachable!("handled by step"),
        };
        Ok(())
    }

    fn size_line(&mut self, byte: u8) -> Result<State, Fault> {
        let in_extension = match self.state {
            State::Size { digits } => {
                if let Some(digit) = char::from(byte).to_digit(16) {
                    // 63 bits, so that a reader that counts in signed integers counts the same.
                    if self.left > (i64::MAX as u64) >> 4 {
                        return Err(Fault::ChunkOverflow);
                    }
                    self.left = self.left << 4 | u64::from(digit);
                    return Ok(State::Size { digits: true });
                }
                return match byte {
                    _ if !digits => Err(Fault::ChunkSize),
                    b'\r' => Ok(State::SizeLf),
                    b'\n' => Err(Fault::BareLf),
                    b';' => Ok(State::Extension(Extension::Start)),
                    b' ' | b'\t' => Ok(State::SizeSpace),
                    _ => Err(Fault::ChunkSize),
                };
            }
            State::SizeSpace => {
                return match byte {
                    b';' => Ok(State::Extension(Extension::Start)),
                    b' ' | b'\t' => Ok(State::SizeSpace),
                    _ => Err(Fault::ChunkSize),
                };
            }
            State::Extension(extension) => extension,
            _ => unreachable!("only called in the size line"),
        };
        self.extensions += 1;
        if self.extensions > limits::CHUNK_EXTENSION_BYTES_MAX {
            return Err(Fault::ChunkExtensions);
        }
        extension(in_extension, byte)
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, Fault> {
        self.trailer += 1;
        if self.trailer > limits::TRAILER_BYTES_MAX {
            return Err(Fault::TrailerTooLarge);
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::EndLf, _) => Err(Fault::BareCr),
            (State::TrailerLf, b'\n') => {
                self.trailer_line()?;
                Ok(State::TrailerStart)
            }
            (State::TrailerLf, _) => Err(Fault::BareCr),
            (_, b'\n') => Err(Fault::BareLf),
            (_, b'\r') => Ok(State::TrailerLf),
            _ => {
                self.lines.push(byte);
                Ok(State::Trailer)
            }
        }
    }

    /// Judges the line that has just ended by the rules of a head's field lines; keeps it if it may be passed on.
    fn trailer_line(&mut self) -> Result<(), Fault> {
        self.trailer_lines += 1;
        if self.trailer_lines > limits::FIELDS_MAX {
            return Err(Fault::TooManyFields);
        }
        let line = &self.lines[self.kept..];
        if let Some((fault, _)) = field::judge_line(line) {
            return Err(fault);
        }
        let name = line.split(|&b| b == b':').next().unwrap_or_default();
        if field::may_be_trailer(name) && !self.drops(name) {
            self.lines.extend_from_slice(b"\r\n");
            self.kept = self.lines.len();
        } else {
            self.lines.truncate(self.kept);
        }
        Ok(())
    }
}

/// One byte of an extension. Nothing of it is kept; it is parsed so that a quoted string cannot hide the end of the line
/// from anybody: no control character passes anywhere, and CR ends the line only where the grammar lets it end.
fn extension(at: Extension, byte: u8) -> Result<State, Fault> {
    use Extension::*;
    let next = match (at, byte) {
        (_, b'\n') => return Err(Fault::BareLf),
        (Start | NameSpace | Value | ValueSpace, b' ' | b'\t') => at,
        (Start, _) if field::is_tchar(byte) => Name,
        (Name, b' ' | b'\t') => NameSpace,
        (Name | NameSpace, b'=') => Value,
        (Name, _) if field::is_tchar(byte) => Name,
        (Name | Token | ValueEnd, b'\r') => return Ok(State::SizeLf),
        (Name | NameSpace | Token | ValueEnd | ValueSpace, b';') => Start,
        (Value, b'"') => Quoted,
        (Value | Token, _) if field::is_tchar(byte) => Token,
        (Token | ValueEnd, b' ' | b'\t') => ValueSpace,
        (Quoted, b'"') => ValueEnd,
        (Quoted, b'\\') => Escaped,
        (Quoted | Escaped, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
        _ => return Err(Fault::ChunkExtension),
    };
    Ok(State::Extension(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payload, trailers, bytes consumed, and whether the body is done; or the fault and where.
    type Outcome = Result<(Vec<u8>, Vec<u8>, usize, bool), (Fault, usize)>;

    fn decode(input: &[u8], piece: usize) -> Outcome {
        let mut decoder = Decoder::new();
        let mut payload = Vec::new();
        let mut at = 0;
        for part in input.chunks(piece) {
            let mut rest = part;
            while !rest.is_empty() && !decoder.is_done() {
                let used = match decoder.step(rest).map_err(|b| (b.fault, at + b.at))? {
                    Step::Coding(n) => n,
                    Step::Payload { skip, len } => {
                        payload.extend_from_slice(&rest[skip..skip + len]);
                        skip + len
                    }
                };
                rest = &rest[used..];
                at += used;
            }
        }
        Ok((payload, decoder.trailers().to_vec(), at, decoder.is_done()))
    }

    fn all_splits(input: &[u8]) -> Outcome {
        let whole = decode(input, input.len().max(1));
        for piece in [1, 2, 3, 5, 7] {
            assert_eq!(decode(input, piece), whole, "{:?}", input.escape_ascii().to_string());
        }
        whole
    }

    #[test]
    fn bodies() {
        for (input, payload) in [
            (&b"0\r\n\r\n"[..], &b""[..]),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n000\r\n\r\n", b"abcdef"),
            (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
            (b"0005\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"7\r\na\r\n0\r\nb\r\n0\r\n\r\n", b"a\r\n0\r\nb"),
            (b"5;foo\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"5;foo=bar;b=c\r\nhello\r\n0;x=y\r\n\r\n", b"hello"),
            (b"5;foo=\"a \\\" b;c\"\r\nhello\r\n0\r\n\r\n", b"hello"),
            (b"5 ; foo = bar ; x = \"y\" ;z\r\nhello\r\n0\r\n\r\n", b"hello"),
        ] {
            assert_eq!(all_splits(input), Ok((payload.to_vec(), vec![], input.len(), true)));
        }
    }

    #[test]
    fn bytes_behind_the_end_are_left() {
        assert_eq!(all_splits(b"1\r\na\r\n0\r\n\r\nGET /"), Ok((b"a".to_vec(), vec![], 11, true)));
        assert_eq!(all_splits(b"5\r\nhel"), Ok((b"hel".to_vec(), vec![], 6, false)));
    }

    #[test]
    fn trailers() {
        let (_, trailers, used, done) =
            all_splits(b"0\r\nX-T: v\r\nHost: evil\r\nX_F: 1\r\nX-U:w\r\nContent-Length: 3\r\n\r\nX").unwrap();
        assert_eq!(trailers, b"X-T: v\r\nX-U:w\r\n");
        assert_eq!((used, done), (59, true));
    }

    #[test]
    fn faults() {
        for (input, fault, at) in [
            (&b"xyz\r\n"[..], Fault::ChunkSize, 0),
            (b"\r\nhello", Fault::ChunkSize, 0),
            (b"\nhello", Fault::ChunkSize, 0),
            (b"-5\r\n", Fault::ChunkSize, 0),
            (b"+5\r\n", Fault::ChunkSize, 0),
            (b" 5\r\n", Fault::ChunkSize, 0),
            (b"0x5\r\n", Fault::ChunkSize, 1),
            (b"5h\r\n", Fault::ChunkSize, 1),
            (b"5 5\r\n", Fault::ChunkSize, 2),
            (b"5 \r\n", Fault::ChunkSize, 2),
            (b"5\0\r\n", Fault::ChunkSize, 1),
            (b"5\r\r\n", Fault::BareCr, 2),
            (b"5\rhello\r\n", Fault::BareCr, 2),
            (b"5\nhello\r\n", Fault::BareLf, 1),
            (b"8000000000000000\r\n", Fault::ChunkOverflow, 15),
            (b"10000000000000005\r\n", Fault::ChunkOverflow, 16),
            (b"5\r\nhello\n0\r\n", Fault::ChunkEnd, 8),
            (b"5\r\nhello\rX0\r\n", Fault::ChunkEnd, 9),
            (b"5\r\nhello0\r\n", Fault::ChunkEnd, 8),
            (b"3\r\nhello\r\n", Fault::ChunkEnd, 6),
            (b"5;\r\nhello", Fault::ChunkExtension, 2),
            (b"5;\nhello", Fault::BareLf, 2),
            (b"5;a\rb\r\n", Fault::BareCr, 4),
            (b"5;a\0b\r\n", Fault::ChunkExtension, 3),
            (b"5;a=\r\n", Fault::ChunkExtension, 4),
            (b"5;a=\"x\r\ny\"\r\n", Fault::ChunkExtension, 6),
            (b"5;a \r\n", Fault::ChunkExtension, 4),
            (b"5;a=b \r\n", Fault::ChunkExtension, 6),
            (b"5;a=\"b\"\t\r\n", Fault::ChunkExtension, 8),
            (b"0\r\n\n", Fault::BareLf, 3),
            (b"0\n\n", Fault::BareLf, 1),
            (b"0\r\n\rX", Fault::BareCr, 4),
            (b"0\r\ngarbage\r\n\r\n", Fault::NoColon, 11),
            (b"0\r\nGET /x HTTP/1.1\r\n\r\n", Fault::BadName, 19),
            (b"0\r\nX-T : v\r\n\r\n", Fault::SpaceBeforeColon, 11),
            (b"0\r\nX-T: a\0b\r\n\r\n", Fault::Nul, 12),
            (b"0\r\nX-T: a\rb\r\n\r\n", Fault::BareCr, 10),
            (b"0\r\nX-T: a\nX-U: b\r\n\r\n", Fault::BareLf, 9),
            (b"0\r\nX-T: a\r\n b\r\n\r\n", Fault::ObsFold, 14),
            (b"0\r\n: v\r\n\r\n", Fault::EmptyName, 7),
        ] {
            assert_eq!(all_splits(input), Err((fault, at)), "{:?}", input.escape_ascii().to_string());
        }
    }

    #[test]
    fn limits_hold() {
        let long = [b"5;a=".to_vec(), vec![b'a'; 300]].concat();
        assert_eq!(all_splits(&long), Err((Fault::ChunkLineTooLong, limits::CHUNK_LINE_BYTES_MAX - 1)));
        let exact = [b"5;".to_vec(), vec![b'a'; limits::CHUNK_LINE_BYTES_MAX - 4], b"\r\nhello".to_vec()].concat();
        assert!(all_splits(&exact).is_ok());
        let zeros = [vec![b'0'; 300], b"5\r\n".to_vec()].concat();
        assert!(matches!(all_splits(&zeros), Err((Fault::ChunkLineTooLong, _))));
        let many = [b"1;".to_vec(), vec![b'e'; 200], b"\r\nx\r\n".to_vec()].concat().repeat(100);
        assert!(matches!(all_splits(&many), Err((Fault::ChunkExtensions, _))));
        let trailer = [b"0\r\n".to_vec(), b"X-A: b\r\n".repeat(101)].concat();
        assert!(matches!(all_splits(&trailer), Err((Fault::TooManyFields, _))));
        let trailer = [b"0\r\nX-A: ".to_vec(), vec![b'a'; 10_000]].concat();
        assert_eq!(all_splits(&trailer), Err((Fault::TrailerTooLarge, 3 + limits::TRAILER_BYTES_MAX)));
    }
}
