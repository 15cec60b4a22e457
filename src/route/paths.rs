//! The path prefixes of one host, and the longest of them that matches.
//!
//! Prefixes stand sorted, and each knows its parent: the longest other prefix that it begins with, byte by byte. All
//! prefixes of a path that are in the list are the greatest one not above it in order, or that one's ancestors. So a
//! look-up is a binary search, one comparison, and a walk upwards in which each step looks at one byte: it depends on the
//! request only through that one comparison.

use std::cmp::Ordering;
use std::iter;

/// The path prefixes of one host, each with the number of its route.
#[derive(Debug)]
pub(super) enum Paths {
    /// Only `/`, as most hosts have.
    Root(u32),
    /// Any others, sorted.
    Many(Box<[Prefix]>),
}

#[derive(Debug)]
pub(super) struct Prefix {
    bytes: Box<[u8]>,
    parent: Option<u32>,
    route: u32,
}

/// A checked prefix and the number of its route.
pub(super) type NewPrefix = (Box<[u8]>, u32);

/// The path part of a route as it is matched: `/` for an empty one.
///
/// # Errors
/// Says why no request path can ever begin with it.
pub(super) fn check(path: &str) -> Result<&[u8], &'static str> {
    let path = path.as_bytes();
    match path {
        [] => Ok(b"/"),
        [b'/', ..] if path.iter().any(|b| matches!(b, b'?' | b'#')) => Err("routes look at the path only, up to `?`"),
        [b'/', ..] if path.iter().all(u8::is_ascii_graphic) => Ok(path),
        [b'/', ..] => Err("the path has bytes that a request cannot have; write them as %XX"),
        _ => Err("the path begins with `/`"),
    }
}

impl Paths {
    /// From checked prefixes and their routes, in any order, at least one.
    ///
    /// # Errors
    /// Pairs of routes that have the same prefix, the smaller number first.
    pub(super) fn build(mut prefixes: Vec<NewPrefix>) -> Result<Paths, Vec<(u32, u32)>> {
        prefixes.sort();
        let twice: Vec<_> = prefixes.windows(2).filter(|w| w[0].0 == w[1].0).map(|w| (w[0].1, w[1].1)).collect();
        if !twice.is_empty() {
            return Err(twice);
        }
        if let [(bytes, route)] = &prefixes[..]
            && **bytes == *b"/"
        {
            return Ok(Paths::Root(*route));
        }
        let mut sorted: Vec<Prefix> = Vec::with_capacity(prefixes.len());
        for (bytes, route) in prefixes {
            // The one before is a prefix of this one, or one of its ancestors is, or nothing is.
            let mut parent = sorted.len().checked_sub(1).map(|i| i as u32);
            while let Some(i) = parent
                && !bytes.starts_with(&sorted[i as usize].bytes)
            {
                parent = sorted[i as usize].parent;
            }
            sorted.push(Prefix { bytes, parent, route });
        }
        Ok(Paths::Many(sorted.into()))
    }

    /// The route of the longest prefix that matches; a path that does not begin with `/` is taken for `/`.
    #[inline]
    pub(super) fn find(&self, path: &[u8]) -> Option<usize> {
        match self {
            Paths::Root(route) => Some(*route as usize),
            Paths::Many(sorted) => longest(sorted, rooted(path)),
        }
    }

    /// The routes of all prefixes that match, the one that [`Paths::find`] finds first.
    pub(super) fn find_all(&self, path: &[u8]) -> Vec<usize> {
        match self {
            Paths::Root(route) => vec![*route as usize],
            Paths::Many(sorted) => matching(sorted, rooted(path)).collect(),
        }
    }

    /// All prefixes, in order.
    pub(super) fn prefixes(&self) -> Vec<&[u8]> {
        match self {
            Paths::Root(_) => vec![b"/"],
            Paths::Many(sorted) => sorted.iter().map(|prefix| &*prefix.bytes).collect(),
        }
    }

