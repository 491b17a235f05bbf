//! One known namespace.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Change, Creator, Netns, Source};
use crate::netns::label::printable;
use crate::netns::{Door, NetnsId, Target, Thread};

/// Threads kept as doors; the first that still exists is used.
const MAX_THREADS: usize = 4;

/// When a namespace was first seen alive: at some time from `from` to `by`, `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) from: u64,
    pub(super) by: u64,
}

impl Sight {
    pub(super) fn at(ktime_ns: u64) -> Self {
        Self { from: ktime_ns, by: ktime_ns }
    }
}

/// A living namespace.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who it is. Its cookie is 0 until an event or a visit told it.
    pub id: NetnsId,
    /// What people call it.
    pub name: Arc<str>,
    /// The last name that a mount gave it, where that is not its name any more.
    pub(super) former: Option<Arc<str>>,
    /// What its container gives it for a name, where no mount does.
    pub(super) derived: Option<Arc<str>>,
    /// It is the agent's own.
    pub own: bool,
    /// When it was created, `CLOCK_MONOTONIC` nanoseconds; `None` when no event told.
    pub created_ktime_ns: Option<u64>,
    /// How it became known; `None` when it existed before the agent.
    pub source: Option<Source>,
    /// Paths that lead to it.
    pub mounts: Vec<PathBuf>,
    /// Some threads in it.
    pub threads: Vec<Thread>,
    pub(super) announced: bool,
    /// Announced by a look, which shows no cookie, and no creation was matched with that yet.
    pub(super) anonymous: bool,
    pub(super) sight: Sight,
    pub(super) alive_ktime_ns: u64,
    pub(super) misses: u32,
    /// Latest time at which it was seen alive together with its cookie.
    pub(super) identified_ktime_ns: u64,
}

impl Entry {
    pub(super) fn new(id: NetnsId, sight: Sight, source: Option<Source>, creator: Option<&Creator>) -> Self {
        let mut entry = Self {
            id,
            name: display_name(id.inode),
            former: None,
            derived: None,
            own: false,
            created_ktime_ns: None,
            source,
            mounts: Vec::new(),
            threads: Vec::new(),
            announced: false,
            anonymous: false,
            sight,
            alive_ktime_ns: sight.from,
            misses: 0,
            identified_ktime_ns: if id.cookie == 0 { 0 } else { sight.from },
        };
        entry.add_creator(creator);
        entry
    }

    /// Who it is and its name.
    pub fn netns(&self) -> Netns {
        Netns { id: self.id, name: Arc::clone(&self.name) }
    }

    /// Where to find it: its handle, then mounts, then threads.
    pub fn target(&self) -> Target {
        if self.own {
            return Target { id: self.id, doors: vec![Door::Own] };
        }
        let handle = (self.id.cookie != 0).then_some(Door::Handle);
        let mounts = self.mounts.iter().cloned().map(Door::Mount);
        let threads = self.threads.iter().copied().map(Door::Thread);
        Target { id: self.id, doors: handle.into_iter().chain(mounts).chain(threads).collect() }
    }

    /// Whether a mount leads there.
    pub fn is_mounted(&self) -> bool {
        !self.mounts.is_empty()
    }

    /// Whether anything but its handle leads into it.
    pub fn has_door(&self) -> bool {
        self.own || !self.mounts.is_empty() || !self.threads.is_empty()
    }

    /// Whether a creation at this time is this namespace's own, told after it was found otherwise. By cookie where
    /// both have one; else one that was first seen before the creation was another.
    pub(super) fn is_born_by(&self, id: NetnsId, at_ktime_ns: u64) -> bool {
        if id.cookie != 0 && self.id.cookie != 0 {
            return self.id == id;
        }
        at_ktime_ns <= self.sight.by && self.created_ktime_ns.is_none_or(|born| born == at_ktime_ns)
    }

    pub(super) fn to_created(&self, at_ktime_ns: u64, source: Source, creator: Option<Creator>) -> Change {
        Change::Created { netns: self.netns(), at_ktime_ns, source, creator }
    }

    pub(super) fn to_destroyed(&self, at_ktime_ns: u64, source: Source) -> Change {
        let lifetime_ns = self.created_ktime_ns.map(|born| at_ktime_ns.saturating_sub(born));
        // Its mount goes first: people know it by the name that it had.
        let name = self.former.as_ref().filter(|_| self.mounts.is_empty()).unwrap_or(&self.name);
        Change::Destroyed {
            netns: Netns { id: self.id, name: Arc::clone(name) },
            at_ktime_ns,
            source,
            lifetime_ns,
        }
    }

