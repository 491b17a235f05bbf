//! All scenarios of the running kernel into a folder, and what kernel it is.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_getres};
use serde_json::json;

use super::{Absent, all};

/// Captures every scenario whose name contains one of `only` (all when there is none) into
/// `directory/linux-<major>.<minor>`, and writes that kernel's manifest there when all of them ran. `date` is the day as
/// YYYY-MM-DD. Says what it does on standard output; fails when a scenario fails, but not when the kernel lacks it.
pub fn capture_all(directory: &Path, only: &[String]) -> Result<()> {
    let kernel = uname()?;
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let release = text(kernel.release());
    let version = release.split(['.', '-']).take(2).collect::<Vec<_>>().join(".");
    let directory = directory.join(format!("linux-{version}"));
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let (mut present, mut missing, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for scenario in
        all().filter(|one| only.is_empty() || only.iter().any(|part| one.name.contains(part.as_str())))
    {
        match scenario.capture() {
            Ok(capture) => {
                let file = |suffix: &str| directory.join(format!("{}.{suffix}", scenario.name));
                fs::write(file("pcap"), &capture.pcap)?;
                fs::write(file("json"), &capture.truth)?;
                if let Some(ss) = &capture.ss {
                    fs::write(file("ss"), ss)?;
                }
                let quiet = if capture.quiet { "" } else { ", not quiet" };
                println!("{}: {} bytes{quiet}", scenario.name, capture.pcap.len());
                present.push(scenario.name);
            }
            Err(error) => {
                if let Some(Absent(reason)) = error.downcast_ref::<Absent>() {
                    println!("{}: absent: {reason}", scenario.name);
                    missing
                        .push(json!({"scenario": scenario.name, "about": scenario.about, "reason": reason}));
                } else {
                    println!("{}: FAILED: {error:#}", scenario.name);
                    failed.push(scenario.name);
                }
            }
        }
    }
    if !failed.is_empty() {
        bail!("these scenarios failed: {}", failed.join(", "));
    }
    if only.is_empty() {
        let manifest = json!({
            "sysname": text(kernel.sysname()),
            "release": release,
            "version": text(kernel.version()),
            "machine": text(kernel.machine()),
            "captured": date(),
            "hz": hz()?,
            "congestion_controls": read("/proc/sys/net/ipv4/tcp_available_congestion_control"),
            "ss": ss_version(),
            "scenarios": present,
            "absent": missing,
        });
        fs::write(directory.join("manifest.json"), serde_json::to_string_pretty(&manifest)? + "\n")?;
    }
    Ok(())
}

/// Ticks a second: the coarse clock moves once a jiffy.
fn hz() -> Result<u64> {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let ns = u64::try_from(std::time::Duration::from(resolution).as_nanos())?;
    Ok(1_000_000_000_u64.checked_div(ns).unwrap_or(0))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn ss_version() -> Option<String> {
    let output = std::process::Command::new("ss").arg("-V").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Today, YYYY-MM-DD, in UTC.
fn date() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    // Gregorian calendar from a day number, counted in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let in_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let in_month = in_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{in_month:02}", era * 400 + year + carry)
}
