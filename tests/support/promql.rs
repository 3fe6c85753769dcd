//! Reads `PromQL` as far as it takes to say which series a query asks for.
//!
//! [`read`] splits a query into tokens and goes through them once. Whatever is a word and neither a keyword, a function,
//! an aggregation nor part of a list of labels is the name of a series. A word before a parenthesis that is none of the
//! known functions is an error, so that no name can hide as one.

use std::collections::BTreeSet;

/// A name with what its labels have to be.
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) name: String,
    pub(crate) matchers: Vec<Matcher>,
}

/// One condition on a label.
#[derive(Debug, PartialEq)]
pub(crate) struct Matcher {
    pub(crate) label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub(crate) operator: String,
    pub(crate) value: String,
}

/// What a query names.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Query {
    pub(crate) selectors: Vec<Selector>,
    /// The labels behind `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`.
    pub(crate) grouping: BTreeSet<String>,
}

const FUNCTIONS: [&str; 14] = [
    "absent",
    "avg_over_time",
    "changes",
    "count_over_time",
    "histogram_quantile",
    "increase",
    "max_over_time",
    "min_over_time",
    "present_over_time",
    "rate",
    "round",
    "sum_over_time",
    "time",
    "vector",
];
const AGGREGATIONS: [&str; 7] = ["avg", "count", "group", "max", "min", "sum", "topk"];
const OPERATORS: [&str; 7] = ["and", "or", "unless", "offset", "bool", "inf", "nan"];
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// Reads a query.
///
/// # Errors
/// What cannot be read, or is not known here.
pub(crate) fn read(query: &str) -> Result<Query, String> {
    let tokens = tokens(query)?;
    let mut found = Query::default();
    let mut rest = tokens.as_slice();
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        let word = match token {
            Token::Word(word) => word.as_str(),
            Token::Sign('{') => return Err(format!("a selector without a name in {query}")),
            _ => continue,
        };
        let called = matches!(rest.first(), Some(Token::Sign('(')));
        if LISTS.contains(&word.to_lowercase().as_str()) {
            if called {
                let (labels, after) = list(&rest[1..]).ok_or(format!("no list of labels behind {word}"))?;
                found.grouping.extend(labels);
                rest = after;
            }
        } else if AGGREGATIONS.contains(&word) {
            let grouped =
                matches!(rest.first(), Some(Token::Word(next)) if next == "by" || next == "without");
            if !called && !grouped {
                return Err(format!("{word} without anything to aggregate"));
            }
        } else if called {
            if !FUNCTIONS.contains(&word) && !OPERATORS.contains(&word) {
                return Err(format!("{word} is no function that is known here"));
            }
        } else if !OPERATORS.contains(&word.to_lowercase().as_str()) {
            let mut matchers = Vec::new();
            if matches!(rest.first(), Some(Token::Sign('{'))) {
                (matchers, rest) =
                    conditions(&rest[1..]).ok_or(format!("cannot read the labels of {word}"))?;
            }
            found.selectors.push(Selector { name: word.to_owned(), matchers });
        }
    }
    Ok(found)
}

/// Words and commas up to a closing parenthesis, and what comes behind it.
fn list(mut rest: &[Token]) -> Option<(Vec<String>, &[Token])> {
    let mut labels = Vec::new();
    loop {
        let (token, after) = rest.split_first()?;
        rest = after;
        match token {
            Token::Word(label) => labels.push(label.clone()),
            Token::Sign(',') => {}
            Token::Sign(')') => return Some((labels, rest)),
            _ => return None,
        }
    }
}

/// Conditions up to a closing brace, and what comes behind it.
fn conditions(mut rest: &[Token]) -> Option<(Vec<Matcher>, &[Token])> {
    let mut matchers = Vec::new();
    loop {
        match rest {
            [Token::Sign('}'), after @ ..] => return Some((matchers, after)),
            [Token::Sign(','), after @ ..] => rest = after,
            [Token::Word(label), after @ ..] => {
                let signs =
                    after.iter().take_while(|token| matches!(token, Token::Sign('=' | '!' | '~'))).count();
                let operator: String = after[..signs]
                    .iter()
                    .filter_map(|token| if let Token::Sign(c) = token { Some(*c) } else { None })
                    .collect();
                let [Token::Text(value), after @ ..] = &after[signs..] else { return None };
                if !["=", "!=", "=~", "!~"].contains(&operator.as_str()) {
                    return None;
                }
                matchers.push(Matcher { label: label.clone(), operator, value: value.clone() });
                rest = after;
            }
            _ => return None,
        }
    }
}

