//! Looks for network namespaces on the host: files that lead to one, the threads of every process, and the kernel's own
//! list where there is one.
//!
//! What none of them shows is a namespace that only a socket holds, or before 6.19 a descriptor: events tell of it.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, fstat, fstatat};

use super::label::printable_path;
use super::list::Listing;
use super::{Mount, Snapshot, Thread};
use crate::clock::ktime_ns;
use crate::sys;

/// Threads kept for each namespace: each is a way in, for which one would do; together they tell whose it is.
const THREADS_PER_NETNS: usize = 16;

/// A look that could not be taken at all.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// `/proc` cannot be read.
    #[error("cannot read /proc: {0}")]
    Proc(#[source] io::Error),
}

/// How a look went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Threads whose namespace was read.
    pub threads: u64,
    /// Threads and files that may not be read: `CAP_SYS_PTRACE` or `CAP_DAC_READ_SEARCH` is missing.
    pub denied: u64,
    /// Processes and threads that ended during the look.
    pub vanished: u64,
    /// Files and threads that could not be read for another reason.
    pub failed: u64,
    /// The first that was denied or failed, and why, in one line.
    pub example: Option<String>,
}

/// Looks at the host.
#[derive(Debug)]
pub struct Discovery {
    proc: OwnedFd,
    dirs: Vec<PathBuf>,
    nsfs_device: u64,
    listing: Listing,
}

