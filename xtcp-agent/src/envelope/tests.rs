//! Every row that goes in comes out once and in order, whatever its size and the limits.

use proptest::prelude::*;
use prost::Message;
use xtcp_proto::flat_record::v1::{Envelope, XtcpFlatRecord};

use super::*;
use crate::marshaller;
use crate::record::{Reason, RowChunk};

/// A record that encodes to a few bytes more than `size`.
fn record(number: u64, size: usize) -> XtcpFlatRecord {
    XtcpFlatRecord { record_counter: number, tag: "x".repeat(size), ..Default::default() }
}

pub(crate) fn chunk(numbers: Range<u64>, size: usize) -> RowChunk {
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

#[test]
fn a_filtered_batch_has_the_wanted_rows_in_order_and_halves_make_the_whole() {
    let mut batcher = Batcher::new(Limits::default());
    for begin in [0, 7, 9] {
        batcher.push(&chunk(begin..begin + 7, 10).rows, Instant::now(), |_, _| panic!("few rows"));
    }
    let batch = batcher.close().expect("rows");
    let numbers = |batch: &Batch| -> Vec<u64> {
        batch.rows().map(|row| XtcpFlatRecord::decode(row).expect("a record").record_counter).collect()
    };
    let all = numbers(&batch);
    let odd = batch.filter(|row| XtcpFlatRecord::decode(row).expect("a record").record_counter % 2 == 1);
    let odd = odd.expect("some");
    assert_eq!(numbers(&odd), all.iter().copied().filter(|number| number % 2 == 1).collect::<Vec<_>>());
    assert_eq!((odd.id(), odd.len()), (batch.id(), numbers(&odd).len()));
    let [first, second] = batch.halves().expect("two");
    assert_eq!([numbers(&first), numbers(&second)].concat(), all);
    assert_eq!(first.envelope_len() + second.envelope_len(), batch.envelope_len());
    assert!(batch.filter(|_| false).is_none());
    assert!(second.filter(|_| true).expect("all").halves().is_some());
}
