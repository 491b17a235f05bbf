//! Namespaces that come, go and get names: what that changes in the schedule, and who is told.

use xtcp_common::event::hook;
use xtcp_proto::event::v1::{self as pb, event::Event as Kind};
use xtcp_proto::netns::v1::NetnsChangeKind;

use super::{Engine, names};
use crate::connections::comm_text;
use crate::event::NetnsEvent;
use crate::netns::enter::EnterError;
use crate::netns::registry::{Change, Creator, Source};
use crate::netns::{NetnsId, Thread};
use crate::workload::directory::{Changes, Met};

impl Engine {
    pub(super) fn netns_created(&mut self, now: u64, seen: &NetnsEvent) {
        let id = NetnsId { inode: seen.netns_inode, cookie: seen.netns_cookie };
        let ktime_ns = seen.header.ktime_ns;
        let creator = task_of(seen);
        let registry = &mut self.parts.registry;
        let changes = match seen.hook {
            hook::COPY_NET_NS => registry.created(id, ktime_ns, Source::KernelFunction, creator),
            // unshare() of something else leaves the caller in the namespace that it was in.
            hook::UNSHARE => registry.unshared(id, ktime_ns, creator),
            _ => registry.created(id, ktime_ns, Source::Process, creator),
        };
        self.apply(now, changes);
    }

    /// A task entered a namespace: one that could not be entered before has a door now.
    pub(super) fn netns_entered(&mut self, now: u64, seen: &NetnsEvent) {
        let id = NetnsId { inode: seen.netns_inode, cookie: seen.netns_cookie };
        let changes = self.parts.registry.entered(id, seen.header.ktime_ns, task_of(seen).as_ref());
        self.apply(now, changes);
        self.has_door(now, id.inode);
    }

    /// A namespace that could not be entered can be now.
    fn has_door(&mut self, now: u64, inode: u32) {
        if self.to_retry.remove(&inode) {
            self.parts.scheduler.uncertain(now, inode, 0);
        }
    }

    pub(super) fn not_entered(
        &mut self,
        now: u64,
        expected: NetnsId,
        began_ktime_ns: u64,
        error: &EnterError,
    ) {
        match error {
            EnterError::Mismatch { found, .. } if found.inode == expected.inode => {
                let changes = self.parts.registry.mismatched(expected, *found, began_ktime_ns);
                self.apply(now, changes);
            }
            EnterError::Gone(_) | EnterError::NoDoor(_) | EnterError::Mismatch { .. } => {
                self.parts.registry.gone(expected);
                self.wants.ask([expected], Source::Reconcile);
                self.want_look(true);
                self.to_retry.insert(expected.inode);
            }
            EnterError::Denied { .. } | EnterError::Failed { .. } => {
                tracing::debug!(%error, "namespace not entered");
            }
            EnterError::Home(_) => tracing::error!(%error, "a worker ended"),
        }
    }

    pub(super) fn ask_who_lives(&mut self, source: Source) {
        let all = self.parts.registry.iter().filter(|entry| !entry.own).map(|entry| entry.id);
        self.wants.ask(all, source);
    }

