//! Running programs on other kernels: Debian's, under QEMU, with an initramfs of files of this host.

mod archive;
mod initramfs;
mod kernel;
mod qemu;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::initramfs::Tree;
use self::kernel::Kernel;
use self::qemu::{Accelerator, Ended, Guest, Talk};
use crate::command::which;
use crate::debian;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Kernel to boot: 5.10, 6.1, 6.12, newest (of Debian's backports), another X.Y of the backports, or all
    #[arg(long, required = true, value_name = "VERSION")]
    kernel: Vec<String>,
    #[command(flatten)]
    machine: Machine,
    /// Bring this file or folder too, at its own path; programs bring their libraries
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
    /// Set a variable of the program; those that start with XTCP_ are passed on as they are
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Bring what the program leaves in the folder $XTCP_VM_OUT out into this one (with several kernels: into one below
    /// it for each)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// `shell`, or a program of this host with its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

/// What a guest gets.
#[derive(clap::Args, Clone)]
struct Machine {
    /// Processors of the guest
    #[arg(long, default_value_t = 2, value_name = "NUMBER")]
    smp: u16,
    /// Memory of the guest in MiB
    #[arg(long, default_value_t = 1536, value_name = "MIB")]
    memory: u32,
    /// End the guest after this many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// How the guest's processors are made: kvm, tcg (emulation), or kvm where a guest starts with it
    #[arg(long, default_value = "auto", value_name = "NAME")]
    accel: qemu::Choice,
}

/// Programs that a guest has when this host has them.
const TOOLS: [&str; 14] = [
    "sh",
    "bash",
    "ip",
    "ss",
    "tc",
    "nft",
    "bridge",
    "nsenter",
    "unshare",
    "setpriv",
    "strace",
    "nats-server",
    "bpftool",
    "prlimit",
];

/// Programs without which no guest starts, and Debian's name for what brings them.
const REQUIRED: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("xz", "xz-utils"),
    ("setpriv", "util-linux"),
];

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    requirements()?;
    let names: Vec<&str> = if options.kernel.iter().any(|name| name == "all") {
        kernel::names().collect()
    } else {
        options.kernel.iter().map(String::as_str).collect()
    };
    let several = names.len() > 1;
    let mut failed = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for name in names {
        let ended = kernel::fetch(name).and_then(|kernel| run(options, &kernel, several));
        match ended {
            Ok(Ended::Exited(0)) => {}
            Ok(Ended::Exited(status)) => {
                code = ExitCode::from(status);
                failed.push(format!("kernel {name}: exit status {status}"));
            }
            Ok(Ended::Interrupted) => return Ok(ExitCode::from(130)),
            Err(error) => {
                code = ExitCode::FAILURE;
                failed.push(format!("kernel {name}: {error:#}"));
            }
        }
    }
    for why in &failed {
        eprintln!("vm: {why}");
    }
    Ok(code)
}

fn requirements() -> Result<()> {
    let missing = REQUIRED.iter().filter(|(program, _)| which(program).is_none());
    let mut missing: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !Path::new(archive::KEYRING).exists() {
        missing.push("debian-archive-keyring");
    }
    if missing.is_empty() {
        return Ok(());
    }
    debian::need(&missing, "virtual machines need programs that are missing here")
}

fn run(options: &Options, kernel: &Kernel, several: bool) -> Result<Ended> {
    let mut tree = base(kernel)?;
    for path in &options.with {
        tree.with(path)?;
    }
    let shell = options.program.first().is_some_and(|program| program == "shell");
    let command = command(options, &mut tree)?;
    tree.bytes("/vm/command", 0o755, command);
    if shell {
        tree.bytes("/vm/shell", 0o644, qemu::terminal_size());
    }
    let out = options.out.as_ref().map(|out| if several { out.join(&kernel.name) } else { out.clone() });
    let guest = Guest {
        kernel,
        smp: options.machine.smp,
        memory: options.machine.memory,
        limit: Duration::from_secs(options.machine.timeout),
        talk: match shell {
            true => Talk::Terminal,
            false if several => Talk::Prefixed(format!("[{}] ", kernel.name)),
            false => Talk::Prefixed(String::new()),
        },
        out,
    };
    let accelerator = Accelerator::find(options.machine.accel, kernel)?;
    guest.run(&tree, accelerator)
}

