//! Can it run here, and if not why: facts are gathered, a decision is made of them, and both are told. Nothing of it
//! runs the agent.

mod admit;
mod advice;
mod capability;
mod decide;
mod destinations;
mod engines;
mod facts;
mod hooks;
mod host;
mod inet_diag;
mod instance;
mod judge;
mod namespaces;
mod port;
mod report;

use std::io::{self, Write};
use std::process::ExitCode;

pub use admit::{Admission, Refusal, admit};
pub use capability::Capability;
pub use decide::{Decision, Finding, Ladder, Mode, Severity, decide};
pub use facts::{
    Depth, Ebpf, Facts, Hook, Is, Kernel, Lockdown, Namespaces, Neighbours, Privileges, Settings, gather,
};
pub use instance::{LOCK_FILE, Lock, Other, lock};
pub use port::Port;
pub use report::{json, text};

use crate::config::Resolved;

impl Settings {
    /// What `check` tells of the settings.
    pub fn of(resolved: &Resolved) -> Self {
        let given = resolved.sources.iter().map(|(key, source)| format!("{key} ({source})")).collect();
        Self { errors: resolved.errors.0.iter().map(ToString::to_string).collect(), given }
    }
}

/// `xtcp2-agent check`: prints facts, decision and remedies to standard output. Status 0 fine, 1 with less than it
/// could, 2 refused.
pub fn check(resolved: &Resolved, as_json: bool) -> ExitCode {
    let Some(config) = &resolved.config else { return crate::cli::refuse(&resolved.errors) };
    let facts = gather(config, Settings::of(resolved), Depth::Try);
    let decision = decide(&facts, config.ebpf.mode);
    let page =
        if as_json { json(&facts, &decision).map_err(io::Error::from) } else { Ok(text(&facts, &decision)) };
    match page.and_then(|page| io::stdout().lock().write_all(page.as_bytes())) {
        Ok(()) => ExitCode::from(decision.status()),
        // Whoever reads closed its end: the status still tells.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(decision.status()),
        Err(e) => {
            // Standard error is the last place to say it.
            let _ = writeln!(io::stderr(), "error: cannot print the report: {e}");
            ExitCode::from(2)
        }
    }
}
