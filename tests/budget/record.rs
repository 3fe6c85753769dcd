//! What was recorded, and how it is compared.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::figures::Figures;
use crate::traffic::FRAME;

/// A system call that is made less often for a frame is not recorded: it is made every few seconds.
const SELDOM: f64 = 0.05;

/// The figures of both directions, and where they were taken.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) architecture: String,
    pub(crate) compiler: String,
    pub(crate) phone_to_binary: Figures,
    pub(crate) binary_to_phone: Figures,
}

impl Record {
    pub(crate) fn read(file: &Path) -> Self {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// As it stands in its file.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "# What one frame of {FRAME} bytes takes in an optimized build, one at a time. Written by: tests/budget/run --record\n\
             architecture = \"{}\"\ncompiler = \"{}\"\n",
            self.architecture, self.compiler
        );
        for (way, figures) in self.ways() {
            let _ = write!(
                text,
                "\n[{way}]\ninstructions = {:.0}.0\natomic_instructions = {:.1}\nclock_reads = {:.2}\nallocations = {:.2}\n\
                 allocated_bytes = {:.0}.0\n\n[{way}.system_calls]\n",
                figures.instructions,
                figures.atomic_instructions,
                figures.clock_reads,
                figures.allocations,
                figures.allocated_bytes
            );
            for (name, calls) in figures.system_calls.iter().filter(|(_, calls)| **calls > SELDOM) {
                let _ = writeln!(text, "{name} = {calls:.2}");
            }
        }
        text
    }

    fn ways(&self) -> [(&'static str, &Figures); 2] {
        [("phone_to_binary", &self.phone_to_binary), ("binary_to_phone", &self.binary_to_phone)]
    }

    /// Prints every figure beside the record's; if that is another architecture's, without those that this decides. Whether none is
    /// more than is allowed.
    pub(crate) fn is_within(&self, recorded: &Self) -> bool {
        let mut beyond = Vec::new();
        let mut less = false;
        let elsewhere = self.architecture != recorded.architecture;
        println!("{:<16} {:<28} {:>10} {:>10} {:>10}", "", "for one frame", "recorded", "allowed", "now");
        for ((way, now), (_, then)) in self.ways().into_iter().zip(recorded.ways()) {
            for figure in now.beside(then, elsewhere) {
                let (name, was, allowed, is) = (&figure.name, figure.recorded, figure.allowed(), figure.now);
                println!("{way:<16} {name:<28} {was:>10.2} {allowed:>10.2} {is:>10.2}");
                if is > allowed {
                    beyond.push(format!(
                        "{way}: {name} went from {was:.2} to {is:.2}, allowed are {allowed:.2}"
                    ));
                }
                less |= figure.is_less();
            }
        }
        if elsewhere {
            println!(
                "The instructions are not compared: this machine is {}, the record is of {}",
                self.architecture, recorded.architecture
            );
        }
        if less {
            println!("Some take less than was recorded. To hold that from now on: tests/budget/run --record");
        }
        if beyond.is_empty() {
            return true;
        }
        println!("\nOne frame takes more than was recorded:\n  {}", beyond.join("\n  "));
        println!("If that is meant, record it with: tests/budget/run --record");
        if self.compiler != recorded.compiler {
            println!("The compiler is another one: {}; recorded with {}", self.compiler, recorded.compiler);
        }
        false
    }
}

/// The compiler that is there.
pub(crate) fn compiler() -> String {
    let said =
        Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).trim().to_owned()
}
