//! Damaged bytes never panic, and a damage spoils no more than what it is in: an attribute, or with a length the rest
//! of a row, or with a message's length the rest of a datagram.
//!
//! Sound because the bytes are real and the damage is everywhere: every length, every byte, and random bytes. Where
//! messages and attributes lie is found by the oracle's walk, not by the one under test.

use std::sync::LazyLock;

use proptest::prelude::*;
use xtcp_inet_diag::framing::{Answer, Body, Ending, Header, Messages, Step};
use xtcp_inet_diag::message::{Decoded, MessageError, ROW_LEN, decode};

use super::fixtures::{Capture, SOCK_DIAG, STEP, all, all_rows, captures, every_datagram, every_row};
use super::{oracle, stream};

/// What a damaged byte is xored with.
const FLIPS: [u8; 3] = [0x01, 0x80, 0xff];

/// Number, first byte and first byte after the payload of each attribute of a whole row.
fn places(row: &[u8]) -> Vec<(u16, usize, usize)> {
    let (pieces, broken) = oracle::split_attributes(row);
    assert_eq!(broken, None);
    let place = |piece: &&[u8]| {
        let start = piece.as_ptr().addr() - row.as_ptr().addr();
        (oracle::number(piece), start, start + piece.len())
    };
    pieces.iter().map(place).collect()
}

/// Everything that `whole` has, `damaged` has as well, but for these numbers.
fn assert_spared(whole: &Decoded<'_>, damaged: &Decoded<'_>, is_spared: impl Fn(u16) -> bool, what: Place) {
    let (mut whole, mut damaged) = (whole.attributes, damaged.attributes);
    whole.retain(&is_spared);
    damaged.retain(&is_spared);
    assert_eq!(whole, damaged, "{what:?}");
}

/// Where damage was done, and what the byte became.
#[derive(Debug, Clone, Copy)]
struct Place {
    #[expect(dead_code, reason = "printed")]
    at: usize,
    #[expect(dead_code, reason = "printed")]
    value: Option<u8>,
}

#[test]
fn every_attribute_of_a_real_row_is_decoded() {
    for row in all_rows() {
        let mut numbers: Vec<_> = places(row).into_iter().map(|(number, ..)| number).collect();
        numbers.sort_unstable();
        assert!(decode(row).unwrap().attributes.numbers().eq(numbers));
    }
}

#[test]
fn captured_bytes_are_what_the_fuzzers_hold_them_to() {
    every_datagram().for_each(oracle::framing);
    all_rows().into_iter().for_each(oracle::attributes);
    let mut rows = 0;
    for stream in streams() {
        oracle::dump(&stream, |_| rows += 1);
    }
    assert_eq!(rows, every_row().len());
}

