//! The one place that enters a network namespace: in, one socket, out at once, and proof of where it was.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sched::CloneFlags;
use nix::sys::stat::{FileStat, Mode, fstat};

use super::handle::Handles;
use super::nsid::{Nsids, Query};
use super::{Door, NetnsId, Target};
use crate::netns_counters::Files;
use crate::sys;

/// Why a namespace was not visited.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Every door is gone. The namespace may still live behind a descriptor or a socket.
    #[error("no door leads to {0} any more")]
    Gone(NetnsId),
    /// A door led elsewhere; nothing was recorded. `found.cookie` is 0 when the inode already differed.
    #[error("a door of {expected} (cookie {}) leads to {found} (cookie {})", expected.cookie, found.cookie)]
    Mismatch {
        /// Who should have been there.
        expected: NetnsId,
        /// Who is there.
        found: NetnsId,
    },
    /// A privilege is missing: `CAP_SYS_ADMIN` in the namespace's user namespace, or `CAP_SYS_PTRACE` over its
    /// processes.
    #[error("may not enter {target} by {door}: {source}")]
    Denied {
        /// The namespace.
        target: NetnsId,
        /// The door that was locked.
        door: Door,
        /// `EPERM` or `EACCES`.
        source: io::Error,
    },
    /// Nothing leads there.
    #[error("no door to {0} is known")]
    NoDoor(NetnsId),
    /// The kernel refused for another reason, such as too many open files; worth another try.
    #[error("cannot {action} for {target}: {source}")]
    Failed {
        /// The namespace.
        target: NetnsId,
        /// What was being done.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The thread is not at home any more: it must end. All later visits fail in the same way.
    #[error("cannot go home to the agent's network namespace, the thread must end: {0}")]
    Home(io::Error),
}

/// A visit that ended well.
#[derive(Debug)]
pub struct Visit {
    /// A `NETLINK_SOCK_DIAG` socket of the namespace, not bound, not connected. It keeps the namespace alive: close
    /// it soon.
    pub socket: Socket,
    /// Who the namespace is, with its cookie where the kernel has one (5.14). Without one only the inode was
    /// compared.
    pub id: NetnsId,
    /// The door that was used.
    pub door: Door,
    /// Its counters, where they were asked for. Open files, which keep the namespace alive as well.
    pub counters: Option<Files>,
}

/// A thread's right to visit namespaces. Made on the thread that uses it, in the namespace that is its home.
#[derive(Debug)]
pub struct Visitor {
    home: OwnedFd,
    home_id: NetnsId,
    device: u64,
    handles: Handles,
    nsids: Option<(Nsids, Query)>,
    lost: bool,
    /// `setns` moves the calling thread only, so a visitor never leaves the thread that made it.
    thread: PhantomData<*const ()>,
}

impl Visitor {
    /// Takes the calling thread's namespace as its home.
    pub fn new(handles: Handles) -> io::Result<Self> {
        let home = open_path(Path::new("/proc/thread-self/ns/net"))?;
        let stat = fstat(&home)?;
        let home_id = NetnsId { inode: inode(&stat)?, cookie: cookie_of_current()?.unwrap_or(0) };
        Ok(Self {
            home,
            home_id,
            device: stat.st_dev,
            handles,
            nsids: None,
            lost: false,
            thread: PhantomData,
        })
    }

    /// Asks at visits, from home, which id each namespace was given: once for each, and again for those without one
    /// when one was given.
    pub fn ask_nsids(&mut self, nsids: Nsids) -> io::Result<()> {
        self.nsids = Some((nsids, Query::new()?));
        Ok(())
    }

    /// The namespace that the thread is in between visits.
    pub fn home(&self) -> NetnsId {
        self.home_id
    }

    /// Opens a `NETLINK_SOCK_DIAG` socket in the target, by the first of its doors that leads to it. No other
    /// descriptor outlives the call. About 10 µs with the socket's end.
    pub fn open_diag(&mut self, target: &Target) -> Result<Visit, EnterError> {
        self.visit(target, false)
    }

    /// As [`open_diag`](Self::open_diag), with the files of the namespace's counters.
    pub fn open_diag_and_counters(&mut self, target: &Target) -> Result<Visit, EnterError> {
        self.visit(target, true)
    }

