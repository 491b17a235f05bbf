//! Options about whose sockets are, and what of their peers may be told.

use std::path::PathBuf;
use std::str::FromStr as _;

use clap::{Args, value_parser};

use super::value::{ProcessScan, UserNames, bytes};
use crate::mask;

/// Owners and peers of sockets.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Owners and addresses")]
pub struct Attribution {
    /// Memory for the processes of sockets, 64KiB to 1GiB; 144 bytes a socket. Who was learnt first is forgotten first.
    #[arg(long, value_name = "BYTES", default_value = "32MiB", value_parser = bytes(64 << 10, 1 << 30))]
    pub owner_cache_bytes: u32,

    /// Whether descriptors of all processes are looked through for the owners of sockets older than the agent.
    ///
    /// At the start, once, in the background, at most 100000 descriptors a second. Of a socket that several processes hold
    /// no owner is told.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "off")]
    pub process_scan: ProcessScan,

    /// Whether rows have the name of the socket's user.
    ///
    /// It is asked of this host's user database in the background: the first rows of a user have none.
    #[arg(long, value_enum, value_name = "CHOICE", default_value = "off", num_args = 0..=1, default_missing_value = "on",
          require_equals = true)]
    pub user_names: UserNames,

    /// Database of autonomous systems in MaxMind's format (.mmdb): rows have the number of the peer's.
    ///
    /// It is held in memory, and read again within 10 seconds of a change and at SIGHUP.
    #[arg(long, value_name = "FILE", value_parser = value_parser!(PathBuf))]
    pub asn_db: Option<PathBuf>,

    /// Masks addresses in rows and events: v4=BITS,v6=BITS keeps so many bits, hash:KEYFILE replaces them.
    ///
    /// The hash (SipHash-2-4) is keyed with the 32 hexadecimal digits or 16 bytes in KEYFILE: one host is the same in all
    /// rows of one key. Ports, interfaces and AS numbers stay. Filters see addresses as they are.
    #[arg(long, value_name = "HOW", value_parser = mask::Choice::from_str)]
    pub mask_addresses: Option<mask::Choice>,
}
