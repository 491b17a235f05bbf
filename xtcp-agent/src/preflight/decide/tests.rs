//! The decision over many fact sets.

use super::*;
use crate::ebpf;
use crate::preflight::capability::Capability;
use crate::preflight::destinations::Answer;
use crate::preflight::engines::Engine;
use crate::preflight::facts::{Ebpf, Kernel, Lockdown, Namespaces, Neighbours, Privileges, Settings};
use crate::preflight::instance::Other;
use crate::preflight::port::Port;
use crate::preflight::report;

fn no(why: &str) -> Is {
    Is::No(why.to_owned())
}

/// A host where nothing is missing.
fn good() -> Facts {
    let hooks = ebpf::ladder().iter().map(|info| Hook {
        fact: info.fact,
        name: info.hook,
        program: info.program,
        step: info.step,
        lacks: info.lacks.to_owned(),
        offered: Is::Yes,
        attached: None,
    });
    Facts {
        version: "0",
        kernel: Kernel {
            release: "6.12.0-amd64".to_owned(),
            version: Some((6, 12)),
            machine: "x86_64".to_owned(),
            lockdown: Lockdown::None,
            clocksource: Some("tsc".to_owned()),
            wall_clock_set: Is::Yes,
        },
        privileges: Privileges {
            uid: 0,
            capabilities: Capability::ALL.to_vec(),
            user_namespace_is_initial: Is::Yes,
            seccomp_filter: false,
            memlock_bytes: None,
            open_files: Some(65_536),
        },
        tcp_diag: Is::Yes,
        mptcp_diag: None,
        namespaces: Namespaces {
            entry: Is::Yes,
            cookie: Is::Yes,
            handles: Is::Yes,
            pid_namespace_is_initial: Is::Yes,
            netns_is_initial: Is::Yes,
            proc_is_complete: Is::Yes,
            processes: 100,
            processes_closed: 0,
            folders: vec![("/run/netns".into(), true)],
        },
        ebpf: Ebpf {
            object: Is::Yes,
            ring_buffer: Is::Yes,
            btf: Is::Yes,
            tracefs: Is::Yes,
            unprivileged_bpf_disabled: Some(2),
            hooks: hooks.collect(),
            trial: None,
        },
        engines: Vec::new(),
        destinations: Vec::new(),
        neighbours: Neighbours {
            agent: Other::None,
            metrics: Port::Free { address: "127.0.0.1:9088".parse().unwrap() },
            grpc: Port::Free { address: "127.0.0.1:8889".parse().unwrap() },
        },
        settings: Settings::default(),
    }
}

fn without(capability: Capability) -> Facts {
    let mut facts = good();
    facts.privileges.capabilities.retain(|other| *other != capability);
    if capability == Capability::CapSysAdmin {
        facts.namespaces.entry = no("EPERM");
    }
    facts
}

fn ladder(decision: &Decision, fact: Fact) -> &Ladder {
    decision.ladders.iter().find(|ladder| ladder.fact == fact).unwrap()
}

#[test]
fn a_good_host_is_hybrid_without_a_finding() {
    let decision = decide(&good(), EbpfMode::Auto);
    assert_eq!((decision.mode, decision.status()), (Mode::Hybrid, 0));
    assert_eq!(decision.findings, []);
    assert_eq!(ladder(&decision, Fact::TcpState).hooks, ["tp_btf/inet_sock_set_state"]);
    assert_eq!(ladder(&decision, Fact::NetnsCreated).hooks, ["fexit/copy_net_ns"]);
    assert_eq!(ladder(&decision, Fact::NetnsDestroyed).hooks, ["fentry/__put_net", "fexit/netns_put"]);
}

#[test]
fn an_engine_that_does_not_listen_matters_where_a_setting_names_it() {
    let engine = |named| Engine {
        speaks: "CRI",
        socket: "/run/crio/crio.sock".into(),
        named,
        listens: no("not there"),
    };
    let decision = decide(&Facts { engines: vec![engine(false)], ..good() }, EbpfMode::Auto);
    assert_eq!(decision.findings, []);
    let decision = decide(&Facts { engines: vec![engine(true)], ..good() }, EbpfMode::Auto);
    assert_eq!((decision.mode, decision.findings[0].severity), (Mode::Hybrid, Severity::Degraded));
    assert!(decision.findings[0].what.contains("/run/crio/crio.sock (CRI): not there"));
}

