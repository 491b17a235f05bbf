//! What must hold of any bytes whatever. The tests ask it of fixtures and of damaged fixtures, the fuzz targets
//! (`fuzz/fuzz_targets`) of everything else.
//!
//! Sound because lengths are walked a second time here, by other code, and each attribute is decoded a second time
//! alone: what the decoder says of the whole must be what it says of the parts.

use std::collections::BTreeMap;

use xtcp_inet_diag::framing::{Answer, Body, Ending, FramingError, FramingFault, Message, Messages, Step};
use xtcp_inet_diag::message::{ROW_LEN, decode};

/// `INET_DIAG_PAD`: neither stored nor counted.
const PAD: u16 = 14;

/// Where a walk by length fields came to a length that cannot be right: its place, and what is left from there.
type Broken = Option<(usize, usize)>;

/// Splits `bytes` into pieces: each begins with its own length, of at least `header` bytes, and is padded to four.
fn split(bytes: &[u8], header: usize, length: impl Fn(&[u8]) -> usize) -> (Vec<&[u8]>, Broken) {
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.len() < header || !(header..=rest.len()).contains(&length(rest)) {
            return (pieces, Some((at, rest.len())));
        }
        pieces.push(&rest[..length(rest)]);
        at += length(rest).next_multiple_of(4);
    }
    (pieces, None)
}

/// The messages of a datagram.
pub(crate) fn split_messages(datagram: &[u8]) -> (Vec<&[u8]>, Broken) {
    split(datagram, 16, |rest| u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize)
}

/// The attributes of a row.
pub(crate) fn split_attributes(row: &[u8]) -> (Vec<&[u8]>, Broken) {
    split(&row[ROW_LEN..], 4, |rest| usize::from(u16::from_ne_bytes([rest[0], rest[1]])))
}

/// The number in an attribute's header, without the flags.
pub(crate) fn number(attribute: &[u8]) -> u16 {
    u16::from_ne_bytes([attribute[2], attribute[3]]) & 0x3fff
}

fn error_fits(error: FramingError, (offset, left): (usize, usize)) -> bool {
    let FramingError { fault, offset: at, wanted, available } = error;
    let is_left = match fault {
        FramingFault::HeaderTruncated => wanted == 16 && available == left,
        FramingFault::LengthTooSmall => wanted == 16 && left >= 16,
        FramingFault::MessageTruncated => wanted > 16 && available == left,
    };
    at == offset && available < wanted && is_left && error.to_string().contains(" at byte ")
}

/// The messages are those that the lengths say, up to the first wrong one, and an answer ends at most once.
pub(crate) fn framing(datagram: &[u8]) {
    let mut walk = Messages::new(datagram);
    let walked: Vec<_> = walk.by_ref().collect();
    assert!(walk.next().is_none(), "a walk that ended goes on");
    let (pieces, broken) = split_messages(datagram);
    assert_eq!(walked.len(), pieces.len() + usize::from(broken.is_some()));
    match (walked.last(), broken) {
        (Some(Err(error)), Some(place)) => assert!(error_fits(*error, place), "{error:?}, is {place:?}"),
        (Some(Err(error)), None) => panic!("{error:?}"),
        (Some(Ok(_)) | None, broken) => assert_eq!(broken, None),
    }
    for mut answer in [Answer::to_dump(), Answer::to_lookup()] {
        for (message, piece) in walked.iter().flatten().zip(&pieces) {
            same(message, piece);
            let before = answer;
            let step = answer.take(message);
            if before.ending().is_some() {
                assert_eq!((step, answer), (Step::Foreign, before));
            }
            assert!(!matches!(step, Step::Row(_)) || message.is_socket());
        }
    }
}

fn same(message: &Message<'_>, piece: &[u8]) {
    let header = message.header;
    let bytes = [
        &header.len.to_ne_bytes()[..],
        &header.kind.to_ne_bytes(),
        &header.flags.to_ne_bytes(),
        &header.seq.to_ne_bytes(),
        &header.pid.to_ne_bytes(),
    ];
    assert_eq!(bytes.concat(), piece[..16]);
    let is_kind = match message.body {
        Body::Noop => header.kind == 1,
        Body::Error { request, .. } => header.kind == 2 && request.is_some() == (piece.len() >= 36),
        Body::Done { .. } => header.kind == 3 && !(17..20).contains(&piece.len()),
        Body::Malformed => (2..=3).contains(&header.kind) && piece.len() < 20,
        Body::Overrun => header.kind == 4,
        Body::Data { payload } => !(1..=4).contains(&header.kind) && payload == &piece[16..],
    };
    assert!(is_kind, "{message:?}");
}

/// A row of 72 bytes is a row; every attribute in it is decoded as if it were alone, or counted.
pub(crate) fn attributes(row: &[u8]) {
    let Ok(decoded) = decode(row) else {
        assert!(row.len() < ROW_LEN);
        return;
    };
    let (pieces, broken) = split_attributes(row);
    assert_eq!(decoded.damage.map(|damage| damage.offset), broken.map(|(offset, _)| offset));
    assert!(decoded.damage.is_none_or(|damage| damage.available < damage.wanted), "{:?}", decoded.damage);
    let alone: Vec<_> = pieces.iter().map(|piece| [&row[..ROW_LEN], piece].concat()).collect();
    let mut union = BTreeMap::new();
    let (mut unknown, mut malformed) = (0, 0);
    for (piece, alone) in pieces.iter().zip(&alone) {
        let alone = decode(alone).expect("its header is whole");
        assert_eq!((alone.header, alone.damage), (decoded.header, None));
        unknown += alone.unknown.total();
        malformed += alone.malformed.total();
        let (number, found) = (number(piece), alone.attributes.numbers().collect::<Vec<_>>());
        if found == [number] {
            // Of those that come twice the last one stays.
            union.insert(number, alone.attributes);
        } else {
            let counted = alone.unknown.total() + alone.malformed.total();
            assert!(found.is_empty() && (counted == 1 || number == PAD), "{alone:?}");
        }
    }
    assert_eq!((decoded.unknown.total(), decoded.malformed.total()), (unknown, malformed));
    assert!(decoded.attributes.numbers().eq(union.keys().copied()), "{decoded:?} is not {union:?}");
    for (number, alone) in union {
        let mut attributes = decoded.attributes;
        attributes.retain(|other| other == number);
        assert_eq!(attributes, alone);
    }
}

/// A stream of datagrams, with answers to several requests in it: none is complete of which a datagram was damaged.
/// Gives every row to `row`.
pub(crate) fn dump<'a>(datagrams: &[&'a [u8]], mut row: impl FnMut(&'a [u8])) {
    let mut answers = BTreeMap::new();
    for datagram in datagrams {
        let mut keys = Vec::new();
        for message in Messages::new(datagram) {
            let Ok(message) = message else {
                for key in &keys {
                    let (answer, damaged): &mut (Answer, bool) = answers.entry(*key).or_insert(NEW);
                    answer.damage();
                    *damaged = true;
                }
                break;
            };
            keys.push((message.header.pid, message.header.seq));
            let (answer, damaged) = answers.entry((message.header.pid, message.header.seq)).or_insert(NEW);
            let step = answer.take(&message);
            if let Step::Row(payload) = step {
                row(payload);
            }
            if step == Step::Control && answer.ending() == Some(Ending::Complete) {
                assert!(!*damaged && !message.is_dump_interrupted());
            }
        }
    }
}

/// An answer that has begun, and of which nothing was damaged.
const NEW: (Answer, bool) = (Answer::to_dump(), false);
