//! Two tables taken apart into classes of requests that each treats alike: what a change of routes means, exactly.
//!
//! A host belongs to the closest pattern that either table has for it, a path to the longest prefix that either table has
//! for that host. All requests of one such pair are led alike by the old table, and alike by the new one: both look-ups
//! depend only on which of these patterns and prefixes fit, and those that fit are the same for all of them.

use super::host::{self, Pattern};
use super::paths::Paths;
use super::table::{Route, RouteTable};
use std::collections::BTreeSet;
use std::net::Ipv6Addr;

/// Requests that each of the two tables treats alike.
#[derive(Debug)]
pub struct Class<'a> {
    /// The host pattern, in lower case: exact name, `*.suffix`, `*`, or an IPv6 literal in brackets.
    pub host: String,
    /// The path prefix, `/` at least.
    pub path: String,
    /// The route of the old table.
    pub was: Option<&'a Route>,
    /// The route of the new one.
    pub is: Option<&'a Route>,
}

impl Class<'_> {
    /// As a key of `routes` is written.
    pub fn name(&self) -> String {
        format!("{}{}", self.host, if self.path == "/" { "" } else { &self.path })
    }
}

/// All classes of these two tables, by host and path. Requests that are in none are led nowhere by both.
pub fn classes<'a>(old: &'a RouteTable, new: &'a RouteTable) -> Vec<Class<'a>> {
    let mut patterns: Vec<Pattern> = [old, new].into_iter().flat_map(RouteTable::patterns).collect();
    patterns.sort_by_cached_key(shown);
    patterns.dedup();
    let mut classes = Vec::with_capacity(patterns.len());
    for pattern in &patterns {
        let (was, is) = (old.closest(pattern), new.closest(pattern));
        let prefixes: BTreeSet<&[u8]> = [was, is].into_iter().flatten().flat_map(Paths::prefixes).collect();
        for prefix in prefixes {
            // A prefix is itself a path of its class.
            let route = |table: &'a RouteTable, paths: Option<&Paths>| table.routes().get(paths?.find(prefix)?);
            classes.push(Class {
                host: shown(pattern),
                path: String::from_utf8_lossy(prefix).into_owned(),
                was: route(old, was),
                is: route(new, is),
            });
        }
    }
    classes
}

fn shown(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Exact(key) => match key.strip_prefix(b"[").and_then(|octets| <[u8; 16]>::try_from(octets).ok()) {
            Some(octets) => format!("[{}]", Ipv6Addr::from(octets)),
            None => String::from_utf8_lossy(key).into_owned(),
        },
        Pattern::Wildcard(suffix) => format!("*.{}", String::from_utf8_lossy(suffix)),
        Pattern::Default => "*".to_owned(),
    }
}

impl RouteTable {
    fn patterns(&self) -> impl Iterator<Item = Pattern> {
        let exact = self.exact.keys().cloned().map(Pattern::Exact);
        let wildcards = self.wildcards.keys().cloned().map(Pattern::Wildcard);
        exact.chain(wildcards).chain(self.default.iter().map(|_| Pattern::Default))
    }

