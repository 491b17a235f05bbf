//! What the tests of both engines share, and what is true of both.

use std::time::{Duration, Instant};

use prometheus::Registry;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::*;
use crate::workload::cri::Cri;
use crate::workload::docker::Docker;

/// Quick, so that a test of failures ends soon; nothing is asserted of how long something takes.
const QUICK: Pace = Pace {
    answer: Duration::from_secs(2),
    pauses: (Duration::from_millis(5), Duration::from_millis(50)),
    absent: Duration::from_millis(10),
    relist: Duration::from_secs(3600),
    list: Duration::from_millis(50),
    longest: 16 << 20,
};

/// A directory that one engine fills, by a socket in a folder of its own.
pub(in crate::workload) struct Stage {
    pub(in crate::workload) directory: Directory,
    pub(in crate::workload) link: Link,
    pub(in crate::workload) metrics: Registry,
    pub(in crate::workload) questions: std::sync::mpsc::Receiver<crate::workload::directory::Question>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl Stage {
    pub(in crate::workload) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Registry::new();
        let socket = folder.path().join("engine.sock");
        let (directory, questions) = Directory::new(1 << 20, None);
        let link = Link {
            counters: EngineMetrics::register(&metrics).unwrap().of("test", &socket),
            socket,
            directory: directory.clone(),
            pod_labels: LabelChoice::new(&["app"]),
            opt_out: [OptOut::parse("xtcp2.io/exclude=true").unwrap()].into(),
            pace: QUICK,
        };
        let stop = CancellationToken::new();
        Self { directory, link, metrics, questions, stop, task: None, _folder: folder }
    }

    pub(in crate::workload) fn follow<E: Engine>(&mut self) {
        self.task = Some(tokio::spawn(keep_in_touch::<E>(self.link.clone(), self.stop.clone())));
    }

    /// Listens at the engine's socket, also where somebody did before.
    pub(in crate::workload) fn listen(&self) -> UnixListener {
        let _ = std::fs::remove_file(&self.link.socket);
        UnixListener::bind(&self.link.socket).unwrap()
    }

    /// Serves at the engine's socket until the answer is dropped, with all its connections.
    pub(in crate::workload) fn serve<F>(&self, serve: impl FnOnce(UnixListener) -> F) -> Serving
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            self.listen()
        };
        runtime.spawn(serve(listener));
        Serving(Some(runtime))
    }

    /// Sessions that ended so.
    pub(in crate::workload) fn failures(&self, why: &str) -> u64 {
        let families = self.metrics.gather();
        let of = |metric: &prometheus::proto::Metric| {
            let has = metric.get_label().iter().any(|label| label.name() == "why" && label.value() == why);
            has.then(|| metric.get_counter().get_value())
        };
        let all = families.iter().filter(|family| family.name().ends_with("failures_total"));
        let sum: f64 = all.flat_map(prometheus::proto::MetricFamily::get_metric).filter_map(of).sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        {
            sum as u64
        }
    }

    pub(in crate::workload) async fn end(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            timeout(Duration::from_secs(30), task).await.expect("the task ends when told").unwrap();
        }
    }
}

/// A server with a runtime of its own, which ends its connections with it.
pub(in crate::workload) struct Serving(Option<tokio::runtime::Runtime>);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Waits until this is true.
pub(in crate::workload) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn one_that_hangs<E: Engine>() {
    let mut stage = Stage::new();
    let listener = stage.listen();
    let hang = tokio::spawn(async move {
        let mut held: Vec<UnixStream> = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap().0);
        }
    });
    stage.follow::<E>();
    eventually("two timeouts", || stage.failures("timeout") + stage.failures("connection") >= 2).await;
    assert!(!stage.link.counters.is_up());
    // Who asks the directory meanwhile does not notice.
    assert_eq!(stage.directory.of_pid(1), None);
    hang.abort();
    stage.end().await;
}

async fn one_that_talks_nonsense<E: Engine>(nonsense: &'static [u8]) {
    let mut stage = Stage::new();
    let listener = stage.listen();
    let talk = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 256]).await;
            let _ = stream.write_all(nonsense).await;
        }
    });
    stage.follow::<E>();
    let failed =
        |stage: &Stage| ["timeout", "connection", "not_offered", "answer"].map(|why| stage.failures(why));
    eventually("three failures", || failed(&stage).iter().sum::<u64>() >= 3).await;
    assert!(!stage.link.counters.is_up());
    talk.abort();
    stage.end().await;
}

#[tokio::test]
async fn an_engine_that_hangs_costs_a_timeout_and_is_asked_again() {
    one_that_hangs::<Docker>().await;
    one_that_hangs::<Cri>().await;
}

#[tokio::test]
async fn an_engine_that_talks_nonsense_is_counted_and_asked_again() {
    const RANDOM: &[u8] = b"\x00\xff\x13\x37 nonsense \r\n\r\n\x80\x80";
    const WRONG_JSON: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n[[[{\"Id\":";
    for nonsense in [RANDOM, WRONG_JSON, b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n", b""] {
        one_that_talks_nonsense::<Docker>(nonsense).await;
        one_that_talks_nonsense::<Cri>(nonsense).await;
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_no_failure() {
    let mut stage = Stage::new();
    stage.follow::<Docker>();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(stage.failures("connection"), 0);
    let listener = stage.listen();
    drop(listener);
    eventually("a failure to connect", || stage.failures("connection") > 0).await;
    stage.end().await;
}
