//! Reads YAML into the values of JSON, from the events of a parser.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, SpannedEventReceiver};
use serde_json::{Map, Value};

/// What is open, from the outside to the inside.
enum Open {
    Sequence(Vec<Value>),
    /// With the key that waits for its value.
    Mapping(Map<String, Value>, Option<String>),
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    done: Vec<Value>,
    problem: Option<String>,
}

impl Builder {
    fn add(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.done.push(value),
            Some(Open::Sequence(values)) => values.push(value),
            Some(Open::Mapping(members, waiting)) => match waiting.take() {
                Some(key) => {
                    if members.insert(key.clone(), value).is_some() {
                        self.problem = Some(format!("{key} is there twice"));
                    }
                }
                None => *waiting = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            },
        }
    }
}

impl<'input> SpannedEventReceiver<'input> for Builder {
    fn on_event(&mut self, event: Event<'input>, _: Span) {
        match event {
            Event::Scalar(text, style, _, _) => self.add(scalar(&text, style)),
            Event::SequenceStart(..) => self.open.push(Open::Sequence(Vec::new())),
            Event::MappingStart(..) => self.open.push(Open::Mapping(Map::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Sequence(values)) => self.add(Value::Array(values)),
                Some(Open::Mapping(members, _)) => self.add(Value::Object(members)),
                None => {}
            },
            Event::Alias(_) => self.problem = Some("an alias, which is not read here".to_owned()),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let is_text = || Value::String(text.to_owned());
    if style != ScalarStyle::Plain {
        return is_text();
    }
    match serde_json::from_str(text) {
        Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value,
        _ => is_text(),
    }
}

/// The one document of a text.
///
/// # Errors
/// It is no YAML, or has what is not read here.
pub(crate) fn read(text: &str) -> Result<Value, String> {
    let mut builder = Builder::default();
    Parser::new_from_str(text).load(&mut builder, true).map_err(|error| error.to_string())?;
    match (builder.problem, builder.done.pop(), builder.done.is_empty()) {
        (Some(problem), _, _) => Err(problem),
        (None, Some(document), true) => Ok(document),
        _ => Err("not one document".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_becomes_values() {
        let text =
            "a: 1m\nb: [1, 0.5, true, \"1\"]\nc:\n  - d: |\n      x\n      y\n    e: >-\n      x\n      y\n";
        let expected = json!({"a": "1m", "b": [1, 0.5, true, "1"], "c": [{"d": "x\ny\n", "e": "x y"}]});
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn what_is_not_read_is_said() {
        for text in ["a: [", "a: 1\na: 2\n", "a: &x 1\nb: *x\n", "a\n---\nb\n", ""] {
            assert!(read(text).is_err(), "{text}: {:?}", read(text));
        }
    }
}
