//! One row of the kernel plus its context becomes one `XtcpFlatRecord`'s bytes.
//!
//! Which field gets which of the kernel's numbers is said in [`xtcp_inet_diag::wire`]; here is what the kernel does not
//! say. It is encoded once for a request, and copied for each of its rows.

use std::sync::Arc;

use prost::Message;
use xtcp_inet_diag::attr::info::AccEcnLayout;
use xtcp_inet_diag::wire::{self, Findings, NoRoom};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_proto::flat_record::v1::xtcp_flat_record::{
    OwnerSource, RecordMethod, RecordReason, WorkloadSource,
};

use super::{Reason, Rows};
use crate::connections::Owner;
use crate::netns::NetnsId;
use crate::workload::{Container, Pod, Workload};

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

/// What is this row's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowFields<'a> {
    /// Unique among the rows of this process.
    pub counter: u64,
    /// Sequence number of the change event behind it; 0 for none.
    pub event_sequence: u64,
    /// The socket's owner, if known.
    pub owner: Option<&'a Owner>,
}

/// Makes records; keeps what all of an agent's share.
#[derive(Clone, Debug)]
pub struct Builder {
    host: HostFields,
    accecn: AccEcnLayout,
}

impl Builder {
    /// `kernel` is (major, minor) of the kernel that sends the rows: it alone tells how the last word of `tcp_info` is
    /// packed.
    pub fn new(host: HostFields, kernel: (u32, u32)) -> Self {
        let accecn = if kernel < (7, 0) { AccEcnLayout::Halves } else { AccEcnLayout::BitFields };
        Self { host, accecn }
    }

    /// What the rows of one request have in common.
    pub fn template(&self, context: &Context<'_>) -> Template {
        let HostFields { hostname, location, label, tag, boot_id, agent_instance } = self.host.clone();
        let Context {
            timestamp_ns,
            netns,
            netns_id,
            workload,
            reason,
            method,
            poll,
            dump,
            socket_fd,
            netlinker_id,
        } = *context;
        let Owned { container, pod, systemd_unit, cgroup_path, workload_source } = Owned::of(workload);
        let Container { id: container_id, name: container_name, image: container_image, runtime } = container;
        let Pod { name: pod_name, namespace: pod_namespace, uid: pod_uid, labels: pod_labels } = pod;
        let before = XtcpFlatRecord {
            schema_version: SCHEMA_VERSION,
            daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
            timestamp_ns,
            hostname,
            location,
            netns: netns.to_owned(),
            netns_inode: u64::from(netns_id.inode),
            label,
            tag,
            container_id,
            container_runtime: runtime,
            container_name,
            container_image,
            ..XtcpFlatRecord::default()
        };
        let between = XtcpFlatRecord { socket_fd, netlinker_id, ..XtcpFlatRecord::default() };
        let after = XtcpFlatRecord {
            record_reason: reason_of(reason).into(),
            record_method: method.into(),
            poll_number: poll,
            boot_id,
            agent_instance,
            netns_cookie: netns_id.cookie,
            dump_number: dump,
            pod_name,
            pod_namespace,
            pod_uid,
            pod_labels,
            systemd_unit,
            cgroup_path,
            workload_source: workload_source.into(),
            ..XtcpFlatRecord::default()
        };
        Template {
            before: before.encode_to_vec(),
            between: between.encode_to_vec(),
            after_encoded: after.encode_to_vec(),
            after,
            accecn: self.accecn,
            scratch: Vec::new(),
        }
    }
}

/// A workload in the words of a record.
#[derive(Default)]
struct Owned {
    container: Container,
    pod: Pod,
    systemd_unit: String,
    cgroup_path: String,
    workload_source: WorkloadSource,
}

impl Owned {
    fn of(workload: Option<&Arc<Workload>>) -> Self {
        let Some(workload) = workload else { return Self::default() };
        let Workload { container, pod, unit, cgroup, source, opted_out: _ } = (**workload).clone();
        Self {
            container: container.unwrap_or_default(),
            pod: pod.unwrap_or_default(),
            systemd_unit: unit.unwrap_or_default(),
            cgroup_path: cgroup.unwrap_or_default(),
            workload_source: source.into(),
        }
    }
}

/// Turns the rows of one request into records. To make records of payloads: [`wire::Row::new`], then [`append`].
///
/// [`append`]: Self::append
#[derive(Clone, Debug)]
pub struct Template {
    before: Vec<u8>,
    between: Vec<u8>,
    after: XtcpFlatRecord,
    after_encoded: Vec<u8>,
    accecn: AccEcnLayout,
    scratch: Vec<u8>,
}

impl Template {
    /// Adds a row's record to `rows`; what was found wrong with its attributes.
    pub fn append(
        &mut self,
        row: &wire::Row<'_>,
        fields: RowFields<'_>,
        rows: &mut Rows,
    ) -> Result<Findings, NoRoom> {
        let RowFields { counter, event_sequence, owner } = fields;
        let own;
        let after = if event_sequence == 0 && owner.is_none() {
            &self.after_encoded
        } else {
            own = with_owner(self.after.clone(), event_sequence, owner).encode_to_vec();
            &own
        };
        let context = wire::Context {
            before: &self.before,
            counter,
            between: &self.between,
            after,
            accecn: self.accecn,
        };
        let room = row.room(&context);
        if self.scratch.len() < room {
            self.scratch.resize(room, 0);
        }
        let mut findings = Findings::default();
        let len = row.write(&context, &mut self.scratch, &mut findings)?;
        rows.push_encoded(self.scratch.get(..len).unwrap_or_default());
        Ok(findings)
    }
}

fn with_owner(after: XtcpFlatRecord, event_sequence: u64, owner: Option<&Owner>) -> XtcpFlatRecord {
    let after = XtcpFlatRecord { event_sequence, ..after };
    match owner {
        Some(owner) => XtcpFlatRecord {
            pid: owner.pid,
            comm: owner.comm(),
            // The two packages number the sources alike.
            owner_source: OwnerSource::try_from(owner.source as i32)
                .unwrap_or(OwnerSource::Unspecified)
                .into(),
            ..after
        },
        None => after,
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
    use xtcp_proto::event::v1;

    use super::*;

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
        let fields = RowFields { counter: 7, event_sequence: 8, owner: Some(&owner) };
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
