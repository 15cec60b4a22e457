//! Why exchanges end as they do: the reason codes of the access log and the metrics, and what each tells an operator.

use crate::http::reject::Fault;
use crate::limits;

/// One table makes the codes and what can be said about each, so that none of it can be forgotten.
macro_rules! codes {
    ($($variant:ident $code:literal $status:literal $meaning:literal $cure:literal;)*) => {
        /// A reason code, as logs and metrics know it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// All of them, in the order of their declaration.
            pub const ALL: &[Code] = &[$(Code::$variant,)*];

            /// As it is printed: stable over releases.
            pub fn name(self) -> &'static str {
                CODES[self as usize]
            }

            /// What the client was sent, as far as the code tells.
            pub fn status(self) -> &'static str {
                match self { $(Code::$variant => $status,)* }
            }

            /// What has happened, for operators.
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$variant => $meaning,)* }
            }

            /// What to do about it.
            pub fn cure(self) -> &'static str {
                match self { $(Code::$variant => $cure,)* }
            }
        }

        /// All reason codes, at [`Reason::index`].
        pub const CODES: [&str; Code::ALL.len()] = [$($code,)*];
    };
}

// New ones are added at the end: counters go by the place.
codes! {
    Ok "OK" "the backend's"
        "Served to its end."
        "Nothing.";
    Rejected "REJECTED" "400, 414, 417, 421, 431, 501, 505"
        "The request breaks a rule of HTTP, or is larger than Ringway takes; nothing was sent on."
        "`ringway ctl errors` tells the rule, the byte and the client, `--save DIR` keeps the bytes for `ringway parse`. Put the client right.";
    ClientTimeout "CLIENT_TIMEOUT" "408"
        "The client did not send its head or its body in time."
        "If honest clients are that slow, raise `client.head_timeout`, or the cluster's `timeouts.client_body`.";
    ClientSlow "CLIENT_SLOW" "408"
        "The client sent its body slower than the least rate."
        "If honest clients are that slow, lower the cluster's `client_rate_min`.";
    ClientAbort "CLIENT_ABORT" "none, or the backend's, cut"
        "The client went away, or took no bytes in time."
        "Nothing, if there are few: users leave. If there are many, look in the access log for what they waited for.";
    ClientTruncated "CLIENT_TRUNCATED" "400"
        "The client closed within its request."
        "Look at the client and at what is before Ringway: one of them ends too early.";
    BodyTooLarge "BODY_TOO_LARGE" "413"
        "The request body is larger than the cluster accepts."
        "If such bodies are wanted, raise the cluster's `body_max`.";
    NoRoute "NO_ROUTE" "404"
        "There is no route for this host and path."
        "`ringway explain METHOD URL` tells which rules nearly fit, `ringway ctl routes` all of them. Add one to `routes`, if it should be served.";
    NoBackend "NO_BACKEND" "503"
        "No backend of the cluster is up, or it has none."
        "`ringway ctl backends` tells why each is down. `fail_open` sends requests to backends that are down rather than to none.";
    ConnectFailed "CONNECT_FAILED" "502"
        "None of the backends that were tried could be connected to."
        "Look whether they run, and listen on the addresses that `ringway ctl backends` shows.";
    Busy "BUSY" "503"
        "No connection could be made for want of descriptors, ports or memory here, or because the backend's queue is full."
        "`ringway doctor` shows what is short here. Else the backend does not accept as fast as it is asked: add another, or set `max_conns`.";
    ConnectTimeout "CONNECT_TIMEOUT" "504"
        "Connecting to a backend took too long."
        "Look whether its host is up and no firewall swallows the packets; if it is only far away, raise `timeouts.connect`.";
    BackendClosed "BACKEND_CLOSED" "502"
        "The backend closed or reset the connection before a response head."
        "Its own log tells why. If it closes idle connections, keep `pool.idle` below the time after which it does.";
    BackendTimeout "BACKEND_TIMEOUT" "504"
        "No response head came in time."
        "Look what the backend is at; if it needs that long, raise `timeouts.head`.";
    BadResponse "BAD_RESPONSE" "502, or the backend's, cut"
        "The response breaks a rule of HTTP: its head (502), or a chunk of its body (cut)."
        "`ringway ctl errors` tells the rule and the byte, `--save DIR` keeps the bytes for `ringway parse --response`. Put the backend right.";
    BackendTruncated "BACKEND_TRUNCATED" "the backend's, cut"
        "The backend ended within a response body: the client was cut, so that it does not take it for whole."
        "Its own log tells why: a crash, a restart, or a limit.";
    BackendStalled "BACKEND_STALLED" "the backend's, cut"
        "The backend fell silent within a response body: the client was cut."
        "Look what the backend is at; if it is silent for long by design, raise `timeouts.body`.";
    Tunnel "TUNNEL" "101"
        "The tunnel of an upgrade ended by itself."
        "Nothing.";
    TunnelIdle "TUNNEL_IDLE" "101"
        "The tunnel of an upgrade was silent for too long."
        "Have the application send pings, or raise `timeouts.tunnel`.";
    Drained "DRAINED" "503, none, or the backend's, cut"
        "Cut at the end of a drain."
        "If exchanges need longer to end, raise `drain_timeout`.";
    Own "OWN" "200"
        "Ringway answered by itself, as the protocol asks (Max-Forwards: 0)."
        "Nothing.";
    Health "HEALTH" "200, 503"
        "Ringway answered on a listener's `health_path`: 200 while it is ready for traffic, else 503."
        "At 503 it drains, or was told to say so: `ringway ctl ready on` takes that back.";
    FailOpen "FAIL_OPEN" "the backend's"
        "Served to its end, by a backend that is not up: its cluster fails open."
        "`ringway ctl backends` tells why backends are down; `fail_open` sets below which share they are asked all the same.";
    QueueFull "QUEUE_FULL" "503"
        "The request waited for its turn, and more came than may wait."
        "The cluster is paused, or its backends have as many exchanges as they may. `ringway ctl resume`, or raise `max_conns`, or `queue.max`.";
    QueueTimeout "QUEUE_TIMEOUT" "503"
        "The request waited for its turn for too long."
        "The cluster is paused, or its backends have as many exchanges as they may. `ringway ctl resume`, or raise `max_conns`, or `queue.timeout`.";
    TlsHello "TLS_HELLO" "400"
        "A TLS handshake came to a listener that speaks clear text."
        "Have the client ask by http://, or put what ends TLS before this listener.";
    Http2Preface "HTTP2_PREFACE" "505"
        "The preface of HTTP/2 came to a listener that speaks HTTP/1.1."
        "Have the client, or what is before Ringway, speak HTTP/1.1.";
}

