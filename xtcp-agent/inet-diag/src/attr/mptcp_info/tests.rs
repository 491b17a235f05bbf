use std::vec::Vec;

use super::*;

/// Bytes that each say where they are.
fn places() -> Vec<u8> {
    (0..=255).collect()
}

#[test]
fn each_length_that_a_kernel_had_yields_what_that_kernel_knew() {
    let bytes = places();
    let known = |len: usize| {
        let info = MptcpInfo::decode(&bytes[..len]).unwrap();
        assert!(info.tail.is_empty());
        [
            info.rcv_nxt.is_some(),
            info.local_addr_used.is_some(),
            info.csum_enabled.is_some(),
            info.bytes_acked.is_some(),
            info.subflows_total.is_some(),
            info.last_ack_recv_ms.is_some(),
        ]
    };
    assert_eq!(known(0), [false; 6]);
    assert_eq!(known(40), [true, false, false, false, false, false]); // 5.9
    assert_eq!(known(48), [true, true, true, false, false, false]); // 5.12
    assert_eq!(known(80), [true, true, true, true, false, false]); // 6.5
    assert_eq!(known(88), [true, true, true, true, true, false]); // 6.8
    assert_eq!(known(96), [true; 6]); // 6.10
}

#[test]
fn fields_are_where_the_header_has_them_and_what_follows_is_the_tail() {
    let bytes = places();
    let info = MptcpInfo::decode(&bytes).unwrap();
    let word = |at: u8| u32::from_ne_bytes([at, at + 1, at + 2, at + 3]);
    assert_eq!((info.subflows, info.add_addr_accepted_max), (Some(0), Some(5)));
    assert_eq!((info.flags, info.token, info.retransmits), (Some(word(8)), Some(word(12)), Some(word(44))));
    assert_eq!(info.write_seq.map(u64::to_ne_bytes), Some([16, 17, 18, 19, 20, 21, 22, 23]));
    assert_eq!(info.bytes_acked.map(|bytes| bytes.to_ne_bytes()[0]), Some(72));
    assert_eq!((info.csum_enabled, info.subflows_total), (Some(42), Some(80)));
    assert_eq!((info.endp_laminar_max, info.endp_fullmesh_max), (Some(81), Some(82)));
    assert_eq!((info.last_data_sent_ms, info.last_ack_recv_ms), (Some(word(84)), Some(word(92))));
    assert_eq!(info.tail, &bytes[96..]);
}
