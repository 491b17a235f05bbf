//! One row of the kernel plus its context becomes one `XtcpFlatRecord`'s bytes.
//!
//! Which field gets which of the kernel's numbers is said in [`xtcp_inet_diag::wire`]; here is what the kernel does not
//! say. It is encoded once for a request, and copied for each of its rows.

use std::sync::Arc;

use prost::Message as _;
use xtcp_inet_diag::attr::info::AccEcnLayout;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_proto::flat_record::v1::xtcp_flat_record::{RecordMethod, RecordReason};

use super::Reason;
use super::template::Parts;
pub use super::template::{Extras, RowFields, Template};
use crate::netns::NetnsId;
use crate::topology::Fields;
use crate::workload::Workload;

/// The consumers' tables take 1.
const SCHEMA_VERSION: u32 = 1;

/// What is the same in every row of this agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFields {
    /// Name of the host.
    pub hostname: String,
    /// `--location`.
    pub location: String,
    /// `--label`.
    pub label: String,
    /// `--tag`.
    pub tag: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Random id of this process.
    pub agent_instance: String,
}

/// What is the same in every row of one request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Wall clock when the request was sent, nanoseconds since the epoch.
    pub timestamp_ns: i64,
    /// The namespace's name for people.
    pub netns: &'a str,
    /// The namespace, verified.
    pub netns_id: NetnsId,
    /// Id that the agent's namespace gave to it; 0 also when there is none or it was not asked for.
    pub nsid: u32,
    /// Whose the namespace is, where that is known.
    pub workload: Option<&'a Arc<Workload>>,
    /// Why the row exists.
    pub reason: Reason,
    /// How it was obtained.
    pub method: RecordMethod,
    /// Number of its poll; 0 for none.
    pub poll: u64,
    /// Number of the dump in the file or among the requests that it belongs to, counted from 1; 0 for none.
    pub dump: u64,
    /// Descriptor of the netlink socket.
    pub socket_fd: u64,
    /// Number of the worker.
    pub netlinker_id: u64,
}

/// Makes records; keeps what all of an agent's share.
#[derive(Clone)]
pub struct Builder {
    host: HostFields,
    accecn: AccEcnLayout,
    extras: Extras,
    topology: Fields,
}

impl Builder {
    /// `kernel` is (major, minor) of the kernel that sends the rows: it alone tells how the last word of `tcp_info` is
    /// packed.
    pub fn new(host: HostFields, kernel: (u32, u32)) -> Self {
        let accecn = if kernel < (7, 0) { AccEcnLayout::Halves } else { AccEcnLayout::BitFields };
        Self { host, accecn, extras: Extras::default(), topology: Fields::default() }
    }

    /// The same, whose rows have this too.
    #[must_use]
    pub fn with(self, extras: Extras) -> Self {
        Self { extras, ..self }
    }

    /// The same, whose rows say what is known of the host's uplinks when their request begins.
    #[must_use]
    pub fn with_topology(self, topology: Fields) -> Self {
        Self { topology, ..self }
    }

    /// What the rows of one request have in common.
    pub fn template(&self, context: &Context<'_>) -> Template {
        let HostFields { hostname, location, label, tag, boot_id, agent_instance } = self.host.clone();
        let Context {
            timestamp_ns,
            netns,
            netns_id,
            nsid,
            workload,
            reason,
            method,
            poll,
            dump,
            socket_fd,
            netlinker_id,
        } = *context;
        let before = XtcpFlatRecord {
            schema_version: SCHEMA_VERSION,
            daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
            timestamp_ns,
            hostname,
            location,
            netns: netns.to_owned(),
            netns_inode: u64::from(netns_id.inode),
            nsid,
            label,
            tag,
            ..XtcpFlatRecord::default()
        };
        let between = XtcpFlatRecord { socket_fd, netlinker_id, ..XtcpFlatRecord::default() };
        // Fields 100 to 224 follow those of `between`.
        let between = [&*between.encode_to_vec(), &self.topology.encoded()].concat();
        let head = XtcpFlatRecord {
            record_reason: reason_of(reason).into(),
            record_method: method.into(),
            poll_number: poll,
            ..XtcpFlatRecord::default()
        };
        let tail = XtcpFlatRecord {
            boot_id,
            agent_instance,
            netns_cookie: netns_id.cookie,
            dump_number: dump,
            ..XtcpFlatRecord::default()
        };
        let workload = workload.cloned();
        let parts = Parts { before, between, head, tail, workload, accecn: self.accecn };
        Template::new(parts, self.extras.clone())
    }
}

