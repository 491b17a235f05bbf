//! A running agent: the release binary, on ports of its own, ended with its handle.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::host::{free_port, require_root, slowness, wait_for, workspace};
use crate::http::{self, Metrics};
use crate::nats::NatsServer;
use crate::process::Process;
use crate::row::Row;

/// The agent's binary: `XTCP_AGENT`, or the workspace's release build.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("XTCP_AGENT")
        .map_or_else(|| workspace().join("target/release/xtcp2-agent"), PathBuf::from);
    assert!(
        path.is_file(),
        "there is no agent at {}: run `cargo xtask build-ebpf`, or set XTCP_AGENT",
        path.display()
    );
    path
}

/// How an agent is to be started. Without more it polls once at its start and then every hour, writes rows to standard
/// output as JSON lines, and sends no events.
#[derive(Debug)]
pub struct Builder {
    wrapper: Vec<OsString>,
    frequency: String,
    dest: Vec<String>,
    events: Vec<String>,
    args: Vec<String>,
}

/// Starts to describe an agent.
pub fn agent() -> Builder {
    Builder {
        wrapper: Vec::new(),
        frequency: "1h".to_owned(),
        dest: ["--dest", "stdout", "--marshal", "jsonl"].map(str::to_owned).into(),
        events: ["--events", "off"].map(str::to_owned).into(),
        args: Vec::new(),
    }
}

impl Builder {
    /// Polls this often.
    #[must_use]
    pub fn frequency(mut self, frequency: &str) -> Self {
        frequency.clone_into(&mut self.frequency);
        self
    }

    /// Sends events to `nats`.
    #[must_use]
    pub fn events_to(self, nats: &NatsServer) -> Self {
        self.events_at(&nats.url())
    }

    /// Sends events to a sink as `--events` names it.
    #[must_use]
    pub fn events_at(mut self, sink: &str) -> Self {
        self.events = vec!["--events".to_owned(), sink.to_owned()];
        self
    }

    /// Sends rows to these destinations, as `--dest` names them.
    #[must_use]
    pub fn dest(mut self, destinations: &[&str]) -> Self {
        self.dest = destinations.iter().flat_map(|dest| ["--dest".to_owned(), (*dest).to_owned()]).collect();
        self
    }

    /// Writes no rows.
    #[must_use]
    pub fn without_rows(mut self) -> Self {
        self.dest = ["--dest", "null"].map(str::to_owned).into();
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// Starts it through another command, which must `exec` it: the process keeps its id.
    #[must_use]
    pub fn wrapped_in(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// Starts it and returns at once.
    pub fn spawn(self) -> Agent {
        require_root();
        let (prom, grpc) = (free_port(), free_port());
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        // A settings file of the host must not change what is tested.
        let config = dir.path().join("settings.toml");
        std::fs::write(&config, "").expect("the settings file can be written");
        let mut argv = self.wrapper;
        argv.push(binary().into());
        argv.extend(["--config".into(), config.into()]);
        argv.extend(["--frequency".into(), self.frequency.into()]);
        argv.extend(["--prom-listen".into(), format!("127.0.0.1:{prom}").into()]);
        argv.extend([
            "--grpc-listen".into(),
            "127.0.0.1".into(),
            "--grpc-port".into(),
            grpc.to_string().into(),
        ]);
        argv.extend(self.dest.into_iter().chain(self.events).chain(self.args).map(OsString::from));
        Agent {
            process: Process::start("xtcp2-agent", &argv),
            prom: (Ipv4Addr::LOCALHOST, prom).into(),
            grpc: (Ipv4Addr::LOCALHOST, grpc).into(),
            rows: Mutex::default(),
            _dir: dir,
        }
    }

    /// Starts it and waits until `/readyz` says that it is ready.
    pub fn start(self) -> Agent {
        let mut agent = self.spawn();
        agent.wait_until_ready();
        agent
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Its process, with its standard error.
    pub process: Process,
    /// Where it serves /metrics, /healthz and /readyz.
    pub prom: SocketAddr,
    /// Where it serves gRPC.
    pub grpc: SocketAddr,
    rows: Mutex<Vec<Row>>,
    _dir: TempDir,
}

impl Agent {
    /// Waits until `/readyz` answers 200; fails when the agent ends before.
    pub fn wait_until_ready(&mut self) {
        let prom = self.prom;
        wait_for("the agent to be ready (/readyz)", Duration::from_secs(60), || {
            if let Some(status) = self.process.try_wait() {
                panic!("the agent ended at its start with {status}: {}", self.process.stderr.text());
            }
            matches!(http::get(prom, "/readyz"), Ok((200, _))).then_some(())
        });
    }

    /// Its metrics now.
    pub fn metrics(&self) -> Metrics {
        let (status, page) = http::get(self.prom, "/metrics").expect("the agent serves metrics");
        assert_eq!(status, 200, "{page}");
        Metrics::parse(&page)
    }

    /// All rows that it has written to standard output so far.
    pub fn rows(&self) -> Vec<Row> {
        self.read_rows().clone()
    }

    /// All rows that it had made when this was called, once they have reached standard output: a batch may wait for its
    /// flush.
    pub fn delivered_rows(&self) -> Vec<Row> {
        let made = self.metrics().sum("xtcp_rows_total", &[]);
        wait_for("every row made to be written", Duration::from_secs(30), || {
            #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 lines")]
            let written = self.process.stdout.len() as f64;
            (written >= made).then_some(())
        });
        self.rows()
    }

    /// The first row that `wanted` accepts, waiting for it; fails naming `what` after `limit` times [`slowness`].
    pub fn wait_for_row(&self, what: &str, limit: Duration, mut wanted: impl FnMut(&Row) -> bool) -> Row {
        let limit = limit * slowness();
        let start = Instant::now();
        let mut seen = 0;
        loop {
            {
                let rows = self.read_rows();
                if let Some(row) = rows[seen..].iter().find(|row| wanted(row)) {
                    return row.clone();
                }
                seen = rows.len();
            }
            let left = limit.saturating_sub(start.elapsed());
            assert!(
                self.process.stdout.wait_for_more_than(seen, left),
                "waited {limit:?} for {what}; {seen} rows did not match"
            );
        }
    }

    /// SIGTERM; its status, and all its rows to the last.
    pub fn terminate(&mut self, limit: Duration) -> (ExitStatus, Vec<Row>) {
        let status =
            self.process.terminate(limit).unwrap_or_else(|| panic!("SIGTERM did not end it in {limit:?}"));
        (status, self.rows())
    }

    fn read_rows(&self) -> std::sync::MutexGuard<'_, Vec<Row>> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let from = rows.len();
        rows.extend(
            self.process.stdout.since(from).iter().map(|line| Row::from_json(line.arrived_ns, &line.text)),
        );
        rows
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let panicked = self.process.stderr.text().contains("panicked at");
        assert!(!panicked || std::thread::panicking(), "the agent panicked: {}", self.process.stderr.text());
    }
}

/// Runs the agent's binary with `args` to its end: `check`, or settings that it refuses.
pub fn run_to_end(wrapper: &[&str], args: &[&str]) -> Process {
    let mut argv: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
    argv.push(binary().into());
    argv.extend(args.iter().map(OsString::from));
    let mut process = Process::start("xtcp2-agent", &argv);
    assert!(process.wait(Duration::from_secs(30)).is_some(), "xtcp2-agent {args:?} did not end in 30 s");
    process
}
