//! Protobuf fields as bytes: a key and its number leave as one word.
//!
//! A word is always written whole, and the place moves on by the bytes of it that count; the next field overwrites the
//! rest. Numbers are written into an array, where whether a place is within needs one comparison with a constant.
#![allow(clippy::inline_always, reason = "the keys and the room are constants that have to reach the shifts")]

use crate::attr::endpoint::Endpoint;

/// Room for all numbers of a row: each field's key and number, at their longest, and what is written beyond.
pub(super) const NUMBERS_ROOM: usize = 2048;

/// Writes fields one behind the other.
pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// `out` has to have room for all runs and texts, and twice [`NUMBERS_ROOM`].
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    /// Bytes written.
    pub(super) fn len(&self) -> usize {
        self.at
    }

    /// Fields that are encoded already.
    pub(super) fn run(&mut self, encoded: &[u8]) {
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
        self.numbers(|numbers| {
            numbers.put(word, len);
            numbers.varint(bytes as u64);
        });
    }

    /// `uint32 = NUMBER`, left out when 0. For fields that few rows have; others' are [`numbers`](Self::numbers).
    pub(super) fn uint32<const NUMBER: u32>(&mut self, value: u32) {
        self.numbers(|numbers| numbers.uint32::<NUMBER>(value));
    }

    /// `uint64 = NUMBER`, likewise.
    pub(super) fn uint64<const NUMBER: u32>(&mut self, value: u64) {
        self.numbers(|numbers| numbers.uint64::<NUMBER>(value));
    }

    /// Fields that are numbers.
    #[inline(always)]
    pub(super) fn numbers(&mut self, write: impl FnOnce(&mut Numbers<'_>)) {
        let room = self.out.get_mut(self.at..).and_then(|rest| rest.first_chunk_mut());
        debug_assert!(room.is_some(), "more numbers than there is room for");
        let Some(room) = room else { return };
        let mut numbers = Numbers { room, at: 0 };
        write(&mut numbers);
        self.at += numbers.at;
    }
}

/// Writes numbers one behind the other.
pub(super) struct Numbers<'a> {
    room: &'a mut [u8; NUMBERS_ROOM],
    at: usize,
}

impl Numbers<'_> {
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
        if value < 1 << 35 {
            self.short::<NUMBER>(value);
        } else {
            let Key { word, len } = const { Key::number(NUMBER) };
            self.put(word, len);
            self.at = long(self.room, self.at, value);
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

    /// A number below 2^35.
    #[inline(always)]
    fn short<const NUMBER: u32>(&mut self, value: u64) {
        let Key { word, len } = const { Key::number(NUMBER) };
        // Which numbers are small is much the same in row after row.
        if value < 1 << 7 {
            self.put(word | value << (8 * len), len + 1);
        } else {
            let (more, count) = if len == 2 { length::<2>(value) } else { length::<3>(value) };
            self.put(word | apart(value) << (8 * len) | more, count);
        }
    }

    /// A number alone.
    fn varint(&mut self, value: u64) {
        self.at = long(self.room, self.at, value);
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

/// Any number, without a key. A call of its own: few numbers are long.
#[inline(never)]
fn long(room: &mut [u8; NUMBERS_ROOM], at: usize, value: u64) -> usize {
    const LOW: u64 = (1 << 28) - 1;
    const MORE: u64 = 0x8080_8080;
    match value {
        // What the kernel says for a rate without a limit.
        u64::MAX => {
            let at = put(room, at, u64::MAX, 8);
            put(room, at, 0x01ff, 2)
        }
        _ if value < 1 << 35 => {
            let (more, len) = length::<0>(value);
            put(room, at, apart(value) | more, len)
        }
        _ if value >> 28 <= LOW => {
            let at = put(room, at, apart(value & LOW) | MORE, 4);
            let (more, len) = length::<0>(value >> 28);
            put(room, at, apart(value >> 28) | more, len)
        }
        _ => {
            let low = apart(value & LOW) | apart(value >> 28 & LOW) << 32;
            let at = put(room, at, low | MORE << 32 | MORE, 8);
            let (more, len) = length::<0>(value >> 56);
            put(room, at, apart(value >> 56) | more, len)
        }
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
        let key = (number << 3 | wire_type) as u64;
        let len = bytes_of(key.ilog2());
        assert!(len == 2 || len == 3, "a key and a number of 35 bits fit a word");
        Self { word: apart(key) | continued(len), len }
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
const COUNT: u32 = 56;

/// For a key of 0 to 3 bytes and a number's [`highest`] bit: how many bytes both have, and [`continued`] behind the key.
#[expect(clippy::indexing_slicing, reason = "made when this is compiled")]
const LENGTHS: [[u64; 64]; 4] = {
    let mut lengths = [[0; 64]; 4];
    let mut key = 0;
    while key < lengths.len() {
        // Place 0 is also that of the number 0.
        let mut bit = 0;
        while bit < 35 {
            let bytes = bytes_of(bit);
            let place = (bit as usize + 1023) % 64;
            lengths[key][place] = ((key + bytes) as u64) << COUNT | continued(bytes) << (8 * key);
            bit += 1;
        }
        key += 1;
    }
    lengths
};

/// Behind a key, the continuation bits of a number below 2^35, and how many bytes both have.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "35 bits are kept whole")]
fn length<const KEY: usize>(value: u64) -> (u64, usize) {
    // Where the compiler may not use an instruction for it, the highest bit is found faster as a float's exponent.
    let exponent = (value.cast_signed() as f64).to_bits() >> 52;
    let entry = LENGTHS.get(KEY).and_then(|of_key| of_key.get((exponent % 64) as usize));
    let entry = entry.copied().unwrap_or_default();
    // Behind a key of three bytes, the last byte of a number is where the count is.
    (if KEY == 3 { entry & ((1 << COUNT) - 1) } else { entry }, (entry >> COUNT) as usize)
}
