//! What is known of workloads, in memory, within a budget.
//!
//! Whoever fills it (the reader of `/proc`, the clients of container engines) does so in the background; whoever asks
//! has the answer at once. What a namespace's workload is called is kept for the namespace's life, also when its last
//! process and the container are gone.

mod facts;
mod memory;
mod metrics;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::cgroup::Place;
use super::{Source, Workload};
use crate::netns::{NetnsId, Thread};
pub use facts::{ContainerFacts, LabelChoice, OptOut, PodFacts};
use memory::{Memory, Namespaces};
pub use metrics::DirectoryMetrics;

/// Questions that may wait for the reader of `/proc`; what is more is dropped and counted, and found by the next look.
const QUESTIONS: usize = 4096;

/// What the reader of `/proc` is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A namespace came into being; who is in it may change yet. The thread was the first inside.
    Born(u32, Option<Thread>),
    /// A namespace is dead.
    Ended(u32),
    /// What a look at the host found: some threads of each namespace.
    Look(Vec<(u32, Thread)>),
    /// A namespace's first or only process.
    Process(u32),
    /// The cgroup of this process, whatever its namespace.
    Cgroup(u32),
    /// Nothing: one of the [`Chore`]s has something to do.
    Wake,
}

/// What the reader's thread does besides: what is due, and when something will be the next time; `None` at its end.
pub(crate) type Chore = Box<dyn FnMut(Instant) -> Option<Instant> + Send>;

/// How long one thing may keep the reader's thread, a walk over `/proc` or a chore, from the others: a process that somebody
/// asks about may end.
pub(crate) const SLICE: Duration = Duration::from_millis(5);

/// What has changed for namespaces since it was last asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Inodes of namespaces whose workload is another now.
    pub netns: Vec<u32>,
    /// Processes that engines told of, in namespaces that nobody else may have told of yet.
    pub met: Vec<Met>,
    /// A look at processes would help.
    pub look: bool,
}

/// A process that an engine told of, met in its namespace. Times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Inode of the namespace.
    pub inode: u32,
    /// The process's first thread.
    pub thread: Thread,
    /// Before it was looked at.
    pub began_ktime_ns: u64,
    /// After that.
    pub ended_ktime_ns: u64,
}

/// The memory, shared: a clone is the same directory.
#[derive(Clone)]
pub struct Directory {
    memory: Arc<Mutex<Memory>>,
    netns: Namespaces,
    changed: Arc<Notify>,
    strangers: watch::Sender<()>,
    questions: Option<SyncSender<Question>>,
    chores: Arc<Mutex<Vec<Chore>>>,
    /// How often engines have told of containers and pods.
    told: Arc<AtomicU64>,
    metrics: Option<DirectoryMetrics>,
}

impl Directory {
    /// An empty directory that takes at most so many bytes, and the questions that its users have for the reader of `/proc`.
    pub(super) fn new(budget: usize, metrics: Option<DirectoryMetrics>) -> (Self, Receiver<Question>) {
        let (questions, asked) = sync_channel(QUESTIONS);
        let memory = Memory::new(budget);
        let netns = memory.namespaces();
        let memory = Arc::new(Mutex::new(memory));
        let strangers = watch::Sender::default();
        let questions = Some(questions);
        let directory = Self {
            memory,
            netns,
            changed: Arc::default(),
            strangers,
            questions,
            chores: Arc::default(),
            told: Arc::default(),
            metrics,
        };
        (directory, asked)
    }

    /// A directory that nobody fills: it knows only what a cgroup's path says.
    pub fn detached() -> Self {
        Self::new(1 << 20, None).0
    }

    /// The workload that a namespace belongs to; `None` where it is not known, or belongs to several that have nothing in
    /// common.
    pub fn of_netns(&self, id: NetnsId) -> Option<Arc<Workload>> {
        self.netns.workload(id.inode)
    }

    /// The workload that a cgroup belongs to, by its path as `/proc/<pid>/cgroup` has it; `None` where the path tells
    /// nothing.
    pub fn of_cgroup(&self, path: &str) -> Option<Arc<Workload>> {
        self.answer(|memory| memory.of_cgroup(path))
    }

    /// The workload that a cgroup of version 2 belongs to, by its id (the inode of its folder), as eBPF and inet_diag tell
    /// it; `None` where no process of it was met. Ids are not used again within a boot.
    pub fn of_cgroup_id(&self, id: u64) -> Option<Arc<Workload>> {
        self.answer(|memory| memory.of_cgroup_id(id))
    }

    /// The workload that a process belongs to; `None` where it is not known yet: then its cgroup is read in the
    /// background, and the next one who asks may know more. What is known of a process is believed for ten seconds.
    pub fn of_pid(&self, pid: u32) -> Option<Arc<Workload>> {
        let known = self.answer(|memory| memory.of_pid(pid, crate::clock::ktime_ns()));
        known.unwrap_or_else(|| {
            self.ask(Question::Cgroup(pid));
            None
        })
    }

    /// A namespace came into being, with its first thread where that is known.
    pub fn netns_born(&self, id: NetnsId, first: Option<Thread>) {
        self.ask(Question::Born(id.inode, first));
    }

    /// A namespace is dead: at this time, `CLOCK_MONOTONIC` nanoseconds, or before.
    pub fn netns_ended(&self, id: NetnsId, at_ktime_ns: u64) {
        self.lock().netns_ended(id.inode, at_ktime_ns);
        self.ask(Question::Ended(id.inode));
    }

