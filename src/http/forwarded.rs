//! Who the client is: X-Forwarded-For behind trusted proxies.

use super::head::RequestHead;
use std::net::IpAddr;

/// The client's address: the peer, or if the peer is trusted the rightmost untrusted address of the X-Forwarded-For
/// chain (all fields in order, the peer last). A part that is no address ends the walk at the last good one.
pub fn client(
    _head: &RequestHead,
    _bytes: &[u8],
    peer: Option<IpAddr>,
    _trusted: &dyn Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let _ = peer;
    todo!()
}
