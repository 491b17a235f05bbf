//! Looks for network namespaces on the host: files that lead to one, and the threads of every process.
//!
//! Kernels since 6.19 also list namespaces (`listns`); the two sources here exist everywhere. What neither shows
//! is a namespace that only a descriptor or a socket holds: events and sockets tell of it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, readlinkat};
use nix::sys::stat::{Mode, fstat, fstatat};

use super::{Mount, Snapshot, Thread};
use crate::clock::ktime_ns;
use crate::sys;

/// Threads kept for each namespace: each is a way in, and one suffices.
const THREADS_PER_NETNS: usize = 4;

/// A look that could not be taken at all.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// `/proc` cannot be read.
    #[error("cannot read /proc: {0}")]
    Proc(#[source] io::Error),
}

/// How a look went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Threads whose namespace was read.
    pub threads: u64,
    /// Threads and files that may not be read: `CAP_SYS_PTRACE` or `CAP_DAC_READ_SEARCH` is missing.
    pub denied: u64,
    /// Processes and threads that ended during the look.
    pub vanished: u64,
    /// Files and threads that could not be read for another reason.
    pub failed: u64,
}

/// Looks at the host.
#[derive(Debug)]
pub struct Discovery {
    proc: OwnedFd,
    dirs: Vec<PathBuf>,
    nsfs_device: u64,
}

impl Discovery {
    /// Looks in these directories for files that lead to namespaces; those that do not exist (yet) are passed over.
    pub fn new(dirs: Vec<PathBuf>) -> Result<Self, DiscoverError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = open("/proc", flags, Mode::empty()).map_err(|e| DiscoverError::Proc(e.into()))?;
        let own = fstatat(&proc, "thread-self/ns/net", AtFlags::empty())
            .map_err(|e| DiscoverError::Proc(e.into()))?;
        Ok(Self { proc, dirs, nsfs_device: own.st_dev })
    }

    /// The directories.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// A full look: files and all threads. Blocks: about 5 µs a thread, 12 µs a process and 6 µs a file.
    pub fn scan(&self) -> Result<(Snapshot, Scan), DiscoverError> {
        let mut scan = Scan::default();
        let began_ktime_ns = ktime_ns();
        let threads = Threads::read(self.proc.as_fd(), &mut scan)?;
        let mounts = self.mounts(&mut scan);
        let threads = Some(threads.found);
        Ok((Snapshot { began_ktime_ns, ended_ktime_ns: ktime_ns(), mounts, threads }, scan))
    }

    /// A look at files only. Cheap: about 6 µs a file.
    pub fn scan_mounts(&self) -> (Snapshot, Scan) {
        let mut scan = Scan::default();
        let began_ktime_ns = ktime_ns();
        let mounts = self.mounts(&mut scan);
        (Snapshot { began_ktime_ns, ended_ktime_ns: ktime_ns(), mounts, threads: None }, scan)
    }

    fn mounts(&self, scan: &mut Scan) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for dir in &self.dirs {
            let entries = match std::fs::read_dir(dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    scan.count(&error);
                    continue;
                }
            };
            let mut paths: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
            paths.sort_unstable();
            for path in paths {
                match self.mount(&path) {
                    Ok(Some(inode)) => mounts.push(Mount { path, device: self.nsfs_device, inode }),
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => scan.count(&error),
                }
            }
        }
        mounts
    }

    /// Inode of the network namespace that a file leads to; `None` when it is anything else. Looks before it opens:
    /// opening some kinds of files does things.
    fn mount(&self, path: &Path) -> io::Result<Option<u32>> {
        if std::fs::metadata(path)?.dev() != self.nsfs_device {
            return Ok(None);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let namespace = open(path, flags, Mode::empty())?;
        let stat = fstat(&namespace)?;
        if stat.st_dev != self.nsfs_device || sys::namespace_type(namespace.as_fd())? != libc::CLONE_NEWNET {
            return Ok(None);
        }
        Ok(u32::try_from(stat.st_ino).ok())
    }
}

impl Scan {
    fn count(&mut self, error: &io::Error) {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EACCES | Errno::EPERM) => self.denied += 1,
            Some(Errno::ENOENT | Errno::ESRCH) => self.vanished += 1,
            _ => self.failed += 1,
        }
    }
}

