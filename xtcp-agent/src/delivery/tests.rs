//! Every row that is handed out is sent, waiting, or counted as dropped with its cause; destinations do not touch each
//! other. On paused time, against destinations that follow a script.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prometheus::Registry;
use prost::Message;
use tokio::time::Instant;
use xtcp_proto::event::v1::Event;
use xtcp_proto::flat_record::v1::Envelope;

use super::route::{Bounds, SpoolMode, WhenFull};
use super::*;
use crate::destination::{Address, Destination, Opener};
use crate::envelope::tests::chunk;
use crate::envelope::{self, Limits, RowSender, queue, run};
use crate::event_sink::tests::events;
use crate::marshaller;
use crate::record::RowChunk;
use crate::record::tally::Tally;

const DRAIN: Duration = Duration::from_secs(5);

/// What a scripted destination does with one send; takes the batch when the script is over.
#[derive(Clone, Copy, Debug)]
enum Act {
    Take,
    Retry,
    Drop,
    Fatal,
    Hang,
}

#[derive(Clone, Default)]
struct Scripted {
    script: Arc<Mutex<VecDeque<Act>>>,
    last: Option<Act>,
    taken: Arc<Mutex<Vec<(Instant, Payload)>>>,
    limit: Option<usize>,
    patience: Option<Duration>,
}

impl Scripted {
    /// Follows `script`, then does `last` for ever.
    fn new(script: &[Act], last: Act) -> Self {
        Self {
            script: Arc::new(Mutex::new(script.iter().copied().collect())),
            last: Some(last),
            ..Self::default()
        }
    }

    fn payloads(&self) -> Vec<Payload> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().map(|(_, payload)| payload.clone()).collect()
    }

    fn numbers(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for payload in self.payloads() {
            let envelope = Envelope::decode_length_delimited(payload.bytes).expect("an envelope");
            assert_eq!(envelope.row.len(), payload.rows);
            numbers.extend(envelope.row.iter().map(|row| row.record_counter));
        }
        numbers
    }

    fn times(&self) -> Vec<Instant> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(time, _)| *time).collect()
    }
}

impl Destination for Scripted {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        async move {
            let next = self.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next.or(self.last).unwrap_or(Act::Take) {
                Act::Take => {
                    let taken = (Instant::now(), payload.clone());
                    self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
                    Ok(())
                }
                Act::Retry => Err(SendError::Retry("busy".into())),
                Act::Drop => Err(SendError::Drop("too large".into())),
                Act::Fatal => Err(SendError::Fatal("gone".into())),
                Act::Hang => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        unreachable!("only `check` probes")
    }
}

impl Opener for Scripted {
    fn open(&self, _: &Context) -> Result<Box<dyn Destination>, crate::destination::Cause> {
        Ok(Box::new(self.clone()))
    }

    fn max_payload(&self) -> Option<usize> {
        self.limit
    }

    fn patience(&self) -> Option<Duration> {
        self.patience
    }
}

struct Bench {
    rows: Option<RowSender>,
    registry: Registry,
    readiness: Readiness,
    hub: EventHub,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), DeliveryError>>,
}

fn route(destination: &Scripted) -> Route {
    let address = Address::of(Arc::new(destination.clone()));
    let parsed = route::parse("null#retry-max=10s").expect("null");
    Route { address, ..parsed }
}

impl Bench {
    fn start(capacity: usize, limits: Limits, destination: &Scripted) -> Self {
        Self::with(capacity, limits, &[route(destination)], Path::new("/nowhere"))
    }

