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

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use foldhash::HashMap;
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
    processes: RwLock<Arc<HashMap<u32, Process>>>,
    /// What the walk over descriptors found, by the inode of the socket.
    scanned: RwLock<Arc<HashMap<u32, Entry>>>,
    /// Polls that may still ask for it.
    scan_polls: AtomicU32,
    directory: Directory,
    cgroups: Cgroups,
    settings: Settings,
    metrics: OwnerMetrics,
}

/// What is known of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The process that it belongs to; `None` where that is not known, or may be another by now.
    pub owner: Option<Owner>,
    /// Whose the process is, else whose the socket's cgroup is; `None` where neither is known.
    pub workload: Option<&'a Arc<Workload>>,
}

/// What is remembered of a socket, to be judged by what is known of its process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Remembered(Option<Entry>);

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

    /// Learns where cgroups of version 2 are, for one poll.
    pub fn look_at_cgroups(&self) {
        self.0.cgroups.learn_all(&self.0.settings.proc);
    }

    /// Reads of the processes that the walk over descriptors found whose they are, for one poll.
    pub fn look_at_processes(&self) {
        let scanned = Arc::clone(&self.0.scanned.read().unwrap_or_else(PoisonError::into_inner));
        let pids: HashSet<u32> = scanned.values().map(|entry| entry.owner.pid).collect();
        processes::look(self, &pids.into_iter().collect::<Vec<_>>());
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
        View { owners: self.clone(), processes, scanned, cgroups: HashMap::default() }
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

    /// The owner and its workload, as far as the process that is known by that id is the one that was meant.
    fn judge<'a>(&self, processes: &'a HashMap<u32, Process>) -> (Option<Owner>, Option<&'a Arc<Workload>>) {
        let Self { mut owner, learned_ktime_ns } = *self;
        let Some(process) = processes.get(&owner.pid) else { return (Some(owner), None) };
        if !process.began_before(learned_ktime_ns) {
            // The id is another process's by now.
            return (Some(owner).filter(|_| !self.is_alive()), None);
        }
        if self.is_alive() && process.checked_ktime_ns > learned_ktime_ns {
            owner.comm = process.comm;
        }
        (Some(owner), process.workload.as_ref())
    }
}

/// What was known when a request began; asks the memory only for sockets.
pub struct View {
    owners: Owners,
    processes: Arc<HashMap<u32, Process>>,
    scanned: Arc<HashMap<u32, Entry>>,
    /// Answers about cgroups, by id.
    cgroups: HashMap<u64, Option<Arc<Workload>>>,
}

impl View {
    /// What is remembered of sockets, in their order: cookies, and inodes of their files, 0 for none.
    pub fn recall(&self, sockets: impl Iterator<Item = (u64, u32)> + Clone) -> Vec<Remembered> {
        let known = self.owners.0.sockets.get_all(sockets.clone().map(|(cookie, _)| cookie));
        known
            .into_iter()
            .zip(sockets)
            .map(|(known, socket)| Remembered(known.or_else(|| self.scanned(socket))))
            .collect()
    }

    /// An owner that an event told a moment ago.
    pub fn told(owner: Owner) -> Remembered {
        Remembered(Some(Entry { owner, learned_ktime_ns: u64::MAX }))
    }

    /// What is known of a socket of which this is remembered, in this cgroup of version 2 (0: not known).
    pub fn of(&mut self, Remembered(entry): &Remembered, cgroup_id: u64) -> Known<'_> {
        let Self { owners, processes, cgroups, .. } = self;
        let (owner, workload) = entry.as_ref().map_or((None, None), |entry| entry.judge(processes));
        Known { owner, workload: workload.or_else(|| of_cgroup(cgroup_id, owners, cgroups)) }
    }

    /// The socket of an event that had no cookie (before 5.12) got this one by being asked for.
    pub fn name(&self, cookie: u64, owner: Owner) {
        self.owners.learn(cookie, owner, now());
    }

    fn scanned(&self, (cookie, inode): (u64, u32)) -> Option<Entry> {
        let entry = *self.scanned.get(&inode)?;
        self.owners.learn(cookie, entry.owner, entry.learned_ktime_ns);
        Some(entry)
    }
}

/// The workload of a cgroup of version 2; of the root (1) none.
fn of_cgroup<'a>(
    id: u64,
    Owners(shared): &Owners,
    known: &'a mut HashMap<u64, Option<Arc<Workload>>>,
) -> Option<&'a Arc<Workload>> {
    if id <= 1 {
        return None;
    }
    let ask = || shared.directory.of_cgroup_id(id).or_else(|| shared.cgroups.of(id, &shared.directory));
    known.entry(id).or_insert_with(ask).as_ref()
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