/// What a fuzzer once found is in `fuzz/regressions/<target>/`.
#[test]
fn what_fuzzers_found_stays_fixed() {
    type Question = fn(&[u8]);
    let targets: [(&str, Question); 3] = [
        ("framing", oracle::framing),
        ("attributes", oracle::attributes),
        ("dump", |bytes| oracle::dump(&stream::split(bytes), oracle::attributes)),
    ];
    for (target, question) in targets {
        let folder = format!("{}/fuzz/regressions/{target}", env!("CARGO_MANIFEST_DIR"));
        for file in std::fs::read_dir(folder).into_iter().flatten() {
            question(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}

#[test]
fn a_row_cut_at_any_byte_keeps_what_is_before_the_cut() {
    for row in all_rows() {
        let (whole, places) = (decode(row).unwrap(), places(row));
        for len in (0..row.len()).step_by(STEP) {
            let cut = decode(&row[..len]);
            if len < ROW_LEN {
                assert_eq!(cut, Err(MessageError::Truncated { available: len }));
                continue;
            }
            let cut = cut.unwrap();
            assert_eq!(cut.header, whole.header);
            let is_lost = |wanted| places.iter().any(|(number, _, end)| *end > len && *number == wanted);
            assert_spared(&whole, &cut, |number| !is_lost(number), Place { at: len, value: None });
            let within = places.iter().any(|(_, start, end)| *start < len && len < *end);
            assert_eq!(cut.damage.is_some(), within, "cut at {len}");
        }
    }
}

#[test]
fn a_flipped_byte_spoils_only_its_own_attribute() {
    for row in all_rows() {
        let (whole, places) = (decode(row).unwrap(), places(row));
        let mut damaged = row.to_vec();
        for at in (0..row.len()).step_by(STEP) {
            for flip in FLIPS {
                damaged[at] ^= flip;
                assert_flip(&whole, &places, &damaged, at);
                damaged[at] ^= flip;
            }
        }
    }
}

fn assert_flip(whole: &Decoded<'_>, places: &[(u16, usize, usize)], damaged: &[u8], at: usize) {
    let decoded = decode(damaged).expect("72 bytes are a row, whatever they say");
    let what = Place { at, value: Some(damaged[at]) };
    let Some((number, start, _)) = places.iter().copied().rfind(|(_, start, _)| *start <= at) else {
        assert_spared(whole, &decoded, |_| true, what);
        // The twelve bytes after an IPv4 address are nobody's.
        let nobodys = damaged[0] == 2 && ((12..24).contains(&at) || (28..40).contains(&at));
        assert_eq!(decoded.header == whole.header, nobodys, "{what:?}");
        return;
    };
    if (start..start + 2).contains(&at) {
        // A wrong length moves everything after it; what is before stays, if nothing after claims to be it.
        let is_before = |wanted| places.iter().any(|(number, _, end)| *end <= start && *number == wanted);
        let mut kept = whole.attributes;
        kept.retain(is_before);
        assert!(kept.numbers().all(|number| decoded.attributes.numbers().any(|is| is == number)), "{what:?}");
        if decoded.damage.is_some() {
            assert_spared(whole, &decoded, is_before, what);
        }
        return;
    }
    // A wrong number takes the attribute away, and may make it look like another one.
    let claimed = oracle::number(&damaged[start..]);
    assert_spared(whole, &decoded, |spared| spared != number && spared != claimed, what);
    assert_eq!((decoded.header, decoded.damage), (whole.header, None));
}

#[test]
fn a_datagram_cut_at_any_byte_yields_the_whole_messages_before_the_cut() {
    for datagram in all() {
        let whole: Vec<_> = Messages::new(datagram).collect();
        for len in (0..datagram.len()).step_by(STEP) {
            let cut: Vec<_> = Messages::new(&datagram[..len]).collect();
            let good = cut.iter().take_while(|message| message.is_ok()).count();
            assert_eq!(cut[..good], whole[..good]);
            assert!(cut.len() - good <= 1);
            if let Some(Err(error)) = cut.last() {
                assert!(error.wanted > error.available && error.offset + error.available == len);
            }
        }
    }
}

/// Every captured answer of inet_diag, whole.
fn streams() -> Vec<Vec<&'static [u8]>> {
    let exchanges = captures().iter().flat_map(Capture::exchanges);
    let ours = exchanges.filter(|(request, _)| request.protocol == SOCK_DIAG);
    ours.map(|(_, answers)| answers).filter(|answers| !answers.is_empty()).collect()
}

/// The rows of each datagram, and how the answer ended that the first message belongs to.
fn follow<'a>(stream: &[&'a [u8]]) -> (Vec<Vec<&'a [u8]>>, Option<Ending>) {
    let mut answer = Answer::to_dump();
    let key = |message: &Header| (message.pid, message.seq);
    let asked = stream.iter().find_map(|datagram| Some(key(&Messages::new(datagram).next()?.ok()?.header)));
    let rows = |datagram: &&'a [u8]| {
        let mut rows = Vec::new();
        for message in Messages::new(datagram) {
            match message {
                Ok(message) if Some(key(&message.header)) == asked => match answer.take(&message) {
                    Step::Row(payload) => rows.push(payload),
                    Step::Control | Step::Foreign => {}
                },
                Ok(_) => {}
                Err(_) => answer.damage(),
            }
        }
        rows
    };
    (stream.iter().map(rows).collect(), answer.ending())
}

