//! The table: for each case its figures, and how the relay's compare with the yardstick's.

use std::io::{self, Write};

use serde::Serialize;

use crate::arguments::Arguments;
use crate::case::{Case, Flood, Play};
use crate::generator::Figures;

/// The runs of one program.
#[derive(Default)]
pub(crate) struct Column {
    pub(crate) runs: Vec<Figures>,
}

/// What a figure should be at most.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Target {
    /// In the yardstick's.
    Ratio(f64),
    Value(f64),
}

/// The figures of a case that the table shows, and what they are.
fn rows(play: Play) -> &'static [(&'static str, &'static str)] {
    match play {
        Play::Echo { .. } | Play::EchoInTurn { .. } | Play::Slow { flood: Flood::None } => &[
            ("cpu_us", "CPU per frame, us"),
            ("per_s", "frames per second"),
            ("p50_us", "round trip p50, us"),
            ("p99_us", "round trip p99, us"),
            ("p999_us", "round trip p99.9, us"),
        ],
        Play::Slow { .. } => &[
            ("cpu_us", "CPU per other's frame, us"),
            ("p50_us", "round trip p50, us"),
            ("p99_us", "round trip p99, us"),
            ("p999_us", "round trip p99.9, us"),
            ("closed", "slow ones closed"),
        ],
        Play::Beside => &[
            ("cpu_us", "CPU per flooded frame, us"),
            ("p50_us", "round trip p50, us"),
            ("p99_us", "round trip p99, us"),
            ("p999_us", "round trip p99.9, us"),
        ],
        Play::Open { .. } => &[
            ("cpu_us", "CPU per frame, us"),
            ("per_s", "frames per second"),
            ("p50_us", "latency p50, us"),
            ("p99_us", "latency p99, us"),
            ("p999_us", "latency p99.9, us"),
        ],
        Play::FloodUp | Play::FloodDown => &[("cpu_us", "CPU per frame, us"), ("per_s", "frames per second")],
        Play::Idle { .. } => &[
            ("connections", "connections"),
            ("fresh_b", "memory each, fresh, B"),
            ("used_b", "memory each, used, B"),
            ("before_kib", "memory before, KiB"),
            ("gone_kib", "memory when all went, KiB"),
            ("gone_by_before", "  by that before"),
            ("again_by_before", "  when all went twice"),
            ("again_by_gone", "  twice by once"),
        ],
        Play::Churn { .. } => &[
            ("cpu_us", "CPU per connect, us"),
            ("per_s", "connects per second"),
            ("p50_us", "whole visit p50, us"),
            ("p99_us", "whole visit p99, us"),
            ("p999_us", "whole visit p99.9, us"),
        ],
    }
}

/// What is allowed: of which case, which figure. The charts have it from the JSON.
const TARGETS: [(&str, &str, Target); 15] = [
    ("one", "cpu_us", Target::Ratio(1.35)),
    ("one", "p99_us", Target::Ratio(1.5)),
    ("eight", "cpu_us", Target::Ratio(1.45)),
    ("flood-up", "cpu_us", Target::Ratio(3.0)),
    ("flood-down", "cpu_us", Target::Ratio(3.0)),
    ("large", "cpu_us", Target::Ratio(1.9)),
    ("churn", "cpu_us", Target::Ratio(2.5)),
    ("idle-4000", "fresh_b", Target::Value(5000.0)),
    ("idle-4000", "used_b", Target::Value(8000.0)),
    ("idle-4000", "gone_by_before", Target::Value(1.2)),
    ("idle-4000", "again_by_before", Target::Value(1.2)),
    ("idle-16000", "fresh_b", Target::Value(5000.0)),
    ("idle-16000", "used_b", Target::Value(8000.0)),
    ("idle-16000", "gone_by_before", Target::Value(1.2)),
    ("idle-16000", "again_by_before", Target::Value(1.2)),
];

fn target(case: &str, figure: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|(of, which, _)| *of == case && *which == figure).map(|(_, _, target)| target)
}

/// What is allowed in this case, by figure.
pub(crate) fn targets(case: &str) -> serde_json::Value {
    let of_case = TARGETS.iter().filter(|(of, ..)| *of == case);
    of_case.map(|(_, figure, target)| ((*figure).to_owned(), serde_json::json!(target))).collect()
}

/// The part of a run for which a process may have waited for a processor.
const DISTURBED: f64 = 0.05;