#[test]
fn a_destination_that_does_not_answer_degrades_and_is_named() {
    let silent = Answer {
        name: "kafka".to_owned(),
        address: "kafka:broker:9092".to_owned(),
        answers: no("broker: name not known"),
        found: String::new(),
    };
    let decision = decide(&Facts { destinations: vec![silent], ..good() }, EbpfMode::Auto);
    assert_eq!((decision.mode, decision.status()), (Mode::Hybrid, 1));
    assert!(decision.findings[0].what.contains("kafka (kafka:broker:9092): broker: name not known"));
}

#[test]
fn without_cap_sys_admin_it_refuses_and_says_how_to_grant_it() {
    let decision = decide(&without(Capability::CapSysAdmin), EbpfMode::Auto);
    assert_eq!((decision.mode, decision.status()), (Mode::Refuse, 2));
    let remedy = decision.findings[0].remedy.join("\n");
    for way in [
        "setcap cap_sys_admin,",
        "AmbientCapabilities=CAP_SYS_ADMIN ",
        "--cap-add SYS_ADMIN",
        "add: [SYS_ADMIN,",
    ] {
        assert!(remedy.contains(way), "{way} is not in {remedy}");
    }
}

#[test]
fn a_foreign_user_namespace_is_less_where_it_owns_what_it_asks_and_fatal_elsewhere() {
    let mut facts = good();
    facts.privileges.user_namespace_is_initial = no("it is user:[1]");
    assert_eq!(decide(&facts, EbpfMode::Auto).status(), 1);
    facts.namespaces.entry = no("EPERM");
    let decision = decide(&facts, EbpfMode::Auto);
    assert_eq!(decision.mode, Mode::Refuse);
    assert_eq!(decision.findings.len(), 1, "one cause, one finding");
    assert!(decision.findings[0].remedy[0].contains("--userns host"));
}

#[test]
fn a_seccomp_filter_is_named_where_system_calls_are_refused() {
    let mut facts = good();
    facts.privileges.seccomp_filter = true;
    assert_eq!(decide(&facts, EbpfMode::Auto).status(), 0);
    facts.namespaces.entry = no("EPERM");
    facts.ebpf.ring_buffer = no("EPERM");
    let decision = decide(&facts, EbpfMode::Auto);
    let named =
        decision.findings.iter().filter(|f| f.remedy.iter().any(|way| way.contains("seccomp=unconfined")));
    assert_eq!(named.count(), 2, "{decision:?}");
}

#[test]
fn without_inet_diag_it_refuses_and_names_the_module() {
    let decision = decide(&Facts { tcp_diag: no("ENOENT"), ..good() }, EbpfMode::Auto);
    assert_eq!(decision.mode, Mode::Refuse);
    assert!(decision.findings[0].remedy[0].contains("modprobe tcp_diag"));
    let decision = decide(&Facts { mptcp_diag: Some(no("ENOENT")), ..good() }, EbpfMode::Auto);
    assert_eq!(decision.findings[0].severity, Severity::Degraded);
    assert!(decision.findings[0].remedy[0].contains("modprobe mptcp_diag"));
}

#[test]
fn a_missing_capability_that_is_no_requirement_degrades_or_does_not_matter() {
    for (capability, status) in [
        (Capability::CapNetAdmin, 1),
        (Capability::CapSysPtrace, 1),
        // CAP_SYS_ADMIN contains them.
        (Capability::CapBpf, 0),
        (Capability::CapPerfmon, 0),
        (Capability::CapSysResource, 0),
    ] {
        let decision = decide(&without(capability), EbpfMode::Auto);
        assert_eq!((decision.mode, decision.status()), (Mode::Hybrid, status), "{capability:?}");
    }
}

#[test]
fn without_ebpf_it_polls_only_and_is_loud_or_refuses_where_ebpf_is_required() {
    type Break = fn(&mut Facts);
    let breaks: [(&str, Break); 3] = [
        ("no eBPF programs", |facts| facts.ebpf.object = no("not built")),
        ("no ring buffer", |facts| facts.ebpf.ring_buffer = no("EPERM")),
        ("do not load", |facts| facts.ebpf.trial = Some(no("refused"))),
    ];
    for (word, break_it) in breaks {
        let mut facts = good();
        break_it(&mut facts);
        let auto = decide(&facts, EbpfMode::Auto);
        assert_eq!((auto.mode, auto.status()), (Mode::PollOnly, 1), "{word}");
        assert!(auto.findings[0].what.contains(word), "{}", auto.findings[0].what);
        assert!(!auto.findings[0].remedy.is_empty() || word == "no ring buffer");
        assert_eq!(auto.findings.len(), 1, "one cause, one finding");
        assert_eq!(decide(&facts, EbpfMode::Require).mode, Mode::Refuse, "{word}");
        let off = decide(&facts, EbpfMode::Off);
        assert_eq!((off.mode, off.status()), (Mode::PollOnly, 0), "{word}");
    }
}

