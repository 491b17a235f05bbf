//! Which autonomous system an address belongs to, by a database in MaxMind's format (`--asn-db`).
//!
//! Owns the database in memory, and that a newer one takes its place. What cannot be read leaves the old one there.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use maxminddb::{MaxMindDbError, Reader, path};
use prometheus::{IntCounterVec, IntGauge, Registry, opts};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Why there is no database.
#[derive(Debug, Error)]
pub enum AsnError {
    /// The file cannot be read.
    #[error("--asn-db: {path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Its errno.
        source: std::io::Error,
    },
    /// It is no database, or is damaged.
    #[error("--asn-db: {path}: not a database in MaxMind's format (.mmdb): {source}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: MaxMindDbError,
    },
}

/// One database.
#[derive(Debug)]
pub struct Database {
    reader: Reader<Vec<u8>>,
}

impl Database {
    fn from_bytes(bytes: Vec<u8>) -> Result<Self, MaxMindDbError> {
        Ok(Self { reader: Reader::from_source(bytes)? })
    }

    /// Number of the autonomous system; 0 where the database has none. `address` has IPv4 in its first four bytes.
    pub fn number(&self, is_v4: bool, address: [u8; 16]) -> u32 {
        let ip = if is_v4 {
            let [a, b, c, d, ..] = address;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        } else {
            Ipv6Addr::from(address).to_canonical()
        };
        let found =
            self.reader.lookup(ip).and_then(|found| found.decode_path(&path!["autonomous_system_number"]));
        found.ok().flatten().unwrap_or(0)
    }
}

/// What tells one version of the file from the next.
type Version = (u64, Option<SystemTime>, u64);

fn version(path: &Path) -> Option<Version> {
    use std::os::unix::fs::MetadataExt as _;
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.modified().ok(), file.len()))
}

/// Counters of the database.
#[derive(Clone)]
pub struct AsnMetrics {
    loads: IntCounterVec,
    built: IntGauge,
}

impl AsnMetrics {
    /// Registers everything under `xtcp_asn_db_`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Times that the file of --asn-db was read, by result; after a failure the database before it stays.";
        let loads = IntCounterVec::new(opts!("xtcp_asn_db_loads_total", help), &["result"])?;
        let built = IntGauge::new(
            "xtcp_asn_db_build_timestamp_seconds",
            "When the database in use was built, as it says, seconds since the epoch; 0 without one.",
        )?;
        registry.register(Box::new(loads.clone()))?;
        registry.register(Box::new(built.clone()))?;
        for result in ["loaded", "failed"] {
            loads.with_label_values(&[result]);
        }
        Ok(Self { loads, built })
    }
}

/// The database in use; a clone is the same.
#[derive(Clone)]
pub struct AsnTable {
    path: Arc<Path>,
    database: Arc<RwLock<Arc<Database>>>,
}

impl AsnTable {
    /// Reads the file.
    pub fn open(path: &Path, metrics: &AsnMetrics) -> Result<Self, AsnError> {
        let database = Arc::new(RwLock::new(Arc::new(load(path, metrics)?)));
        Ok(Self { path: path.into(), database })
    }

    /// The database in use now.
    pub fn current(&self) -> Arc<Database> {
        Arc::clone(&self.database.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again when it has changed, and at SIGHUP, until `stop`.
    pub async fn follow(self, metrics: AsnMetrics, stop: CancellationToken) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => Some(hangups),
            Err(error) => {
                tracing::warn!(%error, "SIGHUP cannot be listened for: --asn-db is read again only when its file changes");
                None
            }
        };
        let mut known = version(&self.path);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let told = tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => false,
                () = hangup(&mut hangups) => true,
            };
            let (table, counters) = (self.clone(), metrics.clone());
            let before = known;
            // Megabytes from a disk: not on a thread that others wait for.
            let looked = tokio::task::spawn_blocking(move || table.look(told, before, &counters)).await;
            known = looked.unwrap_or(known);
        }
    }

    /// Takes the file's newer version; the version that was looked at.
    fn look(&self, told: bool, known: Option<Version>, metrics: &AsnMetrics) -> Option<Version> {
        let now = version(&self.path);
        // Without a file the old database stays.
        if !told && (now == known || now.is_none()) {
            return known;
        }
        match load(&self.path, metrics) {
            Ok(database) => {
                *self.database.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(database);
                tracing::info!(path = %self.path.display(), "--asn-db was read again");
            }
            Err(error) => tracing::warn!(%error, "the database before it stays"),
        }
        now
    }
}

