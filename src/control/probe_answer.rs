//! Whether the answer to a probe is a good one. Pure: bytes in, verdict out, as soon as there is one.
//!
//! A backend's health page may be served by anything, so only what decides is read: the status line, and the body if a text
//! must stand in it.

use crate::http::Method;
use crate::http::body::Body;
use crate::http::head::{HeadScan, ResponseHead, Scan};
use crate::limits;
use crate::route::health_policy::{ProbeRequest, StatusSet};

/// A verdict, with what was found, for people.
type Verdict = Result<String, String>;

/// An answer as far as it has come.
pub(super) struct Reading {
    method: Method,
    statuses: StatusSet,
    /// What must stand in the body.
    text: Option<String>,
    bytes: Vec<u8>,
    /// Once the head is complete.
    body: Option<(u16, Body)>,
    /// The body so far, without its framing.
    payload: Vec<u8>,
}

impl Reading {
    /// Nothing has come.
    pub(super) fn new(request: &ProbeRequest) -> Reading {
        Reading {
            method: Method::of(request.method.as_bytes()),
            statuses: request.statuses,
            text: request.body.clone(),
            bytes: Vec::new(),
            body: None,
            payload: Vec::new(),
        }
    }

    /// Takes the next bytes; the verdict when there is one.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<Verdict> {
        self.bytes.extend_from_slice(bytes);
        if self.body.is_none() {
            let status = match status(&self.bytes) {
                Status::Garbage => return Some(Err("the answer is not HTTP/1".into())),
                Status::Unfinished if self.bytes.len() > limits::HEAD_BYTES_MAX => {
                    return Some(Err("the answer has no end".into()));
                }
                Status::Unfinished => return None,
                Status::Final { status, at } => {
                    self.bytes.drain(..at);
                    status
                }
            };
            if !self.statuses.contains(status) {
                return Some(Err(format!("status {status}")));
            }
            if self.text.is_none() {
                return Some(Ok(format!("status {status}")));
            }
            match self.head() {
                Ok(Some(body)) => self.body = Some((status, body)),
                Ok(None) => return None,
                Err(why) => return Some(Err(format!("status {status}, {why}"))),
            }
        }
        self.look_into_body()
    }

    /// The connection has ended.
    pub(super) fn ended(&mut self) -> Verdict {
        match &self.body {
            Some((status, body)) if body.complete_at_eof() => Err(self.missing(*status)),
            Some((status, _)) => Err(format!("status {status}, closed within the body")),
            None if self.text.is_some() && matches!(status(&self.bytes), Status::Final { .. }) => {
                Err("closed within the head".into())
            }
            None => Err("closed before a status line".into()),
        }
    }

    /// The body, once the whole head has come.
    fn head(&mut self) -> Result<Option<Body>, &'static str> {
        const BAD: &str = "but its head is malformed";
        match HeadScan::default().response(&self.bytes).map_err(|_| BAD)? {
            Scan::Partial => Ok(None),
            Scan::Complete(end) => {
                let mut head = ResponseHead::default();
                head.parse(&self.bytes[..end], self.method).map_err(|_| BAD)?;
                self.bytes.drain(..end);
                Ok(Some(Body::new(head.framing)))
            }
        }
    }

    fn look_into_body(&mut self) -> Option<Verdict> {
        let (status, body) = self.body.as_mut()?;
        let (status, text) = (*status, self.text.as_ref()?);
        let mut bytes = std::mem::take(&mut self.bytes);
        let Ok(piece) = body.decode(&mut bytes) else {
            return Some(Err(format!("status {status}, but its body is malformed")));
        };
        let done = body.is_done();
        self.payload.extend_from_slice(&bytes[piece.payload]);
        self.payload.truncate(limits::PROBE_BODY_BYTES_MAX);
        if memchr::memmem::find(&self.payload, text.as_bytes()).is_some() {
            return Some(Ok(format!("status {status} with the text")));
        }
        (done || self.payload.len() == limits::PROBE_BODY_BYTES_MAX).then(|| Err(self.missing(status)))
    }

    fn missing(&self, status: u16) -> String {
        format!("status {status}, but {:?} is not in the body", self.text.as_deref().unwrap_or_default())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Status {
    Unfinished,
    /// Of the response whose head begins at `at`.
    Final {
        status: u16,
        at: usize,
    },
    Garbage,
}

/// The status of the first final response at the front of `bytes`; interim ones (1xx) are passed over.
fn status(bytes: &[u8]) -> Status {
    let mut at = 0;
    loop {
        let answer = &bytes[at..];
        let fits = b"HTTP/1.".iter().zip(answer).all(|(want, got)| want == got);
        if !fits {
            return Status::Garbage;
        }
        let Some(line) = memchr::memchr(b'\n', answer).map(|end| &answer[..end]) else { return Status::Unfinished };
        let code = match line {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9', b' ', a, b, c, rest @ ..]
                if matches!(rest.first(), None | Some(b' ' | b'\r'))
                    && [a, b, c].iter().all(|d| d.is_ascii_digit()) =>
            {
                [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'))
            }
            _ => return Status::Garbage,
        };
        if code / 100 != 1 {
            return Status::Final { status: code, at };
        }
        match memchr::memmem::find(answer, b"\r\n\r\n") {
            Some(end) => at += end + 4,
            None => return Status::Unfinished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on an answer that comes in pieces of this size, then ends.
    fn read(request: &ProbeRequest, answer: &str, size: usize) -> Verdict {
        let mut reading = Reading::new(request);
        let verdict = answer.as_bytes().chunks(size).find_map(|piece| reading.take(piece));
        verdict.unwrap_or_else(|| reading.ended())
    }

    #[test]
    fn any_split_gives_the_same_verdict() {
        let plain = ProbeRequest::get("/");
        let text = ProbeRequest { body: Some("all well".into()), ..plain.clone() };
        let ok = |t: &str| Ok(t.to_owned());
        let bad = |t: &str| Err(t.to_owned());
        for (request, answer, want) in [
            (&plain, "HTTP/1.1 200 OK\r\n\r\n", ok("status 200")),
            (&plain, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\n", bad("status 404")),
            (&plain, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\n", ok("status 204")),
            (&plain, "SSH-2.0\r\n", bad("the answer is not HTTP/1")),
            (&plain, "HTTP/1.1 20x\r\n", bad("the answer is not HTTP/1")),
            (&text, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n<all well>", ok("status 200 with the text")),
            (&text, "HTTP/1.0 200 OK\r\n\r\nit is all well here", ok("status 200 with the text")),
            (
                &text,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nall w\r\n3\r\nell\r\n0\r\n\r\n",
                ok("status 200 with the text"),
            ),
            (
                &text,
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nallwell",
                bad("status 200, but \"all well\" is not in the body"),
            ),
            (&text, "HTTP/1.1 200 OK\r\n\r\nall we", bad("status 200, but \"all well\" is not in the body")),
            (&text, "HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\nall we", bad("status 200, closed within the body")),
            (&text, "HTTP/1.1 200 OK\r\nContent-Le", bad("closed within the head")),
            (&text, "HTTP/1.1 500 No\r\n\r\nall well", bad("status 500")),
            (&text, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", bad("status 200, but its head is malformed")),
            (
                &text,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                bad("status 200, but its body is malformed"),
            ),
        ] {
            for size in [1, 2, 3, 7, 1000] {
                assert_eq!(read(request, answer, size), want, "{answer:?} by {size}");
            }
        }
    }

    #[test]
    fn other_statuses_may_be_good_and_an_answer_without_end_is_not() {
        let request = ProbeRequest { statuses: StatusSet::default().with(404), ..ProbeRequest::get("/") };
        assert_eq!(read(&request, "HTTP/1.1 404 No\r\n", 5), Ok("status 404".into()));
        assert_eq!(read(&request, "HTTP/1.1 200 OK\r\n", 5), Err("status 200".into()));
        let endless = format!("HTTP/1.1 200 {}", "x".repeat(2 * limits::HEAD_BYTES_MAX));
        assert_eq!(read(&request, &endless, 4096), Err("the answer has no end".into()));
        let text = ProbeRequest { body: Some("end".into()), ..ProbeRequest::get("/") };
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}end", "x".repeat(limits::PROBE_BODY_BYTES_MAX));
        assert!(read(&text, &long, 4096).is_err_and(|why| why.contains("is not in the body")));
    }
}
