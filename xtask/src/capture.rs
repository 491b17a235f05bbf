//! Fixtures from real kernels: the scenarios of `xtcp-scenarios` on the running one, or on Debian's in virtual machines.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{self, as_root};
use crate::{debian, workspace};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Capture on this kernel in a virtual machine: 5.10, 6.1, 6.12, newest, another that `cargo xtask vm` knows, or all
    /// of the first four; without it, on the running kernel
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Folder that gets a folder for each kernel
    #[arg(long, value_name = "DIR", default_value_os_t = fixtures())]
    output: PathBuf,
}

/// What a capture consists of; whatever else lies in a kernel's folder is left alone.
const SUFFIXES: [&str; 3] = ["pcap", "json", "ss"];
/// Where a machine leaves what the host takes out of it.
const MACHINE_OUT: &str = "/vm/out";

fn fixtures() -> PathBuf {
    workspace::root().join("fixtures/inet_diag")
}

pub(crate) fn main(options: &Options) -> Result<()> {
    if command::which("ss").is_none() {
        debian::need(&["iproute2"], "a capture holds the text of ss, which is missing here")?;
    }
    let mut cargo = Command::new(workspace::cargo());
    command::run(cargo.args(["build", "--locked", "--package", "xtcp-tests", "--bin", "xtcp-scenarios"]))?;
    let scenarios = workspace::cargo_target().join("debug/xtcp-scenarios");
    let fresh = workspace::target().join("capture");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("empty {}", fresh.display()))?;
    }
    fs::create_dir_all(&fresh).with_context(|| format!("make {}", fresh.display()))?;
    if options.kernel.is_empty() {
        command::run(as_root(&scenarios).arg("--output").arg(&fresh))?;
        return adopt(&fresh, &options.output);
    }
    let mut vm = Command::new(std::env::current_exe().context("find this program")?);
    vm.arg("vm");
    for kernel in &options.kernel {
        vm.args(["--kernel", kernel]);
    }
    vm.arg("--out").arg(&fresh).arg("--").arg(&scenarios).args(["--output", MACHINE_OUT]);
    command::run(&mut vm)?;
    // With several kernels, each has a folder of its own round its captures.
    for folder in folders(&fresh)? {
        let bare = is_capture(&folder);
        adopt(if bare { &fresh } else { &folder }, &options.output)?;
        if bare {
            break;
        }
    }
    Ok(())
}

/// Puts the captures of each kernel in `from` in the place of those in `to`.
fn adopt(from: &Path, to: &Path) -> Result<()> {
    let mut kernels = folders(from)?;
    kernels.retain(|folder| is_capture(folder));
    if kernels.is_empty() {
        bail!("no capture came out of the scenarios into {}", from.display());
    }
    for kernel in kernels {
        let target = to.join(kernel.file_name().unwrap_or_default());
        fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
        for old in files(&target)?.into_iter().filter(|file| is_ours(file)) {
            fs::remove_file(&old).with_context(|| format!("remove {}", old.display()))?;
        }
        let mut bytes = 0;
        for file in files(&kernel)? {
            let to = target.join(file.file_name().unwrap_or_default());
            bytes += fs::copy(&file, &to).with_context(|| format!("write {}", to.display()))?;
        }
        println!("{}: {bytes} bytes", workspace::shown(&target));
    }
    Ok(())
}

fn is_capture(folder: &Path) -> bool {
    folder.join("manifest.json").is_file()
}

fn is_ours(file: &Path) -> bool {
    file.extension().and_then(OsStr::to_str).is_some_and(|suffix| SUFFIXES.contains(&suffix))
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(dir)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(dir)?.into_iter().filter(|path| path.is_file()).collect())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = || {
        fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()
    };
    let mut paths = read().with_context(|| format!("read {}", dir.display()))?;
    paths.sort();
    Ok(paths)
}