    /// A look at the host found these threads.
    pub fn looked(&self, threads: &[(u32, Thread)]) {
        self.ask(Question::Look(threads.to_vec()));
    }

    /// Gives the reader's thread something else to do: one thread for all that reads `/proc`.
    pub(crate) fn also(&self, chore: Chore) {
        self.chores.lock().unwrap_or_else(PoisonError::into_inner).push(chore);
        self.wake();
    }

    /// One of the chores has something to do now. Where no question finds room the reader is awake.
    pub(crate) fn wake(&self) {
        self.questions.as_ref().map(|to| to.try_send(Question::Wake));
    }

    /// Does what is due of the chores; when something will be the next time.
    pub(super) fn chores(&self, now: Instant) -> Option<Instant> {
        let mut next = None;
        let mut chores = self.chores.lock().unwrap_or_else(PoisonError::into_inner);
        chores.retain_mut(|chore| {
            let due = chore(now);
            next = next.into_iter().chain(due).min();
            due.is_some()
        });
        next
    }

    /// Waits until something has changed for namespaces.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Tells when a container is met of which no engine has told: an engine that tells nothing by itself is to be asked.
    pub(super) fn strangers(&self) -> watch::Receiver<()> {
        self.strangers.subscribe()
    }

    /// What has changed since the last call.
    pub fn take_changes(&self) -> Changes {
        self.lock().take_changes()
    }

    /// Asks for a look at processes.
    pub(super) fn want_look(&self) {
        self.lock().want_look();
        self.changed.notify_one();
    }

    /// A process that an engine told of was met in a namespace.
    pub(super) fn met(&self, met: Met) {
        self.lock().met(met);
        self.changed.notify_one();
    }

    /// Whether a namespace was met.
    pub(super) fn knows(&self, inode: u32) -> bool {
        self.lock().knows(inode)
    }

    /// What everything takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lock().usage().kinds.iter().map(|(_, bytes, _)| bytes).sum()
    }

    /// Whether a process's cgroup was read.
    #[cfg(test)]
    pub(super) fn knows_process(&self, pid: u32) -> bool {
        self.lock().of_pid(pid, crate::clock::ktime_ns()).is_some()
    }

    /// The same directory for the reader, which asks nothing itself: when all others are gone, it ends.
    pub(super) fn clone_for_reader(&self) -> Self {
        Self { questions: None, ..self.clone() }
    }

    /// Whether a namespace's container or pod is known.
    pub(super) fn is_settled(&self, inode: u32) -> bool {
        self.lock().is_settled(inode)
    }

    /// Takes in whose the processes of some namespaces are, read since `began_ktime_ns`.
    pub(super) fn namespaces_seen(&self, began_ktime_ns: u64, seen: Vec<Members>) {
        self.update(|memory| memory.namespaces_seen(began_ktime_ns, seen));
    }

    /// Takes in a process's cgroup; `None` when the process is gone.
    pub(super) fn process_seen(
        &self,
        pid: u32,
        place: Option<&Place>,
        cgroup_id: Option<u64>,
        at_ktime_ns: u64,
    ) {
        self.lock().process_seen(pid, place, cgroup_id, at_ktime_ns);
    }

    /// Takes in what an engine told of containers and pods.
    pub(crate) fn learn(&self, containers: Vec<ContainerFacts>, pods: Vec<PodFacts>) {
        self.update(|memory| memory.learn(containers, pods));
        self.told.fetch_add(1, Ordering::Release);
        self.wake();
    }

    /// Another number than before: engines have told something since, and workloads may have got names.
    pub(crate) fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// An engine told that a container (or sandbox) is gone.
    pub(super) fn forget_container(&self, id: &str) {
        self.lock().forget_container(id);
    }

    /// The engine told of exactly these: what it told of others before is of the past.
    pub(super) fn keep_containers(&self, source: Source, runtime: &str, ids: &HashSet<String>) {
        self.lock().keep_containers(source, runtime, ids);
    }

    /// Asks the reader; what finds no room is counted.
    pub(super) fn ask(&self, question: Question) {
        if self.questions.as_ref().is_some_and(|to| to.try_send(question).is_err()) {
            self.metrics.iter().for_each(DirectoryMetrics::question_dropped);
        }
    }

    /// Writes the gauges.
    pub fn report(&self) {
        let usage = self.lock().usage();
        self.metrics.iter().for_each(|metrics| metrics.report(&usage));
    }

    fn update(&self, work: impl FnOnce(&mut Memory) -> bool) {
        let changed = self.answer(work);
        if changed {
            self.changed.notify_one();
        }
    }

    fn answer<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.lock();
        let answer = work(&mut memory);
        let stranger = memory.take_stranger();
        drop(memory);
        if stranger {
            self.strangers.send_replace(());
        }
        answer
    }

    /// Nothing that is done under the lock can panic halfway: the memory is whole also after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who was met in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members {
    /// Its inode.
    pub(super) inode: u32,
    /// The cgroups of its processes, each once.
    pub(super) places: Vec<Place>,
    /// It is a host's: the first process is in it. Then it belongs to a workload only if all its processes do.
    pub(super) of_host: bool,
}

impl Members {
    /// Whether one of them is in a container or pod.
    pub(super) fn name_a_container(&self) -> bool {
        self.places.iter().any(|place| place.container.is_some() || place.pod_uid.is_some())
    }
}

#[cfg(test)]
mod tests;
