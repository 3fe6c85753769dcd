//! The forms in which the relay can be run beyond the shipped one.

use std::fs;
use std::net::TcpStream;

use crate::Given;
use crate::install::apt_install;
use crate::sessions::Knocking;
use crate::system::{
    CONFIG, METRICS, PUBLIC, UNIT, configure, cursor, journal_says, ok, probed, probed_at, process_after,
    property, set, sh,
};

const DROP_INS: &str = "/etc/systemd/system/pyrycode-relay.service.d";
const EXAMPLES: &str = "/usr/share/doc/pyrycode-relay/examples/systemd";
const SYSCTL: &str = "/etc/sysctl.d/60-pyrycode-relay.conf";
const TLS: &str = "/etc/pyrycode-relay/tls";

/// Makes a certificate; where key and certificate go is to be added.
const CERTIFICATE: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
     -subj /CN=relay.example.com -addext subjectAltName=DNS:relay.example.com,IP:127.0.0.1 \
     -addext basicConstraints=critical,CA:FALSE";

/// As certbot runs it after a renewal.
fn renew() {
    ok(&format!(
        "mkdir -p /run/lineage && {CERTIFICATE} -keyout /run/lineage/privkey.pem -out /run/lineage/fullchain.pem && \
         RENEWED_LINEAGE=/run/lineage {EXAMPLES}/../certbot/deploy-hook && rm -r /run/lineage"
    ));
}

/// The relay speaks TLS with the certificate that is in the directory.
fn serves_tls() {
    probed_at(&format!("--ca {TLS}/fullchain.pem wss://{PUBLIC}"));
}

/// TLS from files that are called this and then `fullchain.pem` or `privkey.pem`.
fn configure_tls(files: &str) {
    configure(|text| {
        let text = set(&text, "tls", "mode", "\"files\"");
        let text = set(&text, "tls", "certificate", &format!("\"{files}fullchain.pem\""));
        set(&text, "tls", "key", &format!("\"{files}privkey.pem\""))
    });
}

fn configure_listen(public: &str, metrics: &str) {
    configure(|text| {
        let text = set(&text, "listen", "public", &format!("\"{public}\""));
        set(&text, "listen", "metrics", &format!("\"{metrics}\""))
    });
}

/// As `systemctl edit` does: the socket listens elsewhere when it is started anew. The directory that makes it so.
fn move_socket(unit: &str, address: &str) -> String {
    let directory = format!("/etc/systemd/system/{unit}.d");
    fs::create_dir_all(&directory).unwrap();
    fs::write(
        format!("{directory}/override.conf"),
        format!("[Socket]\nListenStream=\nListenStream={address}\n"),
    )
    .unwrap();
    directory
}

pub fn credentials(_: &Given) {
    let plain = fs::read_to_string(CONFIG).unwrap();
    configure_tls("credential:tls_");
    // Without a certificate there is no relay; with the first one there is.
    let mark = cursor();
    assert_ne!(sh(&format!("systemctl restart {UNIT}")).0, 0);
    journal_says(&mark, "tls.certificate: credential:tls_fullchain.pem: cannot be read");
    assert_eq!(property(UNIT, "ActiveState"), "failed");
    renew();
    serves_tls();
    // The guide's way to look at new files before a restart.
    let said =
        ok(&format!("sed 's|credential:tls_|{TLS}/|' {CONFIG} | pyrycode-relay check --config /dev/stdin"));
    assert!(said.contains("certificate ok: for relay.example.com"), "{said}");
    let pid = process_after("");
    renew();
    serves_tls();
    assert_ne!(property(UNIT, "MainPID"), pid);
    // Whoever runs as the service cannot read the file itself.
    let account = property(UNIT, "UID");
    let (code, read) =
        sh(&format!("setpriv --reuid={account} --regid={account} --clear-groups cat {TLS}/privkey.pem"));
    assert!(account != "0" && code != 0, "{account}: {read}");
    assert!(read.contains("Permission denied"), "{read}");
    ok(&format!("rm {TLS}/privkey.pem {TLS}/fullchain.pem"));
    fs::write(CONFIG, plain).unwrap();
    ok(&format!("systemctl restart {UNIT}"));
    probed();
}

pub fn locked_down(_: &Given) {
    fs::create_dir_all(DROP_INS).unwrap();
    fs::copy(format!("{EXAMPLES}/locked-down.conf"), format!("{DROP_INS}/locked-down.conf")).unwrap();
    configure_listen("systemd:public", "systemd:metrics");
    // As the comments of the two files say.
    fs::copy(format!("{EXAMPLES}/sysctl.conf"), SYSCTL).unwrap();
    ok(&format!("systemctl restart systemd-sysctl && systemctl daemon-reload && systemctl stop {UNIT}"));
    ok(&format!(
        "systemctl enable --now pyrycode-relay.socket pyrycode-relay-metrics.socket && systemctl start {UNIT}"
    ));
    process_after("");
    probed();
    for socket in ["pyrycode-relay.socket", "pyrycode-relay-metrics.socket"] {
        assert_eq!(property(socket, "SubState"), "running");
    }
    let sockets = ok("systemctl list-sockets --no-legend");
    for part in ["127.0.0.1:8080", "127.0.0.1:9090"] {
        assert!(sockets.contains(part), "{sockets}");
    }
}

