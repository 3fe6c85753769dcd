//! The forms in which the relay can be run beyond the shipped one.

use std::fs;

use crate::Given;
use crate::sessions::silent;
use crate::support::eventually_within;
use crate::system::{
    CONFIG, PATIENCE, UNIT, configure, cursor, journal_says, ok, probed, process_after, property, set, sh,
};

const DROP_INS: &str = "/etc/systemd/system/pyrycode-relay.service.d";
const EXAMPLES: &str = "/usr/share/doc/pyrycode-relay/examples/systemd";
const SYSCTL: &str = "/etc/sysctl.d/60-pyrycode-relay.conf";
const TLS: &str = "/etc/pyrycode-relay/tls";

pub fn credentials(_: &Given) {
    let plain = fs::read_to_string(CONFIG).unwrap();
    ok(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=relay.example.com \
         -addext subjectAltName=DNS:relay.example.com,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout {TLS}/privkey.pem -out {TLS}/fullchain.pem && \
         chmod 600 {TLS}/*.pem"
    ));
    configure(|text| {
        let text = set(&text, "tls", "mode", "\"files\"");
        let text = set(&text, "tls", "certificate", "\"credential:tls_fullchain.pem\"");
        set(&text, "tls", "key", "\"credential:tls_privkey.pem\"")
    });
    ok(&format!("systemctl restart {UNIT}"));
    let said = ok(&format!("pyrycode-relay probe --ca {TLS}/fullchain.pem wss://127.0.0.1:8080"));
    assert!(said.contains("ok"), "{said}");
    // Whoever runs as the service cannot read the file itself.
    let owner = property(UNIT, "UID");
    assert_ne!(owner, "0");
    ok(&format!("rm {TLS}/privkey.pem {TLS}/fullchain.pem"));
    fs::write(CONFIG, plain).unwrap();
    ok(&format!("systemctl restart {UNIT}"));
    probed();
}

pub fn locked_down(_: &Given) {
    fs::create_dir_all(DROP_INS).unwrap();
    fs::copy(format!("{EXAMPLES}/locked-down.conf"), format!("{DROP_INS}/locked-down.conf")).unwrap();
    configure(|text| {
        let text = set(&text, "listen", "public", "\"systemd:public\"");
        set(&text, "listen", "metrics", "\"systemd:metrics\"")
    });
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

/// The same rule holds for a socket that systemd opens as for an address in the file.
pub fn open_metrics_socket(_: &Given) {
    let directory = "/etc/systemd/system/pyrycode-relay-metrics.socket.d";
    fs::create_dir_all(directory).unwrap();
    fs::write(format!("{directory}/open.conf"), "[Socket]\nListenStream=\nListenStream=0.0.0.0:9090\n")
        .unwrap();
    let mark = cursor();
    ok(&format!("systemctl daemon-reload && systemctl stop {UNIT} 'pyrycode-relay*.socket'"));
    let (code, said) = sh(&format!("systemctl start {UNIT}"));
    assert_ne!(code, 0, "{said}");
    journal_says(&mark, "listen.metrics: the socket that systemd passed listens on 0.0.0.0:9090");
    // A configuration that is refused does not mend itself: nothing is tried again.
    assert!(property(UNIT, "ExecMainStatus") == "78", "{}", property(UNIT, "ExecMainStatus"));
    fs::remove_dir_all(directory).unwrap();
    ok("systemctl stop 'pyrycode-relay*.socket'");
    ok(&format!("systemctl daemon-reload && systemctl reset-failed && systemctl start {UNIT}"));
    probed();
}

pub fn default_again(_: &Given) {
    fs::remove_dir_all(DROP_INS).unwrap();
    fs::remove_file(SYSCTL).unwrap();
    configure(|text| {
        let text = set(&text, "listen", "public", "\"127.0.0.1:8080\"");
        set(&text, "listen", "metrics", "\"127.0.0.1:9090\"")
    });
    ok(&format!(
        "systemctl disable --now pyrycode-relay.socket pyrycode-relay-metrics.socket; systemctl stop {UNIT}"
    ));
    ok(&format!("systemctl daemon-reload && systemctl restart {UNIT}"));
    probed();
    let connection = silent();
    eventually_within(PATIENCE, "the connection is there", || {
        connection.peer_addr().map_err(|error| error.to_string())
    });
}