    /// The rules for hosts of this pattern that no closer one takes.
    fn closest(&self, pattern: &Pattern) -> Option<&Paths> {
        let suffix_of = |key: &[u8]| host::suffixes(key).find_map(|(_, suffix)| self.wildcards.get(suffix));
        let found = match pattern {
            Pattern::Exact(key) => self.exact.get(key).or_else(|| suffix_of(key)),
            Pattern::Wildcard(suffix) => self.wildcards.get(suffix).or_else(|| suffix_of(suffix)),
            Pattern::Default => None,
        };
        found.or(self.default.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::{Balance, NewRoute, tests::cluster};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn table(routes: &BTreeMap<String, u32>) -> RouteTable {
        let all: Vec<_> = (0..3).map(|id| Arc::new(cluster(id, Balance::RoundRobin, id as usize, &[1]))).collect();
        let route = |(name, to): (&String, &u32)| {
            let (host, path) = name.split_at(name.find('/').unwrap_or(name.len()));
            NewRoute { name: name.clone(), host: host.into(), path: path.into(), cluster: all[*to as usize].clone() }
        };
        RouteTable::build(all.clone(), routes.iter().map(route).collect()).unwrap()
    }

    fn of(list: &[(&str, u32)]) -> RouteTable {
        table(&list.iter().map(|(name, to)| (name.to_string(), *to)).collect())
    }

    fn differing(old: &RouteTable, new: &RouteTable) -> Vec<(String, String)> {
        let to = |route: Option<&Route>| route.map_or("-".to_owned(), |route| route.cluster.name.clone());
        let all = classes(old, new);
        let differ = all.iter().filter(|c| to(c.was) != to(c.is));
        differ.map(|c| (c.name(), format!("{} {}", to(c.was), to(c.is)))).collect()
    }

    #[test]
    fn a_class_is_what_no_closer_rule_takes() {
        let old = of(&[("*.b.c", 0), ("x.b.c/api", 1), ("*", 2), ("[::1]", 0)]);
        let new = of(&[("*.b.c", 0), ("*.c/api", 1), ("x.b.c", 1), ("y.b.c", 0), ("[0::1]", 0)]);
        let pair = |name: &str, change: &str| (name.to_owned(), change.to_owned());
        assert_eq!(
            differing(&old, &new),
            [pair("*", "c2 -"), pair("*.c", "c2 -"), pair("*.c/api", "c2 c1"), pair("x.b.c", "- c1")]
        );
        assert!(differing(&old, &old).is_empty());
    }

    proptest! {
        /// One by one: each request of a small world is led elsewhere if and only if its class is said to be.
        #[test]
        fn as_brute_force_finds_it(
            old in routes(),
            new in routes(),
        ) {
            let (old, new) = (table(&old), table(&new));
            let all = classes(&old, &new);
            // The classes as a table of their own: whoever finds a class there is of it.
            let to = Arc::new(cluster(0, Balance::RoundRobin, 0, &[1]));
            let named = |(i, c): (usize, &Class)| NewRoute {
                name: format!("{i:04}"),
                host: c.host.clone(),
                path: c.path.clone(),
                cluster: to.clone(),
            };
            let index = RouteTable::build(vec![to.clone()], all.iter().enumerate().map(named).collect()).unwrap();
            for host in hosts() {
                for path in paths() {
                    let find = |t: &RouteTable| t.find(host.as_bytes(), path.as_bytes()).map(|r| r.name.clone());
                    let class = find(&index).map(|name| &all[name.parse::<usize>().unwrap()]);
                    let name = |route: Option<&Route>| route.map(|route| route.name.clone());
                    prop_assert_eq!(class.and_then(|c| name(c.was)), find(&old), "{} {}", host, path);
                    prop_assert_eq!(class.and_then(|c| name(c.is)), find(&new), "{} {}", host, path);
                }
            }
        }
    }

    fn routes() -> impl Strategy<Value = BTreeMap<String, u32>> {
        let fold = |(name, to): (String, u32)| (if name.contains('/') { name } else { name + "/" }, to);
        proptest::collection::vec(("(a|b|[*])([.](a|b)){0,2}(/[ab]{1,2}){0,2}/?", 0..3u32), 1..12)
            .prop_map(move |list| list.into_iter().map(fold).collect())
    }

    fn hosts() -> Vec<String> {
        let mut all = vec![String::new(), "z".into(), "[::1]".into()];
        let labels = ["a", "b", "z"];
        for depth in 1..=4 {
            for n in 0..3_usize.pow(depth) {
                let nth = (0..depth).map(|i| labels[n / 3_usize.pow(i) % 3]);
                all.push(nth.collect::<Vec<_>>().join("."));
            }
        }
        all
    }

    fn paths() -> Vec<String> {
        let parts = ["", "/", "/a", "/b", "/ab", "/aa", "/z"];
        let mut all = vec![String::new()];
        for _ in 0..3 {
            all = all.iter().flat_map(|before| parts.map(|part| format!("{before}{part}"))).collect();
        }
        all
    }
}
