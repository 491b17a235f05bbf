use proptest::prelude::*;
use prost::Message;
use xtcp_inet_diag::attr::Selection;
use xtcp_inet_diag::attr::info::AccEcnLayout;
use xtcp_inet_diag::message::{MessageError, ROW_LEN};
use xtcp_inet_diag::wire::{Findings, NoRoom, Row};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

use super::fixtures::{STEP, all_rows};
use super::same::{Beside, READINGS, assert_same, assert_same_as};

const LAYOUTS: [AccEcnLayout; 2] = [AccEcnLayout::Halves, AccEcnLayout::BitFields];

#[test]
fn every_captured_row_has_the_bytes_of_prost() {
    for payload in all_rows() {
        for layout in LAYOUTS {
            for counter in [0, 1, 1 << 20, u64::MAX] {
                assert_same(payload, &Beside::new(counter), layout);
            }
            for reading in READINGS {
                assert_same_as(payload, reading, &Beside::new(1), layout);
            }
        }
    }
}

#[test]
fn a_captured_row_with_any_byte_flipped_has_the_bytes_of_prost() {
    let beside = Beside::none();
    for payload in all_rows() {
        let mut damaged = payload.to_vec();
        for at in (0..payload.len()).step_by(STEP) {
            for flip in [0x01, 0x80, 0xff] {
                damaged[at] ^= flip;
                assert_same(&damaged, &beside, AccEcnLayout::BitFields);
                damaged[at] ^= flip;
            }
        }
    }
}

#[test]
fn a_captured_row_cut_at_any_byte_has_the_bytes_of_prost() {
    let beside = Beside::none();
    for payload in all_rows() {
        for len in (0..payload.len()).step_by(STEP) {
            assert_same(&payload[..len], &beside, AccEcnLayout::Halves);
        }
    }
}

#[test]
fn what_is_said_beside_the_kernels_row_is_in_the_place_of_its_number() {
    let context = Beside::new(1);
    let context = context.context(AccEcnLayout::BitFields);
    let written = |row: Row<'_>| {
        let mut out = vec![0; row.room(&context)];
        let len = row.write(&context, &mut out, &mut Findings::default()).unwrap();
        out.truncate(len);
        out
    };
    for payload in all_rows() {
        let row = Row::new(payload).unwrap();
        let mut expected = XtcpFlatRecord::decode(written(row).as_slice()).unwrap();
        assert_eq!(row.cgroup_id(), expected.c_group);
        let mut header = *row.header();
        header[8..40].fill(7);
        let ours = row.with_header(&header).with_destination_asn(u32::MAX).except(Selection::SCTP_ADDRESSES);
        let filled = if header[0] == 2 { 4 } else { 16 };
        expected.inet_diag_msg_socket_source = [vec![7; filled], vec![0; 16 - filled]].concat();
        expected.inet_diag_msg_socket_destination = expected.inet_diag_msg_socket_source.clone();
        expected.inet_diag_msg_socket_dest_asn = u32::MAX.into();
        expected.sctp_locals.clear();
        expected.sctp_peers.clear();
        assert_eq!(written(ours), expected.encode_to_vec());
    }
}

#[test]
fn an_attribute_of_any_length_with_its_largest_numbers_has_the_bytes_of_prost_and_room() {
    let beside = Beside::new(u64::MAX);
    for number in 0..=40 {
        for len in (0..300).step_by(STEP) {
            let row = row(&[0xff; ROW_LEN], &[(number, vec![0xff; len])]);
            for reading in READINGS {
                assert_same_as(&row, reading, &beside, AccEcnLayout::BitFields);
            }
        }
    }
    for layout in LAYOUTS {
        // Every attribute that is known, and texts at their longest.
        let mut all: Vec<_> = (0..=40).map(|number| (number, vec![0xff; 300])).collect();
        let text = vec![b'x'; usize::from(u16::MAX) - 8];
        all[4].1.clone_from(&text);
        all[19].1 = attribute(1, &text[4..]);
        let row = row(&[0xff; ROW_LEN], &all);
        for reading in READINGS {
            assert_same_as(&row, reading, &beside, layout);
        }
    }
}