/// What the columns are.
pub(crate) fn print_head(out: &mut impl Write, arguments: &Arguments) -> io::Result<()> {
    writeln!(out, "relay:     {}", arguments.program.display())?;
    if let Some(against) = &arguments.against {
        writeln!(out, "against:   {}", against.display())?;
    }
    let written =
        if arguments.batching { "when all that a wait brought is handled" } else { "after each read" };
    writeln!(
        out,
        "yardstick: a bare epoll loop that writes {written}; \"ratio\" is by it: median [min - max] of {} runs",
        arguments.runs
    )?;
    write!(out, "\n{:<23} {:<26} {:>10} ", "case", "figure", "relay")?;
    if arguments.against.is_some() {
        write!(out, "{:>10} ", "against")?;
    }
    write!(out, "{:>10}  {:<22}", "yardstick", "ratio")?;
    if arguments.against.is_some() {
        write!(out, "{:<22}{:<22}", "against's ratio", "relay by against")?;
    }
    writeln!(out, "target")
}

/// One line per figure.
pub(crate) fn print_case(out: &mut impl Write, case: &Case, columns: &[Column]) -> io::Result<()> {
    let (Some(relay), Some(yardstick)) = (columns.first(), columns.last()) else { return Ok(()) };
    if columns.iter().any(|column| column.runs.is_empty()) {
        return Ok(());
    }
    let other = columns.get(1..columns.len() - 1).and_then(<[Column]>::first);
    for (index, (figure, label)) in rows(case.play).iter().enumerate() {
        write!(out, "{:<23} {label:<26} ", if index == 0 { case.name.as_str() } else { "" })?;
        for column in columns {
            write!(out, "{:>10} ", number(median(values(column, figure))))?;
        }
        write!(out, " {:<22}", compare(relay, yardstick, figure))?;
        if let Some(other) = other {
            write!(out, "{:<22}{:<22}", compare(other, yardstick, figure), compare(relay, other, figure))?;
        }
        let (allowed, most, reached) = match target(&case.name, figure) {
            Some(Target::Ratio(most)) => ("ratio <= ", *most, median(ratios(relay, yardstick, figure))),
            Some(Target::Value(most)) => ("<= ", *most, median(values(relay, figure))),
            None => {
                writeln!(out)?;
                continue;
            }
        };
        writeln!(out, "{allowed}{most}{}", if reached > most { "  MISSED" } else { "" })?;
    }
    print_disturbance(out, columns)
}

/// In place of the figures of a case that is not played.
pub(crate) fn print_left_out(out: &mut impl Write, case: &Case, descriptors: u64) -> io::Result<()> {
    writeln!(out, "{:<23} (left out: {})", case.name, case.needs(descriptors))
}

/// Says so if somebody else was busy on this machine, because then the times mean little.
fn print_disturbance(out: &mut impl Write, columns: &[Column]) -> io::Result<()> {
    let runs = columns.iter().flat_map(|column| &column.runs);
    let disturbed = |run: &&Figures| {
        let waited = |name: &str| run.get(name).is_some_and(|&part| part > DISTURBED);
        waited("waited") || waited("generator_waited")
    };
    let (all, disturbed) = (runs.clone().count(), runs.filter(disturbed).count());
    if disturbed > 0 {
        writeln!(
            out,
            "{:<23} ({disturbed} of {all} runs waited for a processor for more than {:.0} %)",
            "",
            DISTURBED * 100.0
        )?;
    }
    Ok(())
}

fn values(column: &Column, figure: &str) -> Vec<f64> {
    column.runs.iter().filter_map(|run| run.get(figure).copied()).collect()
}

/// The ratios of the runs that were next to each other.
fn ratios(one: &Column, other: &Column, figure: &str) -> Vec<f64> {
    let mut ratios = Vec::new();
    for (one, other) in one.runs.iter().zip(&other.runs) {
        if let (Some(one), Some(other)) = (one.get(figure), other.get(figure)) {
            ratios.push(one / other);
        }
    }
    ratios.sort_by(f64::total_cmp);
    ratios
}

fn compare(one: &Column, other: &Column, figure: &str) -> String {
    let ratios = ratios(one, other, figure);
    match (ratios.first(), ratios.last()) {
        (Some(&least), Some(&most)) => format!("{:.2} [{least:.2} - {most:.2}]", median(ratios)),
        _ => String::new(),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

fn number(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else if value < 1000.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}
