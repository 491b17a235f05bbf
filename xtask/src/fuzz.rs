//! Fuzzing the decoder (`xtcp-agent/inet-diag/fuzz`): seeds made from the fixtures, then each target for a while.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{run, shown, which};
use crate::instrumented::{Compiler, TARGET};
use crate::stage::Stages;
use crate::{debian, workspace};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which; all unless given
    #[arg(value_parser = TARGETS, value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u32,
}

/// The targets, as `fuzz/Cargo.toml` has them.
const TARGETS: [&str; 4] = ["framing", "attributes", "dump", "filter"];
const FOLDER: &str = "xtcp-agent/inet-diag/fuzz";
const CARGO_FUZZ: &str = "0.13.2";

pub(crate) fn main(options: &Options) -> Result<()> {
    let mut stages = Stages::default();
    stages_of(&mut stages, &options.targets, options.seconds);
    stages.finish("cargo xtask fuzz")
}

/// One stage for all that must be built, one for each target; no target named means all.
pub(crate) fn stages_of(stages: &mut Stages, targets: &[String], seconds: u32) {
    let is_wanted = |target: &&str| targets.is_empty() || targets.iter().any(|wanted| wanted == target);
    let targets: Vec<_> = TARGETS.into_iter().filter(is_wanted).collect();
    if !stages.run("fuzz targets", || build(&targets)) {
        return stages.skip("fuzzing", "there are no targets to run");
    }
    for target in targets {
        stages.run_noting(target, |notes| {
            notes.push(fuzz(target, seconds)?);
            Ok(())
        });
    }
}

/// Where everything lives that fuzzing writes.
fn home() -> PathBuf {
    workspace::target().join("fuzz")
}

fn build(targets: &[&str]) -> Result<()> {
    if which("c++").is_none() {
        debian::need(&["g++"], "libFuzzer is written in C++")?;
    }
    let compiler = Compiler::find("asan")?;
    let cargo_fuzz = cargo_fuzz()?;
    let manifest = format!("{FOLDER}/Cargo.toml");
    run(Command::new(workspace::cargo()).args(["fmt", "--check", "--manifest-path", &manifest]))?;
    let mut seeds = Command::new(workspace::cargo());
    seeds.args(["run", "--locked", "--package", "xtcp-inet-diag", "--example", "seeds", "--"]);
    run(seeds.arg(home().join("seeds"))).context("make seeds from the fixtures")?;
    for target in targets {
        let mut build = compiler.command(&cargo_fuzz)?;
        build.args(["build", "--fuzz-dir", FOLDER, "--target", TARGET, "--target-dir"]).arg(home());
        run(build.arg(target))?;
    }
    Ok(())
}

/// `cargo-fuzz` on the PATH, or one built under `target/`, once.
fn cargo_fuzz() -> Result<PathBuf> {
    if let Some(found) = which("cargo-fuzz") {
        return Ok(found);
    }
    let root = workspace::target().join("tools");
    let own = root.join("bin/cargo-fuzz");
    if !own.exists() {
        println!("cargo-fuzz: building {CARGO_FUZZ}, once");
        let mut install = Command::new(workspace::cargo());
        install.args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked", "--root"]);
        run(install.arg(&root)).context("install cargo-fuzz")?;
    }
    Ok(own)
}

/// Runs a target and says what it did; what it printed is the file `<target>.log`.
fn fuzz(target: &str, seconds: u32) -> Result<String> {
    let home = home();
    let (corpus, found) = (home.join("corpus").join(target), home.join("findings").join(target));
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let log = home.join(format!("{target}.log"));
    let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let mut fuzzer = Command::new(home.join(TARGET).join("release").join(target));
    fuzzer.args([&format!("-max_total_time={seconds}"), "-timeout=10", "-print_final_stats=1"]);
    fuzzer.arg(format!("-artifact_prefix={}/", found.display()));
    // New inputs go to the first folder; what was found once stays an input for ever.
    fuzzer.arg(&corpus).arg(home.join("seeds").join(target));
    let regressions = workspace::root().join(FOLDER).join("regressions").join(target);
    if regressions.exists() {
        fuzzer.arg(regressions);
    }
    println!("$ {} 2>{}", shown(&fuzzer), workspace::shown(&log));
    let status = fuzzer
        .stdin(Stdio::null())
        .stderr(file)
        .status()
        .with_context(|| format!("start {}", shown(&fuzzer)))?;
    let said = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    if !status.success() {
        bail!("{target} ended with {status}{}", finding(&said, &log));
    }
    summary(&said).with_context(|| format!("{} has no final statistics", workspace::shown(&log)))
}

/// Executions and coverage, from libFuzzer's last words; nothing when it did not get that far.
fn summary(said: &str) -> Option<String> {
    let done = said.lines().rfind(|line| line.contains("\tDONE "))?;
    let word_after = |name: &str| done.split_whitespace().skip_while(|word| *word != name).nth(1);
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?.trim();
    let (edges, corpus) = (word_after("cov:")?, word_after("corp:")?);
    Some(format!("{runs} executions, {edges} edges covered, corpus (inputs/bytes) {corpus}, nothing found"))
}

/// What went wrong, and the input that did it.
fn finding(said: &str, log: &Path) -> String {
    let starts = ["thread '", "assertion ", "==", "SUMMARY:", "artifact_prefix="];
    let lines = said.lines().filter(|line| starts.iter().any(|start| line.starts_with(start)));
    let told: Vec<_> = lines.take(8).collect();
    format!("; all that it said is in {}:\n  {}", workspace::shown(log), told.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_of_the_package_is_run() {
        let manifest =
            fs::read_to_string(workspace::root().join(FOLDER).join("Cargo.toml")).expect("it is there");
        let names = manifest.split("[[bin]]").skip(1).filter_map(|bin| bin.split('"').nth(1));
        assert!(names.eq(TARGETS), "{manifest}");
    }

    #[test]
    fn the_last_words_become_one_line_and_their_absence_is_noticed() {
        let said = "#2\tINITED cov: 3 ft: 4 corp: 1/1b exec/s: 0 rss: 40Mb\n\
                    #17\tDONE   cov: 211 ft: 1018 corp: 171/18Kb lim: 4096 exec/s: 12241 rss: 327Mb\n\
                    stat::number_of_executed_units: 110171\n";
        let line = "110171 executions, 211 edges covered, corpus (inputs/bytes) 171/18Kb, nothing found";
        assert_eq!(summary(said).as_deref(), Some(line));
        assert_eq!(summary("#17\tDONE   cov: 211 corp: 1/1b\n"), None);
        assert_eq!(summary("killed\n"), None);
    }
}
