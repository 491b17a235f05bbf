//! One walk over the descriptors of all processes, for the sockets that are older than the agent (`--process-scan`).
//!
//! A socket that several processes hold is nobody's: which of them uses it cannot be told.

use std::collections::hash_map::Entry as Slot;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use foldhash::HashMap;
use nix::errno::Errno;
use xtcp_proto::event::v1::OwnerSource;

use super::processes::{self, Stat};
use super::sockets::{ENTRY_BYTES, Entry};
use super::{Owners, POLLS_AFTER_SCAN, now};
use crate::connections::Owner;

/// Descriptors after which it rests, and for how long: at most 100 000 a second.
const BREATH: (usize, Duration) = (500, Duration::from_millis(5));

/// What a walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Processes whose descriptors were looked at.
    pub processes: u64,
    /// Processes whose descriptors may not be looked at (`EACCES`, `EPERM`).
    pub denied: u64,
    /// Processes that ended meanwhile.
    pub gone: u64,
    /// The other processes are not even listed (`hidepid`).
    pub hidden: bool,
    /// Sockets that one process holds.
    pub sockets: u64,
    /// Sockets that several processes hold.
    pub shared: u64,
    /// Sockets that found no room.
    pub dropped: u64,
}

/// Who holds a socket.
enum Holder {
    One(Entry),
    Several,
}

pub(super) fn spawn(owners: Owners) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("xtcp-scan".to_owned()).spawn(move || match run(&owners, true) {
        Ok(scanned) => tracing::info!(
            processes = scanned.processes,
            denied = scanned.denied,
            sockets = scanned.sockets,
            shared = scanned.shared,
            "--process-scan: descriptors were looked through"
        ),
        Err(error) => tracing::warn!(%error, "--process-scan: processes cannot be listed"),
    })
}

/// Walks, and puts what was found where rows are looked up; `slowly` with rests.
pub(super) fn run(owners: &Owners, slowly: bool) -> io::Result<Scanned> {
    let shared = &owners.0;
    let mut walk = Walk {
        scanned: Scanned::default(),
        holders: HashMap::default(),
        room: shared.settings.bytes / ENTRY_BYTES,
        left: BREATH.0,
        slowly,
    };
    walk.processes(owners)?;
    let Walk { mut scanned, holders, .. } = walk;
    let found: HashMap<u32, Entry> = holders
        .into_iter()
        .filter_map(|(inode, holder)| match holder {
            Holder::One(entry) => Some((inode, entry)),
            Holder::Several => None,
        })
        .collect();
    scanned.sockets = found.len() as u64;
    shared.metrics.scanned(&scanned);
    if scanned.hidden {
        tracing::warn!(
            "--process-scan: /proc is mounted with hidepid and shows only own processes: CAP_SYS_PTRACE (or root) shows \
             the others"
        );
    }
    *shared.scanned.write().unwrap_or_else(PoisonError::into_inner) = found.into();
    shared.scan_polls.store(POLLS_AFTER_SCAN, Ordering::Relaxed);
    Ok(scanned)
}

struct Walk {
    scanned: Scanned,
    holders: HashMap<u32, Holder>,
    room: usize,
    left: usize,
    slowly: bool,
}

impl Walk {
    fn processes(&mut self, owners: &Owners) -> io::Result<()> {
        let proc = &owners.0.settings.proc;
        let own = std::process::id();
        // The first process is there unless it is hidden.
        self.scanned.hidden = true;
        for entry in fs::read_dir(proc)? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if owners.tracked().stopped {
                return Ok(());
            }
            self.scanned.hidden &= pid != 1;
            if pid != own {
                self.process(proc, pid);
            }
        }
        Ok(())
    }

    fn process(&mut self, proc: &Path, pid: u32) {
        let learned_ktime_ns = now();
        let Stat::Alive(comm, _) = processes::stat(proc, pid) else {
            self.scanned.gone += 1;
            return;
        };
        let owner = Owner { pid, comm, source: OwnerSource::FdWalk, exit_signal: 0 };
        let entry = Entry { owner, learned_ktime_ns };
        let descriptors = match fs::read_dir(proc.join(pid.to_string()).join("fd")) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EACCES | Errno::EPERM) => self.scanned.denied += 1,
                    _ => self.scanned.gone += 1,
                }
                return;
            }
        };
        self.scanned.processes += 1;
        for descriptor in descriptors.flatten() {
            self.breathe();
            if let Some(inode) = fs::read_link(descriptor.path()).ok().and_then(|file| socket_inode(&file)) {
                self.holds(inode, entry);
            }
        }
    }

    fn holds(&mut self, inode: u32, entry: Entry) {
        let full = self.holders.len() >= self.room;
        match self.holders.entry(inode) {
            Slot::Occupied(mut known) => {
                if matches!(known.get(), Holder::One(one) if one.owner.pid != entry.owner.pid) {
                    known.insert(Holder::Several);
                    self.scanned.shared += 1;
                }
            }
            Slot::Vacant(_) if full => self.scanned.dropped += 1,
            Slot::Vacant(slot) => {
                slot.insert(Holder::One(entry));
            }
        }
    }

    fn breathe(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.left = BREATH.0;
            if self.slowly {
                thread::sleep(BREATH.1);
            }
        }
    }
}

/// `socket:[INODE]`.
fn socket_inode(file: &Path) -> Option<u32> {
    let text = str::from_utf8(file.as_os_str().as_bytes()).ok()?;
    text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
