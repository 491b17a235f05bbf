//! Facts and decision, for people and for machines.

use std::fmt::Write;

use serde::Serialize;

use super::capability::Capability;
use super::decide::{Decision, Finding, Mode, Severity};
use super::destinations::Answer;
use super::engines::Engine;
use super::facts::{Ebpf, Facts, Is, Lockdown, Namespaces, Privileges};
use super::hooks::fact_name;
use super::instance::Other;
use super::port::Port;
use crate::config::format_bytes;

/// Widest label.
const LABEL: usize = 56;

#[derive(Serialize)]
struct Report<'a> {
    status: u8,
    decision: &'a Decision,
    facts: &'a Facts,
}

/// One JSON object, indented, with a line feed.
pub fn json(facts: &Facts, decision: &Decision) -> Result<String, serde_json::Error> {
    let report = Report { status: decision.status(), decision, facts };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

/// Aligned text.
pub fn text(facts: &Facts, decision: &Decision) -> String {
    let mut page = Page(String::new());
    page.host(facts);
    page.privileges(&facts.privileges);
    page.namespaces(&facts.namespaces);
    page.ebpf(&facts.ebpf);
    page.engines(&facts.engines);
    page.destinations(&facts.destinations);
    page.settings(facts);
    page.decision(decision);
    page.0
}

struct Page(String);

impl Page {
    fn line(&mut self, label: &str, value: &str) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "  {label:<LABEL$} {value}");
    }

    fn title(&mut self, title: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.0, "{gap}{title}");
    }

    fn is(&mut self, label: &str, is: &Is) {
        match is {
            Is::Yes => self.line(label, "yes"),
            Is::No(why) => self.line(label, &format!("no: {why}")),
            Is::Unknown(why) => self.line(label, &format!("unknown: {why}")),
        }
    }

    fn host(&mut self, facts: &Facts) {
        self.title("Host");
        let kernel = &facts.kernel;
        self.line("agent", facts.version);
        self.line("kernel", &format!("Linux {} {}", kernel.release, kernel.machine));
        let lockdown = match &kernel.lockdown {
            Lockdown::None => "none".to_owned(),
            Lockdown::Integrity => "integrity".to_owned(),
            Lockdown::Confidentiality => "confidentiality".to_owned(),
            Lockdown::Unknown(why) => format!("unknown: {why}"),
        };
        self.line("lockdown", &lockdown);
        self.line("clock source", kernel.clocksource.as_deref().unwrap_or("unknown"));
        self.is("wall clock is set", &kernel.wall_clock_set);
        self.is("inet_diag answers about TCP", &facts.tcp_diag);
        if let Some(mptcp) = &facts.mptcp_diag {
            self.is("inet_diag answers about MPTCP", mptcp);
        }
        let agent = match &facts.neighbours.agent {
            Other::None => "no".to_owned(),
            Other::Running { pid: Some(pid) } => format!("yes, pid {pid}"),
            Other::Running { pid: None } => "yes".to_owned(),
            Other::Unknown(why) => format!("unknown: {why}"),
        };
        self.line("another agent runs", &agent);
        for (label, port) in [("metrics", &facts.neighbours.metrics), ("gRPC", &facts.neighbours.grpc)] {
            let (address, state) = match port {
                Port::Free { address } => (address, "free".to_owned()),
                Port::Taken { address, command, .. } => {
                    let who = command.as_deref().unwrap_or("a process that cannot be seen from here");
                    (address, format!("taken by {who}"))
                }
                Port::Refused { address, why } => (address, why.clone()),
            };
            self.line(&format!("{label} on {address}"), &state);
        }
    }

    fn privileges(&mut self, privileges: &Privileges) {
        self.title("Privileges");
        self.line("user id", &privileges.uid.to_string());
        for capability in Capability::ALL {
            let has = privileges.capabilities.contains(&capability);
            self.line(capability.name(), if has { "yes" } else { "no" });
        }
        self.is("user namespace is the host's", &privileges.user_namespace_is_initial);
        self.line("seccomp filter", if privileges.seccomp_filter { "yes" } else { "no" });
        let size = |bytes: u64| u32::try_from(bytes).map_or_else(|_| bytes.to_string(), format_bytes);
        self.line("locked memory", &privileges.memlock_bytes.map_or("unlimited".to_owned(), size));
        let files = privileges.open_files.map_or("unlimited".to_owned(), |files| files.to_string());
        self.line("open files", &files);
    }

    fn namespaces(&mut self, spaces: &Namespaces) {
        self.title("Namespaces");
        self.is("network namespaces can be entered", &spaces.entry);
        self.is("network namespace is the host's", &spaces.netns_is_initial);
        self.is("pid namespace is the host's", &spaces.pid_namespace_is_initial);
        self.is("/proc shows every process", &spaces.proc_is_complete);
        let all = spaces.processes + spaces.processes_closed;
        self.line("processes that show their netns", &format!("{} of {all}", spaces.processes));
        self.is("sockets tell their netns's cookie", &spaces.cookie);
        self.is("netns opened by handle", &spaces.handles);
        for (folder, exists) in &spaces.folders {
            self.line(&folder.display().to_string(), if *exists { "there" } else { "not there yet" });
        }
    }

    fn ebpf(&mut self, ebpf: &Ebpf) {
        self.title("eBPF");
        self.is("programs in this build", &ebpf.object);
        self.is("bpf() makes a ring buffer", &ebpf.ring_buffer);
        self.is("kernel types (BTF)", &ebpf.btf);
        self.is("tracefs", &ebpf.tracefs);
        let unprivileged = ebpf.unprivileged_bpf_disabled;
        self.line("unprivileged_bpf_disabled", &unprivileged.map_or("unknown".to_owned(), |v| v.to_string()));
        if let Some(trial) = &ebpf.trial {
            self.is("programs load and attach", trial);
        }
        for hook in &ebpf.hooks {
            let (verb, answer) = match &hook.attached {
                Some(attached) => ("attached", attached),
                None => ("offered", &hook.offered),
            };
            let state = match answer {
                Is::Yes => verb.to_owned(),
                Is::No(why) => format!("not {verb}: {why}"),
                Is::Unknown(why) => format!("unknown: {why}"),
            };
            self.line(&format!("{:<18} {}", hook.program, hook.name), &state);
        }
    }

    fn engines(&mut self, engines: &[Engine]) {
        self.title("Container engines");
        if engines.is_empty() {
            self.line("asked", "none: --docker-socket and --cri-socket are off");
        }
        for Engine { speaks, socket, named: _, listens } in engines {
            let state = match listens {
                Is::Yes => "listens",
                Is::No(why) | Is::Unknown(why) => why,
            };
            self.line(&format!("{speaks:<11} {}", socket.display()), state);
        }
    }

    fn destinations(&mut self, destinations: &[Answer]) {
        self.title("Destinations");
        for Answer { name, address, answers, found } in destinations {
            let state = match answers {
                Is::Yes => found,
                Is::No(why) | Is::Unknown(why) => why,
            };
            let label = if name == address { name.clone() } else { format!("{name}: {address}") };
            self.line(&label, state);
        }
    }

    fn settings(&mut self, facts: &Facts) {
        self.title("Settings");
        let errors = facts.settings.errors.len();
        self.line("valid", &if errors == 0 { "yes".to_owned() } else { format!("no: {errors} errors") });
        for given in &facts.settings.given {
            self.line("given", given);
        }
    }

    fn decision(&mut self, decision: &Decision) {
        self.title("Decision");
        let mode = match decision.mode {
            Mode::Hybrid => "hybrid: kernel events, and polling",
            Mode::PollOnly => "POLL-ONLY: no kernel events",
            Mode::Refuse => "REFUSE: it would not start",
        };
        self.line("mode", mode);
        for ladder in &decision.ladders {
            let hooks = if ladder.hooks.is_empty() { "nothing".to_owned() } else { ladder.hooks.join(", ") };
            self.line(fact_name(ladder.fact), &hooks);
        }
        for finding in &decision.findings {
            self.finding(finding);
        }
        let result = match decision.worst() {
            Severity::Note => "All is there.",
            Severity::Degraded => "It runs, with less than it could.",
            Severity::Fatal => "It does not run until what is FATAL is mended.",
        };
        let _ = writeln!(self.0, "\n{result}");
    }

    fn finding(&mut self, finding: &Finding) {
        let word = match finding.severity {
            Severity::Fatal => "FATAL",
            Severity::Degraded => "LESS ",
            Severity::Note => "note ",
        };
        let _ = writeln!(self.0, "\n{word}  {}\n       why  {}", finding.what, finding.why);
        for (at, way) in finding.remedy.iter().enumerate() {
            let _ = writeln!(self.0, "       {}  {way}", if at == 0 { "do " } else { "or " });
        }
    }
}