    fn with(capacity: usize, limits: Limits, routes: &[Route], spool_dir: &Path) -> Self {
        let registry = Registry::new();
        let metrics = envelope::Metrics::register(&registry).expect("registered");
        let (rows, chunks) = queue(capacity, metrics.clone());
        let readiness = Readiness::default();
        let hub = EventHub::default();
        let settings = Settings {
            hostname: "host".into(),
            instance: "i".to_owned(),
            marshal: marshaller::parse("protobufList").expect("known"),
            topic: "xtcp".to_owned(),
            spool_dir: spool_dir.to_owned(),
            drain: DRAIN,
            readiness: readiness.clone(),
            events: (hub.clone(), Bound::default()),
            event_metrics: SinkMetrics::register(&registry).expect("registered"),
        };
        let counts = Metrics::register(&registry).expect("registered");
        let outlets = Outlets::open(routes, &settings, &counts).expect("opened");
        let shutdown = CancellationToken::new();
        let tally = Tally::open(Path::new("/nowhere/at/all"));
        let task = tokio::spawn(run(chunks, limits, outlets, tally, metrics, shutdown.clone()));
        Self { rows: Some(rows), registry, readiness, hub, shutdown, task }
    }

    fn offer(&self, chunk: RowChunk) -> bool {
        self.rows.as_ref().expect("open").offer(chunk)
    }

    async fn end(&mut self) -> Result<(), DeliveryError> {
        self.rows = None;
        self.hub.close();
        self.shutdown.cancel();
        (&mut self.task).await.expect("no panic")
    }

    /// Sum over the labels of a counter or gauge.
    fn metric(&self, name: &str) -> u64 {
        self.metric_of(name, None)
    }

    /// The same of one destination.
    fn metric_of(&self, name: &str, destination: Option<&str>) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).expect(name);
        let of = |metric: &&prometheus::proto::Metric| {
            destination.is_none_or(|name| metric.get_label().iter().any(|label| label.value() == name))
        };
        let sum: f64 = family
            .get_metric()
            .iter()
            .filter(of)
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum();
        sum.to_string().parse().expect("a whole number")
    }

    fn delivered_and_lost(&self) -> (u64, u64) {
        let lost = self.metric("xtcp_destination_dropped_rows_total")
            + self.metric("xtcp_envelope_dropped_rows_total");
        (self.metric("xtcp_destination_rows_total"), lost)
    }
}

fn small() -> Limits {
    Limits { rows: 10, ..Limits::default() }
}

#[tokio::test(start_paused = true)]
async fn everything_queued_leaves_in_order_at_shutdown() {
    let destination = Scripted::new(&[], Act::Take);
    let mut bench = Bench::start(100, small(), &destination);
    for begin in (0..95).step_by(5) {
        assert!(bench.offer(chunk(begin..begin + 5, 20)));
    }
    bench.end().await.expect("delivered");
    assert_eq!(destination.numbers(), (0..95).collect::<Vec<_>>());
    assert_eq!(bench.delivered_and_lost(), (95, 0));
    assert_eq!(bench.metric("xtcp_envelope_rows_total"), 95);
    assert_eq!(bench.metric("xtcp_envelope_batches_total"), 10);
    assert_eq!(bench.metric("xtcp_destination_batches_total"), 10);
    assert_eq!(bench.metric("xtcp_envelope_pending_rows"), 0);
}

