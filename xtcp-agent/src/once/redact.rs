//! TCP MD5 keys never leave this host in a capture.

use xtcp_inet_diag::framing::HEADER_LEN;
use xtcp_inet_diag::message::ROW_LEN;

use crate::pcap::{half, word};

/// `INET_DIAG_MD5SIG` of `linux/inet_diag.h` (4.14).
const MD5SIG: u16 = 18;
/// Bytes of one `struct tcp_diag_md5sig`, and of what stands in it before the key: family, prefix, length, address.
const ENTRY_LEN: usize = 100;
const BEFORE_KEY_LEN: usize = 20;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` share the word with the number.
const NUMBER_MASK: u16 = 0x3fff;
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Types of control messages, which have no rows.
const LEAST_ROW_KIND: u16 = 16;

/// Blanks every key in a datagram of the socket monitor; how many there were. What cannot be walked is blanked whole: it
/// may hide one.
pub(super) fn blank_keys(datagram: &mut [u8]) -> u64 {
    let mut keys = 0;
    let mut rest = datagram;
    while rest.len() >= HEADER_LEN {
        let (len, kind) = (word(rest, 0) as usize, half(rest, 4));
        if len < HEADER_LEN || len > rest.len() {
            break;
        }
        let (message, after) = rest.split_at_mut(len.next_multiple_of(4).min(rest.len()));
        if kind >= LEAST_ROW_KIND {
            let attributes = message.get_mut(HEADER_LEN + ROW_LEN..).unwrap_or_default();
            keys += blank_in_row(attributes);
        }
        rest = after;
    }
    rest.fill(0);
    keys
}

/// When the lengths do not add up nothing of the row is certain: an attribute that was passed over may be two.
fn blank_in_row(attributes: &mut [u8]) -> u64 {
    let mut keys = 0;
    let mut at = 0;
    while let Some(rest) = attributes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        let (len, number) = (usize::from(half(rest, 0)), half(rest, 2) & NUMBER_MASK);
        let Some(payload) = rest.get_mut(ATTRIBUTE_HEADER_LEN..len) else {
            attributes.fill(0);
            return keys;
        };
        if number == MD5SIG {
            keys += blank_entries(payload);
        }
        at += len.next_multiple_of(4);
    }
    keys
}

fn blank_entries(entries: &mut [u8]) -> u64 {
    if !entries.len().is_multiple_of(ENTRY_LEN) {
        // Not as we know it: who knows where the keys are.
        entries.fill(0);
        return 1;
    }
    let mut keys = 0;
    for entry in entries.chunks_mut(ENTRY_LEN) {
        entry.get_mut(BEFORE_KEY_LEN..).unwrap_or_default().fill(0);
        keys += 1;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"the-secret-of-two-routers";

    fn attribute(number: u16, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + payload.len()).unwrap();
        let mut bytes = [&len.to_ne_bytes()[..], &number.to_ne_bytes(), payload].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(16 + payload.len()).unwrap();
        [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[2, 0], &[7; 8], payload].concat()
    }

    fn entry(filler: u8) -> Vec<u8> {
        let mut entry = vec![filler; ENTRY_LEN];
        entry[BEFORE_KEY_LEN..BEFORE_KEY_LEN + KEY.len()].copy_from_slice(KEY);
        entry
    }

    /// A row with two keys between other attributes.
    fn row() -> Vec<u8> {
        let parts = [
            vec![9; ROW_LEN],
            attribute(4, b"cubic\0"),
            attribute(MD5SIG, &[entry(5), entry(6)].concat()),
            attribute(8, &[3]),
        ];
        message(20, &parts.concat())
    }

    fn has_key(bytes: &[u8]) -> bool {
        bytes.windows(KEY.len()).any(|window| window == KEY)
    }

    #[test]
    fn keys_are_blanked_and_everything_else_stays() {
        let mut datagram = [row(), row(), message(3, &[0; 4])].concat();
        let whole = datagram.clone();
        assert_eq!(blank_keys(&mut datagram), 4);
        assert!(has_key(&whole) && !has_key(&datagram));
        let differ: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != datagram[*at]).collect();
        // 80 bytes of each key; those of `KEY` and the filler differ from 0.
        assert_eq!(differ.len(), 4 * (ENTRY_LEN - BEFORE_KEY_LEN));
    }

    #[test]
    fn a_datagram_cut_anywhere_leaks_no_key() {
        let whole = [row(), row()].concat();
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            blank_keys(&mut cut);
            assert!(!has_key(&cut), "cut at {len}");
        }
    }

    #[test]
    fn a_flipped_length_leaks_no_key() {
        let whole = row();
        let attributes = 16 + ROW_LEN;
        for at in (0..4).chain(attributes..attributes + 2).chain(attributes + 12..attributes + 14) {
            for flip in [0x01, 0x04, 0x10, 0x80] {
                let mut damaged = whole.clone();
                damaged[at] ^= flip;
                blank_keys(&mut damaged);
                assert!(!has_key(&damaged), "byte {at} flipped by {flip:#x}");
            }
        }
    }
}
