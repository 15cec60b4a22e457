//! The chunked coding (RFC 9112 section 7.1), strict and resumable at every byte.
