//! One agent a host: a lock on a file that a running agent holds, and that `check` only looks at.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde::Serialize;

/// The file that a running agent locks.
pub const LOCK_FILE: &str = "/run/xtcp2-agent.lock";

/// Whether another agent runs on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Other {
    /// None.
    None,
    /// One, with its process id as far as it is known.
    Running {
        /// Process id in its own pid namespace.
        pid: Option<u32>,
    },
    /// It could not be found out, and why.
    Unknown(String),
}

/// This process's lock; given back when it is dropped, and by the kernel when the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An old pid in a file that nobody locks does no harm.
        let _ = self.file.set_len(0);
    }
}

/// Takes the lock; `Err` tells who has it. Two agents on one host both work, at twice the cost, so that the caller
/// may go on without it.
pub fn lock(path: &Path) -> Result<Lock, Other> {
    let unknown = |e: io::Error| Other::Unknown(format!("{}: {e}", path.display()));
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(unknown)?;
    // An open-file-description lock (3.15) belongs to the descriptor, not to every descriptor of the process.
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => return Err(Other::Running { pid: pid_in(&mut file) }),
        Err(errno) => return Err(unknown(errno.into())),
    }
    file.set_len(0).map_err(unknown)?;
    writeln!(file, "{}", std::process::id()).map_err(unknown)?;
    Ok(Lock { file })
}

/// Looks whether an agent runs, without taking the lock from one that starts meanwhile.
pub(super) fn other(path: &Path) -> Other {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Other::None,
        Err(e) => return Other::Unknown(format!("{}: {e}", path.display())),
    };
    let mut held = whole_file();
    match fcntl(&file, FcntlArg::F_OFD_GETLK(&mut held)) {
        Ok(_) if i32::from(held.l_type) == libc::F_UNLCK => Other::None,
        Ok(_) => Other::Running { pid: pid_in(&mut file) },
        Err(errno) => Other::Unknown(format!("{}: {errno}", path.display())),
    }
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// A write lock on everything.
fn whole_file() -> libc::flock {
    libc::flock {
        // The constants are small; the field is narrower than they are.
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_learns_of_the_first_and_may_start_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(other(&path), Other::None);
        let first = lock(&path).unwrap();
        let running = Other::Running { pid: Some(std::process::id()) };
        assert_eq!(other(&path), running);
        assert_eq!(other(&path), running, "looking must not take the lock");
        assert_eq!(lock(&path).unwrap_err(), running);
        drop(first);
        assert_eq!(other(&path), Other::None);
        assert!(lock(&path).is_ok());
    }

    #[test]
    fn a_lock_file_that_cannot_be_made_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(lock(&folder.path().join("none/lock")), Err(Other::Unknown(_))));
    }
}
