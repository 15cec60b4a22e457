//! Where a head ends, in bytes that come piecemeal.

use super::field;
use super::reject::{Broken, Failure, Fault, Reject};
use crate::limits;

/// What the scan for the end of a head has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// More bytes are needed.
    Partial,
    /// The head ends here: this many bytes, leading empty lines included.
    Complete(usize),
}

/// Looks for the end of a head in bytes that come piecemeal; never looks at a byte twice.
///
/// Any split of the same bytes gives the same verdict at the same byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Bytes looked at so far.
    seen: usize,
    /// Where the current line begins.
    line: usize,
    /// Empty lines before the start line.
    empty_lines: usize,
    /// The first byte of the start line has come.
    begun: bool,
    /// The start line has ended.
    start_line: bool,
}

impl HeadScan {
    /// Looks at the bytes that came since the last call; `bytes` is everything received for this head so far.
    ///
    /// Up to `limits::LEADING_EMPTY_LINES_MAX` empty lines are skipped; then the first byte must begin a token. Errors: a
    /// bare LF, a byte that cannot begin a message (a TLS hello, say), or `limits::HEAD_BYTES_MAX` bytes without an end
    /// (431, and 414 if not even the request line has ended).
    pub fn request(&mut self, bytes: &[u8]) -> Result<Scan, Reject> {
        if !self.begun && !self.begin_request(bytes)? {
            return Ok(Scan::Partial);
        }
        Ok(self.lines(bytes)?)
    }

    /// The same for a response, before which nothing is skipped.
    pub fn response(&mut self, bytes: &[u8]) -> Result<Scan, Failure> {
        if !self.begun {
            match bytes.first() {
                None => return Ok(Scan::Partial),
                Some(b'H') => self.begun = true,
                Some(_) => return Err(Broken::new(Fault::NotHttp, 0).into()),
            }
        }
        Ok(self.lines(bytes)?)
    }

    /// Whether the first byte of a start line has come: empty lines before a request are none (RFC 9112 section 2.2).
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Skips empty lines; whether the first byte of the request line has come.
    fn begin_request(&mut self, bytes: &[u8]) -> Result<bool, Broken> {
        loop {
            let at = self.seen;
            let fault = match bytes.get(at) {
                None => return Ok(false),
                Some(b'\r') if self.empty_lines == limits::LEADING_EMPTY_LINES_MAX => Fault::LeadingEmptyLines,
                Some(b'\r') => match bytes.get(at + 1) {
                    None => return Ok(false),
                    Some(b'\n') => {
                        self.empty_lines += 1;
                        self.seen += 2;
                        continue;
                    }
                    Some(_) => Fault::BareCr,
                },
                Some(b'\n') => Fault::BareLf,
                Some(0x16) => Fault::TlsHello,
                Some(&byte) if field::is_tchar(byte) => {
                    self.line = at;
                    self.begun = true;
                    return Ok(true);
                }
                Some(_) => Fault::NotHttp,
            };
            return Err(Broken::new(fault, at));
        }
    }

    /// Looks for the empty line, and at the end of every line before it.
    fn lines(&mut self, bytes: &[u8]) -> Result<Scan, Broken> {
        let end = bytes.len().min(limits::HEAD_BYTES_MAX);
        for found in memchr::memchr_iter(b'\n', &bytes[self.seen..end]) {
            let at = self.seen + found;
            // The first byte of a message is never LF, so there is a byte before this one.
            if bytes[at - 1] != b'\r' {
                return Err(Broken::new(Fault::BareLf, at));
            }
            if self.line == at - 1 {
                return Ok(Scan::Complete(at + 1));
            }
            self.line = at + 1;
            self.start_line = true;
        }
        self.seen = end;
        if end < limits::HEAD_BYTES_MAX {
            return Ok(Scan::Partial);
        }
        let fault = if self.start_line { Fault::HeadTooLarge } else { Fault::UriTooLong };
        Err(Broken::new(fault, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::tests::pieces;
    use proptest::prelude::*;

    #[test]
    fn where_a_request_head_ends() {
        let scan = |text: &str| HeadScan::default().request(text.as_bytes()).map_err(|r| (r.fault, r.at));
        assert_eq!(scan(""), Ok(Scan::Partial));
        assert_eq!(scan("GET / HTTP/1.1\r\nA: b\r\n\r"), Ok(Scan::Partial));
        assert_eq!(scan("GET / HTTP/1.1\r\nA: b\r\n\r\nGET"), Ok(Scan::Complete(24)));
        assert_eq!(scan("\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Ok(Scan::Complete(22)));
        assert_eq!(scan("\r\n\r\n\r\n\r\nGET"), Ok(Scan::Partial));
        assert_eq!(scan("\r\n\r\n\r\n\r\n\r\nGET"), Err((Fault::LeadingEmptyLines, 8)));
        assert_eq!(scan("\rGET"), Err((Fault::BareCr, 0)));
        assert_eq!(scan("\nGET"), Err((Fault::BareLf, 0)));
        assert_eq!(scan(" GET"), Err((Fault::NotHttp, 0)));
        assert_eq!(scan("\0"), Err((Fault::NotHttp, 0)));
        assert_eq!(scan("\u{16}\u{3}\u{1}"), Err((Fault::TlsHello, 0)));
        assert_eq!(scan("GET / HTTP/1.1\nA: b"), Err((Fault::BareLf, 14)));
        assert_eq!(scan("GET / HTTP/1.1\r\nA: b\r\n\nGET"), Err((Fault::BareLf, 22)));
    }

    #[test]
    fn where_a_response_head_ends() {
        let scan = |text: &str| HeadScan::default().response(text.as_bytes()).map_err(|r| (r.fault, r.at));
        assert_eq!(scan("HTTP/1.1 200 OK\r\n\r\nx"), Ok(Scan::Complete(19)));
        assert_eq!(scan("\r\nHTTP/1.1 200 OK\r\n\r\nx"), Err((Fault::NotHttp, 0)));
        assert_eq!(scan("HTTP/1.1 200 OK\n\n"), Err((Fault::BareLf, 15)));
    }

    fn in_pieces<E>(bytes: &[u8], cuts: &[usize], mut look: impl FnMut(&[u8]) -> Result<Scan, E>) -> Result<Scan, E> {
        let mut end = 0;
        for cut in cuts.iter().cycle() {
            end = (end + cut).min(bytes.len());
            let scan = look(&bytes[..end])?;
            if scan != Scan::Partial || end == bytes.len() {
                return Ok(scan);
            }
        }
        Ok(Scan::Partial)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_end(bytes in pieces(), cuts in proptest::collection::vec(1..9usize, 1..9)) {
            let whole = HeadScan::default().request(&bytes);
            for cuts in [&cuts[..], &[1]] {
                let mut scan = HeadScan::default();
                prop_assert_eq!(in_pieces(&bytes, cuts, |b| scan.request(b)), whole);
            }
            let whole = HeadScan::default().response(&bytes);
            let mut scan = HeadScan::default();
            prop_assert_eq!(in_pieces(&bytes, &cuts, |b| scan.response(b)), whole);
        }

    }
}
