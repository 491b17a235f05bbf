//! Protobuf fields as bytes: a key and its number leave as one word.
//!
//! A word is always written whole, and the place moves on by the bytes of it that count; the next field overwrites the
//! rest. Numbers are written into an array, where whether a place is within needs one comparison with a constant.
#![allow(clippy::inline_always, reason = "the keys and the room are constants that have to reach the shifts")]

use crate::attr::endpoint::Endpoint;

/// Room for all numbers of a row: each field's key and number, at their longest, and what is written beyond.
pub(super) const NUMBERS_ROOM: usize = 2048;

/// How this processor encodes a number.
pub(super) trait Bits: Copy {
    /// A key and a number below 2^35 as one word, and how many bytes of it count.
    fn join(self, key: Key, value: u64) -> (u64, usize);
}

impl<F: Fn(Key, u64) -> (u64, usize) + Copy> Bits for F {
    #[inline(always)]
    fn join(self, key: Key, value: u64) -> (u64, usize) {
        self(key, value)
    }
}

/// With what every processor has.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "35 bits are kept whole")]
pub(super) fn join(key: Key, value: u64) -> (u64, usize) {
    let Key { word, len } = key;
    // Which numbers are small is much the same in row after row.
    if value < 1 << 7 {
        return (word | value << (8 * len), len + 1);
    }
    // Where the compiler may not use an instruction for it, the highest bit is found faster as a float's exponent.
    let exponent = (value.cast_signed() as f64).to_bits() >> 52;
    key.join(apart(value) << (8 * len), 1086_usize.wrapping_sub(exponent as usize))
}

/// With `pdep` and `lzcnt`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi2,lzcnt")]
#[inline]
pub(super) fn join_bmi2(key: Key, value: u64) -> (u64, usize) {
    let groups = core::arch::x86_64::_pdep_u64(value, 0x7f_7f7f_7f7f << (8 * key.len));
    key.join(groups, value.leading_zeros() as usize)
}

/// Writes fields one behind the other.
pub(super) struct Writer<'a, B> {
    out: &'a mut [u8],
    at: usize,
    bits: B,
}

impl<'a, B: Bits> Writer<'a, B> {
    /// `out` has to have room for all runs and texts, and twice [`NUMBERS_ROOM`].
    pub(super) fn new(out: &'a mut [u8], bits: B) -> Self {
        Self { out, at: 0, bits }
    }

    /// Bytes written.
    pub(super) fn len(&self) -> usize {
        self.at
    }

    /// Fields that are encoded already.
    pub(super) fn run(&mut self, encoded: &[u8]) {
        if encoded.is_empty() {
            return;
        }
        let place = self.out.get_mut(self.at..).and_then(|rest| rest.get_mut(..encoded.len()));
        debug_assert!(place.is_some(), "more runs and texts than there is room for");
        let Some(place) = place else { return };
        place.copy_from_slice(encoded);
        self.at += encoded.len();
    }

    /// `string = NUMBER` or `bytes = NUMBER`, left out when empty.
    pub(super) fn bytes<const NUMBER: u32>(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.beginning::<NUMBER>(bytes.len());
            self.run(bytes);
        }
    }

    /// `bytes = NUMBER` that are addresses one behind the other, left out when there is none.
    pub(super) fn endpoints<const NUMBER: u32>(&mut self, endpoints: impl Iterator<Item = Endpoint> + Clone) {
        let count = endpoints.clone().count();
        if count != 0 {
            self.beginning::<NUMBER>(count * Endpoint::ENCODED_LEN);
            for endpoint in endpoints {
                self.run(&endpoint.encode());
            }
        }
    }

    /// What is before so many bytes.
    fn beginning<const NUMBER: u32>(&mut self, bytes: usize) {
        let Key { word, len } = const { Key::bytes(NUMBER) };
        if let Some(mut numbers) = self.numbers() {
            if bytes < 128 {
                numbers.put(word | (bytes as u64) << (8 * len), len + 1);
            } else {
                numbers.put(word, len);
                numbers.varint(bytes as u64);
            }
        }
    }

    /// `uint32 = NUMBER`, left out when 0. For fields that few rows have; others' are [`numbers`](Self::numbers).
    pub(super) fn uint32<const NUMBER: u32>(&mut self, value: u32) {
        if let Some(mut numbers) = self.numbers() {
            numbers.uint32::<NUMBER>(value);
        }
    }

    /// `uint64 = NUMBER`, likewise.
    pub(super) fn uint64<const NUMBER: u32>(&mut self, value: u64) {
        if let Some(mut numbers) = self.numbers() {
            numbers.uint64::<NUMBER>(value);
        }
    }

    /// Fields that are numbers; nothing when there is no room, which does not happen.
    #[inline(always)]
    pub(super) fn numbers(&mut self) -> Option<Numbers<'_, B>> {
        let room = self.out.get_mut(self.at..).and_then(|rest| rest.first_chunk_mut());
        debug_assert!(room.is_some(), "more numbers than there is room for");
        Some(Numbers { room: room?, at: 0, end: &mut self.at, bits: self.bits })
    }
}

