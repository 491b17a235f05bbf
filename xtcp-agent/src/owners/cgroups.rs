//! Where a cgroup of version 2 is, by its id as `inet_diag` tells it: the inode of its folder. For sockets whose process is
//! not known; the tree is read in the background, and only when somebody asked for an id that was not met.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::selection::cgroup_mount;
use crate::workload::{Directory, Workload};

/// Ids that are remembered, with and without a folder; past it all are forgotten and asked for anew.
const IDS: usize = 16_384;
/// Folders of one walk, at most.
const FOLDERS: usize = 100_000;

/// What is known of ids, and which are wanted.
#[derive(Default)]
pub(super) struct Cgroups(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The path below the mount; `None` for an id that no folder has any more.
    paths: HashMap<u64, Option<Arc<str>>>,
    wanted: HashSet<u64>,
}

impl Cgroups {
    /// The workload of an id; `None` also where nobody has looked yet.
    pub(super) fn of(&self, id: u64, directory: &Directory) -> Option<Arc<Workload>> {
        let path = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(path) = known.paths.get(&id) {
                path.clone()?
            } else {
                if known.wanted.len() < IDS {
                    known.wanted.insert(id);
                }
                return None;
            }
        };
        directory.of_cgroup(&path)
    }

    /// Learns all there are, up to as many as are remembered.
    pub(super) fn learn_all(&self, proc: &Path) {
        let found = find_mounted(proc, None);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.paths.extend(found.into_iter().map(|(id, path)| (id, Some(path))));
    }

    /// Looks for what is wanted below where version 2 is mounted.
    pub(super) fn look(&self, proc: &Path) {
        let wanted = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut known.wanted)
        };
        if wanted.is_empty() {
            return;
        }
        let found = find_mounted(proc, Some(&wanted));
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.paths.len() + wanted.len() > IDS {
            known.paths.clear();
        }
        for id in wanted {
            known.paths.insert(id, found.get(&id).cloned());
        }
    }
}

/// What [`find`] finds below where version 2 is mounted; nothing where it is not.
fn find_mounted(proc: &Path, wanted: Option<&HashSet<u64>>) -> HashMap<u64, Arc<str>> {
    let root = fs::read_to_string(proc.join("self/mounts")).ok().and_then(|mounts| cgroup_mount(&mounts));
    root.map(|root| find(&root, wanted)).unwrap_or_default()
}

/// The paths of the folders with these inodes or, where none are wanted, of the first ones; beginning with `/`.
fn find(root: &Path, wanted: Option<&HashSet<u64>>) -> HashMap<u64, Arc<str>> {
    let mut found = HashMap::new();
    let mut folders = vec![root.to_owned()];
    let mut left = FOLDERS;
    while let Some(folder) = folders.pop()
        && left > 0
        && found.len() < wanted.map_or(IDS, HashSet::len)
    {
        left -= 1;
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = entry.path();
            if let Ok(inode) = entry.metadata().map(|metadata| metadata.ino())
                && wanted.is_none_or(|wanted| wanted.contains(&inode))
                && let Some(below) = path.strip_prefix(root).ok().and_then(Path::to_str)
            {
                found.insert(inode, Arc::from(format!("/{below}")));
            }
            folders.push(path);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_to_the_folder_with_that_inode_once_somebody_has_looked() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, tree) = (dir.path().join("proc"), dir.path().join("tree"));
        let service = tree.join("system.slice/ssh.service");
        fs::create_dir_all(&service).unwrap();
        fs::create_dir_all(proc.join("self")).unwrap();
        let mounts = format!("proc /proc proc rw 0 0\ncgroup2 {} cgroup2 rw 0 0\n", tree.display());
        fs::write(proc.join("self/mounts"), mounts).unwrap();
        let id = fs::metadata(&service).unwrap().ino();
        let (cgroups, directory) = (Cgroups::default(), Directory::detached());
        assert!(cgroups.of(id, &directory).is_none());
        assert!(cgroups.of(u64::MAX, &directory).is_none());
        cgroups.look(&proc);
        let workload = cgroups.of(id, &directory).unwrap();
        assert_eq!(workload.unit.as_deref(), Some("ssh.service"));
        assert_eq!(workload.cgroup.as_deref(), Some("/system.slice/ssh.service"));
        // It was looked for, and is nowhere.
        assert!(cgroups.of(u64::MAX, &directory).is_none());
        assert!(cgroups.0.lock().unwrap().wanted.is_empty());
    }

    #[test]
    fn all_folders_are_learnt_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, tree) = (dir.path().join("proc"), dir.path().join("tree"));
        let services = ["system.slice/a.service", "system.slice/b.service"].map(|below| tree.join(below));
        for service in &services {
            fs::create_dir_all(service).unwrap();
        }
        fs::create_dir_all(proc.join("self")).unwrap();
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", tree.display());
        fs::write(proc.join("self/mounts"), mounts).unwrap();
        let (cgroups, directory) = (Cgroups::default(), Directory::detached());
        cgroups.learn_all(&proc);
        for (service, unit) in services.iter().zip(["a.service", "b.service"]) {
            let id = fs::metadata(service).unwrap().ino();
            assert_eq!(cgroups.of(id, &directory).unwrap().unit.as_deref(), Some(unit));
        }
    }

    #[test]
    fn a_host_without_version_2_has_no_ids() {
        assert_eq!(cgroup_mount("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
        let mounts = "tmpfs /run tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup\\040two cgroup2 rw 0 0\n";
        assert_eq!(cgroup_mount(mounts), Some("/sys/fs/cgroup two".into()));
        let cgroups = Cgroups::default();
        assert!(cgroups.of(7, &Directory::detached()).is_none());
        cgroups.look(Path::new("/nonexistent"));
        assert!(cgroups.of(7, &Directory::detached()).is_none());
    }
}
