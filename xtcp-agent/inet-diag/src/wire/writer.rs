//! Protobuf fields as bytes: a key and its number leave as one word.
//!
//! A word is always written whole, and the place moves on by the bytes of it that count; the next field overwrites the
//! rest. What is 0 moves it by nothing.
#![allow(clippy::inline_always, reason = "the keys are constants that have to reach the shifts")]

use super::NUMBERS_ROOM;
use crate::attr::endpoint::Endpoint;

/// Writes fields one behind the other.
pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    /// Bytes written.
    pub(super) fn len(&self) -> usize {
        self.at
    }

    /// Fields that are encoded already.
    pub(super) fn run(&mut self, encoded: &[u8]) {
        self.at = put_bytes(self.out, self.at, encoded);
    }

    /// `uint32 = NUMBER`, left out when 0.
    #[inline(always)]
    pub(super) fn uint32<const NUMBER: u32>(&mut self, value: u32) {
        if value != 0 {
            self.short::<NUMBER>(u64::from(value));
        }
    }

    /// `uint64 = NUMBER`, left out when 0.
    #[inline(always)]
    pub(super) fn uint64<const NUMBER: u32>(&mut self, value: u64) {
        if value == 0 {
            return;
        }
        if value < 1 << 35 {
            self.short::<NUMBER>(value);
        } else {
            self.at = put_long(self.out, self.at, const { Key::number(NUMBER) }, value);
        }
    }

    /// `optional uint32 = NUMBER`, or `optional bool`: present when known, 0 too.
    #[inline(always)]
    pub(super) fn optional<const NUMBER: u32>(&mut self, value: Option<u32>) {
        match value {
            Some(0) => {
                let Key { word, len } = const { Key::number(NUMBER) };
                self.at = put_word(self.out, self.at, word, len + 1);
            }
            Some(value) => self.short::<NUMBER>(u64::from(value)),
            None => {}
        }
    }

    /// `string = NUMBER` or `bytes = NUMBER`, left out when empty.
    #[inline(always)]
    pub(super) fn bytes<const NUMBER: u32>(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let Key { word, len } = const { Key::bytes(NUMBER) };
            let at = put_word(self.out, self.at, word, len);
            let at = put_varint(self.out, at, bytes.len() as u64);
            self.at = put_bytes(self.out, at, bytes);
        }
    }

    /// `bytes = NUMBER` that are addresses one behind the other, left out when there is none.
    pub(super) fn endpoints<const NUMBER: u32>(&mut self, endpoints: impl Iterator<Item = Endpoint> + Clone) {
        let count = endpoints.clone().count();
        if count != 0 {
            let Key { word, len } = const { Key::bytes(NUMBER) };
            let at = put_word(self.out, self.at, word, len);
            self.at = put_varint(self.out, at, (count * Endpoint::ENCODED_LEN) as u64);
            for endpoint in endpoints {
                self.at = put_bytes(self.out, self.at, &endpoint.encode());
            }
        }
    }

    /// `bytes = NUMBER` of sixteen.
    #[inline(always)]
    pub(super) fn sixteen<const NUMBER: u32>(&mut self, bytes: &[u8; 16]) {
        let Key { word, len } = const { Key::bytes(NUMBER) };
        let at = put_word(self.out, self.at, word | 16 << (8 * len), len + 1);
        self.at = put_bytes(self.out, at, bytes);
    }

    /// A number below 2^35 that is not 0.
    #[inline(always)]
    fn short<const NUMBER: u32>(&mut self, value: u64) {
        let Key { word, len } = const { Key::number(NUMBER) };
        let (bytes, count) = if value < 1 << 7 { (value, 1) } else { spread(value) };
        self.at = put_word(self.out, self.at, word | bytes << (8 * len), len + count);
    }
}

/// A field's number and wire type as they are encoded.
#[derive(Clone, Copy)]
struct Key {
    word: u64,
    len: usize,
}

impl Key {
    const fn number(number: u32) -> Self {
        Self::new(number, 0)
    }

    const fn bytes(number: u32) -> Self {
        Self::new(number, 2)
    }

    const fn new(number: u32, wire_type: u32) -> Self {
        let (word, len) = spread((number << 3 | wire_type) as u64);
        assert!(len <= 3, "a key and a number of 35 bits fit a word");
        Self { word, len }
    }
}

/// A number below 2^56 as a varint, its first byte the lowest, and how many bytes it has.
#[inline(always)]
const fn spread(value: u64) -> (u64, usize) {
    let len = (70 - (value | 1).leading_zeros() as usize) / 7;
    // Moves the groups of seven bits apart by halves.
    let value = (value & 0x0000_0000_0fff_ffff) | ((value & 0x00ff_ffff_f000_0000) << 4);
    let value = (value & 0x0000_3fff_0000_3fff) | ((value & 0x0fff_c000_0fff_c000) << 2);
    let value = (value & 0x007f_007f_007f_007f) | ((value & 0x3f80_3f80_3f80_3f80) << 1);
    let more = 0x0080_8080_8080_8080 & ((1 << (8 * (len - 1))) - 1);
    (value | more, len)
}

/// Writes a word at `at`, of which the first `len` bytes count; where the next one goes.
#[inline(always)]
fn put_word(out: &mut [u8], at: usize, word: u64, len: usize) -> usize {
    let place = out.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
    debug_assert!(place.is_some(), "{NUMBERS_ROOM} bytes are not enough");
    let Some(place) = place else { return at };
    *place = word.to_le_bytes();
    at + len
}

/// A field of more than 35 bits.
fn put_long(out: &mut [u8], at: usize, key: Key, value: u64) -> usize {
    let at = put_word(out, at, key.word, key.len);
    put_varint(out, at, value)
}

/// A number alone.
fn put_varint(out: &mut [u8], at: usize, value: u64) -> usize {
    const LOW: u64 = (1 << 28) - 1;
    if value <= LOW {
        let (word, len) = spread(value);
        return put_word(out, at, word, len);
    }
    // Four full groups, and then those that are left: at most six.
    let at = put_word(out, at, spread(value & LOW).0 | 0x8080_8080, 4);
    let (high, len) = spread(value >> 28);
    put_word(out, at, high, len)
}

fn put_bytes(out: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let place = out.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len()));
    debug_assert!(place.is_some(), "{NUMBERS_ROOM} bytes and the texts' are not enough");
    let Some(place) = place else { return at };
    place.copy_from_slice(bytes);
    at + bytes.len()
}
