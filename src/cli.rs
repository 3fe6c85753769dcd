//! The command line: one definition for the program, its help, and whatever else describes it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::config::server_id;

/// Where the configuration is looked for when `--config` is not given.
pub const DEFAULT_CONFIG: &str = "/etc/pyrycode-relay/relay.toml";

const ABOUT: &str = "\
Relays end-to-end encrypted frames between a daemon (the \"binary\") and its phones. Both connect to the relay \
over WebSocket and name the same server-id; the relay passes frames on and keeps nothing.

Without a command, the relay runs in the foreground until it is told to stop.";

const AFTER: &str = "\
Configuration:
  One TOML file: the one that --config names, which must exist; else
  /etc/pyrycode-relay/relay.toml if it exists; else the built-in defaults.
  Unknown keys are refused. 'pyrycode-relay check --print' shows every key
  with the value that is in effect.

Signals:
  TERM, INT  Drain: accept nobody new, deliver what is queued, close every
             connection, exit 0. A second one cuts what is left at once.
  HUP        Read the configuration file again: log level and certificate
             change at once, what else has changed is logged. A certificate
             that systemd passes as a credential takes a restart. With an
             ACME certificate that is wanting: try again now. Connections
             are untouched.

Exit codes:
  0    done: the relay was told to stop, the configuration is good, the probe passed
  1    the probe could not reach the relay, or found a fault
  64   the arguments make no sense
  69   an address cannot be bound
  70   internal error
  78   the configuration is refused; every problem is listed with its line
  101  a panic: a fault of the program; its message is on standard error

Examples:
  pyrycode-relay
      Run with the configuration of this host.
  pyrycode-relay check --config ./relay.toml
      Check a file before it is installed.
  pyrycode-relay probe ws://127.0.0.1:8080
      See whether a running relay passes frames in both directions.";

const CHECK_AFTER: &str = "\
The file is read exactly as the relay reads it, but nothing is started and no address \
is bound.

Exit codes:
  0   the configuration is good
  64  the arguments make no sense
  70  the result cannot be written
  78  the configuration is refused; every problem is listed on standard error with its line

Examples:
  pyrycode-relay check
      Check what the relay would use if it were started now.
  pyrycode-relay check --config ./relay.toml
      Check another file.
  pyrycode-relay check --print > effective.toml
      Keep the effective configuration. The verdict goes to standard error.";

const PROBE_AFTER: &str = "\
The probe claims a random server-id of its own (or the one that --server-id names), so it disturbs nobody. Afterwards the relay keeps that server-id \
for its grace period, as it does for every binary, and then counts one grace expiry.

With wss:// every connection goes through TLS, and the relay's certificate must be valid, be for the host of the URL, \
and come from an authority that this system trusts, or from one in the file of --ca.

Exit codes:
  0   every frame arrived, unchanged and in order
  1   the relay is not there, refuses, answers wrongly, or shows a certificate that cannot be
      trusted; standard error says which
  64  the arguments make no sense

Examples:
  pyrycode-relay probe ws://127.0.0.1:8080
      Send 100 frames each way.
  pyrycode-relay probe wss://relay.example.com
      Go through TLS, and see until when the certificate is valid.
  pyrycode-relay probe wss://relay.internal --ca /etc/ssl/our-ca.pem
      Trust an authority of one's own, and no other.
  pyrycode-relay probe ws://127.0.0.1:8080 --count 1000 --size 65536 --json
      Send larger frames, and print the result for a program to read.";

/// Relays end-to-end encrypted frames between a daemon and its phones.
#[derive(Debug, Parser)]
#[command(
    name = "pyrycode-relay",
    version,
    about,
    long_about = ABOUT,
    after_long_help = AFTER,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do; without a command, the relay runs.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Which configuration to use.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Which configuration file to read.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Configuration file [default: /etc/pyrycode-relay/relay.toml if it exists, else built-in defaults]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// What the program does instead of running the relay.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a configuration and say everything that is wrong with it
    #[command(after_long_help = CHECK_AFTER)]
    Check(CheckArgs),
    /// Send frames through a running relay, as a real binary and a real phone, and judge what comes back
    #[command(after_long_help = PROBE_AFTER)]
    Probe(ProbeArgs),
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Which configuration to check.
    #[command(flatten)]
    pub config: ConfigArgs,

    /// Print the effective configuration as TOML, defaults included
    ///
    /// Only the configuration goes to standard output then; the verdict goes to standard error.
    #[arg(long)]
    pub print: bool,
}

/// Arguments of `probe`.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// Address of the relay.
    // Given apart from the comment: angle brackets or backquotes around the address do not belong in the help.
    #[arg(
        value_name = "URL",
        help = "Address of the relay, such as ws://127.0.0.1:8080 or wss://relay.example.com"
    )]
    pub url: String,

    /// Frames to send each way
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,

    /// Bytes in each frame, 72 to 16777216; more than 262144 only if the relay's session.max_frame allows it
    ///
    /// This is the length of the frame as JSON text, as the phone sends it. The envelope that the relay puts
    /// around it on the binary's side is not counted.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    #[allow(clippy::doc_markdown, reason = "backquotes do not belong in the help")]
    pub size: usize,

    /// Claim this server-id instead of a random one; a relay with an access list takes no other
    ///
    /// It must be one that no binary uses: one that is in use is refused (and its binary not disturbed).
    #[arg(long, value_name = "ID", value_parser = server_id)]
    pub server_id: Option<String>,

    /// Verify a wss:// relay's certificate with those in this PEM file, instead of the system's
    ///
    /// The file holds one or several certificates of authorities. None but these are trusted then.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,

    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}