/// Threads found so far: a few of each namespace, of different processes where there are.
#[derive(Default)]
struct Threads {
    found: Vec<(u32, Thread)>,
    /// Inode → how many are kept, and the last one's process.
    kept: HashMap<u32, (usize, u32)>,
}

impl Threads {
    fn read(proc: BorrowedFd<'_>, scan: &mut Scan) -> Result<Self, DiscoverError> {
        let mut threads = Self::default();
        let (_, pids) = numbers(proc, ".").map_err(|e| DiscoverError::Proc(e.into()))?;
        for pid in pids {
            if let Err(error) = threads.read_process(proc, pid, scan) {
                scan.count(&error.into());
            }
        }
        Ok(threads)
    }

    fn read_process(&mut self, proc: BorrowedFd<'_>, pid: u32, scan: &mut Scan) -> nix::Result<()> {
        let (tasks, tids) = numbers(proc, &format!("{pid}/task"))?;
        for tid in tids {
            match readlinkat(&tasks, format!("{tid}/ns/net").as_str()) {
                Ok(link) => {
                    scan.threads += 1;
                    if let Some(inode) = link.to_str().and_then(parse_link) {
                        self.add(inode, Thread { pid, tid });
                    }
                }
                Err(error) => scan.count(&error.into()),
            }
        }
        Ok(())
    }

    /// Keeps the first thread of each process in each namespace, up to a few.
    fn add(&mut self, inode: u32, thread: Thread) {
        let (count, last_pid) = self.kept.entry(inode).or_default();
        if *last_pid != thread.pid && *count < THREADS_PER_NETNS {
            (*count, *last_pid) = (*count + 1, thread.pid);
            self.found.push((inode, thread));
        }
    }
}

/// Opens a directory and lists what in it is named by a number. What cannot be listed ends the list: a process
/// that ends while it is read.
fn numbers(parent: BorrowedFd<'_>, path: &str) -> nix::Result<(Dir, Vec<u32>)> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(parent, path, flags, Mode::empty())?;
    let names = dir.iter().map_while(Result::ok);
    let found = names.filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect();
    Ok((dir, found))
}

/// Inode in a link such as `net:[4026531840]`.
fn parse_link(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_of_a_thread_tells_its_inode() {
        assert_eq!(parse_link("net:[4026531840]"), Some(4_026_531_840));
        assert_eq!(parse_link("mnt:[4026531840]"), None);
        assert_eq!(parse_link("net:[]"), None);
    }

    #[test]
    fn a_few_threads_of_different_processes_are_kept_for_each_namespace() {
        let mut threads = Threads::default();
        for pid in 1..=10 {
            for tid in 0..3 {
                threads.add(7, Thread { pid, tid: pid * 10 + tid });
            }
        }
        threads.add(8, Thread { pid: 10, tid: 109 });
        let pids: Vec<_> = threads.found.iter().map(|(inode, thread)| (*inode, thread.pid)).collect();
        assert_eq!(pids, [(7, 1), (7, 2), (7, 3), (7, 4), (8, 10)]);
    }

    #[test]
    fn a_full_look_finds_our_own_namespace_by_thread() {
        let discovery = Discovery::new(Vec::new()).unwrap();
        let (snapshot, scan) = discovery.scan().unwrap();
        let own = crate::netns::enter::current().unwrap().inode;
        assert!(snapshot.threads.unwrap().iter().any(|(inode, _)| *inode == own));
        assert!(scan.threads > 0 && snapshot.began_ktime_ns <= snapshot.ended_ktime_ns);
    }

    #[test]
    fn links_count_as_mounts_and_plain_files_and_other_namespaces_do_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        std::os::unix::fs::symlink("/proc/self/ns/net", dir.path().join("net")).unwrap();
        std::os::unix::fs::symlink("/proc/self/ns/mnt", dir.path().join("mnt")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("dangling")).unwrap();
        let dirs = vec!["/nonexistent/netns".into(), dir.path().to_owned()];
        let (snapshot, scan) = Discovery::new(dirs).unwrap().scan_mounts();
        let own = crate::netns::enter::current().unwrap().inode;
        let paths: Vec<_> = snapshot.mounts.iter().map(|m| (m.path.clone(), m.inode)).collect();
        assert_eq!(paths, [(dir.path().join("net"), own)]);
        assert_eq!(scan, Scan::default());
    }
}
