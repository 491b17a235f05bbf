//! Which process a socket belongs to, remembered from the events of its life for the rows of polls.
//!
//! Owns the way from a socket's cookie to its process, within a budget of bytes: learnt at the events that a process's
//! own call makes, forgotten when the socket closes. A process that has ended while its socket lives on left it to
//! another one: its sockets are then nobody's, and one that started another program is called by its new name. What
//! [`processes`] reads from `/proc` is read in the background; who asks here never waits for it.

mod cgroups;
mod metrics;
mod processes;
mod scan;
mod sockets;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use xtcp_proto::event::v1::OwnerSource;

use crate::clock;
use crate::connections::Owner;
use crate::workload::{Directory, Workload};

use cgroups::Cgroups;
pub use metrics::OwnerMetrics;
use processes::{Process, Tracked};
pub use scan::Scanned;
use sockets::{Entry, Sockets};

/// Polls that begin after the walk over descriptors and ask for what it found; later nothing needs it any more.
const POLLS_AFTER_SCAN: u32 = 3;

/// How it is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Memory for owners, bytes.
    pub bytes: usize,
    /// Where the host's processes are: `/proc`.
    pub proc: PathBuf,
}

/// The memory, shared: a clone is the same.
#[derive(Clone)]
pub struct Owners(Arc<Shared>);

struct Shared {
    sockets: Sockets,
    /// Processes that own a socket.
    tracked: Mutex<Tracked>,
    /// What is known of each of them, by its id.
    processes: RwLock<Arc<HashMap<u32, Arc<Process>>>>,
    /// What the walk over descriptors found, by the inode of the socket.
    scanned: RwLock<Arc<HashMap<u32, Entry>>>,
    /// Polls that may still ask for it.
    scan_polls: AtomicU32,
    directory: Directory,
    cgroups: Cgroups,
    settings: Settings,
    metrics: OwnerMetrics,
}

/// A socket's owner.
#[derive(Clone, Debug)]
pub struct Known {
    /// The process.
    pub owner: Owner,
    /// Whose the process is; `None` where that is not known.
    pub workload: Option<Arc<Workload>>,
}

impl Owners {
    /// An empty memory. Nothing looks at processes until [`watch`](Self::watch).
    pub fn new(settings: Settings, directory: Directory, metrics: OwnerMetrics) -> Self {
        Self(Arc::new(Shared {
            sockets: Sockets::new(settings.bytes),
            tracked: Mutex::default(),
            processes: RwLock::default(),
            scanned: RwLock::default(),
            scan_polls: AtomicU32::new(0),
            directory,
            cgroups: Cgroups::default(),
            settings,
            metrics,
        }))
    }

    /// Has the thread that reads `/proc` for workloads read of processes, too, whether they live, what they are called, and
    /// in which cgroup they are; until [`stop`](Self::stop).
    pub fn watch(&self) {
        if let Some(mut watch) = processes::Watch::new(self.clone()) {
            self.0.directory.also(Box::new(move |now| watch.turn(now)));
        }
    }

    /// Ends what runs in the background.
    pub fn stop(&self) {
        self.tracked().stopped = true;
        self.0.directory.wake();
    }

    /// Walks over the descriptors of all processes, once, slowly, in a thread of its own.
    pub fn scan_in_background(&self) -> io::Result<std::thread::JoinHandle<()>> {
        scan::spawn(self.clone())
    }

    /// The same, here and now.
    pub fn scan(&self) -> io::Result<Scanned> {
        scan::run(self, false)
    }

    /// A socket's owner was told at this time, `CLOCK_MONOTONIC` nanoseconds.
    pub fn learn(&self, cookie: u64, owner: Owner, at_ktime_ns: u64) {
        if cookie == 0 {
            return;
        }
        let entry = Entry { owner, learned_ktime_ns: at_ktime_ns };
        let known = self.0.sockets.get(cookie).map(|known| known.owner);
        if known.is_some_and(|known| (known.pid, known.source) == (owner.pid, owner.source)) {
            return;
        }
        let displaced = self.0.sockets.insert(cookie, entry);
        let mut tracked = self.tracked();
        if entry.is_alive() && tracked.track(owner.pid) {
            self.0.directory.wake();
        }
        for gone in displaced.into_iter().flatten().filter(Entry::is_alive) {
            tracked.untrack(gone.owner.pid);
        }
    }

