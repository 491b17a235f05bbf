//! When a file is set aside, what it is called then, and which ones are deleted.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::super::Cause;
use super::super::options::Options;
use super::{folder, problem};

/// Days, minutes and years that nobody means are refused.
const SPANS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(366 * 24 * 3600));

/// When a file is set aside.
#[derive(Clone, Debug, Default)]
pub(super) struct Rotation {
    bytes: Option<u64>,
    every: Option<Duration>,
    keep: Option<usize>,
}

impl Rotation {
    pub(super) fn read(options: &Options) -> Result<Self, String> {
        let keep = options.number("keep", 0, 1_000_000)?;
        let rotation = Self {
            bytes: options.bytes("rotate-bytes", 4096, 1 << 50)?,
            every: options.duration("rotate-every", SPANS.0, SPANS.1)?,
            keep: keep.and_then(|keep| usize::try_from(keep).ok()),
        };
        if rotation.keep.is_some() && rotation.bytes.is_none() && rotation.every.is_none() {
            return Err("option keep needs rotate-bytes or rotate-every".to_owned());
        }
        Ok(rotation)
    }

    /// Whether a file of this length, last written to then, is set aside before so many bytes come now.
    pub(super) fn is_due(&self, length: u64, adding: u64, written: SystemTime, now: SystemTime) -> bool {
        let too_large = self.bytes.is_some_and(|limit| length.saturating_add(adding) > limit);
        let too_old = self.every.is_some_and(|every| span(written, every) != span(now, every));
        too_large || too_old
    }

    /// Gives the file the name of its time and deletes those that are too many.
    pub(super) fn set_aside(&self, path: &Path, now: SystemTime) -> Result<(), Cause> {
        let aside = name_aside(path, now);
        fs::rename(path, &aside)
            .map_err(|error| problem(path, &format!("cannot be set aside as {}", aside.display()), &error))?;
        tracing::debug!(path = %aside.display(), "file set aside");
        if let Err(error) = self.delete_old(path) {
            // Rows go on: it is tried again at the next one.
            tracing::warn!(path = %path.display(), %error, "old files cannot be deleted");
        }
        Ok(())
    }

    fn delete_old(&self, path: &Path) -> io::Result<()> {
        let Some(keep) = self.keep else { return Ok(()) };
        let mut old = set_aside_before(path)?;
        old.sort();
        for name in old.iter().rev().skip(keep) {
            fs::remove_file(folder(path).join(name))?;
        }
        Ok(())
    }
}

/// Number of the span of UTC that a time lies in.
fn span(time: SystemTime, every: Duration) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() / every.as_nanos().max(1)
}

/// `rows.jsonl.20261122T102030.004Z`, a millisecond later where that is there.
fn name_aside(path: &Path, now: SystemTime) -> PathBuf {
    let mut time = now;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(stamp(time));
        let aside = PathBuf::from(name);
        if aside.symlink_metadata().is_err() {
            return aside;
        }
        time += Duration::from_millis(1);
    }
}

fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string().replace(['-', ':'], "")
}

/// Names of the files that stand beside this one and were it.
fn set_aside_before(path: &Path) -> io::Result<Vec<OsString>> {
    let own = path.file_name().unwrap_or_default();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let name = entry?.file_name();
        if is_aside(&name, own) {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_aside(name: &OsStr, own: &OsStr) -> bool {
    let stamp = name
        .as_encoded_bytes()
        .strip_prefix(own.as_encoded_bytes())
        .and_then(|rest| rest.strip_prefix(b"."))
        .unwrap_or_default();
    let form = b"00000000T000000.000Z";
    stamp.len() == form.len()
        && stamp.iter().zip(form).all(|(is, form)| match form {
            b'0' => is.is_ascii_digit(),
            letter => is == letter,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_file_is_set_aside_before_it_is_too_large_or_in_a_new_span_of_utc() {
        let rotation = Rotation { bytes: Some(100), every: Some(Duration::from_secs(3600)), keep: None };
        assert!(!rotation.is_due(60, 40, at(7200), at(10_799)));
        assert!(rotation.is_due(60, 41, at(7200), at(10_799)));
        assert!(rotation.is_due(1, 1, at(7200), at(10_800)));
        assert!(rotation.is_due(1, 1, at(7200), at(100)), "also when the clock was set back");
        assert!(!Rotation::default().is_due(u64::MAX, u64::MAX, at(0), at(1 << 40)));
    }

    #[test]
    fn files_set_aside_are_told_from_others_by_their_whole_name() {
        let own = OsStr::new("rows");
        assert_eq!(stamp(at(1_764_000_000)), "20251124T160000.000Z");
        assert!(is_aside(OsStr::new(&format!("rows.{}", stamp(at(0)))), own));
        for other in ["rows", "rows.1", "rows.20251124T160000.000Z.gz", "crows.20251124T160000.000Z"] {
            assert!(!is_aside(OsStr::new(other), own), "{other}");
        }
    }

    #[test]
    fn keep_alone_is_refused() {
        let options = Options::parse("keep=3").expect("options");
        assert_eq!(
            Rotation::read(&options).expect_err("alone"),
            "option keep needs rotate-bytes or rotate-every"
        );
    }
}
