//! Which network namespaces exist. Pure: no I/O, no clock; what is true now is concluded from what is told.
//!
//! Kernel events, looks at the host, visits and handles arrive in any order and may be old when they do. Each comes
//! with the time at which it was true (`CLOCK_MONOTONIC` nanoseconds), and the dead are remembered for a
//! minute: so a look that began before a death does not raise the dead, and one that began before a birth does
//! not kill the newborn. The same inode with another cookie is another namespace: the old one died unseen.

mod change;
mod entry;
mod graves;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

pub use change::{Change, Creator, Netns, Source};
pub use entry::Entry;
use entry::{Sight, display_name};
use graves::{Grave, Graves};

use super::{NetnsId, Snapshot, Target, Thread};

/// Things that went otherwise than told, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What was told of a namespace that is already dead, and told nothing new.
    pub stale: u64,
    /// Namespaces whose inode came back under another cookie before their end was told.
    pub replaced: u64,
    /// Namespaces given up because no look found a trace of them; not known to be dead.
    pub given_up: u64,
    /// Ends of namespaces that were never known to exist.
    pub unknown_ends: u64,
    /// Creations told after the end.
    pub late_creations: u64,
}

/// What a look found of one namespace.
#[derive(Default)]
struct Found {
    /// 0 unless the kernel listed it.
    cookie: u64,
    mounts: Vec<PathBuf>,
    threads: Vec<Thread>,
}

impl Found {
    fn all(snapshot: &Snapshot) -> BTreeMap<u32, Self> {
        let mut found: BTreeMap<u32, Self> = BTreeMap::new();
        for mount in &snapshot.mounts {
            found.entry(mount.inode).or_default().mounts.push(mount.path.clone());
        }
        for (inode, thread) in snapshot.threads.iter().flatten() {
            found.entry(*inode).or_default().threads.push(*thread);
        }
        for id in &snapshot.listed {
            found.entry(id.inode).or_default().cookie = id.cookie;
        }
        found
    }
}

/// Every known namespace.
#[derive(Debug)]
pub struct Registry {
    entries: HashMap<u32, Entry>,
    graves: Graves,
    /// A first full look has been taken: whoever comes from now on is new.
    started: bool,
    patience: u32,
    counts: Counts,
}

impl Registry {
    /// A registry that knows the agent's own namespace. A namespace without a trace in `patience` full looks one
    /// after the other (at least 1) is given up: 2 where nothing tells of ends, more where a hook does and only a
    /// lost event can lead there.
    pub fn new(own: NetnsId, patience: u32) -> Self {
        let mut entry = Entry::new(own, Sight::at(0), None, None);
        entry.own = true;
        entry.announced = true;
        entry.rename();
        Self {
            entries: HashMap::from([(own.inode, entry)]),
            graves: Graves::new(),
            started: false,
            patience: patience.max(1),
            counts: Counts::default(),
        }
    }

    /// The kernel told of a creation.
    pub fn created(
        &mut self,
        id: NetnsId,
        at_ktime_ns: u64,
        source: Source,
        creator: Option<Creator>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(entry) = self.entries.get_mut(&id.inode) {
            if entry.own {
                self.counts.stale += 1;
                return changes;
            }
            if entry.is_born_by(id, at_ktime_ns) {
                if let Some(predecessor) = entry.split(at_ktime_ns)
                    && !self.graves.may_be_dead(id.inode, predecessor.from)
                {
                    self.counts.replaced += 1;
                    changes.push(entry.to_destroyed(at_ktime_ns.saturating_sub(1), source));
                }
                entry.learn(id, at_ktime_ns);
                entry.anonymous = false;
                entry.created_ktime_ns.get_or_insert(at_ktime_ns);
                entry.add_creator(creator.as_ref());
                if !entry.announced {
                    entry.announced = true;
                    changes.push(entry.to_created(at_ktime_ns, source, creator));
                }
                return changes;
            }
        }
        let claimed = self.entries.get_mut(&id.inode).is_some_and(|entry| entry.claim(at_ktime_ns));
        if claimed || self.graves.was_announced(id) {
            self.counts.stale += 1;
            return changes;
        }
        if self.graves.is_dead(id, at_ktime_ns) || self.is_older_than_entry(id.inode, at_ktime_ns) {
            self.counts.late_creations += 1;
            let name = display_name(id.inode);
            changes.push(Change::Created { netns: Netns { id, name }, at_ktime_ns, source, creator });
            return changes;
        }
        changes.extend(self.replace(id.inode, at_ktime_ns, source));
        let mut entry = Entry::new(id, Sight::at(at_ktime_ns), Some(source), creator.as_ref());
        entry.created_ktime_ns = Some(at_ktime_ns);
        entry.announced = true;
        changes.push(entry.to_created(at_ktime_ns, source, creator));
        self.entries.insert(id.inode, entry);
        changes
    }