/// The public socket is moved, as the guide has it, and moved back.
pub fn another_address(_: &Given) {
    let before = property(UNIT, "MainPID");
    let directory = move_socket("pyrycode-relay.socket", "127.0.0.1:8081");
    ok("systemctl daemon-reload && systemctl restart pyrycode-relay.socket");
    process_after(&before);
    probed_at("ws://127.0.0.1:8081");
    assert!(TcpStream::connect(PUBLIC).is_err());
    fs::remove_dir_all(directory).unwrap();
    ok("systemctl daemon-reload && systemctl restart pyrycode-relay.socket");
    probed();
}

/// The same rule holds for a socket that systemd opens as for an address in the file.
pub fn open_metrics_socket(_: &Given) {
    let directory = move_socket("pyrycode-relay-metrics.socket", "0.0.0.0:9090");
    let mark = cursor();
    ok(&format!("systemctl daemon-reload && systemctl stop {UNIT} 'pyrycode-relay*.socket'"));
    let (code, said) = sh(&format!("systemctl start {UNIT}"));
    assert_ne!(code, 0, "{said}");
    journal_says(&mark, "listen.metrics: the socket that systemd passed listens on 0.0.0.0:9090");
    assert_eq!(property(UNIT, "ExecMainStatus"), "78");
    fs::remove_dir_all(directory).unwrap();
    ok("systemctl stop 'pyrycode-relay*.socket'");
    ok(&format!("systemctl daemon-reload && systemctl reset-failed && systemctl start {UNIT}"));
    probed();
}

/// What an operator put there, and the package therefore leaves.
pub fn take_the_drop_ins_away() {
    fs::remove_dir_all(DROP_INS).unwrap();
    fs::remove_file(SYSCTL).unwrap();
}

/// An account that stays, and a group that can read the key: a new certificate is taken up without a restart, and an upgrade and
/// a boot leave the files as they are.
pub fn account_that_stays(given: &Given) {
    let plain = fs::read_to_string(CONFIG).unwrap();
    // As the comments of the file say.
    ok(&format!(
        "systemctl stop {UNIT} && install -D -m 0644 {EXAMPLES}/sysusers.conf /etc/sysusers.d/pyrycode-relay.conf && \
         systemd-sysusers"
    ));
    renew();
    configure_tls(&format!("{TLS}/"));
    ok(&format!("systemctl start {UNIT}"));
    serves_tls();
    let account = ok("id -u pyrycode-relay");
    let pid = property(UNIT, "MainPID");
    assert_eq!(ok(&format!("stat --format=%u /proc/{pid}")), account);
    let mark = cursor();
    renew();
    journal_says(&mark, "reloaded");
    serves_tls();
    assert_eq!(property(UNIT, "MainPID"), pid, "nobody was disconnected");
    apt_install(&given.package, "--allow-downgrades");
    serves_tls();
    ok(&format!("systemd-tmpfiles --create && systemctl restart {UNIT}"));
    serves_tls();
    apt_install(&given.successor, "--allow-downgrades");
    serves_tls();
    fs::write(CONFIG, plain).unwrap();
    ok(&format!(
        "systemctl stop {UNIT} && rm /etc/sysusers.d/pyrycode-relay.conf {TLS}/*.pem && \
         rmdir --ignore-fail-on-non-empty /etc/sysusers.d && userdel pyrycode-relay && \
         rm -rf /var/lib/pyrycode-relay && chgrp root {TLS} && chmod 700 {TLS} && \
         systemctl start {UNIT}"
    ));
    probed();
}

/// A port that only a capability opens.
pub fn privileged_port(_: &Given) {
    let plain = fs::read_to_string(CONFIG).unwrap();
    configure(|text| set(&text, "listen", "public", "\"127.0.0.1:443\""));
    let mark = cursor();
    let (code, said) = sh(&format!("systemctl restart {UNIT}"));
    assert_ne!(code, 0, "{said}");
    journal_says(&mark, "privileged-port.conf");
    ok(&format!("install -D -m 0644 {EXAMPLES}/privileged-port.conf {DROP_INS}/privileged-port.conf"));
    ok(&format!("systemctl daemon-reload && systemctl restart {UNIT}"));
    probed_at("ws://127.0.0.1:443");
    fs::remove_dir_all(DROP_INS).unwrap();
    fs::write(CONFIG, plain).unwrap();
    ok(&format!("systemctl daemon-reload && systemctl restart {UNIT}"));
    probed();
}

/// A configuration that is refused keeps nobody out for longer than it takes to mend it.
pub fn broken_while_clients_wait(_: &Given) {
    let good = fs::read_to_string(CONFIG).unwrap();
    let knocking = Knocking::start(4);
    let mark = cursor();
    configure(|text| set(&text, "session", "grace", "\"30 parsecs\""));
    let (code, said) = sh(&format!("systemctl restart {UNIT}"));
    assert_ne!(code, 0, "{said}");
    journal_says(&mark, "restart counter is at 3");
    fs::write(CONFIG, good).unwrap();
    ok(&format!("systemctl restart {UNIT}"));
    probed();
    let knocks = knocking.stop();
    println!("   {} knocks were answered, {} late", knocks.answered, knocks.late);
    assert_eq!(knocks.refused, Vec::<String>::new());
    assert!(knocks.late >= 4, "{}", knocks.late);
}

pub fn default_again(_: &Given) {
    take_the_drop_ins_away();
    configure_listen(PUBLIC, METRICS);
    ok(&format!(
        "systemctl disable --now pyrycode-relay.socket pyrycode-relay-metrics.socket; systemctl stop {UNIT}"
    ));
    ok(&format!("systemctl daemon-reload && systemctl restart {UNIT}"));
    probed();
}