impl Discovery {
    /// Looks in these directories for files that lead to namespaces; those that do not exist (yet) are passed over.
    pub fn new(dirs: Vec<PathBuf>, listing: Listing) -> Result<Self, DiscoverError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = open("/proc", flags, Mode::empty()).map_err(|e| DiscoverError::Proc(e.into()))?;
        let own = fstatat(&proc, "thread-self/ns/net", AtFlags::empty())
            .map_err(|e| DiscoverError::Proc(e.into()))?;
        Ok(Self { proc, dirs, nsfs_device: own.st_dev, listing })
    }

    /// The directories.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// A full look: files, all threads, and the kernel's list. Blocks: about 5 µs a thread, 12 µs a process and 6 µs a file.
    pub fn scan(&mut self) -> Result<(Snapshot, Scan), DiscoverError> {
        let mut walk = self.walk()?;
        self.go_on(&mut walk, None);
        Ok(self.end(walk))
    }

    /// Begins a full look that can be interrupted: to be gone on with until it is through, and ended.
    pub fn walk(&self) -> Result<Walk, DiscoverError> {
        let began_ktime_ns = ktime_ns();
        let (_, pids) = numbers(self.proc.as_fd(), ".").map_err(|e| DiscoverError::Proc(e.into()))?;
        let (pids, threads, scan) = (pids.into_iter(), Threads::default(), Scan::default());
        Ok(Walk { began_ktime_ns, pids, threads, scan })
    }

    /// Goes on through the processes until this time at most. True when it is through.
    pub fn go_on(&self, walk: &mut Walk, until: Option<Instant>) -> bool {
        let proc = self.proc.as_fd();
        for pid in walk.pids.by_ref() {
            if let Err(error) = walk.threads.read_process(proc, pid, &mut walk.scan) {
                walk.scan.count(&error.into(), || format!("/proc/{pid}/task"));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return false;
            }
        }
        true
    }

    /// Ends a full look: looks at files and at the kernel's list, too.
    pub fn end(&mut self, walk: Walk) -> (Snapshot, Scan) {
        let Walk { began_ktime_ns, threads, mut scan, .. } = walk;
        let threads = Some(threads.found);
        let mounts = self.mounts(&mut scan);
        let listed = self.listing.read().unwrap_or_else(|error| {
            scan.count(&error, || "the kernel's list of namespaces".to_owned());
            Vec::new()
        });
        (Snapshot { began_ktime_ns, ended_ktime_ns: ktime_ns(), mounts, threads, listed }, scan)
    }

    /// A look at files only. Cheap: about 6 µs a file.
    pub fn scan_mounts(&self) -> (Snapshot, Scan) {
        let mut scan = Scan::default();
        let began_ktime_ns = ktime_ns();
        let mounts = self.mounts(&mut scan);
        let ended_ktime_ns = ktime_ns();
        (Snapshot { began_ktime_ns, ended_ktime_ns, mounts, ..Snapshot::default() }, scan)
    }

    fn mounts(&self, scan: &mut Scan) -> Vec<Mount> {
        let mut mounts = Vec::new();
        let mut seen = HashSet::new();
        for dir in &self.dirs {
            match self.mounts_in(dir, &mut seen, &mut mounts, scan) {
                Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => scan.count(&error.into(), || printable_path(dir)),
            }
        }
        mounts
    }

    /// Files of one directory, unless it is one of those that were `seen` under another name. By its descriptor, so that
    /// no path can be too long.
    fn mounts_in(
        &self,
        dir: &Path,
        seen: &mut HashSet<(u64, u64)>,
        mounts: &mut Vec<Mount>,
        scan: &mut Scan,
    ) -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut folder = Dir::open(dir, flags, Mode::empty())?;
        let stat = fstat(folder.as_fd())?;
        if !seen.insert((stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let names = folder.iter().map_while(Result::ok).map(|entry| entry.file_name().to_owned());
        let mut names: Vec<CString> = names.filter(|name| !matches!(name.to_bytes(), b"." | b"..")).collect();
        names.sort_unstable();
        for name in names {
            let path = || dir.join(OsStr::from_bytes(name.to_bytes()));
            match self.mount(folder.as_fd(), &name) {
                Ok(Some(inode)) => mounts.push(Mount { path: path(), device: self.nsfs_device, inode }),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => scan.count(&error, || printable_path(&path())),
            }
        }
        Ok(())
    }

    /// Inode of the network namespace that a file leads to; `None` when it is anything else. Looks before it opens:
    /// opening some kinds of files does things.
    fn mount(&self, folder: BorrowedFd<'_>, name: &CString) -> io::Result<Option<u32>> {
        if fstatat(folder, name.as_c_str(), AtFlags::AT_NO_AUTOMOUNT)?.st_dev != self.nsfs_device {
            return Ok(None);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let namespace = openat(folder, name.as_c_str(), flags, Mode::empty())?;
        let stat = fstat(&namespace)?;
        if stat.st_dev != self.nsfs_device || sys::namespace_type(namespace.as_fd())? != libc::CLONE_NEWNET {
            return Ok(None);
        }
        Ok(u32::try_from(stat.st_ino).ok())
    }
}

impl Scan {
    fn count(&mut self, error: &io::Error, what: impl FnOnce() -> String) {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ESRCH) => {
                self.vanished += 1;
                return;
            }
            Some(Errno::EACCES | Errno::EPERM) => self.denied += 1,
            _ => self.failed += 1,
        }
        self.example.get_or_insert_with(|| format!("{}: {error}", what()));
    }
}

/// A full look under way.
#[derive(Debug)]
pub struct Walk {
    began_ktime_ns: u64,
    /// Processes that were not looked at yet.
    pids: std::vec::IntoIter<u32>,
    threads: Threads,
    scan: Scan,
}

/// Threads found so far: a few of each namespace, of different processes where there are.
#[derive(Debug, Default)]
struct Threads {
    found: Vec<(u32, Thread)>,
    /// Inode → how many are kept, and the last one's process.
    kept: HashMap<u32, (usize, u32)>,
}

