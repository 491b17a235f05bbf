//! `file:PATH`: batches are appended to a file, which is set aside by size and time and may be moved away by others.
//!
//! A batch is in it whole or not at all: what a full disk or a dying agent left of one is cut off or set aside before the
//! next is written. A lock keeps a second writer out.

mod rotation;
mod tail;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::statvfs::fstatvfs;

use super::explain::error_text;
use super::options::{OptionInfo, Options};
use super::scheme::Built;
use super::writer::{Sink, Writer};
use super::{Cause, Context, Destination, Opener, Payload, SendError};
use crate::marshaller::Marshaller;
use rotation::Rotation;

pub(super) const BUILT: Built = Built { parse, options: &[&OPTIONS] };

const OPTIONS: [OptionInfo; 4] = [
    OptionInfo::new(
        "rotate-bytes",
        "SIZE",
        "Sets the file aside, under its name and the time, before a batch that would make it larger.",
    ),
    OptionInfo::new(
        "rotate-every",
        "DURATION",
        "Sets the file aside before the first batch of each such span of UTC: 1h at each full hour, 24h at midnight.",
    ),
    OptionInfo::new(
        "keep",
        "NUMBER",
        "Deletes the oldest files set aside beyond so many; without it all stay.",
    ),
    OptionInfo::new(
        "fsync",
        "never|batch|close (default close)",
        "When rows are made to survive a power cut: never, before a batch counts as sent, or when a file is complete.",
    ),
];

/// Who shares a file with a writer that is just ending waits this long for it.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// When bytes are made to survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fsync {
    Never,
    Batch,
    Close,
}

#[derive(Clone, Debug)]
struct Settings {
    path: PathBuf,
    rotation: Rotation,
    fsync: Fsync,
}

fn parse(rest: &str, options: &Options) -> Result<Arc<dyn Opener>, String> {
    if rest.is_empty() {
        return Err("there is no path".to_owned());
    }
    let path = PathBuf::from(rest);
    if rest.ends_with('/') || path.file_name().is_none() {
        return Err(format!("{rest:?} names a folder"));
    }
    let fsync = options
        .one_of("fsync", &[("never", Fsync::Never), ("batch", Fsync::Batch), ("close", Fsync::Close)])?;
    Ok(Arc::new(Settings { path, rotation: Rotation::read(options)?, fsync: fsync.unwrap_or(Fsync::Close) }))
}

impl Opener for Settings {
    fn open(&self, context: &Context) -> Result<Box<dyn Destination>, Cause> {
        let log = Log { settings: self.clone(), format: context.format, open: None };
        Ok(Box::new(Writer::start("file", log)?))
    }

    fn patience(&self) -> Option<Duration> {
        // A writer that hangs in the kernel cannot be ended, and still holds the lock.
        None
    }
}

/// The file as it is written to.
struct Log {
    settings: Settings,
    format: &'static dyn Marshaller,
    open: Option<Open>,
}

struct Open {
    file: File,
    /// Bytes up to the end of the last whole batch, when more may be there.
    torn: Option<u64>,
    /// Columns that the file names at its beginning, once they were compared.
    header: bool,
    /// When it was last written to.
    written: SystemTime,
}

impl Sink for Log {
    fn write(&mut self, payload: &Payload) -> Result<(), SendError> {
        self.append(payload, SystemTime::now()).map_err(SendError::Retry)
    }

    fn flush(&mut self) -> Result<(), SendError> {
        match &self.open {
            Some(open) if self.settings.fsync == Fsync::Close => open
                .file
                .sync_all()
                .map_err(|error| SendError::Retry(problem(&self.settings.path, "cannot be synced", &error))),
            _ => Ok(()),
        }
    }

    fn probe(&mut self) -> Result<String, SendError> {
        probe(&self.settings.path).map_err(SendError::Retry)
    }
}

impl Log {
    fn append(&mut self, payload: &Payload, now: SystemTime) -> Result<(), Cause> {
        self.reopen_when_moved()?;
        let fsync = self.settings.fsync;
        let path = self.settings.path.clone();
        let (open, length) = self.ready(payload, now)?;
        let skipped = if length == 0 { 0 } else { payload.header };
        let bytes = payload.bytes.get(skipped..).unwrap_or_default();
        open.torn = Some(length);
        let mut result = open.file.write_all(bytes);
        if result.is_ok() && fsync == Fsync::Batch {
            result = open.file.sync_data();
        }
        match result {
            Ok(()) => {
                open.torn = None;
                open.header = true;
                open.written = now;
                Ok(())
            }
            Err(error) => {
                // Room is given back at once; where that fails, the next batch tries again.
                if open.file.set_len(length).is_ok() {
                    open.torn = None;
                }
                Err(problem(&path, "cannot be written to", &error))
            }
        }
    }

    /// The file, set aside and begun anew where this payload wants that, and its length.
    fn ready(&mut self, payload: &Payload, now: SystemTime) -> Result<(&mut Open, u64), Cause> {
        // A file that was set aside is followed by one that is empty, which is not set aside.
        for _ in 0..2 {
            let Self { settings, format, open } = &mut *self;
            let path = &settings.path;
            let current = match open {
                Some(current) => current,
                None => open.insert(open_at(settings, *format)?),
            };
            let cut = |current: &mut Open| -> io::Result<u64> {
                if let Some(whole) = current.torn {
                    current.file.set_len(whole)?;
                    current.torn = None;
                }
                Ok(current.file.metadata()?.len())
            };
            let length =
                cut(current).map_err(|error| problem(path, "cannot be cut to whole batches", &error))?;
            let other_columns = length > 0 && !current.header && !begins_with(current, payload);
            let adding = payload.bytes.len() as u64;
            let rotation = &settings.rotation;
            if length == 0 || !(other_columns || rotation.is_due(length, adding, current.written, now)) {
                break;
            }
            set_aside(settings, current, now)?;
            *open = None;
        }
        let open = self.open.as_mut().ok_or("the file is not open")?;
        let length =
            open.file.metadata().map_err(|error| problem(&self.settings.path, "cannot be read", &error))?;
        Ok((open, length.len()))
    }

