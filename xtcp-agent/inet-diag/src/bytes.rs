//! Reading integers out of bytes that may be too short.
//!
//! The only place that knows about byte order: netlink is a conversation within one machine, so everything
//! is native except what goes on the wire unchanged (ports and addresses).

/// The `N` bytes at `offset`, or `None` when the slice ends before them.
#[inline]
pub(crate) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk::<N>().copied()
}

/// An integer in the kernel's byte order.
pub(crate) trait Native: Sized {
    /// Reads one at `offset`; `None` when the slice ends before its last byte.
    fn at(bytes: &[u8], offset: usize) -> Option<Self>;
}

macro_rules! native {
    ($($integer:ty),*) => {
        $(impl Native for $integer {
            #[inline]
            fn at(bytes: &[u8], offset: usize) -> Option<Self> {
                array_at(bytes, offset).map(<$integer>::from_ne_bytes)
            }
        })*
    };
}
native!(u8, u16, u32, u64, i32);

/// A port at `offset`, from network to host order.
#[inline]
pub(crate) fn port_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_be_bytes)
}

/// A bit field of `width` bits, `first` bits into a byte, as a C compiler lays it out on this machine: from
/// the least significant bit on little-endian machines, from the most significant on big-endian ones.
pub(crate) const fn bit_field(byte: u8, first: u8, width: u8) -> u8 {
    let shift =
        if cfg!(target_endian = "big") { 8_u8.saturating_sub(first).saturating_sub(width) } else { first };
    let mask = match 1_u8.checked_shl(width as u32) {
        Some(above) => above.wrapping_sub(1),
        None => u8::MAX,
    };
    match byte.checked_shr(shift as u32) {
        Some(shifted) => shifted & mask,
        None => 0,
    }
}

/// A length rounded up to netlink's alignment of 4 (`NLMSG_ALIGN`, `RTA_ALIGN`).
pub(crate) const fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// The bytes before the first NUL.
#[inline]
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The bytes before the first NUL, as text. `None` when there are none or they are not UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    core::str::from_utf8(until_nul(bytes)).ok().filter(|text| !text.is_empty())
}

/// Whether [`text`] gives something.
#[inline]
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    let text = until_nul(bytes);
    !text.is_empty() && (text.is_ascii() || core::str::from_utf8(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_that_ends_past_the_slice_is_none() {
        assert_eq!(u32::at(&[1, 2, 3], 0), None);
        assert_eq!(u32::at(&[1, 2, 3, 4], 1), None);
        assert_eq!(u8::at(&[], usize::MAX), None);
        assert_eq!(u16::at(&0x0102_u16.to_ne_bytes(), 0), Some(0x0102));
    }

    #[test]
    fn a_port_is_big_endian() {
        assert_eq!(port_at(&[0x22, 0xb9], 0), Some(8889));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn bit_fields_count_from_the_least_significant_bit() {
        assert_eq!(bit_field(0xa7, 0, 4), 7);
        assert_eq!(bit_field(0xa7, 4, 4), 0xa);
        assert_eq!(bit_field(0b110, 1, 2), 3);
        assert_eq!(bit_field(0xff, 0, 8), 0xff);
    }

    #[test]
    fn alignment_never_overflows() {
        assert_eq!(align(0), 0);
        assert_eq!(align(17), 20);
        assert_eq!(align(usize::MAX), usize::MAX & !3);
    }
}
