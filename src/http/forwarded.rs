//! Who the client is: X-Forwarded-For behind trusted proxies.

use super::field;
use super::head::{Known, RequestHead};
use std::net::{IpAddr, SocketAddr};

/// The client's address: the peer, or if the peer is trusted the rightmost untrusted address of the X-Forwarded-For
/// chain (all fields in order, the peer last). A part that is no address ends the walk at the last good one.
///
/// IPv4 addresses inside IPv6 ones are taken for what they are. Without a peer (Unix listeners) there is nobody to trust,
/// and no client.
pub fn client(
    head: &RequestHead,
    bytes: &[u8],
    peer: Option<IpAddr>,
    trusted: &dyn Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut client = peer?.to_canonical();
    for field in head.fields.all(Known::XForwardedFor).rev() {
        for member in field::members(field.value.of(bytes)).rev() {
            if !trusted(client) {
                return Some(client);
            }
            match address(member) {
                Some(before) => client = before,
                None => return Some(client),
            }
        }
    }
    Some(client)
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80`: what proxies write.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Underscores;

    fn client_of(peer: &str, fields: &str) -> String {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        head.parse(&bytes, Underscores::Drop).unwrap();
        let trusted = |ip: IpAddr| ip.to_string().starts_with("10.") || ip.is_loopback();
        client(&head, &bytes, Some(peer.parse().unwrap()), &trusted).unwrap().to_string()
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        assert_eq!(client_of("1.1.1.1", "X-Forwarded-For: 2.2.2.2\r\n"), "1.1.1.1");
        assert_eq!(client_of("10.0.0.1", ""), "10.0.0.1");
        assert_eq!(client_of("10.0.0.1", "X-Forwarded-For: 2.2.2.2\r\n"), "2.2.2.2");
        assert_eq!(client_of("::ffff:10.0.0.1", "X-Forwarded-For: 2.2.2.2\r\n"), "2.2.2.2");
        assert_eq!(client_of("10.0.0.1", "X-Forwarded-For: 3.3.3.3, 2.2.2.2 ,10.0.0.9\r\n"), "2.2.2.2");
        assert_eq!(client_of("10.0.0.1", "X-Forwarded-For: 3.3.3.3\r\nX-Forwarded-For: 2.2.2.2\r\n"), "2.2.2.2");
        assert_eq!(client_of("10.0.0.1", "X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n"), "10.0.0.3");
        assert_eq!(client_of("10.0.0.1", "X-Forwarded-For: 3.3.3.3, junk, 10.0.0.2\r\n"), "10.0.0.2");
        assert_eq!(client_of("10.0.0.1", "X-Forwarded-For: 2001:db8::1\r\n"), "2001:db8::1");
        assert_eq!(client_of("10.0.0.1", "X-Forwarded-For: [2001:db8::1]:99\r\n"), "2001:db8::1");
        assert_eq!(client_of("10.0.0.1", "X-Forwarded-For: 4.4.4.4:99, [::1]\r\n"), "4.4.4.4");
        assert_eq!(client_of("10.0.0.1", "X_Forwarded_For: 4.4.4.4\r\n"), "10.0.0.1");
    }

    #[test]
    fn nobody_is_trusted_on_a_unix_listener() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n";
        let mut head = RequestHead::default();
        head.parse(bytes, Underscores::Drop).unwrap();
        assert_eq!(client(&head, bytes, None, &|_| true), None);
    }
}
