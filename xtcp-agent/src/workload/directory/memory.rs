//! The memory itself. No I/O and no clock.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::facts::{ContainerFacts, PodFacts};
use super::{Changes, Members, Met};
use crate::workload::budget::Budgeted;
use crate::workload::cgroup::Place;
use crate::workload::{Container, Pod, Source, Workload};

/// How long the cgroup of a process is believed: its number may be another's soon.
const PROCESS_NS: u64 = 10_000_000_000;
/// How long the end of a namespace is remembered: longer than any look at the host takes.
const GRAVE_NS: u64 = 60_000_000_000;
/// Graves after which the old ones are cleared away.
const GRAVES: usize = 1024;
/// Processes told by engines that may wait to be taken; those that find no room are found by the next look.
const MET: usize = 1024;

/// A namespace that was met.
#[derive(Debug)]
struct Netns {
    members: Members,
    workload: Arc<Workload>,
}

/// The namespaces that were met, with a lock of their own that nobody holds for long: every change event asks for one.
#[derive(Clone, Debug)]
pub(super) struct Namespaces(Arc<RwLock<Budgeted<u32, Netns>>>);

impl Namespaces {
    fn new(limit: usize) -> Self {
        Self(Arc::new(RwLock::new(Budgeted::new(limit))))
    }

    /// Whose one is, where anything of it is known. Being asked for is no use that counts.
    pub(super) fn workload(&self, inode: u32) -> Option<Arc<Workload>> {
        let namespaces = self.read();
        let workload = &namespaces.peek(&inode)?.workload;
        workload.is_known().then(|| Arc::clone(workload))
    }

    fn read(&self) -> RwLockReadGuard<'_, Budgeted<u32, Netns>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Budgeted<u32, Netns>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What takes how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Entries, bytes and evictions of each kind, in the order of [`KINDS`].
    pub(super) kinds: [(usize, usize, u64); 4],
    /// Namespaces whose workload opted out.
    pub(super) opted_out: usize,
}

/// Kinds of entries.
pub(super) const KINDS: [&str; 4] = ["netns", "cgroup", "container", "pod"];

/// Everything that is known.
#[derive(Debug)]
pub(super) struct Memory {
    netns: Namespaces,
    cgroups: Budgeted<String, Arc<Workload>>,
    /// By id of the cgroup; its path is in `cgroups`.
    cgroup_ids: Budgeted<u64, String>,
    processes: Budgeted<u32, (u64, Option<String>)>,
    containers: Budgeted<String, ContainerFacts>,
    pods: Budgeted<String, PodFacts>,
    graves: HashMap<u32, u64>,
    changed: HashSet<u32>,
    met: Vec<Met>,
    look: bool,
    /// A container was met of which no engine has told.
    stranger: bool,
}

impl Memory {
    pub(super) fn new(budget: usize) -> Self {
        // Namespaces carry a copy of what is known of them: they get the most.
        let share = budget / 8;
        Self {
            netns: Namespaces::new(4 * share),
            cgroups: Budgeted::new(share),
            cgroup_ids: Budgeted::new(share / 2),
            processes: Budgeted::new(share / 2),
            containers: Budgeted::new(share),
            pods: Budgeted::new(share),
            graves: HashMap::new(),
            changed: HashSet::new(),
            met: Vec::new(),
            look: false,
            stranger: false,
        }
    }

    pub(super) fn namespaces(&self) -> Namespaces {
        self.netns.clone()
    }

    pub(super) fn of_cgroup(&mut self, path: &str) -> Option<Arc<Workload>> {
        if let Some(workload) = self.cgroups.get(path) {
            return Some(Arc::clone(workload));
        }
        let place = Place::of_path(path);
        let workload = Arc::new(self.of_place(&place));
        if !workload.is_known() {
            return None;
        }
        self.cgroups.insert(path.to_owned(), Arc::clone(&workload), path.len() + workload.bytes());
        Some(workload)
    }

    pub(super) fn of_cgroup_id(&mut self, id: u64) -> Option<Arc<Workload>> {
        let path = self.cgroup_ids.get(&id)?.clone();
        self.of_cgroup(&path)
    }

    /// `None`: its cgroup is to be read. `Some(None)`: it was, and tells nothing.
    #[expect(clippy::option_option, reason = "not known, and known to be nobody's, are two things")]
    pub(super) fn of_pid(&mut self, pid: u32, now: u64) -> Option<Option<Arc<Workload>>> {
        let (at, path) = self.processes.get(&pid)?;
        if now.saturating_sub(*at) > PROCESS_NS {
            return None;
        }
        let path = path.clone();
        Some(path.and_then(|path| self.of_cgroup(&path)))
    }

