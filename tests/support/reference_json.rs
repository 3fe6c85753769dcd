//! A reader of JSON and of the routing envelope that is as plain as RFC 8259 and PROTOCOL § 3 are: slow, recursive,
//! one function per rule, and without a line in common with the relay's own. Tests compare the two.

/// A JSON value and where it stands in the text.
pub(crate) struct Node {
    pub(crate) value: Value,
    /// The value's own text, without white space around it.
    pub(crate) raw: String,
}

/// What a value is, as far as the envelope cares.
pub(crate) enum Value {
    Null,
    /// In UTF-16 units, so that lone surrogates are a thing.
    Text(Vec<u16>),
    Object(Vec<(Vec<u16>, Node)>),
    /// A number, a boolean or an array.
    Other,
}

/// What a binary's message means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Deliver { conn_id: Option<String>, frame: String, close_code: Option<u16> },
    Close { conn_id: Option<String>, close_code: u16 },
    Wake { platform: String, token: String },
}

/// Reads a message that is exactly one JSON value in UTF-8.
pub(crate) fn parse(message: &[u8]) -> Option<Node> {
    let text: Vec<char> = String::from_utf8(message.to_vec()).ok()?.chars().collect();
    let mut reader = Reader { text, at: 0 };
    let node = reader.element()?;
    (reader.at == reader.text.len()).then_some(node)
}

/// The members of a message that is exactly one JSON object.
pub(crate) fn members(message: &[u8]) -> Option<Vec<(String, String)>> {
    let Value::Object(members) = parse(message)?.value else {
        return None;
    };
    members.into_iter().map(|(key, node)| Some((String::from_utf16(&key).ok()?, node.raw))).collect()
}

/// What a binary's message means; `None` if it is malformed.
pub(crate) fn meaning(message: &[u8]) -> Option<Meaning> {
    let Value::Object(members) = parse(message)?.value else {
        return None;
    };
    let conn_id = only(&members, "conn_id").ok()?;
    let frame = only(&members, "frame").ok()?;
    let close_code = only(&members, "close_code").ok()?;
    let push_wake = only(&members, "push_wake").ok()?;

    let close_code = match close_code {
        Some(node) => legal_close_code(&node.raw).ok()?,
        None => None,
    };
    let addressed = match conn_id.map(|node| &node.value) {
        None | Some(Value::Null) => None,
        Some(Value::Text(units)) if units.is_empty() => None,
        Some(Value::Text(units)) => Some(units),
        Some(_) => return None,
    };
    let Some(units) = addressed else {
        let Value::Object(members) = &push_wake?.value else {
            return None;
        };
        let platform = string(only(members, "platform").ok()??)?;
        let token = string(only(members, "token").ok()??)?;
        return Some(Meaning::Wake { platform, token });
    };
    let conn_id = String::from_utf16(units).ok().filter(|text| is_conn_id(text));
    match (frame.filter(|node| !matches!(node.value, Value::Null)), close_code) {
        (Some(frame), close_code) => Some(Meaning::Deliver { conn_id, frame: frame.raw.clone(), close_code }),
        (None, Some(close_code)) => Some(Meaning::Close { conn_id, close_code }),
        (None, None) => None,
    }
}

/// The member with this key; an error if there are two.
fn only<'a>(members: &'a [(Vec<u16>, Node)], key: &str) -> Result<Option<&'a Node>, ()> {
    let mut found = members.iter().filter(|(name, _)| name.iter().copied().eq(key.encode_utf16()));
    let first = found.next().map(|(_, node)| node);
    if found.next().is_some() { Err(()) } else { Ok(first) }
}

fn string(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(units) => String::from_utf16(units).ok(),
        _ => None,
    }
}

/// The code, if it is not 0; an error if it is malformed.
fn legal_close_code(raw: &str) -> Result<Option<u16>, ()> {
    let forbidden = [1004, 1005, 1006, 1015];
    let mut legal = (1000..=4999).filter(|code| !forbidden.contains(code));
    if raw == "0" {
        return Ok(None);
    }
    legal.find(|code: &u16| code.to_string() == raw).map(Some).ok_or(())
}

fn is_conn_id(text: &str) -> bool {
    text.chars().count() == 18
        && text.starts_with("c-")
        && text.chars().skip(2).all(|c| "0123456789abcdef".contains(c))
}

/// RFC 8259, rule by rule.
struct Reader {
    text: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let eaten = self.peek() == Some(wanted);
        self.at += usize::from(eaten);
        eaten
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.at += 1;
        }
    }

    /// `ws value ws`
    fn element(&mut self) -> Option<Node> {
        self.white_space();
        let start = self.at;
        let value = match self.peek()? {
            '{' => self.object()?,
            '[' => self.array()?,
            '"' => Value::Text(self.string()?),
            '-' | '0'..='9' => self.number()?,
            'n' => self.word("null").map(|()| Value::Null)?,
            't' => self.word("true").map(|()| Value::Other)?,
            'f' => self.word("false").map(|()| Value::Other)?,
            _ => return None,
        };
        let raw = self.text.get(start..self.at)?.iter().collect();
        self.white_space();
        Some(Node { value, raw })
    }

    fn word(&mut self, word: &str) -> Option<()> {
        word.chars().all(|c| self.eat(c)).then_some(())
    }

    fn object(&mut self) -> Option<Value> {
        self.eat('{');
        self.white_space();
        let mut members = Vec::new();
        if self.eat('}') {
            return Some(Value::Object(members));
        }
        loop {
            self.white_space();
            let key = self.string()?;
            self.white_space();
            if !self.eat(':') {
                return None;
            }
            members.push((key, self.element()?));
            match self.next()? {
                ',' => {}
                '}' => return Some(Value::Object(members)),
                _ => return None,
            }
        }
    }

    fn array(&mut self) -> Option<Value> {
        self.eat('[');
        self.white_space();
        if self.eat(']') {
            return Some(Value::Other);
        }
        loop {
            self.element()?;
            match self.next()? {
                ',' => {}
                ']' => return Some(Value::Other),
                _ => return None,
            }
        }
    }

    fn string(&mut self) -> Option<Vec<u16>> {
        if !self.eat('"') {
            return None;
        }
        let mut units = Vec::new();
        loop {
            match self.next()? {
                '"' => return Some(units),
                '\\' => units.push(self.escape()?),
                '\0'..='\x1f' => return None,
                c => units.extend_from_slice(c.encode_utf16(&mut [0; 2])),
            }
        }
    }

    fn escape(&mut self) -> Option<u16> {
        Some(match self.next()? {
            '"' => 0x22,
            '\\' => 0x5c,
            '/' => 0x2f,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'u' => {
                let mut unit = 0;
                for _ in 0..4 {
                    unit = unit * 16 + u16::try_from(self.next()?.to_digit(16)?).ok()?;
                }
                unit
            }
            _ => return None,
        })
    }

    /// `[ minus ] int [ frac ] [ exp ]`
    fn number(&mut self) -> Option<Value> {
        self.eat('-');
        if !self.eat('0') {
            self.digits()?;
        }
        if self.eat('.') {
            self.digits()?;
        }
        if self.eat('e') || self.eat('E') {
            let _sign = self.eat('+') || self.eat('-');
            self.digits()?;
        }
        Some(Value::Other)
    }

    /// `1*DIGIT`
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some('0'..='9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}
