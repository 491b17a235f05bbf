//! A named network namespace that goes with its handle.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::output;

/// Where `ip netns` binds namespaces to names.
const FOLDER: &str = "/run/netns";

pub(crate) struct Netns(&'static str);

impl Netns {
    /// Makes it, with its loopback up; one that an earlier demonstration could not remove goes first.
    pub(crate) fn create(name: &'static str) -> Result<Self> {
        if Path::new(FOLDER).join(name).exists() {
            delete(name)?;
        }
        output(ip().args(["netns", "add", name])).with_context(|| format!("make namespace {name}"))?;
        let netns = Self(name);
        output(ip().args(["-n", name, "link", "set", "lo", "up"]))
            .with_context(|| format!("bring up lo in {name}"))?;
        Ok(netns)
    }

    /// Its inode: the identity that the agent reports.
    pub(crate) fn inode(&self) -> Result<u64> {
        let path = Path::new(FOLDER).join(self.0);
        Ok(path.metadata().with_context(|| format!("look at {}", path.display()))?.ino())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = delete(self.0) {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{error:#}");
        }
    }
}

fn delete(name: &str) -> Result<()> {
    output(ip().args(["netns", "delete", name])).with_context(|| format!("remove namespace {name}"))?;
    Ok(())
}

/// Apart from our process group: Ctrl-C must not interrupt the cleaning up.
fn ip() -> Command {
    let mut command = Command::new("ip");
    command.process_group(0);
    command
}
