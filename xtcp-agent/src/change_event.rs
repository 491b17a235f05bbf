//! A change event as consumers see it: what the kernel side reported, what is known about the socket, and the stamp of
//! this host and agent.

use nix::errno::Errno;
use xtcp_common::event::{TcpNumbers as Numbers, TcpState as Transition, number, socket};
use xtcp_proto::event::v1::{self as pb, event::Event as Kind};

use crate::connections::{Closed, Observation, Owner};
use crate::netns::NetnsId;
use crate::workload::Workload;

/// What all events of this agent have in common, and the next sequence number.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Name of the host.
    pub hostname: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Random id of this process.
    pub agent_instance: String,
    sequence: u64,
}

impl Stamp {
    /// Starts a stream whose first event has sequence number 1.
    pub fn new(hostname: String, boot_id: String, agent_instance: String) -> Self {
        Self { hostname, boot_id, agent_instance, sequence: 0 }
    }

    /// The last sequence number given.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next event of the stream. `ktime_ns` is `CLOCK_MONOTONIC`, `wall_ns` the same moment since the epoch.
    pub fn event(&mut self, ktime_ns: u64, wall_ns: i64, netns: Option<pb::Netns>, kind: Kind) -> pb::Event {
        self.sequence += 1;
        pb::Event {
            sequence: self.sequence,
            timestamp_ns: wall_ns,
            monotonic_ns: ktime_ns,
            hostname: self.hostname.clone(),
            boot_id: self.boot_id.clone(),
            agent_instance: self.agent_instance.clone(),
            netns,
            event: Some(kind),
        }
    }
}

/// A namespace as consumers see it.
pub fn netns_of(id: NetnsId, name: &str, workload: Option<&Workload>) -> pb::Netns {
    let mut netns = pb::Netns {
        inode: u64::from(id.inode),
        cookie: id.cookie,
        name: name.to_owned(),
        ..pb::Netns::default()
    };
    if let Some(container) = workload.and_then(|workload| workload.container.as_ref()) {
        netns.container_id.clone_from(&container.id);
        netns.container_name.clone_from(&container.name);
    }
    if let Some(pod) = workload.and_then(|workload| workload.pod.as_ref()) {
        netns.pod_namespace.clone_from(&pod.namespace);
        netns.pod_name.clone_from(&pod.name);
        netns.pod_uid.clone_from(&pod.uid);
    }
    netns
}

/// A transition to another state than CLOSE.
pub fn tcp_state(seen: &Transition, known: &Observation) -> Kind {
    Kind::TcpState(pb::TcpStateChanged {
        socket: Some(socket_of(seen, known)),
        old_state: i32::from(seen.old_state),
        new_state: i32::from(seen.new_state),
        owner: known.owner.map(|owner| owner_of(&owner)),
        connection_id: known.connection_id,
    })
}

/// A transition to CLOSE.
pub fn tcp_close(seen: &Transition, numbers: &Numbers, known: &Observation, closed: &Closed) -> Kind {
    let errno = i32::try_from(seen.sk_err).unwrap_or(0);
    Kind::TcpClose(pb::TcpClosed {
        socket: Some(socket_of(seen, known)),
        old_state: i32::from(seen.old_state),
        owner: known.owner.map(|owner| owner_of(&owner)),
        connection_id: known.connection_id,
        reason: closed.reason.into(),
        error: if errno == 0 { String::new() } else { format!("{:?}", Errno::from_raw(errno)) },
        errno: seen.sk_err,
        exit_signal: closed.exit_signal,
        opened_by: closed.opened_by.into(),
        path: closed.path.states().iter().map(|state| i32::from(*state)).collect(),
        path_complete: closed.path_complete,
        lifetime_ns: closed.lifetime_ns,
        established_ns: closed.established_ns,
        numbers: (numbers.present != 0).then(|| numbers_of(numbers)),
    })
}

/// A process as consumers see it.
pub fn owner_of(owner: &Owner) -> pb::Owner {
    pb::Owner { pid: owner.pid, comm: owner.comm(), source: owner.source.into() }
}

fn socket_of(seen: &Transition, known: &Observation) -> pb::Socket {
    pb::Socket {
        cookie: known.cookie,
        family: u32::from(seen.family),
        source: seen.source.to_vec(),
        destination: seen.destination.to_vec(),
        source_port: u32::from(seen.source_port),
        destination_port: u32::from(seen.destination_port),
        interface: seen.bound_if,
        cgroup_id: seen.cgroup_id,
        uid: (seen.flags & socket::CLASSIC == 0 && seen.uid != u32::MAX).then_some(seen.uid),
        mptcp: seen.flags & socket::MPTCP != 0,
    }
}

fn numbers_of(numbers: &Numbers) -> pb::TcpNumbers {
    let Numbers {
        bytes_sent,
        bytes_retrans,
        bytes_acked,
        bytes_received,
        segs_out,
        segs_in,
        data_segs_out,
        data_segs_in,
        total_retrans,
        lost,
        delivered,
        delivered_ce,
        srtt_us,
        rttvar_us,
        min_rtt_us,
        snd_cwnd,
        snd_ssthresh,
        mss_cache,
        reord_seen,
        dsack_dups,
        rcv_ooopack,
        present,
    } = *numbers;
    let has = |bit: u32| present & bit != 0;
    pb::TcpNumbers {
        bytes_sent: has(number::BYTES_SENT).then_some(bytes_sent),
        bytes_retrans: has(number::BYTES_SENT).then_some(bytes_retrans),
        bytes_acked: has(number::BYTES_ACKED).then_some(bytes_acked),
        bytes_received: has(number::BYTES_ACKED).then_some(bytes_received),
        segs_out: has(number::SEGMENTS).then_some(segs_out),
        segs_in: has(number::SEGMENTS).then_some(segs_in),
        data_segs_out: has(number::SEGMENTS).then_some(data_segs_out),
        data_segs_in: has(number::SEGMENTS).then_some(data_segs_in),
        total_retrans: has(number::RETRANS).then_some(total_retrans),
        lost: has(number::RETRANS).then_some(lost),
        delivered: has(number::DELIVERED).then_some(delivered),
        delivered_ce: has(number::DELIVERED).then_some(delivered_ce),
        srtt_us: has(number::RTT).then_some(srtt_us),
        rttvar_us: has(number::RTT).then_some(rttvar_us),
        min_rtt_us: (has(number::MIN_RTT) && min_rtt_us != u32::MAX).then_some(min_rtt_us),
        snd_cwnd: has(number::WINDOW).then_some(snd_cwnd),
        snd_ssthresh: has(number::WINDOW).then_some(snd_ssthresh),
        snd_mss: has(number::WINDOW).then_some(mss_cache),
        reord_seen: has(number::REORDER).then_some(reord_seen),
        dsack_dups: has(number::REORDER).then_some(dsack_dups),
        rcv_ooopack: has(number::OOO).then_some(rcv_ooopack),
    }
}