/// Writes numbers one behind the other; they count when it is dropped.
pub(super) struct Numbers<'a, B> {
    room: &'a mut [u8; NUMBERS_ROOM],
    at: usize,
    end: &'a mut usize,
    bits: B,
}

impl<B> Drop for Numbers<'_, B> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.end += self.at;
    }
}

impl<B: Bits> Numbers<'_, B> {
    /// `uint32 = NUMBER`, left out when 0.
    #[inline(always)]
    pub(super) fn uint32<const NUMBER: u32>(&mut self, value: u32) {
        if value != 0 {
            self.short::<NUMBER>(value.into());
        }
    }

    /// `uint64 = NUMBER`, left out when 0.
    #[inline(always)]
    pub(super) fn uint64<const NUMBER: u32>(&mut self, value: u64) {
        if value == 0 {
            return;
        }
        let Key { word, len } = const { Key::number(NUMBER) };
        if value < 1 << 35 {
            self.short::<NUMBER>(value);
        } else if value == u64::MAX {
            // What the kernel says for a rate without a limit.
            self.put(word | u64::MAX << (8 * len), 8);
            self.put(0x01ff_ffff_ffff >> (8 * (4 - len)), len + 2);
        } else {
            self.put(word, len);
            self.varint(value);
        }
    }

    /// `optional uint32 = NUMBER`, or `optional bool`: present when known, 0 too.
    #[inline(always)]
    pub(super) fn optional<const NUMBER: u32>(&mut self, value: Option<u32>) {
        if let Some(value) = value {
            self.short::<NUMBER>(value.into());
        }
    }

    /// `bytes = NUMBER` of sixteen.
    #[inline(always)]
    pub(super) fn sixteen<const NUMBER: u32>(&mut self, bytes: [u8; 16]) {
        let Key { word, len } = const { Key::bytes(NUMBER) };
        self.put(word | 16 << (8 * len), len + 1);
        for half in bytes.as_chunks().0 {
            self.put(u64::from_le_bytes(*half), 8);
        }
    }

    /// `string = NUMBER` of so few bytes that all of it is a word.
    #[inline(always)]
    pub(super) fn text<const NUMBER: u32, const LEN: usize>(&mut self, text: [u8; LEN]) {
        const { assert!(Key::bytes(NUMBER).len + 1 + LEN <= 8, "it all fits a word") };
        let Key { word, len } = const { Key::bytes(NUMBER) };
        let text = text.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        self.put(word | (LEN as u64 | text << 8) << (8 * len), len + 1 + LEN);
    }

    /// A number below 2^35.
    #[inline(always)]
    fn short<const NUMBER: u32>(&mut self, value: u64) {
        let (word, len) = self.bits.join(const { Key::number(NUMBER) }, value);
        self.put(word, len);
    }

    /// A number alone.
    #[inline(always)]
    fn varint(&mut self, value: u64) {
        let (first, rest) = long(value);
        let count = (rest >> COUNT) as usize;
        self.put(first, count.min(8));
        self.put(rest, count.saturating_sub(8));
    }

    /// A word of which the first `len` bytes count.
    #[inline(always)]
    fn put(&mut self, word: u64, len: usize) {
        self.at = put(self.room, self.at, word, len);
    }
}

