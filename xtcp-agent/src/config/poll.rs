//! Options of the periodic poll and of the lookups that events cause.

use std::time::Duration;

use clap::{Args, value_parser};
use xtcp_inet_diag::attr::Selection;
use xtcp_inet_diag::state::States;

use super::value::{deserializers, duration, states};

/// When every namespace is asked, and for what.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Polling")]
pub struct Poll {
    /// Time between two polls of every namespace: 100ms to 24h.
    #[arg(long, value_name = "DURATION", default_value = "10s",
          value_parser = duration(Duration::from_millis(100), Duration::from_secs(86_400)))]
    pub frequency: Duration,

    /// Longest wait for one answer of the kernel, and for a slow destination: 10ms to 24h, below --frequency.
    ///
    /// What is not answered by then is missing in the poll, what is not taken by then is dropped; both are counted. Where it is not given and --frequency is not above it, it is half of --frequency.
    #[arg(long, value_name = "DURATION", default_value = "5s",
          value_parser = duration(Duration::from_millis(10), Duration::from_secs(86_400)))]
    pub timeout: Duration,

    /// Each poll starts up to this share of --frequency earlier or later, in percent: 0 to 50.
    ///
    /// So that the agents of many hosts do not all poll, and send, in the same moment.
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = value_parser!(u8).range(0..=50))]
    pub jitter_pct: u8,

    /// Sockets in these states, in the words of ss; repeatable. Default: all but time-wait, bound-inactive.
    ///
    /// Words: established, syn-sent, syn-recv, fin-wait-1, fin-wait-2, time-wait, closed, close-wait, last-ack, listening,
    /// closing, bound-inactive; and all, connected, synchronized, bucket, big. What is left out here is left out of
    /// events too.
    #[arg(long, value_name = "STATES", value_delimiter = ',', default_values_t = [States::DEFAULT],
        hide_default_value = true,
          value_parser = states)]
    states: Vec<States>,

    /// What is asked of each socket, by the names of the record's groups of fields; repeatable.
    ///
    /// Names (the Go collector's in brackets): mem_info (meminfo), tcp_info (info), vegas_info (vegas), congestion_algorithm
    /// (cong), type_of_service (tos), traffic_class (tc), sk_mem_info (skmem), shutdown_state (shut), dctcp_info (dctcp),
    /// bbr_info (bbr), class_id (classid), sock_opt (sockopt), c_group (cgroup), mark, skv6only, inet_diag_protocol,
    /// ulp_info, sctp_addresses, md5sig, md5sig_peers, sk_bpf_storages; default, which is all but mem_info (its fields are
    /// filled from sk_mem_info), md5sig_peers and sk_bpf_storages; and all. What is not named is not asked of the kernel
    /// where that has a choice, and not recorded.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_values_t = [Selection::DEFAULT],
          value_parser = deserializers)]
    deserializers: Vec<Selection>,
}

impl Poll {
    /// Wants these states only.
    pub(super) fn set_states(&mut self, states: States) {
        self.states = vec![states];
    }

    /// The attributes that are wanted.
    pub fn deserializers(&self) -> Selection {
        self.deserializers.iter().fold(Selection::NONE, |all, one| all | *one)
    }

    /// The states that are wanted, never none.
    pub fn states(&self) -> States {
        self.states.iter().fold(States::NONE, |all, one| all | *one)
    }
}

/// Targeted requests: what a kernel event leads to.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Lookups")]
pub struct Lookup {
    /// Triggers of one namespace within this time share a request: 0s to 1s.
    ///
    /// Longer costs less where connections are many; shorter shows a new connection sooner.
    #[arg(id = "lookup-delay", long = "lookup-delay", value_name = "DURATION", default_value = "1ms",
          value_parser = duration(Duration::ZERO, Duration::from_secs(1)))]
    pub delay: Duration,

    /// Most sockets asked for in one send: 1 to 256.
    #[arg(id = "lookup-batch", long = "lookup-batch", value_name = "SOCKETS", default_value = "16",
          value_parser = value_parser!(u16).range(1..=256))]
    pub batch: u16,

    /// Most lookups in a second over all namespaces: 1 to 4294967295, or 0 for no limit.
    ///
    /// What is over it waits for the next poll, and is counted.
    #[arg(id = "trigger-rate", long = "trigger-rate", value_name = "PER_SECOND", default_value = "20000")]
    pub rate: u32,
}
