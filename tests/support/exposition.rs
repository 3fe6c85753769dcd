//! Reads the Prometheus text format, as far as the tests need it.

#![allow(clippy::expect_used, reason = "a page that cannot be read is a failed test")]

use std::collections::BTreeMap;

/// Every sample of a page: `name{labels}`, as written, and its value.
pub(crate) fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a sample is a series and a value");
        let value = value.parse().expect("a sample's value is a number");
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} is there twice");
    }
    samples
}

/// The name of every family with its type, from the `# TYPE` lines.
pub(crate) fn families(page: &str) -> BTreeMap<String, String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split_once(' ').expect("a TYPE line has a name and a type"))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}
