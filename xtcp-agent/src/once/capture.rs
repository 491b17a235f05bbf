//! What passes between the workers and the kernel, kept in a file.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

use super::redact::blank_keys;
use crate::clock::Clock;
use crate::collector::Tap;
use crate::pcap::{Direction, NETLINK_SOCK_DIAG, Packet, Writer};
use crate::printer::standard_output;

/// Why nothing is kept.
#[derive(Debug, Error)]
pub(super) enum CaptureFileError {
    /// A terminal shows nothing of it.
    #[error("a capture is no text: redirect standard output, or give -o a file")]
    Terminal,
    /// It cannot be made.
    #[error("{path}: cannot be created: {source}")]
    Create { path: PathBuf, source: io::Error },
    /// It takes no more.
    #[error("{path}: cannot be written: {source}")]
    Write { path: PathBuf, source: io::Error },
    /// There is no time to note.
    #[error("cannot read the clocks: {0}")]
    Clock(#[from] nix::Error),
}

/// The file.
pub(super) struct CaptureTap {
    path: PathBuf,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    writer: Writer<BufWriter<File>>,
    failed: Option<io::Error>,
    namespaces: BTreeSet<u32>,
    bytes: u64,
    keys: u64,
    copy: Vec<u8>,
}

impl CaptureTap {
    /// Begins the file; `-` is standard output.
    pub(super) fn create(path: &Path) -> Result<Self, CaptureFileError> {
        let opened = if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(CaptureFileError::Terminal);
            }
            standard_output()
        } else {
            // Who talks to whom is nobody else's business.
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
        };
        let fail = |source| CaptureFileError::Create { path: path.to_owned(), source };
        let writer = opened.and_then(|file| Writer::new(BufWriter::new(file))).map_err(fail)?;
        let state =
            State { writer, failed: None, namespaces: BTreeSet::new(), bytes: 0, keys: 0, copy: Vec::new() };
        Ok(Self { path: path.to_owned(), clock: Clock::new()?, state: Mutex::new(state) })
    }

    /// Ends the file; what is in it, for people.
    pub(super) fn finish(&self) -> Result<String, CaptureFileError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = state.failed.take();
        let flushed = failed.map_or_else(|| state.writer.flush(), Err);
        flushed.map_err(|source| CaptureFileError::Write { path: self.path.clone(), source })?;
        let State { writer, namespaces, bytes, keys, .. } = &*state;
        let packets = writer.packets();
        let keys = match keys {
            0 => String::new(),
            keys => format!("; {keys} TCP MD5 keys blanked"),
        };
        let namespaces = namespaces.len();
        Ok(format!("{packets} datagrams of {namespaces} network namespaces, {bytes} bytes{keys}"))
    }
}

impl Tap for CaptureTap {
    fn datagram(&self, netns_inode: u32, direction: Direction, datagram: &[u8]) {
        let timestamp_ns = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { writer, failed, namespaces, bytes, keys, copy } = &mut *state;
        if failed.is_some() {
            return;
        }
        copy.clear();
        copy.extend_from_slice(datagram);
        if direction == Direction::Answer {
            *keys += blank_keys(copy);
        }
        namespaces.insert(netns_inode);
        *bytes += datagram.len() as u64;
        let protocol = NETLINK_SOCK_DIAG;
        let packet = Packet { timestamp_ns, direction, netns_inode, protocol, datagram: copy };
        *failed = writer.packet(&packet).err();
    }
}
