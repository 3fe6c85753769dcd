//! HTTP/1.1 by hand, one request on a connection.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

use serde_json::Value;

use super::problem::Problem;

/// More than any request that ACME needs.
const LONGEST: u64 = 64 * 1024;

/// A request.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Names are in lower case.
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Reads one.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Self> {
        let invalid = || io::Error::from(ErrorKind::InvalidData);
        let mut reader = BufReader::new(stream.take(LONGEST));
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(invalid)
        };
        let first = line()?;
        let [method, path, "HTTP/1.1"] = first.split(' ').collect::<Vec<_>>()[..] else {
            return Err(invalid());
        };
        let mut request =
            Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() };
        loop {
            let header = line()?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').ok_or_else(invalid)?;
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if request.header("transfer-encoding").is_some() {
            return Err(invalid());
        }
        let length = request.header("content-length").map_or(Ok(0), str::parse).map_err(|_| invalid())?;
        if length > LONGEST {
            return Err(invalid());
        }
        reader.take(length).read_to_end(&mut request.body)?;
        if request.body.len() as u64 == length { Ok(request) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// The value of a header that is there once. Its name is given in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
        values.next().filter(|_| values.next().is_none())
    }
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    pub(super) fn text(status: u16, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status, headers: vec![("Content-Type", content_type.to_owned())], body: body.into() }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    pub(super) fn problem(problem: &Problem) -> Self {
        Self::text(problem.status, "application/problem+json", problem.json().to_string())
    }

    /// This answer with one more header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Writes it, as the answer to a request with this method.
    pub(super) fn write(&self, method: &str, stream: &mut impl Write) -> io::Result<()> {
        // Not every client knows that nothing follows an answer to HEAD, whatever length that promises.
        let body = if method == "HEAD" { "" } else { &self.body };
        let mut whole = Vec::new();
        write!(whole, "HTTP/1.1 {} -\r\nConnection: close\r\n", self.status)?;
        if !body.is_empty() {
            write!(whole, "Content-Length: {}\r\n", body.len())?;
        }
        for (name, value) in &self.headers {
            write!(whole, "{name}: {value}\r\n")?;
        }
        write!(whole, "\r\n{body}")?;
        stream.write_all(&whole)?;
        stream.flush()
    }
}
