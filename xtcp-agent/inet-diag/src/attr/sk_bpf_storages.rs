//! `INET_DIAG_SK_BPF_STORAGES`. Since Linux 5.7. Comes only in dumps, and only when the request asks for it by
//! attribute, which takes `CAP_BPF` or `CAP_SYS_ADMIN`.
//!
//! Layout: `SK_DIAG_BPF_STORAGE*` in `include/uapi/linux/sock_diag.h`.

use super::{Decode, Walk};
use crate::bytes::Native;

/// `SK_DIAG_BPF_STORAGE`.
const STORAGE: u16 = 1;
/// `SK_DIAG_BPF_STORAGE_MAP_ID`.
const MAP_ID: u16 = 2;
/// `SK_DIAG_BPF_STORAGE_MAP_VALUE`.
const MAP_VALUE: u16 = 3;

/// What BPF programs keep with the socket, as the kernel's bytes: nested `SK_DIAG_BPF_STORAGE` attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkBpfStorages<'a>(pub &'a [u8]);

/// What one map holds for the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage<'a> {
    /// Id of the map (`bpftool map show id …`).
    pub map_id: u32,
    /// Its value, of the map's value size.
    pub value: &'a [u8],
}

impl<'a> SkBpfStorages<'a> {
    /// Each map's value. What is not whole is left out.
    pub fn storages(&self) -> impl Iterator<Item = Storage<'a>> + use<'a> {
        Walk::new(self.0).filter_map(|item| match item {
            Ok((STORAGE, payload)) => storage(payload),
            _ => None,
        })
    }
}

fn storage(payload: &[u8]) -> Option<Storage<'_>> {
    let part = |wanted| Walk::new(payload).flatten().find(|(number, _)| *number == wanted);
    let (_, id) = part(MAP_ID)?;
    let (_, value) = part(MAP_VALUE)?;
    Some(Storage { map_id: u32::at(id, 0)?, value })
}

impl<'a> Decode<'a> for SkBpfStorages<'a> {
    fn decode(payload: &'a [u8]) -> Option<Self> {
        Some(Self(payload))
    }
}
