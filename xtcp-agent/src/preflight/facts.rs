//! What is so on this host. Gathered, never judged: that is [`super::decide`].

use std::path::PathBuf;

use serde::Serialize;

use super::{capability, destinations, engines, hooks, host, inet_diag, instance, namespaces, port};
use crate::config::{Config, EbpfMode};
use crate::ebpf::{self, Fact};

/// An answer of the host, with the reason where it is not yes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Is {
    /// It is so.
    Yes,
    /// It is not so, and why.
    No(String),
    /// It could not be found out, and why.
    Unknown(String),
}

impl Is {
    /// Whether it is so for certain.
    pub fn yes(&self) -> bool {
        *self == Self::Yes
    }
}

/// What kernel lockdown allows (5.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lockdown {
    /// Everything.
    None,
    /// Nothing that changes the running kernel.
    Integrity,
    /// Nor what reads its secrets, such as `bpf_probe_read_kernel`.
    Confidentiality,
    /// Not told: an absent file does not mean that there is none.
    Unknown(String),
}

/// The kernel and its clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Release, such as `6.12.0-amd64`.
    pub release: String,
    /// Major and minor number, when the release begins with them.
    pub version: Option<(u32, u32)>,
    /// Machine, such as `x86_64`.
    pub machine: String,
    /// What lockdown allows.
    pub lockdown: Lockdown,
    /// Source of the kernel's clock.
    pub clocksource: Option<String>,
    /// Whether the wall clock was set: it says a time after this program was written.
    pub wall_clock_set: Is,
}

/// What this process may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Privileges {
    /// Effective user id.
    pub uid: u32,
    /// Effective capabilities, as in `/proc/self/status`, that matter here.
    pub capabilities: Vec<capability::Capability>,
    /// Whether its user namespace is the initial one: elsewhere capabilities count for little.
    pub user_namespace_is_initial: Is,
    /// Whether a seccomp filter is in force, which may refuse system calls whatever the capabilities.
    pub seccomp_filter: bool,
    /// Soft limit of locked memory, bytes; None is unlimited. Counts for eBPF before 5.11.
    pub memlock_bytes: Option<u64>,
    /// Soft limit of open files; None is unlimited.
    pub open_files: Option<u64>,
}

/// One hook of a ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// What it tells.
    #[serde(serialize_with = "hooks::serialize_fact")]
    pub fact: Fact,
    /// The kernel's name for it.
    pub name: &'static str,
    /// The program behind it, which `--ebpf-deny` takes.
    pub program: &'static str,
    /// Those of one step are used together; lower steps come first.
    pub step: u8,
    /// What is not known through it; empty when nothing is missing.
    pub lacks: String,
    /// Whether the kernel offers it.
    pub offered: Is,
    /// Whether it was attached in a trial; None where there was no trial, or a better one made it needless.
    pub attached: Option<Is>,
}

/// The eBPF side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ebpf {
    /// Whether this build contains the programs.
    pub object: Is,
    /// Whether `bpf()` makes a ring buffer (5.8).
    pub ring_buffer: Is,
    /// Whether the kernel describes its types (`CONFIG_DEBUG_INFO_BTF`).
    pub btf: Is,
    /// Whether tracefs can be read.
    pub tracefs: Is,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<u8>,
    /// Each hook, best first within a fact.
    pub hooks: Vec<Hook>,
    /// Whether the programs were loaded and attached for a moment; None where that was not tried.
    pub trial: Option<Is>,
}

/// Network namespaces, and what this process sees of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Namespaces {
    /// Whether a network namespace can be entered: the own one was, which takes the same privilege as another.
    pub entry: Is,
    /// Whether sockets tell their namespace's cookie (`SO_NETNS_COOKIE`, 5.14).
    pub cookie: Is,
    /// Whether nsfs handles open a namespace that only a socket holds (6.18).
    pub handles: Is,
    /// Whether the pid namespace is the host's.
    pub pid_namespace_is_initial: Is,
    /// Whether the network namespace is the host's.
    pub netns_is_initial: Is,
    /// Whether `/proc` shows every process.
    pub proc_is_complete: Is,
    /// Processes whose network namespace was read.
    pub processes: u32,
    /// Processes whose network namespace could not be read.
    pub processes_closed: u32,
    /// Folders of named namespaces, and whether they are there.
    pub folders: Vec<(PathBuf, bool)>,
}

/// What is in the way on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Neighbours {
    /// Whether another agent runs.
    pub agent: instance::Other,
    /// The port of the metrics.
    pub metrics: port::Port,
    /// The port of gRPC.
    pub grpc: port::Port,
}

/// The settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// What is wrong with them.
    pub errors: Vec<String>,
    /// Those that are not defaults, with their source.
    pub given: Vec<String>,
}

/// Everything that matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Version of this program.
    pub version: &'static str,
    /// The kernel.
    pub kernel: Kernel,
    /// What this process may do.
    pub privileges: Privileges,
    /// Whether `inet_diag` answers about TCP sockets.
    pub tcp_diag: Is,
    /// Whether `inet_diag` answers about MPTCP sockets; None where nobody wants to know.
    pub mptcp_diag: Option<Is>,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// eBPF.
    pub ebpf: Ebpf,
    /// Container engines; none where nothing is tried, since one that hangs takes its time.
    pub engines: Vec<engines::Engine>,
    /// Destinations; none where nothing is tried, since one that hangs takes its time.
    pub destinations: Vec<destinations::Answer>,
    /// What else runs here.
    pub neighbours: Neighbours,
    /// The settings.
    pub settings: Settings,
}

/// How far the gathering goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Looks only: the agent is about to load the programs anyway.
    Look,
    /// Loads and attaches the programs for a moment too.
    Try,
}

/// Gathers. Takes some milliseconds, with [`Depth::Try`] some tens of them. Leaves nothing behind.
pub fn gather(config: &Config, settings: Settings, depth: Depth) -> Facts {
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        kernel: host::kernel(),
        privileges: host::privileges(),
        tcp_diag: inet_diag::answers(),
        mptcp_diag: config.sockets.wants_mptcp().then(inet_diag::answers_mptcp),
        namespaces: namespaces::gather(&config.netns.dirs),
        ebpf: ebpf(config, depth),
        engines: if depth == Depth::Try { engines(config) } else { Vec::new() },
        destinations: if depth == Depth::Try { destinations::gather(config) } else { Vec::new() },
        neighbours: Neighbours {
            agent: instance::other(instance::LOCK_FILE.as_ref()),
            metrics: port::probe(config.listen.prom),
            grpc: port::probe(config.listen.grpc()),
        },
        settings,
    }
}

fn engines(config: &Config) -> Vec<engines::Engine> {
    let settings = config.workload.settings();
    engines::gather(&settings.docker, &settings.cri)
}

fn ebpf(config: &Config, depth: Depth) -> Ebpf {
    let object = match ebpf::object() {
        Some(_) => Is::Yes,
        None => Is::No(ebpf::object_absence().to_owned()),
    };
    let mut hooks = hooks::gather(&config.ebpf.deny);
    let wanted = depth == Depth::Try && object.yes() && config.ebpf.mode != EbpfMode::Off;
    let trial = wanted.then(|| hooks::attach_for_a_moment(&config.ebpf.deny, &mut hooks));
    Ebpf {
        object,
        ring_buffer: host::ring_buffer(),
        btf: host::readable("/sys/kernel/btf/vmlinux"),
        tracefs: hooks::tracefs(),
        unprivileged_bpf_disabled: host::number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        hooks,
        trial,
    }
}
