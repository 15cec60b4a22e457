//! Answers that Ringway gives by itself.

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
}

/// Appends the whole answer. `Cache-Control: no-store` is set, so that no cache keeps an error.
pub fn write(_reply: &Reply, _out: &mut Vec<u8>) {
    todo!()
}