    fn visit(&mut self, target: &Target, counters: bool) -> Result<Visit, EnterError> {
        if self.lost {
            return Err(EnterError::Home(Errno::ENOTRECOVERABLE.into()));
        }
        let mut worst = EnterError::NoDoor(target.id);
        for door in &target.doors {
            match self.try_door(target.id, door, counters) {
                Ok(Some(visit)) => return Ok(visit),
                Err(error) if error.severity() == FATAL => return Err(error),
                Err(error) if error.severity() > worst.severity() => worst = error,
                Ok(None) | Err(_) => {}
            }
        }
        Err(worst)
    }

    /// `None` when this kernel has no such door.
    fn try_door(
        &mut self,
        expected: NetnsId,
        door: &Door,
        counters: bool,
    ) -> Result<Option<Visit>, EnterError> {
        let fail = |action, source: io::Error| EnterError::from_io(expected, door, action, source);
        let opened = match door {
            Door::Own => {
                let socket =
                    Socket::new(NETLINK_SOCK_DIAG).map_err(|e| fail("open a sock_diag socket", e))?;
                let counters = counters.then(Files::open);
                let visit = verify(expected, self.home_id.inode, door, socket, counters)?;
                ask_nsid(&mut self.nsids, visit.id, self.home.as_fd());
                return Ok(Some(visit));
            }
            Door::Handle => match self.handles.open(expected) {
                Some(opened) => opened,
                None => return Ok(None),
            },
            Door::Mount(path) => open_path(path),
            Door::Thread(thread) => {
                open_path(Path::new(&format!("/proc/{}/task/{}/ns/net", thread.pid, thread.tid)))
            }
        };
        let namespace = opened.map_err(|e| fail("open a door", e))?;
        let stat = fstat(&namespace).map_err(|e| fail("stat a door", e.into()))?;
        if stat.st_dev != self.device {
            // Unmounted or replaced: a plain file, no namespace.
            return Err(EnterError::Gone(expected));
        }
        let found = inode(&stat).map_err(|e| fail("stat a door", e))?;
        if found != expected.inode {
            return Err(EnterError::Mismatch { expected, found: NetnsId { inode: found, cookie: 0 } });
        }
        go(namespace.as_fd()).map_err(|e| fail("enter", e.into()))?;
        let socket = Socket::new(NETLINK_SOCK_DIAG);
        let counters = counters.then(Files::open);
        if let Err(error) = go(self.home.as_fd()) {
            self.lost = true;
            return Err(EnterError::Home(error.into()));
        }
        let socket = socket.map_err(|e| fail("open a sock_diag socket", e))?;
        let visit = verify(expected, found, door, socket, counters)?;
        ask_nsid(&mut self.nsids, visit.id, namespace.as_fd());
        Ok(Some(visit))
    }
}

/// Asks for an id where it is not known. A kernel that does not answer is asked again at the next visit.
fn ask_nsid(nsids: &mut Option<(Nsids, Query)>, id: NetnsId, namespace: BorrowedFd<'_>) {
    if let Some((nsids, query)) = nsids
        && let Some(generation) = nsids.wanted(id)
    {
        match query.of(namespace) {
            Ok(nsid) => nsids.answered(id, generation, nsid),
            Err(error) => tracing::debug!(netns = %id, %error, "no answer to RTM_GETNSID"),
        }
    }
}

/// Cookie of the calling thread's namespace (5.14); `None` where the kernel has none.
pub fn cookie_of_current() -> io::Result<Option<u64>> {
    sys::netns_cookie(Socket::new(NETLINK_SOCK_DIAG)?.as_fd())
}

/// Who the calling thread's namespace is.
pub fn current() -> io::Result<NetnsId> {
    let namespace = open_path(Path::new("/proc/thread-self/ns/net"))?;
    Ok(NetnsId { inode: inode(&fstat(&namespace)?)?, cookie: cookie_of_current()?.unwrap_or(0) })
}

/// Moves the calling thread into the namespace that a path leads to, for good: for a thread of its own, whose sockets are to
/// be there. `EINVAL` where the path leads to no network namespace.
pub fn settle(path: &Path) -> io::Result<()> {
    Ok(go(open_path(path)?.as_fd())?)
}

