//! Says when to look at the mounts again: something changed in a watched directory or among this host's mounts.
//!
//! A hint, never a fact. `ip netns add` makes a file first and mounts on it later, and inotify sees only the file;
//! the kernel also wakes pollers of `/proc/self/mountinfo` when a mount comes or goes in our mount namespace
//! (`mounts_poll` in fs/namespace.c). Both together see the name appear and vanish.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

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

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Files of a watched directory, or mounts, may have changed.
    Mounts,
    /// The kernel's queue was full and it dropped hints: anything may have changed.
    Overflow,
}

/// Watches directories and mounts. Changes that nobody waited for are one hint: there is no queue that could
/// overflow but the kernel's own, whose overflow is a hint as well.
///
/// Of a directory that does not exist the nearest folder above it that does is watched, so that it is found when it appears,
/// and those on the way to it one after the other.
#[derive(Debug)]
pub struct MountWatch {
    inotify: Inotify,
    events: Polled,
    mountinfo: Polled,
    dirs: Vec<PathBuf>,
    watched: HashMap<WatchDescriptor, Watched>,
}

/// What a watch is for.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// One of the directories, and not only on the way to one.
    wanted: bool,
}

/// What one reading of inotify told.
#[derive(Default)]
struct Drained {
    /// Something happened in a wanted directory.
    hint: bool,
    /// A directory came or went, so that others are to be watched.
    moved: bool,
    overflow: bool,
}

impl MountWatch {
    /// Watches these directories, inside a tokio runtime, as far as they exist.
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

    /// Watches what has appeared since: a folder that was mounted over another tells nothing by itself. Returns those that
    /// exist and cannot be watched, with the reason; call it at each reconcile.
    pub fn rewatch(&mut self) -> Vec<(PathBuf, io::Error)> {
        let mut failed = Vec::new();
        let mut current = HashMap::new();
        for dir in &self.dirs {
            if let Err((path, error)) = approach(&self.inotify, dir, &mut current) {
                failed.push((path, error.into()));
            }
        }
        for (descriptor, _) in self.watched.extract_if(|descriptor, _| !current.contains_key(descriptor)) {
            // Fails where the kernel has dropped it already.
            let _ = self.inotify.rm_watch(descriptor);
        }
        self.watched = current;
        failed
    }

    /// Directories that are being watched.
    pub fn watched(&self) -> impl Iterator<Item = &PathBuf> {
        self.watched.values().filter(|watched| watched.wanted).map(|watched| &watched.path)
    }

    /// Waits until something changed since the last call. Losing this future loses no hint. A caller that looks at
    /// once after each hint should wait some milliseconds first: mounts come in bursts.
    pub async fn changed(&mut self) -> Result<Hint, WatchError> {
        loop {
            tokio::select! {
                ready = self.events.ready(Interest::READABLE) => {
                    let mut ready = ready.map_err(WatchError::Inotify)?;
                    let drained = drain(&self.inotify, &self.watched).map_err(WatchError::Inotify)?;
                    ready.clear_ready();
                    let before = self.watched().count();
                    if drained.moved || drained.overflow {
                        self.rewatch();
                    }
                    if drained.overflow {
                        return Ok(Hint::Overflow);
                    }
                    if drained.hint || self.watched().count() != before {
                        return Ok(Hint::Mounts);
                    }
                }
                ready = self.mountinfo.ready(Interest::PRIORITY | Interest::ERROR) => {
                    // The kernel forgets the change when it reports it: there is nothing to read.
                    ready.map_err(WatchError::MountInfo)?.clear_ready();
                    return Ok(Hint::Mounts);
                }
            }
        }
    }
}

/// Watches a directory or, while it does not exist, the nearest folder above it. Looks again after each that it added, since
/// the next on the way may have appeared just before.
fn approach(
    inotify: &Inotify,
    dir: &Path,
    watched: &mut HashMap<WatchDescriptor, Watched>,
) -> Result<(), (PathBuf, Errno)> {
    let mut nearest: Option<&Path> = None;
    loop {
        let reached = dir.ancestors().find_map(|folder| match add(inotify, folder) {
            Ok(descriptor) => Some(Ok((folder, descriptor))),
            Err(Errno::ENOENT | Errno::ENOTDIR) => None,
            Err(error) => Some(Err((folder.to_owned(), error))),
        });
        let Some((folder, descriptor)) = reached.transpose()? else { return Ok(()) };
        let wanted = folder == dir;
        // One of the directories may lie on the way to another; the kernel has one watch for both.
        let known = watched.entry(descriptor).or_insert(Watched { path: folder.to_owned(), wanted });
        if wanted && !known.wanted {
            *known = Watched { path: folder.to_owned(), wanted };
        }
        if wanted || nearest == Some(folder) {
            return Ok(());
        }
        nearest = Some(folder);
    }
}