/// What every guest has: a bare one, and tools.
fn base(kernel: &Kernel) -> Result<Tree> {
    let mut tree = bare(kernel)?;
    for tool in TOOLS {
        if let Some(path) = which(tool) {
            tree.with(&path)?;
        }
    }
    Ok(tree)
}

/// What a guest needs to run a program and tell how it ended.
fn bare(kernel: &Kernel) -> Result<Tree> {
    let mut tree = Tree::like_this_host()?;
    let busybox = which("busybox").context("there is no busybox (Debian: busybox-static)")?;
    let listed = crate::command::output(std::process::Command::new(&busybox).arg("--list-full"))?;
    if !initramfs::is_static(&busybox)? {
        bail!("{} is not static: install what Debian calls busybox-static", busybox.display());
    }
    tree.file(Path::new("/vm/bin/busybox"), &busybox)?;
    for applet in listed.lines().filter_map(|path| path.rsplit('/').next()).filter(|name| *name != "busybox")
    {
        tree.link(&format!("/vm/bin/{applet}"), "busybox");
    }
    // The kernel loads modules by this name.
    tree.link("/usr/sbin/modprobe", "/vm/bin/modprobe");
    tree.bytes("/init", 0o755, include_str!("vm/init.sh"));
    tree.bytes(
        "/etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    );
    tree.bytes("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
    tree.bytes("/etc/hosts", 0o644, "127.0.0.1 localhost vm\n::1 localhost vm\n");
    tree.folder_at(Path::new("/lib/modules"), &kernel.modules.join("lib/modules"))?;
    Ok(tree)
}

/// The script that starts the program as this process would.
fn command(options: &Options, tree: &mut Tree) -> Result<Vec<u8>> {
    let mut script = b"#!/bin/sh\nexport XTCP_VM_OUT=/vm/out\n".to_vec();
    let inherited = std::env::vars().filter(|(name, _)| name.starts_with("XTCP_") && name != "XTCP_VM_OUT");
    let given = options.env.iter().map(|setting| {
        let (name, value) =
            setting.split_once('=').with_context(|| format!("{setting} is not NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    for variable in inherited.map(Ok::<_, anyhow::Error>).chain(given) {
        let (name, value) = variable?;
        writeln!(script, "export {name}={}", quoted(&value))?;
    }
    let here = std::env::current_dir().context("find the working directory")?;
    tree.folder(&here);
    writeln!(script, "cd {}", quoted(&here.to_string_lossy()))?;
    let (program, arguments) = options.program.split_first().context("there is no program to run")?;
    let program = match program.as_str() {
        "shell" => host_program("bash", tree)?,
        name => host_program(name, tree)?,
    };
    write!(script, "exec {}", quoted(&program))?;
    for argument in arguments {
        write!(script, " {}", quoted(argument))?;
    }
    script.push(b'\n');
    Ok(script)
}

/// Brings a program of this host by path or name; busybox has the names that this host has not.
fn host_program(name: &str, tree: &mut Tree) -> Result<String> {
    let found = if name.contains('/') { Some(PathBuf::from(name)) } else { which(name) };
    let Some(path) = found else { return Ok(name.to_owned()) };
    let path = std::path::absolute(&path).with_context(|| format!("find {name}"))?;
    tree.with(&path)?;
    Ok(path.to_string_lossy().into_owned())
}

/// One word to a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_quoted_word_is_one_word_to_a_shell() {
        let word = "it's $HOME; `x` \"y\"\n";
        let mut shell = std::process::Command::new("sh");
        let printed = shell.args(["-c", &format!("printf %s {}", quoted(word))]).output().unwrap();
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), word);
    }
}
