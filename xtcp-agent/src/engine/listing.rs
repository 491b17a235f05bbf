//! Network namespaces as they are told to who asks for them: what the registry knows, and how their last dumps went.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use xtcp_proto::netns::v1::{self as pb, NetnsChangeKind as What, NetnsState};

use super::{Engine, names};
use crate::collector::Done;
use crate::netns::NetnsId;
use crate::netns::registry::{Entry, Netns};
use crate::scheduler::{DumpRequest, Scope};
use crate::workload::Workload;

/// Changes that may wait to be taken; what is more is only counted.
const CHANGES: usize = 65_536;

/// How the last dump of a namespace went.
#[derive(Clone, Debug)]
struct LastDump {
    id: NetnsId,
    told: pb::NetnsDump,
    state: NetnsState,
    owner: Option<Arc<Workload>>,
}

/// What is kept for the listing.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Requests under way that are dumps of everything.
    dumps: HashSet<u64>,
    last: HashMap<u32, LastDump>,
    /// Somebody wants to know of changes.
    watched: bool,
    changes: Vec<pb::NetnsChange>,
    missed: u64,
}

impl Listing {
    pub(super) fn asked(&mut self, request: &DumpRequest) {
        if request.scope == Scope::Dump {
            self.dumps.insert(request.id);
        }
    }

    pub(super) fn lost(&mut self, request: &DumpRequest) {
        self.dumps.remove(&request.id);
    }

    pub(super) fn forget(&mut self, inode: u32) {
        self.last.remove(&inode);
    }

    fn push(&mut self, change: pb::NetnsChange) {
        if self.changes.len() < CHANGES {
            self.changes.push(change);
        } else {
            self.missed += 1;
        }
    }
}

impl Engine {
    /// Every known namespace, by name.
    pub fn namespaces(&self) -> Vec<pb::Netns> {
        let mut all: Vec<_> = self.parts.registry.iter().map(|entry| self.describe(entry)).collect();
        all.sort_unstable_by(|a, b| (!a.own, &a.name, a.inode).cmp(&(!b.own, &b.name, b.inode)));
        all
    }

    /// Whether somebody wants [`take_netns_changes`](Self::take_netns_changes).
    pub fn watch_netns(&mut self, watched: bool) {
        self.listing.watched = watched;
    }

    /// What came, went and changed since the last call, in order.
    pub fn take_netns_changes(&mut self) -> Vec<pb::NetnsChange> {
        let mut changes = std::mem::take(&mut self.listing.changes);
        let missed = std::mem::take(&mut self.listing.missed);
        if missed > 0 {
            changes.push(missed_changes(missed));
        }
        changes
    }

    /// A change of one that lives.
    pub(super) fn netns_changed(&mut self, what: What, inode: u32, at_ktime_ns: u64) {
        if !self.listing.watched {
            return;
        }
        let Some(netns) = self.parts.registry.get(inode).map(|entry| self.describe(entry)) else { return };
        let timestamp_ns = self.parts.clock.wall_ns(at_ktime_ns);
        self.listing.push(pb::NetnsChange { kind: what.into(), netns: Some(netns), timestamp_ns, missed: 0 });
    }

    /// The end of one, which the registry has forgotten.
    pub(super) fn netns_ended(&mut self, netns: &Netns, at_ktime_ns: u64, lifetime_ns: Option<u64>) {
        if !self.listing.watched {
            return;
        }
        let timestamp_ns = self.parts.clock.wall_ns(at_ktime_ns);
        let last = self.listing.last.get(&netns.id.inode).filter(|last| last.id.matches(netns.id));
        let owner = self.parts.directory.of_netns(netns.id).or_else(|| last?.owner.clone());
        let netns = pb::Netns {
            inode: netns.id.inode,
            cookie: netns.id.cookie,
            name: netns.name.to_string(),
            nsid: self.parts.nsids.get(netns.id),
            created_ns: lifetime_ns
                .map_or(0, |lifetime_ns| timestamp_ns.saturating_sub_unsigned(lifetime_ns)),
            state: last.map_or(NetnsState::New, |last| last.state).into(),
            last_dump: last.map(|last| last.told.clone()),
            owner: owner.as_deref().map(describe_owner),
            ..pb::Netns::default()
        };
        let kind = What::Destroyed.into();
        self.listing.push(pb::NetnsChange { kind, netns: Some(netns), timestamp_ns, missed: 0 });
    }