impl Threads {
    /// What may not be seen is refused, but for some kernels (5.10.262): there the link is empty.
    fn read_process(&mut self, proc: BorrowedFd<'_>, pid: u32, scan: &mut Scan) -> nix::Result<()> {
        let (tasks, tids) = numbers(proc, &format!("{pid}/task"))?;
        for tid in tids {
            let link = readlinkat(&tasks, format!("{tid}/ns/net").as_str());
            match link.and_then(|link| if link.is_empty() { Err(Errno::EACCES) } else { Ok(link) }) {
                Ok(link) => {
                    scan.threads += 1;
                    if let Some(inode) = link.to_str().and_then(parse_link) {
                        self.add(inode, Thread { pid, tid });
                    }
                }
                Err(error) => scan.count(&error.into(), || format!("/proc/{pid}/task/{tid}/ns/net")),
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
pub fn parse_link(link: &str) -> Option<u32> {
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
        for pid in 1..=20 {
            for tid in 0..3 {
                threads.add(7, Thread { pid, tid: pid * 10 + tid });
            }
        }
        threads.add(8, Thread { pid: 10, tid: 109 });
        let pids: Vec<_> = threads.found.iter().map(|(inode, thread)| (*inode, thread.pid)).collect();
        let expected: Vec<_> = (1..=16).map(|pid| (7, pid)).chain([(8, 10)]).collect();
        assert_eq!(pids, expected);
    }

    #[test]
    fn a_full_look_finds_our_own_namespace_by_thread() {
        let mut discovery = Discovery::new(Vec::new(), Listing::none()).unwrap();
        let (snapshot, scan) = discovery.scan().unwrap();
        let own = crate::netns::enter::current().unwrap().inode;
        assert!(snapshot.threads.unwrap().iter().any(|(inode, _)| *inode == own));
        assert!(scan.threads > 0 && snapshot.began_ktime_ns <= snapshot.ended_ktime_ns);
    }

    #[test]
    fn a_full_look_that_is_interrupted_finds_what_one_without_pause_does() {
        let mut discovery = Discovery::new(Vec::new(), Listing::none()).unwrap();
        let own = crate::netns::enter::current().unwrap().inode;
        let past = Instant::now();
        let mut walk = discovery.walk().unwrap();
        let mut pauses = 0;
        while !discovery.go_on(&mut walk, Some(past)) {
            pauses += 1;
        }
        let (snapshot, scan) = discovery.end(walk);
        assert!(pauses > 0 && scan.threads > 0, "{pauses} pauses, {scan:?}");
        assert!(snapshot.threads.unwrap().iter().any(|(inode, _)| *inode == own));
    }

    #[test]
    fn links_count_as_mounts_and_plain_files_and_other_namespaces_do_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        std::os::unix::fs::symlink("/proc/self/ns/net", dir.path().join("net")).unwrap();
        std::os::unix::fs::symlink("/proc/self/ns/mnt", dir.path().join("mnt")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("dangling")).unwrap();
        let dirs = vec!["/nonexistent/netns".into(), dir.path().to_owned()];
        let (snapshot, scan) = Discovery::new(dirs, Listing::none()).unwrap().scan_mounts();
        let own = crate::netns::enter::current().unwrap().inode;
        let paths: Vec<_> = snapshot.mounts.iter().map(|m| (m.path.clone(), m.inode)).collect();
        assert_eq!(paths, [(dir.path().join("net"), own)]);
        assert_eq!(scan, Scan::default());
    }

    #[test]
    fn a_folder_under_two_names_is_looked_at_once() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("netns");
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink("/proc/self/ns/net", dir.join("net")).unwrap();
        std::os::unix::fs::symlink(&dir, parent.path().join("other")).unwrap();
        let dirs = vec![dir.clone(), parent.path().join("other")];
        let (snapshot, _) = Discovery::new(dirs, Listing::none()).unwrap().scan_mounts();
        let paths: Vec<_> = snapshot.mounts.iter().map(|m| m.path.clone()).collect();
        assert_eq!(paths, [dir.join("net")]);
    }

    #[test]
    fn what_cannot_be_looked_at_is_counted_and_named_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("a\nb", dir.path().join("a\nb")).unwrap();
        let too_long = PathBuf::from(format!("/{}", "x/".repeat(2100)));
        let dirs = vec![dir.path().to_owned(), too_long];
        let (snapshot, scan) = Discovery::new(dirs, Listing::none()).unwrap().scan_mounts();
        assert_eq!((snapshot.mounts, scan.failed, scan.denied), (Vec::new(), 2, 0));
        let example = scan.example.unwrap();
        assert!(example.contains("a\\nb") && !example.contains('\n'), "{example}");
    }
}
