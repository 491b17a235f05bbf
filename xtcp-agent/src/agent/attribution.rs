//! Owners of sockets, names of users, autonomous systems and the mask, as the settings want them.

use std::io;
use std::path::Path;
use std::thread::JoinHandle;

use prometheus::Registry;
use thiserror::Error;

use crate::asn::{AsnError, AsnMetrics, AsnTable};
use crate::config::{Attribution, ProcessScan, UserNames};
use crate::mask::{Mask, MaskError};
use crate::owners::{self, OwnerMetrics, Owners};
use crate::record::builder::Extras;
use crate::users::{UserMetrics, Users};
use crate::workload::Directory;

/// Why there is none of it.
#[derive(Debug, Error)]
pub enum AttributionError {
    #[error(transparent)]
    Asn(#[from] AsnError),
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("start the thread that {what}: {source}")]
    Thread {
        /// What it does.
        what: &'static str,
        /// Its errno.
        source: io::Error,
    },
}

/// The counters of all of it.
pub(crate) struct AttributionMetrics {
    pub(crate) owners: OwnerMetrics,
    pub(crate) users: UserMetrics,
    pub(crate) systems: AsnMetrics,
}

impl AttributionMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            owners: OwnerMetrics::register(registry)?,
            users: UserMetrics::register(registry)?,
            systems: AsnMetrics::register(registry)?,
        })
    }
}

/// What rows have beside the kernel's words, where it is wanted.
pub(crate) fn extras(config: &Attribution, metrics: &AttributionMetrics) -> Result<Extras, AttributionError> {
    let users = match config.user_names {
        UserNames::On => Some(Users::start(metrics.users.clone())),
        UserNames::Off => None,
    };
    Ok(Extras {
        users: users
            .transpose()
            .map_err(|source| AttributionError::Thread { what: "asks for users' names", source })?,
        systems: config.asn_db.as_ref().map(|path| AsnTable::open(path, &metrics.systems)).transpose()?,
        mask: mask(config)?,
    })
}

/// What becomes of addresses.
pub(crate) fn mask(config: &Attribution) -> Result<Option<Mask>, AttributionError> {
    Ok(config.mask_addresses.as_ref().map(Mask::new).transpose()?)
}

/// The memory of owners, which nobody fills yet.
pub(crate) fn owners(config: &Attribution, directory: Directory, metrics: &AttributionMetrics) -> Owners {
    let settings =
        owners::Settings { bytes: config.owner_cache_bytes as usize, proc: Path::new("/proc").to_owned() };
    Owners::new(settings, directory, metrics.owners.clone())
}

/// Starts what fills it beside events; the thread of what ends by itself.
pub(super) fn fill(
    owners: &Owners,
    config: &Attribution,
) -> Result<Option<JoinHandle<()>>, AttributionError> {
    owners.watch();
    if config.process_scan != ProcessScan::Start {
        return Ok(None);
    }
    let scan = owners.scan_in_background();
    scan.map(Some).map_err(|source| AttributionError::Thread { what: "looks through descriptors", source })
}
