//! What `/proc` says of one process.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use nix::errno::Errno;
use prometheus::{IntCounterVec, Registry, opts};

use crate::netns::Thread;
use crate::netns::discover::parse_link;
use crate::workload::cgroup::Place;

/// Counts what was read.
#[derive(Clone)]
pub(in crate::workload) struct ReaderMetrics(IntCounterVec);

impl ReaderMetrics {
    /// Registers it under `xtcp_`.
    pub(in crate::workload) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let reads = IntCounterVec::new(
            opts!(
                "xtcp_workload_reads_total",
                "Cgroups of processes read: read, gone (the process had ended), denied (/proc does not show it), failed."
            ),
            &["result"],
        )?;
        registry.register(Box::new(reads.clone()))?;
        for result in ["read", "gone", "denied", "failed"] {
            reads.with_label_values(&[result]);
        }
        Ok(Self(reads))
    }

    fn count(&self, error: Option<&io::Error>) {
        let result = match error.map(|error| error.raw_os_error().map(Errno::from_raw)) {
            None => "read",
            Some(Some(Errno::ENOENT | Errno::ESRCH)) => "gone",
            Some(Some(Errno::EACCES | Errno::EPERM)) => "denied",
            Some(_) => "failed",
        };
        self.0.with_label_values(&[result]).inc();
    }
}

/// Reads about processes.
pub(super) struct Processes {
    own_pid: u32,
    /// Where the unified hierarchy is mounted whole.
    unified: Option<PathBuf>,
    metrics: ReaderMetrics,
}

impl Processes {
    pub(super) fn new(metrics: ReaderMetrics) -> Self {
        let unified = fs::read_to_string("/proc/self/mountinfo").ok().and_then(|mounts| unified(&mounts));
        Self { own_pid: std::process::id(), unified, metrics }
    }

    pub(super) fn own_pid(&self) -> u32 {
        self.own_pid
    }

    /// The cgroup of a process, and its id where its path is one of the unified hierarchy.
    pub(super) fn cgroup(&self, pid: u32) -> Option<(Place, Option<u64>)> {
        let read = fs::read(format!("/proc/{pid}/cgroup"));
        self.metrics.count(read.as_ref().err());
        let text = read.ok()?;
        let text = String::from_utf8_lossy(&text);
        let place = Place::of_process(&text)?;
        let is_unified = text.lines().any(|line| line.strip_prefix("0::") == Some(&place.path));
        let folder = self.unified.as_ref().filter(|_| is_unified && !place.path.contains("/.."));
        let id = folder.and_then(|folder| {
            fs::metadata(folder.join(place.path.trim_start_matches('/'))).ok().map(|meta| meta.ino())
        });
        Some((place, id))
    }

    /// Inode of the network namespace that a thread is in.
    #[expect(clippy::unused_self, reason = "beside what else is read of a process")]
    pub(super) fn netns(&self, thread: Thread) -> Option<u32> {
        let link = fs::read_link(format!("/proc/{}/task/{}/ns/net", thread.pid, thread.tid)).ok()?;
        parse_link(link.to_str()?)
    }
}

/// Where the unified hierarchy is mounted with its root, in the words of mountinfo.
fn unified(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (rest.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_where_its_root_is_mounted() {
        let v1 = "30 22 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let hybrid = "31 22 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n";
        let part = "31 22 0:27 /docker /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(unified(v1), None);
        assert_eq!(unified(part), None);
        assert_eq!(unified(&format!("{v1}{hybrid}")), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }
}
