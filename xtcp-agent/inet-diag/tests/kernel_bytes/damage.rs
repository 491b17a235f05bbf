//! Damaged bytes never panic, and a damaged attribute spoils only itself.
//!
//! Sound because the rows are real and the damage is everywhere: every length, every byte, and random bytes.
//! Where a row's attributes lie is found by a walk of its own here, not by the one under test.

use proptest::prelude::*;
use xtcp_inet_diag::attr::Attributes;
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::message::{Decoded, MessageError, ROW_LEN, decode};

use super::fixtures::{all, all_rows};

/// Number, first byte and first byte after the payload of each attribute of a whole row.
fn places(row: &[u8]) -> Vec<(u16, usize, usize)> {
    let mut places = Vec::new();
    let mut at = ROW_LEN;
    while at < row.len() {
        let len = usize::from(u16::from_ne_bytes([row[at], row[at + 1]]));
        places.push((u16::from_ne_bytes([row[at + 2], row[at + 3]]), at, at + len));
        at += len.next_multiple_of(4);
    }
    places
}

/// Each attribute's number and what it decoded to, as text; `None` is left out.
fn values(attributes: &Attributes<'_>) -> Vec<(u16, String)> {
    let Attributes {
        meminfo,
        info,
        mptcp_info,
        other_info,
        vegas_info,
        cong,
        tos,
        tclass,
        sk_meminfo,
        shutdown,
        dctcp_info,
        protocol,
        sk_v6only,
        locals,
        peers,
        mark,
        bbr_info,
        class_id,
        md5sig,
        ulp_info,
        sk_bpf_storages,
        cgroup_id,
        sockopt,
    } = attributes;
    assert_eq!((mptcp_info, other_info), (&None, &None), "a TCP row");
    let texts = [
        (1, format!("{meminfo:?}")),
        (2, format!("{info:?}")),
        (3, format!("{vegas_info:?}")),
        (4, format!("{cong:?}")),
        (5, format!("{tos:?}")),
        (6, format!("{tclass:?}")),
        (7, format!("{sk_meminfo:?}")),
        (8, format!("{shutdown:?}")),
        (9, format!("{dctcp_info:?}")),
        (10, format!("{protocol:?}")),
        (11, format!("{sk_v6only:?}")),
        (12, format!("{locals:?}")),
        (13, format!("{peers:?}")),
        (15, format!("{mark:?}")),
        (16, format!("{bbr_info:?}")),
        (17, format!("{class_id:?}")),
        (18, format!("{md5sig:?}")),
        (19, format!("{ulp_info:?}")),
        (20, format!("{sk_bpf_storages:?}")),
        (21, format!("{cgroup_id:?}")),
        (22, format!("{sockopt:?}")),
    ];
    texts.into_iter().filter(|(_, text)| text != "None").collect()
}

/// Everything that `whole` has, `damaged` has as well, but for these numbers.
fn assert_spared(whole: &Decoded<'_>, damaged: &Decoded<'_>, spoiled: &[u16], what: &str) {
    let spared = |row: &Decoded<'_>| -> Vec<_> {
        values(&row.attributes).into_iter().filter(|(number, _)| !spoiled.contains(number)).collect()
    };
    assert_eq!(spared(whole), spared(damaged), "{what}, spoiled {spoiled:?}");
}

#[test]
fn every_attribute_of_a_real_row_is_decoded() {
    for row in all_rows() {
        let mut numbers: Vec<_> = places(row).into_iter().map(|(number, ..)| number).collect();
        numbers.sort_unstable();
        let decoded = decode(row).unwrap();
        let decoded: Vec<_> = values(&decoded.attributes).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, decoded);
    }
}

#[test]
fn a_row_cut_at_any_byte_keeps_what_is_before_the_cut() {
    for row in all_rows() {
        let whole = decode(row).unwrap();
        for len in 0..row.len() {
            let cut = decode(&row[..len]);
            if len < ROW_LEN {
                assert_eq!(cut, Err(MessageError::Truncated { available: len }));
                continue;
            }
            let cut = cut.unwrap();
            assert_eq!(cut.header, whole.header);
            let lost: Vec<_> =
                places(row).into_iter().filter(|(.., end)| *end > len).map(|(number, ..)| number).collect();
            assert_spared(&whole, &cut, &lost, &format!("cut at {len}"));
            let within = places(row).iter().any(|(_, start, end)| *start < len && len < *end);
            assert_eq!(cut.damage.is_some(), within, "cut at {len}");
        }
    }
}

#[test]
fn a_flipped_byte_spoils_only_its_own_attribute() {
    for row in all_rows() {
        let whole = decode(row).unwrap();
        for at in 0..row.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = row.to_vec();
                damaged[at] ^= flip;
                assert_flip(&whole, row, &damaged, at);
            }
        }
    }
}

fn assert_flip(whole: &Decoded<'_>, row: &[u8], damaged: &[u8], at: usize) {
    let decoded = decode(damaged).expect("72 bytes are a row, whatever they say");
    let what = format!("byte {at} is {:#x}", damaged[at]);
    let Some((number, start, _)) = places(row).into_iter().rfind(|(_, start, _)| *start <= at) else {
        assert_spared(whole, &decoded, &[], &what);
        // The twelve bytes after an IPv4 address are nobody's.
        let nobodys = row[0] == 2 && ((12..24).contains(&at) || (28..40).contains(&at));
        assert_eq!(decoded.header == whole.header, nobodys, "{what}");
        return;
    };
    if (start..start + 2).contains(&at) {
        // A wrong length moves everything after it; what is before stays, if nothing after claims to be it.
        let before: Vec<_> = places(row).into_iter().take_while(|(.., end)| *end <= start).collect();
        let mut lost: Vec<_> = (0..=22).collect();
        let again = values(&decoded.attributes);
        lost.retain(|number| !before.iter().any(|(known, ..)| known == number));
        assert!(before.iter().all(|(number, ..)| again.iter().any(|(known, _)| known == number)), "{what}");
        if decoded.damage.is_some() {
            assert_spared(whole, &decoded, &lost, &what);
        }
        return;
    }
    // A wrong number takes the attribute away, and may make it look like another one.
    let claimed = u16::from_ne_bytes([damaged[start + 2], damaged[start + 3]]) & 0x3fff;
    assert_spared(whole, &decoded, &[number, claimed], &what);
    assert_eq!((decoded.header, decoded.damage), (whole.header, None));
}

#[test]
fn a_datagram_cut_at_any_byte_yields_the_whole_messages_before_the_cut() {
    for datagram in all() {
        let whole: Vec<_> = Messages::new(datagram).collect();
        for len in 0..datagram.len() {
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
        let rows = all_rows();
        let mut row = index.get(&rows)[..ROW_LEN].to_vec();
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
        prop_assert_eq!(usize::try_from(decoded.unknown.total()).unwrap(), unknown);
    }

    #[test]
    fn several_flipped_bytes_never_panic(
        index in any::<prop::sample::Index>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let datagrams: Vec<_> = all().collect();
        let mut datagram = index.get(&datagrams).to_vec();
        for (at, value) in flips {
            let at = at.index(datagram.len());
            datagram[at] = value;
        }
        read(&datagram);
    }
}
