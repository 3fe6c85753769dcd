//! Where events go: the journal, or lines of text or JSON on stderr; and from which level on.

use std::fmt::{self, Debug, Write as _};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::{Registry, reload};

use super::TARGET;
use super::names::{Format, Level};
use super::stderr::Stderr;

/// Why the log could not be set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum InitError {
    /// The journal was asked for by name and cannot be reached.
    Journald(io::Error),
    /// The thread that writes to stderr could not be started.
    Thread(io::Error),
    /// [`init`] was called before in this process.
    AlreadySet,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journald(error) => write!(
                f,
                "log format \"journald\" was asked for, but the journal's socket /run/systemd/journal/socket \
                 cannot be used: {error}; allowed without a journal are \"auto\", \"text\" and \"json\""
            ),
            Self::Thread(error) => write!(f, "the thread that writes the log cannot be started: {error}"),
            Self::AlreadySet => f.write_str("the log of this process was already set up"),
        }
    }
}

impl std::error::Error for InitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Journald(error) | Self::Thread(error) => Some(error),
            Self::AlreadySet => None,
        }
    }
}

/// Changes the level of a log while it is in use. Clones refer to the same log.
#[derive(Clone, Debug)]
pub struct Handle {
    filter: reload::Handle<Filter, Registry>,
    /// Where lines wait, if they do.
    stderr: Option<Stderr>,
}

impl Handle {
    /// From now on, events of `level` and above are written.
    pub fn set_level(&self, level: Level) {
        // This fails when the log is gone, so that there is nothing left to change, or after a panic inside
        // the filter, which has no code that panics.
        let _ = self.filter.reload(Filter(level.filter()));
    }

    /// Waits until every event so far was written, for `limit` at most. For the end of the process.
    pub fn flush(&self, limit: Duration) {
        if let Some(stderr) = &self.stderr {
            stderr.flush(limit);
        }
    }
}

/// Takes finished lines, each ending in a line break. What cannot be written is lost: logging must not fail
/// what it reports on.
pub trait Sink: Send + Sync + 'static {
    /// Writes one line.
    fn write_line(&self, line: &[u8]);
}

/// The shape of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `2026-01-31T12:00:00.000000Z INFO name key=value …`
    Text,
    /// `{"timestamp":"…","level":"info","event":"name","key":"value",…}`
    Json,
}

/// Sets up the log of this process: every function of [`crate::event`] writes there from now on, whatever the
/// thread. Until then events go nowhere.
///
/// # Errors
///
/// [`InitError::Journald`] if the journal was asked for by name and cannot be reached (with [`Format::Auto`],
/// the log goes to stderr then), [`InitError::AlreadySet`] on a second call.
pub fn init(level: Level, format: Format) -> Result<Handle, InitError> {
    let (dispatch, handle) = match format {
        Format::Journald => to_journal(level).map_err(InitError::Journald)?,
        Format::Auto if stderr_is_the_journal() => match to_journal(level) {
            Ok(log) => log,
            Err(_) => to_stderr(level, Layout::Text)?,
        },
        Format::Auto | Format::Text => to_stderr(level, Layout::Text)?,
        Format::Json => to_stderr(level, Layout::Json)?,
    };
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| InitError::AlreadySet)?;
    Ok(handle)
}

/// A log that writes lines to `sink`, for programs and tests that want to hold the lines themselves; it is
/// used within `tracing::dispatcher::with_default`.
pub fn to_sink(level: Level, layout: Layout, sink: impl Sink) -> (Dispatch, Handle) {
    assemble(level, Lines { layout, sink })
}

fn to_stderr(level: Level, layout: Layout) -> Result<(Dispatch, Handle), InitError> {
    let stderr = Stderr::start().map_err(InitError::Thread)?;
    let (dispatch, handle) = to_sink(level, layout, stderr.clone());
    Ok((dispatch, Handle { stderr: Some(stderr), ..handle }))
}

