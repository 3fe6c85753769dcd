//! Judges queries by the series that there are.
//!
//! [`Series`] holds every series with its labels: those of a scrape, and what Prometheus adds. [`Series::problems`] says
//! what a query names that is not among them: a name, a label, a value of a label, or a combination of those.

use std::collections::{BTreeMap, BTreeSet};

use super::promql::{self, Matcher, Selector};

type Labels = BTreeMap<String, String>;

/// Stands for a value that differs from host to host.
const ANY: &str = "*";

/// Every series that there is.
#[derive(Default)]
pub(crate) struct Series(Vec<(String, Labels)>);

impl Series {
    /// Those of a scrape by this job, with `up`.
    pub(crate) fn scraped<'a>(samples: impl Iterator<Item = &'a String>, job: &str) -> Self {
        let mut series: Vec<_> = samples.map(|sample| parsed(sample)).collect();
        series.push(("up".to_owned(), Labels::new()));
        for (_, labels) in &mut series {
            labels.insert("job".to_owned(), job.to_owned());
            labels.insert("instance".to_owned(), ANY.to_owned());
        }
        Self(series)
    }

    /// One more.
    pub(crate) fn add(&mut self, name: &str, labels: &[(&str, &str)]) {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
        self.0.push((name.to_owned(), labels.collect()));
    }

    /// What a recording rule makes: `level:metric:operations`, where `level` is the labels that are left besides the job.
    ///
    /// # Errors
    /// The name is of another form, or the level has a label that nothing in the expression has.
    pub(crate) fn record(&mut self, name: &str, expression: &str) -> Result<(), String> {
        let [level, metric, operations] = name.split(':').collect::<Vec<_>>()[..] else {
            return Err(format!("{name} is not level:metric:operations"));
        };
        if level.is_empty() || metric.is_empty() || operations.is_empty() {
            return Err(format!("{name} has an empty part"));
        }
        let sources = promql::read(expression)?.selectors;
        let sources: Vec<_> = sources.iter().flat_map(|source| self.named(&source.name)).collect();
        let mut made = vec![Labels::from([(
            "job".to_owned(),
            sources.iter().find_map(|labels| labels.get("job")).cloned().unwrap_or_default(),
        )])];
        for label in level.split('_') {
            let values: BTreeSet<_> =
                sources.iter().filter_map(|labels| labels.get(label)).cloned().collect();
            if values.is_empty() {
                return Err(format!("{name}: nothing in its expression has the label {label}"));
            }
            made = made
                .iter()
                .flat_map(|labels| {
                    values.iter().map(|value| {
                        let mut labels = labels.clone();
                        labels.insert(label.to_owned(), value.clone());
                        labels
                    })
                })
                .collect();
        }
        self.0.extend(made.into_iter().map(|labels| (name.to_owned(), labels)));
        Ok(())
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Labels> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, labels)| labels)
    }

    /// What the query names that is not there; `shown` are labels that its result is expected to have.
    pub(crate) fn problems(&self, query: &str, shown: &[&str]) -> Vec<String> {
        let parsed = match promql::read(query) {
            Ok(parsed) => parsed,
            Err(problem) => return vec![problem],
        };
        let mut problems = Vec::new();
        if parsed.selectors.is_empty() {
            problems.push(format!("no series in {query}"));
        }
        let mut labels = BTreeSet::new();
        for selector in &parsed.selectors {
            self.judge(selector, &mut problems);
            labels.extend(self.named(&selector.name).flat_map(Labels::keys));
        }
        let unknown = parsed.grouping.iter().filter(|label| !labels.contains(label));
        problems.extend(unknown.map(|label| format!("nothing has the label {label} in {query}")));
        // A query that keeps some labels only has no others to show.
        let kept = |label: &str| {
            if query.contains(" by (") {
                parsed.grouping.contains(label)
            } else {
                labels.contains(&label.to_owned())
            }
        };
        let lost = shown.iter().filter(|label| !kept(label));
        problems.extend(lost.map(|label| format!("the result has no label {label}: {query}")));
        problems
    }

    fn judge(&self, selector: &Selector, problems: &mut Vec<String>) {
        let name = &selector.name;
        let there: Vec<_> = self.named(name).collect();
        if there.is_empty() {
            problems.push(format!("no series is called {name}"));
            return;
        }
        for matcher in &selector.matchers {
            let label = &matcher.label;
            let values: BTreeSet<_> = there.iter().filter_map(|labels| labels.get(label)).collect();
            if values.is_empty() {
                problems.push(format!("{name} has no label {label}"));
                continue;
            }
            let alternatives: Vec<_> = if matcher.operator.ends_with('~') {
                matcher.value.split('|').collect()
            } else {
                vec![matcher.value.as_str()]
            };
            for wanted in alternatives {
                if !values.iter().any(|value| is_one(value, wanted, &matcher.operator)) {
                    problems.push(format!("{name} has no {label}=\"{wanted}\""));
                }
            }
        }
        if !there.iter().any(|labels| selector.matchers.iter().all(|matcher| holds(matcher, labels))) {
            problems.push(format!("no series matches {selector:?}"));
        }
    }
}

