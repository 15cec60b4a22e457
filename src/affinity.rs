//! What of a request stays with one backend: the key for clusters that hash.

use crate::http::cookie;
use crate::http::head::RequestHead;
use crate::route::balance::hash_key;
use crate::route::table::{Balance, HashBy};
use std::net::IpAddr;

/// The key of this request; `None` where the cluster does not hash, or the request does not have what it hashes by.
/// `bytes` begins with the head.
#[inline]
pub fn key(balance: &Balance, head: &RequestHead, bytes: &[u8], client: Option<IpAddr>) -> Option<u64> {
    match balance {
        Balance::Hash(hash) => key_by(&hash.by, head, bytes, client),
        _ => None,
    }
}

fn key_by(by: &HashBy, head: &RequestHead, bytes: &[u8], client: Option<IpAddr>) -> Option<u64> {
    match by {
        HashBy::ClientIp => client.map(|ip| match ip.to_canonical() {
            IpAddr::V4(v4) => hash_key(&v4.octets()),
            IpAddr::V6(v6) => hash_key(&v6.octets()),
        }),
        HashBy::Path => {
            let path = head.path.of(bytes);
            Some(hash_key(if path.is_empty() { b"/" } else { path }))
        }
        HashBy::Header(name) => head.fields.named(bytes, name.as_bytes()).find(|v| !v.is_empty()).map(hash_key),
        HashBy::Cookie(name) => cookie::value(&head.fields, bytes, name.as_bytes()).map(hash_key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::Underscores;

    fn of(by: HashBy, target: &str, lines: &str, client: Option<&str>) -> Option<u64> {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut head = RequestHead::default();
        head.parse(bytes.as_bytes(), Underscores::Drop).unwrap();
        key_by(&by, &head, bytes.as_bytes(), client.map(|ip| ip.parse().unwrap()))
    }

    #[test]
    fn each_kind_has_its_key() {
        let header = |lines| of(HashBy::Header("X-Tenant".into()), "/", lines, None);
        assert_eq!(header("x-tenant: acme\r\n"), Some(hash_key(b"acme")));
        assert_eq!(header("X-Tenant:\r\nX-TENANT:  acme \r\nX-Tenant: other\r\n"), Some(hash_key(b"acme")));
        assert_eq!(header("X-Tenants: acme\r\n"), None);
        let cookie = |lines| of(HashBy::Cookie("id".into()), "/", lines, None);
        assert_eq!(cookie("Cookie: a=b; id=7\r\n"), Some(hash_key(b"7")));
        assert_eq!(cookie("X: id=7\r\n"), None);
        let path = |target| of(HashBy::Path, target, "", None);
        assert_eq!(path("/a/b?c"), Some(hash_key(b"/a/b")));
        assert_eq!(path("http://a?c"), path("/"));
        let client = |ip| of(HashBy::ClientIp, "/", "", ip);
        assert_eq!(client(Some("::ffff:10.0.0.1")), client(Some("10.0.0.1")));
        assert_ne!(client(Some("10.0.0.2")), client(Some("10.0.0.1")));
        assert_eq!(client(None), None);
    }

    #[test]
    fn others_have_none() {
        assert_eq!(key(&Balance::LeastConn, &RequestHead::default(), b"", None), None);
    }
}
