//! Build, test and CI commands: `cargo xtask help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod bpf_linker;
mod build_ebpf;
mod command;
mod debian;
mod fingerprint;
mod install;
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
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::BuildEbpf(options) => build_ebpf::main(options),
        Task::Install(options) => install::main(&options),
    }
}