#[test]
fn nested_attributes_of_any_length_with_their_largest_numbers_have_the_bytes_of_prost() {
    let beside = Beside::new(u64::MAX);
    let row = |nest: &[u8]| row(&[0; ROW_LEN], &[(19, nest.to_vec())]);
    for nest in 0..5 {
        for number in 0..14 {
            for len in 0..10 {
                let inner = attribute(number, &vec![0xff; len]);
                assert_same(&row(&attribute(nest, &inner)), &beside, AccEcnLayout::Halves);
            }
        }
        let all: Vec<u8> = (0..14).flat_map(|number| attribute(number, &[0xff; 8])).collect();
        let whole = row(&[attribute(1, b"name\0"), attribute(nest, &all)].concat());
        for end in ROW_LEN..whole.len() {
            assert_same(&whole[..end], &beside, AccEcnLayout::Halves);
        }
        assert_same(&whole, &beside, AccEcnLayout::Halves);
    }
}

#[test]
fn of_a_repeated_attribute_the_last_that_is_sound_wins() {
    let beside = Beside::none();
    for number in 0..=40 {
        for [first, second] in [[1, 2], [1, 0], [0, 1]] {
            let payload = |byte: u8| if byte == 0 { Vec::new() } else { vec![byte; 300] };
            let attributes = [(number, payload(first)), (number, payload(second))];
            assert_same(&row(&[2; ROW_LEN], &attributes), &beside, AccEcnLayout::BitFields);
        }
    }
}

#[test]
fn too_little_room_is_refused_with_what_is_wanted() {
    let beside = Beside::new(7);
    let context = beside.context(AccEcnLayout::Halves);
    let row = Row::new(&[0; ROW_LEN]).unwrap();
    let wanted = row.room(&context);
    let mut out = vec![0; wanted];
    assert!(row.write(&context, &mut out, &mut Findings::default()).is_ok());
    let error = row.write(&context, &mut out[1..], &mut Findings::default()).unwrap_err();
    assert_eq!(error, NoRoom { wanted, available: wanted - 1 });
    assert!(error.to_string().contains("Row::room"));
    assert_eq!(Row::new(&[0; 71]).unwrap_err(), MessageError::Truncated { available: 71 });
}

fn attribute(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u16::try_from(payload.len() + 4).unwrap().to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn row(header: &[u8], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut row = header.to_vec();
    for (number, payload) in attributes {
        row.extend(attribute(*number, payload));
    }
    row
}

/// Bytes of numbers of every length: each of 1 to 8 bytes is any number of that size shifted to any smaller one.
fn numbers() -> impl Strategy<Value = Vec<u8>> {
    let number = (any::<u64>(), 0..64_u32, prop_oneof![Just(1), Just(2), Just(4), Just(8)]);
    proptest::collection::vec(number, 0..60).prop_map(|numbers| {
        let mut bytes = Vec::new();
        for (value, shift, size) in numbers {
            bytes.resize(bytes.len().next_multiple_of(size), 0);
            let value = value << (64 - 8 * size) >> (64 - 8 * size) >> (shift as usize % (8 * size));
            bytes.extend(&value.to_ne_bytes()[..size]);
        }
        bytes
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => numbers(),
        1 => "[a-z]{0,20}\0{0,2}".prop_map(String::into_bytes),
        1 => "(cubic|dctcp|vegas|prague|bbr|bbr2|bbr3)\0".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec((1..13_u16, proptest::collection::vec(any::<u8>(), 0..12)), 0..4)
            .prop_map(|nested| row(&[], &nested)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }))]

    #[test]
    fn made_rows_have_the_bytes_of_prost(
        header in proptest::collection::vec(prop_oneof![3 => Just(0), 5 => any::<u8>()], ROW_LEN),
        family in prop_oneof![Just(2_u8), Just(10), any::<u8>()],
        attributes in proptest::collection::vec((0..30_u16, payload()), 0..24),
        counter in any::<u64>(),
        shift in 0..64,
        halves in any::<bool>(),
    ) {
        let mut row = row(&header, &attributes);
        row[0] = family;
        assert_same(&row, &Beside::new(counter >> shift), LAYOUTS[usize::from(halves)]);
    }
}
