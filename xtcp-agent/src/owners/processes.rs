//! Whether the processes that own sockets live, what they are called, and whose they are: read from `/proc` in the
//! background, those that are new at once, the others in turn.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use super::{Owners, comm_of, now};
use crate::workload::Workload;
use crate::workload::cgroup::Place;

/// How often processes are looked at again.
const ROUND: Duration = Duration::from_secs(1);
/// New ones are gathered for so long.
const GATHER: Duration = Duration::from_millis(20);
/// Processes that one round looks at, at most: about 10 ms of a processor.
const PER_ROUND: usize = 1_000;
/// `PROC_PID_INIT_INO` of the kernel's `proc_ns.h`: the pid namespace whose ids events tell.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// What is known of a process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// When it began, ticks since boot.
    began_ticks: u64,
    /// The same as `CLOCK_MONOTONIC` nanoseconds, not later than it was.
    began_ktime_ns: u64,
    /// Its command name.
    pub(super) comm: [u8; 16],
    /// Whose it is.
    pub(super) workload: Option<Arc<Workload>>,
    /// When all of this was so.
    pub(super) checked_ktime_ns: u64,
}

impl Process {
    /// Whether what was told at that time can have been told of it.
    pub(super) fn began_before(&self, ktime_ns: u64) -> bool {
        self.began_ktime_ns <= ktime_ns
    }
}

/// Processes that own sockets.
#[derive(Default)]
pub(super) struct Tracked {
    /// How many sockets each has.
    sockets: HashMap<u32, usize>,
    /// Not looked at yet.
    fresh: Vec<u32>,
    /// In turn; those that own no socket any more are left out when theirs comes.
    turns: VecDeque<u32>,
    pub(super) stopped: bool,
}

impl Tracked {
    /// True where someone new waits since now.
    pub(super) fn track(&mut self, pid: u32) -> bool {
        let sockets = self.sockets.entry(pid).or_default();
        *sockets += 1;
        let is_new = *sockets == 1;
        if is_new {
            self.fresh.push(pid);
        }
        is_new && self.fresh.len() == 1
    }

    pub(super) fn untrack(&mut self, pid: u32) {
        if let Some(sockets) = self.sockets.get_mut(&pid) {
            *sockets -= 1;
            if *sockets == 0 {
                self.sockets.remove(&pid);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Who is to be looked at: the new ones, and if `round` others in turn.
    fn due(&mut self, round: bool) -> Vec<u32> {
        let Self { sockets, fresh, turns, .. } = self;
        let mut due: Vec<u32> = Vec::new();
        let mut seen = HashSet::new();
        let others = if round { turns.len().min(PER_ROUND) } else { 0 };
        for pid in fresh.drain(..).chain(turns.drain(..others)) {
            if sockets.contains_key(&pid) && seen.insert(pid) {
                due.push(pid);
            }
        }
        // A process that lost all its sockets and got one anew stands there twice.
        turns.retain(|pid| !seen.contains(pid));
        turns.extend(due.iter());
        due
    }
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stat {
    /// Name, and when it began in ticks since boot.
    Alive([u8; 16], u64),
    Gone,
    /// It may not be looked at, or what was read is not understood.
    Hidden,
}

/// Reads `/proc/<pid>/stat`.
pub(super) fn stat(proc: &Path, pid: u32) -> Stat {
    match fs::read(proc.join(pid.to_string()).join("stat")) {
        Ok(bytes) => parse(&bytes).unwrap_or(Stat::Hidden),
        Err(error) if is_gone(&error) => Stat::Gone,
        Err(_) => Stat::Hidden,
    }
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ESRCH))
}

/// The name stands in parentheses and may hold some itself; `starttime` is the twentieth number behind it
/// (`proc_pid_stat(5)`, field 22). A zombie without other threads holds no descriptors any more: it is as good as gone.
fn parse(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|byte| *byte == b'(')?;
    let close = bytes.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let threads: i64 = fields.nth(16)?.parse().ok()?;
    let began = fields.nth(1)?.parse().ok()?;
    if is_zombie && threads <= 1 {
        return Some(Stat::Gone);
    }
    Some(Stat::Alive(comm_of(bytes.get(open + 1..close)?), began))
}

/// Turns ticks since boot into `CLOCK_MONOTONIC` nanoseconds.
pub(super) struct Ticks {
    ns: u64,
    /// Time that the host was suspended.
    suspended_ns: u64,
}

impl Ticks {
    pub(super) fn now() -> Self {
        let per_s = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(|time| {
            let s = u64::try_from(time.tv_sec()).unwrap_or(0);
            s * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
        });
        Self {
            ns: 1_000_000_000 / per_s.filter(|ticks| *ticks > 0).unwrap_or(100),
            suspended_ns: boot.unwrap_or(0).saturating_sub(now()),
        }
    }

