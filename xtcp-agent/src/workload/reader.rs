//! The thread that reads whose processes are: `/proc/<pid>/cgroup`, for namespaces that came into being, for what looks at
//! the host found, and for processes that somebody asked about.
//!
//! An engine makes a namespace before it moves the process to its cgroup, and may make it in a process of its own: so
//! what is read of a newcomer is believed at once only where it names a container or a pod, and read again until then.

mod proc;

use std::collections::{HashMap, HashSet, hash_map};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::directory::{Directory, Members, Met, Question, SLICE};
use crate::clock::ktime_ns;
use crate::netns::Thread;
use proc::Processes;
pub(super) use proc::ReaderMetrics;

/// When a new namespace's process is read, after it was told of; the last is believed whatever it says.
const STEPS: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];
/// From this step on a look at all processes is asked for: whoever made it is not in it any more, or nobody told who did.
const STEPS_OF_LOOK: (usize, usize) = (2, 1);
/// New namespaces that are followed at a time.
const NEWCOMERS: usize = 4096;
/// Between two readings of what looks found, and between two looks that are asked for.
const PAUSE: Duration = Duration::from_secs(1);
/// How long what was read of a known namespace is not read again.
const FRESH: Duration = Duration::from_secs(10);
/// Without anything to do.
const IDLE: Duration = Duration::from_secs(60);

/// A namespace that came into being.
struct Newcomer {
    first: Option<Thread>,
    told: Instant,
    step: usize,
}

impl Newcomer {
    fn due(&self) -> Instant {
        self.told + STEPS.get(self.step).copied().unwrap_or_default()
    }
}

/// The reader and its state.
struct Reader {
    directory: Directory,
    processes: Processes,
    own_netns: u32,
    newcomers: HashMap<u32, Newcomer>,
    look: Option<Vec<(u32, Thread)>>,
    /// What is left of the look that is being read, in slices: namespaces, and some threads of each.
    reading: Option<hash_map::IntoIter<u32, Vec<Thread>>>,
    /// A first look was read: whoever appears from now on is new.
    started: bool,
    /// When each namespace's processes were read.
    read: HashMap<u32, Instant>,
    last_read: Option<Instant>,
    last_look: Option<Instant>,
    /// When one of the directory's chores is due.
    chore: Option<Instant>,
}

/// Starts the thread; it ends when nobody is left who could ask.
pub(super) fn spawn(
    directory: &Directory,
    asked: Receiver<Question>,
    own_netns: u32,
    metrics: ReaderMetrics,
) -> io::Result<()> {
    let mut reader = Reader::new(directory, own_netns, Processes::new(metrics));
    let thread = thread::Builder::new().name("xtcp-proc".to_owned());
    thread.spawn(move || while reader.turn(&asked) {}).map(drop)
}

/// Reads once what a look found.
pub(super) fn read_once(
    directory: &Directory,
    look: Vec<(u32, Thread)>,
    own_netns: u32,
    metrics: ReaderMetrics,
) {
    let mut reader = Reader::new(directory, own_netns, Processes::new(metrics));
    reader.look = Some(look);
    reader.begin_look();
    while reader.reading.is_some() {
        reader.read_look(Instant::now());
    }
}

impl Reader {
    fn new(directory: &Directory, own_netns: u32, processes: Processes) -> Self {
        Self {
            directory: directory.clone_for_reader(),
            processes,
            own_netns,
            newcomers: HashMap::new(),
            look: None,
            reading: None,
            started: false,
            read: HashMap::new(),
            last_read: None,
            last_look: None,
            chore: None,
        }
    }

