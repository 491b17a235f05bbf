//! Conversations as kernels hold them, message by message.

use xtcp_inet_diag::framing::Messages;

use super::*;

const DUMP: u16 = 0x301;
const LOOKUP: u16 = 0x1;
const MULTI: u16 = 0x2;
const INTERRUPTED: u16 = 0x10;
const INET: u8 = 2;
const INET6: u8 = 10;
const UNIX: u8 = 1;

/// A message and when it goes by.
fn message(at: i64, kind: u16, flags: u16, (port, seq): (u32, u32), payload: &[u8]) -> (i64, Vec<u8>) {
    let len = u32::try_from(16 + payload.len()).unwrap();
    let header = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
    (at, [&header[..], &seq.to_ne_bytes(), &port.to_ne_bytes(), payload].concat())
}

fn ask(at: i64, flags: u16, seq: u32, family: u8, protocol: u8) -> (i64, Vec<u8>) {
    let mut payload = vec![0; 56];
    payload[..2].copy_from_slice(&[family, protocol]);
    message(at, 20, flags, (0, seq), &payload)
}

fn row(at: i64, flags: u16, key: (u32, u32), family: u8) -> (i64, Vec<u8>) {
    message(at, 20, flags, key, &[family; 72])
}

fn done(at: i64, key: (u32, u32), status: i32) -> (i64, Vec<u8>) {
    message(at, 3, MULTI, key, &status.to_ne_bytes())
}

fn error(at: i64, key: (u32, u32), errno: i32) -> (i64, Vec<u8>) {
    message(at, 2, 0, key, &[&(-errno).to_ne_bytes()[..], &[0; 16]].concat())
}

/// What each row is said to come from, and the counts.
fn follow(messages: &[(i64, Vec<u8>)]) -> (Vec<Origin>, Counts) {
    let mut dumps = Dumps::default();
    let mut origins = Vec::new();
    for (at, bytes) in messages {
        for message in Messages::new(bytes) {
            origins.extend(dumps.take(*at, &message.unwrap()).map(|(origin, _)| origin));
        }
    }
    (origins, dumps.finish())
}

fn numbers(messages: &[(i64, Vec<u8>)]) -> Vec<u64> {
    follow(messages).0.into_iter().map(|origin| origin.dump).collect()
}

#[test]
fn dumps_that_interleave_are_counted_in_the_order_of_their_requests() {
    let messages = [
        ask(1, DUMP, 7, INET, 6),
        ask(2, DUMP, 9, INET6, 17),
        row(3, MULTI, (200, 9), INET6),
        row(4, MULTI, (100, 7), INET),
        row(5, MULTI, (200, 9), INET6),
        done(6, (200, 9), 0),
        row(7, MULTI, (100, 7), INET),
        done(8, (100, 7), 0),
    ];
    let (origins, counts) = follow(&messages);
    let seen: Vec<_> = origins.iter().map(|o| (o.dump, o.timestamp_ns, o.protocol)).collect();
    let (first, second) = ((1, 1, Some(6)), (2, 2, Some(17)));
    assert_eq!(seen, [second, first, second, first]);
    assert_eq!(counts, Counts { dumps: 2, ..Counts::default() });
}

#[test]
fn two_sockets_that_use_one_sequence_number_are_told_apart() {
    // As two `ss` at once do: both name no port, both use 123456.
    let messages = [
        ask(1, DUMP, 123_456, INET, 6),
        ask(2, DUMP, 123_456, INET6, 6),
        row(3, MULTI, (200, 123_456), INET6),
        row(4, MULTI, (100, 123_456), INET),
        done(5, (200, 123_456), 0),
        done(6, (100, 123_456), 0),
    ];
    assert_eq!(numbers(&messages), [2, 1]);
}

#[test]
fn one_socket_that_uses_its_sequence_number_again_begins_another_dump() {
    let messages = [
        ask(1, DUMP, 5, INET, 6),
        row(2, MULTI, (100, 5), INET),
        done(3, (100, 5), 0),
        ask(4, DUMP, 5, INET, 6),
        row(5, MULTI, (100, 5), INET),
        done(6, (100, 5), 0),
    ];
    assert_eq!(numbers(&messages), [1, 2]);
}

