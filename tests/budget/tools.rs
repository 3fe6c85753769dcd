//! What each tool counts in one run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use crate::traffic::{Way, forward};

/// Allocations, and their bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocated {
    /// How often.
    pub(crate) times: u64,
    /// How much.
    pub(crate) bytes: u64,
}

/// How long no thread may have run before the next frame is sent, where system calls are counted: longer than any timeout by which
/// async-io's own thread looks whether somebody drives the reactor, so that it has settled who does.
const REST: Duration = Duration::from_millis(25);

/// System calls by name that a frame takes, of all threads: the median of `frames` frames, so that what the program does once a
/// second is not counted.
pub(crate) fn system_calls(program: &Path, way: Way, frames: usize) -> BTreeMap<String, u64> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("trace");
    let tool = ["strace", "-f", "-qq", "-o", file.to_str().expect("a path that is text")];
    let mut trace = Trace::default();
    let mut calls: Vec<BTreeMap<String, u64>> = Vec::new();
    let mut warm = false;
    forward(&tool, program, way, frames + 1, REST, || {
        let next = trace.next(&file);
        // The first has everything that came before it.
        if std::mem::replace(&mut warm, true) {
            calls.push(next);
        }
    });
    assert_eq!(calls.len(), frames);
    let names: BTreeSet<&String> = calls.iter().flat_map(BTreeMap::keys).collect();
    let medians = names.into_iter().map(|name| {
        let mut each: Vec<u64> =
            calls.iter().map(|calls| calls.get(name).copied().unwrap_or_default()).collect();
        each.sort_unstable();
        (name.clone(), each[frames / 2])
    });
    let medians: BTreeMap<String, u64> = medians.filter(|(_, calls)| *calls > 0).collect();
    assert!(medians.values().sum::<u64>() >= 2, "a frame is read and written: {medians:?}");
    medians
}

/// What strace writes, as it grows.
#[derive(Default)]
struct Trace {
    read: u64,
    /// The beginning of a line.
    rest: String,
}

impl Trace {
    /// The calls in the lines that were finished since this was asked last.
    fn next(&mut self, file: &Path) -> BTreeMap<String, u64> {
        let mut file = fs::File::open(file).expect("a trace");
        file.seek(SeekFrom::Start(self.read)).expect("seeks");
        self.read += file.read_to_string(&mut self.rest).expect("text") as u64;
        let end = self.rest.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.rest.split_off(end);
        let mut calls = BTreeMap::new();
        // `1234 read(7, …`, and not the second half of a call that was interrupted by another thread's.
        for line in std::mem::replace(&mut self.rest, rest).lines() {
            let Some((_, said)) = line.split_once(' ') else { continue };
            let Some((name, _)) = said.trim_start().split_once('(') else { continue };
            if name.bytes().all(|one| one.is_ascii_alphanumeric() || one == b'_') {
                *calls.entry(name.to_owned()).or_default() += 1;
            }
        }
        calls
    }
}

/// Instructions of all threads.
pub(crate) fn instructions(program: &Path, way: Way, frames: usize) -> u64 {
    let said = valgrind(&["--tool=callgrind", "--callgrind-out-file=/dev/null"], program, way, frames);
    number_in(&said, "Collected :").unwrap_or_else(|| panic!("callgrind says no sum: {said}"))
}

/// Allocations of all threads.
pub(crate) fn allocations(program: &Path, way: Way, frames: usize) -> Allocated {
    let said = valgrind(&["--tool=dhat", "--dhat-out-file=/dev/null"], program, way, frames);
    let found = number_in(&said, "Total:").zip(number_in(&said, "bytes in"));
    let (bytes, times) = found.unwrap_or_else(|| panic!("dhat says no sum: {said}"));
    Allocated { times, bytes }
}

fn valgrind(options: &[&str], program: &Path, way: Way, frames: usize) -> String {
    said(|file| {
        let log = format!("--log-file={file}");
        let tool = [&["valgrind"], options, &[log.as_str()]].concat();
        forward(&tool, program, way, frames, Duration::ZERO, || ());
    })
}

/// What the tool has written into its file.
fn said(run: impl FnOnce(&str)) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("said");
    run(file.to_str().expect("a path that is text"));
    fs::read_to_string(file).expect("what the tool says")
}

/// The number behind `label`, with commas in it.
fn number_in(text: &str, label: &str) -> Option<u64> {
    let digits = text.lines().find_map(|line| line.split_once(label))?.1.trim_start();
    let digits: String = digits.chars().take_while(|one| one.is_ascii_digit() || *one == ',').collect();
    digits.replace(',', "").parse().ok()
}
