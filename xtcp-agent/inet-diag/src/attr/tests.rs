use std::string::{String, ToString};
use std::vec::Vec;

use super::*;

#[derive(Default)]
struct Walked<'a> {
    attributes: Attributes<'a>,
    unknown: Tally,
    malformed: Tally,
    damage: Option<AttributeError>,
}

fn walk(bytes: &[u8]) -> Walked<'_> {
    walk_as(bytes, Reading::TCP)
}

fn walk_as(bytes: &[u8], reading: Reading) -> Walked<'_> {
    let mut walked = Walked::default();
    let Walked { attributes, unknown, malformed, damage } = &mut walked;
    super::walk(Walk::new(bytes), reading, attributes, unknown, malformed, damage);
    walked
}

fn paths(tally: &Tally) -> Vec<(String, u16)> {
    tally.iter().map(|(number, count)| (Path(number).to_string(), count)).collect()
}

fn attribute(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(u16::try_from(HEADER_LEN + payload.len()).unwrap().to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(align(bytes.len()), 0);
    bytes
}

#[test]
fn an_unknown_attribute_is_counted_and_the_next_one_is_read() {
    let mut bytes = attribute(99, &[1, 2, 3]);
    bytes.extend(attribute(PAD, &[]));
    bytes.extend(attribute(5, &[0x10]));
    bytes.extend(attribute(99, &[]));
    let walked = walk(&bytes);
    assert_eq!(walked.attributes, Attributes { tos: Some(tos::Tos(0x10)), ..Attributes::default() });
    assert_eq!(walked.unknown.iter().collect::<Vec<_>>(), [(99, 2)]);
    assert!(walked.malformed.is_empty() && walked.damage.is_none());
}

#[test]
fn a_short_attribute_is_malformed_and_spoils_only_itself() {
    let mut bytes = attribute(3, &[0; 15]);
    bytes.extend(attribute(4, b"\0"));
    bytes.extend(attribute(4, b"cubic\0"));
    bytes.extend(attribute(21, &[1; 7]));
    let walked = walk(&bytes);
    assert_eq!(walked.attributes.cong, Some(cong::Cong("cubic")));
    assert_eq!(walked.malformed.iter().collect::<Vec<_>>(), [(3, 1), (4, 1), (21, 1)]);
    assert_eq!(walked.attributes.vegas_info, None);
}

#[test]
fn a_damaged_length_ends_the_walk_and_keeps_what_was_read() {
    let mut bytes = attribute(8, &[3]);
    bytes.extend([3, 0, 5, 0]);
    bytes.extend(attribute(15, &[1; 4]));
    let walked = walk(&bytes);
    assert!(walked.attributes.shutdown.is_some_and(|shutdown| shutdown.receive() && shutdown.send()));
    assert_eq!(walked.attributes.mark, None);
    assert_eq!(walked.damage, Some(AttributeError { offset: 8, wanted: 4, available: 3 }));

    let bytes = attribute(15, &[1; 4]);
    let damage = walk(&bytes[..7]).damage;
    assert_eq!(damage, Some(AttributeError { offset: 0, wanted: 8, available: 7 }));
    assert_eq!(walk(&bytes[..2]).damage, Some(AttributeError { offset: 0, wanted: 4, available: 2 }));
}

#[test]
fn a_longer_bbr_info_keeps_its_tail() {
    let mut payload = [0; 24];
    payload[..4].copy_from_slice(&5_u32.to_ne_bytes());
    payload[4..8].copy_from_slice(&1_u32.to_ne_bytes());
    payload[20..].copy_from_slice(&[1, 2, 3, 4]);
    let bytes = attribute(16, &payload);
    let bbr = walk(&bytes).attributes.bbr_info.unwrap();
    assert_eq!(bbr.bw_bytes_per_s(), (1 << 32) + 5);
    assert_eq!(bbr.tail, [1, 2, 3, 4]);
}

#[test]
fn nested_upper_layer_attributes_are_read_with_or_without_the_nested_flag() {
    let mut tls = attribute(1, &0x0304_u16.to_ne_bytes());
    tls.extend(attribute(2, &52_u16.to_ne_bytes()));
    tls.extend(attribute(3, &2_u16.to_ne_bytes()));
    tls.extend(attribute(4, &3_u16.to_ne_bytes()));
    tls.extend(attribute(5, &[]));
    tls.extend(attribute(7, &1024_u16.to_ne_bytes()));
    tls.extend(attribute(77, &[]));
    let mut ulp = attribute(1, b"tls\0");
    ulp.extend(attribute(0x2 | 0x8000, &tls));
    ulp.extend(attribute(9, &[]));
    let bytes = attribute(0x13 | 0x8000, &ulp);
    let walked = walk(&bytes);
    let ulp = walked.attributes.ulp_info.unwrap();
    assert_eq!(ulp.name, Some("tls"));
    let expected = ulp_info::TlsInfo {
        version: Some(0x0304),
        cipher: Some(52),
        tx_conf: Some(2),
        rx_conf: Some(3),
        zc_ro_tx: true,
        rx_no_pad: false,
        tx_max_payload_len_bytes: Some(1024),
    };
    assert_eq!(ulp.tls, Some(expected));
    assert_eq!((ulp.mptcp, walked.malformed), (None, Tally::default()));
    assert_eq!(paths(&walked.unknown), [("19.2.77".into(), 1), ("19.9".into(), 1)]);
}

#[test]
fn a_damaged_nested_attribute_leaves_its_neighbours() {
    let mut mptcp = attribute(1, &7_u32.to_ne_bytes());
    mptcp.extend(attribute(4, &[0; 4]));
    mptcp.extend(attribute(9, &[2]));
    mptcp.extend([1, 0, 0, 0]);
    let mut ulp = attribute(3, &mptcp);
    ulp.extend(attribute(1, b"mptcp\0"));
    let bytes = attribute(19, &ulp);
    let walked = walk(&bytes);
    let ulp = walked.attributes.ulp_info.unwrap();
    assert_eq!(ulp.name, Some("mptcp"));
    let mptcp = ulp.mptcp.unwrap();
    assert_eq!((mptcp.token_rem, mptcp.map_seq, mptcp.id_rem), (Some(7), None, Some(2)));
    assert!(walked.unknown.is_empty());
    assert_eq!(paths(&walked.malformed), [("19.3.4".into(), 1), ("19.3.0".into(), 1)]);
}

#[test]
#[cfg(target_endian = "little")]
fn socket_options_are_the_kernels_bits() {
    let bytes = attribute(22, &[0b0101_0010, 0b101]);
    let sockopt = walk(&bytes).attributes.sockopt.unwrap();
    assert_eq!(sockopt.raw, 0x0552);
    assert!(sockopt.is_icsk && sockopt.mc_loop && sockopt.mc_all && sockopt.bind_address_no_port);
    assert!(sockopt.defer_connect && !sockopt.recverr && !sockopt.transparent && !sockopt.recverr_rfc4884);
}

#[test]
fn keys_are_not_printed() {
    let bytes = attribute(18, b"secret");
    let text = std::format!("{:?}", walk(&bytes).attributes);
    assert!(text.contains("Md5Sig(6 bytes)") && !text.contains("115, 101"), "{text}");
}

#[test]
fn every_number_up_to_the_newest_has_a_name() {
    for number in 1..=22 {
        assert!(name(number).is_some_and(|name| name.starts_with("INET_DIAG_")), "{number}");
    }
    assert_eq!((name(0), name(23)), (None, None));
}

#[test]
fn what_info_holds_depends_on_the_protocol_and_is_never_mistaken_for_tcp_info() {
    let bytes = attribute(2, &[7; 96]);
    let info = |protocol| walk_as(&bytes, Reading { protocol, selection: Selection::ALL }).attributes;
    let [tcp, mptcp, sctp] = [Protocol::TCP, Protocol::MPTCP, Protocol::SCTP].map(info);
    assert!(tcp.info.is_some() && tcp.mptcp_info.is_none() && tcp.other_info.is_none());
    assert_eq!((mptcp.info, mptcp.other_info), (None, None));
    assert_eq!(mptcp.mptcp_info.unwrap().token, Some(0x0707_0707));
    assert_eq!((sctp.info, sctp.mptcp_info), (None, None));
    assert_eq!(sctp.other_info, Some(other_info::OtherInfo(&[7; 96])));
}

#[test]
fn the_table_s_own_numbers_cannot_come_from_a_message() {
    // NLA_F_NESTED and NLA_F_NET_BYTEORDER are stripped: what is left is a plain INFO.
    for number in [MPTCP_INFO, OTHER_INFO] {
        let bytes = attribute(number, &[7; 96]);
        let walked = walk(&bytes);
        assert!(walked.attributes.info.is_some(), "{number:#x}");
        assert_eq!((walked.attributes.mptcp_info, walked.attributes.other_info), (None, None));
    }
}

#[test]
fn what_is_not_selected_is_neither_decoded_nor_counted_but_the_unknown_is() {
    let mut bytes = attribute(4, b"\0");
    bytes.extend(attribute(15, &[1; 4]));
    bytes.extend(attribute(99, &[]));
    let reading = Reading { protocol: Protocol::TCP, selection: Selection::MARK };
    let walked = walk_as(&bytes, reading);
    assert_eq!(
        walked.attributes,
        Attributes { mark: Some(mark::Mark(0x0101_0101)), ..Attributes::default() }
    );
    assert!(walked.malformed.is_empty());
    assert_eq!(walked.unknown.iter().collect::<Vec<_>>(), [(99, 1)]);
}

#[test]
fn bpf_storages_are_each_map_s_value() {
    let storage = |id: u32, value: &[u8]| {
        let mut bytes = attribute(2, &id.to_ne_bytes());
        // SK_DIAG_BPF_STORAGE_PAD, as the kernel puts before a value of 8 bytes and more.
        bytes.extend(attribute(1, &[]));
        bytes.extend(attribute(3, value));
        attribute(1, &bytes)
    };
    let mut payload = storage(7, &[1; 8]);
    payload.extend(attribute(1, &attribute(2, &[0; 3])));
    payload.extend(storage(9, &[]));
    let bytes = attribute(20, &payload);
    let storages = walk(&bytes).attributes.sk_bpf_storages.unwrap();
    let found: Vec<_> = storages.storages().map(|storage| (storage.map_id, storage.value)).collect();
    assert_eq!(found, [(7, &[1; 8][..]), (9, &[][..])]);
}
