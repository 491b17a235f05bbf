//! Every row that goes in comes out once and in order, whatever its size and the limits; what is not delivered is
//! counted. Delivery runs on paused time against destinations that follow a script.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prometheus::Registry;
use proptest::prelude::*;
use prost::Message;
use tokio_util::sync::CancellationToken;
use xtcp_proto::flat_record::v1::{Envelope, XtcpFlatRecord};

use super::*;
use crate::destination::{self, Destination, Payload, SendError};
use crate::marshaller;
use crate::record::{Reason, RowChunk};

/// A record that encodes to a few bytes more than `size`.
fn record(number: u64, size: usize) -> XtcpFlatRecord {
    XtcpFlatRecord { record_counter: number, tag: "x".repeat(size), ..Default::default() }
}

fn chunk(numbers: Range<u64>, size: usize) -> RowChunk {
    let mut rows = Rows::default();
    numbers.for_each(|number| rows.push(&record(number, size)));
    RowChunk { reason: Reason::Poll, poll: 1, netns_inode: 1, rows: Arc::new(rows) }
}

proptest! {
    #[test]
    fn batches_concatenate_to_the_input_and_keep_their_limits(
        chunks in prop::collection::vec(prop::collection::vec(0usize..400, 0..40), 0..12),
        rows in 1usize..50,
        bytes in 0usize..2_000,
    ) {
        let limits = Limits { rows, bytes, ..Limits::default() };
        let mut batcher = Batcher::new(limits);
        let mut batches = Vec::new();
        let mut input = Vec::new();
        for sizes in chunks {
            let mut rows = Rows::default();
            for size in sizes {
                let record = record(input.len() as u64, size);
                rows.push(&record);
                input.push(record);
            }
            batcher.push(&Arc::new(rows), Instant::now(), |batch, cause| batches.push((batch, Some(cause))));
        }
        batches.extend(batcher.close().map(|batch| (batch, None)));

        let mut output = Vec::new();
        for (number, (batch, cause)) in batches.iter().enumerate() {
            prop_assert_eq!(batch.id(), number as u64 + 1);
            prop_assert!(!batch.is_empty());
            prop_assert!(batch.len() <= limits.rows);
            prop_assert!(batch.len() == 1 || batch.envelope_len() <= limits.bytes);
            prop_assert!(*cause != Some(Cause::Rows) || batch.len() == limits.rows);
            prop_assert_eq!(batch.rows().count(), batch.len());

            let mut marshalled = Vec::new();
            marshaller::parse("protobufList").expect("known").marshal(batch, &mut marshalled).expect("bytes");
            let envelope = Envelope::decode_length_delimited(marshalled.as_slice()).expect("an envelope");
            prop_assert_eq!(envelope.encoded_len(), batch.envelope_len());
            output.extend(envelope.row);
        }
        prop_assert_eq!(output, input);
        prop_assert_eq!(batcher.pending(), 0);
        prop_assert_eq!(batcher.deadline(), None);
    }
}

#[test]
fn a_batch_closed_by_bytes_could_not_have_held_the_next_row() {
    let mut batcher = Batcher::new(Limits { bytes: 1_000, ..Limits::default() });
    let mut batches = Vec::new();
    batcher.push(&chunk(1..101, 100).rows, Instant::now(), |batch, cause| batches.push((batch, cause)));
    let row = framed_len(record(1, 100).encoded_len());
    assert!(batches.len() > 5);
    for (batch, cause) in batches {
        assert_eq!(cause, Cause::Bytes);
        assert!(batch.envelope_len() <= 1_000);
        assert!(batch.envelope_len() + row > 1_000);
    }
}

#[test]
fn a_row_larger_than_the_limit_makes_a_batch_of_its_own() {
    let mut batcher = Batcher::new(Limits { bytes: 1_000, ..Limits::default() });
    let mut batches = Vec::new();
    for size in [10, 5_000, 10] {
        let mut rows = Rows::default();
        rows.push(&record(1, size));
        batcher.push(&Arc::new(rows), Instant::now(), |batch, _| batches.push(batch.len()));
    }
    assert_eq!(batches, [1, 1]);
    assert_eq!(batcher.pending(), 1);
}