    /// Whether a creation that cannot be this namespace's is that of a predecessor which was announced in its place:
    /// met by a look before, when neither had shown a cookie. Its own creation is then still to be announced.
    pub(super) fn claim(&mut self, born_ktime_ns: u64) -> bool {
        let claimed = self.anonymous && born_ktime_ns <= self.sight.by;
        if claimed {
            (self.anonymous, self.announced) = (false, false);
        }
        claimed
    }

    /// What was seen before its creation was a predecessor, met when neither had shown a cookie: parts the two.
    pub(super) fn split(&mut self, born_ktime_ns: u64) -> Option<Sight> {
        let predecessor = (self.sight.by < born_ktime_ns).then_some(self.sight)?;
        self.sight = Sight::at(born_ktime_ns);
        self.announced = false;
        Some(predecessor)
    }

    /// Whether an end at this time is this namespace's: by cookie where both have one, else unless it was first
    /// seen later.
    pub(super) fn dies_by(&self, id: NetnsId, at_ktime_ns: u64) -> bool {
        if id.cookie != 0 && self.id.cookie != 0 {
            return self.id == id;
        }
        self.id.inode == id.inode && self.sight.from <= at_ktime_ns
    }

    /// Keeps the cookie of an id that is known to be this namespace's, alive at this time.
    pub(super) fn learn(&mut self, id: NetnsId, ktime_ns: u64) {
        if id.cookie != 0 {
            self.id.cookie = id.cookie;
            self.identified_ktime_ns = self.identified_ktime_ns.max(ktime_ns);
        }
    }

    /// Until when it certainly lived. A look that showed only the inode may have met its successor.
    pub(super) fn lived_until(&self) -> u64 {
        if self.id.cookie == 0 { self.alive_ktime_ns } else { self.identified_ktime_ns }
    }

    /// It was alive.
    pub(super) fn touch(&mut self, at_ktime_ns: u64) {
        if at_ktime_ns > self.alive_ktime_ns {
            self.alive_ktime_ns = at_ktime_ns;
            self.misses = 0;
        }
    }

    /// Its creator is a door until the first look.
    pub(super) fn add_creator(&mut self, creator: Option<&Creator>) {
        if let Some(Creator { thread, .. }) = creator
            && self.threads.is_empty()
            && thread.pid != 0
        {
            self.threads.push(*thread);
        }
    }

    pub(super) fn forget_doors(&mut self) {
        self.mounts.clear();
        self.threads.clear();
    }

    /// Doors as a look found them; `None` where it did not look for threads.
    pub(super) fn set_doors(&mut self, mounts: Vec<PathBuf>, threads: Option<Vec<Thread>>) -> Option<Change> {
        if let Some(mut threads) = threads {
            threads.truncate(MAX_THREADS);
            self.threads = threads;
        }
        self.mounts = mounts;
        let was = Arc::clone(&self.name);
        self.rename();
        (was != self.name).then(|| Change::Renamed { netns: self.netns(), was })
    }

    /// Names it anew. A name that is still among its mounts stays.
    pub(super) fn rename(&mut self) {
        if self.own {
            self.name = "default".into();
            return;
        }
        let names: Vec<String> = self.mounts.iter().filter_map(|path| mount_name(path)).collect();
        if names.iter().any(|name| **name == *self.name) {
            return;
        }
        let derived = || self.derived.clone().unwrap_or_else(|| display_name(self.id.inode));
        let name = names.into_iter().next().map_or_else(derived, Arc::from);
        let was = std::mem::replace(&mut self.name, name);
        if was != display_name(self.id.inode) && Some(&was) != self.derived.as_ref() {
            self.former = Some(was);
        }
    }

    /// What its container gives it for a name. What a mount says goes before.
    pub(super) fn derive_name(&mut self, derived: Option<&str>) -> Option<Change> {
        let derived = derived.map(|name| Arc::from(printable(name.as_bytes())));
        if derived == self.derived {
            return None;
        }
        let was = Arc::clone(&self.name);
        if Some(&was) == self.derived.as_ref() {
            // No mount's name: not to be kept as one.
            self.name = display_name(self.id.inode);
        }
        self.derived = derived;
        self.rename();
        (was != self.name).then(|| Change::Renamed { netns: self.netns(), was })
    }
}

/// The name of a namespace without a mount.
pub(super) fn display_name(inode: u32) -> Arc<str> {
    format!("netns:[{inode}]").into()
}

/// Base name of a mount, as text in one line.
fn mount_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| printable(name.as_bytes()))
}
