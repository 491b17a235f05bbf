//! Options of the eBPF side.

use std::time::Duration;

use clap::Args;

use super::value::{EbpfMode, duration, hook, power_of_two_bytes};
use crate::ebpf::Rung;

/// What is loaded into the kernel.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "eBPF")]
pub struct Ebpf {
    /// Whether kernel events are used.
    #[arg(id = "ebpf", long = "ebpf", value_enum, value_name = "MODE", default_value = "auto")]
    pub mode: EbpfMode,

    /// Size of the ring buffer: a power of two from 64KiB to 1GiB.
    ///
    /// It must hold what happens within --ebpf-drain-interval; an event takes at most 256 bytes. What does not fit is
    /// lost and counted.
    #[arg(id = "ebpf-ring-bytes", long = "ebpf-ring-bytes", value_name = "BYTES", default_value = "8MiB",
          value_parser = power_of_two_bytes(64 << 10, 1 << 30))]
    pub ring_bytes: u32,

    /// Time between two looks into the ring buffer: 100us to 1s.
    #[arg(id = "ebpf-drain-interval", long = "ebpf-drain-interval", value_name = "DURATION", default_value = "2ms",
          value_parser = duration(Duration::from_micros(100), Duration::from_secs(1)))]
    pub drain_interval: Duration,

    /// A hook that is not to be attached, to find a fault or to try the next one; repeatable.
    ///
    /// `xtcp2-agent check` tells what becomes of each.
    #[arg(id = "ebpf-deny", long = "ebpf-deny", value_name = "HOOK", value_delimiter = ',', value_parser = hook())]
    pub deny: Vec<Rung>,
}
