//! A strict reader of OpenMetrics text (version 1.0.0), which shares nothing with the product.

use std::collections::{BTreeMap, BTreeSet};

/// All series by name and labels, and the families with their types.
pub struct Metrics {
    pub families: BTreeMap<String, String>,
    series: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

/// A family while its lines come.
struct Family {
    name: String,
    kind: String,
    unit: Option<String>,
    helped: bool,
    sampled: bool,
}

impl Metrics {
    /// Reads a text, or fails at the first line that breaks a rule.
    pub fn read(text: &str) -> Metrics {
        let lines = text.strip_suffix("# EOF\n").expect("the last line is # EOF");
        assert!(lines.is_empty() || lines.ends_with('\n'), "a line without its end before # EOF");
        let mut metrics = Metrics { families: BTreeMap::new(), series: BTreeMap::new() };
        let mut family: Option<Family> = None;
        for line in lines.lines() {
            assert!(!line.is_empty() && !line.contains('\r'), "{line:?}");
            match line.strip_prefix("# ") {
                Some(said) => metrics.descriptor(said, &mut family),
                None => metrics.sample(line, family.as_mut().expect("a sample without a family")),
            }
        }
        metrics.histograms_agree();
        metrics
    }

    fn descriptor(&mut self, said: &str, current: &mut Option<Family>) {
        let mut words = said.splitn(3, ' ');
        let (what, name, rest) = (words.next().unwrap(), words.next().expect("a name"), words.next().expect("a text"));
        assert!(is_name(name, true), "{said}");
        if current.as_ref().is_none_or(|family| family.name != name) {
            let new = self.families.insert(name.into(), "unknown".into()).is_none();
            assert!(new, "the lines of {name} do not stand together");
            let (name, kind) = (name.to_owned(), "unknown".to_owned());
            *current = Some(Family { name, kind, unit: None, helped: false, sampled: false });
        }
        let family = current.as_mut().expect("set above");
        assert!(!family.sampled, "{said}: behind its samples");
        match what {
            "HELP" => assert!(!std::mem::replace(&mut family.helped, true), "{said}: twice"),
            "TYPE" => {
                assert!(["counter", "gauge", "histogram", "info", "stateset"].contains(&rest), "{said}");
                assert_eq!(family.kind, "unknown", "{said}: twice");
                family.kind = rest.into();
                self.families.insert(name.into(), rest.into());
            }
            "UNIT" => {
                assert!(name.ends_with(&format!("_{rest}")), "{said}: the unit is no suffix of the name");
                assert!(family.unit.replace(rest.into()).is_none(), "{said}: twice");
            }
            _ => panic!("{said}: neither HELP nor TYPE nor UNIT"),
        }
    }