    /// Whether to go on.
    fn turn(&mut self, asked: &Receiver<Question>) -> bool {
        match asked.recv_timeout(self.wait()) {
            Ok(question) => self.take(question),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        // However many are asked, looks and chores have their turn.
        let began = Instant::now();
        while began.elapsed() < SLICE
            && let Ok(question) = asked.try_recv()
        {
            self.take(question);
        }
        let now = Instant::now();
        self.read_newcomers(now);
        if self.reading.is_none() && self.last_read.is_none_or(|at| now >= at + PAUSE) {
            self.begin_look();
        }
        self.read_look(now);
        self.chore = self.directory.chores(Instant::now());
        true
    }

    fn wait(&self) -> Duration {
        if self.reading.is_some() {
            return Duration::ZERO;
        }
        let newcomer = self.newcomers.values().map(Newcomer::due).min();
        let look = self.look.as_ref().and(self.last_read).map(|at| at + PAUSE);
        let due = newcomer.into_iter().chain(look).chain(self.chore).min();
        due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()))
    }

    fn take(&mut self, question: Question) {
        match question {
            Question::Wake => {}
            Question::Born(inode, first) => {
                if self.newcomers.len() < NEWCOMERS {
                    self.newcomers.insert(inode, Newcomer { first, told: Instant::now(), step: 0 });
                }
            }
            Question::Ended(inode) => {
                self.newcomers.remove(&inode);
                self.read.remove(&inode);
            }
            Question::Look(look) => self.look = Some(look),
            Question::Process(pid) => {
                let began_ktime_ns = ktime_ns();
                let thread = Thread { pid, tid: pid };
                if let Some(inode) = self.processes.netns(thread) {
                    let ended_ktime_ns = ktime_ns();
                    let members = self.members(inode, &[thread]);
                    // Other processes may be in it too: what a look said of more of them stays.
                    if !members.places.is_empty() && !self.directory.is_settled(inode) {
                        self.directory.namespaces_seen(began_ktime_ns, vec![members]);
                    }
                    // Last, so that whoever learns of the namespace by this finds whose it is.
                    self.directory.met(Met { inode, thread, began_ktime_ns, ended_ktime_ns });
                }
            }
            Question::Cgroup(pid) => {
                let at = ktime_ns();
                let read = self.processes.cgroup(pid);
                let (place, id) = read.map_or((None, None), |(place, id)| (Some(place), id));
                self.directory.process_seen(pid, place.as_ref(), id, at);
            }
        }
    }

    fn read_newcomers(&mut self, now: Instant) {
        let due: Vec<u32> =
            self.newcomers.iter().filter(|(_, one)| one.due() <= now).map(|(inode, _)| *inode).collect();
        for inode in due {
            let Some(Newcomer { first, told, step }) = self.newcomers.remove(&inode) else { continue };
            if self.directory.is_settled(inode) {
                continue;
            }
            let began = ktime_ns();
            let members = first.map(|thread| self.members(inode, &[thread]));
            let members = members.filter(|members| !members.places.is_empty());
            let certain = members.as_ref().is_some_and(Members::name_a_container);
            let last = step + 1 >= STEPS.len();
            let of_look = if first.is_some() { STEPS_OF_LOOK.0 } else { STEPS_OF_LOOK.1 };
            match members {
                Some(members) if certain || (last && !self.directory.knows(inode)) => {
                    self.directory.namespaces_seen(began, vec![members]);
                }
                None if step >= of_look => self.want_look(now),
                Some(_) | None => {}
            }
            if !certain && !last {
                self.newcomers.insert(inode, Newcomer { first, told, step: step + 1 });
            }
        }
    }

    fn want_look(&mut self, now: Instant) {
        if self.last_look.is_none_or(|at| now >= at + PAUSE) {
            self.last_look = Some(now);
            self.directory.want_look();
        }
    }

    /// Begins to read what the last look found, if there was one.
    fn begin_look(&mut self) {
        let Some(look) = self.look.take() else { return };
        let mut found: HashMap<u32, Vec<Thread>> = HashMap::new();
        for (inode, thread) in look {
            found.entry(inode).or_default().push(thread);
        }
        self.read.retain(|inode, _| found.contains_key(inode));
        self.reading = Some(found.into_iter());
    }

    /// Reads a slice of what the look found.
    fn read_look(&mut self, now: Instant) {
        let Some(mut reading) = self.reading.take() else { return };
        let began = ktime_ns();
        let mut seen = Vec::new();
        let left = loop {
            let Some((inode, threads)) = reading.next() else { break false };
            seen.extend(self.read_found(inode, &threads, now));
            if now.elapsed() >= SLICE {
                break true;
            }
        };
        self.directory.namespaces_seen(began, seen);
        if left {
            self.reading = Some(reading);
        } else {
            self.started = true;
            self.last_read = Some(Instant::now());
        }
    }

    /// Who is in a namespace that a look found; `None` where that is known well enough, or is not to be believed yet.
    fn read_found(&mut self, inode: u32, threads: &[Thread], now: Instant) -> Option<Members> {
        let fresh = self.read.get(&inode).is_some_and(|at| now < *at + FRESH);
        if fresh && self.directory.is_settled(inode) {
            return None;
        }
        let members = self.members(inode, threads);
        if members.places.is_empty() {
            return None;
        }
        let is_new = self.started && !self.directory.knows(inode);
        let may_move = !members.name_a_container() && (is_new || self.newcomers.contains_key(&inode));
        if may_move && self.newcomers.len() < NEWCOMERS {
            let told = now.checked_sub(STEPS[1]).unwrap_or(now);
            let first = threads.first().copied();
            self.newcomers.entry(inode).or_insert(Newcomer { first, told, step: 2 });
            return None;
        }
        self.read.insert(inode, now);
        Some(members)
    }

    /// Reads the cgroups of these threads' processes, where they are in the namespace still. The agent's own threads are
    /// in others for moments only.
    fn members(&self, inode: u32, threads: &[Thread]) -> Members {
        let mut places = Vec::new();
        let mut known = HashSet::new();
        let mut of_host = inode == self.own_netns;
        for thread in threads.iter().filter(|thread| thread.pid != self.processes.own_pid()) {
            let Some((place, cgroup_id)) = self.processes.cgroup(thread.pid) else { continue };
            if self.processes.netns(*thread) != Some(inode) {
                continue;
            }
            self.directory.process_seen(thread.pid, Some(&place), cgroup_id, ktime_ns());
            of_host |= thread.pid == 1;
            if known.insert(place.path.clone()) {
                places.push(place);
            }
        }
        Members { inode, places, of_host }
    }
}

#[cfg(test)]
mod tests;
