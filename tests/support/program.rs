//! The program with a configuration of its own, and the ways to start it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Variables by which a service manager speaks to a service.
const MANAGERS: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "JOURNAL_STREAM",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// The program with a configuration file of its own, not yet started.
pub struct Program {
    directory: tempfile::TempDir,
    /// Its certificate, if it is there only because everything runs over TLS.
    keys: Option<tempfile::TempDir>,
}

impl Program {
    /// Writes the configuration.
    pub fn new(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let program = Self { directory, keys: None };
        std::fs::write(program.config_path(), config).expect("a configuration");
        program
    }

    /// Keeps these files for as long as it is there.
    pub fn keeping(self, keys: tempfile::TempDir) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// The configuration file, which goes away with this value.
    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("relay.toml")
    }

    /// How to start it with so many descriptors, and no way to have more.
    pub fn command_with_descriptors(&self, descriptors: u64) -> Command {
        through_a_shell(&self.command(), &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""))
    }

    /// How to start it as systemd does when it passes sockets, two at most: from descriptor 3 on, with names, meant for
    /// just this process.
    pub fn command_with_sockets(&self, sockets: Vec<(&str, OwnedFd)>) -> Command {
        assert!(sockets.len() <= 2, "there are two streams to carry them: {sockets:?}");
        if sockets.is_empty() {
            return quiet(self.command());
        }
        let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
        let (count, names) = (names.len(), names.join(":"));
        let open = if count == 1 { "exec 3<&0" } else { "exec 3<&0 4<&1" };
        let script = format!(
            "{open}\nexec </dev/null >/dev/null\nexport LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names}\n\
             exec \"$0\" \"$@\""
        );
        let mut command = through_a_shell(&self.command(), &script);
        let mut sockets = sockets.into_iter().map(|(_, socket)| Stdio::from(socket));
        command.stdin(sockets.next().unwrap_or_else(Stdio::null));
        command.stdout(sockets.next().unwrap_or_else(Stdio::null));
        command
    }

    /// How to start it, free of whatever a service manager has put into the environment of the test.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyrycode-relay"));
        command.arg("--config").arg(self.config_path()).stdin(Stdio::null());
        for variable in MANAGERS {
            command.env_remove(variable);
        }
        command
    }
}

/// Its standard output goes nowhere.
pub fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null());
    command
}

/// What a script of a shell starts in the end: `"$0" "$@"` in it.
fn through_a_shell(plain: &Command, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
    for (variable, _) in plain.get_envs() {
        command.env_remove(variable);
    }
    command
}
