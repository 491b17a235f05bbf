//! Loads the eBPF programs, attaches them, and drains what they report. For each fact there is a ladder of hooks;
//! the first that this kernel accepts is used, and why the ones above it were not is told. Decides nothing about
//! events.

mod attach;
mod btf;
mod control;
mod drain;
mod ladder;
mod metrics;
mod offsets;
mod tracefs;

use std::any::Any;
use std::fs::File;
use std::time::Duration;

use aya::maps::{Map, MapError, RingBuf};
use aya::{Btf, Ebpf, EbpfLoader};
use thiserror::Error;
use xtcp_common::setting;

pub use control::{Control, Counters};
pub use drain::{Drain, DrainHandle};
pub use ladder::ladder;
pub use metrics::EbpfMetrics;

/// What the programs shall report, and how.
#[derive(Clone, Debug)]
pub struct EbpfConfig {
    /// Size of the ring buffer, bytes: a power of two, at least one page. Default 8 MiB: about 50 000 events.
    pub ring_bytes: u32,
    /// States whose transitions are reported, bit `1 << state` as in the kernel's `TCPF_*`; see
    /// [`xtcp_common::setting::STATE_MASK`]. Default all.
    pub state_mask: u32,
    /// A process whose `connect()` and `listen()` are reported whatever the states; 0 for none.
    pub own_tgid: u32,
    /// Report only sockets with one of these ports, local or remote. Empty: all.
    pub include_ports: Vec<u16>,
    /// Leave out sockets with one of these ports, local or remote.
    pub exclude_ports: Vec<u16>,
    /// [`Control::set_netns_drop`] will be used. Without it the programs contain no namespace filter.
    pub netns_filter: bool,
    /// Report TCP state changes.
    pub tcp: bool,
    /// Report the creation and destruction of network namespaces.
    pub netns: bool,
    /// How long the reader lets events gather after the kernel woke it. Bounds both the number of wake-ups (one per
    /// delay) and what reading adds to an event's latency. Default 2 ms.
    pub drain_delay: Duration,
    /// Rungs that must not be used.
    pub deny: Vec<Rung>,
}

impl Default for EbpfConfig {
    fn default() -> Self {
        Self {
            ring_bytes: 8 << 20,
            state_mask: u32::MAX,
            own_tgid: 0,
            include_ports: Vec::new(),
            exclude_ports: Vec::new(),
            netns_filter: false,
            tcp: true,
            netns: true,
            drain_delay: Duration::from_millis(2),
            deny: Vec::new(),
        }
    }
}

/// What the agent wants to know from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// A TCP socket changed state.
    TcpState,
    /// A network namespace was created.
    NetnsCreated,
    /// A network namespace was destroyed.
    NetnsDestroyed,
    /// A task entered a network namespace. A hint only: nothing is lost without it but a way into a namespace that has
    /// no other.
    NetnsEntered,
}

/// One hook that can tell a [`Fact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// BTF tracepoint `inet_sock_set_state`.
    TcpStateBtf,
    /// Classic tracepoint `sock:inet_sock_set_state`.
    TcpStateClassic,
    /// `fexit` on `copy_net_ns`.
    CopyNetNs,
    /// BTF tracepoint `sched_process_fork`.
    Fork,
    /// Tracepoint `syscalls:sys_exit_unshare`.
    Unshare,
    /// Tracepoint `syscalls:sys_exit_setns`.
    Setns,
    /// `fentry` on `__put_net`.
    PutNet,
    /// `fexit` on `netns_put`.
    NetnsPut,
    /// BTF tracepoint `workqueue_execute_start`, when it runs `cleanup_net`.
    CleanupNet,
}

/// A rung as `check` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RungInfo {
    /// What it tells.
    pub fact: Fact,
    /// Which one it is.
    pub rung: Rung,
    /// Rungs of a fact are tried by rising step; those of one step complement each other and are all used.
    pub step: u8,
    /// Also used beside a better step: `copy_net_ns` runs in the parent, outside the new namespace, and
    /// `sched_process_fork` then tells which task is inside.
    pub companion: bool,
    /// The eBPF program behind it.
    pub program: &'static str,
    /// The kernel's name for the hook, as in a libbpf section.
    pub hook: &'static str,
    /// What is not known when this rung is the one in use; empty when nothing is missing.
    pub lacks: &'static str,
}

