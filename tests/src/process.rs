//! A child process whose output is kept line by line, and which never outlives its handle.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{monotonic_ns, slowness, wait_for};

/// A line of output.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was read, `CLOCK_MONOTONIC` nanoseconds.
    pub arrived_ns: u64,
    /// The text without its newline; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// What a process has written so far to one of its streams.
#[derive(Debug, Default)]
pub struct Output {
    lines: Mutex<Vec<Line>>,
    more: Condvar,
}

impl Output {
    /// All lines from number `from` on.
    pub fn since(&self, from: usize) -> Vec<Line> {
        self.lock().get(from..).unwrap_or_default().to_vec()
    }

    /// All text.
    pub fn text(&self) -> String {
        self.lock().iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The first line that `wanted` accepts, waiting for it at most `limit` times [`slowness`].
    pub fn wait_for(&self, limit: Duration, mut wanted: impl FnMut(&str) -> bool) -> Option<Line> {
        let limit = limit * slowness();
        let start = Instant::now();
        let mut seen = 0;
        let mut lines = self.lock();
        loop {
            if let Some(found) = lines[seen..].iter().find(|line| wanted(&line.text)) {
                return Some(found.clone());
            }
            seen = lines.len();
            let left = limit.checked_sub(start.elapsed())?;
            lines = self.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until there are more than `lines` lines; false after `limit`.
    pub fn wait_for_more_than(&self, lines: usize, limit: Duration) -> bool {
        let wait = self.more.wait_timeout_while(self.lock(), limit, |all| all.len() <= lines);
        wait.unwrap_or_else(PoisonError::into_inner).0.len() > lines
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, stream: impl Read) {
        let mut reader = BufReader::with_capacity(1 << 16, stream);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let arrived_ns = monotonic_ns();
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            self.lock().push(Line { arrived_ns, text: String::from_utf8_lossy(&bytes).into_owned() });
            self.more.notify_all();
            bytes.clear();
        }
    }
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Its standard input; drop it to let the child read the end of file.
    pub stdin: Option<ChildStdin>,
    /// Its standard output.
    pub stdout: Arc<Output>,
    /// Its standard error.
    pub stderr: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `argv`. The kernel kills it when the calling thread ends, so call from the thread of the test. Variables
    /// that start with `XTCP_` are left out of its environment: they are settings of the agent.
    pub fn start<S: AsRef<OsStr>>(name: &str, argv: &[S]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(argv);
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("XTCP_")) {
            command.env_remove(key);
        }
        Self::spawn(name, &mut command)
    }

    /// Starts `command` as it stands; whoever calls sees to it that it ends with the test.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {command:?} does not start: {e}"));
        let (stdout, stderr) = (Arc::<Output>::default(), Arc::<Output>::default());
        let mut readers = Vec::new();
        if let Some(stream) = child.stdout.take() {
            readers.push(reader(name, Arc::clone(&stdout), stream));
        }
        if let Some(stream) = child.stderr.take() {
            readers.push(reader(name, Arc::clone(&stderr), stream));
        }
        let stdin = child.stdin.take();
        Self { name: name.to_owned(), child, stdin, stdout, stderr, readers, status: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, unless it has ended and was waited for.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit"));
            kill(pid, signal).unwrap_or_else(|e| panic!("{}: {signal} cannot be sent: {e}", self.name));
        }
    }

    /// Stops it, and waits until each of its threads has stopped: the signal is only the beginning.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let is_stopped = |thread: &std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        wait_for("a stopped process to stand still", Duration::from_secs(20), || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
            threads.flatten().all(|thread| is_stopped(&thread)).then_some(())
        });
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Its exit status if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    /// Waits for its end and for all of its output, at most `limit` times [`slowness`].
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let limit = limit * slowness();
        let start = Instant::now();
        while self.try_wait().is_none() {
            if start.elapsed() > limit {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        self.status
    }

    /// SIGTERM, and its status if it ends within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        self.wait(limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.try_wait().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let lines = self.stderr.since(0);
            let skipped = lines.len().saturating_sub(60);
            eprintln!("--- stderr of {} ({skipped} lines before) ---", self.name);
            for line in &lines[skipped..] {
                eprintln!("{}", line.text);
            }
            eprintln!("--- end of stderr of {} ---", self.name);
        }
    }
}

fn reader(name: &str, output: Arc<Output>, stream: impl Read + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name(format!("read {name}"))
        .spawn(move || output.read(stream))
        .expect("a thread can be started")
}

/// Runs `argv` to its end and returns what it wrote to standard output; fails with its standard error when it fails.
pub fn run<S: AsRef<OsStr> + std::fmt::Debug>(argv: &[S]) -> String {
    let output = Command::new(&argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{argv:?} does not start: {e}"));
    assert!(
        output.status.success(),
        "{argv:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
