use std::vec::Vec;

use super::*;

#[test]
fn a_short_tcp_info_yields_none_for_the_tail() {
    let bytes: Vec<u8> = (0_u8..=255).chain(0..24).collect();
    assert_eq!(bytes.len(), 280);
    let whole = TcpInfo::decode(&bytes).unwrap();
    assert!(whole.accecn_word.is_some());
    let old = TcpInfo::decode(&bytes[..104]).unwrap();
    assert_eq!(old.total_retrans, whole.total_retrans);
    assert_eq!((old.pacing_rate_bytes_per_s, old.segs_out, old.accecn_word), (None, None, None));
    let cut = TcpInfo::decode(&bytes[..103]).unwrap();
    assert_eq!((cut.rcv_space_bytes, cut.total_retrans), (whole.rcv_space_bytes, None));
    assert_eq!(TcpInfo::decode(&[]), Some(TcpInfo::default()));
}

#[test]
fn a_tcp_info_longer_than_known_is_read_as_far_as_known_and_its_tail_kept() {
    let mut bytes: Vec<u8> = std::vec![3; 280];
    let known = TcpInfo::decode(&bytes).map(|known| TcpInfo { tail: &[0xff; 120], ..known });
    bytes.resize(400, 0xff);
    assert_eq!(TcpInfo::decode(&bytes), known);
}

#[test]
#[cfg(target_endian = "little")]
fn bit_fields_are_the_contracts() {
    let mut bytes = [0; 280];
    bytes[6] = 0x97;
    bytes[7] = 0b101;
    bytes[276..].copy_from_slice(&[0b0110_1110, 1, 2, 0]);
    let info = TcpInfo::decode(&bytes).unwrap();
    assert_eq!((info.snd_wscale(), info.rcv_wscale()), (Some(7), Some(9)));
    assert_eq!((info.delivery_rate_app_limited(), info.fastopen_client_fail()), (Some(true), Some(2)));
    let new = info.accecn(AccEcnLayout::BitFields).unwrap();
    let expected = AccEcn { ecn_mode: Some(2), opt_seen: 3, fail_mode: 6, options2: Some(0x0201) };
    assert_eq!(new, expected);
    let old = info.accecn(AccEcnLayout::Halves).unwrap();
    assert_eq!((old.opt_seen, old.fail_mode, old.ecn_mode), (2, 0x016e, None));
}