    /// Keeps how a dump went, before its completion is used up. Call it once the registry knows what was found.
    pub(super) fn dumped(&mut self, now: u64, done: &Done) {
        if !self.listing.dumps.remove(&done.completion.id) {
            return;
        }
        let (id, state, error) = match &done.found {
            Ok(id) if done.completion.complete => (*id, NetnsState::Polled, String::new()),
            Ok(id) => (*id, NetnsState::Incomplete, done.completion.fault.clone().unwrap_or_default()),
            Err(error) => (done.expected, NetnsState::Unreachable, error.to_string()),
        };
        // It may have died meanwhile, and another may have its inode.
        if !self.parts.registry.get(id.inode).is_some_and(|entry| entry.id.matches(id)) {
            return;
        }
        let told = pb::NetnsDump {
            timestamp_ns: self.parts.clock.wall_ns(now),
            duration_ns: done.completion.duration_ns,
            rows: done.completion.rows,
            error,
        };
        let owner = self.parts.directory.of_netns(id);
        let dump = LastDump { id, told, state, owner };
        let before = self.listing.last.insert(id.inode, dump.clone());
        let same = before.is_some_and(|before| {
            before.id.matches(id)
                && before.state == dump.state
                && before.told.rows == dump.told.rows
                && before.owner == dump.owner
        });
        if !same {
            self.netns_changed(What::Changed, id.inode, now);
        }
    }

    fn describe(&self, entry: &Entry) -> pb::Netns {
        let last = self.listing.last.get(&entry.id.inode).filter(|last| last.id.matches(entry.id));
        let state = if self.excluded.contains(&entry.id.inode) {
            NetnsState::Excluded
        } else {
            last.map_or(NetnsState::New, |last| last.state)
        };
        pb::Netns {
            inode: entry.id.inode,
            cookie: entry.id.cookie,
            name: entry.name.to_string(),
            nsid: self.parts.nsids.get(entry.id),
            own: entry.own,
            doors: entry.target().doors.iter().map(ToString::to_string).collect(),
            found: entry.source.map_or(0, |source| names::source(source).into()),
            created_ns: entry.created_ktime_ns.map_or(0, |ktime_ns| self.parts.clock.wall_ns(ktime_ns)),
            state: state.into(),
            last_dump: last.map(|last| last.told.clone()),
            owner: self.parts.directory.of_netns(entry.id).as_deref().map(describe_owner),
        }
    }
}

/// What a client is told that was too slow for so many changes.
pub fn missed_changes(missed: u64) -> pb::NetnsChange {
    pb::NetnsChange { kind: What::Missed.into(), netns: None, timestamp_ns: 0, missed }
}

fn describe_owner(workload: &Workload) -> pb::NetnsOwner {
    let Workload { container, pod, unit, cgroup, source: _, opted_out } = workload;
    if *opted_out {
        return pb::NetnsOwner::default();
    }
    let container = container.clone().unwrap_or_default();
    let pod = pod.clone().unwrap_or_default();
    pb::NetnsOwner {
        container_id: container.id,
        container_name: container.name,
        container_image: container.image,
        container_runtime: container.runtime,
        pod_name: pod.name,
        pod_namespace: pod.namespace,
        pod_uid: pod.uid,
        systemd_unit: unit.clone().unwrap_or_default(),
        cgroup_path: cgroup.clone().unwrap_or_default(),
    }
}