fn to_journal(level: Level) -> io::Result<(Dispatch, Handle)> {
    let journal = tracing_journald::layer()?
        // The keys of the catalogue as they are: SERVER_ID, not F_SERVER_ID.
        .with_field_prefix(None)
        .with_priority_mappings(PriorityMappings {
            error: Priority::Error,
            warn: Priority::Warning,
            info: Priority::Informational,
            debug: Priority::Debug,
            trace: Priority::Debug,
        });
    Ok(assemble(level, journal))
}

type Filtered = tracing_subscriber::layer::Layered<reload::Layer<Filter, Registry>, Registry>;

fn assemble(level: Level, output: impl Layer<Filtered> + Send + Sync) -> (Dispatch, Handle) {
    let (filter, handle) = reload::Layer::new(Filter(level.filter()));
    let log = tracing_subscriber::registry().with(filter).with(output);
    (Dispatch::new(log), Handle { filter: handle, stderr: None })
}

/// Whether stderr is a stream to the journal: `JOURNAL_STREAM` names the device and inode of the stream that
/// systemd connected, and stderr may have been redirected since (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Some((device, inode)) = stream.split_once(':') else {
        return false;
    };
    let (Ok(device), Ok(inode)) = (device.parse::<u64>(), inode.parse::<u64>()) else {
        return false;
    };
    // A duplicate, because only an owned descriptor can be asked for its metadata.
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else {
        return false;
    };
    std::fs::File::from(stderr)
        .metadata()
        .is_ok_and(|metadata| metadata.dev() == device && metadata.ino() == inode)
}

/// Lets the catalogue's own events of a level and above through. Its answers are cached per event until the
/// level changes.
#[derive(Debug)]
struct Filter(LevelFilter);

impl Filter {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && *metadata.level() <= self.0
    }
}

impl<S: Subscriber> Layer<S> for Filter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0)
    }
}

/// Formats events as lines.
struct Lines<W> {
    layout: Layout,
    sink: W,
}

impl<S: Subscriber, W: Sink> Layer<S> for Lines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = event.metadata().level();
        let mut line = String::with_capacity(256);
        match self.layout {
            Layout::Text => {
                timestamp(&mut line);
                // Writing into a String fails only if a value's own `Display` does; the rest of the line stays.
                let _ = write!(line, " {level}");
                event.record(&mut MessageOnly(&mut line));
            }
            Layout::Json => {
                line.push_str("{\"timestamp\":\"");
                timestamp(&mut line);
                let _ = write!(line, "\",\"level\":\"{}\"", level.as_str().to_ascii_lowercase());
                event.record(&mut Members(&mut line));
                line.push('}');
            }
        }
        line.push('\n');
        self.sink.write_line(line.as_bytes());
    }
}

/// The time in UTC, RFC 3339 with microseconds.
fn timestamp(line: &mut String) {
    // The library does not take a clock before 1970, which a machine without a battery may start with.
    let now = SystemTime::now().max(SystemTime::UNIX_EPOCH);
    let _ = write!(line, "{}", humantime::format_rfc3339_micros(now));
}

/// The message of an event: its name and its pairs, in one readable piece.
struct MessageOnly<'a>(&'a mut String);

impl Visit for MessageOnly<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, " {value:?}");
        }
    }

    // Fields of these types are never the message: skip them without formatting.
    fn record_str(&mut self, _: &Field, _: &str) {}
    fn record_u64(&mut self, _: &Field, _: u64) {}
    fn record_f64(&mut self, _: &Field, _: f64) {}
}

/// The members of a JSON object, each after a comma. The message is left out: it says the same again.
struct Members<'a>(&'a mut String);

impl Members<'_> {
    fn member(&mut self, field: &Field, value: impl serde::Serialize) {
        // A number or a string always serializes; if it ever did not, null keeps the line valid.
        let value = serde_json::to_string(&value).unwrap_or_else(|_| "null".to_owned());
        let _ = write!(self.0, ",\"{}\":{value}", field.name());
    }
}

impl Visit for Members<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "message" {
            let mut text = String::new();
            let _ = write!(text, "{value:?}");
            self.member(field, text);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, value);
    }
}