const _: () = assert!(CODES.len() <= limits::REASONS_MAX);

/// Why an exchange ended as it did: the reason code of its log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// Served to its end.
    #[default]
    Done,
    /// Served to its end, by a backend that is not up: its cluster fails open.
    FailOpen,
    /// The request was malformed or refused: the rule it broke.
    Rejected(Fault),
    /// The client did not send its head or body in time (408).
    ClientTimeout,
    /// The client sent its body slower than the least rate (408).
    ClientSlow,
    /// The client went away, or took no bytes in time.
    ClientAbort,
    /// The client closed within its request.
    ClientTruncated,
    /// The request body is larger than allowed (413).
    BodyTooLarge,
    /// No route for this host and path (404).
    NoRoute,
    /// No backend of the cluster is up (503).
    NoBackend,
    /// It waited for its turn, and more came than may wait (503).
    QueueFull,
    /// It waited for its turn for too long (503).
    QueueTimeout,
    /// No connection to any backend that was tried (502).
    ConnectFailed,
    /// No connection for want of descriptors, ports or memory here, or because a backend's queue is full (503).
    Busy,
    /// Connecting took too long (504).
    ConnectTimeout,
    /// The backend closed or reset before a response head (502).
    BackendClosed,
    /// No response head in time (504).
    BackendTimeout,
    /// The response head or its framing is malformed (502), or a body's chunks are (cut).
    BadResponse(Fault),
    /// The backend ended within a response body: the client was cut.
    BackendTruncated,
    /// The backend fell silent within a response body: the client was cut.
    BackendStalled,
    /// An upgrade's tunnel ended by itself.
    Tunnel,
    /// A tunnel was silent for too long.
    TunnelIdle,
    /// Cut at the end of a drain.
    Drained,
    /// Ringway answered by itself as the protocol asks (Max-Forwards).
    Own,
    /// Ringway answered on a listener's `health_path`.
    Health,
}

