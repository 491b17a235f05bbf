//! Building the agent and starting it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{as_root, shown};
use crate::{build_ebpf, demo};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Add three namespaces with TCP traffic, and show a digest of their rows and events; Ctrl-C removes everything
    #[arg(long)]
    demo: bool,
    /// End the demonstration after this many seconds
    #[arg(long, value_name = "SECONDS", requires = "demo")]
    demo_seconds: Option<u64>,
    /// Arguments of the agent
    #[arg(last = true, value_name = "ARGUMENT")]
    agent_args: Vec<String>,
}

pub(crate) fn main(options: Options) -> Result<()> {
    let agent = build_ebpf::build_all()?;
    println!();
    if !options.demo {
        return become_program(as_root(agent).args(options.agent_args));
    }
    let demo = demo::Options { agent, seconds: options.demo_seconds, agent_args: options.agent_args };
    if nix::unistd::geteuid().is_root() {
        return demo::main(&demo);
    }
    let mut itself = as_root(std::env::current_exe().context("find this program")?);
    itself.arg("demo").arg("--agent").arg(&demo.agent);
    if let Some(seconds) = demo.seconds {
        itself.args(["--seconds", &seconds.to_string()]);
    }
    become_program(itself.arg("--").args(demo.agent_args))
}

/// Replaces this process; returns only when that fails.
fn become_program(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", shown(command)))
}
