//! One guest: its files on this disk, the QEMU process and what comes out of its virtio ports. Whatever happens, the
//! process is ended by its own id and its files are removed.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::initramfs::Tree;
use super::kernel::Kernel;
use crate::command::{output, shown};
use crate::workspace;

/// How a guest's processors are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// By the host's processor.
    Kvm,
    /// By emulation, ten to thirty times slower.
    Tcg,
}

/// What `--accel` can name.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Choice {
    Auto,
    Kvm,
    Tcg,
}

impl Accelerator {
    /// KVM where /dev/kvm opens and a guest of this very kernel comes to its end with it, else emulation.
    pub(crate) fn find(choice: Choice, kernel: &Kernel) -> Result<Self> {
        match choice {
            Choice::Kvm => return Ok(Self::Kvm),
            Choice::Tcg => return Ok(Self::Tcg),
            Choice::Auto => {}
        }
        if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
            println!("vm: emulation (/dev/kvm: {error})");
            return Ok(Self::Tcg);
        }
        let guest = Guest {
            kernel,
            smp: 1,
            memory: 512,
            limit: Duration::from_secs(20),
            patience: Duration::MAX,
            talk: Talk::Nowhere,
            out: None,
        };
        let mut tree = super::bare(kernel)?;
        tree.bytes("/vm/command", 0o755, "#!/bin/sh\nexit 0\n");
        match guest.run(&tree, Self::Kvm) {
            Ok((Ended::Exited(0), _)) => {
                println!("vm: kvm");
                Ok(Self::Kvm)
            }
            Ok((Ended::Interrupted, _)) => bail!("interrupted"),
            Ok((Ended::Exited(status), _)) => bail!("a guest that does nothing ends with {status}"),
            Err(error) => {
                println!("vm: emulation (kvm: {})", format!("{error:#}").lines().next().unwrap_or_default());
                Ok(Self::Tcg)
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            // With a thread for each processor, one that runs into code which another patches (a tracepoint that is
            // switched on) can die of the breakpoint that was there. On one thread they take turns.
            Self::Tcg => "tcg,thread=single",
        }
    }
}

/// How a guest ended that said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The program's exit status as a shell tells it.
    Exited(u8),
    /// By a signal to this process.
    Interrupted,
}

/// Where the program's output goes.
pub(crate) enum Talk {
    /// This terminal becomes the guest's.
    Terminal,
    /// To this process's, with this before each line.
    Prefixed(String),
    Nowhere,
}

/// A guest to be.
pub(crate) struct Guest<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) smp: u16,
    /// MiB.
    pub(crate) memory: u32,
    /// For how long it may run.
    pub(crate) limit: Duration,
    /// For how long the program may say nothing.
    pub(crate) patience: Duration,
    pub(crate) talk: Talk,
    /// Where the files go that the program leaves.
    pub(crate) out: Option<PathBuf>,
}

