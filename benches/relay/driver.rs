//! Plays the cases, each program in turn, and gathers what the generator says.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::Stdio;

use clap::Parser;
use serde_json::{Value, json};

use crate::Result;
use crate::arguments::Arguments;
use crate::case::{Case, Order};
use crate::generator::Figures;
use crate::process::{self, GENERATOR, Program, Running, myself, raise_descriptor_limit};
use crate::table::{self, Column};

/// The table cannot be written.
#[derive(Debug)]
struct NoOutput(io::Error);

impl fmt::Display for NoOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to standard output: {}", self.0)
    }
}

impl Error for NoOutput {}

/// Whether that is because nobody reads it any more.
pub(crate) fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref().is_some_and(|NoOutput(error)| error.kind() == ErrorKind::BrokenPipe)
}

pub(crate) fn run() -> Result<()> {
    let arguments = Arguments::parse();
    let all = Case::all();
    let out = &mut io::stdout().lock();
    if arguments.list {
        return Ok(all.iter().try_for_each(|case| writeln!(out, "{}", case.name)).map_err(NoOutput)?);
    }
    let descriptors = raise_descriptor_limit()?;
    let chosen = arguments.chosen(all, descriptors)?;
    for program in arguments.against.iter().chain([&arguments.program]) {
        process::look_at(program)?;
    }
    let mut json = arguments.json.as_deref().map(Json::open).transpose()?;
    table::print_head(out, &arguments).map_err(NoOutput)?;
    let (cases, left_out): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|case| case.descriptors() <= descriptors);
    for case in &left_out {
        table::print_left_out(out, case, descriptors).map_err(NoOutput)?;
    }
    let mut written = Vec::new();
    let played = play_all(out, &cases, &arguments, &mut written);
    // What was played is not lost if something went wrong then.
    if let Some(json) = &mut json {
        json.write(&cases, &arguments, &written)?;
    }
    played
}

/// Plays the cases. Figures are added to `written` as they come.
fn play_all(
    out: &mut impl Write,
    cases: &[Case],
    arguments: &Arguments,
    written: &mut Vec<Value>,
) -> Result<()> {
    let mut programs = vec![("relay", Program::Relay(arguments.program.clone()))];
    if let Some(against) = &arguments.against {
        programs.push(("against", Program::Relay(against.clone())));
    }
    programs.push(("yardstick", Program::Yardstick { is_batching: arguments.batching }));
    let mut failed = 0;
    for case in cases {
        let mut columns: Vec<_> = programs.iter().map(|_| Column::default()).collect();
        'runs: for run in 0..arguments.runs as usize {
            // Who is first changes from run to run.
            for place in 0..programs.len() {
                let which = (run + place) % programs.len();
                let (name, program) = &programs[which];
                let figures = match play(program, case, arguments) {
                    Ok(figures) => figures,
                    Err(error) => {
                        writeln!(out, "{}: run {} of {name} failed: {error}", case.name, run + 1)
                            .map_err(NoOutput)?;
                        failed += 1;
                        break 'runs;
                    }
                };
                written.push(json!({
                    "case": case.name, "run": run + 1, "program": name, "figures": figures,
                }));
                columns[which].runs.push(figures);
            }
        }
        table::print_case(out, case, &columns).map_err(NoOutput)?;
    }
    match failed {
        0 => Ok(()),
        1 => Err("1 case failed".into()),
        _ => Err(format!("{failed} cases failed").into()),
    }
}

/// One run: a new process of the program, and a new generator.
fn play(program: &Program, case: &Case, arguments: &Arguments) -> Result<Figures> {
    let running = Running::start(program, case)?;
    let order = Order {
        case: case.clone(),
        address: running.address,
        metrics: running.metrics,
        certificate: running.certificate.clone(),
        pid: running.pid(),
        warm_up: arguments.warm_up,
        seconds: arguments.seconds,
    };
    let generator = myself(GENERATOR)?
        .arg(serde_json::to_string(&order)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    if !generator.status.success() {
        let said = String::from_utf8_lossy(&generator.stderr);
        let said = said.trim().strip_prefix("bench: ").unwrap_or(said.trim());
        let said = if said.is_empty() { generator.status.to_string() } else { said.to_owned() };
        return Err(format!("{said}{}", running.last_words()).into());
    }
    Ok(serde_json::from_slice(&generator.stdout)?)
}

/// The file for the figures.
struct Json<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Json<'a> {
    /// Before anything is played, so that nothing is played in vain. What is in the file stays until there is something new.
    fn open(path: &'a Path) -> Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| format!("--json {}: {error}", path.display()))?;
        Ok(Self { path, file })
    }

    fn write(&mut self, cases: &[Case], arguments: &Arguments, results: &[Value]) -> Result<()> {
        let targets: BTreeMap<_, _> =
            cases.iter().map(|case| (&case.name, table::targets(&case.name))).collect();
        let all = json!({
            "seconds": arguments.seconds, "warm_up": arguments.warm_up, "batching": arguments.batching,
            "cases": cases, "targets": targets, "results": results,
        });
        let text = serde_json::to_string_pretty(&all)? + "\n";
        let written = self.put(text.as_bytes());
        written.map_err(|error| format!("--json {}: {error}", self.path.display()).into())
    }

    fn put(&mut self, text: &[u8]) -> io::Result<()> {
        // A pipe has no length.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(text)
    }
}