/// Writes a word at `at`, of which the first `len` bytes count; where the next one goes.
#[inline(always)]
fn put(room: &mut [u8; NUMBERS_ROOM], at: usize, word: u64, len: usize) -> usize {
    debug_assert!(at <= NUMBERS_ROOM - 8, "more numbers than there is room for");
    // With this the compiler knows that there is a place.
    if at > NUMBERS_ROOM - 8 {
        return at;
    }
    let Some(place) = room.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) else { return at };
    *place = word.to_le_bytes();
    at + len
}

/// Any number, without a key: its first eight bytes, and the others with how many there are at [`COUNT`]. A call of its own:
/// few numbers are long.
#[inline(never)]
fn long(value: u64) -> (u64, u64) {
    const LOW: u64 = (1 << 28) - 1;
    const MORE: u64 = 0x8080_8080_8080_8080;
    let count = bytes_of(value.checked_ilog2().unwrap_or(0));
    let first = apart(value & LOW) | apart(value >> 28 & LOW) << 32;
    let rest = apart(value >> 56) | (count as u64) << COUNT;
    match count {
        ..=8 => (first | MORE & ((1 << (8 * (count - 1))) - 1), rest),
        9 => (first | MORE, rest),
        _ => (first | MORE, rest | 0x80),
    }
}

/// A field's number and wire type as they are encoded.
#[derive(Clone, Copy)]
pub(super) struct Key {
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
        let key = (number << 3 | wire_type) as u64;
        let len = bytes_of(key.ilog2());
        assert!(len == 2 || len == 3, "a key and a number of 35 bits fit a word");
        Self { word: apart(key) | continued(len), len }
    }

    /// The word and how many bytes of it count, for a number's groups of seven bits behind the key's place and the zeros
    /// before its highest bit in a word of 64.
    #[inline(always)]
    fn join(self, groups: u64, zeros: usize) -> (u64, usize) {
        let Self { word, len } = self;
        let entry = LENGTHS.get(len).and_then(|of_key| of_key.get(zeros % 64)).copied().unwrap_or_default();
        // Behind a key of three bytes, the last byte of a number is where the count is.
        let more = if len == 3 { entry & ((1 << COUNT) - 1) } else { entry };
        (word | groups | more, (entry >> COUNT) as usize)
    }
}

/// Bytes of a varint whose highest bit is this.
const fn bytes_of(highest: u32) -> usize {
    highest as usize / 7 + 1
}

/// The bits of a varint that say that a byte follows.
const fn continued(bytes: usize) -> u64 {
    0x80_8080_8080 & ((1 << (8 * (bytes - 1))) - 1)
}

/// The groups of seven bits of a number below 2^35, a byte each.
#[inline(always)]
const fn apart(value: u64) -> u64 {
    // Adding a part of a number to the number moves that part on by a bit.
    let value = value + (value & !0x7f);
    let value = value + (value & !0x7fff);
    let value = value + (value & !0x7f_ffff);
    value + (value & !0x7fff_ffff)
}

/// Where the byte count is in an entry of [`LENGTHS`]: above all that a key and a number's continuation bits take.
const COUNT: u32 = 60;

/// For a key of 0 to 3 bytes and the zeros before a number's highest bit: how many bytes both have, and [`continued`]
/// behind the key.
#[expect(clippy::indexing_slicing, reason = "made when this is compiled")]
const LENGTHS: [[u64; 64]; 4] = {
    let mut lengths = [[0; 64]; 4];
    let mut key = 0;
    while key < lengths.len() {
        // The number 0 has 64 zeros, which is 0 again.
        lengths[key][0] = ((key + 1) as u64) << COUNT;
        let mut bit = 0;
        while bit < 35 {
            let bytes = bytes_of(bit);
            lengths[key][63 - bit as usize] = ((key + bytes) as u64) << COUNT | continued(bytes) << (8 * key);
            bit += 1;
        }
        key += 1;
    }
    lengths
};
