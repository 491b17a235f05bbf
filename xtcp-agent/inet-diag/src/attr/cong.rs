//! `INET_DIAG_CONG`, the name of the congestion control with a NUL after it. Since Linux 2.6.14.

use super::Decode;
use crate::bytes::{is_text, text};

/// The kernel's name of the socket's congestion control: `cubic`, `bbr`, `reno`, … At most 15 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cong<'a>(pub &'a str);

impl<'a> Decode<'a> for Cong<'a> {
    fn decode(payload: &'a [u8]) -> Option<Self> {
        text(payload).map(Self)
    }

    #[inline]
    fn is_sound(payload: &'a [u8]) -> bool {
        is_text(payload)
    }
}
