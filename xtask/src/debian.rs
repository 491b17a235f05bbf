//! Installing what is missing, on Debian and its relatives.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{run, which};

/// Whether this is a system with apt where we may install.
pub(crate) fn may_install() -> bool {
    is_debian_like() && nix::unistd::geteuid().is_root()
}

/// Whether packages here come from apt.
pub(crate) fn is_debian_like() -> bool {
    which("apt-get").is_some() && std::path::Path::new("/etc/debian_version").exists()
}

/// Installs packages with apt; the caller has said why.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    run(apt().arg("update")).context("refresh apt's package lists")?;
    run(apt().args(["install", "-y", "--no-install-recommends"]).args(packages))
        .with_context(|| format!("install {}", packages.join(" ")))
}

/// Installs packages where that is possible, else says exactly what to do.
pub(crate) fn need(packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    if may_install() {
        println!("{why}: installing {list} with apt");
        return install(packages);
    }
    if is_debian_like() {
        bail!("{why}: run `sudo apt-get install -y {list}`, or run this command as root and it does so");
    }
    bail!("{why}: install what Debian calls {list}")
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
    command
}
