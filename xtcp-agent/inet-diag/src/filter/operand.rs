//! Values of tests: hosts, ports, marks.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::FilterError;
use super::expression::{Named, Test};
use super::word::Word;
use crate::bytecode::Side;
use crate::socket_id::{Family, fill};

const PORT: &str = "a port from 0 to 65535, a TCP service's name, or *";
const HOST: &str =
    "an address such as 10.0.0.1, 10.0.0.0/8, [2001:db8::1] or [2001:db8::/32], or *, and perhaps :PORT";

/// A port, its colon in front or not; `None` for any.
pub(super) fn port(word: Word<'_>) -> Result<Option<Named<'_, u16>>, FilterError<'_>> {
    let text = word.text.strip_prefix(':').unwrap_or(word.text);
    let offset = word.offset.saturating_add(word.text.len().saturating_sub(text.len()));
    match text {
        "*" => Ok(None),
        "" => Err(word.expected(PORT)),
        _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
            let number = number(text).and_then(|number| u16::try_from(number).ok());
            number.map(|number| Some(Named::Number(number))).ok_or_else(|| word.expected(PORT))
        }
        _ if text.chars().all(|c| c.is_ascii_alphanumeric() || "-_+./".contains(c))
            && !text.starts_with('-') =>
        {
            Ok(Some(Named::Name(Word { offset, text })))
        }
        _ => Err(word.expected(PORT)),
    }
}

/// An address with its family, prefix and port, each of which may be missing.
pub(super) fn host(side: Side, word: Word<'_>) -> Result<Test<'_>, FilterError<'_>> {
    let wrong = || word.expected(HOST);
    let (family, text) = match (word.text.strip_prefix("inet:"), word.text.strip_prefix("inet6:")) {
        (Some(text), _) => (Some(Family::Inet), text),
        (_, Some(text)) => (Some(Family::Inet6), text),
        (None, None) => (None, word.text),
    };
    let (address, port_text) = split(text).ok_or_else(wrong)?;
    if address.is_empty() && port_text.is_none() && family.is_none() {
        return Err(wrong());
    }
    let port = match port_text {
        None => None,
        Some(text) => {
            let offset = word.offset.saturating_add(word.text.len().saturating_sub(text.len()));
            port(Word { offset, text })?
        }
    };
    if address.is_empty() || address == "*" {
        return Ok(Test::Host { side, family, address: [0; 16], prefix: 0, port });
    }
    let (own_family, address, prefix) = prefix(address).ok_or_else(wrong)?;
    if family.is_some_and(|family| family != own_family) {
        return Err(wrong());
    }
    Ok(Test::Host { side, family: Some(own_family), address, prefix, port })
}

/// The address, brackets taken away, and the text of the port, its colon taken away.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(inside) = text.strip_prefix('[') {
        let (address, rest) = inside.split_once(']')?;
        if !address.contains(':') {
            return None;
        }
        return match rest {
            "" => Some((address, None)),
            _ => Some((address, Some(rest.strip_prefix(':')?))),
        };
    }
    // As in ss, without brackets a prefix tells the address from the port.
    let slash = text.find('/').unwrap_or(0);
    let (address, tail) = text.split_at(slash);
    match tail.rsplit_once(':') {
        None => Some((text, None)),
        // An IPv6 address: its last group would be taken for a port.
        Some((before, _)) if before.contains(':') => None,
        Some((before, port)) => {
            let len = address.len().saturating_add(before.len());
            Some((text.get(..len)?, Some(port)))
        }
    }
}

/// An address and how many of its bits count.
fn prefix(text: &str) -> Option<(Family, [u8; 16], u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(number(bits)?)),
        None => (text, None),
    };
    let mut bytes = [0; 16];
    let family = if let Ok(address) = address.parse::<Ipv4Addr>() {
        fill(&mut bytes, address.octets());
        Family::Inet
    } else {
        fill(&mut bytes, address.parse::<Ipv6Addr>().ok()?.octets());
        Family::Inet6
    };
    let most = u8::try_from(family.address_len().saturating_mul(8)).ok()?;
    let bits = match bits {
        None => most,
        Some(bits) => u8::try_from(bits).ok().filter(|bits| *bits <= most)?,
    };
    Some((family, bytes, bits))
}

/// A mark and its mask.
pub(super) fn mark(word: Word<'_>) -> Result<Test<'_>, FilterError<'_>> {
    let (mark, mask) = match word.text.split_once('/') {
        Some((mark, mask)) => (number(mark), number(mask)),
        None => (number(word.text), Some(u64::from(u32::MAX))),
    };
    let half = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    match (half(mark), half(mask)) {
        (Some(mark), Some(mask)) => Ok(Test::Mark { mark, mask }),
        _ => Err(word.expected("a mark such as 17, 0x11 or 0x01/0x03, of 32 bits")),
    }
}

/// A decimal number without needless zeros in front (others read those as octal), or a hexadecimal one after `0x`.
pub(super) fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let octal = radix == 10 && digits.len() > 1 && digits.starts_with('0');
    if octal || digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}
