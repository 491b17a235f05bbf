//! Makes every scenario of sockets in namespaces of its own, and captures what the running kernel says of them.
//!
//! Needs root, and nothing else of the machine: it runs alone in an initramfs. With `ss` on the PATH its text is kept
//! too. `cargo xtask capture` starts it.

use std::path::PathBuf;

use clap::Parser;

/// Capture fixtures from the running kernel.
#[derive(Parser)]
struct Options {
    /// Folder that holds a folder for each kernel
    #[arg(long)]
    output: PathBuf,
    /// Only scenarios whose name contains one of these; no manifest is written then
    only: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let Options { output, only } = Options::parse();
    xtcp_tests::scenario::capture_all(&output, &only)
}
