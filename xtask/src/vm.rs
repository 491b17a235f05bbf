//! Running programs on other kernels: Debian's, under QEMU, with an initramfs of files of this host.

mod archive;
mod initramfs;
mod kernel;
mod qemu;
pub(crate) mod suite;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use self::initramfs::Tree;
use self::kernel::Kernel;
use self::qemu::{Accelerator, Ended, Guest, Talk};
use crate::command::which;
use crate::{debian, libtest};

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
    /// `smoke` or `suite` (the whole-program tests whose names contain one of the arguments), `shell`, or a program of this host with its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

/// What a guest gets.
#[derive(clap::Args, Clone)]
struct Machine {
    /// Processors of the guest; emulated ones take turns
    #[arg(long, default_value_t = 2, value_name = "NUMBER")]
    smp: u16,
    /// Memory of the guest in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    memory: u32,
    /// End the guest after this many seconds; default: 600, for `smoke` 1800, for `suite` 14400
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// How the guest's processors are made: kvm, tcg (emulation), or kvm where a guest starts with it
    #[arg(long, default_value = "auto", value_name = "NAME")]
    accel: qemu::Choice,
    /// Guests at once
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    jobs: usize,
}

impl Default for Machine {
    /// What a stage of a longer command uses: it has the host to itself.
    fn default() -> Self {
        Self { smp: 2, memory: 2048, timeout: None, accel: qemu::Choice::Auto, jobs: 2 }
    }
}

/// Programs that a guest has when this host has them.
const TOOLS: [&str; 16] = [
    "sh",
    "bash",
    "ip",
    "ss",
    "nstat",
    "tc",
    "nft",
    "bridge",
    "nsenter",
    "unshare",
    "lsns",
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
    let names: Vec<&str> = if options.kernel.iter().any(|name| name == "all") {
        kernel::names().collect()
    } else {
        options.kernel.iter().map(String::as_str).collect()
    };
    let (program, arguments) = options.program.split_first().context("there is no program to run")?;
    let extent = match program.as_str() {
        "smoke" => Some(suite::Extent::Smoke),
        "suite" => Some(suite::Extent::Whole),
        _ => None,
    };
    let outcomes = if let Some(extent) = extent {
        let binaries = suite::prepare(extent)?;
        let outcomes = on_each(&names, &options.machine, |_, accelerator| {
            binaries.work(extent, arguments, accelerator)
        })?;
        outcomes.iter().flat_map(Outcome::notes).for_each(|note| println!("{note}"));
        outcomes
    } else {
        let several = names.len() > 1;
        on_each(&names, &options.machine, |kernel, _| one_program(options, kernel, several))?
    };
    let worst = outcomes.iter().map(|outcome| match &outcome.ended {
        Ok(Ended::Exited(status)) => *status,
        Ok(Ended::Interrupted) => 130,
        Err(_) => 1,
    });
    Ok(ExitCode::from(worst.max().unwrap_or(0)))
}