async fn hangup(hangups: &mut Option<tokio::signal::unix::Signal>) {
    if let Some(hangups) = hangups
        && hangups.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

fn load(path: &Path, metrics: &AsnMetrics) -> Result<Database, AsnError> {
    let read = fs::read(path).map_err(|source| AsnError::Read { path: path.to_owned(), source });
    let loaded = read.and_then(|bytes| {
        Database::from_bytes(bytes).map_err(|source| AsnError::Format { path: path.to_owned(), source })
    });
    let result = if loaded.is_ok() { "loaded" } else { "failed" };
    metrics.loads.with_label_values(&[result]).inc();
    if let Ok(database) = &loaded {
        let epoch = database.reader.metadata().build_epoch;
        metrics.built.set(i64::try_from(epoch).unwrap_or(i64::MAX));
    }
    loaded
}

#[cfg(test)]
#[expect(unreachable_pub, reason = "of another package, where others use it")]
#[path = "../../tests/src/mmdb.rs"]
mod mmdb;

#[cfg(test)]
mod tests {
    use super::*;
    use mmdb::{asn_database, v4};

    fn metrics() -> AsnMetrics {
        AsnMetrics::register(&Registry::new()).unwrap()
    }

    fn number(table: &AsnTable, address: &str) -> u32 {
        match address.parse().unwrap() {
            IpAddr::V4(v4) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&v4.octets());
                table.current().number(true, bytes)
            }
            IpAddr::V6(v6) => table.current().number(false, v6.octets()),
        }
    }

    #[test]
    fn addresses_have_the_number_of_the_network_that_they_are_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let networks = [
            v4(192, 0, 2, 0, 24, 64_496),
            v4(198, 51, 100, 128, 25, u32::MAX),
            ("2001:db8::".parse().unwrap(), 32, 64_511),
        ];
        fs::write(file.path(), asn_database(&networks)).unwrap();
        let table = AsnTable::open(file.path(), &metrics()).unwrap();
        for (address, expected) in [
            ("192.0.2.0", 64_496),
            ("192.0.2.255", 64_496),
            ("192.0.3.0", 0),
            ("198.51.100.127", 0),
            ("198.51.100.128", u32::MAX),
            ("::ffff:192.0.2.7", 64_496),
            ("2001:db8:ffff::1", 64_511),
            ("2001:db9::1", 0),
            ("0.0.0.0", 0),
            ("::", 0),
        ] {
            assert_eq!(number(&table, address), expected, "{address}");
        }
    }

    #[test]
    fn a_changed_file_is_taken_and_a_broken_one_leaves_the_old() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metrics = metrics();
        fs::write(file.path(), asn_database(&[v4(192, 0, 2, 0, 24, 1)])).unwrap();
        let table = AsnTable::open(file.path(), &metrics).unwrap();
        let first = version(file.path());
        assert_eq!(table.look(false, first, &metrics), first);
        fs::write(file.path(), asn_database(&[v4(192, 0, 2, 0, 24, 2), v4(10, 0, 0, 0, 8, 3)])).unwrap();
        let second = table.look(false, first, &metrics);
        assert!(second != first && number(&table, "192.0.2.1") == 2);
        fs::write(file.path(), b"not a database").unwrap();
        let third = table.look(false, second, &metrics);
        assert_eq!(number(&table, "192.0.2.1"), 2);
        // Not tried again and again.
        assert_eq!(table.look(false, third, &metrics), third);
        fs::remove_file(file.path()).unwrap();
        assert_eq!(table.look(false, third, &metrics), third);
        let counted = |result| metrics.loads.with_label_values(&[result]).get();
        assert_eq!((counted("loaded"), counted("failed")), (2, 1));
        assert_eq!(metrics.built.get(), 1_700_000_000);
    }

    #[test]
    fn what_is_no_database_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = AsnTable::open(file.path(), &metrics()).err().unwrap().to_string();
        assert!(error.contains("not a database in MaxMind's format"), "{error}");
        let error = AsnTable::open(Path::new("/nonexistent.mmdb"), &metrics()).err().unwrap().to_string();
        assert!(error.contains("/nonexistent.mmdb: cannot be read"), "{error}");
    }
}
