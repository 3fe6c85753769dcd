//! The files that are shipped for Prometheus and Grafana, and the page that they are about.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use super::support::relay::Relay;
use super::{exposition, yaml};

pub(crate) const RULES: &str = "packaging/prometheus/rules.yml";
pub(crate) const RULES_TEST: &str = "packaging/prometheus/rules_test.yml";
pub(crate) const AGENT: &str = "packaging/prometheus/agent.yml";
pub(crate) const DASHBOARD: &str = "packaging/grafana/dashboard.json";
pub(crate) const ALERTS: &str = "docs/alerts.md";
pub(crate) const RUNBOOK: &str = "file:///usr/share/doc/pyrycode-relay/docs/alerts.md#";

/// Where a file of the repository is.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What is in it.
pub(crate) fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// The same as values.
pub(crate) fn yaml_of(name: &str) -> Value {
    yaml::read(&text(name)).unwrap()
}

/// The items of an array.
pub(crate) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("an array").iter()
}

/// A text.
pub(crate) fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Every rule of `rules.yml` that has this key: `alert` or `record`.
pub(crate) fn rules(key: &str) -> Vec<Value> {
    let file = yaml_of(RULES);
    let all = items(&file["groups"]).flat_map(|group| items(&group["rules"]));
    all.filter(|rule| rule.get(key).is_some()).cloned().collect()
}

/// The names of those.
pub(crate) fn names(key: &str) -> Vec<String> {
    rules(key).iter().map(|rule| string(&rule[key]).to_owned()).collect()
}

/// One page of a relay that has just started.
pub(crate) fn page() -> &'static str {
    static PAGE: OnceLock<String> = OnceLock::new();
    PAGE.get_or_init(|| {
        let relay = Relay::start();
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = Relay::http(relay.metrics_address, request);
        let page = answer.split_once("\r\n\r\n").expect("a head").1.to_owned();
        assert!(exposition::families(&page).len() > 25 && exposition::samples(&page).len() > 100, "{page}");
        page
    })
}

/// Every object in the dashboard that has a query: panels' targets and annotations.
pub(crate) fn queries(value: &Value) -> Vec<&Value> {
    let inner: Vec<&Value> = match value {
        Value::Array(values) => values.iter().flat_map(queries).collect(),
        Value::Object(members) => members.values().flat_map(queries).collect(),
        _ => Vec::new(),
    };
    let own = value.get("expr").is_some().then_some(value);
    own.into_iter().chain(inner).collect()
}
