//! Whose a network namespace, a cgroup or a process is: a container, a pod, a systemd unit.
//!
//! [`cgroup`] reads it off the path of a cgroup; [`Directory`] remembers it, joins it with what the container engines of
//! this node tell, and answers from memory. Whoever asks never waits: files and engines are read in the background.

mod budget;
pub mod cgroup;
#[cfg(feature = "engines")]
mod cri;
#[cfg_attr(not(feature = "engines"), allow(dead_code, reason = "engines tell most of it"))]
pub mod directory;
#[cfg(feature = "engines")]
mod docker;
#[cfg(feature = "engines")]
mod engine;
#[cfg_attr(not(feature = "engines"), path = "workload/no_engines.rs")]
mod engines;
mod reader;
pub mod socket;

use std::fmt;
use std::io;
use std::time::Duration;

use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use xtcp_proto::flat_record::v1::xtcp_flat_record::WorkloadSource;

use crate::netns::{NetnsId, Thread};
pub(crate) use budget::Budgeted;
pub use directory::Directory;
use directory::{DirectoryMetrics, LabelChoice, OptOut};
use reader::ReaderMetrics;
use socket::Sockets;

/// Metrics of all that is done here.
#[derive(Clone)]
pub struct WorkloadMetrics {
    directory: DirectoryMetrics,
    reader: ReaderMetrics,
    engines: engines::Metrics,
}

impl WorkloadMetrics {
    /// Registers everything under `xtcp_`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            directory: DirectoryMetrics::register(registry)?,
            reader: ReaderMetrics::register(registry)?,
            engines: engines::Metrics::register(registry)?,
        })
    }
}

#[cfg(test)]
impl WorkloadMetrics {
    /// Shows what is counted of an engine.
    pub(crate) fn show_engine(&self) {
        self.engines.show();
    }
}

/// How workloads are found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Memory for everything that is remembered, bytes.
    pub bytes: usize,
    /// Labels of pods that are kept.
    pub pod_labels: LabelChoice,
    /// Labels by which a container or pod opts out.
    pub opt_out: Vec<OptOut>,
    /// Sockets that speak the Docker API.
    pub docker: Sockets,
    /// Sockets that speak the CRI.
    pub cri: Sockets,
}

/// Starts what fills a directory: the thread that reads `/proc`, and a task for each socket, until `stop`. Call it within
/// a Tokio runtime.
pub fn start(
    settings: &Settings,
    own_netns: NetnsId,
    metrics: WorkloadMetrics,
    stop: &CancellationToken,
) -> io::Result<Directory> {
    let (directory, asked) = Directory::new(settings.bytes, Some(metrics.directory));
    reader::spawn(&directory, asked, own_netns.inode, metrics.reader)?;
    engines::start(settings, &directory, &metrics.engines, stop);
    Ok(directory)
}

/// Longest wait for all engines together where everything is asked for once.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What is known at one time.
pub struct Known {
    /// Whose is what. Nobody fills it any more.
    pub directory: Directory,
    /// Sockets of engines that did not tell, and why, each in one line.
    pub silent: Vec<String>,
}

/// Finds out once, for one poll: asks the engines, waiting for [`PATIENCE`] at most, and reads the cgroups of these threads'
/// processes. Call it outside of any Tokio runtime.
pub fn once(
    settings: &Settings,
    own_netns: NetnsId,
    threads: &[(u32, Thread)],
    metrics: WorkloadMetrics,
) -> io::Result<Known> {
    let (directory, _) = Directory::new(settings.bytes, Some(metrics.directory));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let silent = runtime.block_on(engines::ask_once(settings, &directory, &metrics.engines));
    reader::read_once(&directory, threads.to_vec(), own_netns.inode, metrics.reader);
    Ok(Known { directory, silent })
}