#[test]
fn what_is_no_inet_diag_dump_is_neither_counted_nor_a_row() {
    let messages = [
        ask(1, DUMP, 1, UNIX, 0),
        row(2, MULTI, (100, 1), UNIX),
        done(3, (100, 1), 0),
        row(4, MULTI, (300, 77), UNIX),
        ask(5, DUMP, 2, INET, 6),
        row(6, MULTI, (100, 2), INET),
        done(7, (100, 2), 0),
    ];
    let (origins, counts) = follow(&messages);
    assert_eq!(origins.len(), 1);
    assert_eq!((origins[0].dump, counts), (1, Counts { dumps: 1, ..Counts::default() }));
}

#[test]
fn lookups_and_notices_have_no_number() {
    let messages = [
        ask(1, LOOKUP, 3, INET, 6),
        row(2, 0, (100, 3), INET),
        ask(3, DUMP, 4, INET, 6),
        row(4, 0, (0, 0), INET),
        row(5, MULTI, (100, 4), INET),
        done(6, (100, 4), 0),
    ];
    let (origins, counts) = follow(&messages);
    let seen: Vec<_> = origins.iter().map(|o| (o.dump, o.timestamp_ns, o.lookup)).collect();
    assert_eq!(seen, [(0, 1, true), (0, 4, false), (1, 3, false)]);
    assert_eq!(counts.dumps, 1);
}

#[test]
fn answers_without_a_request_take_the_next_number_when_they_are_first_seen() {
    let messages = [
        row(1, MULTI, (100, 1), INET),
        ask(2, DUMP, 2, INET, 6),
        row(3, MULTI, (100, 1), INET),
        row(4, MULTI, (200, 2), INET),
        done(5, (100, 1), 0),
        done(6, (200, 2), 0),
    ];
    let (origins, counts) = follow(&messages);
    let seen: Vec<_> = origins.iter().map(|o| (o.dump, o.timestamp_ns, o.protocol)).collect();
    assert_eq!(seen, [(1, 1, None), (1, 1, None), (2, 2, Some(6))]);
    assert_eq!(counts, Counts { dumps: 2, ..Counts::default() });
}

#[test]
fn a_damaged_family_stays_in_its_dump() {
    let messages = [ask(1, DUMP, 1, INET, 6), row(2, MULTI, (100, 1), 0xee), row(3, MULTI, (100, 1), INET)];
    assert_eq!(numbers(&messages), [1, 1]);
}

#[test]
fn interruptions_errors_and_missing_ends_are_counted_by_dump() {
    let messages = [
        ask(1, DUMP, 1, INET, 6),
        row(2, MULTI | INTERRUPTED, (100, 1), INET),
        row(2, MULTI | INTERRUPTED, (100, 1), INET),
        done(3, (100, 1), 0),
        ask(4, DUMP, 2, INET6, 6),
        done(5, (100, 2), -12),
        ask(6, LOOKUP, 3, INET, 6),
        error(7, (100, 3), 2),
        ask(8, DUMP, 4, INET, 6),
        error(9, (100, 4), 2),
        ask(10, DUMP, 5, INET, 6),
        ask(11, DUMP, 6, INET, 6),
        row(12, MULTI, (100, 6), INET),
        message(13, 4, 0, (100, 6), &[]),
        message(14, 2, 0, (100, 6), &[0; 2]),
    ];
    let (_, counts) = follow(&messages);
    let errors = BTreeMap::from([(2, 2), (12, 1)]);
    let expected = Counts { dumps: 5, interrupted: 1, without_end: 1, errors, overruns: 1, malformed: 1 };
    assert_eq!(counts, expected);
}

#[test]
fn the_protocol_attribute_beats_the_request_s_byte() {
    let mut payload = vec![0; 56];
    payload[..2].copy_from_slice(&[INET, 6]);
    // A bytecode of 5 bytes before it, padded to 8.
    payload.extend([9, 0, 1, 0, 1, 2, 3, 4, 5, 0, 0, 0]);
    payload.extend([8, 0, 3, 0]);
    payload.extend(262_u32.to_ne_bytes());
    let messages = [message(1, 20, DUMP, (0, 1), &payload), row(2, MULTI, (100, 1), INET)];
    assert_eq!(follow(&messages).0[0].protocol, Some(262));
}

#[test]
fn requests_without_end_do_not_take_memory_without_end() {
    let mut dumps = Dumps::default();
    let asked = u32::try_from(3 * MOST_OPEN).unwrap();
    for seq in 0..asked {
        let (at, bytes) = ask(1, DUMP, seq, INET, 6);
        dumps.take(at, &Messages::new(&bytes).next().unwrap().unwrap());
        assert!(dumps.waiting <= MOST_OPEN && dumps.pending.len() <= MOST_OPEN);
    }
    assert_eq!(dumps.finish().without_end, u64::from(asked));
}
