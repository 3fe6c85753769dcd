//! What systemd hears, over a socket of the test's own.
//!
//! The notifying side reads the environment, which only a new process can be given: each test starts itself again
//! as a child.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed test, with its line"
)]

use std::io;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};
use std::time::Duration;

use pyrycode_relay::service::systemd;

fn child(act: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_process", "--ignored", "--nocapture"])
        .env("SYSTEMD_TEST_ACT", act);
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    command
}

#[test]
#[ignore = "the child process of other tests"]
fn child_process() {
    let act = std::env::var("SYSTEMD_TEST_ACT").unwrap();
    let result: io::Result<()> = match act.as_str() {
        "all" => [
            systemd::ready(),
            systemd::status("3 binaries\n12 phones"),
            systemd::watchdog(),
            systemd::stopping(),
        ]
        .into_iter()
        .collect(),
        "ready" => systemd::ready(),
        "interval" => {
            println!("interval {:?}", systemd::watchdog_interval());
            Ok(())
        }
        _ => unreachable!("an act of the tests below"),
    };
    println!("result {:?}", result.map_err(|error| error.kind()));
}

fn said(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_message_reaches_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let said = said(child("all").env("NOTIFY_SOCKET", &path).output().unwrap());
    assert!(said.contains("result Ok(())"), "{said}");
    for expected in [
        "READY=1\n",
        "STATUS=3 binaries 12 phones\n",
        "WATCHDOG=1\n",
        "STOPPING=1\n",
    ] {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).unwrap();
        assert_eq!(std::str::from_utf8(&message[..length]).unwrap(), expected);
    }
}

#[test]
fn without_a_socket_nothing_happens() {
    let said = said(child("all").output().unwrap());
    assert!(said.contains("result Ok(())"), "{said}");
    assert!(!said.contains("Err"), "{said}");
}

#[test]
fn a_socket_that_is_gone_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let said = said(
        child("ready")
            .env("NOTIFY_SOCKET", directory.path().join("gone"))
            .output()
            .unwrap(),
    );
    assert!(said.contains("result Err(NotFound)"), "{said}");
    assert!(!said.contains("Ok(())"), "{said}");
}

#[test]
fn the_watchdog_is_fed_in_half_of_its_time() {
    let with = |usec: &str, pid: Option<&str>| {
        let mut command = child("interval");
        command.env("WATCHDOG_USEC", usec);
        if let Some(pid) = pid {
            command.env("WATCHDOG_PID", pid);
        }
        said(command.output().unwrap())
    };
    assert!(with("30000000", None).contains("interval Some(15s)"));
    assert!(
        with("30000000", Some("1")).contains("interval None"),
        "it watches another process"
    );
    assert!(with("0", None).contains("interval None"));
    assert!(with("soon", None).contains("interval None"));
    assert!(said(child("interval").output().unwrap()).contains("interval None"));
}
