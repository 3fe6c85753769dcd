//! What is shipped for Prometheus and Grafana asks for what a running relay has, and says what it should.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails in a helper fails the test, with its line"
)]

#[path = "support/exposition.rs"]
mod exposition;
#[path = "support/promql.rs"]
mod promql;
#[path = "support/series.rs"]
mod series;
#[path = "support/shipped.rs"]
mod shipped;
mod support;
#[path = "support/yaml.rs"]
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use series::Series;
use shipped::{AGENT, ALERTS, DASHBOARD, RUNBOOK, items, names, page, queries, rules, string, text, yaml_of};

/// What a Prometheus has that runs `agent.yml` and `rules.yml`.
fn known() -> Series {
    let agent = yaml_of(AGENT);
    let job = string(&agent["scrape_configs"][0]["job_name"]);
    let mut known = Series::scraped(exposition::samples(page()).keys(), job);
    for rule in rules("record") {
        known.record(string(&rule["record"]), string(&rule["expr"])).unwrap();
    }
    for rule in rules("alert") {
        for state in ["pending", "firing"] {
            let severity = string(&rule["labels"]["severity"]);
            let labels = [
                ("alertname", string(&rule["alert"])),
                ("alertstate", state),
                ("severity", severity),
                ("instance", "*"),
                ("job", job),
            ];
            known.add("ALERTS", &labels);
        }
    }
    known
}

/// The labels that a template shows: what `begin` introduces.
fn shown<'a>(template: &'a str, begin: &str) -> Vec<&'a str> {
    let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    template.split(begin).skip(1).map(|rest| rest.split(ends).next().unwrap_or_default()).collect()
}

#[test]
fn every_rule_asks_for_what_there_is() {
    let known = known();
    let mut problems = Vec::new();
    for (key, rule) in
        ["alert", "record"].into_iter().flat_map(|key| rules(key).into_iter().map(move |rule| (key, rule)))
    {
        let templates = rule["annotations"].to_string();
        let found = known.problems(string(&rule["expr"]), &shown(&templates, "$labels."));
        problems.extend(found.into_iter().map(|problem| format!("{}: {problem}", rule[key])));
    }
    assert_eq!(problems, Vec::<String>::new());
    assert!(rules("alert").len() >= 15 && rules("record").len() >= 5);
}

#[test]
fn every_query_of_the_dashboard_asks_for_what_there_is() {
    let known = known();
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() > 40, "{}", queries.len());
    let mut problems = Vec::new();
    for query in queries {
        let legend = query.get("legendFormat").or(query.get("titleFormat")).expect("a legend");
        problems.extend(known.problems(string(&query["expr"]), &shown(string(legend), "{{")));
    }
    let variables = items(&dashboard["templating"]["list"]).filter(|variable| variable["type"] == "query");
    let mut defined = BTreeSet::from(["datasource".to_owned()]);
    for variable in variables {
        let query = string(&variable["query"]["query"]);
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) =
            inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(SERIES, LABEL)");
        problems.extend(known.problems(selector, &[label]));
        defined.insert(string(&variable["name"]).to_owned());
    }
    assert_eq!(problems, Vec::<String>::new());
    // A variable that is not defined is an empty panel as well.
    let used: BTreeSet<String> = text(DASHBOARD)
        .split('$')
        .skip(1)
        .map(|rest| {
            rest.trim_start_matches('{')
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap()
                .to_owned()
        })
        .filter(|name| !name.starts_with("__"))
        .collect();
    assert_eq!(used, defined);
}

#[test]
fn the_dashboard_is_one_that_grafana_can_show() {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36) && dashboard["uid"].is_string());
    let panels: Vec<_> = items(&dashboard["panels"]).collect();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeMap::new();
    for panel in &panels {
        let title = string(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24 && at("w") > 0 && at("h") > 0, "{title}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert_eq!(taken.insert((x, y), title), None, "{title} lies on another panel");
            }
        }
        if panel["type"] != "row" {
            assert!(!string(&panel["description"]).is_empty(), "{title} has no description");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let unit = panel["fieldConfig"]["defaults"]["unit"]
                .as_str()
                .or(panel["options"]["yAxis"]["unit"].as_str());
            assert!(unit.is_some() || panel["type"] == "table", "{title} has no unit");
            let references: BTreeSet<_> =
                items(&panel["targets"]).map(|target| string(&target["refId"])).collect();
            assert_eq!(references.len(), panel["targets"].as_array().unwrap().len(), "{title}");
        }
    }
}

#[test]
fn every_alert_is_explained_and_nothing_else_is() {
    let page = text(ALERTS);
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, names("alert"), "a section for each alert, in the same order");
    for rule in rules("alert") {
        let name = string(&rule["alert"]);
        let annotations = &rule["annotations"];
        assert_eq!(annotations["runbook_url"], format!("{RUNBOOK}{}", name.to_lowercase()));
        assert!(
            string(&annotations["summary"]).len() > 20 && string(&annotations["description"]).len() > 20,
            "{name}"
        );
        let severity = string(&rule["labels"]["severity"]);
        assert!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        let section =
            page.split(&format!("## {name}\n\n")).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
        assert!(section.to_lowercase().starts_with(severity), "{name} is {severity}");
        assert!(
            section.contains("\nLook:") && section.contains("\nDo: ") || section.contains("| Do |"),
            "{name}"
        );
    }
}

#[test]
fn no_name_is_used_twice() {
    let all = [names("alert"), names("record")].concat();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
}

#[test]
fn the_page_about_alerts_names_events_series_and_sections_that_exist() {
    let document = text(ALERTS);
    let logging = text("docs/logging.md");
    let events = shown(&document, "EVENT=");
    let unknown: Vec<_> =
        events.iter().filter(|event| !logging.contains(&format!("\n| `{event}` | "))).collect();
    assert!(events.len() > 12 && unknown.is_empty(), "{unknown:?}");

    let series = exposition::samples(page()).into_keys();
    let series: BTreeSet<String> =
        series.map(|sample| sample.split('{').next().unwrap().to_owned()).collect();
    let named = [grepped(&document, "pyrycode_relay_"), grepped(&document, "process_")].concat();
    let unknown: Vec<_> =
        named.iter().filter(|name| !series.iter().any(|series| series.starts_with(name.as_str()))).collect();
    assert!(named.len() > 25 && unknown.is_empty(), "{} {unknown:?}", named.len());

    for link in document.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        let (file, section) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { document.clone() } else { text(&format!("docs/{file}")) };
        let sections = target.lines().filter(|line| line.starts_with('#')).map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.chars().filter(|c| c.is_alphanumeric() || ['-', '_'].contains(c)).collect::<String>()
        });
        assert!(
            section.is_empty() || sections.into_iter().any(|title| title == section),
            "{link} leads nowhere"
        );
    }
}

/// The names, or beginnings of names, with which a page goes on behind `prefix`: `prefix(one|two)_total` are two.
fn grepped(page: &str, prefix: &str) -> Vec<String> {
    let word =
        |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let occurrences = page.split(prefix).skip(1);
    occurrences
        .flat_map(|rest| match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((inner, after)) => {
                inner.split('|').map(|each| format!("{prefix}{each}{}", word(after))).collect::<Vec<_>>()
            }
            None => vec![format!("{prefix}{}", word(rest))],
        })
        .collect()
}

#[test]
fn names_in_alternatives_are_seen() {
    let found = grepped("`x_(one|two)_total`, x_three and 'x_four{'", "x_");
    assert_eq!(found, ["x_one_total", "x_two_total", "x_three", "x_four"]);
}