    fn ktime_ns(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(self.ns).saturating_sub(self.suspended_ns)
    }
}

/// Whether `/proc` has the ids that events tell.
fn is_initial_pid_namespace(proc: &Path) -> bool {
    fs::metadata(proc.join("self/ns/pid")).is_ok_and(|ns| ns.ino() == INITIAL_PID_NAMESPACE)
}

/// What is done of this in the thread that reads `/proc`.
pub(super) struct Watch {
    owners: Owners,
    last_round: Instant,
    /// When the new ones have been gathered.
    gathered: Option<Instant>,
    /// What engines had told by the last turn.
    told: u64,
}

impl Watch {
    /// Nothing where `/proc` does not have the ids that events tell.
    pub(super) fn new(owners: Owners) -> Option<Self> {
        if !is_initial_pid_namespace(&owners.0.settings.proc) {
            tracing::warn!(
                "this agent is not in the host's pid namespace: owners of sockets are as events told them, without their \
                 cgroups, and one that has ended is not noticed (Kubernetes: hostPID: true)"
            );
            return None;
        }
        Some(Self::begin(owners))
    }

    /// Whatever `/proc` has.
    pub(super) fn begin(owners: Owners) -> Self {
        let told = owners.0.directory.told();
        Self { owners, last_round: Instant::now(), gathered: None, told }
    }

    /// Does what is due; when the next thing will be, `None` at the end.
    pub(super) fn turn(&mut self, now: Instant) -> Option<Instant> {
        let told = self.owners.0.directory.told();
        if std::mem::replace(&mut self.told, told) != told {
            name_anew(&self.owners);
        }
        let mut tracked = self.owners.tracked();
        if tracked.stopped {
            return None;
        }
        if self.gathered.is_none() && !tracked.fresh.is_empty() {
            self.gathered = Some(now + GATHER);
        }
        let round = now >= self.last_round + ROUND;
        if round || self.gathered.is_some_and(|at| now >= at) {
            let due = tracked.due(round);
            drop(tracked);
            self.gathered = None;
            look(&self.owners, &due);
            if round {
                self.last_round = now;
                self.owners.0.cgroups.look(&self.owners.0.settings.proc);
            }
        }
        let next_round = self.last_round + ROUND;
        Some(self.gathered.map_or(next_round, |at| at.min(next_round)))
    }
}

/// Takes in what engines have told since: a process met before has its container's name without waiting for its turn.
fn name_anew(owners: &Owners) {
    let shared = &owners.0;
    let mut known = HashMap::clone(&shared.processes.read().unwrap_or_else(PoisonError::into_inner));
    for process in known.values_mut() {
        let cgroup = process.workload.as_ref().and_then(|workload| workload.cgroup.as_deref());
        if let Some(cgroup) = cgroup {
            process.workload = shared.directory.of_cgroup(cgroup);
        }
    }
    *shared.processes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
}

/// Looks at processes, publishes what was seen, and takes sockets from those that are gone.
pub(super) fn look(owners: &Owners, due: &[u32]) {
    let shared = &owners.0;
    if due.is_empty() {
        return;
    }
    let ticks = Ticks::now();
    let mut seen = HashMap::default();
    let mut gone = HashMap::default();
    for pid in due {
        let checked_ktime_ns = now();
        match stat(&shared.settings.proc, *pid) {
            Stat::Alive(comm, began) => {
                let began_ktime_ns = ticks.ktime_ns(began);
                let workload = shared.workload_of(*pid);
                let process =
                    Process { began_ticks: began, began_ktime_ns, comm, workload, checked_ktime_ns };
                seen.insert(*pid, process);
            }
            Stat::Gone => {
                gone.insert(*pid, checked_ktime_ns);
            }
            Stat::Hidden => shared.metrics.hidden(),
        }
    }
    let mut known = HashMap::clone(&shared.processes.read().unwrap_or_else(PoisonError::into_inner));
    {
        let tracked = owners.tracked();
        known.retain(|pid, _| tracked.sockets.contains_key(pid) && !gone.contains_key(pid));
    }
    let is_another = |pid: &u32, process: &Process| {
        known.get(pid).is_some_and(|was| was.began_ticks != process.began_ticks)
    };
    let reused = seen.iter().any(|(pid, process)| is_another(pid, process));
    known.extend(seen.iter().map(|(pid, process)| (*pid, process.clone())));
    *shared.processes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    let lost = |entry: &super::Entry| {
        let learned = entry.learned_ktime_ns;
        let pid = entry.owner.pid;
        entry.is_alive()
            && (gone.get(&pid).is_some_and(|at| learned <= *at)
                || seen.get(&pid).is_some_and(|process| !process.began_before(learned)))
    };
    if gone.is_empty() && !reused {
        return;
    }
    let taken = shared.sockets.take(lost);
    let mut tracked = owners.tracked();
    for entry in taken {
        shared.metrics.outlived();
        tracked.untrack(entry.owner.pid);
    }
}

impl super::Shared {
    fn workload_of(&self, pid: u32) -> Option<Arc<Workload>> {
        let text = fs::read_to_string(self.settings.proc.join(pid.to_string()).join("cgroup")).ok()?;
        self.directory.of_cgroup(&Place::of_process(&text)?.path)
    }
}
