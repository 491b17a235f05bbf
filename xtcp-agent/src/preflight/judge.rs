//! What each fact means for the agent, apart from its hooks. Pure.

use super::advice;
use super::capability::Capability;
use super::decide::{Finding, Severity};
use super::facts::{Facts, Is, Lockdown};
use super::instance::Other;
use super::port::Port;

fn finding(severity: Severity, what: impl Into<String>, why: &str, remedy: &[&str]) -> Finding {
    let remedy = remedy.iter().map(|&way| way.to_owned()).collect();
    Finding { severity, what: what.into(), why: why.to_owned(), remedy }
}

/// Settings that are not valid.
pub(super) fn settings(facts: &Facts) -> Vec<Finding> {
    let errors = facts.settings.errors.iter();
    errors
        .map(|error| {
            let why = "the agent does not start with settings that it cannot keep";
            finding(
                Severity::Fatal,
                format!("setting: {error}"),
                why,
                &["xtcp2-agent --help explains every option"],
            )
        })
        .collect()
}

/// Without these there is nothing to collect.
pub(super) fn requirements(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let foreign = matches!(facts.privileges.user_namespace_is_initial, Is::No(_));
    if let Is::No(why) | Is::Unknown(why) = &facts.namespaces.entry {
        let lacks_admin = !facts.privileges.capabilities.contains(&Capability::CapSysAdmin);
        let (cause, mut remedy) = if lacks_admin {
            (format!("CAP_SYS_ADMIN is missing (uid {})", facts.privileges.uid), advice::grant())
        } else if foreign {
            ("not in the host's user namespace".to_owned(), vec![advice::USER_NAMESPACE.to_owned()])
        } else {
            ("setns() is refused".to_owned(), Vec::new())
        };
        if facts.privileges.seccomp_filter {
            remedy.push(advice::SECCOMP.to_owned());
        }
        findings.push(Finding {
            severity: Severity::Fatal,
            what: format!("{cause}: {why}"),
            why: "setns() is how every network namespace but the own is asked".to_owned(),
            remedy,
        });
    }
    if let Is::No(why) | Is::Unknown(why) = &facts.tcp_diag {
        findings.push(finding(
            Severity::Fatal,
            format!("inet_diag does not answer about TCP sockets: {why}"),
            "it is where every record comes from",
            &["modprobe tcp_diag (and list it in /etc/modules-load.d), or CONFIG_INET_DIAG=y CONFIG_INET_TCP_DIAG=y"],
        ));
    }
    if let Is::No(why) = &facts.privileges.user_namespace_is_initial
        && facts.namespaces.entry.yes()
    {
        findings.push(finding(
            Severity::Degraded,
            format!("not in the host's user namespace: {why}"),
            "capabilities count only for what this user namespace owns: other network namespaces stay closed, and eBPF too",
            &[advice::USER_NAMESPACE],
        ));
    }
    findings
}

/// Engines that a setting names, and that do not listen.
pub(super) fn engines(facts: &Facts) -> Vec<Finding> {
    let silent = facts.engines.iter().filter(|engine| engine.named);
    silent
        .filter_map(|engine| match &engine.listens {
            Is::Yes => None,
            Is::No(why) | Is::Unknown(why) => Some(finding(
                Severity::Degraded,
                format!("{} ({}): {why}", engine.socket.display(), engine.speaks),
                "containers and pods are known by their ids alone until it listens",
                &["start the engine, or mount its socket where the agent runs in a container"],
            )),
        })
        .collect()
}

/// Destinations that would not take what they get.
pub(super) fn destinations(facts: &Facts) -> Vec<Finding> {
    let silent = facts.destinations.iter();
    silent
        .filter_map(|destination| match &destination.answers {
            Is::Yes => None,
            Is::No(why) | Is::Unknown(why) => Some(finding(
                Severity::Degraded,
                format!("destination {} ({}): {why}", destination.name, destination.address),
                "rows wait in its queue until it takes them; the oldest are dropped when that is full",
                &["mend what it says, or give it a spool (option spool) to outlast it"],
            )),
        })
        .collect()
}

/// What the agent does not see.
pub(super) fn sight(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let has = |capability| facts.privileges.capabilities.contains(&capability);
    if !has(Capability::CapNetAdmin) {
        let why = "inet_diag leaves out marks, and of TLS and MPTCP what only an administrator may know";
        findings.push(finding(Severity::Degraded, "CAP_NET_ADMIN is missing", why, &["grant CAP_NET_ADMIN"]));
    }
    if let Some(Is::No(why) | Is::Unknown(why)) = &facts.mptcp_diag {
        findings.push(finding(
            Severity::Degraded,
            format!("inet_diag does not answer about MPTCP sockets: {why}"),
            "--protocols asks for them: only their subflows will be seen, as TCP",
            &["modprobe mptcp_diag, or CONFIG_MPTCP=y CONFIG_INET_MPTCP_DIAG=y (5.9)", "--protocols tcp"],
        ));
    }
    let spaces = &facts.namespaces;
    if spaces.processes_closed > 0 {
        let all = spaces.processes + spaces.processes_closed;
        let what =
            format!("{} of {all} processes do not show their network namespace", spaces.processes_closed);
        let why = "a namespace that only they are in, and that has no name, is found by events alone";
        // A process with capabilities that this one has not, such as init in a sandbox, is closed to it.
        let few = spaces.processes_closed * 20 <= all && has(Capability::CapSysPtrace);
        let severity = if few { Severity::Note } else { Severity::Degraded };
        findings.push(finding(
            severity,
            what,
            why,
            &["grant CAP_SYS_PTRACE, and every capability that they have"],
        ));
    } else if !has(Capability::CapSysPtrace) {
        let why = "processes of other users will not show their namespace";
        findings.push(finding(
            Severity::Degraded,
            "CAP_SYS_PTRACE is missing",
            why,
            &["grant CAP_SYS_PTRACE"],
        ));
    }
    if let Is::No(why) = &spaces.proc_is_complete
        && !has(Capability::CapSysPtrace)
    {
        let matters = "hidden processes' namespaces are found by events or names alone";
        findings.push(finding(
            Severity::Degraded,
            why,
            matters,
            &["grant CAP_SYS_PTRACE", "mount -o remount,hidepid=0 /proc"],
        ));
    }
    if let Is::No(why) = &spaces.pid_namespace_is_initial {
        findings.push(finding(
            Severity::Degraded,
            format!("not in the host's pid namespace: {why}"),
            "/proc shows only this container's processes: namespaces without a name are found by events alone, and \
             cannot be entered before 6.18; owners of sockets are the host's pids all the same",
            &["docker: --pid host; k8s: hostPID: true"],
        ));
    }
    if let Is::No(why) = &spaces.netns_is_initial {
        findings.push(finding(
            Severity::Note,
            format!("not in the host's network namespace: {why}"),
            "rows call this one \"default\"; gRPC and metrics are reached in it, and NATS is looked for in it",
            &["docker: --network host; k8s: hostNetwork: true"],
        ));
    }
    if let Is::No(why) = &spaces.cookie {
        let matters =
            "a namespace is its inode alone, which the kernel uses again: a row may bear a dead one's name";
        findings.push(finding(Severity::Note, why, matters, &["Linux 5.14 or later"]));
    }
    findings.extend(limits(facts));
    findings
}

