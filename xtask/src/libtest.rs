//! Running `cargo test` and keeping, of all that it prints, what a reader and a summary need.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::shown;
use crate::{process_tree, workspace};

/// Runs the tests and passes on their output as it comes, but for what passing tests printed; notes counts, measurements
/// and why tests failed. Returns how many ran. Tests that say nothing for `patience` are ended: one that hangs must not
/// hold up a CI for ever.
pub(crate) fn run(command: &mut Command, patience: Duration, notes: &mut Vec<String>) -> Result<u32> {
    println!("$ {}", shown(command));
    command.current_dir(workspace::root()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", shown(command)))?;
    let chunks = read_chunks(child.stdout.take().context("the tests have no output")?)?;
    let (mut terminal, mut printed, mut terse) = (std::io::stdout(), Vec::new(), Terse::default());
    let hangs = loop {
        match chunks.recv_timeout(patience) {
            Ok(chunk) => {
                let passed_on = terse.pass_on(&chunk);
                terminal
                    .write_all(passed_on.as_bytes())
                    .and_then(|()| terminal.flush())
                    .context("pass on the output")?;
                printed.extend_from_slice(&chunk);
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if hangs {
        process_tree::end(child.id());
    }
    let status = child.wait().context("wait for the tests")?;
    let printed = String::from_utf8_lossy(&printed);
    let report = Report::of(&printed);
    notes.extend(report.notes());
    if hangs {
        let last = printed.lines().last().unwrap_or_default();
        bail!(
            "nothing was heard for {} s and the tests were ended; the last words: {last}",
            patience.as_secs()
        );
    }
    if !status.success() {
        bail!("cargo test ended with {status}");
    }
    Ok(report.passed + report.failed)
}

/// The output as it comes, until its end.
fn read_chunks(mut stdout: ChildStdout) -> Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = sync_channel(16);
    let read = move || {
        let mut buffer = vec![0; 8192];
        while let Ok(length) = stdout.read(&mut buffer) {
            let Some(chunk) = buffer.get(..length).filter(|chunk| !chunk.is_empty()) else { break };
            if sender.send(chunk.to_owned()).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("test output".to_owned()).spawn(read).context("start a thread")?;
    Ok(receiver)
}

/// Leaves out of libtest's output what the tests that passed printed.
#[derive(Default)]
struct Terse {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// Whether this is the part of those that passed.
    of_passed: bool,
}

impl Terse {
    fn pass_on(&mut self, chunk: &[u8]) -> String {
        self.begun.extend_from_slice(chunk);
        let Some(end) = self.begun.iter().rposition(|&byte| byte == b'\n') else { return String::new() };
        let rest = self.begun.split_off(end + 1);
        let whole = std::mem::replace(&mut self.begun, rest);
        let mut shown = String::new();
        for line in String::from_utf8_lossy(&whole).split_inclusive('\n') {
            let text = line.trim_end();
            if text == "successes:" {
                self.of_passed = true;
            } else if text == "failures:" || text.starts_with("test result: ") {
                self.of_passed = false;
            }
            if !self.of_passed {
                shown.push_str(line);
            }
        }
        shown
    }
}

/// What tests that printed this come down to.
pub(crate) fn notes(printed: &str) -> impl Iterator<Item = String> {
    Report::of(printed).notes().into_iter()
}

/// How many tests ran that printed this.
pub(crate) fn ran(printed: &str) -> u32 {
    let Report { passed, failed, .. } = Report::of(printed);
    passed + failed
}

/// What a run of many test binaries comes down to.
#[derive(Debug, Default, PartialEq)]
struct Report {
    passed: u32,
    failed: u32,
    ignored: u32,
    /// Names of failed tests, and why they failed as far as they say.
    failures: BTreeMap<String, String>,
    /// Lines in which a test compares what it measured with its goal.
    measured: Vec<String>,
}

impl Report {
    fn of(printed: &str) -> Self {
        let mut report = Self::default();
        let (mut lines, mut section) = (printed.lines(), "");
        while let Some(line) = lines.next() {
            if let Some(counts) = line.strip_prefix("test result: ") {
                report.passed += count(counts, " passed");
                report.failed += count(counts, " failed");
                report.ignored += count(counts, " ignored");
            } else if line.contains("(goal: ") {
                report.measured.push(line.to_owned());
            } else if let Some(name) =
                line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
            {
                report.failures.entry(name.to_owned()).or_default();
            } else if let Some(name) =
                line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
            {
                section = name;
            } else if line.starts_with("thread '")
                && line.contains(" panicked at ")
                && let Some(why) = report.failures.get_mut(section).filter(|why| why.is_empty())
            {
                *why = cut(lines.next().unwrap_or_default());
            }
        }
        report
    }

    fn notes(&self) -> Vec<String> {
        let Self { passed, failed, ignored, .. } = self;
        let counts = format!("{passed} tests passed, {failed} failed, {ignored} ignored");
        let failures = self.failures.iter().map(|(name, why)| {
            if why.is_empty() { format!("failed: {name}") } else { format!("failed: {name}: {why}") }
        });
        std::iter::once(counts).chain(failures).chain(self.measured.iter().cloned()).collect()
    }
}

/// The beginning of a line that may be very long.
fn cut(line: &str) -> String {
    line.chars().take(500).collect()
}

/// The number right before `word`: `ok. 3 passed; 0 failed` has 3 before " passed".
fn count(counts: &str, word: &str) -> u32 {
    let before = counts.split(word).next().filter(|before| before.len() < counts.len());
    before.and_then(|before| before.rsplit(' ').next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_hangs_is_ended_and_named() {
        let mut hanging = Command::new("sh");
        hanging.args(["-c", "echo 'test forever ...'; sleep 1000"]);
        let error = run(&mut hanging, Duration::from_millis(300), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("test forever ..."), "{error}");
    }

    #[test]
    fn what_passing_tests_printed_is_left_out_however_it_is_cut() {
        let printed = "test a ... ok\n\nsuccesses:\n\n---- a stdout ----\nrow\n\nfailures:\nwhy\ntest result: FAILED.\n\
                       successes:\nrow\ntest result: ok.\n";
        let expected = "test a ... ok\n\nfailures:\nwhy\ntest result: FAILED.\ntest result: ok.\n";
        for size in 1..printed.len() {
            let mut terse = Terse::default();
            let shown: String = printed.as_bytes().chunks(size).map(|chunk| terse.pass_on(chunk)).collect();
            assert_eq!(shown, expected, "in pieces of {size} bytes");
        }
    }

    #[test]
    fn counts_of_several_binaries_add_up_and_failures_are_named() {
        let report = Report::of(
            "running 2 tests\ntest a ... ok\ntest b::c ... FAILED\n\
             failures:\n---- b::c stdout ----\nthread 'main' (17) panicked at tests/b.rs:3:5:\nno row came\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             created: n=5 p50=1ms p99=2ms max=2ms (goal: p99 under 50ms)\n\
             test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 1.00s\n",
        );
        assert_eq!((report.passed, report.failed, report.ignored), (13, 1, 3));
        assert_eq!(
            report.notes(),
            [
                "13 tests passed, 1 failed, 3 ignored",
                "failed: b::c: no row came",
                "created: n=5 p50=1ms p99=2ms max=2ms (goal: p99 under 50ms)"
            ]
        );
    }
}