    /// A process called `unshare` and is here now: the namespace may be new, or the process asked for something else.
    /// Whoever is not known is new.
    pub fn unshared(&mut self, id: NetnsId, at_ktime_ns: u64, creator: Option<Creator>) -> Vec<Change> {
        let known = self.entries.get(&id.inode).is_some_and(|entry| entry.own || entry.id.matches(id));
        if known || !self.started {
            let add = |entry: &mut Entry| entry.add_creator(creator.as_ref());
            return self.alive_at(id, Sight::at(at_ktime_ns), Source::Process, add);
        }
        self.created(id, at_ktime_ns, Source::Process, creator)
    }

    /// The kernel told of an end.
    pub fn destroyed(&mut self, id: NetnsId, at_ktime_ns: u64, source: Source) -> Vec<Change> {
        let known = self.entries.get(&id.inode).filter(|entry| entry.dies_by(id, at_ktime_ns));
        let known = known.map(|entry| (entry.own, entry.announced));
        let told = known.is_none() && self.graves.knows(id, at_ktime_ns);
        if told || known.is_some_and(|(own, _)| own) {
            self.counts.stale += 1;
            return Vec::new();
        }
        let announced = known.is_some_and(|(_, announced)| announced);
        self.graves.bury(id, Grave { alive_ktime_ns: at_ktime_ns, dead_ktime_ns: at_ktime_ns, announced });
        if known.is_some() {
            return self.remove(id.inode, at_ktime_ns, source).into_iter().collect();
        }
        self.counts.unknown_ends += 1;
        let netns = Netns { id, name: display_name(id.inode) };
        vec![Change::Destroyed { netns, at_ktime_ns, source, lifetime_ns: None }]
    }

    /// A task entered this namespace, so it was alive; the task is a door until the next look.
    pub fn entered(&mut self, id: NetnsId, at_ktime_ns: u64, visitor: Option<&Creator>) -> Vec<Change> {
        let add = |entry: &mut Entry| entry.add_creator(visitor);
        self.alive_at(id, Sight::at(at_ktime_ns), Source::Setns, add)
    }

    /// Between these times a process was met in the namespace with this inode; it is a door until the next look.
    pub fn met(&mut self, inode: u32, thread: Thread, (from, by): (u64, u64)) -> Vec<Change> {
        let visitor = Creator { thread, comm: String::new() };
        let add = |entry: &mut Entry| entry.add_creator(Some(&visitor));
        self.alive_at(NetnsId { inode, cookie: 0 }, Sight { from, by }, Source::Reconcile, add)
    }

    /// A socket event came from this namespace, so it was alive. Cheap: called for every event.
    pub fn seen(&mut self, id: NetnsId, at_ktime_ns: u64) -> Vec<Change> {
        self.alive_at(id, Sight::at(at_ktime_ns), Source::Socket, |_| ())
    }

    /// An entry found this namespace. `before_ktime_ns` is when the entry began: until then at least it lived.
    pub fn verified(&mut self, id: NetnsId, before_ktime_ns: u64) -> Vec<Change> {
        self.alive_at(id, Sight::at(before_ktime_ns), Source::Entry, |_| ())
    }