    /// All routes, by prefix.
    pub(super) fn routes(&self) -> Vec<usize> {
        match self {
            Paths::Root(route) => vec![*route as usize],
            Paths::Many(sorted) => sorted.iter().map(|prefix| prefix.route as usize).collect(),
        }
    }
}

fn rooted(path: &[u8]) -> &[u8] {
    if path.first() == Some(&b'/') { path } else { b"/" }
}

fn longest(sorted: &[Prefix], path: &[u8]) -> Option<usize> {
    matching(sorted, path).next()
}

/// The routes of all prefixes that match, the longest first.
#[inline]
fn matching<'a>(sorted: &'a [Prefix], path: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let behind = sorted.partition_point(|p| (*p.bytes).cmp(path) != Ordering::Greater);
    let mut next = behind.checked_sub(1);
    let common = next.map_or(0, |at| sorted[at].bytes.iter().zip(path).take_while(|(a, b)| a == b).count());
    iter::from_fn(move || {
        loop {
            let prefix = &sorted[next?];
            next = prefix.parent.map(|parent| parent as usize);
            let len = prefix.bytes.len();
            // Equal so far, and a segment ends here: by the prefix's own slash, the path's end, or the path's slash.
            if len <= common && (prefix.bytes.last() == Some(&b'/') || path.get(len).is_none_or(|b| *b == b'/')) {
                return Some(prefix.route as usize);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn build(prefixes: &[&str]) -> Paths {
        Paths::build(prefixes.iter().enumerate().map(|(i, p)| (p.as_bytes().into(), i as u32)).collect()).unwrap()
    }

    #[test]
    fn segment_boundaries() {
        let paths = build(&["/api", "/api/v1/", "/api-docs"]);
        for (path, route) in [
            ("/api", Some(0)),
            ("/api/", Some(0)),
            ("/api/x", Some(0)),
            ("/api/v1", Some(0)),
            ("/api/v1/", Some(1)),
            ("/api/v1/x", Some(1)),
            ("/api/v10", Some(0)),
            ("/api-docs", Some(2)),
            ("/api-docs/x", Some(2)),
            ("/api-", None),
            ("/apix", None),
            ("/API", None),
            ("/ap", None),
            ("/", None),
            ("", None),
            ("*", None),
        ] {
            assert_eq!(paths.find(path.as_bytes()), route, "{path}");
        }
    }

    #[test]
    fn root_takes_all() {
        for paths in [build(&["/"]), build(&["/", "/x"])] {
            for path in ["/", "", "*", "/a/b", "/xy"] {
                assert_eq!(paths.find(path.as_bytes()), Some(0), "{path}");
            }
        }
        assert_eq!(build(&["/x", "/"]).find(b"/x/y"), Some(0));
    }

    #[test]
    fn checks() {
        assert_eq!(check(""), Ok(&b"/"[..]));
        assert_eq!(check("/a%20b"), Ok(&b"/a%20b"[..]));
        for bad in ["a", "*", "/a b", "/a?b", "/a#b", "/\u{e9}", "/\n"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(Paths::build(vec![((*b"/a").into(), 0), ((*b"/a").into(), 1)]).unwrap_err(), vec![(0, 1)]);
    }

    /// What the documentation of `RouteTable::find` says, written down as directly as possible.
    fn naive(prefixes: &[String], path: &str) -> Option<usize> {
        let matches =
            |p: &str| path == p || path.starts_with(p) && (p.ends_with('/') || path.as_bytes()[p.len()] == b'/');
        (0..prefixes.len()).filter(|i| matches(&prefixes[*i])).max_by_key(|i| prefixes[*i].len())
    }

    proptest! {
        #[test]
        fn same_as_a_linear_search(prefixes in prop::collection::hash_set("/[ab/.-]{0,5}", 1..20), path in "/[ab/.-]{0,8}") {
            let prefixes: Vec<String> = prefixes.into_iter().collect();
            let built = Paths::build(prefixes.iter().enumerate().map(|(i, p)| (p.as_bytes().into(), i as u32)).collect());
            prop_assert_eq!(built.unwrap().find(path.as_bytes()), naive(&prefixes, &path));
        }
    }
}