/// Where each message begins.
fn starts(datagram: &[u8]) -> Vec<usize> {
    let messages = oracle::split_messages(datagram).0;
    messages.iter().map(|message| message.as_ptr().addr() - datagram.as_ptr().addr()).collect()
}

#[test]
fn a_flipped_byte_of_a_message_length_spoils_its_datagram_only() {
    let mut damages = 0;
    for stream in streams() {
        let (whole, ending) = follow(&stream);
        for (place, datagram) in stream.iter().enumerate() {
            for (before, start) in starts(datagram).into_iter().enumerate().step_by(STEP) {
                for (byte, flip) in (start..start + 4).flat_map(|byte| FLIPS.map(|flip| (byte, flip))) {
                    let mut damaged = datagram.to_vec();
                    damaged[byte] ^= flip;
                    let mut stream = stream.clone();
                    stream[place] = &damaged;
                    let (rows, damaged_ending) = follow(&stream);
                    let known = before.min(whole[place].len());
                    assert_eq!(rows[place][..known], whole[place][..known], "before the damage");
                    let others = |rows: &[Vec<_>]| [rows[..place].concat(), rows[place + 1..].concat()];
                    if ending == Some(Ending::Complete) && place + 1 < stream.len() {
                        assert_eq!(others(&rows), others(&whole), "in other datagrams");
                        let is_broken = Messages::new(&damaged).any(|message| message.is_err());
                        let expected = if is_broken { Ending::Damaged } else { Ending::Complete };
                        assert_eq!(damaged_ending, Some(expected));
                        damages += usize::from(is_broken);
                    }
                }
            }
        }
    }
    assert!(damages * STEP > 100, "{damages} lengths broke their datagram");
}

/// Reads everything there is to read.
fn read(datagram: &[u8]) -> usize {
    Messages::new(datagram)
        .filter_map(Result::ok)
        .filter_map(|message| match message.body {
            Body::Data { payload } => decode(payload).ok(),
            Body::Noop | Body::Overrun | Body::Done { .. } | Body::Error { .. } | Body::Malformed => None,
        })
        .map(|row| format!("{row:?} {}", row.unknown.total()).len())
        .sum()
}

/// `INET_DIAG_ULP_INFO`.
const ULP_INFO: u16 = 19;
static ROWS: LazyLock<Vec<&[u8]>> = LazyLock::new(all_rows);
static DATAGRAMS: LazyLock<Vec<&[u8]>> = LazyLock::new(|| all().collect());

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        read(&bytes);
        let row = decode(&bytes);
        prop_assert_eq!(row.is_ok(), bytes.len() >= ROW_LEN);
    }

    #[test]
    fn random_attributes_after_a_real_header_never_panic(
        index in any::<prop::sample::Index>(),
        attributes in proptest::collection::vec((0..30_u16, proptest::collection::vec(any::<u8>(), 0..300)), 0..12),
    ) {
        let mut row = index.get(&ROWS)[..ROW_LEN].to_vec();
        let header = decode(&row).unwrap().header;
        for (number, payload) in &attributes {
            row.extend(u16::try_from(payload.len() + 4).unwrap().to_ne_bytes());
            row.extend(number.to_ne_bytes());
            row.extend(payload);
            row.resize(row.len().next_multiple_of(4), 0);
        }
        let decoded = decode(&row).unwrap();
        prop_assert_eq!(decoded.header, header);
        prop_assert_eq!(decoded.damage, None);
        let unknown = attributes.iter().filter(|(number, _)| *number == 0 || *number > 22).count();
        let counted = usize::try_from(decoded.unknown.total()).unwrap();
        // Those within the upper layer's are counted too.
        let nests = attributes.iter().any(|(number, _)| *number == ULP_INFO);
        prop_assert!(counted == unknown || nests && counted > unknown, "{counted} instead of {unknown}");
    }

    #[test]
    fn several_flipped_bytes_never_panic(
        index in any::<prop::sample::Index>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut datagram = index.get(&DATAGRAMS).to_vec();
        for (at, value) in flips {
            let at = at.index(datagram.len());
            datagram[at] = value;
        }
        read(&datagram);
    }
}