    /// An entry that expected one namespace found another. With equal inodes the first is dead and its doors lead to
    /// the second; else they are worth nothing until the next look.
    pub fn mismatched(&mut self, expected: NetnsId, found: NetnsId, before_ktime_ns: u64) -> Vec<Change> {
        if expected.inode != found.inode {
            self.gone(expected);
            return self.verified(found, before_ktime_ns);
        }
        let old = self.entries.get(&found.inode).filter(|entry| !entry.id.matches(found));
        let doors = old.map(|entry| (entry.mounts.clone(), entry.threads.clone()));
        self.alive_at(found, Sight::at(before_ktime_ns), Source::Entry, |entry| {
            if let Some((mounts, threads)) = doors {
                entry.set_doors(mounts, Some(threads));
            }
        })
    }

    /// What a namespace's container gives it for a name where no mount does; `None` for nothing.
    pub fn derive_name(&mut self, inode: u32, name: Option<&str>) -> Option<Change> {
        self.entries.get_mut(&inode)?.derive_name(name)
    }

    /// Every door of this namespace is gone. Says nothing of its life: ask its handle, or wait for the next looks.
    pub fn gone(&mut self, id: NetnsId) {
        if let Some(entry) = self.entries.get_mut(&id.inode)
            && entry.id.matches(id)
            && !entry.own
        {
            entry.forget_doors();
        }
    }

    /// A handle told whether a namespace lives. `at_ktime_ns` is when it was asked.
    pub fn liveness(&mut self, id: NetnsId, alive: bool, at_ktime_ns: u64, source: Source) -> Option<Change> {
        let entry = self.entries.get_mut(&id.inode)?;
        if entry.id != id || entry.own {
            return None;
        }
        if alive {
            entry.learn(id, at_ktime_ns);
            entry.touch(at_ktime_ns);
            return None;
        }
        let (alive_ktime_ns, announced) = (entry.lived_until(), entry.announced);
        self.graves.bury(id, Grave { alive_ktime_ns, dead_ktime_ns: at_ktime_ns, announced });
        self.remove(id.inode, at_ktime_ns, source)
    }

    /// Takes in a look at the host. A full one (with threads) makes those count a miss that it found no trace of.
    /// The first full one only makes known who was there before the agent: nobody in it is new.
    pub fn apply(&mut self, snapshot: &Snapshot) -> Vec<Change> {
        let found = Found::all(snapshot);
        let full = snapshot.threads.is_some();
        let mut changes = Vec::new();
        let lost = self.miss(snapshot, &found, &mut changes);
        for inode in lost {
            self.counts.given_up += 1;
            changes.extend(self.remove(inode, snapshot.ended_ktime_ns, Source::Reconcile));
        }
        let sight = Sight { from: snapshot.began_ktime_ns, by: snapshot.ended_ktime_ns };
        for (inode, Found { cookie, mounts, threads }) in found {
            let id = NetnsId { inode, cookie };
            let mut renamed = None;
            let created = self.alive_at(id, sight, Source::Reconcile, |entry| {
                renamed = entry.set_doors(mounts, full.then_some(threads));
            });
            let is_new = !created.is_empty();
            changes.extend(created);
            changes.extend(renamed.filter(|_| !is_new && self.started));
        }
        self.started |= full;
        self.graves.forget(snapshot.began_ktime_ns);
        changes
    }

    /// Namespaces that nothing is known to lead into, by what the kernel and the looks told: held by a descriptor or a
    /// socket alone. With `handles` one whose cookie is known can be entered all the same.
    pub fn unreachable(&self, handles: bool) -> impl Iterator<Item = &Entry> {
        let opens = move |entry: &Entry| handles && entry.id.cookie != 0;
        self.entries.values().filter(move |entry| !entry.has_door() && !opens(entry))
    }