    pub(super) fn process_seen(
        &mut self,
        pid: u32,
        place: Option<&Place>,
        cgroup_id: Option<u64>,
        at_ktime_ns: u64,
    ) {
        let path = place.map(|place| place.path.clone());
        if let (Some(id), Some(path)) = (cgroup_id, &path) {
            self.cgroup_ids.insert(id, path.clone(), path.len());
        }
        let bytes = path.as_ref().map_or(0, String::len);
        self.processes.insert(pid, (at_ktime_ns, path), bytes);
    }

    pub(super) fn netns_ended(&mut self, inode: u32, at_ktime_ns: u64) {
        self.netns.write().remove(&inode);
        self.changed.remove(&inode);
        if self.graves.len() >= GRAVES {
            self.graves.retain(|_, dead| at_ktime_ns.saturating_sub(*dead) < GRAVE_NS);
        }
        self.graves.insert(inode, at_ktime_ns);
    }

    pub(super) fn take_changes(&mut self) -> Changes {
        Changes {
            netns: std::mem::take(&mut self.changed).into_iter().collect(),
            met: std::mem::take(&mut self.met),
            look: std::mem::take(&mut self.look),
        }
    }

    /// Whether a container was met since the last call of which no engine had told.
    pub(super) fn take_stranger(&mut self) -> bool {
        std::mem::take(&mut self.stranger)
    }

    pub(super) fn met(&mut self, met: Met) {
        if self.met.len() < MET {
            self.met.push(met);
        }
        self.look |= self.met.len() >= MET;
    }

    pub(super) fn want_look(&mut self) {
        self.look = true;
    }

    pub(super) fn knows(&self, inode: u32) -> bool {
        self.netns.read().peek(&inode).is_some()
    }

    pub(super) fn is_settled(&self, inode: u32) -> bool {
        let namespaces = self.netns.read();
        let workload = namespaces.peek(&inode).map(|known| &known.workload);
        workload.is_some_and(|workload| workload.container.is_some() || workload.pod.is_some())
    }

    /// Whether something changed.
    pub(super) fn namespaces_seen(&mut self, began_ktime_ns: u64, seen: Vec<Members>) -> bool {
        let mut changed = false;
        for members in seen {
            // Whoever lived under this inode then is dead.
            if self.graves.get(&members.inode).is_some_and(|dead| began_ktime_ns <= *dead) {
                continue;
            }
            changed |= self.settle(members);
        }
        changed
    }

    /// Whether something changed.
    pub(super) fn learn(&mut self, containers: Vec<ContainerFacts>, pods: Vec<PodFacts>) -> bool {
        let mut ids = HashSet::new();
        for facts in containers {
            let Container { id, name, image, runtime } = &facts.container;
            if self.containers.peek(id) == Some(&facts) {
                continue;
            }
            ids.insert(id.clone());
            let uid = facts.pod_uid.as_ref().map_or(0, String::len);
            let bytes =
                size_of::<ContainerFacts>() + 2 * id.len() + name.len() + image.len() + runtime.len() + uid;
            self.containers.insert(id.clone(), facts, bytes);
        }
        for facts in pods {
            let Pod { name, namespace, uid, labels } = &facts.pod;
            if self.pods.peek(uid) == Some(&facts) {
                continue;
            }
            ids.insert(uid.clone());
            let labels: usize = labels.iter().map(|label| label.len() + size_of::<String>()).sum();
            let bytes = size_of::<PodFacts>() + 2 * uid.len() + name.len() + namespace.len() + labels;
            self.pods.insert(uid.clone(), facts, bytes);
        }
        if ids.is_empty() {
            return false;
        }
        let concerns = |place: &Place| {
            place.container.as_ref().is_some_and(|(id, _)| ids.contains(id))
                || place.pod_uid.as_ref().is_some_and(|uid| ids.contains(uid))
        };
        self.cgroups.retain(|path, workload| {
            let uid = workload.pod.as_ref().is_some_and(|pod| ids.contains(&pod.uid));
            !uid && !concerns(&Place::of_path(path))
        });
        let again: Vec<Members> = self
            .netns
            .read()
            .iter()
            .filter(|(_, known)| {
                let uid = known.workload.pod.as_ref().is_some_and(|pod| ids.contains(&pod.uid));
                uid || known.members.places.iter().any(concerns)
            })
            .map(|(_, known)| known.members.clone())
            .collect();
        let mut changed = false;
        for members in again {
            changed |= self.settle(members);
        }
        changed
    }

    pub(super) fn forget_container(&mut self, id: &str) {
        self.containers.remove(id);
    }

    pub(super) fn keep_containers(&mut self, source: Source, runtime: &str, ids: &HashSet<String>) {
        let told = |facts: &ContainerFacts| facts.source == source && facts.container.runtime == runtime;
        self.containers.retain(|id, facts| !told(facts) || ids.contains(id));
    }