#[test]
fn the_deadline_is_that_of_the_oldest_row() {
    let mut batcher = Batcher::new(Limits { age: Duration::from_secs(3), ..Limits::default() });
    let begin = Instant::now();
    for second in 0..3 {
        batcher.push(&chunk(1..2, 10).rows, begin + Duration::from_secs(second), |_, _| {});
    }
    assert_eq!(batcher.deadline(), Some(begin + Duration::from_secs(3)));
}

#[test]
fn a_row_that_an_event_led_to_hurries_the_open_batch_and_delays_none() {
    let limits =
        Limits { age: Duration::from_secs(3), event_age: Duration::from_millis(20), ..Limits::default() };
    let mut batcher = Batcher::new(limits);
    let begin = Instant::now();
    batcher.hurry(begin);
    assert_eq!(batcher.deadline(), None, "nothing is open");
    batcher.push(&chunk(1..2, 10).rows, begin, |_, _| {});
    batcher.hurry(begin + Duration::from_secs(1));
    assert_eq!(batcher.deadline(), Some(begin + Duration::from_millis(1_020)));
    batcher.hurry(begin + Duration::from_secs(2));
    assert_eq!(batcher.deadline(), Some(begin + Duration::from_millis(1_020)));
    assert_eq!(batcher.close().map(|batch| batch.len()), Some(1));
    assert_eq!(batcher.deadline(), None);
}

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
    taken: Arc<Mutex<Vec<(Instant, Envelope)>>>,
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

    fn numbers(&self) -> Vec<u64> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().flat_map(|(_, envelope)| envelope.row.iter().map(|row| row.record_counter)).collect()
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
                    let envelope =
                        Envelope::decode_length_delimited(payload.bytes.clone()).expect("an envelope");
                    assert_eq!(envelope.row.len(), payload.rows);
                    self.taken
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((Instant::now(), envelope));
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

struct Bench {
    rows: Option<RowSender>,
    registry: Registry,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), DeliveryError>>,
}

impl Bench {
    fn start(capacity: usize, limits: Limits, destination: &Scripted) -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).expect("registered");
        let sends = destination::Metrics::register(&registry).expect("registered");
        let (rows, chunks) = queue(capacity, metrics.clone());
        let shutdown = CancellationToken::new();
        let delivery = Delivery { limits, ..Delivery::default() };
        let marshaller = marshaller::parse("protobufList").expect("known");
        let destination: Box<dyn Destination> = Box::new(destination.clone());
        let task =
            tokio::spawn(run(chunks, delivery, marshaller, destination, (metrics, sends), shutdown.clone()));
        Self { rows: Some(rows), registry, shutdown, task }
    }

    fn offer(&self, chunk: RowChunk) -> bool {
        self.rows.as_ref().expect("open").offer(chunk)
    }

    async fn end(&mut self) -> Result<(), DeliveryError> {
        self.rows = None;
        self.shutdown.cancel();
        (&mut self.task).await.expect("no panic")
    }

    /// Sum over the labels of a counter or gauge.
    fn metric(&self, name: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).expect(name);
        let sum: f64 = family
            .get_metric()
            .iter()
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
    // 100 ms and 200 ms before the first batch, 100 ms before the second.
    let waits: Vec<_> = destination.times().iter().map(|&time| (time - begin).as_millis()).collect();
    assert_eq!(waits, [300, 400, 400]);
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
    assert_eq!(error.to_string(), "destination gone");
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
    assert_eq!(begin.elapsed(), Delivery::default().drain);
    assert_eq!(error.to_string(), "30 rows had not left when the time to drain was over");
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
    assert_eq!(begin.elapsed(), Delivery::default().drain);
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
