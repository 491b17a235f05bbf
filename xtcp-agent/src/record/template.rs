//! The records of one request: what they have in common is encoded once, and what rows of the same owner have in common
//! once for that owner.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use xtcp_inet_diag::attr::info::AccEcnLayout;
use xtcp_inet_diag::wire::{self, Findings, NoRoom};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_proto::flat_record::v1::xtcp_flat_record::{OwnerSource, WorkloadSource};

use super::Rows;
use crate::asn::{AsnTable, Database};
use crate::connections::Owner;
use crate::mask::Mask;
use crate::sys;
use crate::users::Users;
use crate::workload::{Container, Pod, Workload};

/// Owners whose part of a record is kept encoded, at most; some hundred bytes each.
const RUNS: usize = 1024;
/// Remote addresses whose autonomous system is kept, at most.
const SYSTEMS: usize = 4096;
/// Number of `event_sequence`.
const EVENT_SEQUENCE: u32 = 3003;
/// Where `struct inet_diag_msg` has the remote address.
const DESTINATION: usize = 24;
const AF_INET: u8 = 2;

/// What is this row's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowFields<'a> {
    /// Unique among the rows of this process.
    pub counter: u64,
    /// Sequence number of the change event behind it; 0 for none.
    pub event_sequence: u64,
    /// The socket's owner, if known.
    pub owner: Option<&'a Owner>,
    /// Whose the owner is, where that is known: in place of the namespace's.
    pub workload: Option<&'a Arc<Workload>>,
}

/// What is looked up for rows, or taken from them, where that was asked for.
#[derive(Clone, Default)]
pub struct Extras {
    /// Names of users.
    pub users: Option<Users>,
    /// Autonomous systems.
    pub systems: Option<AsnTable>,
    /// What becomes of addresses.
    pub mask: Option<Mask>,
}

/// A record in three parts: fields up to 59, from 61 to 3002, from 3004.
pub(super) struct Parts {
    pub(super) before: XtcpFlatRecord,
    /// Fields 61 to 224, encoded.
    pub(super) between: Vec<u8>,
    pub(super) head: XtcpFlatRecord,
    pub(super) tail: XtcpFlatRecord,
    /// The namespace's.
    pub(super) workload: Option<Arc<Workload>>,
    pub(super) accecn: AccEcnLayout,
}

/// Turns the rows of one request into records. To make records of payloads: [`wire::Row::new`], then [`append`].
///
/// [`append`]: Self::append
pub struct Template {
    parts: Parts,
    plain: Run,
    head: Vec<u8>,
    /// `head` and the tail of `plain`.
    after: Vec<u8>,
    runs: HashMap<Key, Run>,
    /// The part behind the kernel's own fields, of a row that has more than `after`.
    own_after: Vec<u8>,
    scratch: Vec<u8>,
    extras: Extras,
    names: HashMap<u32, Option<Arc<str>>>,
    database: Option<Arc<Database>>,
    systems: HashMap<(bool, [u8; 16]), u32>,
}

/// What makes the part of one owner's record differ from another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    pid: u32,
    source: i32,
    comm: [u8; 16],
    /// Its address, which stays its own while the run is kept; 0 for the namespace's.
    workload: usize,
    /// The user whose name is known.
    named: Option<u32>,
}

/// Fields that depend on the owner.
struct Run {
    before: Vec<u8>,
    tail: Vec<u8>,
    /// Kept so that its address is nobody else's.
    _workload: Option<Arc<Workload>>,
}

impl Template {
    pub(super) fn new(parts: Parts, extras: Extras) -> Self {
        let plain = Run {
            before: owned(&parts.before, parts.workload.as_ref()).encode_to_vec(),
            tail: owned_tail(&parts.tail, parts.workload.as_ref()).encode_to_vec(),
            _workload: None,
        };
        let head = parts.head.encode_to_vec();
        Self {
            after: [head.as_slice(), plain.tail.as_slice()].concat(),
            head,
            plain,
            parts,
            runs: HashMap::new(),
            own_after: Vec::new(),
            scratch: Vec::new(),
            names: HashMap::new(),
            database: extras.systems.as_ref().map(AsnTable::current),
            extras,
            systems: HashMap::new(),
        }
    }

