//! What the agent costs: the release agent against floors measured in the same run.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{as_root, run, shown, which};
use crate::{build_ebpf, debian, workspace};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// poll, events, idle, discovery or all, and their options, or destinations; `help` says more
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WHAT")]
    args: Vec<String>,
}

/// Programs that the benchmark starts, and Debian's name for what brings them.
const PROGRAMS: [(&str, &str); 8] = [
    ("busybox", "busybox-static"),
    ("dockerd", "docker.io"),
    ("ip", "iproute2"),
    ("nats-server", "nats-server"),
    ("nsenter", "util-linux"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("setpriv", "util-linux"),
];

pub(crate) fn main(options: &Options) -> Result<()> {
    if options.args.first().is_some_and(|what| what == "destinations") {
        return destinations();
    }
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| which(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        debian::need(&missing, "the benchmark starts programs that are missing here")?;
    }
    let agent = build_ebpf::build_all()?;
    // The floor is measured in this program: it must be as optimised as the agent.
    let build = ["build", "--release", "--locked", "--package", "xtcp-tests", "--bin", "xtcp-bench"];
    run(Command::new(workspace::cargo()).args(build))?;
    let mut bench = as_root("env");
    bench.arg(format!("XTCP_AGENT={}", agent.display()));
    bench.arg(workspace::cargo_target().join("release/xtcp-bench")).args(&options.args);
    println!("$ {}\n", shown(&bench));
    // In place of this program: Ctrl-C is the benchmark's, which cleans up.
    Err(bench.exec()).context("start the benchmark")
}

/// What a row costs on its way out. It runs inside cargo's own benchmark of the agent's library, which needs no root.
fn destinations() -> Result<()> {
    let missing: Vec<&str> = [("nats-server", "nats-server"), ("redis-server", "redis-server")]
        .iter()
        .filter(|(program, _)| which(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        debian::need(&missing, "the benchmark starts programs that are missing here")?;
    }
    let bench =
        ["bench", "--locked", "--package", "xtcp-agent", "--features", "full", "--bench", "destinations"];
    run(Command::new(workspace::cargo()).args(bench))
}