fn reason_of(reason: Reason) -> RecordReason {
    match reason {
        Reason::Poll => RecordReason::Poll,
        Reason::NetnsCreated => RecordReason::NetnsCreated,
        Reason::TcpState => RecordReason::TcpState,
        Reason::Requested => RecordReason::Requested,
    }
}

#[cfg(test)]
mod tests {
    use xtcp_inet_diag::wire;
    use xtcp_proto::event::v1;
    use xtcp_proto::flat_record::v1::xtcp_flat_record::OwnerSource;

    use super::*;
    use crate::connections::Owner;
    use crate::record::Rows;

    fn host() -> HostFields {
        HostFields {
            hostname: "host".to_owned(),
            location: "location".to_owned(),
            label: "label".to_owned(),
            tag: "tag".to_owned(),
            boot_id: "boot".to_owned(),
            agent_instance: "instance".to_owned(),
        }
    }

    const CONTEXT: Context<'_> = Context {
        timestamp_ns: 1,
        netns: "blue",
        netns_id: NetnsId { inode: 2, cookie: 3 },
        nsid: 0,
        workload: None,
        reason: Reason::TcpState,
        method: RecordMethod::Lookup,
        poll: 4,
        dump: 10,
        socket_fd: 5,
        netlinker_id: 6,
    };

    #[test]
    fn a_record_says_what_its_context_and_its_row_are() {
        let mut template = Builder::new(host(), (6, 18)).template(&CONTEXT);
        let mut comm = [0; 16];
        comm[..4].copy_from_slice(b"curl");
        let owner = Owner { pid: 9, comm, source: v1::OwnerSource::Connect, exit_signal: 0 };
        let mut payload = [0; 72];
        payload[1] = 10;
        let row = wire::Row::new(&payload).unwrap();
        let mut rows = Rows::default();
        let fields = RowFields { counter: 7, event_sequence: 8, owner: Some(&owner), workload: None };
        template.append(&row, fields, &mut rows).unwrap();
        template.append(&row, RowFields { counter: 8, ..RowFields::default() }, &mut rows).unwrap();

        let first = XtcpFlatRecord {
            schema_version: 1,
            daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
            timestamp_ns: 1,
            hostname: "host".to_owned(),
            location: "location".to_owned(),
            netns: "blue".to_owned(),
            netns_inode: 2,
            label: "label".to_owned(),
            tag: "tag".to_owned(),
            record_counter: 7,
            socket_fd: 5,
            netlinker_id: 6,
            inet_diag_msg_state: 10,
            inet_diag_msg_socket_source: vec![0; 16],
            inet_diag_msg_socket_destination: vec![0; 16],
            record_reason: RecordReason::TcpState.into(),
            record_method: RecordMethod::Lookup.into(),
            poll_number: 4,
            event_sequence: 8,
            pid: 9,
            comm: "curl".to_owned(),
            owner_source: OwnerSource::Connect.into(),
            boot_id: "boot".to_owned(),
            agent_instance: "instance".to_owned(),
            netns_cookie: 3,
            dump_number: 10,
            ..XtcpFlatRecord::default()
        };
        let second = XtcpFlatRecord {
            record_counter: 8,
            event_sequence: 0,
            pid: 0,
            comm: String::new(),
            owner_source: 0,
            ..first.clone()
        };
        // Bytes, not records: the order of the fields is part of it.
        assert_eq!(rows.iter().collect::<Vec<_>>(), [first.encode_to_vec(), second.encode_to_vec()]);
    }
}
