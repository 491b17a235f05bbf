//! All that must hold before a change goes in.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{run, which};
use crate::stage::Stages;
use crate::test::{self, Scale};
use crate::{build_ebpf, fuzz, sanitize, servers, vm, workspace};

pub(crate) fn main() -> Result<()> {
    let cargo = || Command::new(workspace::cargo());
    let mut stages = Stages::default();
    stages.run("format", || run(cargo().args(["fmt", "--all", "--check"])));
    stages.run("clippy", || {
        let mut clippy = cargo();
        build_ebpf::libraries()?;
        clippy.args(["clippy", "--locked", "--workspace", "--exclude", "xtcp-ebpf", "--all-targets"]);
        clippy.args(workspace::EVERYTHING).args(["--features", "xtcp-tests/foreign"]);
        run(clippy.args(["--", "-D", "warnings"]))
    });
    stages.run("clippy, no default features", || {
        let mut clippy = cargo();
        clippy.args(["clippy", "--locked", "--package", "xtcp-agent", "--no-default-features"]);
        run(clippy.args(["--", "-D", "warnings"]))
    });
    if which("cargo-deny").is_some() {
        stages.run("deny", deny);
    } else {
        println!("cargo-deny is not installed: licences and advisories are not checked");
    }
    stages.run("eBPF object from clean", || {
        build_ebpf::clean()?;
        build_ebpf::build_object(false)
    });
    fuzz::stages_of(&mut stages, &[], 10);
    sanitize::stages_of(&mut stages);
    test::stages_of(&mut stages, &test::Options::default(), Scale::Ci);
    servers::stages_of(&mut stages, &test::Options::default(), Scale::Ci);
    stages.run_noting("smoke test on other kernels", |notes| vm::stage(vm::suite::Extent::Smoke, &[], notes));
    stages.finish("cargo xtask ci")
}

/// Licences, duplicates, advisories and sources of all dependencies, by `deny.toml`.
pub(crate) fn deny() -> Result<()> {
    run(Command::new(workspace::cargo()).args(["deny", "--all-features", "check"]))
        .context("check the dependencies (cargo install cargo-deny --locked)")
}