    /// Takes the doors of those that a look did not find, and returns who exhausted all patience.
    fn miss<T>(
        &mut self,
        snapshot: &Snapshot,
        found: &BTreeMap<u32, T>,
        changes: &mut Vec<Change>,
    ) -> Vec<u32> {
        let began = snapshot.began_ktime_ns;
        let full = snapshot.threads.is_some();
        let mut lost = Vec::new();
        let known_before = self.entries.values_mut().filter(|entry| entry.sight.by < began);
        for entry in known_before.filter(|entry| !found.contains_key(&entry.id.inode)) {
            changes.extend(entry.set_doors(Vec::new(), full.then(Vec::new)));
            if full && !entry.own && entry.alive_ktime_ns < began {
                entry.misses += 1;
                if entry.misses >= self.patience {
                    lost.push(entry.id.inode);
                }
            }
        }
        lost
    }

    /// Namespaces of which the last full look found no trace: those to ask handles for, before the next look.
    pub fn untraced(&self) -> impl Iterator<Item = NetnsId> {
        self.entries.values().filter(|e| e.misses > 0).map(|e| e.id)
    }

    /// The living namespace with this inode.
    pub fn get(&self, inode: u32) -> Option<&Entry> {
        self.entries.get(&inode)
    }

    /// Where to find the living namespace with this inode.
    pub fn target(&self, inode: u32) -> Option<Target> {
        self.get(inode).map(Entry::target)
    }

    /// Every known namespace, in no order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.values()
    }

    /// What went otherwise than told.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A namespace was alive. `visit` is called with its entry, before it is announced if it is new.
    fn alive_at(
        &mut self,
        id: NetnsId,
        sight: Sight,
        source: Source,
        visit: impl FnOnce(&mut Entry),
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if id.inode == 0 {
            return changes;
        }
        let nameless = self.entries.get(&id.inode).is_some_and(|entry| entry.id.cookie == 0);
        if nameless && id.cookie != 0 && self.graves.is_dead(id, sight.from) {
            self.counts.stale += 1;
            return changes;
        }
        if let Some(entry) = self.entries.get_mut(&id.inode)
            && entry.id.matches(id)
        {
            entry.learn(id, sight.from);
            entry.touch(sight.from);
            visit(entry);
            return changes;
        }
        // Without a cookie it may be one that died meanwhile: the next look tells.
        let doubtful = id.cookie == 0 && self.graves.may_be_dead(id.inode, sight.from);
        if doubtful || self.graves.is_dead(id, sight.from) || self.is_older_than_entry(id.inode, sight.by) {
            self.counts.stale += 1;
            return changes;
        }
        changes.extend(self.replace(id.inode, sight.from, source));
        let mut entry = Entry::new(id, sight, self.started.then_some(source), None);
        visit(&mut entry);
        if self.started {
            entry.announced = true;
            entry.anonymous = id.cookie == 0;
            changes.push(entry.to_created(sight.from, source, None));
        }
        self.entries.insert(id.inode, entry);
        changes
    }

    /// Whether what lived at this time under this inode, and is not the entry, must be a predecessor of the entry.
    fn is_older_than_entry(&self, inode: u32, ktime_ns: u64) -> bool {
        self.entries.get(&inode).is_some_and(|entry| entry.own || ktime_ns < entry.identified_ktime_ns)
    }

    /// Its inode belongs to somebody else at this time.
    fn replace(&mut self, inode: u32, at_ktime_ns: u64, source: Source) -> Option<Change> {
        let entry = self.entries.get(&inode)?;
        let (id, alive_ktime_ns, announced) = (entry.id, entry.lived_until(), entry.announced);
        self.counts.replaced += 1;
        let dead_ktime_ns = at_ktime_ns.saturating_sub(1);
        self.graves.bury(id, Grave { alive_ktime_ns, dead_ktime_ns, announced });
        self.remove(inode, dead_ktime_ns, source)
    }

    fn remove(&mut self, inode: u32, at_ktime_ns: u64, source: Source) -> Option<Change> {
        let entry = self.entries.remove(&inode)?;
        Some(entry.to_destroyed(at_ktime_ns, source))
    }
}
