//! `promtool` is content with what is shipped for Prometheus, and its tests of the rules notice what is wrong with one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails the test, with its line"
)]

#[path = "support/exposition.rs"]
mod exposition;
#[path = "support/shipped.rs"]
mod shipped;
mod support;
#[path = "support/yaml.rs"]
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use shipped::{
    AGENT, DASHBOARD, RULES, RULES_TEST, items, names, page, path, queries, rules, string, text, yaml_of,
};
use support::programs::ran;

/// `promtool` with these arguments. `None` if it is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let said = ran("promtool", arguments, input);
    if said.is_none() {
        eprintln!("promtool is not installed; not run: promtool {}", arguments.join(" "));
    }
    said
}

#[test]
fn promtool_accepts_the_agent_and_the_rules() {
    let [agent, rules, tests] = [AGENT, RULES, RULES_TEST].map(|name| path(name).display().to_string());
    for arguments in
        [&["check", "config", "--agent", &agent][..], &["check", "rules", &rules], &["test", "rules", &tests]]
    {
        let Some((content, said)) = promtool(arguments, "") else { return };
        assert!(content && said.contains("SUCCESS"), "{arguments:?}: {said}");
    }
}

#[test]
fn an_agent_may_not_have_rules() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.yml");
    std::fs::write(&file, format!("{}\nrule_files:\n  - rules.yml\n", text(AGENT))).unwrap();
    let Some((content, said)) = promtool(&["check", "config", "--agent", &file.display().to_string()], "")
    else {
        return;
    };
    assert!(!content && said.contains("rule_files"), "{said}");
}

#[test]
fn promtool_parses_every_query_of_the_dashboard() {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let rules: Vec<_> = queries(&dashboard)
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let query = string(&query["expr"]).replace("$__rate_interval", "5m");
            json!({"record": format!("query:{number}"), "expr": query})
        })
        .collect();
    let file = |rules: &[Value]| json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queries.json");
    let check = |rules: &[Value]| {
        std::fs::write(&path, file(rules)).unwrap();
        promtool(&["check", "rules", &path.display().to_string()], "")
    };
    let Some((content, said)) = check(&rules) else { return };
    assert!(content, "{said}");
    let broken = json!({"record": "query:broken", "expr": "sum by (rate(up[5m]))"});
    assert!(!check(&[rules, vec![broken]].concat()).unwrap().0, "it does parse them");
}

#[test]
fn promtool_has_no_complaint_about_the_metrics() {
    let Some((content, said)) = promtool(&["check", "metrics"], page()) else { return };
    assert!(content && said.is_empty(), "{said}");
    let bad = "# HELP x_total A gauge that is called like a counter.\n# TYPE x_total gauge\nx_total 1\n";
    let (content, said) = promtool(&["check", "metrics"], bad).unwrap();
    assert!(!content && said.contains("x_total"), "{said}");
}

/// For each alert, whether it is expected to fire somewhere, and not to fire somewhere; the series that are expected to
/// have values.
fn tested() -> (BTreeMap<String, [bool; 2]>, BTreeSet<String>) {
    let file = yaml_of(RULES_TEST);
    let mut alerts: BTreeMap<String, [bool; 2]> = BTreeMap::new();
    let mut records = BTreeSet::new();
    for case in items(&file["tests"]) {
        for evaluation in case.get("alert_rule_test").iter().flat_map(|evaluations| items(evaluations)) {
            let fires = items(&evaluation["exp_alerts"]).count() > 0;
            alerts.entry(string(&evaluation["alertname"]).to_owned()).or_default()[usize::from(fires)] = true;
        }
        for evaluation in case.get("promql_expr_test").iter().flat_map(|evaluations| items(evaluations)) {
            if items(&evaluation["exp_samples"]).count() > 0 {
                records.insert(string(&evaluation["expr"]).to_owned());
            }
        }
    }
    (alerts, records)
}

#[test]
fn every_rule_has_its_tests() {
    let (alerts, records) = tested();
    let expected: BTreeMap<_, _> = names("alert").into_iter().map(|name| (name, [true, true])).collect();
    assert_eq!(alerts, expected, "each alert in a case that fires and one that does not");
    assert_eq!(records, names("record").into_iter().collect());
}

/// What `promtool test rules` says if `change` has been at every rule.
fn tested_with(change: impl Fn(&mut Map<String, Value>)) -> Option<String> {
    let mut file = yaml_of(RULES);
    for group in file["groups"].as_array_mut().unwrap() {
        for rule in group["rules"].as_array_mut().unwrap() {
            change(rule.as_object_mut().unwrap());
        }
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("rules.yml"), file.to_string()).unwrap();
    let tests = directory.path().join("rules_test.yml");
    std::fs::write(&tests, yaml_of(RULES_TEST).to_string()).unwrap();
    let (content, said) = promtool(&["test", "rules", &tests.display().to_string()], "")?;
    assert!(!content, "{said}");
    Some(said)
}

/// The alerts that fired where they should not have: "alertname: NAME, time: TIME, exp:[], got:[…".
fn unexpected(said: &str) -> BTreeSet<String> {
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let failures = said.split("alertname: ").skip(1).filter(|failure| failure.contains("exp:[], got:["));
    failures.map(|failure| failure.split(',').next().unwrap().to_owned()).collect()
}

#[test]
fn the_tests_of_the_rules_notice_a_rule_that_never_yields_anything() {
    let never = |rule: &mut Map<String, Value>| {
        rule.insert("expr".to_owned(), json!("vector(0) < 0"));
    };
    let Some(said) = tested_with(never) else { return };
    let alerts = names("alert").into_iter().map(|name| format!("alertname: {name}, "));
    let records = names("record").into_iter().map(|name| format!("expr: \"{name}\""));
    let unnoticed: Vec<_> = alerts.chain(records).filter(|failure| !said.contains(failure)).collect();
    assert!(unnoticed.is_empty(), "nobody misses {unnoticed:?}");
}

#[test]
fn the_tests_of_the_rules_notice_an_alert_that_always_fires() {
    let always = |rule: &mut Map<String, Value>| {
        if rule.contains_key("alert") {
            rule.insert("expr".to_owned(), json!("vector(1)"));
        }
    };
    let Some(said) = tested_with(always) else { return };
    assert_eq!(unexpected(&said), names("alert").into_iter().collect());
}

#[test]
fn the_tests_of_the_rules_notice_an_alert_that_does_not_wait() {
    let at_once = |rule: &mut Map<String, Value>| {
        rule.remove("for");
    };
    let Some(said) = tested_with(at_once) else { return };
    let waiting = rules("alert").into_iter().filter(|rule| rule.get("for").is_some());
    let waiting: BTreeSet<_> = waiting.map(|rule| string(&rule["alert"]).to_owned()).collect();
    assert!(waiting.len() > 10);
    assert_eq!(unexpected(&said), waiting);
}
