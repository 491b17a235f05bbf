//! The records of one request: what they have in common is encoded once, and what rows of the same owner have in common
//! once for that owner.

use std::sync::Arc;

use foldhash::HashMap;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use xtcp_inet_diag::attr::info::AccEcnLayout;
use xtcp_inet_diag::message::ROW_LEN;
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
    runs: HashMap<Key, Run>,
    /// How much of what is behind the kernel's own fields comes before `event_sequence`.
    head: usize,
    /// What is behind them of a row with an `event_sequence`.
    with_sequence: Vec<u8>,
    scratch: Vec<u8>,
    extras: Extras,
    names: HashMap<u32, Option<Arc<str>>>,
    database: Option<Arc<Database>>,
    systems: HashMap<(bool, [u8; 16]), u32>,
}

/// What makes the part of one owner's record differ from another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// Process, source, command name.
    owner: Option<(u32, i32, [u8; 16])>,
    /// Its address, which stays its own while the run is kept; `None` for the namespace's.
    workload: Option<usize>,
    /// The user whose name is known.
    named: Option<u32>,
}

/// Fields that depend on the owner, encoded.
struct Run {
    /// Up to 59.
    before: Vec<u8>,
    /// From 3000 on.
    after: Vec<u8>,
    /// Kept so that its address is nobody else's.
    _workload: Option<Arc<Workload>>,
}

impl Template {
    pub(super) fn new(parts: Parts, extras: Extras) -> Self {
        Self {
            plain: parts.run(None, None, None),
            head: parts.head.encoded_len(),
            parts,
            runs: HashMap::default(),
            with_sequence: Vec::new(),
            scratch: Vec::new(),
            names: HashMap::default(),
            database: extras.systems.as_ref().map(AsnTable::current),
            extras,
            systems: HashMap::default(),
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
        let Self { parts, plain, runs, head, with_sequence, scratch, extras, names, database, systems } =
            self;

        let asn = database.as_ref().map_or(0, |database| system_of(row.header(), database, systems));
        let name = extras.users.as_ref().and_then(|users| {
            let name = names.entry(row.uid()).or_insert_with(|| users.name(row.uid()));
            name.as_deref()
        });
        let workload = workload.filter(|workload| parts.workload.as_ref() != Some(*workload));
        let run = if owner.is_none() && workload.is_none() && name.is_none() {
            &*plain
        } else {
            let key = Key {
                owner: owner.map(|owner| (owner.pid, owner.source as i32, owner.comm)),
                workload: workload.map(|workload| Arc::as_ptr(workload) as usize),
                named: name.map(|_| row.uid()),
            };
            if runs.len() >= RUNS && !runs.contains_key(&key) {
                runs.clear();
            }
            runs.entry(key).or_insert_with(|| parts.run(owner, workload, name))
        };
        let mut context = wire::Context {
            before: &run.before,
            counter,
            between: &parts.between,
            after: &run.after,
            accecn: parts.accecn,
        };
        if let (1.., Some((head, tail))) = (event_sequence, run.after.split_at_checked(*head)) {
            with_sequence.clear();
            with_sequence.extend_from_slice(head);
            encode_key(EVENT_SEQUENCE, WireType::Varint, with_sequence);
            encode_varint(event_sequence, with_sequence);
            with_sequence.extend_from_slice(tail);
            context.after = with_sequence;
        }

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
}

/// Asked of the address as it is.
fn system_of(
    header: &[u8; ROW_LEN],
    database: &Database,
    systems: &mut HashMap<(bool, [u8; 16]), u32>,
) -> u32 {
    let is_v4 = header.first() == Some(&AF_INET);
    let Some(address) = header.get(DESTINATION..).and_then(|rest| rest.first_chunk::<16>()) else {
        return 0;
    };
    if systems.len() >= SYSTEMS {
        systems.clear();
    }
    *systems.entry((is_v4, *address)).or_insert_with(|| database.number(is_v4, *address))
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
        let mut after = self.head.encode_to_vec();
        after.reserve(tail.encoded_len());
        tail.encode_raw(&mut after);
        Run { before: owned(&self.before, whose).encode_to_vec(), after, _workload: workload.cloned() }
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
