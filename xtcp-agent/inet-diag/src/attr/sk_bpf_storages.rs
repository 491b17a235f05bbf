//! `INET_DIAG_SK_BPF_STORAGES`. Since Linux 5.7. Comes only when the request asks for it by attribute.

use super::Decode;

/// What BPF programs keep with the socket, as the kernel's bytes: nested `SK_DIAG_BPF_STORAGE` attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkBpfStorages<'a>(pub &'a [u8]);

impl<'a> Decode<'a> for SkBpfStorages<'a> {
    fn decode(payload: &'a [u8]) -> Option<Self> {
        Some(Self(payload))
    }
}
