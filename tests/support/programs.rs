//! Other people's programs, where they are installed.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

/// What a program said that was started with these arguments and this input, within a bounded time.
pub fn said(program: &str, arguments: &[&str], input: &str) -> Option<String> {
    ran(program, arguments, input).map(|(_, said)| said)
}

/// The same, and whether it was content.
pub fn ran(program: &str, arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let mut child = match Command::new("timeout")
        .arg("120")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        child => child.expect("starts"),
    };
    let mut stdin = child.stdin.take().unwrap();
    // It may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    // Whoever waits for an answer to a command goes on until its own end.
    let _open = input.ends_with("R\n").then_some(stdin);
    let output = child.wait_with_output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let is_missing = output.status.code() == Some(127);
    assert!(
        !(is_missing && std::env::var_os("PYRYCODE_RELAY_REQUIRE_PROGRAMS").is_some()),
        "{program} is not installed: {said}"
    );
    (!is_missing).then_some((output.status.success(), said))
}