fn limits(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.privileges.open_files.is_some_and(|files| files < 1024) {
        let what = format!("at most {} files may be open", facts.privileges.open_files.unwrap_or_default());
        let why = "many gRPC subscribers would run out of them";
        findings.push(finding(Severity::Note, what, why, &["ulimit -n 65536; systemd: LimitNOFILE=65536"]));
    }
    if let Is::No(why) = &facts.kernel.wall_clock_set {
        let matters = "timestamps of records and events will be wrong";
        findings.push(finding(Severity::Degraded, why, matters, &["set the clock, for example with chrony"]));
    }
    findings
}

/// What else runs here.
pub(super) fn neighbours(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut running = None;
    if let Other::Running { pid } = &facts.neighbours.agent {
        running = Some(*pid);
        let who = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        let why = "both work, and cost twice";
        findings.push(finding(Severity::Note, format!("an agent runs here already{who}"), why, &[]));
    }
    for (port, flag) in
        [(&facts.neighbours.metrics, "--prom-listen"), (&facts.neighbours.grpc, "--grpc-port")]
    {
        match port {
            Port::Free { .. } => {}
            Port::Taken { address, pid, command } => {
                let who = match (command, pid) {
                    (Some(command), Some(pid)) => format!("{command} (pid {pid})"),
                    (None, Some(pid)) => format!("pid {pid}"),
                    _ => "a process that cannot be seen from here".to_owned(),
                };
                // Its own port, as long as it runs: nothing is wrong when somebody checks a host that works.
                let own = pid.is_some() && running == Some(*pid);
                let severity = if own { Severity::Note } else { Severity::Fatal };
                let what = format!("{address} is in use by {who}");
                let why = if own { "it is the agent that runs" } else { "the agent could not listen there" };
                let way = format!("choose another with {flag}, or end what listens there");
                findings.push(finding(severity, what, why, &[&way]));
            }
            Port::Refused { address, why } => {
                let what = format!("cannot listen on {address}: {why}");
                let way = format!("choose an address of this host with {flag}");
                findings.push(finding(Severity::Fatal, what, "the agent could not listen there", &[&way]));
            }
        }
    }
    findings
}

/// The first thing that keeps eBPF as a whole from working, and what to do about it.
pub(super) fn obstacle(facts: &Facts) -> Option<(String, Vec<String>)> {
    if let Is::No(why) | Is::Unknown(why) = &facts.ebpf.object {
        let remedy = "cargo xtask build-ebpf, then install the agent that it made".to_owned();
        return Some((format!("this build contains no eBPF programs: {why}"), vec![remedy]));
    }
    if let Is::No(why) | Is::Unknown(why) = &facts.ebpf.ring_buffer {
        let mut remedy = Vec::new();
        if facts.kernel.version.is_some_and(|version| version < (5, 8)) {
            remedy.push("Linux 5.8 or later".to_owned());
        }
        if !facts.privileges.capabilities.contains(&Capability::CapBpf) {
            remedy.push("grant CAP_BPF and CAP_PERFMON; before 5.8 CAP_SYS_ADMIN".to_owned());
        }
        if matches!(facts.privileges.user_namespace_is_initial, Is::No(_)) {
            remedy.push(advice::USER_NAMESPACE.to_owned());
        }
        if facts.privileges.seccomp_filter {
            remedy.push(advice::SECCOMP.to_owned());
        }
        if facts.kernel.version.is_some_and(|version| version < (5, 11))
            && facts.privileges.memlock_bytes.is_some()
        {
            remedy.push("before 5.11 eBPF counts as locked memory: ulimit -l unlimited; systemd: LimitMEMLOCK=infinity".to_owned());
        }
        return Some((format!("bpf() makes no ring buffer: {why}"), remedy));
    }
    if let Some(Is::No(why)) = &facts.ebpf.trial {
        let mut remedy = vec![advice::HOOKS.to_owned()];
        if facts.kernel.lockdown == Lockdown::Confidentiality {
            remedy.push("kernel lockdown is at confidentiality, which forbids some hooks".to_owned());
        }
        return Some((format!("the eBPF programs do not load: {why}"), remedy));
    }
    None
}
