//! Build, test and CI commands: `cargo xtask help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod bpf_linker;
mod build_ebpf;
mod ci;
mod command;
mod debian;
mod fingerprint;
mod install;
mod libtest;
mod python;
mod stage;
mod test;
mod toolchain;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Compile the eBPF programs and the release agent that embeds them
    BuildEbpf(build_ebpf::Options),
    /// build-ebpf, then put xtcp2-agent on the PATH
    Install(install::Options),
    /// Unit tests and whole-program tests, in about 20 minutes; as root on Debian it installs what it needs
    Test(test::Options),
    /// The same tests at the scale that the promises state, and a closing summary
    Full(test::Options),
    /// Format, clippy, the eBPF build from clean, then test
    Ci,
    /// Check the dependencies' licences and advisories (needs cargo-deny)
    Deny,
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::BuildEbpf(options) => build_ebpf::main(options),
        Task::Install(options) => install::main(&options),
        Task::Test(options) => test::main(&options, test::Scale::Ci),
        Task::Full(options) => test::main(&options, test::Scale::Full),
        Task::Ci => ci::main(),
        Task::Deny => ci::deny(),
    }
}