    pub(super) fn apply(&mut self, now: u64, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Created { netns, at_ktime_ns, source, creator } => {
                    let first = creator.as_ref().map(|creator| creator.thread);
                    self.parts.directory.netns_born(netns.id, first);
                    let creator = creator.map(|creator| pb::Owner {
                        pid: creator.thread.pid,
                        comm: creator.comm,
                        source: pb::OwnerSource::Netns.into(),
                    });
                    let event = Kind::NetnsCreated(pb::NetnsCreated {
                        source: names::source(source).into(),
                        creator,
                    });
                    self.publish_named(at_ktime_ns, Some((netns.id, &netns.name)), event);
                    let announced = matches!(source, Source::KernelFunction | Source::Process);
                    self.include(now, netns.id.inode, !announced);
                    // Whose it is may have been told before it was.
                    self.name_after_workload(now, netns.id.inode);
                    self.wants.mounts = true;
                    self.netns_changed(NetnsChangeKind::Created, netns.id.inode, at_ktime_ns);
                }
                Change::Destroyed { netns, at_ktime_ns, source, lifetime_ns } => {
                    self.netns_ended(&netns, at_ktime_ns, lifetime_ns);
                    let lifetime_ns = lifetime_ns.unwrap_or(0);
                    let event = pb::NetnsDestroyed { source: names::source(source).into(), lifetime_ns };
                    let event = Kind::NetnsDestroyed(event);
                    self.publish_named(at_ktime_ns, Some((netns.id, &netns.name)), event);
                    self.parts.nsids.forget(netns.id);
                    self.parts.directory.netns_ended(netns.id, at_ktime_ns);
                    self.forget(now, netns.id.inode);
                }
                Change::Renamed { netns, was } => {
                    tracing::debug!(netns = %netns.id, %was, name = %netns.name, "namespace renamed");
                    self.include(now, netns.id.inode, true);
                    self.netns_changed(NetnsChangeKind::Changed, netns.id.inode, now);
                }
            }
        }
    }

    /// Takes in whose namespaces are now, as the directory has concluded since the last call.
    pub fn on_workloads(&mut self, now: u64) {
        let Changes { netns, met, look } = self.parts.directory.take_changes();
        for Met { inode, thread, began_ktime_ns, ended_ktime_ns } in met {
            let changes = self.parts.registry.met(inode, thread, (began_ktime_ns, ended_ktime_ns));
            self.apply(now, changes);
            self.has_door(now, inode);
        }
        for inode in netns {
            self.name_after_workload(now, inode);
            self.include(now, inode, true);
        }
        if look {
            self.want_look(true);
        }
    }

    /// Calls a namespace what its container or pod is called, where no mount gives it a name.
    fn name_after_workload(&mut self, now: u64, inode: u32) {
        let Some(entry) = self.parts.registry.get(inode) else { return };
        let workload = self.parts.directory.of_netns(entry.id);
        let name = workload.and_then(|workload| workload.display_name());
        let change = self.parts.registry.derive_name(inode, name.as_deref());
        self.apply(now, change);
    }

    /// Brings the schedule in line with the registry.
    pub(super) fn sync(&mut self, now: u64, late: bool) {
        let all: Vec<u32> = self.parts.registry.iter().map(|entry| entry.id.inode).collect();
        for inode in all {
            self.include(now, inode, late);
        }
    }

    /// Adds the namespace that lives under this inode to the schedule, or leaves it out. None may: its creation can be
    /// told after its end.
    fn include(&mut self, now: u64, inode: u32, late: bool) {
        let Some(entry) = self.parts.registry.get(inode) else { return };
        let workload = self.parts.directory.of_netns(entry.id);
        let opted_out = workload.as_ref().is_some_and(|workload| workload.opted_out);
        if !opted_out && self.parts.filter.matches(&entry.name, inode, workload.as_deref()) {
            if self.excluded.remove(&inode) {
                self.wants.drop.push((inode, false));
            }
            if !self.parts.scheduler.knows(inode) {
                self.parts.scheduler.netns_added(now, inode, late);
            }
        } else if self.excluded.insert(inode) {
            self.wants.drop.push((inode, true));
            self.parts.scheduler.netns_removed(inode);
            self.parts.connections.forget_netns(inode);
            self.parts.ledger.forget(inode);
        }
    }

    /// A namespace is dead; whoever lives under its inode now is begun anew, with nothing of what was to be asked of it.
    fn forget(&mut self, now: u64, inode: u32) {
        if self.excluded.remove(&inode) {
            self.wants.drop.push((inode, false));
        }
        self.to_retry.remove(&inode);
        self.parts.ledger.forget(inode);
        self.retried.remove(&inode);
        self.listing.forget(inode);
        self.parts.scheduler.netns_removed(inode);
        self.parts.connections.forget_netns(inode);
        self.include(now, inode, true);
    }
}

/// The task of an event, where it has one.
fn task_of(seen: &NetnsEvent) -> Option<Creator> {
    (seen.task.tgid != 0).then(|| Creator {
        thread: Thread { pid: seen.task.tgid, tid: seen.task.tid },
        comm: comm_text(&seen.task.comm),
    })
}
