//! What operators read about the configuration and the program beyond the single keys and options. What stands in
//! backquotes is set like code.

/// What is allowed for a duration unless its key says otherwise.
pub(crate) const ANY_DURATION: &str = "a duration from \"1ms\" to \"24h\"";

/// The beginning of the installed file.
pub(super) const FILE_HEADER: &[&str] = &[
    "`/etc/pyrycode-relay/relay.toml`",
    "Every key stands here with its default, commented out, so this file changes nothing as it is. Take the `#` away \
     from a key to set it. One that is left out keeps its default, and follows it when a new version has a better \
     one. Keys that do not exist are refused.",
    "Durations are written `\"500ms\"`, `\"30s\"`, `\"5m\"` or `\"1h\"`, from `\"1ms\"` to `\"24h\"` if nothing else \
     is said; sizes `\"512B\"`, `\"64KiB\"`, `\"4MiB\"` or `\"1GiB\"`.",
    "Check the file with `pyrycode-relay check`, then restart the relay (`systemctl restart pyrycode-relay`). \
     `systemctl reload pyrycode-relay` is enough for `log.level` and, with `tls.mode = \"files\"`, for \
     `tls.certificate`, `tls.key` and `tls.domains`; new contents of a credential take a restart. The manual: \
     pyrycode-relay.toml(5).",
];

/// Where the configuration comes from.
pub(super) const THE_FILE: &[&str] = &[
    "The relay reads one TOML file: the one that `--config` names, otherwise `/etc/pyrycode-relay/relay.toml` if it \
     exists, otherwise the built-in defaults. A file that `--config` names must exist, and a file that exists must be \
     readable: the relay never falls back to defaults because something went wrong.",
    "Every key is optional. The file that is installed shows every key with its default, commented out, and so \
     changes nothing as it stands. Set only what should differ: a key that is left out follows its default when a new \
     version has a better one, and a limit that is left out shrinks to what the host allows (see `[limits]`).",
];

/// What `check` finds.
pub(super) const CHECKING: &[&str] = &[
    "`pyrycode-relay check` reads the file exactly as the relay does, lists everything that is wrong with it on \
     standard error, and exits with 78; a good file gives one line on standard output and exit code 0. The relay \
     itself refuses to start with the same list and the same code. There are no warnings: what is not accepted is \
     refused.",
    "`check` looks at the file alone, and at the certificate and key that it names, unless they are credentials and it \
     runs in a shell. The rest shows only when the relay starts: an address that is not to be had (exit code 69); and, \
     each with exit code 78, sockets of systemd that do not agree with `[listen]`, a credential that is missing or \
     bad, a `tls.state` that cannot be written, `log.format = \"journald\"` on a host without a journal, and fewer \
     descriptors than the limits need (see `[limits]`).",
    "`pyrycode-relay check --print` prints the configuration that is in effect, every key included, as a file that \
     can be used in turn. The verdict goes to standard error then, so `check --print > effective.toml` keeps just the \
     file.",
];

/// What takes effect when.
pub(super) const READING_AGAIN: &[&str] = &[
    "The file is read when the relay starts. On SIGHUP (`systemctl reload`) it is read again, and `log.level` takes \
     effect; with `tls.mode = \"files\"`, so do `tls.certificate`, `tls.key` and `tls.domains`, and the files \
     themselves, but not credentials, which systemd passes once, at the start. Everything else needs a restart: \
     another key that has changed stays as it was, and the event `reloaded` names it under `needs_restart`. If the \
     file, or the certificate, has become bad, everything stays as it was, the level too, and the event \
     `reload_failed`, the line of `systemctl status` and the metric `reloads_total` say so.",
];

/// How values are written.
pub(super) const VALUES: &[(&str, &str)] = &[
    (
        "Durations",
        "are a whole number and a unit: `\"500ms\"`, `\"30s\"`, `\"5m\"`, `\"1h\"`. A bare number is refused.",
    ),
    (
        "Sizes",
        "are a whole number and a unit: `\"512B\"`, `\"64KiB\"`, `\"4MiB\"`, `\"1GiB\"`. The units are powers of \
         1024.",
    ),
    (
        "Addresses",
        "are an IP address and a port: `\"127.0.0.1:8080\"`, `\"[::1]:8080\"`. Names are refused, because what a name \
         stands for can change after the file was checked.",
    ),
    (
        "Sockets",
        "that systemd opens are written `\"systemd:NAME\"`, where NAME is the `FileDescriptorName=` of the socket \
         unit (see systemd.socket(5)). What systemd passes and what is configured must agree exactly, or the relay does \
         not start: no socket is missing, none too many, each is a listening TCP socket, and its address passes the rules \
         for addresses. `check` cannot see the sockets, and says so.",
    ),
    (
        "Credentials",
        "of systemd are written `\"credential:NAME\"`, as in `LoadCredential=NAME:PATH` of the unit (see \
         systemd.exec(5)). The shipped unit passes each file of /etc/pyrycode-relay/tls, with `tls_` before its name. \
         Each is a regular file (links are passed over) of at most 1 MB, without `:` in its name: another keeps the service \
         from starting, used or not. systemd copies them when the service starts, so new contents take a restart; a \
         reload shows the old certificate again. `check` is given the paths instead to look at new ones.",
    ),
    ("Keys and tables", "that do not exist are refused, and so is a key that stands in the file twice."),
];

