//! The operators' page about metrics says what is there, no more and no less.

#[path = "support/exposition.rs"]
mod exposition;

use std::collections::BTreeSet;
use std::sync::Arc;

use pyrycode_relay::metrics::families::Families;
use pyrycode_relay::relay::observer::{Census, Counts};

const PAGE: &str = include_str!("../docs/metrics.md");

struct Nobody;

impl Census for Nobody {
    fn count(&self) -> Counts {
        Counts::default()
    }
}

fn exposed() -> String {
    Families::new(Arc::new(Nobody)).and_then(|families| families.encode()).unwrap_or_default()
}

/// Every word of the page that a metric could be called.
fn words() -> BTreeSet<&'static str> {
    PAGE.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect()
}

#[test]
fn every_family_is_on_the_page() {
    let families = exposition::families(&exposed());
    let words = words();
    let missing: Vec<_> = families.keys().filter(|name| !words.contains(name.as_str())).collect();
    assert!(families.len() > 15, "{families:?}");
    assert!(missing.is_empty(), "docs/metrics.md does not say what these are: {missing:?}");
}

#[test]
fn every_name_on_the_page_exists() {
    let page = exposed();
    let mut names: BTreeSet<String> = exposition::families(&page).into_keys().collect();
    let series = exposition::samples(&page).into_keys();
    names.extend(series.map(|series| series.split('{').next().unwrap_or_default().to_owned()));
    let named: Vec<_> = words()
        .into_iter()
        .filter(|word| {
            let own = word.strip_prefix("pyrycode_relay_").is_some_and(|rest| !rest.is_empty());
            own || word.strip_prefix("process_").is_some_and(|rest| !rest.is_empty())
        })
        .collect();
    let unknown: Vec<_> = named.iter().filter(|word| !names.contains(**word)).collect();
    assert!(named.len() > 15, "{named:?}");
    assert!(unknown.is_empty(), "docs/metrics.md names what is not there: {unknown:?}");
}

#[test]
fn the_type_and_every_label_value_are_on_the_page() {
    let page = exposed();
    let families = exposition::families(&page);
    let types = [("counter", "Counter"), ("gauge", "Gauge"), ("histogram", "Histogram")];
    for (name, kind) in families.iter().filter(|(name, _)| name.starts_with("pyrycode_relay_")) {
        let section = PAGE.split(&format!("### `{name}`\n\n")).nth(1).unwrap_or_default();
        let word = types.iter().find(|(kind_name, _)| kind_name == kind).map_or("no type", |(_, word)| word);
        assert!(section.starts_with(word), "{name} is a {kind}");
    }
    let values: BTreeSet<String> = exposition::samples(&page)
        .into_keys()
        .filter(|series| !series.contains("le=") && !series.contains("build_info"))
        .flat_map(|series| series.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let missing: Vec<_> = values.iter().filter(|value| !PAGE.contains(&format!("`{value}`"))).collect();
    assert!(missing.is_empty(), "docs/metrics.md does not explain these label values: {missing:?}");
}
