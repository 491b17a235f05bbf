//! Cgroups that a test made: ending what is inside, and removing them from every hierarchy.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::slowness;

/// Where this host has mounted cgroup hierarchies, version 1 or 2.
pub(super) fn mounts() -> Vec<PathBuf> {
    mounts_where(|_, _| true)
}

/// Where systemd keeps its units: cgroup2, and the v1 hierarchy of its name.
pub(super) fn unit_mounts() -> Vec<PathBuf> {
    mounts_where(|kind, options| {
        kind == "cgroup2" || options.split(',').any(|option| option == "name=systemd")
    })
}

fn mounts_where(wanted: impl Fn(&str, &str) -> bool) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").expect("the kernel lists its mounts");
    let mut mounts = Vec::new();
    for line in table.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(point), Some(kind @ ("cgroup" | "cgroup2")), Some(options)) =
            (words.next(), words.next(), words.next())
            && wanted(kind, options)
        {
            mounts.push(PathBuf::from(point));
        }
    }
    mounts
}

/// Ids of all processes below `top`.
pub(super) fn processes(top: &Path) -> Vec<i32> {
    let lists = tree(top).into_iter().map(|cgroup| std::fs::read_to_string(cgroup.join("cgroup.procs")));
    lists
        .flatten()
        .flat_map(|list| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Ends every process below `top`, by its own id, until there is none.
pub(super) fn end_all(top: &Path) -> Result<(), String> {
    until(&format!("processes in {} do not end", top.display()), || {
        let left = processes(top);
        for &pid in &left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        left.is_empty()
    })
}

/// Removes `top` and all below; the kernel refuses while a process is inside.
pub(super) fn remove(top: &Path) -> Result<(), String> {
    let mut all = Ok(());
    for cgroup in tree(top) {
        let gone = until(&format!("{} cannot be removed", cgroup.display()), || {
            std::fs::remove_dir(&cgroup).is_ok() || !cgroup.exists()
        });
        all = all.and(gone);
    }
    all
}

/// Tries for a while: this is for ends, where nothing may panic.
fn until(what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
    let limit = Duration::from_secs(20) * slowness();
    let start = Instant::now();
    while !done() {
        if start.elapsed() > limit {
            return Err(format!("{what} within {limit:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// `top` and all below, the deepest first.
fn tree(top: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(top) else { return Vec::new() };
    let mut all: Vec<PathBuf> = Vec::new();
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(tree(&entry.path()));
        }
    }
    all.push(top.to_owned());
    all
}