/// The kernel returns the same descriptor for a folder that is watched already.
fn add(inotify: &Inotify, folder: &Path) -> nix::Result<WatchDescriptor> {
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    // A relative path's last ancestor.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    inotify.add_watch(folder, flags)
}

/// Reads all that inotify has.
fn drain(inotify: &Inotify, watched: &HashMap<WatchDescriptor, Watched>) -> io::Result<Drained> {
    let ends = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
    let mut drained = Drained::default();
    loop {
        match inotify.read_events() {
            Ok(events) => {
                for event in events {
                    // An ancestor's own files are no hint, but one of them may be the next folder on the way.
                    let wanted = watched.get(&event.wd).is_some_and(|watched| watched.wanted);
                    drained.overflow |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                    drained.hint |= wanted;
                    drained.moved |= !wanted || event.mask.intersects(ends);
                }
            }
            Err(Errno::EAGAIN) => return Ok(drained),
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

    async fn notices(watch: &mut MountWatch, mut until: impl FnMut(&MountWatch) -> bool) {
        while !until(watch) {
            timeout(LONG, watch.changed()).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_directory_that_appears_later_is_watched_from_then_on() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("netns");
        let mut watch = MountWatch::new(vec![dir.clone()]).unwrap();
        assert_eq!(watch.watched().count(), 0);
        std::fs::create_dir(&dir).unwrap();
        notices(&mut watch, |watch| watch.watched().eq([&dir])).await;
        std::fs::write(dir.join("blue"), "").unwrap();
        timeout(LONG, watch.changed()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn folders_that_appear_one_in_the_other_are_followed_down_to_the_directory() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b/c/netns");
        let mut watch = MountWatch::new(vec![dir.clone()]).unwrap();
        // Step by step, and what is left at once.
        for step in ["a", "a/b"] {
            std::fs::create_dir(parent.path().join(step)).unwrap();
            notices_nothing(&mut watch).await;
        }
        std::fs::create_dir_all(&dir).unwrap();
        notices(&mut watch, |watch| watch.watched().eq([&dir])).await;
        // What only was on the way is not watched any more.
        assert_eq!(watch.watched.len(), 1);
    }

    /// Lets the watch take in what happened on the way to a directory, which is no hint.
    async fn notices_nothing(watch: &mut MountWatch) {
        // Whoever mounts something on this host meanwhile makes a hint of another kind.
        while let Ok(hint) = timeout(Duration::from_millis(50), watch.changed()).await {
            assert_eq!(hint.unwrap(), Hint::Mounts);
        }
    }

    #[tokio::test]
    async fn a_directory_that_went_and_came_back_is_watched_again() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("netns");
        std::fs::create_dir(&dir).unwrap();
        let mut watch = MountWatch::new(vec![dir.clone()]).unwrap();
        std::fs::rename(&dir, parent.path().join("elsewhere")).unwrap();
        notices(&mut watch, |watch| watch.watched().count() == 0).await;
        std::fs::create_dir(&dir).unwrap();
        notices(&mut watch, |watch| watch.watched().count() == 1).await;
        std::fs::remove_dir(&dir).unwrap();
        notices(&mut watch, |watch| watch.watched().count() == 0).await;
    }

    #[tokio::test]
    async fn a_directory_on_the_way_to_another_is_watched_for_its_own_files_too() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = vec![dir.path().join("below/netns"), dir.path().to_owned()];
        let mut watch = MountWatch::new(dirs).unwrap();
        assert!(watch.watched().eq([dir.path()]));
        std::fs::write(dir.path().join("blue"), "").unwrap();
        assert_eq!(timeout(LONG, watch.changed()).await.unwrap().unwrap(), Hint::Mounts);
    }
}
