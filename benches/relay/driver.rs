//! Plays the cases, each program in turn, and gathers what the generator says.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use clap::Parser;

use crate::Result;
use crate::arguments::Arguments;
use crate::case::{Case, Order};
use crate::generator::Figures;
use crate::process::{GENERATOR, Program, Running, myself, raise_descriptor_limit};
use crate::table::{self, Column};

pub(crate) fn run() -> Result<()> {
    let arguments = Arguments::parse();
    let all = Case::all(raise_descriptor_limit()?);
    if arguments.list {
        for case in all {
            println!("{}", case.name);
        }
        return Ok(());
    }
    let cases = arguments.chosen(all)?;
    let mut programs = vec![("relay", Program::Relay(arguments.program.clone()))];
    if let Some(against) = &arguments.against {
        programs.push(("against", Program::Relay(against.clone())));
    }
    programs.push(("yardstick", Program::Yardstick));
    let mut written = Vec::new();
    let mut failed = 0;
    table::print_head(arguments.against.is_some(), &arguments)?;
    for case in &cases {
        let mut columns: Vec<_> = programs.iter().map(|_| Column::default()).collect();
        'runs: for run in 0..arguments.runs as usize {
            // Who is first changes from run to run.
            for place in 0..programs.len() {
                let which = (run + place) % programs.len();
                let (name, program) = &programs[which];
                let figures = match play(program, case, &arguments) {
                    Ok(figures) => figures,
                    Err(error) => {
                        println!("{}: run {} of {name} failed: {error}", case.name, run + 1);
                        failed += 1;
                        break 'runs;
                    }
                };
                written.push(serde_json::json!({
                    "case": case.name, "run": run + 1, "program": name, "figures": figures,
                }));
                columns[which].runs.push(figures);
            }
        }
        table::print_case(case, &columns);
    }
    if let Some(path) = &arguments.json {
        let targets: BTreeMap<_, _> =
            cases.iter().map(|case| (&case.name, table::targets(&case.name))).collect();
        let all = serde_json::json!({
            "seconds": arguments.seconds, "warm_up": arguments.warm_up, "cases": cases, "targets": targets,
            "results": written,
        });
        fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    if failed > 0 { Err(format!("{failed} cases failed").into()) } else { Ok(()) }
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
        return Err(String::from_utf8_lossy(&generator.stderr).trim().to_owned().into());
    }
    Ok(serde_json::from_slice(&generator.stdout)?)
}