    /// Adds a row's record to `rows`; what was found wrong with its attributes.
    pub fn append(
        &mut self,
        row: &wire::Row<'_>,
        fields: RowFields<'_>,
        rows: &mut Rows,
    ) -> Result<Findings, NoRoom> {
        let RowFields { counter, event_sequence, owner, workload } = fields;
        let asn = self.system_of(row);
        let name = self.name_of(row.uid());
        let workload = workload.filter(|workload| self.parts.workload.as_ref() != Some(*workload));
        let Self { parts, plain, head, after, runs, own_after, scratch, extras, .. } = self;

        let is_plain = owner.is_none() && workload.is_none() && name.is_none();
        let run = if is_plain {
            &*plain
        } else {
            let key = Key {
                pid: owner.map_or(0, |owner| owner.pid),
                source: owner.map_or(0, |owner| owner.source as i32),
                comm: owner.map_or([0; 16], |owner| owner.comm),
                workload: workload.map_or(0, |workload| Arc::as_ptr(workload) as usize),
                named: name.as_ref().map(|_| row.uid()),
            };
            if runs.len() >= RUNS && !runs.contains_key(&key) {
                runs.clear();
            }
            runs.entry(key).or_insert_with(|| parts.run(owner, workload, name.as_deref()))
        };
        let after: &[u8] = if is_plain && event_sequence == 0 {
            after
        } else {
            own_after.clear();
            own_after.extend_from_slice(head);
            if event_sequence != 0 {
                encode_key(EVENT_SEQUENCE, WireType::Varint, own_after);
                encode_varint(event_sequence, own_after);
            }
            own_after.extend_from_slice(&run.tail);
            own_after
        };
        let context = wire::Context {
            before: &run.before,
            counter,
            between: &parts.between,
            after,
            accecn: parts.accecn,
        };

        let mut row = row.with_destination_asn(asn);
        let masked;
        if let Some(mask) = &extras.mask {
            masked = mask.header(row.header());
            row = row.with_header(&masked).except(Mask::left_out(&row));
        }
        let room = row.room(&context);
        if scratch.len() < room {
            scratch.resize(room, 0);
        }
        let mut findings = Findings::default();
        let len = sys::write_row(&row, &context, scratch, &mut findings)?;
        rows.push_encoded(scratch.get(..len).unwrap_or_default());
        Ok(findings)
    }

    fn name_of(&mut self, uid: u32) -> Option<Arc<str>> {
        let users = self.extras.users.as_ref()?;
        self.names.entry(uid).or_insert_with(|| users.name(uid)).clone()
    }

    /// Asked of the address as it is.
    fn system_of(&mut self, row: &wire::Row<'_>) -> u32 {
        let Some(database) = &self.database else { return 0 };
        let header = row.header();
        let is_v4 = header.first() == Some(&AF_INET);
        let Some(address) = header.get(DESTINATION..).and_then(|rest| rest.first_chunk::<16>()) else {
            return 0;
        };
        if self.systems.len() >= SYSTEMS {
            self.systems.clear();
        }
        *self.systems.entry((is_v4, *address)).or_insert_with(|| database.number(is_v4, *address))
    }
}

impl Parts {
    fn run(&self, owner: Option<&Owner>, workload: Option<&Arc<Workload>>, user_name: Option<&str>) -> Run {
        let whose = workload.or(self.workload.as_ref());
        let mut tail = owned_tail(&self.tail, whose);
        if let Some(owner) = owner {
            tail.pid = owner.pid;
            tail.comm = owner.comm();
            // The two packages number the sources alike.
            let source = OwnerSource::try_from(owner.source as i32);
            tail.owner_source = source.unwrap_or(OwnerSource::Unspecified).into();
        }
        user_name.unwrap_or_default().clone_into(&mut tail.user_name);
        Run {
            before: owned(&self.before, whose).encode_to_vec(),
            tail: tail.encode_to_vec(),
            _workload: workload.cloned(),
        }
    }
}

/// The part before the kernel's fields, with a workload in the words of a record.
fn owned(before: &XtcpFlatRecord, workload: Option<&Arc<Workload>>) -> XtcpFlatRecord {
    let Some(workload) = workload else { return before.clone() };
    let Container {
        id: container_id,
        name: container_name,
        image: container_image,
        runtime: container_runtime,
    } = workload.container.clone().unwrap_or_default();
    XtcpFlatRecord { container_id, container_runtime, container_name, container_image, ..before.clone() }
}

/// The part behind them.
fn owned_tail(tail: &XtcpFlatRecord, workload: Option<&Arc<Workload>>) -> XtcpFlatRecord {
    let Some(workload) = workload else { return tail.clone() };
    let Workload { container: _, pod, unit, cgroup, source, opted_out: _ } = (**workload).clone();
    let Pod { name: pod_name, namespace: pod_namespace, uid: pod_uid, labels: pod_labels } =
        pod.unwrap_or_default();
    XtcpFlatRecord {
        pod_name,
        pod_namespace,
        pod_uid,
        pod_labels,
        systemd_unit: unit.unwrap_or_default(),
        cgroup_path: cgroup.unwrap_or_default(),
        workload_source: WorkloadSource::from(source).into(),
        ..tail.clone()
    }
}
