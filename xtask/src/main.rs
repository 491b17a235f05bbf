//! Build, test and CI commands: `cargo xtask help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

mod bench;
mod bpf_linker;
mod build_ebpf;
mod capture;
mod ci;
mod command;
mod debian;
mod demo;
mod fingerprint;
mod fuzz;
mod install;
mod instrumented;
mod libtest;
mod miri;
mod process_tree;
mod python;
mod run;
mod sanitize;
mod servers;
mod stage;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

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
    /// build-ebpf, then start the agent (through sudo when not root)
    Run(run::Options),
    /// Unit tests and whole-program tests, in about 20 minutes; as root on Debian it installs what it needs
    Test(test::Options),
    /// The same tests at the scale that the promises state, and a closing summary
    Full(test::Options),
    /// What the agent costs, against floors measured in the same run: poll, events, idle, or all of them
    Bench(bench::Options),
    /// Run a program of this host, a shell or the whole-program tests on Debian's kernels, under QEMU
    Vm(vm::Options),
    /// Capture fixtures for the decoder from the running kernel (as root), or from Debian's kernels under QEMU
    Capture(capture::Options),
    /// Format, clippy, the eBPF build from clean, then test
    Ci,
    /// Fuzz the decoder, each target for some seconds; builds cargo-fuzz where it is missing
    Fuzz(fuzz::Options),
    /// The decoder's tests under the address and memory sanitizers
    Sanitize(sanitize::Options),
    /// The decoder's tests under miri, where a toolchain has it
    Miri,
    /// Build or fetch the servers that tests need and Debian has not: Apache Kafka, nsqd, MinIO
    Servers,
    /// Check the dependencies' licences and advisories (needs cargo-deny)
    Deny,
    /// What `run --demo` does as root
    #[command(hide = true)]
    Demo(demo::Options),
    /// The traffic inside a demonstration's namespace
    #[command(hide = true)]
    DemoTraffic {
        /// What happens there
        role: demo::traffic::Role,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let done = match task {
        Task::BuildEbpf(options) => build_ebpf::main(options),
        Task::Install(options) => install::main(&options),
        Task::Test(options) => test::main(&options, test::Scale::Ci),
        Task::Full(options) => test::main(&options, test::Scale::Full),
        Task::Bench(options) => bench::main(&options),
        Task::Vm(options) => return vm::main(&options),
        Task::Capture(options) => capture::main(&options),
        Task::Ci => ci::main(),
        Task::Deny => ci::deny(),
        Task::Fuzz(options) => fuzz::main(&options),
        Task::Sanitize(options) => sanitize::main(&options),
        Task::Miri => miri::main(),
        Task::Servers => servers::main(),
        Task::Run(options) => run::main(options),
        Task::Demo(options) => demo::main(&options),
        Task::DemoTraffic { role } => demo::traffic::main(role),
    };
    done.map(|()| ExitCode::SUCCESS)
}
