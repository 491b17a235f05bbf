//! The Python in which the tests' independent clients run: its own environment under `target/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{output, run, which};
use crate::{debian, workspace};

const PACKAGES: [&str; 7] =
    ["chdb-core<27", "duckdb<2", "grpcio<2", "grpcio-reflection<2", "nats-py<3", "protobuf<8", "pyarrow<27"];
/// Uses all of them.
const TRIAL: &str = "import chdb, duckdb, google.protobuf, grpc, grpc_reflection, nats, pyarrow";

/// The interpreter of an environment that has all packages; makes it when it is not there.
pub(crate) fn venv() -> Result<PathBuf> {
    let home = workspace::target().join("test-venv");
    let python = home.join("bin/python");
    let works = || output(Command::new(&python).args(["-c", TRIAL]));
    if python.exists() && works().is_ok() {
        println!("{} is here", workspace::shown(&python));
        return Ok(python);
    }
    let base = base_python()?;
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("remove {}", home.display()))?;
    }
    run(Command::new(base).args(["-m", "venv"]).arg(&home)).context("make a Python environment")?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))
        .context("install the Python clients' packages")?;
    works().context("try the Python clients' packages")?;
    Ok(python)
}

/// A Python that can make environments: Debian ships that part apart.
fn base_python() -> Result<PathBuf> {
    let system = Path::new("/usr/bin/python3").to_owned();
    let can = |python: &PathBuf| output(Command::new(python).args(["-c", "import ensurepip, venv"])).is_ok();
    let candidates = [which("python3"), Some(system.clone())];
    if let Some(python) = candidates.into_iter().flatten().find(can) {
        return Ok(python);
    }
    debian::need(&["python3", "python3-venv"], "the tests' Python clients need a Python with venv")?;
    Ok(system)
}
