//! A command made of stages: each is timed, a failed one does not hide what the others would say, and the end is
//! one table.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What ran so far.
#[derive(Default)]
pub(crate) struct Stages {
    done: Vec<Stage>,
}

struct Stage {
    name: &'static str,
    took: Duration,
    /// What it says for itself in the summary.
    notes: Vec<String>,
    failure: Option<String>,
}

impl Stages {
    /// Runs a stage; whether it succeeded.
    pub(crate) fn run(&mut self, name: &'static str, stage: impl FnOnce() -> Result<()>) -> bool {
        self.run_noting(name, |_| stage())
    }

    /// Runs a stage that leaves notes for the summary; whether it succeeded.
    pub(crate) fn run_noting(
        &mut self,
        name: &'static str,
        stage: impl FnOnce(&mut Vec<String>) -> Result<()>,
    ) -> bool {
        println!("\n=== {name}");
        let (start, mut notes) = (Instant::now(), Vec::new());
        let result = stage(&mut notes);
        let took = start.elapsed();
        let failure = result.err().map(|error| format!("{error:#}"));
        match &failure {
            None => println!("=== {name}: passed in {:.1} s", took.as_secs_f64()),
            Some(why) => println!("=== {name}: FAILED after {:.1} s: {why}", took.as_secs_f64()),
        }
        let passed = failure.is_none();
        self.done.push(Stage { name, took, notes, failure });
        passed
    }

    /// Notes a stage that could not run because an earlier one failed.
    pub(crate) fn skip(&mut self, name: &'static str, why: &str) {
        let failure = Some(format!("not run: {why}"));
        self.done.push(Stage { name, took: Duration::ZERO, notes: Vec::new(), failure });
    }

    /// Prints the summary; an error if anything failed.
    pub(crate) fn finish(self, title: &str) -> Result<()> {
        println!("\n{}", self.summary(title));
        let failed = self.done.iter().filter(|stage| stage.failure.is_some()).count();
        if failed > 0 {
            bail!("{title}: {failed} of {} stages failed", self.done.len());
        }
        Ok(())
    }

    fn summary(&self, title: &str) -> String {
        let total: Duration = self.done.iter().map(|stage| stage.took).sum();
        let mut text = format!("{title}: {:.0} s\n", total.as_secs_f64());
        for stage in &self.done {
            let verdict = if stage.failure.is_none() { "passed" } else { "FAILED" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {verdict} {:>7.1} s  {}", stage.took.as_secs_f64(), stage.name);
            for note in stage.notes.iter().chain(&stage.failure) {
                let _ = writeln!(text, "                    {note}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_stage_fails_the_whole_and_the_others_still_run() {
        let mut stages = Stages::default();
        assert!(!stages.run("first", || bail!("no luck")));
        assert!(stages.run_noting("second", |notes| {
            notes.push("3 tests".to_owned());
            Ok(())
        }));
        stages.skip("third", "the first failed");
        let summary = stages.summary("test");
        assert!(summary.contains("FAILED") && summary.contains("no luck"), "{summary}");
        assert!(summary.contains("3 tests") && summary.contains("not run: the first failed"), "{summary}");
        let error = stages.finish("test").unwrap_err();
        assert_eq!(error.to_string(), "test: 2 of 3 stages failed");
    }
}
