//! The captured datagrams.

use xtcp_inet_diag::framing::{Body, Messages};

macro_rules! datagrams {
    ($($file:literal),* $(,)?) => {
        &[$(include_bytes!(concat!("../../../../fixtures/inet_diag/linux-6.18/", $file)).as_slice()),*]
    };
}

/// All TCP sockets, every attribute.
pub(crate) const DUMP_BOTH: &[&[u8]] =
    datagrams!["dump-both.0.bin", "dump-both.1.bin", "dump-both.2.bin", "dump-both.3.bin", "dump-both.4.bin"];
/// The same, with no attribute asked for.
pub(crate) const DUMP_BOTH_BARE: &[&[u8]] = datagrams!["dump-both-bare.0.bin", "dump-both-bare.1.bin"];
/// The IPv4 sockets.
pub(crate) const DUMP_V4: &[&[u8]] =
    datagrams!["dump-v4.0.bin", "dump-v4.1.bin", "dump-v4.2.bin", "dump-v4.3.bin"];
/// The IPv6 sockets.
pub(crate) const DUMP_V6: &[&[u8]] = datagrams!["dump-v6.0.bin", "dump-v6.1.bin"];
/// Lookups: a socket, one that does not exist, a socket.
pub(crate) const LOOKUPS: &[&[u8]] = datagrams!["lookups.0.bin", "lookups.1.bin", "lookups.2.bin"];

/// Every captured datagram.
pub(crate) fn all() -> impl Iterator<Item = &'static [u8]> {
    [DUMP_BOTH, DUMP_BOTH_BARE, DUMP_V4, DUMP_V6, LOOKUPS].into_iter().flatten().copied()
}

/// The rows' payloads in some datagrams.
pub(crate) fn rows(datagrams: &[&'static [u8]]) -> Vec<&'static [u8]> {
    let messages = datagrams.iter().flat_map(|datagram| Messages::new(datagram));
    messages
        .filter_map(|message| match message.expect("captured datagrams are whole").body {
            Body::Data { payload } => Some(payload),
            Body::Noop | Body::Overrun | Body::Done { .. } | Body::Error { .. } | Body::Malformed => None,
        })
        .collect()
}

/// All rows of all datagrams.
pub(crate) fn all_rows() -> Vec<&'static [u8]> {
    rows(&all().collect::<Vec<_>>())
}