impl Reason {
    /// The code, as logs and metrics print it. [`Reason::detail`] tells more.
    pub fn code(self) -> &'static str {
        CODES[self.index()]
    }

    /// Its place in [`CODES`], and in the counters of [`crate::route::counts::Ends`].
    pub fn index(self) -> usize {
        self.listed() as usize
    }

    /// What the table says of it.
    pub fn listed(self) -> Code {
        match self {
            Reason::Done => Code::Ok,
            Reason::FailOpen => Code::FailOpen,
            // Another protocol on this port is nobody's malformed request: the operator has something to put right.
            Reason::Rejected(Fault::TlsHello) => Code::TlsHello,
            Reason::Rejected(Fault::Http2Preface) => Code::Http2Preface,
            Reason::Rejected(_) => Code::Rejected,
            Reason::ClientTimeout => Code::ClientTimeout,
            Reason::ClientSlow => Code::ClientSlow,
            Reason::ClientAbort => Code::ClientAbort,
            Reason::ClientTruncated => Code::ClientTruncated,
            Reason::BodyTooLarge => Code::BodyTooLarge,
            Reason::NoRoute => Code::NoRoute,
            Reason::NoBackend => Code::NoBackend,
            Reason::QueueFull => Code::QueueFull,
            Reason::QueueTimeout => Code::QueueTimeout,
            Reason::ConnectFailed => Code::ConnectFailed,
            Reason::Busy => Code::Busy,
            Reason::ConnectTimeout => Code::ConnectTimeout,
            Reason::BackendClosed => Code::BackendClosed,
            Reason::BackendTimeout => Code::BackendTimeout,
            Reason::BadResponse(_) => Code::BadResponse,
            Reason::BackendTruncated => Code::BackendTruncated,
            Reason::BackendStalled => Code::BackendStalled,
            Reason::Tunnel => Code::Tunnel,
            Reason::TunnelIdle => Code::TunnelIdle,
            Reason::Drained => Code::Drained,
            Reason::Own => Code::Own,
            Reason::Health => Code::Health,
        }
    }

    /// The exchange ended as it should: nobody failed, refused or gave up.
    pub fn is_regular(self) -> bool {
        matches!(self, Reason::Done | Reason::FailOpen | Reason::Health | Reason::Tunnel | Reason::Own)
    }

    /// The broken rule, where one was.
    pub fn fault(self) -> Option<Fault> {
        match self {
            Reason::Rejected(fault) | Reason::BadResponse(fault) => Some(fault),
            _ => None,
        }
    }

    /// The type of error that the field Proxy-Status tells (RFC 9209 section 2.3).
    pub fn proxy_error(self) -> &'static str {
        match self {
            Reason::NoRoute => "destination_not_found",
            Reason::NoBackend => "destination_unavailable",
            Reason::QueueFull | Reason::QueueTimeout | Reason::Busy => "connection_limit_reached",
            Reason::ConnectFailed => "connection_refused",
            Reason::ConnectTimeout => "connection_timeout",
            Reason::BackendClosed => "connection_terminated",
            Reason::BackendTimeout => "http_response_timeout",
            Reason::BadResponse(_) => "http_protocol_error",
            Reason::BackendTruncated | Reason::BackendStalled => "http_response_incomplete",
            Reason::Rejected(_) | Reason::BodyTooLarge => "http_request_error",
            Reason::ClientTimeout | Reason::ClientSlow | Reason::ClientAbort | Reason::ClientTruncated => {
                "http_request_error"
            }
            Reason::Done | Reason::FailOpen | Reason::Tunnel | Reason::TunnelIdle => "proxy_internal_response",
            Reason::Drained | Reason::Own | Reason::Health => "proxy_internal_response",
        }
    }

    /// One sentence for the body of an own answer.
    pub fn detail(self) -> &'static str {
        match self {
            Reason::Rejected(fault) => fault.describe(),
            Reason::ClientTimeout => "The request did not arrive in time.",
            Reason::ClientSlow => "The request body arrived too slowly.",
            Reason::ClientTruncated => "The request ended before it was complete.",
            Reason::BodyTooLarge => "The request body is larger than this application accepts.",
            Reason::NoRoute => "No application is configured under this name.",
            Reason::NoBackend => "The application has no running backend at the moment.",
            Reason::QueueFull => "Too many requests wait for the application.",
            Reason::QueueTimeout => "The application did not take the request in time.",
            Reason::ConnectFailed => "The application could not be reached.",
            Reason::Busy => "Too many connections are open at the moment.",
            Reason::ConnectTimeout => "The application could not be reached in time.",
            Reason::BackendClosed => "The application closed the connection without an answer.",
            Reason::BackendTimeout => "The application did not answer in time.",
            Reason::BadResponse(_) => "The application's answer was not valid HTTP.",
            Reason::Health => "Ringway is not ready for traffic.",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_where_their_reasons_say() {
        let fault = Fault::BareCr;
        for (reason, code) in [
            (Reason::Done, "OK"),
            (Reason::Rejected(fault), "REJECTED"),
            (Reason::Rejected(Fault::TlsHello), "TLS_HELLO"),
            (Reason::Rejected(Fault::Http2Preface), "HTTP2_PREFACE"),
            (Reason::NoBackend, "NO_BACKEND"),
            (Reason::BadResponse(fault), "BAD_RESPONSE"),
            (Reason::BackendStalled, "BACKEND_STALLED"),
            (Reason::Drained, "DRAINED"),
            (Reason::Own, "OWN"),
            (Reason::Health, "HEALTH"),
        ] {
            assert_eq!(reason.code(), code);
        }
        let mut codes = CODES.to_vec();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
    }

    #[test]
    fn of_each_code_is_told_what_it_means_and_what_to_do() {
        for code in Code::ALL {
            let told = [code.meaning(), code.cure()];
            assert!(told.iter().all(|text| text.ends_with('.') && text.matches('`').count() % 2 == 0), "{code:?}");
            assert!(code.name().bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'), "{code:?}");
        }
    }

    #[test]
    fn a_rejected_request_gets_a_status_that_the_table_names() {
        for fault in Fault::ALL {
            let (code, status) = (Reason::Rejected(*fault).listed(), fault.status().to_string());
            assert!(code.status().split(", ").any(|s| s == status), "{fault:?}: {status} is not told of {code:?}");
        }
    }
}