#[test]
fn an_old_kernel_is_told_to_be_one_and_to_need_locked_memory() {
    let mut facts = good();
    facts.kernel.version = Some((5, 4));
    facts.privileges.memlock_bytes = Some(65_536);
    facts.ebpf.ring_buffer = no("this kernel has no ring buffer map (5.8)");
    let remedy = decide(&facts, EbpfMode::Auto).findings[0].remedy.join("\n");
    assert!(remedy.contains("Linux 5.8") && remedy.contains("ulimit -l unlimited"), "{remedy}");
}

#[test]
fn a_lower_rung_is_taken_and_the_reason_told() {
    let mut facts = good();
    for hook in &mut facts.ebpf.hooks {
        let refused = hook.name.starts_with("fe");
        hook.attached = Some(if refused { no("EPERM") } else { Is::Yes });
    }
    facts.ebpf.trial = Some(Is::Yes);
    let decision = decide(&facts, EbpfMode::Auto);
    assert_eq!((decision.mode, decision.status()), (Mode::Hybrid, 0));
    let created = ladder(&decision, Fact::NetnsCreated);
    assert_eq!(created.hooks, ["tp_btf/sched_process_fork", "tracepoint/syscalls/sys_exit_unshare"]);
    assert!(decision.findings.iter().any(|f| f.what.contains("fexit/copy_net_ns: EPERM")), "{decision:?}");
    assert!(decision.findings.iter().any(|f| f.why.contains("which namespace died")), "{decision:?}");
}

#[test]
fn the_classic_tracepoint_is_less() {
    let mut facts = good();
    for hook in facts.ebpf.hooks.iter_mut().filter(|hook| hook.name == "tp_btf/inet_sock_set_state") {
        hook.offered = no("no types");
    }
    let decision = decide(&facts, EbpfMode::Require);
    assert_eq!((decision.mode, decision.status()), (Mode::Hybrid, 1));
    assert!(decision.findings[0].why.contains("network namespace"), "{decision:?}");
}

#[test]
fn required_ebpf_means_tcp_events_and_not_every_hook() {
    let lose = |fact| {
        let mut facts = good();
        for hook in facts.ebpf.hooks.iter_mut().filter(|hook| hook.fact == fact) {
            hook.offered = no("gone");
        }
        decide(&facts, EbpfMode::Require)
    };
    assert_eq!(lose(Fact::TcpState).mode, Mode::Refuse);
    assert_eq!((lose(Fact::NetnsCreated).mode, lose(Fact::NetnsCreated).status()), (Mode::Hybrid, 1));
}

#[test]
fn without_any_hook_there_is_one_finding_with_every_reason() {
    let mut facts = good();
    for hook in &mut facts.ebpf.hooks {
        hook.offered = no("left out by --ebpf-deny");
    }
    let decision = decide(&facts, EbpfMode::Auto);
    assert_eq!((decision.mode, decision.findings.len()), (Mode::PollOnly, 1));
    assert!(
        decision.findings[0].what.contains("fentry/__put_net: left out")
            && decision.findings[0].why.contains("no kernel events")
    );
    assert_eq!(decide(&facts, EbpfMode::Require).mode, Mode::Refuse);
}

#[test]
fn what_was_tried_counts_for_more_than_what_is_offered() {
    let mut facts = good();
    facts.ebpf.trial = Some(no("no hook could be attached"));
    assert_eq!(decide(&facts, EbpfMode::Auto).mode, Mode::PollOnly);
}

#[test]
fn a_container_is_told_what_it_does_not_see() {
    let mut facts = good();
    facts.namespaces.pid_namespace_is_initial = no("it is pid:[1]");
    facts.namespaces.netns_is_initial = no("it is net:[1]");
    let decision = decide(&facts, EbpfMode::Auto);
    assert_eq!((decision.mode, decision.status()), (Mode::Hybrid, 1));
    assert!(decision.findings[0].remedy[0].contains("--pid host"));
    assert_eq!(decision.findings[1].severity, Severity::Note);
}

