//! What the sandbox forbids, by trying it.

use crate::Given;
use crate::system::{ok, probed, process_after};

pub fn default_form(given: &Given) {
    holds(given, "default");
}

pub fn locked_down(given: &Given) {
    holds(given, "locked-down");
}

fn holds(given: &Given, form: &str) {
    let said = ok(&format!("{}/sandbox/run-inside {form}", given.directory.display()));
    println!("{said}");
    assert!(said.contains("exposure"), "{said}");
    process_after("");
    probed();
}