    /// A socket has closed.
    pub fn forget(&self, cookie: u64) {
        if cookie != 0
            && let Some(gone) = self.0.sockets.remove(cookie)
            && gone.is_alive()
        {
            self.tracked().untrack(gone.owner.pid);
        }
    }

    /// A poll has ended, after which less may be asked of what the walk over descriptors found.
    pub fn poll_ended(&self) {
        let left =
            self.0.scan_polls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left == Ok(1) {
            *self.0.scanned.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
        }
    }

    /// What is known now, for the rows of one request.
    pub fn view(&self) -> View {
        let processes = Arc::clone(&self.0.processes.read().unwrap_or_else(PoisonError::into_inner));
        let scanned = Arc::clone(&self.0.scanned.read().unwrap_or_else(PoisonError::into_inner));
        View { owners: self.clone(), processes, scanned, cgroups: HashMap::new() }
    }

    /// Writes the gauges.
    pub fn report(&self) {
        let processes = self.tracked().len();
        self.0.metrics.report(&self.0.sockets, processes);
    }

    fn tracked(&self) -> MutexGuard<'_, Tracked> {
        self.0.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// It speaks of a process that has the socket now, and so must be alive; who closed it may be gone.
    fn is_alive(&self) -> bool {
        match self.owner.source {
            OwnerSource::Connect | OwnerSource::Listen | OwnerSource::FdWalk => true,
            OwnerSource::Close | OwnerSource::Exit | OwnerSource::Netns | OwnerSource::Unspecified => false,
        }
    }
}

/// What was known when a request began; asks the memory only for sockets.
pub struct View {
    owners: Owners,
    processes: Arc<HashMap<u32, Arc<Process>>>,
    scanned: Arc<HashMap<u32, Entry>>,
    /// Answers about cgroups, by id.
    cgroups: HashMap<u64, Option<Arc<Workload>>>,
}

impl View {
    /// The owner of a socket with this cookie and inode (0 for one without a file); `None` where it is not known, or may
    /// be another by now.
    pub fn of(&self, cookie: u64, inode: u32) -> Option<Known> {
        let entry = match self.owners.0.sockets.get(cookie) {
            Some(entry) => entry,
            None if inode == 0 => return None,
            None => {
                let entry = *self.scanned.get(&inode)?;
                self.owners.learn(cookie, entry.owner, entry.learned_ktime_ns);
                entry
            }
        };
        self.judge(entry)
    }

    /// The owner that an event told a moment ago.
    pub fn told(&self, owner: Owner) -> Known {
        self.judge(Entry { owner, learned_ktime_ns: u64::MAX }).unwrap_or(Known { owner, workload: None })
    }

    /// The socket of an event that had no cookie (before 5.12) got this one by being asked for.
    pub fn name(&self, cookie: u64, owner: Owner) {
        self.owners.learn(cookie, owner, now());
    }

    /// The workload of a cgroup of version 2 by its id; of the root (1) none.
    pub fn of_cgroup(&mut self, id: u64) -> Option<Arc<Workload>> {
        if id <= 1 {
            return None;
        }
        let shared = &self.owners.0;
        let ask = || shared.directory.of_cgroup_id(id).or_else(|| shared.cgroups.of(id, &shared.directory));
        self.cgroups.entry(id).or_insert_with(ask).clone()
    }

    fn judge(&self, entry: Entry) -> Option<Known> {
        let Entry { mut owner, learned_ktime_ns } = entry;
        let process = self.processes.get(&owner.pid);
        if !entry.is_alive() {
            let same = process.filter(|process| process.began_before(learned_ktime_ns));
            return Some(Known { owner, workload: same.and_then(|process| process.workload.clone()) });
        }
        let Some(process) = process else { return Some(Known { owner, workload: None }) };
        // The id is another process's by now.
        if !process.began_before(learned_ktime_ns) {
            return None;
        }
        if process.checked_ktime_ns > learned_ktime_ns {
            owner.comm = process.comm;
        }
        Some(Known { owner, workload: process.workload.clone() })
    }
}

/// A command name as events have it.
fn comm_of(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    // The kernel's names have at most 15 bytes; of a kernel thread's longer one the beginning.
    for (to, from) in comm.iter_mut().zip(name.iter().take(15)) {
        *to = *from;
    }
    comm
}

/// Now, `CLOCK_MONOTONIC` nanoseconds.
fn now() -> u64 {
    clock::ktime_ns()
}

#[cfg(test)]
mod tests;