impl Guest<'_> {
    /// [`Self::boot`], again if an emulated guest dies or hangs before the program starts: that says nothing of the program.
    pub(crate) fn run(&self, tree: &Tree, accelerator: Accelerator) -> Result<(Ended, String)> {
        let mut boots = 1;
        loop {
            match self.boot(tree, accelerator)? {
                Boot::Ended(ended, printed) => return Ok((ended, printed)),
                Boot::Died(why) if accelerator == Accelerator::Kvm || boots == MAX_BOOTS => {
                    bail!("the program was not started (boot {boots} of {MAX_BOOTS}): {why}");
                }
                Boot::Died(why) => {
                    println!("vm: kernel {} did not start the program, again: {why}", self.kernel.name);
                }
            }
            boots += 1;
        }
    }

    /// Boots, streams the program's output, and returns how it ended and what it printed; an error when the guest died
    /// under the program, or outlived its time.
    fn boot(&self, tree: &Tree, accelerator: Accelerator) -> Result<Boot> {
        let files = Files::new(&self.kernel.name)?;
        let initrd = files.path("initrd");
        let file = File::create(&initrd).with_context(|| format!("create {}", initrd.display()))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        tree.write(&mut file)?;
        file.flush().context("write the initramfs")?;
        let stop = Arc::new(AtomicBool::new(false));
        let handlers =
            [SIGINT, SIGTERM, SIGHUP].map(|signal| signal_hook::flag::register(signal, Arc::clone(&stop)));
        let mut command = self.command(&files, accelerator);
        let child = command.spawn().with_context(|| format!("start {}", shown(&command)))?;
        let waited = self.follow(child, &stop, &files.path("status"));
        for handler in handlers {
            signal_hook::low_level::unregister(handler.context("catch signals")?);
        }
        let (how, printed) = waited?;
        let console = || last_lines(&files.path("console"), 25);
        let said = fs::read_to_string(files.path("status")).unwrap_or_default();
        let status = said.lines().find_map(|line| line.strip_prefix("exit ")?.parse().ok());
        match (how, status) {
            (Waited::Interrupted, _) => Ok(Boot::Ended(Ended::Interrupted, printed)),
            (Waited::TooLong(why), _) if said.is_empty() => {
                Ok(Boot::Died(format!("{why}; console:\n{}", console())))
            }
            (Waited::TooLong(why), _) => {
                bail!("{why}; its last words: {}; console:\n{}", last(&printed), console())
            }
            (Waited::Ended(how), None) if said.is_empty() => {
                Ok(Boot::Died(format!("{how}; console:\n{}", console())))
            }
            (Waited::Ended(how), None) => {
                bail!(
                    "the guest died before the program ended ({how}); its last words: {}; console:\n{}",
                    last(&printed),
                    console()
                )
            }
            (Waited::Ended(_), Some(status)) => {
                if let Some(out) = &self.out {
                    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
                    let mut tar = Command::new("tar");
                    tar.arg("--no-same-owner").arg("-xf").arg(files.path("files")).arg("-C");
                    output(tar.arg(std::path::absolute(out)?)).context("unpack what the program left")?;
                }
                Ok(Boot::Ended(Ended::Exited(status), printed))
            }
        }
    }

    fn command(&self, files: &Files, accelerator: Accelerator) -> Command {
        // The kernel ends it when this process dies without a word.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        qemu.args(["-accel", accelerator.name(), "-cpu", "max", "-display", "none", "-monitor", "none"]);
        qemu.args(["-nodefaults", "-net", "none", "-no-reboot", "-smp", &self.smp.to_string()]);
        qemu.args(["-m", &self.memory.to_string(), "-device", "virtio-rng-pci"]);
        qemu.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(files.path("initrd"));
        // No five-level page tables and no mitigations: emulation pays for each access and each call. No check of the
        // timer: it counts ticks for a moment, in which a busy host may let none come, and then panics. No AppArmor: where it
        // is on, Docker starts no container without AppArmor's programs.
        let append = "console=ttyS0 quiet panic=-1 no5lvl mitigations=off random.trust_cpu=on no_timer_check \
                      apparmor=0";
        qemu.args(["-append", append]);
        let chardev = |qemu: &mut Command, id: &str, path: &Path| {
            qemu.arg("-chardev").arg(format!("file,id={id},path={}", path.display()));
        };
        chardev(&mut qemu, "console", &files.path("console"));
        qemu.args(["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
        let mut ports = vec![("status", files.path("status")), ("files", files.path("files"))];
        if let Talk::Terminal = self.talk {
            qemu.args([
                "-chardev",
                "stdio,id=terminal,signal=off",
                "-device",
                "virtconsole,chardev=terminal",
            ]);
        } else {
            ports.extend([("stdout", "/proc/self/fd/1".into()), ("stderr", "/proc/self/fd/2".into())]);
        }
        let (input, output): (Stdio, fn() -> Stdio) = match self.talk {
            Talk::Terminal => (Stdio::inherit(), Stdio::inherit),
            Talk::Prefixed(_) => (Stdio::null(), Stdio::piped),
            Talk::Nowhere => (Stdio::null(), Stdio::null),
        };
        qemu.stdin(input).stdout(output()).stderr(output());
        for (name, path) in ports {
            chardev(&mut qemu, name, &path);
            qemu.args(["-device", &format!("virtserialport,chardev={name},name={name}")]);
        }
        qemu
    }

    fn follow(&self, child: Child, stop: &AtomicBool, status: &Path) -> Result<(Waited, String)> {
        let mut qemu = Qemu(child);
        let prefix = if let Talk::Prefixed(prefix) = &self.talk { prefix.clone() } else { String::new() };
        let heard = Arc::new(Mutex::new(Instant::now()));
        let relays = [
            qemu.0
                .stdout
                .take()
                .map(|stream| relay(stream, io::stdout(), prefix.clone(), &heard))
                .transpose()?,
            qemu.0.stderr.take().map(|stream| relay(stream, io::stderr(), prefix, &heard)).transpose()?,
        ];
        let start = Instant::now();
        let silent = || heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let waited = loop {
            if let Some(status) = qemu.0.try_wait().context("wait for QEMU")? {
                break Waited::Ended(status.to_string());
            }
            if stop.load(Ordering::Relaxed) {
                break Waited::Interrupted;
            }
            if start.elapsed() > self.limit {
                break Waited::TooLong(format!("it did not end in {} s (--timeout)", self.limit.as_secs()));
            }
            let silent = silent();
            if silent > self.patience {
                break Waited::TooLong(format!("nothing was heard for {} s", silent.as_secs()));
            }
            if start.elapsed() > BOOT && fs::metadata(status).map_or(true, |file| file.len() == 0) {
                break Waited::TooLong(format!("it did not boot in {} s", BOOT.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        drop(qemu);
        let [printed, _] = relays.map(|relay| relay.map(JoinHandle::join).transpose());
        let printed = printed.map_err(|_| anyhow!("passing on the output panicked"))?.unwrap_or_default();
        Ok((waited, String::from_utf8_lossy(&printed).into_owned()))
    }
}

enum Boot {
    Ended(Ended, String),
    /// Before the program started: why.
    Died(String),
}

/// How often a guest is tried that dies before the program starts.
const MAX_BOOTS: u32 = 3;

/// For how long a guest may boot: it takes seconds, more where it is emulated by processors that others use.
const BOOT: Duration = Duration::from_secs(300);

enum Waited {
    Ended(String),
    Interrupted,
    /// Ended by this process: why.
    TooLong(String),
}

/// The process, which ends with its handle.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Passes on what comes, a line at a time when several guests speak; returns all of it.
fn relay(
    stream: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    prefix: String,
    heard: &Arc<Mutex<Instant>>,
) -> Result<JoinHandle<Vec<u8>>> {
    let heard = Arc::clone(heard);
    let pass_on = move || {
        let (mut stream, mut all) = (BufReader::new(stream), Vec::new());
        loop {
            let mut line = Vec::new();
            match stream.read_until(b'\n', &mut line) {
                Ok(length) if length > 0 => {}
                _ => return all,
            }
            *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            all.extend_from_slice(&line);
            line.splice(0..0, prefix.bytes());
            // A terminal that is gone is no reason to stop the guest.
            let _ = to.write_all(&line).and_then(|()| to.flush());
        }
    };
    std::thread::Builder::new().name("guest output".to_owned()).spawn(pass_on).context("start a thread")
}

/// A folder of one guest's files, removed with its handle.
struct Files(PathBuf);

impl Files {
    fn new(kernel: &str) -> Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{kernel}-{}-{number}", std::process::id());
        let folder = workspace::target().join("vm/run").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The last line of what a program printed.
fn last(printed: &str) -> &str {
    printed.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("none")
}

fn last_lines(path: &Path, number: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.get(lines.len().saturating_sub(number)..).unwrap_or_default().join("\n")
}

/// What `stty` needs to make the guest's terminal as large as this one.
pub(crate) fn terminal_size() -> String {
    let size = io::stdin().is_terminal().then(|| {
        let mut stty = Command::new("stty");
        stty.arg("size").stdin(Stdio::inherit()).output().ok()
    });
    let size = size.flatten().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let mut numbers = size.iter().flat_map(|text| text.split_whitespace());
    match (numbers.next(), numbers.next()) {
        (Some(rows), Some(columns)) => format!("rows {rows} columns {columns}\n"),
        _ => "\n".to_owned(),
    }
}
