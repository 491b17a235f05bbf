//! Unit tests, and whole-program tests of the release agent with real namespaces, sockets and servers.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::command::{self, which};
use crate::stage::Stages;
use crate::{build_ebpf, debian, libtest, python, servers, vm, workspace};

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only tests whose name contains one of these
    #[arg(last = true, value_name = "FILTER")]
    filters: Vec<String>,
}

/// How much a test does: the names are the values of `XTCP_SCALE`.
#[derive(Clone, Copy)]
pub(crate) enum Scale {
    /// Ends in 20 minutes on two cores.
    Ci,
    /// What the promises state.
    Full,
}

impl Scale {
    fn name(self) -> &'static str {
        match self {
            Self::Ci => "ci",
            Self::Full => "full",
        }
    }

    /// How long a test may say nothing.
    fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Ci => 10 * 60,
            Self::Full => 60 * 60,
        })
    }
}

/// Programs that the whole-program tests start, and Debian's name for what brings them.
const PROGRAMS: [(&str, &str); 20] = [
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("busybox", "busybox-static"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("dockerd", "docker.io"),
    ("ip", "iproute2"),
    ("kcat", "kcat"),
    ("lldpd", "lldpd"),
    ("nstat", "iproute2"),
    ("podman", "podman"),
    ("redis-cli", "redis-tools"),
    ("redis-server", "redis-server"),
    ("runc", "runc"),
    ("ss", "iproute2"),
    ("nats-server", "nats-server"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("strace", "strace"),
    ("unshare", "util-linux"),
    ("python3", "python3"),
];

pub(crate) fn main(options: &Options, scale: Scale) -> Result<()> {
    let mut stages = Stages::default();
    stages_of(&mut stages, options, scale);
    match scale {
        Scale::Ci => stages.finish("cargo xtask test"),
        Scale::Full => {
            stages.run_noting("whole-program tests on other kernels", |notes| {
                vm::stage(vm::suite::Extent::Whole, &options.filters, notes)
            });
            servers::stages_of(&mut stages, options, scale);
            stages.finish("cargo xtask full")
        }
    }
}

/// All test stages; `cargo xtask ci` runs them behind its own.
pub(crate) fn stages_of(stages: &mut Stages, options: &Options, scale: Scale) {
    let whole = "whole-program tests";
    if !stages.run("what the tests need", requirements) {
        return stages.skip(whole, "what they need is missing");
    }
    let mut python = None;
    let has_python = stages.run("python clients", || {
        python = Some(python::venv()?);
        Ok(())
    });
    let mut ran = 0;
    stages.run_noting("unit tests", |notes| {
        ran += unit_tests(options, scale, notes)?;
        Ok(())
    });
    if !stages.run("release agent", || build_ebpf::build_all().map(drop)) {
        return stages.skip(whole, "there is no agent to test");
    }
    match python.filter(|_| has_python) {
        Some(python) => {
            stages.run_noting(whole, |notes| {
                let packages = ["--package", "xtcp-tests"];
                ran += listen(&mut whole_program(options, scale, &python, &packages)?, scale, notes)?;
                if ran == 0 {
                    bail!("no test has a name like {}", options.filters.join(" or "));
                }
                Ok(())
            });
        }
        None => stages.skip(whole, "their Python clients are missing"),
    }
}

fn requirements() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "the whole-program tests make network namespaces and load eBPF programs: run this as root \
             (without root: cargo test)"
        );
    }
    let mut missing: Vec<&str> = Vec::new();
    for (program, package) in PROGRAMS {
        if which(program).is_none() && !missing.contains(&package) {
            missing.push(package);
        }
    }
    build_ebpf::libraries()?;
    if missing.is_empty() {
        println!("every program is here");
        return Ok(());
    }
    debian::need(&missing, "the tests start programs that are missing here")
}

fn unit_tests(options: &Options, scale: Scale, notes: &mut Vec<String>) -> Result<u32> {
    let [features, everything] = workspace::EVERYTHING;
    let packages = ["--workspace", "--exclude", "xtcp-ebpf", "--exclude", "xtcp-tests", features, everything];
    let mut cargo = cargo_test(&packages)?;
    listen(cargo.arg("--").args(&options.filters), scale, notes)
}

/// The command that runs whole-program tests: those that `packages` tell cargo.
pub(crate) fn whole_program(
    options: &Options,
    scale: Scale,
    python: &Path,
    packages: &[impl AsRef<OsStr>],
) -> Result<Command> {
    let mut cargo = cargo_test(packages)?;
    // One at a time: they measure latencies. Their measurements are worth reading when they pass, too.
    cargo.args(["--", "--test-threads=1", "--show-output"]).args(&options.filters);
    cargo
        .env("XTCP_AGENT", workspace::agent())
        .env("XTCP_SCALE", scale.name())
        .env("XTCP_TEST_PYTHON", python);
    Ok(cargo)
}

/// Runs tests; how many ran.
pub(crate) fn listen(tests: &mut Command, scale: Scale, notes: &mut Vec<String>) -> Result<u32> {
    libtest::run(tests, scale.patience(), notes)
}

/// Builds the tests, and returns the command that runs them: compiling is no test that says nothing.
fn cargo_test(packages: &[impl AsRef<OsStr>]) -> Result<Command> {
    let cargo = || {
        let mut cargo = Command::new(workspace::cargo());
        cargo.args(["test", "--locked", "--no-fail-fast"]).args(packages);
        cargo
    };
    command::run(cargo().arg("--no-run"))?;
    Ok(cargo())
}