    pub(super) fn usage(&self) -> Usage {
        fn of<K: std::hash::Hash + Eq, V>(map: &Budgeted<K, V>) -> (usize, usize, u64) {
            (map.len(), map.bytes(), map.evicted())
        }
        let sum = |one: (usize, usize, u64), two: (usize, usize, u64)| (one.0, one.1 + two.1, one.2 + two.2);
        let cgroups = sum(sum(of(&self.cgroups), of(&self.cgroup_ids)), of(&self.processes));
        let namespaces = self.netns.read();
        Usage {
            kinds: [of(&namespaces), cgroups, of(&self.containers), of(&self.pods)],
            opted_out: namespaces.iter().filter(|(_, known)| known.workload.opted_out).count(),
        }
    }

    /// Concludes whose a namespace is. Whether that is news.
    fn settle(&mut self, members: Members) -> bool {
        let mut workloads: Vec<Workload> = members.places.iter().map(|place| self.of_place(place)).collect();
        let of_engine = |workload: &Workload| workload.container.is_some() || workload.pod.is_some();
        // A tool of the host that looks into a container's namespace does not make it the host's.
        if !members.of_host && workloads.iter().any(of_engine) {
            workloads.retain(of_engine);
        }
        let mut workload = Self::joint(workloads);
        let before = self.netns.read().peek(&members.inode).map(|known| Arc::clone(&known.workload));
        if let Some(before) = &before {
            workload.keep_names_of(before);
        }
        let inode = members.inode;
        if before.as_deref() == Some(&workload) {
            // So that it counts as used, with the members of now.
            let bytes = weight(&members, &workload);
            let workload = before.unwrap_or_default();
            self.netns.write().insert(inode, Netns { members, workload }, bytes);
            return false;
        }
        let bytes = weight(&members, &workload);
        self.netns.write().insert(inode, Netns { members, workload: Arc::new(workload) }, bytes);
        self.changed.insert(inode);
        true
    }

    /// What all of these have in common. A pod's namespace is no container's, also where only one was met so far: the next
    /// one has connections before anybody could tell of it.
    fn joint(workloads: Vec<Workload>) -> Workload {
        let mut joint = workloads.into_iter().reduce(|one, two| one.in_common(&two)).unwrap_or_default();
        if joint.pod.is_some() {
            joint.container = None;
            joint.cgroup = None;
        }
        joint
    }

    /// What a path says, and what engines tell of the ids in it.
    fn of_place(&mut self, place: &Place) -> Workload {
        let facts = place.container.as_ref().and_then(|(id, _)| self.containers.get(id).cloned());
        self.stranger |= place.container.is_some() && facts.is_none();
        let container = place.container.as_ref().map(|(id, runtime)| Container {
            id: id.clone(),
            runtime: runtime.unwrap_or_default().to_owned(),
            ..Container::default()
        });
        let cgroup = (place.path != "/").then(|| place.path.clone());
        let source = if cgroup.is_some() { Source::Cgroup } else { Source::Unknown };
        let mut workload =
            Workload { container, pod: None, unit: place.unit.clone(), cgroup, source, opted_out: false };
        let mut uid = place.pod_uid.clone();
        if let Some(facts) = facts {
            uid = uid.or(facts.pod_uid);
            workload.container = (!facts.is_sandbox).then_some(facts.container);
            workload.source = facts.source;
            workload.opted_out |= facts.opted_out;
        }
        if let Some(uid) = uid {
            match self.pods.get(&uid) {
                Some(facts) => {
                    workload.pod = Some(facts.pod.clone());
                    workload.source = facts.source;
                    workload.opted_out |= facts.opted_out;
                }
                None => workload.pod = Some(Pod { uid, ..Pod::default() }),
            }
        }
        workload
    }
}

impl Workload {
    /// Keeps what an engine told before of the same container and pod, and does not tell any more.
    fn keep_names_of(&mut self, before: &Self) {
        if let (Some(now), Some(then)) = (&mut self.container, &before.container)
            && now.id == then.id
            && now.name.is_empty()
            && !then.name.is_empty()
        {
            now.clone_from(then);
            self.source = before.source;
            self.opted_out |= before.opted_out;
        }
        if let (Some(now), Some(then)) = (&mut self.pod, &before.pod)
            && now.uid == then.uid
            && now.name.is_empty()
            && !then.name.is_empty()
        {
            now.clone_from(then);
            self.source = before.source;
            self.opted_out |= before.opted_out;
        }
    }
}

fn weight(members: &Members, workload: &Workload) -> usize {
    let place = |place: &Place| {
        let Place { container, pod_uid, unit, path } = place;
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        size_of::<Place>()
            + container.as_ref().map_or(0, |(id, _)| id.len())
            + text(pod_uid)
            + text(unit)
            + path.len()
    };
    size_of::<Netns>() + members.places.iter().map(place).sum::<usize>() + workload.bytes()
}
