//! What the page was asked for: the query of its address, as its forms write it.

use crate::explain::Question;
use std::net::{IpAddr, Ipv4Addr};

/// The query, understood. What is not known in it is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Only clusters whose name contains this.
    pub find: String,
    /// A method to be explained.
    pub method: String,
    /// A URL to be explained; nothing is asked without one.
    pub url: String,
    /// Whom the request comes from.
    pub from: String,
    /// Its fields, one a line.
    pub fields: String,
}

impl Asked {
    /// Reads a query, without its `?`.
    pub fn parse(query: &[u8]) -> Asked {
        let mut asked = Asked::default();
        for (key, value) in form_urlencoded::parse(query) {
            let place = match &*key {
                "find" => &mut asked.find,
                "method" => &mut asked.method,
                "url" => &mut asked.url,
                "from" => &mut asked.from,
                "fields" => &mut asked.fields,
                _ => continue,
            };
            *place = value.trim().to_owned();
        }
        asked
    }

    /// The question of the explain box, if there is one.
    pub fn question(&self) -> Option<Result<Question, String>> {
        if self.url.is_empty() {
            return None;
        }
        let method = if self.method.is_empty() { "GET" } else { &self.method };
        let from = match self.from.as_str() {
            "" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            text => text.parse().map_err(|_| format!("{text:?} is no IP address")),
        };
        let fields: Vec<String> =
            self.fields.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Some(from.and_then(|from| Question::new(method, &self.url, &fields, from)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_forms_write_it() {
        let asked =
            Asked::parse(b"find=%20app+1&url=http%3A%2F%2Fa.test%2Fx&fields=A%3A+1%0D%0A%0D%0AB%3A2&x=y&%zz&find");
        assert_eq!((asked.find.as_str(), asked.url.as_str()), ("", "http://a.test/x"));
        let question = asked.question().expect("a question").expect("a good one");
        assert_eq!(question.head, b"GET /x HTTP/1.1\r\nHost: a.test\r\nA: 1\r\nB:2\r\n\r\n");
        assert_eq!(question.peer, IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(Asked::parse(b"find=x").question().is_none());
        for (bad, why) in [("url=a&from=b", "no IP address"), ("url=a&fields=b", "no field"), ("url=ftp://a", "ftp")] {
            let refused = Asked::parse(bad.as_bytes()).question().expect("a question").expect_err(bad);
            assert!(refused.contains(why), "{bad}: {refused}");
        }
    }
}
