//! Embeds the eBPF object, when `cargo xtask build-ebpf` has built it from the sources as they are now. Otherwise the
//! agent builds all the same, and knows why it has none.
#![allow(clippy::print_stdout, reason = "how a build script talks to cargo")]

#[path = "../xtask/src/fingerprint.rs"]
mod fingerprint;

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fingerprint::{OBJECT, SIDECAR, SOURCES, fingerprint};

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the package lies in no workspace")?;
    let embedded = PathBuf::from(std::env::var("OUT_DIR")?).join("xtcp-ebpf.o");
    watch(workspace)?;
    println!("cargo::rustc-check-cfg=cfg(xtcp_ebpf_object)");
    let absence = match check(workspace) {
        Ok(()) => {
            fs::copy(workspace.join(OBJECT), embedded)?;
            println!("cargo::rustc-cfg=xtcp_ebpf_object");
            String::new()
        }
        Err(reason) => {
            println!("cargo::warning={reason}: the agent will only poll");
            reason
        }
    };
    println!("cargo::rustc-env=XTCP_EBPF_ABSENCE={absence}");
    Ok(())
}

/// Runs this script again when the object or its sources change, and only then: a watched path that does not exist
/// would make every build run it.
fn watch(workspace: &Path) -> Result<(), Box<dyn Error>> {
    let folder = workspace.join(OBJECT).parent().map(Path::to_owned).ok_or("the object has no folder")?;
    if !folder.exists() {
        fs::create_dir_all(&folder)?;
        // A folder younger than this run would count as changed, once.
        File::open(&folder)?.set_modified(SystemTime::UNIX_EPOCH)?;
    }
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-changed=../xtask/src/fingerprint.rs");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    Ok(())
}

/// Whether the object is there and belongs to the sources.
fn check(workspace: &Path) -> Result<(), String> {
    const BUILD: &str = "run `cargo xtask build-ebpf`";
    let Ok(built_from) = fs::read_to_string(workspace.join(SIDECAR)) else {
        return Err(format!("the eBPF object is not built ({BUILD})"));
    };
    let now = fingerprint(workspace).map_err(|error| format!("the eBPF sources cannot be read: {error}"))?;
    if built_from.trim() != now {
        return Err(format!("the eBPF object is older than its sources ({BUILD})"));
    }
    if !workspace.join(OBJECT).is_file() {
        return Err(format!("the eBPF object is not built ({BUILD})"));
    }
    Ok(())
}
