//! Finds struct fields in the kernel's BTF (`Documentation/bpf/btf.rst`): as much of the format as that takes. Never
//! panics, whatever the bytes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use thiserror::Error;

/// Where the kernel keeps its own types.
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Typedefs and qualifiers in a row; the kernel itself allows no more (`MAX_RESOLVE_DEPTH`).
const MAX_DEPTH: u32 = 32;

/// `BTF_KIND_*`, those that matter here.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why the kernel's types cannot be used.
#[derive(Debug, Error)]
pub(super) enum BtfError {
    /// The file cannot be read; on a kernel without `CONFIG_DEBUG_INFO_BTF` there is none.
    #[error("{VMLINUX}: {0}")]
    Read(#[from] io::Error),
    /// The content is no BTF of this machine's byte order.
    #[error("{VMLINUX}: no BTF of this machine's byte order")]
    Magic,
    /// A type or its strings lie outside the file, or have a kind that did not exist when this was written.
    #[error("{VMLINUX}: malformed at byte {0}")]
    Malformed(usize),
}

/// The kernel's types.
#[derive(Debug)]
pub(super) struct Btf {
    data: Vec<u8>,
    /// Where each type's record starts in `data`; the type with id 1 comes first.
    types: Vec<usize>,
    strings: usize,
    /// Id of each named struct; the first where several have one name.
    structs: HashMap<Box<[u8]>, u32>,
}

/// One record: a `struct btf_type` and where what follows it starts.
#[derive(Clone, Copy)]
struct Record {
    name: u32,
    info: u32,
    /// Size in bytes, or the id of another type.
    size_or_type: u32,
    extra: usize,
}

impl Record {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }
}

/// A field of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Bytes from the start of the outermost struct.
    pub(super) offset: u32,
    /// Size in bytes.
    pub(super) size: u32,
}

/// A member on the way to a field: its place in bits, its type, and its width in bits if it is a bitfield.
struct Member {
    bits: u32,
    of_type: u32,
    bitfield: u32,
}

impl Btf {
    pub(super) fn of_kernel() -> Result<Self, BtfError> {
        Self::parse(fs::read(Path::new(VMLINUX))?)
    }

