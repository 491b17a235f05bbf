//! Putting the agent on the PATH.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::build_ebpf;
use crate::command::{as_root, run};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to install: the binary goes to PREFIX/bin
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
}

pub(crate) fn main(options: &Options) -> Result<()> {
    let agent = build_ebpf::build_all()?;
    let dir = options.prefix.join("bin");
    let installed = dir.join("xtcp2-agent");
    let mut install = if may_write(&dir) { Command::new("install") } else { as_root("install") };
    run(install.args(["-D", "-m", "0755"]).arg(&agent).arg(&installed))
        .with_context(|| format!("install {}", installed.display()))?;
    println!("installed {}", installed.display());
    if on_path(&dir) {
        println!("run it: sudo xtcp2-agent");
    } else {
        println!("warning: {} is not on the PATH; run it: sudo {}", dir.display(), installed.display());
    }
    Ok(())
}

/// Whether the first folder of `dir` that exists takes files from us.
fn may_write(dir: &Path) -> bool {
    let existing = dir.ancestors().find(|folder| folder.exists());
    existing.is_some_and(|folder| nix::unistd::access(folder, nix::unistd::AccessFlags::W_OK).is_ok())
}

fn on_path(dir: &Path) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|entry| entry == dir))
}
