//! What is written is read back in order, once it is sent it is gone, and damage costs what was damaged.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const QUOTA: u64 = 64 << 20;

fn payload(number: usize, size: usize) -> Payload {
    let byte = u8::try_from(number % 251).expect("small");
    Payload {
        bytes: vec![byte; size].into(),
        header: number % 3,
        rows: number % 7 + 1,
        id: format!("i-{number}-0").into(),
    }
}

fn open(dir: &Path) -> Spool {
    Spool::open(dir, QUOTA).expect("opened")
}

fn take_all(spool: &mut Spool) -> Vec<Payload> {
    std::iter::from_fn(|| spool.take().expect("read").map(|(payload, _)| payload)).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("listed");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
    paths.sort();
    paths
}

proptest! {
    // Each case waits for the disk.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn everything_that_was_not_sent_is_there_after_any_restart(
        steps in prop::collection::vec((0_u8..4, 0_usize..3_000), 1..60),
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        // Segments of 1 KiB: many of them.
        let mut spool = Spool::open(dir.path(), 8 << 10).expect("opened");
        let mut model: VecDeque<Payload> = VecDeque::new();
        let mut taken: Vec<(Payload, Place)> = Vec::new();
        for (number, (step, size)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => {
                    let payload = payload(number, size);
                    spool.write(&payload).expect("written");
                    model.push_back(payload);
                }
                2 => {
                    let found = spool.take().expect("read");
                    prop_assert_eq!(found.as_ref().map(|(payload, _)| payload), model.front());
                    if let Some(found) = found {
                        model.pop_front();
                        if size % 2 == 0 {
                            spool.sent(found.1).expect("noted");
                            taken.clear();
                        } else {
                            taken.push(found);
                        }
                    }
                }
                _ => {
                    drop(spool);
                    spool = Spool::open(dir.path(), 8 << 10).expect("opened again");
                    for (payload, _) in taken.drain(..).rev() {
                        model.push_front(payload);
                    }
                }
            }
            prop_assert_eq!(spool.rows(), model.iter().map(rows).sum::<u64>());
            prop_assert_eq!(spool.is_empty(), model.is_empty());
        }
        prop_assert_eq!(take_all(&mut spool), model.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(spool.take_corrupt_rows(), 0);
    }

    #[test]
    fn a_torn_end_costs_the_record_that_was_torn(cut in 1_usize..500) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut spool = open(dir.path());
        for number in 0..3 {
            spool.write(&payload(number, 400)).expect("written");
        }
        drop(spool);
        let path = segments(dir.path()).pop().expect("one");
        let file = OpenOptions::new().write(true).open(&path).expect("opened");
        let whole = file.metadata().expect("there").len();
        file.set_len(whole - len(&vec![0; cut.min(420)])).expect("cut");
        let mut spool = open(dir.path());
        spool.write(&payload(9, 10)).expect("written");
        prop_assert_eq!(take_all(&mut spool), vec![payload(0, 400), payload(1, 400), payload(9, 10)]);
    }

    #[test]
    fn a_flipped_bit_never_makes_a_payload_that_was_not_written(at in 0_usize..1_200, bit in 0_u8..8) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut spool = open(dir.path());
        let written: Vec<Payload> = (0..3).map(|number| payload(number, 400)).collect();
        for payload in &written {
            spool.write(payload).expect("written");
        }
        let all = spool.rows();
        let path = segments(dir.path()).pop().expect("one");
        let mut bytes = fs::read(&path).expect("read");
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).expect("damaged");
        let read = take_all(&mut spool);
        prop_assert!(read.iter().all(|payload| written.contains(payload)), "{read:?}");
        prop_assert!(read.len() < 3);
        prop_assert_eq!(read.iter().map(rows).sum::<u64>() + spool.take_corrupt_rows(), all);
    }
}

#[test]
fn what_was_sent_is_removed_from_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut spool = Spool::open(dir.path(), 8 << 10).expect("opened");
    for number in 0..20 {
        spool.write(&payload(number, 900)).expect("written");
    }
    assert_eq!(segments(dir.path()).len(), 20);
    let mut last = None;
    while let Some((_, place)) = spool.take().expect("read") {
        last = Some(place);
    }
    spool.sent(last.expect("some")).expect("noted");
    assert_eq!((segments(dir.path()).len(), spool.bytes()), (0, 0));
    spool.write(&payload(21, 5)).expect("written");
    assert_eq!(take_all(&mut spool), [payload(21, 5)]);
}

#[test]
fn dropping_the_oldest_says_how_many_rows_that_cost() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut spool = Spool::open(dir.path(), 8 << 10).expect("opened");
    for number in 0..9 {
        spool.write(&payload(number, 900)).expect("written");
    }
    assert!(spool.is_full_for(&payload(9, 900)));
    let all = spool.rows();
    let lost = spool.drop_oldest().expect("removed");
    assert_eq!(lost, rows(&payload(0, 0)));
    assert_eq!(spool.rows(), all - lost);
    assert_eq!(take_all(&mut spool).first(), Some(&payload(1, 900)));
    assert_eq!(spool.drop_oldest().expect("removed"), 0, "its rows had been taken");
}

/// A full disk leaves such a segment: it was begun, and nothing could be written to it.
#[test]
fn what_is_written_to_a_segment_that_was_empty_when_all_was_taken_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut spool = open(dir.path());
    spool.write(&payload(0, 100)).expect("written");
    let (_, place) = spool.take().expect("read").expect("one");
    spool.writer = Some(spool.begin_segment().expect("begun"));
    spool.sent(place).expect("noted");
    assert!(spool.take().expect("read").is_none());
    spool.write(&payload(1, 100)).expect("written");
    assert!(!spool.is_empty());
    assert_eq!(take_all(&mut spool), [payload(1, 100)]);
    assert!(spool.is_empty());
}
