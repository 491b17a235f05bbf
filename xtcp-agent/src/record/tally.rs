//! The number of the last row, kept beside the process: the next agent of the same boot goes on behind it, however the
//! last one ended, so that a gap in `record_counter` is what was lost.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{Flock, FlockArg};

/// Where it is kept: a file system in memory, gone with the boot that the numbers belong to.
pub const FILE: &str = "/run/xtcp2-agent.rows";

/// The counter, and the file behind it while no other agent has it.
#[derive(Debug)]
pub struct Tally {
    value: Arc<AtomicU64>,
    file: Option<Flock<File>>,
}

impl Tally {
    /// Goes on behind the number in the file. Without the file, or beside another agent, it begins at 0 and is not kept.
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.ok().and_then(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok());
        let mut last = [0; 8];
        let is_there = file.as_ref().is_some_and(|file| file.read_exact_at(&mut last, 0).is_ok());
        let last = if is_there { u64::from_le_bytes(last) } else { 0 };
        if file.is_none() {
            tracing::debug!(file = %path.display(), "record_counter begins at 1, because its file is not to be had");
        }
        Self { value: Arc::new(AtomicU64::new(last)), file }
    }

    /// The number of the last row that was made.
    pub fn value(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.value)
    }

    /// Keeps it.
    pub fn keep(&self) {
        if let Some(file) = &self.file {
            // A number that is not kept makes a gap look smaller; there is nothing better to do about it.
            let _ = file.write_all_at(&self.value.load(Ordering::Relaxed).to_le_bytes(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_one_goes_on_behind_what_was_kept_and_one_beside_it_begins_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows");
        let first = Tally::open(&path);
        first.value().fetch_add(41, Ordering::Relaxed);
        first.keep();
        first.value().fetch_add(1, Ordering::Relaxed);
        assert_eq!(Tally::open(&path).value().load(Ordering::Relaxed), 0, "it is another's");
        drop(first);
        assert_eq!(Tally::open(&path).value().load(Ordering::Relaxed), 41);
        assert_eq!(Tally::open(&dir.path().join("no/folder")).value().load(Ordering::Relaxed), 0);
    }
}
