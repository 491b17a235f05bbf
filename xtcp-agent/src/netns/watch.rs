//! Says when to look at the mounts again: something changed in a watched directory or among this host's mounts.
//!
//! A hint, never a fact. `ip netns add` makes a file first and mounts on it later, and inotify sees only the file;
//! the kernel also wakes pollers of `/proc/self/mountinfo` when a mount comes or goes in our mount namespace
//! (`mounts_poll` in fs/namespace.c). Both together see the name appear and vanish.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;

use crate::sys::Polled;

/// A watch that does not work.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// inotify itself, or one of its limits (`fs.inotify.max_user_instances`).
    #[error("cannot watch directories with inotify: {0}")]
    Inotify(#[source] io::Error),
    /// `/proc/self/mountinfo` cannot be opened or polled.
    #[error("cannot watch /proc/self/mountinfo: {0}")]
    MountInfo(#[source] io::Error),
}

/// Watches directories and mounts. Changes that nobody waited for are one hint: there is no queue that could
/// overflow but the kernel's own, whose overflow is a hint as well.
#[derive(Debug)]
pub struct MountWatch {
    inotify: Inotify,
    events: Polled,
    mountinfo: Polled,
    dirs: Vec<PathBuf>,
    watched: HashMap<WatchDescriptor, PathBuf>,
}

impl MountWatch {
    /// Watches these directories, inside a tokio runtime. One that does not exist is tried again by
    /// [`Self::rewatch`].
    pub fn new(dirs: Vec<PathBuf>) -> Result<Self, WatchError> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(|e| WatchError::Inotify(e.into()))?;
        let events = inotify.as_fd().try_clone_to_owned();
        let mountinfo = File::open("/proc/self/mountinfo").map(OwnedFd::from);
        let mut watch = Self {
            inotify,
            events: events.and_then(|fd| Polled::new(fd, Interest::READABLE)).map_err(WatchError::Inotify)?,
            mountinfo: mountinfo
                .and_then(|fd| Polled::new(fd, Interest::PRIORITY | Interest::ERROR))
                .map_err(WatchError::MountInfo)?,
            dirs,
            watched: HashMap::new(),
        };
        watch.rewatch();
        Ok(watch)
    }

    /// Watches directories that have appeared since. Returns those that exist and cannot be watched, with the reason;
    /// call it at each reconcile.
    pub fn rewatch(&mut self) -> Vec<(PathBuf, io::Error)> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let mut failed = Vec::new();
        for dir in &self.dirs {
            // The kernel returns the same descriptor for a directory that is watched already.
            match self.inotify.add_watch(dir, flags) {
                Ok(descriptor) => {
                    self.watched.insert(descriptor, dir.clone());
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => failed.push((dir.clone(), error.into())),
            }
        }
        failed
    }

    /// Directories that are being watched.
    pub fn watched(&self) -> impl Iterator<Item = &PathBuf> {
        self.watched.values()
    }

    /// Waits until something changed since the last call. Losing this future loses no hint. A caller that looks at
    /// once after each hint should wait some milliseconds first: mounts come in bursts.
    pub async fn changed(&mut self) -> Result<(), WatchError> {
        loop {
            tokio::select! {
                ready = self.events.ready(Interest::READABLE) => {
                    let mut ready = ready.map_err(WatchError::Inotify)?;
                    let hint = drain(&self.inotify, &mut self.watched).map_err(WatchError::Inotify)?;
                    ready.clear_ready();
                    if hint {
                        return Ok(());
                    }
                }
                ready = self.mountinfo.ready(Interest::PRIORITY | Interest::ERROR) => {
                    // The kernel forgets the change when it reports it: there is nothing to read.
                    ready.map_err(WatchError::MountInfo)?.clear_ready();
                    return Ok(());
                }
            }
        }
    }
}

/// Reads all that inotify has; whether that was anything. Directories that went are not watched any more.
fn drain(inotify: &Inotify, watched: &mut HashMap<WatchDescriptor, PathBuf>) -> io::Result<bool> {
    let mut hint = false;
    loop {
        match inotify.read_events() {
            Ok(events) => {
                hint = true;
                for event in events.iter().filter(|event| event.mask.contains(AddWatchFlags::IN_IGNORED)) {
                    watched.remove(&event.wd);
                }
            }
            Err(Errno::EAGAIN) => return Ok(hint),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn many_changes_that_nobody_waited_for_are_one_hint() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = MountWatch::new(vec![dir.path().to_owned()]).unwrap();
        for n in 0..100 {
            std::fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        timeout(LONG, watch.changed()).await.unwrap().unwrap();
        let again = watch.inotify.read_events();
        assert_eq!(again.unwrap_err(), Errno::EAGAIN);
    }

    #[tokio::test]
    async fn a_directory_that_appears_later_is_watched_after_the_next_reconcile() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("netns");
        let mut watch = MountWatch::new(vec![dir.clone()]).unwrap();
        assert_eq!(watch.watched().count(), 0);
        std::fs::create_dir(&dir).unwrap();
        assert!(watch.rewatch().is_empty());
        assert_eq!(watch.watched().collect::<Vec<_>>(), [&dir]);
        std::fs::write(dir.join("blue"), "").unwrap();
        timeout(LONG, watch.changed()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_went_is_not_watched_any_more() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("netns");
        std::fs::create_dir(&dir).unwrap();
        let mut watch = MountWatch::new(vec![dir.clone()]).unwrap();
        std::fs::remove_dir(&dir).unwrap();
        while watch.watched().count() > 0 {
            timeout(LONG, watch.changed()).await.unwrap().unwrap();
        }
    }
}
