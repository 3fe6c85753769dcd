//! What each tool counts in one run.

use std::collections::BTreeMap;
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

/// What is executed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Executed {
    /// All instructions.
    pub(crate) instructions: u64,
    /// Those that change a word atomically.
    pub(crate) atomics: u64,
    /// How often a clock is read.
    pub(crate) clock_reads: u64,
}

/// How long no thread may have run before the next frame is sent, where system calls are counted: longer than any timeout by which
/// async-io's own thread looks whether somebody drives the reactor, so that it has settled who does.
const REST: Duration = Duration::from_millis(25);

/// System calls by name that a frame takes: those of `frames` frames, shared out among them, so that a call which only every tenth
/// frame makes is seen.
///
/// Of all threads those are counted that make a call for most of the frames. What the others do, they do because some time has
/// passed: timers, and the ends of idle threads. They sleep when a frame is sent, and who wakes them for it
/// makes a call that is counted. The threads that are counted do something every few seconds, too.
pub(crate) fn system_calls(program: &Path, way: Way, frames: usize) -> BTreeMap<String, f64> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("trace");
    let tool = ["strace", "-f", "-qq", "-o", file.to_str().expect("a path that is text")];
    let mut trace = Trace::default();
    let mut threads: BTreeMap<String, Thread> = BTreeMap::new();
    let mut counted = 0;
    let mut warm = false;
    forward(&tool, program, way, frames + 1, REST, || {
        let next = trace.next(&file);
        // The first has everything that came before it.
        if std::mem::replace(&mut warm, true) {
            counted += 1;
            for (thread, calls) in next {
                let thread = threads.entry(thread).or_default();
                thread.frames += 1;
                for (name, times) in calls {
                    *thread.calls.entry(name).or_default() += times;
                }
            }
        }
    });
    assert_eq!(counted, frames);
    threads.retain(|_, thread| thread.frames > frames / 2);
    let mut calls: BTreeMap<String, f64> = BTreeMap::new();
    for (name, times) in threads.into_values().flat_map(|thread| thread.calls) {
        *calls.entry(name).or_default() += times as f64 / frames as f64;
    }
    assert!(calls.values().sum::<f64>() >= 2.0, "a frame is read and written: {calls:?}");
    calls
}

/// What one thread did.
#[derive(Default)]
struct Thread {
    /// Frames during which it made a call.
    frames: usize,
    /// How often it made each.
    calls: BTreeMap<String, u64>,
}

/// What strace writes, as it grows.
#[derive(Default)]
struct Trace {
    read: u64,
    /// The beginning of a line.
    rest: String,
}

impl Trace {
    /// The calls of each thread in the lines that were finished since this was asked last.
    fn next(&mut self, file: &Path) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut file = fs::File::open(file).expect("a trace");
        file.seek(SeekFrom::Start(self.read)).expect("seeks");
        self.read += file.read_to_string(&mut self.rest).expect("text") as u64;
        let end = self.rest.rfind('\n').map_or(0, |at| at + 1);
        let rest = self.rest.split_off(end);
        let mut threads: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        // `1234 read(7, …`, and not the second half of a call that was interrupted by another thread's.
        for line in std::mem::replace(&mut self.rest, rest).lines() {
            let Some((thread, said)) = line.split_once(' ') else { continue };
            let Some((name, _)) = said.trim_start().split_once('(') else { continue };
            if name.bytes().all(|one| one.is_ascii_alphanumeric() || one == b'_') {
                *threads.entry(thread.to_owned()).or_default().entry(name.to_owned()).or_default() += 1;
            }
        }
        threads
    }
}

/// The system calls that read a clock, in valgrind's words.
const CLOCK_READS: [&str; 3] = [" sys_clock_gettime", " sys_gettimeofday", " sys_time("];

/// What all threads execute, by callgrind.
///
/// A clock is read without a system call, so strace sees none. Valgrind hides the kernel's code for that (the vDSO) from the program:
/// then every reading is a system call, whoever makes it, and is in valgrind's own list of them. Instructions that lock the bus are those
/// that change a word atomically: a mutex takes two of them when nobody else has it.
pub(crate) fn executed(program: &Path, way: Way, frames: usize) -> Executed {
    let options =
        ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-bus=yes", "--trace-syscalls=yes"];
    let said = valgrind(&options, program, way, frames);
    let found = numbers_behind(&said, "Collected :");
    let &[instructions, atomics] = found.as_slice() else { panic!("callgrind says no sums: {found:?}") };
    let clock_reads: u64 = CLOCK_READS.map(|call| said.matches(call).count() as u64).iter().sum();
    assert!(clock_reads > 0, "valgrind lists no reading of a clock");
    Executed { instructions, atomics, clock_reads }
}

/// Allocations of all threads.
pub(crate) fn allocations(program: &Path, way: Way, frames: usize) -> Allocated {
    let said = valgrind(&["--tool=dhat", "--dhat-out-file=/dev/null"], program, way, frames);
    let found = [numbers_behind(&said, "Total:"), numbers_behind(&said, "bytes in")].concat();
    let &[bytes, times] = found.as_slice() else { panic!("dhat says no sum: {said}") };
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

/// The numbers behind `label`, which may have commas in them, up to what is none.
fn numbers_behind(text: &str, label: &str) -> Vec<u64> {
    let behind = text.lines().find_map(|line| line.split_once(label)).map_or("", |(_, behind)| behind);
    behind.split_whitespace().map_while(|word| word.replace(',', "").parse().ok()).collect()
}