#[test]
fn a_few_closed_processes_are_a_note_and_many_are_less() {
    for (closed, status) in [(1, 0), (50, 1)] {
        let mut facts = good();
        facts.namespaces.processes_closed = closed;
        assert_eq!(decide(&facts, EbpfMode::Auto).status(), status, "{closed}");
    }
}

#[test]
fn hidepid_matters_only_without_cap_sys_ptrace() {
    let mut facts = good();
    facts.namespaces.proc_is_complete = no("/proc is mounted with hidepid=2");
    assert_eq!(decide(&facts, EbpfMode::Auto).status(), 0);
    facts.privileges.capabilities.retain(|capability| *capability != Capability::CapSysPtrace);
    let decision = decide(&facts, EbpfMode::Auto);
    assert!(decision.findings.iter().any(|f| f.what.contains("hidepid")));
}

#[test]
fn a_port_of_somebody_else_is_fatal_and_that_of_the_running_agent_is_not() {
    let taken =
        |pid| Port::Taken { address: "127.0.0.1:9088".parse().unwrap(), pid, command: Some("x".to_owned()) };
    let mut facts = good();
    facts.neighbours.metrics = taken(Some(7));
    let decision = decide(&facts, EbpfMode::Auto);
    assert_eq!(decision.mode, Mode::Refuse);
    assert!(decision.findings[0].what.contains("127.0.0.1:9088 is in use by x (pid 7)"));
    facts.neighbours.agent = Other::Running { pid: Some(7) };
    assert_eq!(decide(&facts, EbpfMode::Auto).status(), 0);
    facts.neighbours.metrics = taken(None);
    assert_eq!(decide(&facts, EbpfMode::Auto).status(), 2);
}

#[test]
fn each_error_of_the_settings_is_fatal() {
    let mut facts = good();
    facts.settings.errors = vec!["a".to_owned(), "b".to_owned()];
    let decision = decide(&facts, EbpfMode::Auto);
    assert_eq!((decision.mode, decision.findings.len()), (Mode::Refuse, 2));
}

#[test]
fn findings_are_told_worst_first_with_what_why_and_what_to_do() {
    let mut facts = without(Capability::CapSysAdmin);
    facts.namespaces.cookie = no("no SO_NETNS_COOKIE");
    facts.kernel.wall_clock_set = no("1970");
    let decision = decide(&facts, EbpfMode::Auto);
    assert!(decision.findings.windows(2).all(|pair| pair[0].severity >= pair[1].severity));
    let text = report::text(&facts, &decision);
    for part in [
        "FATAL  CAP_SYS_ADMIN is missing",
        "\n       why  setns()",
        "\n       do   by hand",
        "\nLESS   1970",
        "\nnote   no SO_",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn every_set_of_capabilities_and_hooks_leads_to_a_consistent_decision() {
    let hooks = ebpf::ladder().len();
    for bits in 0..1_u32 << hooks {
        let mut facts = good();
        for (at, hook) in facts.ebpf.hooks.iter_mut().enumerate() {
            hook.offered = if bits >> at & 1 == 1 { Is::Yes } else { no("absent") };
        }
        let decision = decide(&facts, EbpfMode::Auto);
        // Who enters a namespace is a hint: without it nothing is missing, and it alone is not enough.
        let told = facts.ebpf.hooks.iter().any(|hook| hook.fact != Fact::NetnsEntered && hook.offered.yes());
        assert_eq!(decision.mode == Mode::PollOnly, !told);
        for ladder in &decision.ladders {
            let offered = facts.ebpf.hooks.iter().any(|hook| hook.fact == ladder.fact && hook.offered.yes());
            assert_eq!(ladder.hooks.is_empty(), !offered);
        }
        assert_eq!(decision.status() == 0, decision.worst() == Severity::Note);
    }
}

#[test]
fn the_json_says_the_same_as_the_decision() {
    let facts = without(Capability::CapSysAdmin);
    let decision = decide(&facts, EbpfMode::Auto);
    let json: serde_json::Value = serde_json::from_str(&report::json(&facts, &decision).unwrap()).unwrap();
    assert_eq!(json["status"], 2);
    assert_eq!(json["decision"]["mode"], "refuse");
    assert_eq!(json["decision"]["findings"][0]["severity"], "fatal");
    assert_eq!(json["facts"]["tcp_diag"], "yes");
    assert_eq!(json["facts"]["ebpf"]["hooks"][0]["fact"], "tcp state changed");
}