/// Words, texts and signs. Numbers, durations, comments and the variables of a dashboard are left out.
fn tokens(query: &str) -> Result<Vec<Token>, String> {
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut tokens = Vec::new();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let end_of =
            |part: &str, belongs: &dyn Fn(char) -> bool| part.find(|c| !belongs(c)).unwrap_or(part.len());
        let length = if begins(first) {
            let end = end_of(rest, &goes_on);
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        } else if first.is_ascii_digit() {
            let end = end_of(rest, &|c| c.is_ascii_alphanumeric() || c == '.');
            // The sign of an exponent.
            let exponent = rest[..end].ends_with(['e', 'E']) && rest[end..].starts_with(['+', '-']);
            if exponent { end + 1 + end_of(&rest[end + 1..], &|c| c.is_ascii_digit()) } else { end }
        } else if first == '$' {
            1 + end_of(&rest[1..], &|c| goes_on(c) || c == '{' || c == '}')
        } else if first == '#' {
            rest.find('\n').unwrap_or(rest.len())
        } else if ['"', '\'', '`'].contains(&first) {
            let (text, length) = text(rest, first).ok_or(format!("a text without an end in {query}"))?;
            tokens.push(Token::Text(text));
            length
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Sign(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

/// The text at the beginning, and how many bytes it takes with its quotes.
fn text(from: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut characters = from.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' if quote != '`' => text.push(characters.next()?.1),
            _ if c == quote => return Some((text, at + 1)),
            _ => text.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(query: &str) -> Vec<String> {
        read(query).unwrap().selectors.into_iter().map(|selector| selector.name).collect()
    }

    #[test]
    fn every_name_is_found_and_nothing_else() {
        let query = "histogram_quantile(0.99, sum by (le, direction) (rate(a_bucket{x=\"in{\\\"}\", y=~'b|c'}[5m])))\n\
                     / on (job) group_left (kind) b:c:rate5m{z!=\"\"} offset 1h # not_this\n\
                     > bool 1e-3 and (d - 1h30m) unless sum(e) without (f) or g[$__rate_interval] * 0x1F + ${h}";
        assert_eq!(names(query), ["a_bucket", "b:c:rate5m", "d", "e", "g"]);
        let grouping: Vec<_> = read(query).unwrap().grouping.into_iter().collect();
        assert_eq!(grouping, ["direction", "f", "job", "kind", "le"]);
    }

    #[test]
    fn a_name_is_found_wherever_it_stands() {
        for query in
            ["x", "-x", "(x)", "x[5m:1m]", "rate(x[5m])", "1 / x", "sum(x) by (a)", "SUM_x and X == 0", "x@0"]
        {
            let found = names(query);
            assert!(found.iter().any(|name| name.eq_ignore_ascii_case("x")), "{query}: {found:?}");
        }
    }

    #[test]
    fn labels_come_with_their_values() {
        let found = read("x{a=\"b\",c!~`d\\e`,}").unwrap();
        let matcher = |label: &str, operator: &str, value: &str| Matcher {
            label: label.to_owned(),
            operator: operator.to_owned(),
            value: value.to_owned(),
        };
        assert_eq!(found.selectors[0].matchers, [matcher("a", "=", "b"), matcher("c", "!~", "d\\e")]);
    }

    #[test]
    fn what_cannot_be_read_is_no_silence() {
        for query in [
            "foo(x)",
            "{a=\"b\"}",
            "x{a=b}",
            "x{a==\"b\"}",
            "x{a=\"b\"",
            "x{a=\"b}",
            "sum by (\"a\") (x)",
            "sum x",
        ] {
            assert!(read(query).is_err(), "{query}: {:?}", read(query));
        }
    }
}
