//! Options about namespaces and sockets: which are found, which are left out.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::{Args, value_parser};

use super::value::{OwnConnections, SocketProtocol, Switch, duration, netns_pattern};
use crate::netns::filter::{FilterError, NetnsFilter};
use crate::netns_counters::ledger::Period;
use crate::selection::SocketFilter;

/// How network namespaces are found and entered.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Network namespaces")]
pub struct Netns {
    /// Folder whose bind mounts are named namespaces; repeatable.
    ///
    /// One that does not exist yet is watched for. By default those of iproute2, podman, CRI-O and containerd (/run/netns and
    /// /var/run/netns, as a rule the same), of Docker, and of containerd where netns_mounts_under_state_dir is set.
    #[arg(id = "netns-dir", long = "netns-dir", value_name = "FOLDER", value_delimiter = ',',
          default_values = ["/run/netns", "/var/run/netns", "/run/docker/netns",
                            "/run/containerd/io.containerd.grpc.v1.cri/netns"])]
    pub dirs: Vec<PathBuf>,

    /// Threads that enter namespaces and ask there: 1 to 64. Default: as many as processors, at most 4.
    #[arg(id = "netns-workers", long = "netns-workers", value_name = "THREADS", default_value_t = default_workers(),
          hide_default_value = true, value_parser = value_parser!(u8).range(1..=64))]
    pub workers: u8,

    /// Time between two scans for namespaces that no event told of: 100ms to 24h.
    #[arg(id = "reconcile-frequency", long = "reconcile-frequency", value_name = "DURATION", default_value = "30s",
          value_parser = duration(Duration::from_millis(100), Duration::from_secs(86_400)))]
    pub reconcile_frequency: Duration,

    /// Only these namespaces: a name in which * and ? are wild, an inode, a container or a pod; repeatable. None given: all.
    ///
    /// container:NAME takes a container's name or id, pod:NAMESPACE/NAME a pod, * and ? wild in each. A namespace whose
    /// container or pod is not known (yet) matches none of these.
    #[arg(id = "netns-include", long = "netns-include", value_name = "PATTERN", value_delimiter = ',',
          value_parser = netns_pattern)]
    pub include: Vec<String>,

    /// Not these namespaces, also where --netns-include names them; repeatable.
    ///
    /// Their sockets are left out of records and events. That they come and go is told all the same.
    #[arg(id = "netns-exclude", long = "netns-exclude", value_name = "PATTERN", value_delimiter = ',',
          value_parser = netns_pattern)]
    pub exclude: Vec<String>,

    /// How often polls read what the kernel counts for each namespace: off, poll (each) or 1s to 24h.
    ///
    /// TCP's counters (overflows, SYN cookies, retransmissions, resets) and the backlog of each listener, as a change
    /// event of kind netns_counters.
    #[arg(id = "netns-counters", long = "netns-counters", value_name = "PERIOD", default_value = "1m",
          value_parser = Period::from_str)]
    pub counters: Period,

    /// Fill the records' field nsid: the id that the agent's namespace gave to another one.
    #[arg(
        id = "populate-nsid",
        long = "populate-nsid",
        value_enum,
        value_name = "CHOICE",
        default_value = "off"
    )]
    pub populate_nsid: Switch,
}

impl Netns {
    /// The filter over namespaces.
    pub fn filter(&self) -> Result<NetnsFilter, FilterError> {
        NetnsFilter::parse(&self.include, &self.exclude)
    }
}

fn default_workers() -> u8 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u8::try_from(processors.min(4)).unwrap_or(4)
}

/// Which sockets are reported.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Sockets")]
pub struct Sockets {
    /// Only sockets with one of these ports, local or remote; repeatable. None given: all.
    #[arg(long = "include-port", id = "include-port", value_name = "PORT", value_delimiter = ',',
          value_parser = value_parser!(u16).range(1..))]
    pub include_ports: Vec<u16>,

    /// Not the sockets with one of these ports, local or remote; repeatable.
    #[arg(long = "exclude-port", id = "exclude-port", value_name = "PORT", value_delimiter = ',',
          value_parser = value_parser!(u16).range(1..))]
    pub exclude_ports: Vec<u16>,

    /// Protocols whose sockets are reported: tcp, or tcp,mptcp; repeatable.
    ///
    /// mptcp adds the connections of MPTCP to their subflows, which are TCP sockets: in polls, where the kernel tells of
    /// them (5.9, mptcp_diag), and not in change events.
    #[arg(long, value_enum, value_name = "PROTOCOLS", value_delimiter = ',', default_value = "tcp")]
    pub protocols: Vec<SocketProtocol>,

    /// Only sockets that pass a filter in the words of ss, such as 'dport = :443 and src 10.0.0.0/8'.
    ///
    /// Tests: src, dst (HOST, HOST/BITS, HOST:PORT, :PORT; IPv6 in brackets), sport, dport (= != < > <= >=), dev,
    /// fwmark VALUE/MASK, cgroup PATH, autobound; joined by and, or, not and ( ). As in ss, and binds no tighter than or:
    /// both from left to right. `state NAME` and `exclude NAME` in front do what --states does, and must leave something
    /// of it where both are given. The kernel filters dumps, the agent lookups; change events are not filtered by it.
    #[arg(long, value_name = "EXPRESSION", value_parser = SocketFilter::from_str)]
    pub filter: Option<SocketFilter>,

    /// The agent's own connections, such as the one to NATS.
    ///
    /// Included, each event that is sent may cause events of its own.
    #[arg(long, value_enum, value_name = "CHOICE", default_value = "exclude")]
    pub own_connections: OwnConnections,
}

impl Sockets {
    /// The connections of MPTCP too.
    pub fn wants_mptcp(&self) -> bool {
        self.protocols.contains(&SocketProtocol::Mptcp)
    }
}
