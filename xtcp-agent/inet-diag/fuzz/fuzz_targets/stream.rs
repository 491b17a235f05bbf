//! Several datagrams in one input of the fuzzer: each behind its length, two bytes.

/// The datagrams; a length that is past the end means all that is left.
pub(crate) fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut datagrams = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (datagram, rest) = rest.split_at(length);
        datagrams.push(datagram);
        bytes = rest;
    }
    datagrams
}

/// The input that is split into these datagrams. The kernel's have at most 32 KiB.
pub(crate) fn join(datagrams: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for datagram in datagrams {
        let length = u16::try_from(datagram.len()).expect("a datagram of the kernel fits");
        bytes.extend(length.to_le_bytes());
        bytes.extend_from_slice(datagram);
    }
    bytes
}
