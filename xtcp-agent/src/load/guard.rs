//! Named namespaces outlive whoever made them. So a process stands by that ends after the generator, and removes what it
//! has left, however it ended.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::{FAILED, LoadError, WELL, say, system};

/// The process that stands by.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Starts it. What it must not outlive is the pipe to its standard input, whose other end is ours.
    pub(super) fn start(directory: &Path, prefix: &str) -> Result<Self, LoadError> {
        let child = Command::new("/proc/self/exe")
            .args(["load", "guard", "--directory"])
            .arg(directory)
            .args(["--prefix", prefix])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A terminal's ^C is for the generator: the guard comes after it.
            .process_group(0)
            .spawn()
            .map_err(system("start the process that stands by to clean up"))?;
        Ok(Self(child))
    }

    /// Lets it go, once nothing is left to do.
    pub(super) fn dismiss(mut self) {
        drop(self.0.stdin.take());
        // That it ended is all that matters: what it could not do it said itself.
        let _ = self.0.wait();
    }
}

/// The guard itself: waits for the end of its standard input, then removes all mounts of this prefix. The status.
pub(super) fn keep(directory: &Path, prefix: &str) -> u8 {
    // Nothing is ever written there: it ends with the generator.
    let _ = io::stdin().lock().read_to_end(&mut Vec::new());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return WELL,
        Err(error) => {
            say(&format!("error: cannot look for what was left in {}: {error}", directory.display()));
            return FAILED;
        }
    };
    let mut status = WELL;
    for entry in entries.flatten().filter(|entry| entry.file_name().as_bytes().starts_with(prefix.as_bytes()))
    {
        if let Err(error) = remove(&entry.path()) {
            say(&format!("error: cannot remove {}: {error}", entry.path().display()));
            status = FAILED;
        }
    }
    status
}

/// Removes a named namespace. One that is gone already is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: a file that nothing is mounted on (yet).
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