/// The whole-program tests on every kernel as a stage of a longer command; notes what they came down to on each.
pub(crate) fn stage(extent: suite::Extent, filters: &[String], notes: &mut Vec<String>) -> Result<()> {
    let binaries = suite::prepare(extent)?;
    let names: Vec<&str> = kernel::names().collect();
    let machine = Machine::default();
    let outcomes = on_each(&names, &machine, |_, accelerator| binaries.work(extent, filters, accelerator))?;
    let mut failed = Vec::new();
    for outcome in outcomes {
        notes.extend(outcome.notes());
        let ran_none = || format!("kernel {}: no test ran", outcome.name);
        failed.extend(outcome.failure().or_else(|| (libtest::ran(&outcome.printed) == 0).then(ran_none)));
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// What one guest does.
#[derive(Default)]
struct Work {
    /// Lines of a shell.
    script: Vec<u8>,
    /// What it needs of this host, besides tools.
    files: Vec<PathBuf>,
    /// Folders to be there.
    folders: Vec<PathBuf>,
    /// Whether this terminal becomes the guest's.
    terminal: bool,
    /// Where the files go that it leaves.
    out: Option<PathBuf>,
    /// How long it may take, and for how much of that it may say nothing, where the command line does not say.
    limits: Limits,
}

/// How long a guest's work may take.
struct Limits {
    all: Duration,
    silence: Duration,
}

impl Default for Limits {
    /// A program of somebody who waits for it.
    fn default() -> Self {
        Self { all: Duration::from_secs(600), silence: Duration::MAX }
    }
}

/// What became of one guest.
struct Outcome {
    name: String,
    ended: Result<Ended>,
    /// What it wrote to standard output.
    printed: String,
    /// How long it took, the way to a kernel included.
    took: Duration,
}

impl Outcome {
    /// What its tests came down to.
    fn notes(&self) -> Vec<String> {
        let took = format!("{}: {} s", self.name, self.took.as_secs());
        let notes = libtest::notes(&self.printed).map(|note| format!("{}: {note}", self.name));
        std::iter::once(took).chain(notes).collect()
    }

    /// Why it is no success.
    fn failure(&self) -> Option<String> {
        match &self.ended {
            Ok(Ended::Exited(0)) => None,
            Ok(Ended::Exited(status)) => Some(format!("kernel {}: exit status {status}", self.name)),
            Ok(Ended::Interrupted) => Some(format!("kernel {}: interrupted", self.name)),
            Err(error) => Some(format!("kernel {}: {error:#}", self.name)),
        }
    }
}

/// Runs a guest of each kernel, `--jobs` at once; the outcomes come in the order of the names.
fn on_each(
    names: &[&str],
    machine: &Machine,
    work: impl Fn(&Kernel, Accelerator) -> Result<Work> + Sync,
) -> Result<Vec<Outcome>> {
    requirements()?;
    let (next, accelerator) = (AtomicUsize::new(0), Mutex::new(None));
    let one = |name: &str| -> Result<(Ended, String)> {
        let kernel = kernel::fetch(name)?;
        let accelerator = {
            // One at a time: who comes first finds it for all.
            let mut known = accelerator.lock().unwrap_or_else(PoisonError::into_inner);
            match *known {
                Some(accelerator) => accelerator,
                None => *known.insert(Accelerator::find(machine.accel, &kernel)?),
            }
        };
        run(&work(&kernel, accelerator)?, &kernel, machine, accelerator, names.len() > 1)
    };
    let lane = || {
        let mut outcomes = Vec::new();
        while let Some((number, name)) = {
            let number = next.fetch_add(1, Ordering::Relaxed);
            names.get(number).map(|name| (number, name))
        } {
            let start = Instant::now();
            let (ended, printed) = match one(name) {
                Ok((ended, printed)) => (Ok(ended), printed),
                Err(error) => (Err(error), String::new()),
            };
            let outcome = Outcome { name: (*name).to_owned(), ended, printed, took: start.elapsed() };
            if let Some(why) = outcome.failure() {
                eprintln!("vm: {why}");
            }
            let interrupted = matches!(outcome.ended, Ok(Ended::Interrupted));
            outcomes.push((number, outcome));
            if interrupted {
                break;
            }
        }
        outcomes
    };
    let mut outcomes = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let mut lanes = Vec::new();
        for _ in 0..machine.jobs.clamp(1, names.len().max(1)) {
            let thread = std::thread::Builder::new().name("guest".to_owned());
            lanes.push(thread.spawn_scoped(scope, lane).context("start a thread")?);
        }
        for lane in lanes {
            outcomes.extend(lane.join().map_err(|_| anyhow!("a thread panicked"))?);
        }
        Ok(())
    })?;
    outcomes.sort_by_key(|(number, _)| *number);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
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

fn run(
    work: &Work,
    kernel: &Kernel,
    machine: &Machine,
    accelerator: Accelerator,
    several: bool,
) -> Result<(Ended, String)> {
    let mut tree = base(kernel)?;
    for folder in &work.folders {
        tree.folder(folder);
    }
    for path in &work.files {
        tree.with(path)?;
    }
    tree.bytes("/vm/command", 0o755, [b"#!/bin/sh\n", work.script.as_slice()].concat());
    if work.terminal {
        tree.bytes("/vm/shell", 0o644, qemu::terminal_size());
    }
    let guest = Guest {
        kernel,
        smp: machine.smp,
        memory: machine.memory,
        limit: machine.timeout.map_or(work.limits.all, Duration::from_secs),
        patience: work.limits.silence,
        talk: match work.terminal {
            true => Talk::Terminal,
            false if several => Talk::Prefixed(format!("[{}] ", kernel.name)),
            false => Talk::Prefixed(String::new()),
        },
        out: work.out.clone(),
    };
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
    tree.bytes("/etc/resolv.conf", 0o644, "");
    tree.bytes("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
    tree.bytes("/etc/hosts", 0o644, "127.0.0.1 localhost vm\n::1 localhost vm\n");
    tree.folder_at(Path::new("/lib/modules"), &kernel.modules.join("lib/modules"))?;
    Ok(tree)
}

/// The program that was asked for, started as this process would.
fn one_program(options: &Options, kernel: &Kernel, several: bool) -> Result<Work> {
    let here = std::env::current_dir().context("find the working directory")?;
    let out = options.out.as_ref().map(|out| if several { out.join(&kernel.name) } else { out.clone() });
    let mut work = Work { files: options.with.clone(), folders: vec![here.clone()], out, ..Work::default() };
    let script = &mut work.script;
    if options.out.is_some() {
        script.extend_from_slice(b"export XTCP_VM_OUT=/vm/out\n");
    }
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
    writeln!(script, "cd {}", quoted(&here.to_string_lossy()))?;
    let (program, arguments) = options.program.split_first().context("there is no program to run")?;
    work.terminal = program == "shell";
    let program = if work.terminal { "bash" } else { program };
    // Busybox has the names that this host has not.
    let found = if program.contains('/') { Some(program.into()) } else { which(program) };
    let path =
        found.map(|path| std::path::absolute(&path).with_context(|| format!("find {}", path.display())));
    let path = path.transpose()?;
    write!(
        script,
        "exec {}",
        quoted(path.as_ref().map_or(program.into(), |path| path.to_string_lossy()).as_ref())
    )?;
    for argument in arguments {
        write!(script, " {}", quoted(argument))?;
    }
    script.push(b'\n');
    work.files.extend(path);
    Ok(work)
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
