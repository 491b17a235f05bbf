//! What the agent costs: `cargo xtask bench` builds and runs this.
//!
//! Every figure is a ratio against a floor that is measured in the same run, in turn with the agent. Nothing here passes
//! or fails: it prints tables. What it makes is removed at its end, also after Ctrl-C or a panic.
#![allow(clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtcp_tests::bench::{self, discovery, events, hold, idle, poll};

#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    about = "What the agent costs, against floors measured in the same run"
)]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// A poll: CPU for each socket, against one bare inet_diag dump; memory
    Poll(poll::Options),
    /// Change events: short connections a second with the agent attached, against without; CPU for each event
    Events(events::Options),
    /// Doing nothing: CPU and memory at default settings, without and with empty namespaces
    Idle(idle::Options),
    /// How long until a namespace is known, and its end, by each source
    Discovery(discovery::Options),
    /// All four, in less than five minutes at their defaults (the default)
    All(All),
    /// Connections held open for `poll`, in a process of its own because open files are limited by process
    #[command(hide = true)]
    Hold(hold::Options),
}

#[derive(clap::Args)]
struct All {
    #[command(flatten)]
    poll: poll::Options,
    #[command(flatten)]
    events: events::Options,
    #[command(flatten)]
    idle: idle::Options,
    #[command(flatten)]
    discovery: discovery::Options,
}

fn main() -> ExitCode {
    let done = match Cli::parse().what {
        Some(What::Hold(options)) => return hold::main(options),
        Some(What::Poll(options)) => bench::run(|| poll::main(&options)),
        Some(What::Events(options)) => bench::run(|| events::main(&options)),
        Some(What::Idle(options)) => bench::run(|| idle::main(&options)),
        Some(What::Discovery(options)) => bench::run(|| discovery::main(&options)),
        Some(What::All(all)) => run_all(&all),
        // The defaults of `all` are clap's.
        None => match Cli::parse_from(["bench", "all"]).what {
            Some(What::All(all)) => run_all(&all),
            _ => return ExitCode::FAILURE,
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(stopped) => {
            eprintln!("{stopped}");
            ExitCode::from(130)
        }
    }
}

fn run_all(all: &All) -> Result<(), bench::Stopped> {
    bench::run(|| {
        poll::main(&all.poll)?;
        events::main(&all.events)?;
        idle::main(&all.idle)?;
        discovery::main(&all.discovery)
    })
}
