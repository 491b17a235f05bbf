//! What the kernel's numbers are called by people. Owns words that several forms of rows share; never lays out a form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xtcp_inet_diag::socket_id::Family;

/// Bits of `tcpi_options` (`TCPI_OPT_*` of `linux/tcp.h`).
pub const TCP_OPTIONS: [(u32, &str); 8] = [
    (1, "ts"),
    (2, "sack"),
    (WINDOW_SCALE, "wscale"),
    (8, "ecn"),
    (16, "ecnseen"),
    (32, "fastopen"),
    (64, "usec_ts"),
    (128, "fastopen_child"),
];

/// `TCPI_OPT_WSCALE`.
pub const WINDOW_SCALE: u32 = 4;

/// What `ss` calls the running timer (`idiag_timer`); empty for none.
pub fn timer(number: u32) -> &'static str {
    match number {
        0 => "",
        1 => "on",
        2 => "keepalive",
        3 => "timewait",
        4 => "persist",
        _ => "unknown",
    }
}

/// A record's address: IPv4 in the first four of its bytes.
pub fn address(family: u32, bytes: &[u8]) -> IpAddr {
    if family == u32::from(Family::Inet.raw()) {
        Ipv4Addr::from(bytes.first_chunk::<4>().copied().unwrap_or_default()).into()
    } else {
        Ipv6Addr::from(bytes.first_chunk::<16>().copied().unwrap_or_default()).into()
    }
}

/// A number of thousandths without zeros at the end.
pub fn thousandths(number: u64) -> String {
    let text = format!("{}.{:03}", number / 1_000, number % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