#[tokio::test(start_paused = true)]
async fn delivery_ends_by_itself_when_every_sender_is_gone() {
    let destination = Scripted::new(&[], Act::Take);
    let mut bench = Bench::start(100, small(), &destination);
    bench.offer(chunk(0..3, 20));
    bench.rows = None;
    (&mut bench.task).await.expect("no panic").expect("delivered");
    assert_eq!(destination.numbers(), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_row_waits_no_longer_than_the_age() {
    let destination = Scripted::new(&[], Act::Take);
    let mut bench = Bench::start(100, small(), &destination);
    let begin = Instant::now();
    bench.offer(chunk(0..1, 20));
    tokio::time::sleep(Duration::from_millis(600)).await;
    bench.offer(chunk(1..2, 20));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(destination.numbers(), [0, 1]);
    assert_eq!(destination.times(), [begin + Duration::from_secs(1)]);
    bench.end().await.expect("delivered");
}

#[tokio::test(start_paused = true)]
async fn a_retry_sends_the_same_batch_again_before_the_next() {
    let destination = Scripted::new(&[Act::Retry, Act::Retry, Act::Take, Act::Retry], Act::Take);
    let mut bench = Bench::start(100, small(), &destination);
    let begin = Instant::now();
    bench.offer(chunk(0..30, 20));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(destination.numbers(), (0..30).collect::<Vec<_>>());
    // 100 ms and 200 ms before the first batch, 100 ms before the second, each up to a half shorter.
    let waits: Vec<_> = destination.times().iter().map(|&time| (time - begin).as_millis()).collect();
    assert!((150..=302).contains(&waits[0]), "{waits:?}");
    assert!((50..=101).contains(&(waits[1] - waits[0])) && waits[2] == waits[1], "{waits:?}");
    bench.end().await.expect("delivered");
    assert_eq!(bench.delivered_and_lost(), (30, 0));
    assert_eq!(bench.metric("xtcp_destination_errors_total"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_is_counted_and_the_next_one_sent() {
    let destination = Scripted::new(&[Act::Take, Act::Drop], Act::Take);
    let mut bench = Bench::start(100, small(), &destination);
    bench.offer(chunk(0..30, 20));
    bench.end().await.expect("delivered");
    assert_eq!(destination.numbers(), (0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!(bench.delivered_and_lost(), (20, 10));
}

#[tokio::test(start_paused = true)]
async fn a_fatal_error_ends_delivery_and_counts_every_row_that_was_left() {
    let destination = Scripted::new(&[Act::Take, Act::Fatal], Act::Take);
    let mut bench = Bench::start(100, small(), &destination);
    bench.offer(chunk(0..30, 20));
    bench.offer(chunk(30..35, 20));
    let error = (&mut bench.task).await.expect("no panic").expect_err("fatal");
    assert_eq!(error.to_string(), "destination null ended: gone");
    assert_eq!(bench.delivered_and_lost(), (10, 25));
    assert!(!bench.offer(chunk(35..36, 20)), "nobody receives any more");
    assert_eq!(bench.delivered_and_lost(), (10, 26));
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_hangs_bounds_the_queue_and_the_end() {
    let destination = Scripted::new(&[], Act::Hang);
    let mut bench = Bench::start(2, small(), &destination);
    bench.offer(chunk(0..10, 20));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(bench.offer(chunk(10..20, 20)));
    assert!(bench.offer(chunk(20..30, 20)));
    assert!(!bench.offer(chunk(30..40, 20)), "the queue is full");
    let begin = Instant::now();
    let error = bench.end().await.expect_err("late");
    assert_eq!(begin.elapsed(), DRAIN);
    assert_eq!(error.to_string(), "destination null: 30 rows had not left when the time to drain was over");
    assert_eq!(bench.delivered_and_lost(), (0, 40));
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_only_asks_for_retries_bounds_the_end() {
    let destination = Scripted::new(&[], Act::Retry);
    let mut bench = Bench::start(100, small(), &destination);
    bench.offer(chunk(0..10, 20));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let begin = Instant::now();
    bench.end().await.expect_err("late");
    assert_eq!(begin.elapsed(), DRAIN);
    assert_eq!(bench.delivered_and_lost(), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_retry_is_cut_short_by_the_end() {
    let destination = Scripted::new(&[Act::Retry; 9], Act::Take);
    let mut bench = Bench::start(100, small(), &destination);
    bench.offer(chunk(0..10, 20));
    // The ninth refusal comes after 100 ms × (2⁷ − 1) = 12.7 s; the wait after it is 10 s.
    tokio::time::sleep(Duration::from_secs(24)).await;
    let begin = Instant::now();
    bench.end().await.expect("delivered");
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(bench.delivered_and_lost(), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_hangs_or_fails_leaves_the_others_alone() {
    let (hangs, fails, gone, works) = (
        Scripted::new(&[], Act::Hang),
        Scripted::new(&[], Act::Retry),
        Scripted::new(&[], Act::Fatal),
        Scripted::new(&[], Act::Take),
    );
    let routes = [&hangs, &fails, &gone, &works].map(route);
    let mut bench = Bench::with(100, small(), &routes, Path::new("/nowhere"));
    for begin in (0..100).step_by(10) {
        assert!(bench.offer(chunk(begin..begin + 10, 20)));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(works.numbers(), (0..100).collect::<Vec<_>>());
    let reasons = bench.readiness.reasons();
    assert_eq!(reasons, ["destination null-2: busy", "destination null-3: destination null-3 ended: gone"]);
    bench.end().await.expect_err("two of them are late");
    for name in ["null", "null-2", "null-3", "null-4"] {
        let of = |metric| bench.metric_of(metric, Some(name));
        assert_eq!(of("xtcp_destination_accepted_rows_total"), 100, "{name}");
        assert_eq!(
            of("xtcp_destination_rows_total") + of("xtcp_destination_dropped_rows_total"),
            100,
            "{name}"
        );
    }
    assert_eq!(bench.metric_of("xtcp_destination_rows_total", Some("null-4")), 100);
}

#[tokio::test(start_paused = true)]
async fn a_send_that_takes_too_long_is_tried_anew() {
    let patience = Some(Duration::from_secs(3));
    let destination = Scripted { patience, ..Scripted::new(&[Act::Hang, Act::Hang], Act::Take) };
    let mut bench = Bench::start(100, small(), &destination);
    bench.offer(chunk(0..10, 20));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(bench.readiness.reasons().is_empty());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.readiness.reasons(), ["destination null: no answer within 3s (option timeout)"]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(destination.numbers(), (0..10).collect::<Vec<_>>());
    bench.end().await.expect("delivered");
}

#[tokio::test(start_paused = true)]
async fn a_full_memory_drops_the_oldest_and_counts_them() {
    let destination = Scripted::new(&[], Act::Retry);
    let mut routes = [route(&destination)];
    routes[0].bounds.queue_bytes = 40_000;
    let mut bench = Bench::with(100, small(), &routes, Path::new("/nowhere"));
    // 100 batches of a little more than 10 × 100 bytes.
    for begin in (0..1_000).step_by(10) {
        bench.offer(chunk(begin..begin + 10, 100));
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let lost = bench.metric("xtcp_destination_dropped_rows_total");
    assert!((600..700).contains(&lost), "{lost}");
    assert!(bench.metric("xtcp_destination_queue_bytes") <= 40_000);
    bench.end().await.expect_err("late");
    assert_eq!(bench.delivered_and_lost(), (0, 1_000));
}

#[tokio::test(start_paused = true)]
async fn a_full_memory_ends_the_agent_where_that_was_asked_for() {
    let destination = Scripted::new(&[], Act::Retry);
    let mut routes = [route(&destination)];
    routes[0].bounds = Bounds { queue_bytes: 5_000, when_full: WhenFull::Stop, ..Bounds::default() };
    let mut bench = Bench::with(100, small(), &routes, Path::new("/nowhere"));
    for begin in (0..100).step_by(10) {
        bench.offer(chunk(begin..begin + 10, 100));
    }
    let error = (&mut bench.task).await.expect("no panic").expect_err("full");
    assert_eq!(error.to_string(), "destination null: no room for more rows, and when-full=stop");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_split_until_its_parts_fit_and_a_row_that_never_fits_is_counted() {
    let destination = Scripted { limit: Some(700), ..Scripted::new(&[], Act::Take) };
    let mut bench = Bench::start(100, Limits { rows: 40, ..Limits::default() }, &destination);
    bench.offer(chunk(0..39, 100));
    bench.offer(chunk(39..40, 1_000));
    bench.end().await.expect("delivered");
    assert_eq!(destination.numbers(), (0..39).collect::<Vec<_>>());
    assert_eq!(bench.delivered_and_lost(), (39, 1));
    let ids: Vec<String> = destination.payloads().iter().map(|payload| payload.id.to_string()).collect();
    assert!(ids.len() >= 7, "{ids:?}");
    assert_eq!(ids, (0..ids.len()).map(|part| format!("i-1-{part}")).collect::<Vec<_>>());
}

/// Real time: the spool has a thread.
#[tokio::test]
async fn what_memory_cannot_hold_waits_on_disk_and_leaves_in_order_after_a_restart() {
    for spool in [SpoolMode::Overflow, SpoolMode::Always] {
        let dir = tempfile::tempdir().expect("a folder");
        let down = Scripted::new(&[], Act::Retry);
        let bounds = Bounds { queue_bytes: 20_000, spool, ..Bounds::default() };
        let mut routes = [Route { bounds, ..route(&down) }];
        let mut bench = Bench::with(1_000, small(), &routes, dir.path());
        for begin in (0..1_000).step_by(10) {
            bench.offer(chunk(begin..begin + 10, 100));
            tokio::time::sleep(Duration::from_millis(1)).await;
            // The disk may be slower than this loop.
            while bench.metric("xtcp_destination_queue_bytes") > 12_000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        bench.end().await.expect("nothing is lost");
        assert_eq!(bench.delivered_and_lost(), (0, 0), "{spool:?}");

        let up = Scripted::new(&[], Act::Take);
        routes[0].address = route(&up).address;
        let mut bench = Bench::with(1_000, small(), &routes, dir.path());
        bench.offer(chunk(1_000..1_010, 100));
        bench.end().await.expect("delivered");
        let mut numbers = up.numbers();
        // What was in memory only and under way when the agent ended went to the disk last.
        numbers.sort_unstable();
        assert_eq!(numbers, (0..1_010).collect::<Vec<_>>(), "{spool:?}");
        assert_eq!(bench.metric("xtcp_destination_accepted_rows_total"), 1_010);
        assert_eq!(bench.metric("xtcp_destination_spool_rows"), 0);
    }
}

/// Real time: the spool has a thread.
#[tokio::test]
async fn a_full_spool_drops_the_oldest_and_counts_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let down = Scripted::new(&[], Act::Retry);
    let bounds = Bounds {
        queue_bytes: 20_000,
        spool: SpoolMode::Always,
        spool_bytes: 40_000,
        when_full: WhenFull::DropOldest,
    };
    let mut routes = [Route { bounds, ..route(&down) }];
    let mut bench = Bench::with(1_000, small(), &routes, dir.path());
    for begin in (0..1_000).step_by(10) {
        bench.offer(chunk(begin..begin + 10, 100));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.end().await.expect("what was lost is counted");
    let lost = bench.metric("xtcp_destination_dropped_rows_total");
    assert!((600..800).contains(&lost), "{lost}");

    let up = Scripted::new(&[], Act::Take);
    routes[0].address = route(&up).address;
    let mut bench = Bench::with(1_000, small(), &routes, dir.path());
    bench.end().await.expect("delivered");
    // Which one was under way decides which are gone, not how many.
    assert_eq!(up.numbers().len(), 1_000 - usize::try_from(lost).expect("small"));
}

#[tokio::test(start_paused = true)]
async fn a_destination_with_events_gets_them_and_no_rows() {
    let (rows, binary, text) =
        (Scripted::default(), Scripted { limit: Some(1_000), ..Scripted::default() }, Scripted::default());
    let jsonl = marshaller::parse("jsonl").expect("known");
    let routes = [
        route(&rows),
        Route { events: true, ..route(&binary) },
        Route { events: true, marshal: Some(jsonl), ..route(&text) },
    ];
    let mut bench = Bench::with(100, small(), &routes, Path::new("/nowhere"));
    bench.offer(chunk(0..10, 20));
    bench.hub.publish(&events(1..=20));
    bench.end().await.expect("delivered");
    assert_eq!(rows.numbers(), (0..10).collect::<Vec<_>>());
    let payloads = binary.payloads();
    assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.bytes.len() <= 1_000));
    let mut stream = payloads.iter().flat_map(|payload| payload.bytes.clone()).collect::<Bytes>();
    let mut sequences = Vec::new();
    while !stream.is_empty() {
        sequences.push(Event::decode_length_delimited(&mut stream).expect("an event").sequence);
    }
    assert_eq!(sequences, (1..=20).collect::<Vec<_>>());
    let lines: String =
        text.payloads().iter().map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned()).collect();
    assert_eq!(lines.lines().count(), 20);
    assert!(lines.lines().all(|line| serde_json::from_str::<Event>(line).is_ok()), "{lines}");
    assert_eq!(bench.metric_of("xtcp_destination_rows_total", Some("null-2")), 20);
}