    fn sample(&mut self, line: &str, family: &mut Family) {
        family.sampled = true;
        let name_end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}: no value"));
        let (name, rest) = line.split_at(name_end);
        assert!(is_name(name, true), "{line}");
        let (labels, rest) = if rest.starts_with('{') { labels(rest) } else { (BTreeMap::new(), rest) };
        let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}: no space before the value"));
        assert!(!value.contains(' '), "{line}: neither timestamps nor exemplars are given");
        let value = number(value).unwrap_or_else(|| panic!("{line}: no number"));
        let suffix =
            name.strip_prefix(family.name.as_str()).unwrap_or_else(|| panic!("{line}: not of {}", family.name));
        match (family.kind.as_str(), suffix) {
            ("counter", "_total") | ("histogram", "_count" | "_sum") => assert!(value >= 0.0, "{line}"),
            ("histogram", "_bucket") => assert!(labels.contains_key("le") && value >= 0.0, "{line}"),
            ("info", "_info") => assert!(value == 1.0, "{line}"),
            ("gauge", "") => {}
            (kind, _) => panic!("{line}: no sample of a {kind}"),
        }
        assert!(suffix == "_bucket" || !labels.contains_key("le"), "{line}");
        let twice = self.series.insert((name.into(), labels), value);
        assert!(twice.is_none(), "{line}: the series stands twice");
    }

    /// Buckets rise, end in +Inf, and the last is the count.
    fn histograms_agree(&self) {
        for (family, _) in self.families.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut buckets: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
            for ((_, labels), value) in self.series.iter().filter(|((name, _), _)| *name == format!("{family}_bucket"))
            {
                let mut labels = labels.clone();
                let bound = number(&labels.remove("le").expect("checked")).expect("a number");
                buckets.entry(labels).or_default().push((bound, *value));
            }
            let of = |suffix: &str| -> BTreeSet<&BTreeMap<String, String>> {
                let name = format!("{family}{suffix}");
                self.series.keys().filter(|(n, _)| *n == name).map(|(_, labels)| labels).collect()
            };
            assert_eq!(of("_count"), buckets.keys().collect());
            assert_eq!(of("_sum"), buckets.keys().collect());
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{family} {labels:?}: {buckets:?}");
                let last = buckets.last().expect("one at least");
                let count = self.series[&(format!("{family}_count"), labels)];
                assert!(last.0 == f64::INFINITY && last.1 == count, "{family}: {last:?} {count}");
            }
        }
    }

    /// The sum of all series of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).map(|(_, value)| value).sum()
    }

    /// The value of the one series of this name that has these labels.
    pub fn one(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found: Vec<_> = self.find(name, labels).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0].1
    }

    fn find<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = (&'a BTreeMap<String, String>, f64)> {
        let has = |own: &BTreeMap<String, String>| labels.iter().all(|(k, v)| own.get(*k).is_some_and(|own| own == v));
        self.series.iter().filter(move |((n, own), _)| n == name && has(own)).map(|((_, own), value)| (own, *value))
    }

    /// The names of the labels that the series of a family have, `le` left out.
    pub fn labels_of(&self, family: &str) -> BTreeSet<String> {
        let kind = &self.families[family];
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "histogram" => &["_bucket"],
            "info" => &["_info"],
            _ => &[""],
        };
        let names: Vec<String> = suffixes.iter().map(|suffix| format!("{family}{suffix}")).collect();
        let of = self.series.keys().filter(|(name, _)| names.contains(name));
        of.flat_map(|(_, labels)| labels.keys().cloned()).filter(|label| label != "le").collect()
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        // Rust's parser knows words that OpenMetrics does not.
        text if text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) => text.parse().ok(),
        _ => None,
    }
}

/// The labels at the begin of a text, and what stands behind them.
fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    let mut rest = &text[1..];
    loop {
        let (name, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("{text}: no label"));
        assert!(is_name(name, false), "{text}");
        let mut value = String::new();
        let mut chars = behind.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("{text}: a value without an end")) {
                (at, '"') => break at,
                (_, '\\') => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    other => panic!("{text}: {other:?} is no escape"),
                },
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{text}: {name} twice");
        rest = &behind[end + 1..];
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", more) => return (labels, more),
            _ => panic!("{text}: neither , nor }}"),
        }
    }
}

#[test]
fn the_reader_reads_and_refuses() {
    let good = "# HELP a_seconds b c\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
                a_seconds_sum{x=\"\\\"\\\\\\n,}\"} 1.5\na_seconds_count{x=\"\\\"\\\\\\n,}\"} 2\n\
                a_seconds_bucket{x=\"\\\"\\\\\\n,}\",le=\"1.0\"} 1\na_seconds_bucket{le=\"+Inf\",x=\"\\\"\\\\\\n,}\"} 2\n\
                # TYPE b counter\nb_total 1\n# EOF\n";
    let read = Metrics::read(good);
    assert_eq!(read.one("a_seconds_bucket", &[("x", "\"\\\n,}"), ("le", "1.0")]), 1.0);
    assert_eq!(read.families.len(), 2);
    for (from, to) in [
        ("# EOF\n", ""),
        ("b_total 1\n", "b 1\n"),
        ("b_total 1\n", "b_total 1\nb_total 1\n"),
        ("b_total 1\n", "b_total -1\n"),
        ("b_total 1\n", "b_total x\n"),
        ("b_total 1\n", "b_total{} 1\n"),
        ("b_total 1\n", "\nb_total 1\n"),
        ("b_total 1\n", "c_total 1\n"),
        ("b_total 1\n", "b_total 1\n# TYPE a_seconds histogram\n"),
        ("b counter", "b counted"),
        ("_count{x=\"\\\"\\\\\\n,}\"} 2", "_count{x=\"\\\"\\\\\\n,}\"} 3"),
        ("# UNIT a_seconds seconds", "# UNIT a_seconds bytes"),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replace(from, to);
        assert!(std::panic::catch_unwind(|| Metrics::read(&bad)).is_err(), "{from:?} as {to:?}");
    }
}