/// A hook in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// What it tells.
    pub fact: Fact,
    /// Which one it is.
    pub rung: Rung,
    /// What this kernel cannot tell through it; empty when nothing is missing.
    pub detail: String,
}

/// Why nothing could be loaded.
#[derive(Debug, Error)]
pub enum EbpfError {
    /// This build contains no eBPF object.
    #[error("no eBPF object in this build: {0}")]
    NoObject(&'static str),
    /// The ring buffer's size is not one that the kernel takes.
    #[error("ring buffer of {0} bytes: it must be a power of two and at least one page")]
    RingSize(u32),
    /// The object as a whole was refused.
    #[error("eBPF object: {0}")]
    Object(#[from] aya::EbpfError),
    /// A map is missing or of another shape: the object and the agent are of different builds.
    #[error("eBPF map {name}: {source}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What is wrong with it.
        source: MapError,
    },
    /// Not one hook could be attached.
    #[error("no eBPF hook attached: {}", .0.iter().map(|(rung, reason)| format!("{rung:?}: {reason}")).collect::<Vec<_>>().join("; "))]
    NothingAttached(Vec<(Rung, String)>),
    /// The reader could not be set up.
    #[error("ring buffer reader: {call}: {source}")]
    Reader {
        /// The call that failed.
        call: &'static str,
        /// Its errno.
        source: std::io::Error,
    },
}

/// What [`load`] achieved.
#[derive(Debug)]
pub struct Loaded {
    /// The hooks in use.
    pub attached: Vec<Attached>,
    /// The hooks that were tried in vain, with the reason.
    pub skipped: Vec<(Rung, String)>,
    /// The reader of the ring buffer, not started yet.
    pub drain: Drain,
    /// Counters and filters. The programs stay attached as long as it, or a clone of it, lives.
    pub control: Control,
}

#[cfg(xtcp_ebpf_object)]
static OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xtcp-ebpf.o")));
#[cfg(not(xtcp_ebpf_object))]
static OBJECT: Option<&[u8]> = None;

/// The eBPF object of this build; `None` when it was built without one ([`object_absence`]).
pub fn object() -> Option<&'static [u8]> {
    OBJECT
}

/// Why this build contains no eBPF object; empty when it does.
pub fn object_absence() -> &'static str {
    env!("XTCP_EBPF_ABSENCE")
}

/// Loads the programs and attaches, for each fact that `config` asks for, the best rungs that this kernel accepts.
/// Events gather in the ring buffer from then on. Takes some tens of milliseconds.
///
/// # Errors
///
/// When there is no object, when the object as a whole is refused, or when not one hook could be attached.
pub fn load(config: &EbpfConfig) -> Result<Loaded, EbpfError> {
    let object = object().ok_or(EbpfError::NoObject(object_absence()))?;
    load_object(object, config)
}

fn load_object(object: &[u8], config: &EbpfConfig) -> Result<Loaded, EbpfError> {
    if !config.ring_bytes.is_power_of_two() || config.ring_bytes < 4096 {
        return Err(EbpfError::RingSize(config.ring_bytes));
    }
    let btf = Btf::from_sys_fs().ok();
    let kernel = offsets::Kernel::gather();
    let mut ebpf = open(object, config, &kernel, btf.as_ref())?;
    // Everything that reads is set up before the first program runs.
    ports(&mut ebpf, config)?;
    let flush_log = Drain::log_forwarder(&mut ebpf);
    let ring: RingBuf<_> = take_map(&mut ebpf, setting::EVENTS)?;
    let mut climb = Climb {
        ebpf: &mut ebpf,
        btf: btf.as_ref(),
        kernel: &kernel,
        deny: &config.deny,
        attached: Vec::new(),
        links: Vec::new(),
        fdinfo: Vec::new(),
        skipped: Vec::new(),
    };
    let tcp = [Fact::TcpState].into_iter().filter(|_| config.tcp);
    let netns =
        [Fact::NetnsCreated, Fact::NetnsDestroyed, Fact::NetnsEntered].into_iter().filter(|_| config.netns);
    tcp.chain(netns).for_each(|fact| climb.fact(fact));
    let Climb { attached, links, fdinfo, skipped, .. } = climb;
    if attached.is_empty() {
        return Err(EbpfError::NothingAttached(skipped));
    }
    let control = Control::new(ebpf, links, fdinfo)?;
    let drain = Drain::new(ring, flush_log, control.clone(), config.drain_delay);
    Ok(Loaded { attached, skipped, drain, control })
}