    pub(super) fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        if data.first_chunk::<2>().map(|magic| u16::from_ne_bytes(*magic)) != Some(MAGIC) {
            return Err(BtfError::Magic);
        }
        let header = |at: usize| word(&data, at).map(|word| word as usize).ok_or(BtfError::Malformed(at));
        let (length, types_at, types_len, strings_at) = (header(4)?, header(8)?, header(12)?, header(16)?);
        let (start, strings) = (length.saturating_add(types_at), length.saturating_add(strings_at));
        let end = start.saturating_add(types_len);
        let mut types = Vec::new();
        let mut at = start;
        while at < end {
            let record = record(&data, at).ok_or(BtfError::Malformed(at))?;
            let extra = extra_len(record).ok_or(BtfError::Malformed(at))?;
            types.push(at);
            at = record.extra.saturating_add(extra);
        }
        if end > data.len() || at != end {
            return Err(BtfError::Malformed(at));
        }
        let mut btf = Self { data, types, strings, structs: HashMap::new() };
        let structs = (1u32..).zip(&btf.types).filter_map(|(id, at)| {
            let record = record(&btf.data, *at).filter(|record| record.kind() == kind::STRUCT)?;
            Some((Box::from(btf.string(record.name)), id))
        });
        // The first of a name is to win, so it goes in last.
        let structs: Vec<_> = structs.collect();
        btf.structs = structs.into_iter().rev().collect();
        Ok(btf)
    }

    /// The field at the dotted `path` in struct `of`; anonymous structs and unions are looked through, of an array the
    /// first element is taken when the path goes on. `None` when there is none, or when it is a bitfield.
    pub(super) fn field(&self, of: &str, path: &str) -> Option<Field> {
        let mut id = *self.structs.get(of.as_bytes())?;
        let mut bits = 0u32;
        for name in path.split('.') {
            while let Some(array) = self.resolve(id).filter(|record| record.kind() == kind::ARRAY) {
                id = word(&self.data, array.extra)?;
            }
            let member = self.member(id, name, 0)?;
            if member.bitfield != 0 {
                return None;
            }
            bits = bits.checked_add(member.bits)?;
            id = member.of_type;
        }
        bits.is_multiple_of(8).then_some(Field { offset: bits / 8, size: self.size(id)? })
    }

    /// Whether enum `of` has a value of that name.
    pub(super) fn has_enumerator(&self, of: &str, name: &str) -> bool {
        let named =
            |record: &Record| record.kind() == kind::ENUM && self.string(record.name) == of.as_bytes();
        let Some(record) = self.types.iter().filter_map(|at| record(&self.data, *at)).find(named) else {
            return false;
        };
        (0..record.count())
            .filter_map(|index| word(&self.data, record.extra + index * 8))
            .any(|at| self.string(at) == name.as_bytes())
    }

    fn record(&self, id: u32) -> Option<Record> {
        let index = (id as usize).checked_sub(1)?;
        record(&self.data, *self.types.get(index)?)
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, id: u32) -> Option<Record> {
        let mut record = self.record(id)?;
        for _ in 0..MAX_DEPTH {
            match record.kind() {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    record = self.record(record.size_or_type)?;
                }
                _ => return Some(record),
            }
        }
        None
    }

    fn member(&self, id: u32, name: &str, depth: u32) -> Option<Member> {
        let record = self.resolve(id)?;
        if !matches!(record.kind(), kind::STRUCT | kind::UNION) || depth > MAX_DEPTH {
            return None;
        }
        for index in 0..record.count() {
            let at = record.extra + index * 12;
            let (named, of_type, place) =
                (word(&self.data, at)?, word(&self.data, at + 4)?, word(&self.data, at + 8)?);
            // With the flag, the upper 8 bits are the width of a bitfield, 0 for a plain member.
            let (bits, bitfield) =
                if record.info >> 31 == 1 { (place & 0x00ff_ffff, place >> 24) } else { (place, 0) };
            match self.string(named) {
                b"" => {
                    if let Some(inner) = self.member(of_type, name, depth + 1) {
                        return Some(Member { bits: bits.checked_add(inner.bits)?, ..inner });
                    }
                }
                found if found == name.as_bytes() => return Some(Member { bits, of_type, bitfield }),
                _ => {}
            }
        }
        None
    }

    /// Size in bytes; `None` of a type without one, such as a function.
    fn size(&self, id: u32) -> Option<u32> {
        let record = self.resolve(id)?;
        match record.kind() {
            kind::PTR => u32::try_from(size_of::<usize>()).ok(),
            kind::ARRAY => {
                let (element, count) = (word(&self.data, record.extra)?, word(&self.data, record.extra + 8)?);
                // An array of arrays nests as deep as its type says: the ids of a file cannot go round for ever,
                // because each array adds a level to the C type, but a hostile file's can.
                let inner = self.resolve(element)?;
                if inner.kind() == kind::ARRAY {
                    return None;
                }
                self.size(element)?.checked_mul(count)
            }
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                Some(record.size_or_type)
            }
            _ => None,
        }
    }

    fn string(&self, at: u32) -> &[u8] {
        let from = self.data.get(self.strings.saturating_add(at as usize)..).unwrap_or(&[]);
        from.split(|byte| *byte == 0).next().unwrap_or(&[])
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn record(data: &[u8], at: usize) -> Option<Record> {
    let (name, info, size_or_type) = (word(data, at)?, word(data, at + 4)?, word(data, at + 8)?);
    Some(Record { name, info, size_or_type, extra: at + 12 })
}

/// How many bytes follow the record; `None` of a kind that is not known, whose length nobody can tell.
fn extra_len(record: Record) -> Option<usize> {
    let count = record.count();
    Some(match record.kind() {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
        kind::ENUM | kind::FUNC_PROTO => 8 * count,
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO_FLAG: u32 = 1 << 31;

    /// Writes BTF: strings and types in the order in which they are added.
    #[derive(Default)]
    struct Writer {
        types: Vec<u8>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Writer {
        fn add(&mut self, name: &str, info: u32, size_or_type: u32, extra: &[u32]) -> u32 {
            for word in [self.name(name), info, size_or_type].iter().chain(extra) {
                self.types.extend(word.to_ne_bytes());
            }
            self.count += 1;
            self.count
        }

        fn name(&mut self, name: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            if name.is_empty() {
                return 0;
            }
            let at = u32::try_from(self.strings.len()).expect("short");
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
            at
        }

        fn structure(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
            let extra: Vec<u32> =
                members.iter().flat_map(|(name, of, place)| [self.name(name), *of, *place]).collect();
            let info = kind << 24 | u32::try_from(members.len()).expect("few") | INFO_FLAG;
            self.add(name, info, size, &extra)
        }

        fn bytes(&self) -> Vec<u8> {
            let types = u32::try_from(self.types.len()).expect("short");
            let strings = u32::try_from(self.strings.len()).expect("short");
            let mut bytes = MAGIC.to_ne_bytes().to_vec();
            bytes.extend([1, 0]);
            for word in [24, 0, types, types, strings] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(&self.types);
            bytes.extend(&self.strings);
            bytes
        }
    }

    /// `struct outer { u32 a; union { struct { u16 b; u16 c; }; u32 d; }; u32 e : 4; struct pair f[3]; struct outer *g; }`
    fn sample() -> Vec<u8> {
        let mut writer = Writer::default();
        let u32_id = writer.add("u32", kind::INT << 24, 4, &[32]);
        let u16_id = writer.add("u16", kind::INT << 24, 2, &[16]);
        let const_id = writer.add("", kind::CONST << 24, u16_id, &[]);
        let inner = writer.structure(kind::STRUCT, "", 4, &[("b", u16_id, 0), ("c", const_id, 16)]);
        let either = writer.structure(kind::UNION, "", 4, &[("", inner, 0), ("d", u32_id, 0)]);
        let pair = writer.structure(kind::STRUCT, "pair", 8, &[("t", u32_id, 0), ("v", u32_id, 32)]);
        let array = writer.add("", kind::ARRAY << 24, 0, &[pair, u32_id, 3]);
        let pointer = writer.add("", kind::PTR << 24, 10, &[]);
        let values = [writer.name("ONE"), 1, writer.name("TWO"), 2];
        writer.add("numbers", kind::ENUM << 24 | 2, 4, &values);
        let members = [
            ("a", u32_id, 0),
            ("", either, 32),
            ("e", u32_id, 4 << 24 | 64),
            ("f", array, 96),
            ("g", pointer, 320),
        ];
        assert_eq!(writer.structure(kind::STRUCT, "outer", 48, &members), 10);
        writer.bytes()
    }

    #[test]
    fn fields_are_found_through_anonymous_members_arrays_and_qualifiers() {
        let btf = Btf::parse(sample()).expect("well-formed");
        for (path, offset, size) in
            [("a", 0, 4), ("b", 4, 2), ("c", 6, 2), ("d", 4, 4), ("f", 12, 24), ("f.v", 16, 4)]
        {
            assert_eq!(btf.field("outer", path), Some(Field { offset, size }), "{path}");
        }
        assert_eq!(btf.field("outer", "g").map(|field| field.offset), Some(40));
    }

    #[test]
    fn what_is_not_there_or_is_a_bitfield_is_none() {
        let btf = Btf::parse(sample()).expect("well-formed");
        for (of, path) in [("outer", "e"), ("outer", "z"), ("outer", "a.z"), ("outer", ""), ("nothing", "a")]
        {
            assert_eq!(btf.field(of, path), None, "{of}.{path}");
        }
    }

    #[test]
    fn enumerators_are_found_by_name() {
        let btf = Btf::parse(sample()).expect("well-formed");
        assert!(btf.has_enumerator("numbers", "TWO"));
        assert!(!btf.has_enumerator("numbers", "THREE") && !btf.has_enumerator("letters", "TWO"));
    }

    #[test]
    fn damaged_btf_never_panics() {
        let whole = sample();
        for length in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..length].to_vec()) {
                btf.field("outer", "f.v");
            }
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                if let Ok(btf) = Btf::parse(damaged) {
                    btf.field("outer", "f.v");
                    btf.has_enumerator("numbers", "TWO");
                }
            }
        }
    }
}
