//! Where an engine runs: mounts, cgroups and files of its own, all gone with it.
//!
//! A room is a mount namespace. Engines leave state at places that no option moves (`/run/runc`, `/run/containerd/s`,
//! `/var/lib/cni`): there a room has file systems in memory. Only `/run/netns` is the host's, since its bind mounts are
//! what an agent outside is to find. Whatever a room starts is in a cgroup of its own, so that it can be found and ended.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::{cgroup, unique};
use crate::host::require_root;
use crate::netns::{self, Netns, is_orphan};
use crate::process::{Process, run};

/// What an engine in a room finds at `/sys/fs/cgroup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// What this host has there: cgroup v1 hierarchies on one, cgroup2 on another.
    Host,
    /// cgroup2, as on a host that mounts nothing else. The controllers stay where the host has them: with none free,
    /// containers are grouped, but not limited.
    V2,
}

/// Places outside of every engine's options, with what a room puts there instead.
const PRIVATE: [&str; 6] =
    ["/etc/docker", "/run/containerd", "/run/libpod", "/run/runc", "/var/lib/cni", "/var/lib/containers"];

/// Sets the room up, and waits for the end of its input. Arguments: its folder, its cgroup, host or v2, private places.
const SETUP: &str = r#"
set -eu
dir=$1 cgroup=$2 cgroups=$3
shift 3
while read -r _ _ _ _ point _; do
    case $point in
    /run/netns | /run/netns/*) ;;
    *) mount --make-private "$point" 2>/dev/null || : ;;
    esac
done </proc/self/mountinfo
for place; do mount -t tmpfs -o mode=755 tmpfs "$place"; done
mkdir "$dir/cgroup2"
mount -t cgroup2 cgroup2 "$dir/cgroup2"
mkdir "$dir/cgroup2$cgroup" "$dir/cgroup2$cgroup/engine"
case $cgroups:$(grep ' /sys/fs/cgroup cgroup2 ' /proc/self/mounts) in
v2:) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
esac
echo ready
exec cat
"#;

/// A room; what runs inside ends with it.
#[derive(Debug)]
pub struct Room {
    cgroup: String,
    holder: Process,
    made: Vec<&'static str>,
    dir: TempDir,
}

impl Room {
    /// An empty room, named after the test's process and `label`.
    pub fn new(label: &str, cgroups: Cgroups) -> Self {
        require_root();
        sweep();
        share_run_netns();
        let name = unique(label);
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir();
        let dir = dir.expect("a temporary directory can be made");
        let cgroup = format!("/{name}");
        let made = PRIVATE.into_iter().filter(|place| make(place)).collect();
        let folder = dir.path().to_str().expect("temporary directories have plain names").to_owned();
        let kind = match cgroups {
            Cgroups::Host => "host",
            Cgroups::V2 => "v2",
        };
        let mut argv =
            vec!["unshare", "--mount", "--propagation", "unchanged", "--", "sh", "-c", SETUP, "sh"];
        argv.extend([folder.as_str(), cgroup.as_str(), kind]);
        argv.extend(PRIVATE);
        let holder = Process::start(label, &argv);
        // From here on the drop removes it, whatever fails.
        let room = Self { cgroup, holder, made, dir };
        let ready = room.holder.stdout.wait_for(Duration::from_secs(20), |line| line == "ready");
        assert!(ready.is_some(), "the room {label} is not set up: {}", room.holder.stderr.text());
        room
    }

    /// Its folder, at the same place outside.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file in its folder, as an option wants it.
    pub fn path(&self, name: &str) -> String {
        self.dir().join(name).display().to_string()
    }

    /// Path of its cgroup in every hierarchy, with a leading slash: the parent for all that engines make.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// `argv` inside.
    pub fn argv(&self, argv: &[&str]) -> Vec<String> {
        let mounts = format!("--mount=/proc/{}/ns/mnt", self.holder.pid());
        let enter = r#"echo $$ >"$0" && exec "$@""#;
        let procs = self.path(&format!("cgroup2{}/engine/cgroup.procs", self.cgroup));
        let mut all = ["nsenter", &mounts, "--", "sh", "-c", enter, &procs].map(str::to_owned).to_vec();
        all.extend(argv.iter().map(|&word| word.to_owned()));
        all
    }

    /// Runs `argv` inside to its end and returns its standard output; fails with its standard error when it fails.
    pub fn run(&self, argv: &[&str]) -> String {
        run(&self.argv(argv))
    }

    /// Starts `argv` inside.
    pub fn start(&self, name: &str, argv: &[&str]) -> Process {
        Process::start(name, &self.argv(argv))
    }

    /// The root of cgroup2, as this process can read it.
    fn cgroup2(&self) -> PathBuf {
        let path = self.path("cgroup2");
        PathBuf::from(format!("/proc/{}/root{path}", self.holder.pid()))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let name = self.cgroup.trim_start_matches('/');
        // All of a room is below its cgroup in cgroup2; engines make cgroups of the same name elsewhere.
        let own = self.cgroup2().join(name);
        let mut left: Vec<String> = cgroup::end_all(&own).err().into_iter().collect();
        left.extend(cgroup::remove(&own).err());
        left.extend(cgroup::mounts().into_iter().filter_map(|mount| cgroup::remove(&mount.join(name)).err()));
        for place in &self.made {
            let _ = std::fs::remove_dir(place);
        }
        assert!(left.is_empty() || std::thread::panicking(), "{}", left.join("; "));
    }
}

/// Ends what a test that was killed left running, with the bind mounts of its pods' namespaces, and removes its files.
/// Mounts inside of rooms went with the processes.
fn sweep() {
    netns::sweep();
    for mount in cgroup::mounts() {
        let Ok(entries) = std::fs::read_dir(&mount) else { continue };
        for name in entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            if is_orphan(&name) {
                let left = mount.join(name);
                unmount_namespaces(&cgroup::processes(&left));
                let _ = cgroup::end_all(&left).and_then(|()| cgroup::remove(&left));
            }
        }
    }
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if is_orphan(&entry.file_name().to_string_lossy()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Takes the names of CNI from the network namespaces of `processes`.
fn unmount_namespaces(processes: &[i32]) {
    let inode = |path: &Path| path.metadata().map(|meta| meta.ino()).ok();
    let owned: Vec<u64> =
        processes.iter().filter_map(|pid| inode(Path::new(&format!("/proc/{pid}/ns/net")))).collect();
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("cni-") && inode(&entry.path()).is_some_and(|inode| owned.contains(&inode)) {
            let _ = std::process::Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

/// `/run/netns` is a mount that namespaces of mounts share, as `ip netns` makes it at its first use.
fn share_run_netns() {
    Netns::named_bare("room").end();
}

/// Whether it had to be made.
fn make(place: &str) -> bool {
    let missing = !Path::new(place).exists();
    if missing {
        std::fs::create_dir_all(place).unwrap_or_else(|e| panic!("{place} cannot be made: {e}"));
    }
    missing
}