/// Whole configurations: what each is for, and the file.
pub(crate) const EXAMPLES: &[(&str, &str)] = &[
    (
        "A proxy on this host speaks TLS and says who its clients are:",
        "[client_address]\nsource = \"x-forwarded-for\"\ntrusted = [\"127.0.0.1/32\", \"::1/128\"]\n",
    ),
    (
        "The relay gets its certificate by itself:",
        "[listen]\npublic = \"[::]:443\"\n\n[tls]\nmode = \"acme\"\ndomains = [\"relay.example.com\"]\n\
         contact = \"mailto:ops@example.com\"\n",
    ),
    (
        "The files /etc/pyrycode-relay/tls/fullchain.pem and privkey.pem, which only root can read, reach the relay as \
         credentials of its unit:",
        "[listen]\npublic = \"0.0.0.0:443\"\n\n[tls]\nmode = \"files\"\n\
         certificate = \"credential:tls_fullchain.pem\"\nkey = \"credential:tls_privkey.pem\"\n",
    ),
    (
        "systemd opens the sockets (pyrycode-relay.socket and pyrycode-relay-metrics.socket):",
        "[listen]\npublic = \"systemd:public\"\nmetrics = \"systemd:metrics\"\n",
    ),
    (
        "Two server-ids only, whose binaries may stay away for five minutes, and frames of up to 1 MiB:",
        "[access]\nservers = [\"home\", \"office\"]\n\n[session]\ngrace = \"5m\"\nmax_frame = \"1MiB\"\n",
    ),
];

/// The variables that the program looks at.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "NOTIFY_SOCKET",
        "Where systemd is told that the relay is ready, is reading its files again, is alive, or is stopping, and the \
         line that `systemctl status` shows (sd_notify(3)). Without it, nobody is told.",
    ),
    (
        "WATCHDOG_USEC, WATCHDOG_PID",
        "How long the relay may be silent before systemd takes it for dead (`WatchdogSec=`), and which process is \
         meant. It says that it is alive twice in that time.",
    ),
    (
        "LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID",
        "The sockets that systemd passes, for `listen.public` and `listen.metrics` of the form `\"systemd:NAME\"` \
         (sd_listen_fds(3)).",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "Where the files behind `tls.certificate` and `tls.key` of the form `\"credential:NAME\"` are \
         (`LoadCredential=` in systemd.exec(5)).",
    ),
    (
        "JOURNAL_STREAM",
        "Whether standard error is the journal: then `log.format = \"auto\"` writes to the journal, field by field.",
    ),
    (
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "Certificates of authorities, in place of the system's: for `probe` with wss:// and without `--ca`, and for \
         the ACME directory.",
    ),
];

/// The files that the program reads and writes.
pub(super) const FILES: &[(&str, &str)] = &[
    ("/etc/pyrycode-relay/relay.toml", "The configuration: pyrycode-relay.toml(5)."),
    (
        "/etc/pyrycode-relay/tls",
        "Certificate and key of `tls.mode = \"files\"`, for root only: the unit passes each file of it to the relay as \
         a credential, `privkey.pem` as `credential:tls_privkey.pem`.",
    ),
    (
        "/var/lib/pyrycode-relay/acme",
        "Account, certificates and keys of `tls.mode = \"acme\"`, unless `tls.state` names another directory. Nothing \
         else is kept.",
    ),
    (
        "/usr/share/doc/pyrycode-relay/docs",
        "The operator's guide: operating.md from installation to removal, troubleshooting.md by symptom, alerts.md, \
         sizing.md (limits and memory), tls.md, deployment.md (proxies), configuration.md, metrics.md, logging.md, \
         protocol.md. Examples are in /usr/share/doc/pyrycode-relay/examples.",
    ),
];