    /// Lets go of a file that no longer has its name: somebody rotates, or deleted it.
    fn reopen_when_moved(&mut self) -> Result<(), Cause> {
        let Some(open) = &self.open else { return Ok(()) };
        let same = match (open.file.metadata(), fs::metadata(&self.settings.path)) {
            (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
            (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(problem(&self.settings.path, "cannot be looked at", &error));
            }
            _ => false,
        };
        if !same {
            if let Some(whole) = open.torn {
                let _ = open.file.set_len(whole);
            }
            complete(&self.settings, open)?;
            self.open = None;
        }
        Ok(())
    }
}

/// Whether a file names the columns that a payload brings; afterwards it is known to.
fn begins_with(open: &mut Open, payload: &Payload) -> bool {
    let header = payload.bytes.get(..payload.header).unwrap_or_default();
    let mut found = vec![0; header.len()];
    let read = open.file.rewind().and_then(|()| open.file.read_exact(&mut found));
    open.header = read.is_ok() && found == header;
    open.header
}

fn set_aside(settings: &Settings, open: &Open, now: SystemTime) -> Result<(), Cause> {
    complete(settings, open)?;
    settings.rotation.set_aside(&settings.path, now)
}

/// Does what is due when nothing more is written to a file.
fn complete(settings: &Settings, open: &Open) -> Result<(), Cause> {
    if settings.fsync == Fsync::Never {
        return Ok(());
    }
    open.file.sync_all().map_err(|error| problem(&settings.path, "cannot be synced", &error))
}

fn open_at(settings: &Settings, format: &dyn Marshaller) -> Result<Open, Cause> {
    let path = &settings.path;
    let mut file = options().open(path).map_err(|error| cannot_open(path, &error))?;
    let metadata = file.metadata().map_err(|error| problem(path, "cannot be looked at", &error))?;
    if !metadata.is_file() {
        return Err(format!("file {}: it is no regular file: choose another path", path.display()).into());
    }
    lock(path, &file)?;
    let whole = tail::is_whole(&mut file, metadata.len(), format.name())
        .map_err(|error| problem(path, "cannot be read", &error))?;
    if settings.fsync == Fsync::Batch && metadata.len() == 0 {
        // The name of a new file is to survive as its bytes do.
        sync_folder(path).map_err(|error| problem(path, "has a folder that cannot be synced", &error))?;
    }
    let written = metadata.modified().unwrap_or_else(|_| SystemTime::now());
    let open = Open { file, torn: None, header: false, written };
    if whole {
        return Ok(open);
    }
    tracing::warn!(path = %path.display(), "the file ends within a batch or is of another format: it is set aside");
    settings.rotation.set_aside(path, SystemTime::now())?;
    drop(open);
    open_at(settings, format)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Rows tell who talks to whom: others need not read them. A pipe without a reader must not hold us up here.
    options.read(true).append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK);
    options
}

fn lock(path: &Path, file: &File) -> Result<(), Cause> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            // Some network filesystems know no locks.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "file {}: something else writes to it and holds its lock: give each destination a file of its own",
                    path.display()
                )
                .into());
            }
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn probe(path: &Path) -> Result<String, Cause> {
    let was_there = path.exists();
    let file = options().open(path).map_err(|error| cannot_open(path, &error))?;
    let looked = file.metadata().and_then(|metadata| Ok((metadata, fstatvfs(&file)?)));
    if !was_there {
        fs::remove_file(path).map_err(|error| problem(path, "cannot be removed after the probe", &error))?;
    }
    let (metadata, disk) = looked.map_err(|error| problem(path, "cannot be looked at", &error))?;
    if !metadata.is_file() {
        return Err(format!("file {}: it is no regular file: choose another path", path.display()).into());
    }
    let free = disk.blocks_available().saturating_mul(disk.fragment_size()) >> 20;
    Ok(format!("{} can be appended to ({} bytes so far, {free} MiB free)", path.display(), metadata.len()))
}

fn cannot_open(path: &Path, error: &io::Error) -> Cause {
    let fix = match error.kind() {
        io::ErrorKind::NotFound => format!("make the folder {}", folder(path).display()),
        io::ErrorKind::PermissionDenied => {
            format!("let user {} write there, or choose another path", nix::unistd::geteuid())
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount it writable, or choose another path".to_owned(),
        io::ErrorKind::IsADirectory => "choose the path of a file".to_owned(),
        _ => return problem(path, "cannot be opened", error),
    };
    format!("file {}: cannot be opened: {}: {fix}", path.display(), error_text(error)).into()
}

fn problem(path: &Path, what: &str, error: &io::Error) -> Cause {
    let fix = match error.kind() {
        io::ErrorKind::StorageFull => ": free space on its filesystem, or keep fewer files (keep=N)",
        io::ErrorKind::QuotaExceeded => ": raise the quota, or keep fewer files (keep=N)",
        io::ErrorKind::FileTooLarge => ": raise the limit of a file's size (ulimit -f), or set rotate-bytes",
        io::ErrorKind::PermissionDenied => ": let the agent's user write there",
        io::ErrorKind::ReadOnlyFilesystem => ": mount it writable",
        _ => "",
    };
    format!("file {}: {what}: {}{fix}", path.display(), error_text(error)).into()
}

#[cfg(test)]
mod tests;
