//! Which rule takes a request, and why the others that fit it do not: the order of [`RouteTable::find`], told.

use super::host;
use super::paths::Paths;
use super::table::{Route, RouteTable};
use crate::limits::HOST_BYTES_MAX;

/// The rule that takes a request, and what else was there for it.
#[derive(Debug, Default)]
pub struct Trace<'a> {
    /// What [`RouteTable::find`] finds.
    pub taken: Option<&'a Route>,
    /// The others that fit host and path, the closest first.
    pub beaten: Vec<(&'a Route, Beaten)>,
    /// Where none is taken: the rules of the closest host, none of which fits the path. That host decides alone.
    pub missed: Vec<&'a Route>,
}

/// What was better than a rule that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beaten {
    /// A longer path with the same host.
    Path,
    /// A closer host, whether or not it has a rule for the path.
    Host,
}

impl RouteTable {
    /// Why [`RouteTable::find`] finds what it finds. For people: it allocates.
    pub fn trace(&self, host: &[u8], path: &[u8]) -> Trace<'_> {
        let mut trace = Trace { taken: self.find(host, path), ..Trace::default() };
        let hosts = self.hosts(host);
        for (nth, paths) in hosts.iter().enumerate() {
            let routes = paths.find_all(path).into_iter().filter_map(|i| self.routes().get(i));
            let why = if nth == 0 { Beaten::Path } else { Beaten::Host };
            let others = routes.filter(|route| trace.taken.is_none_or(|taken| !std::ptr::eq(taken, *route)));
            trace.beaten.extend(others.map(|route| (route, why)));
        }
        if let (None, Some(paths)) = (trace.taken, hosts.first()) {
            trace.missed = paths.routes().into_iter().filter_map(|i| self.routes().get(i)).collect();
        }
        trace
    }

    /// The rules of all hosts that fit, the closest host first: its own, wildcards by length, the default.
    fn hosts(&self, host: &[u8]) -> Vec<&Paths> {
        let mut buffer = [0; HOST_BYTES_MAX];
        let mut found = Vec::new();
        if let Some(key) = host::key(host, &mut buffer) {
            found.extend(self.exact.get(key));
            found.extend(host::suffixes(key).filter_map(|(_, suffix)| self.wildcards.get(suffix)));
        }
        found.extend(&self.default);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::tests::cluster;
    use crate::route::table::{Balance, NewRoute};
    use proptest::prelude::*;

    fn table(names: &[String]) -> RouteTable {
        let cluster = std::sync::Arc::new(cluster(0, Balance::RoundRobin, 0, &[1]));
        let route = |name: &String| {
            let at = name.find('/').unwrap_or(name.len());
            let (host, path) = name.split_at(at);
            NewRoute { name: name.clone(), host: host.into(), path: path.into(), cluster: cluster.clone() }
        };
        RouteTable::build(vec![cluster.clone()], names.iter().map(route).collect()).unwrap()
    }

    fn told(table: &RouteTable, host: &str, path: &str) -> (Option<String>, Vec<(String, Beaten)>, Vec<String>) {
        let trace = table.trace(host.as_bytes(), path.as_bytes());
        let beaten = trace.beaten.iter().map(|(route, why)| (route.name.clone(), *why)).collect();
        (trace.taken.map(|r| r.name.clone()), beaten, trace.missed.iter().map(|r| r.name.clone()).collect())
    }

    #[test]
    fn each_rule_that_fits_is_told_with_what_was_better() {
        let names = ["a.b.c/x/y", "a.b.c/x", "a.b.c/z", "*.b.c/", "*.c/x", "*.x.b.c/", "*"].map(String::from);
        let table = table(&names);
        let beaten = |list: &[(&str, Beaten)]| list.iter().map(|(n, b)| (n.to_string(), *b)).collect::<Vec<_>>();
        let (taken, others, missed) = told(&table, "A.b.c.", "/x/y/z");
        assert_eq!(taken.as_deref(), Some("a.b.c/x/y"));
        let all = [("a.b.c/x", Beaten::Path), ("*.b.c/", Beaten::Host), ("*.c/x", Beaten::Host), ("*", Beaten::Host)];
        assert_eq!((others, missed), (beaten(&all), vec![]));
        // A host decides alone, also where it has nothing.
        let (taken, others, missed) = told(&table, "a.b.c", "/");
        assert_eq!((taken, others), (None, beaten(&[("*.b.c/", Beaten::Host), ("*", Beaten::Host)])));
        assert_eq!(missed, ["a.b.c/x", "a.b.c/x/y", "a.b.c/z"]);
        assert_eq!(told(&table, "", "/"), (Some("*".into()), vec![], vec![]));
        // The last bytes of this address are those of ".c".
        assert_eq!(told(&table, "[::2e63]", "/x"), (Some("*".into()), vec![], vec![]));
    }

    proptest! {
        #[test]
        fn the_rule_that_is_taken_fits_and_is_not_among_the_beaten(
            names in proptest::collection::btree_set("(a|b|[*])([.](a|b)){0,3}(/[ab]{1,2}){0,3}/?", 1..12),
            host in "(a|b)([.](a|b)){0,3}",
            path in "(/[ab]{1,2}){0,4}/?",
        ) {
            let fold = |name: &String| if name.contains('/') { name.clone() } else { format!("{name}/") };
            let names: std::collections::BTreeSet<String> = names.iter().map(fold).collect();
            let names: Vec<String> = names.into_iter().collect();
            let table = table(&names);
            let trace = table.trace(host.as_bytes(), path.as_bytes());
            let rooted = if path.is_empty() { "/" } else { &path };
            // By the letter of the rule, one by one.
            let fits = |name: &String| {
                let (of, prefix) = name.split_at(name.find('/').unwrap());
                let host_fits = of == "*" || of == host || of.strip_prefix('*').is_some_and(|s| host.ends_with(s) && host.len() > s.len());
                let behind = rooted.strip_prefix(prefix);
                host_fits && behind.is_some_and(|b| b.is_empty() || b.starts_with('/') || prefix.ends_with('/'))
            };
            let mut told: Vec<&String> = trace.taken.iter().map(|r| &r.name).chain(trace.beaten.iter().map(|(r, _)| &r.name)).collect();
            told.sort();
            prop_assert_eq!(told, names.iter().filter(|name| fits(name)).collect::<Vec<_>>());
            prop_assert_eq!(trace.taken.map(|r| &r.name), table.find(host.as_bytes(), path.as_bytes()).map(|r| &r.name));
        }
    }
}