/// Whose something is. What is not known is absent, never guessed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The container. Of a pod's namespace none: its containers share it, and only a socket's process tells which.
    pub container: Option<Container>,
    /// The Kubernetes pod.
    pub pod: Option<Pod>,
    /// The systemd unit, such as `ssh.service`; not the scope that is only a container's cgroup.
    pub unit: Option<String>,
    /// Path of the cgroup, beginning with `/`, as the agent's cgroup namespace sees it. Of a namespace whose processes
    /// are in several cgroups: none.
    pub cgroup: Option<String>,
    /// Who told most of it.
    pub source: Source,
    /// A label of its container or pod asks that nothing of it be reported.
    pub opted_out: bool,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id in full, as its runtime prints it.
    pub id: String,
    /// Its name; empty when no engine told.
    pub name: String,
    /// Its image as it was asked for; empty when no engine told.
    pub image: String,
    /// `docker`, `containerd`, `cri-o`, `podman`, …; empty when not known.
    pub runtime: String,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name; empty when no engine told.
    pub name: String,
    /// Its namespace in Kubernetes; empty when no engine told.
    pub namespace: String,
    /// Its uid, as Kubernetes writes it.
    pub uid: String,
    /// Its labels that were asked for (`--pod-labels`), each `key=value`, sorted.
    pub labels: Vec<String>,
}

/// Who told most of what is known of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Source {
    /// Nobody.
    #[default]
    Unknown,
    /// The path of its cgroup.
    Cgroup,
    /// An engine that speaks the Docker API.
    Docker,
    /// A runtime that speaks the CRI.
    Cri,
}

impl From<Source> for WorkloadSource {
    fn from(source: Source) -> Self {
        match source {
            Source::Unknown => Self::Unspecified,
            Source::Cgroup => Self::Cgroup,
            Source::Docker => Self::Docker,
            Source::Cri => Self::Cri,
        }
    }
}

impl Workload {
    /// What people call it: the container's name, the pod's as `namespace/name`, or the first digits of the container's
    /// id. `None` for one that is neither container nor pod of which any of these is known.
    pub fn display_name(&self) -> Option<String> {
        let container = self.container.as_ref();
        let named = container.filter(|container| !container.name.is_empty()).map(|c| c.name.clone());
        let pod = || self.pod.as_ref().filter(|pod| !pod.name.is_empty()).map(ToString::to_string);
        let id = || container.map(|container| container.id.chars().take(12).collect());
        named.or_else(pod).or_else(id)
    }

    /// What is true of both: the namespace of two workloads is neither's alone.
    #[must_use]
    pub fn in_common(self, other: &Self) -> Self {
        let same_pod = matches!((&self.pod, &other.pod), (Some(one), Some(two)) if one.uid == two.uid);
        let same_container =
            matches!((&self.container, &other.container), (Some(one), Some(two)) if one.id == two.id);
        let common = Self {
            container: self.container.filter(|_| same_container),
            pod: self.pod.filter(|_| same_pod),
            unit: self.unit.filter(|unit| other.unit.as_ref() == Some(unit)),
            cgroup: self.cgroup.filter(|cgroup| other.cgroup.as_ref() == Some(cgroup)),
            source: self.source,
            opted_out: self.opted_out || other.opted_out,
        };
        if common.is_known() { common } else { Self::default() }
    }

    /// Whether anything is known of it.
    pub fn is_known(&self) -> bool {
        self.container.is_some() || self.pod.is_some() || self.unit.is_some() || self.cgroup.is_some()
    }

    /// Memory that its texts take, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let Self { container, pod, unit, cgroup, source: _, opted_out: _ } = self;
        let container = container.as_ref().map_or(0, |Container { id, name, image, runtime }| {
            id.len() + name.len() + image.len() + runtime.len()
        });
        let pod = pod.as_ref().map_or(0, |Pod { name, namespace, uid, labels }| {
            let labels: usize = labels.iter().map(|label| label.len() + size_of::<String>()).sum();
            name.len() + namespace.len() + uid.len() + labels
        });
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        size_of::<Self>() + container + pod + text(unit) + text(cgroup)
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
