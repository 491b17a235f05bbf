//! A line of JSON for each namespace that was made, and for each that was ended.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::super::{Identity, LoadError, system};
use super::space::{Ended, Space};
use crate::clock;

/// The file. A line is in it as soon as it is told: who reads along misses nothing.
#[derive(Debug)]
pub(super) struct Log(Mutex<BufWriter<File>>);

#[derive(Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
enum Line<'a> {
    /// It exists, and its connections are open.
    Created {
        #[serde(flatten)]
        netns: Identity,
        name: Option<&'a str>,
        first_port: u16,
        last_port: u16,
        connections: u64,
        /// Right after the kernel made it, `CLOCK_MONOTONIC` nanoseconds.
        created_ktime_ns: u64,
    },
    /// Nothing of the generator holds it any more.
    Destroyed {
        #[serde(flatten)]
        netns: Identity,
        name: Option<&'a str>,
        first_port: u16,
        last_port: u16,
        created_ktime_ns: u64,
        /// Right before its end was begun.
        destroyed_ktime_ns: u64,
    },
    /// All that `--initial` asks for exist.
    Filled { ktime_ns: u64 },
}

impl Log {
    /// Creates the file, or empties it.
    pub(super) fn create(path: &Path) -> Result<Self, LoadError> {
        Ok(Self(Mutex::new(BufWriter::new(File::create(path).map_err(system("create the file of --log"))?))))
    }

    pub(super) fn created(&self, space: &Space) -> Result<(), LoadError> {
        self.line(&Line::Created {
            netns: space.id.into(),
            name: space.name(),
            first_port: space.ports.0,
            last_port: space.ports.1,
            connections: space.connections(),
            created_ktime_ns: space.created_ktime_ns,
        })
    }

    pub(super) fn destroyed(&self, ended: &Ended) -> Result<(), LoadError> {
        self.line(&Line::Destroyed {
            netns: ended.id.into(),
            name: ended.name.as_deref(),
            first_port: ended.ports.0,
            last_port: ended.ports.1,
            created_ktime_ns: ended.created_ktime_ns,
            destroyed_ktime_ns: ended.destroyed_ktime_ns,
        })
    }

    pub(super) fn filled(&self) -> Result<(), LoadError> {
        self.line(&Line::Filled { ktime_ns: clock::ktime_ns() })
    }

    fn line(&self, line: &Line<'_>) -> Result<(), LoadError> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = serde_json::to_writer(&mut *file, line).map_err(std::io::Error::other);
        written
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.flush())
            .map_err(system("write to the file of --log"))
    }
}