/// Attaches rungs and keeps what came of it.
struct Climb<'a> {
    ebpf: &'a mut Ebpf,
    btf: Option<&'a Btf>,
    kernel: &'a offsets::Kernel,
    deny: &'a [Rung],
    attached: Vec<Attached>,
    links: Vec<Box<dyn Any + Send>>,
    fdinfo: Vec<File>,
    skipped: Vec<(Rung, String)>,
}

impl Climb<'_> {
    /// Uses the first step of the fact's ladder of which at least one rung attaches, and its companions.
    fn fact(&mut self, fact: Fact) {
        for step in 0..=u8::MAX {
            let before = self.attached.len();
            let mut rungs = ladder::step(fact, step).peekable();
            if rungs.peek().is_none() {
                return;
            }
            rungs.for_each(|info| self.rung(info));
            if self.attached.len() > before {
                ladder::companions(fact, step).for_each(|info| self.rung(info));
                return;
            }
        }
    }

    fn rung(&mut self, info: &RungInfo) {
        let attached = if self.deny.contains(&info.rung) {
            Err("switched off by the configuration".to_owned())
        } else {
            self.kernel.can(info.rung).and_then(|()| attach::attach(self.ebpf, self.btf, info))
        };
        match attached {
            Ok(link) => {
                let detail = self.kernel.lacks(info);
                self.attached.push(Attached { fact: info.fact, rung: info.rung, detail });
                self.links.push(link.link);
                self.fdinfo.extend(link.fdinfo);
            }
            Err(reason) => self.skipped.push((info.rung, reason)),
        }
    }
}

/// Parses the object, writes the settings and this kernel's offsets into its read-only data, and makes its maps.
fn open(
    object: &[u8],
    config: &EbpfConfig,
    kernel: &offsets::Kernel,
    btf: Option<&Btf>,
) -> Result<Ebpf, EbpfError> {
    let port_mode = [
        (!config.include_ports.is_empty(), setting::port::INCLUDE),
        (!config.exclude_ports.is_empty(), setting::port::EXCLUDE),
    ];
    let port_mode: u32 = port_mode.iter().filter(|(used, _)| *used).map(|(_, bit)| bit).sum();
    let netns_filter = u32::from(config.netns_filter);
    let mut loader = EbpfLoader::new();
    loader
        .btf(btf)
        .map_max_entries(setting::EVENTS, config.ring_bytes)
        .override_global(setting::STATE_MASK, &config.state_mask, true)
        .override_global(setting::OWN_TGID, &config.own_tgid, true)
        .override_global(setting::PORT_MODE, &port_mode, true)
        .override_global(setting::NETNS_FILTER, &netns_filter, true);
    for (name, value) in kernel.globals() {
        loader.override_global(name, value, true);
    }
    loader.override_global(setting::CLEANUP_NET, kernel.cleanup_net(), true);
    Ok(loader.load(object)?)
}

/// Fills the port sets, before any program can look at them.
fn ports(ebpf: &mut Ebpf, config: &EbpfConfig) -> Result<(), EbpfError> {
    let map = ebpf.map_mut(setting::PORTS).ok_or_else(|| absent(setting::PORTS))?;
    let failed = |source| EbpfError::Map { name: setting::PORTS, source };
    let mut map: aya::maps::Array<_, u64> = map.try_into().map_err(failed)?;
    for (first, ports) in [(0, &config.include_ports), (setting::PORT_WORDS, &config.exclude_ports)] {
        for port in ports {
            let index = first + u32::from(*port) / u64::BITS;
            let word = map.get(&index, 0).map_err(failed)?;
            map.set(index, word | 1 << (u32::from(*port) % u64::BITS), 0).map_err(failed)?;
        }
    }
    Ok(())
}

/// A map of the object, as its type.
fn take_map<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, EbpfError> {
    let map = ebpf.take_map(name).ok_or_else(|| absent(name))?;
    M::try_from(map).map_err(|source| EbpfError::Map { name, source })
}

fn absent(name: &'static str) -> EbpfError {
    EbpfError::Map { name, source: MapError::InvalidName { name: name.to_owned() } }
}
