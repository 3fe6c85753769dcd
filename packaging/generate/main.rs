//! Writes what is generated from the definitions in the code: the reference configuration, its part of
//! docs/configuration.md, the manual pages and the shells' completions. With `--check` it writes nothing and says what
//! differs.

mod outputs;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use outputs::Failure;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => each(write),
        ["--check"] => each(check),
        _ => {
            eprintln!("usage: {} [-- --check]", outputs::COMMAND);
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Does something to each output, and fails when it failed for one of them.
fn each(act: fn(&Path, &outputs::Output) -> Result<bool, Failure>) -> Result<ExitCode, Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut good = true;
    for output in outputs::all(root)? {
        good &= act(root, &output)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(root: &Path, output: &outputs::Output) -> Result<bool, Failure> {
    if output.difference(root).is_none() {
        return Ok(true);
    }
    let path = root.join(output.path);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&path, &output.text)?;
    println!("{}", output.path);
    Ok(true)
}

#[allow(clippy::unnecessary_wraps, reason = "it stands where `write` stands")]
fn check(root: &Path, output: &outputs::Output) -> Result<bool, Failure> {
    let difference = output.difference(root);
    if let Some(difference) = &difference {
        eprintln!("{difference}");
    }
    Ok(difference.is_none())
}