/// Whether a condition holds for a series.
fn holds(matcher: &Matcher, labels: &Labels) -> bool {
    let value = labels.get(&matcher.label).map_or("", String::as_str);
    let equal = match matcher.operator.as_str() {
        "=~" | "!~" => matcher.value.split('|').any(|wanted| is_one(value, wanted, "=~")),
        _ => is_one(value, &matcher.value, "="),
    };
    equal != matcher.operator.starts_with('!')
}

/// Whether a value is what one alternative asks for: a text, or one with `.+` or `.*` at its end. A variable of a dashboard is
/// whatever there is. Any other pattern matches nothing here, so that it is seen.
fn is_one(value: &str, wanted: &str, operator: &str) -> bool {
    if value == ANY || wanted.starts_with('$') {
        return true;
    }
    match wanted.strip_suffix(".+").or_else(|| wanted.strip_suffix(".*")) {
        Some(begin) if operator.ends_with('~') => value.starts_with(begin) && value != begin,
        _ => value == wanted,
    }
}

/// A sample as it stands on the page: `name{label="value",…}`.
fn parsed(sample: &str) -> (String, Labels) {
    let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
    let pairs = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
    let labels = pairs.map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').to_owned()));
    (name.to_owned(), labels.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Series {
        let page = ["x{a=\"1\",b=\"one\"}", "x{a=\"2\",b=\"two\"}", "y"].map(str::to_owned);
        Series::scraped(page.iter(), "relay")
    }

    #[test]
    fn what_is_there_is_no_problem() {
        let mut series = some();
        series.record("instance_a:x:rate5m", "rate(x[5m])").unwrap();
        for query in [
            "x",
            "sum by (a, instance) (x{a=\"1\"}) / on (instance) y",
            "x{b=~\"t.+|one\", job=\"relay\", instance=~\"$instance\"}",
            "x{a!=\"1\"} + up{instance=\"whatever\"}",
            "instance_a:x:rate5m{a=\"2\"}",
        ] {
            assert_eq!(series.problems(query, &[]), Vec::<String>::new(), "{query}");
        }
        assert!(series.problems("sum by (a) (x)", &["a"]).is_empty());
        assert!(series.problems("x", &["a", "instance"]).is_empty());
    }

    #[test]
    fn what_is_not_there_is_one() {
        let mut series = some();
        series.record("instance:x:rate5m", "rate(x[5m])").unwrap();
        for query in [
            "z",
            "sum(rate(x[5m])) / sum(rate(z[5m]))",
            "x{c=\"1\"}",
            "x{a=\"3\"}",
            "x{a!=\"3\"}",
            "x{a=~\"1|3\"}",
            "x{a=~\"3.+\"}",
            "x{a=~\"[12]\"}",
            "x{a=\"1\", b=\"two\"}",
            "x{a!~\"1|2\"}",
            "x{job=\"other\"}",
            "sum by (c) (x)",
            "instance:x:rate5m{a=\"1\"}",
            "instance:x:rate1m",
            "1 + 1",
            "rat(x[5m])",
        ] {
            assert!(!series.problems(query, &[]).is_empty(), "{query}");
        }
        assert_eq!(series.problems("sum by (a) (x)", &["b"]).len(), 1);
        assert_eq!(series.problems("x", &["c"]).len(), 1);
    }

    #[test]
    fn a_recording_rule_is_called_by_what_it_keeps() {
        for (name, expression) in
            [("x_rate", "x"), ("c:x:rate", "x"), ("instance::rate", "x"), ("instance:z:rate", "z")]
        {
            assert!(some().record(name, expression).is_err(), "{name}");
        }
    }
}
