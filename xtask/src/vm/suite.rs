//! The whole-program tests inside a guest: which of them, with what, and what they came down to.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::qemu::Accelerator;
use super::{Limits, Work, quoted};
use crate::command::{output, run, which};
use crate::workspace;

/// How much of the suite.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The loop once: a namespace and its row, a connection and its lookup and events, a poll that equals ss.
    Smoke,
    /// All that can run in a guest.
    Whole,
}

/// What the files of tests of destinations begin with: what they start are servers, and a guest has none of them.
const DESTINATIONS: &str = "destination_";

/// Other files of `tests/tests` that go into no guest, and why. All others do.
const OUTSIDE: [(&str, &str); 3] = [
    ("demo", "it starts cargo"),
    ("independent_client", "its clients are Python programs"),
    ("lldp", "a guest has no lldpd"),
];

/// What `pods` and `containers` start, besides what every guest has.
const ENGINES: [&str; 14] = [
    "busybox",
    "conmon",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "docker",
    "docker-init",
    "docker-proxy",
    "dockerd",
    "podman",
    "runc",
    "/usr/lib/cni/host-local",
    "/usr/lib/cni/loopback",
    "/usr/lib/cni/ptp",
];

/// What Podman reads.
const SETTINGS: [&str; 2] = ["/etc/containers", "/usr/share/containers"];

/// The tests of the smoke test, each by its file and its own name.
const SMOKE: [(&str, &str); 5] = [
    ("netns_lifecycle", "a_namespace_of_ip_netns_add_is_announced_and_mourned"),
    ("netns_lifecycle", "a_namespace_of_unshare_without_mount_or_name_is_announced_and_mourned"),
    ("short_connections", "a_connection_of_5_ms_yields_every_transition_in_order_and_exact_bytes"),
    (
        "targeted_lookup",
        "a_staying_connection_has_a_row_by_lookup_within_50_ms_on_grpc_and_at_the_destination",
    ),
    ("full_poll_equals_ss", "a_full_poll_equals_ss_in_every_namespace"),
];

impl Extent {
    /// A wait of a test is of a minute at most, times [`SLOWNESS`]; a test has several.
    fn limits(self) -> Limits {
        let minutes = |number: u64| Duration::from_secs(number * 60);
        match self {
            Self::Smoke => Limits { all: minutes(30), silence: minutes(15) },
            Self::Whole => Limits { all: minutes(240), silence: minutes(45) },
        }
    }
}

/// How many times longer things may take than on a processor of their own.
const SLOWNESS: u32 = 20;

/// Builds the tests and finds the agent; `XTCP_AGENT` names another one than the release build.
///
/// The whole suite is built with optimisation: emulated, the unoptimised tests take longer than what they test.
pub(super) fn prepare(extent: Extent) -> Result<Binaries> {
    let named = std::env::var_os("XTCP_AGENT").map(PathBuf::from);
    let agent = named.unwrap_or_else(workspace::agent);
    if !agent.is_file() {
        bail!("there is no agent at {}: cargo xtask build-ebpf builds it", agent.display());
    }
    let mut cargo = Command::new(workspace::cargo());
    cargo.args(["test", "--locked", "--package", "xtcp-tests", "--no-run"]);
    if extent == Extent::Whole {
        cargo.arg("--release");
    }
    run(&mut cargo)?;
    let told = output(cargo.args(["--message-format", "json"]))?;
    let (mut tests, mut helpers) = (Vec::new(), Vec::new());
    for line in told.lines() {
        let message: serde_json::Value = serde_json::from_str(line).context("read what cargo says")?;
        let text = |pointer: &str| message.pointer(pointer).and_then(serde_json::Value::as_str);
        let (Some(program), Some(kind), Some(name)) =
            (text("/executable"), text("/target/kind/0"), text("/target/name"))
        else {
            continue;
        };
        match kind {
            "test" => tests.push((name.to_owned(), PathBuf::from(program))),
            "bin" if message.pointer("/profile/test") == Some(&false.into()) => helpers.push(program.into()),
            _ => {}
        }
    }
    tests.sort();
    Ok(Binaries { agent, tests, helpers })
}

/// What a guest runs.
pub(super) struct Binaries {
    agent: PathBuf,
    /// Name and program of each file of tests.
    tests: Vec<(String, PathBuf)>,
    /// What the tests start.
    helpers: Vec<PathBuf>,
}

impl Binaries {
    /// The guest's work; `filters` are parts of names of tests.
    pub(super) fn work(&self, extent: Extent, filters: &[String], accelerator: Accelerator) -> Result<Work> {
        let mut script = String::from("failed=0\n");
        let mut set = |name: &str, value: &str| writeln!(script, "export {name}={}", quoted(value));
        set("XTCP_AGENT", &self.agent.to_string_lossy())?;
        if accelerator == Accelerator::Tcg {
            set("XTCP_SCALE", "tenth")?;
            set("XTCP_SLOWNESS", &SLOWNESS.to_string())?;
            writeln!(script, "echo 'emulated: a tenth of the rounds, limits and goals times {SLOWNESS}'")?;
        }
        let mut files = self.helpers.clone();
        files.push(self.agent.clone());
        if extent == Extent::Whole {
            // Of a missing one the test says that it is missing.
            files.extend(ENGINES.into_iter().filter_map(which));
            files.extend(SETTINGS.into_iter().map(PathBuf::from).filter(|folder| folder.is_dir()));
        }
        for (name, program) in &self.tests {
            let smoke: Vec<&str> = SMOKE.iter().filter(|(of, _)| of == name).map(|(_, test)| *test).collect();
            let mut arguments = String::new();
            match extent {
                Extent::Smoke if smoke.is_empty() => continue,
                Extent::Smoke => write!(arguments, " --exact {}", smoke.join(" "))?,
                Extent::Whole if name.starts_with(DESTINATIONS) => continue,
                Extent::Whole => {
                    if let Some((_, why)) = OUTSIDE.iter().find(|(outside, _)| outside == name) {
                        writeln!(script, "echo '=== {name}: not in a guest: {why}'")?;
                        continue;
                    }
                }
            }
            filters.iter().try_for_each(|filter| write!(arguments, " {}", quoted(filter)))?;
            writeln!(script, "echo '=== {name}'")?;
            let shown = quoted(&program.to_string_lossy());
            writeln!(script, "{shown} --test-threads=1{arguments} || failed=1")?;
            files.push(program.clone());
        }
        script.push_str("exit $failed\n");
        Ok(Work { script: script.into_bytes(), files, limits: extent.limits(), ..Work::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    fn files() -> BTreeSet<String> {
        let entries = fs::read_dir(workspace::root().join("tests/tests")).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_suffix(".rs").map(str::to_owned)).collect()
    }

    #[test]
    fn the_lists_name_files_and_tests_that_are_there() {
        let files = files();
        for (file, _) in OUTSIDE {
            assert!(files.contains(file), "there is no {file}");
        }
        for (file, name) in SMOKE {
            let text = fs::read_to_string(workspace::root().join(format!("tests/tests/{file}.rs"))).unwrap();
            assert!(text.contains(&format!("fn {name}()")), "{file} has no test {name}");
        }
    }
}