/// Compares the cookie of a socket with the expected one: what was entered may be a successor with the same inode.
fn verify(
    expected: NetnsId,
    inode: u32,
    door: &Door,
    socket: Socket,
    counters: Option<Files>,
) -> Result<Visit, EnterError> {
    let cookie = sys::netns_cookie(socket.as_fd())
        .map_err(|source| EnterError::Failed { target: expected, action: "read the netns cookie", source })?
        .unwrap_or(0);
    let id = NetnsId { inode, cookie };
    if id.matches(expected) {
        Ok(Visit { socket, id, door: door.clone(), counters })
    } else {
        Err(EnterError::Mismatch { expected, found: id })
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that enters a namespace")]
fn go(namespace: BorrowedFd<'_>) -> nix::Result<()> {
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)
}

/// `O_NONBLOCK`, because a directory of the operator's choice may hold a pipe.
fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    match (open(path, flags, Mode::empty()), path.parent(), path.file_name()) {
        // Its folder was given by a path that is just not too long.
        (Err(Errno::ENAMETOOLONG), Some(folder), Some(name)) => {
            let folder = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            Ok(openat(folder, name, flags, Mode::empty())?)
        }
        (opened, ..) => Ok(opened?),
    }
}

/// Inodes of namespaces are 32 bits wide (`proc_alloc_inum`).
fn inode(stat: &FileStat) -> io::Result<u32> {
    u32::try_from(stat.st_ino).map_err(|_| Errno::EOVERFLOW.into())
}

/// Severity from which on no further door is tried.
const FATAL: u8 = 4;

impl EnterError {
    /// Which of several doors' errors to tell: what can be acted on beats what only time can heal.
    fn severity(&self) -> u8 {
        match self {
            Self::NoDoor(_) => 0,
            Self::Gone(_) => 1,
            Self::Mismatch { .. } => 2,
            Self::Denied { .. } => 3,
            Self::Failed { .. } | Self::Home(_) => FATAL,
        }
    }

    fn from_io(target: NetnsId, door: &Door, action: &'static str, source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ESRCH | Errno::ESTALE | Errno::ENOTDIR) => Self::Gone(target),
            Some(Errno::EPERM | Errno::EACCES) => Self::Denied { target, door: door.clone(), source },
            _ => Self::Failed { target, action, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(id: NetnsId, doors: Vec<Door>) -> Target {
        Target { id, doors }
    }

    #[test]
    fn the_own_namespace_needs_no_entry() {
        let mut visitor = Visitor::new(Handles::Unsupported).unwrap();
        let visit = visitor.open_diag(&target(visitor.home(), vec![Door::Own])).unwrap();
        assert_eq!(visit.id, visitor.home());
        assert_eq!(visit.door, Door::Own);
    }

    #[test]
    fn another_cookie_behind_the_same_inode_is_a_mismatch() {
        let mut visitor = Visitor::new(Handles::Unsupported).unwrap();
        let home = visitor.home();
        let expected = NetnsId { cookie: home.cookie + 1, ..home };
        let error = visitor.open_diag(&target(expected, vec![Door::Own])).unwrap_err();
        assert!(matches!(error, EnterError::Mismatch { found, .. } if found == home), "{error}");
    }

    #[test]
    fn a_door_to_another_inode_is_a_mismatch_that_is_not_entered() {
        let mut visitor = Visitor::new(Handles::Unsupported).unwrap();
        let pid = std::process::id();
        let door = Door::Thread(crate::netns::Thread { pid, tid: pid });
        let error = visitor.open_diag(&target(NetnsId { inode: 1, cookie: 0 }, vec![door])).unwrap_err();
        assert!(matches!(error, EnterError::Mismatch { found: NetnsId { cookie: 0, .. }, .. }), "{error}");
    }

    #[test]
    fn missing_doors_and_plain_files_are_gone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut visitor = Visitor::new(Handles::Unsupported).unwrap();
        let doors = vec![Door::Mount("/nonexistent/netns".into()), Door::Mount(file.path().into())];
        let error = visitor.open_diag(&target(NetnsId { inode: 1, cookie: 1 }, doors)).unwrap_err();
        assert!(matches!(error, EnterError::Gone(_)), "{error}");
    }

    #[test]
    fn a_target_without_a_usable_door_says_so() {
        let mut visitor = Visitor::new(Handles::Unsupported).unwrap();
        let error =
            visitor.open_diag(&target(NetnsId { inode: 1, cookie: 1 }, vec![Door::Handle])).unwrap_err();
        assert!(matches!(error, EnterError::NoDoor(_)), "{error}");
    }
}
