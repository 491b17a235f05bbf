//! A process where systemd would put one: in the cgroup of a unit. systemd itself is not asked, so that the tests run on
//! hosts whose first process is another; all that an agent sees of a service is its cgroup.

use std::path::PathBuf;

use super::{cgroup, unique};
use crate::host::require_root;
use crate::process::Process;

/// A running service, in the host's network namespace.
#[derive(Debug)]
pub struct Service {
    /// Name of its unit.
    pub unit: String,
    /// Its only process.
    pub process: Process,
    cgroups: Vec<PathBuf>,
    /// Slices that were not there before.
    slices: Vec<PathBuf>,
}

impl Service {
    /// Starts `argv` in `/system.slice/<unit>` of every hierarchy in which systemd keeps its units.
    pub fn start(label: &str, argv: &[&str]) -> Self {
        require_root();
        let unit = format!("{}.service", unique(label));
        let (mut cgroups, mut slices) = (Vec::new(), Vec::new());
        for mount in cgroup::unit_mounts() {
            let slice = mount.join("system.slice");
            if !slice.exists() {
                slices.push(slice.clone());
            }
            let cgroup = slice.join(&unit);
            std::fs::create_dir_all(&cgroup).unwrap_or_else(|e| panic!("{}: {e}", cgroup.display()));
            cgroups.push(cgroup);
        }
        assert!(!cgroups.is_empty(), "this host mounts neither cgroup2 nor systemd's hierarchy");
        let mut all = vec!["sh".to_owned(), "-c".to_owned()];
        let enter =
            r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@""#;
        all.extend([enter.to_owned(), "sh".to_owned()]);
        all.extend(cgroups.iter().map(|cgroup| cgroup.display().to_string()));
        all.push("--".to_owned());
        all.extend(argv.iter().map(|&word| word.to_owned()));
        Self { process: Process::start(&unit, &all), unit, cgroups, slices }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let mut left = Vec::new();
        for cgroup in &self.cgroups {
            left.extend(cgroup::end_all(cgroup).err());
            left.extend(cgroup::remove(cgroup).err());
        }
        for slice in &self.slices {
            let _ = std::fs::remove_dir(slice);
        }
        assert!(left.is_empty() || std::thread::panicking(), "{}", left.join("; "));
    }
}
