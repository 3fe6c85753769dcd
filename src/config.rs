//! The configuration: a TOML file becomes a validated [`Config`], or a list of everything that is wrong with it.
//!
//! One table, in `config/keys.rs`, holds every key with its default and its allowed values; the structs, the
//! reader and the printer come out of it. [`Config::parse`] walks the parsed document along that table and keeps
//! going after a problem, so that a file is corrected in one round. Then rules that span several keys are
//! applied. [`Config::load`] finds the file. Nothing here has an effect outside: binding an address, finding a
//! file that a key names, and so on is for those who use the values.

mod keys;
mod kind;
mod listen;
mod load;
mod loopback;
mod problem;
mod read;
mod rules;
mod table;
mod types;

pub use keys::{
    Access, ClientAddress, Config, Drain, Limits, Listen, Log, Runtime, Session, Tls, keys, tables,
};
pub(crate) use listen::plaintext_problem;
pub use listen::{MetricsListen, PublicListen, SocketName};
pub use load::{LoadError, Loaded, Source};
pub(crate) use loopback::is_loopback;
pub use loopback::{LoopbackAddr, LoopbackError};
pub use problem::{Problem, Problems};
pub use rules::Written;
pub use table::{Key, Table};
pub(crate) use types::server_id;
pub use types::{ClientAddressSource, Plaintext, TlsMode};

impl Config {
    /// Reads a configuration from the text of a file.
    ///
    /// `file` is only the name to use in messages.
    ///
    /// ```
    /// use pyrycode_relay::config::Config;
    ///
    /// let config = Config::parse("[session]\ngrace = \"2s\"", "relay.toml").unwrap();
    /// assert_eq!(config.session.grace.as_secs(), 2);
    ///
    /// let problems = Config::parse("[session]\ngrace = \"30 parsecs\"", "relay.toml").unwrap_err();
    /// assert!(problems.to_string().starts_with("relay.toml:2: session.grace: \"30 parsecs\" is not a duration"));
    /// ```
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the text: TOML syntax, unknown tables and keys, values of the wrong type or
    /// out of range, values that this version does not act on, and values that contradict each other.
    pub fn parse(text: &str, file: &str) -> Result<Self, Problems> {
        read::parse(text, file).map(|(config, _)| config)
    }

    /// The dotted names of the keys whose effective values differ, in the order of the reference file.
    ///
    /// ```
    /// use pyrycode_relay::config::Config;
    ///
    /// let config = Config::parse("[log]\nlevel = \"warn\"\n[session]\ngrace = \"30s\"", "relay.toml").unwrap();
    /// assert_eq!(config.changed_keys(&Config::default()), ["log.level"]);
    /// ```
    #[must_use]
    pub fn changed_keys(&self, other: &Self) -> Vec<String> {
        keys().iter().filter(|key| (key.write)(self) != (key.write)(other)).map(Key::path).collect()
    }

    /// The effective configuration as TOML: every key in the order of the reference file, defaults included.
    /// A key that has no value stands there as a comment. Parsing the result gives an equal configuration.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut lines = Vec::new();
        let mut table = "";
        for key in keys() {
            if key.table != table {
                if !table.is_empty() {
                    lines.push(String::new());
                }
                table = key.table;
                lines.push(format!("[{table}]"));
            }
            lines.push(match (key.write)(self) {
                Some(value) => format!("{} = {value}", key.name),
                None => format!("# {} is not set", key.name),
            });
        }
        lines.push(String::new());
        lines.join("\n")
    }
}
