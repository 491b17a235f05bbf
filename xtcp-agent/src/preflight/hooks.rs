//! Which hooks this kernel offers, by its own word, and which really attach.

use std::error::Error;
use std::fs;
use std::path::Path;

use serde::Serializer;

use super::facts::{Hook, Is};
use crate::ebpf::{self, EbpfConfig, EbpfError, Fact, Rung};

/// Where tracefs is mounted, and where debugfs has it.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Every hook of every ladder.
pub(super) fn gather(deny: &[Rung]) -> Vec<Hook> {
    let btf =
        fs::read("/sys/kernel/btf/vmlinux").map_err(|e| format!("no BTF: /sys/kernel/btf/vmlinux: {e}"));
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let sources = Sources { btf: &btf, symbols: &symbols };
    ebpf::ladder()
        .iter()
        .map(|info| Hook {
            fact: info.fact,
            name: info.hook,
            program: info.program,
            step: info.step,
            lacks: info.lacks.to_owned(),
            offered: if deny.contains(&info.rung) {
                Is::No("left out by --ebpf-deny".to_owned())
            } else {
                sources.offers(info.hook)
            },
            attached: None,
        })
        .collect()
}

/// What the kernel says of itself.
struct Sources<'a> {
    btf: &'a Result<Vec<u8>, String>,
    symbols: &'a str,
}

impl Sources<'_> {
    /// Whether the kernel has a hook, given as a libbpf section's name.
    fn offers(&self, hook: &str) -> Is {
        match hook.split_once('/') {
            // A BTF tracepoint is a typedef; its name stands alone between two NULs in the string section.
            // This one fires for all work; which of it ends namespaces is told by the address of the function.
            Some(("tp_btf", "workqueue_execute_start")) if self.address("cleanup_net") == Some(0) => Is::No(
                "/proc/kallsyms hides addresses: needs CAP_SYSLOG, and kernel.kptr_restrict below 2"
                    .to_owned(),
            ),
            Some(("tp_btf", "workqueue_execute_start")) if self.address("cleanup_net").is_none() => {
                Is::No("/proc/kallsyms has no cleanup_net".to_owned())
            }
            Some(("tp_btf", name)) => self.btf_has(&format!("btf_trace_{name}")),
            Some(("fentry" | "fexit", function)) => match self.btf_has(function) {
                Is::Yes if self.address(function).is_none() => {
                    Is::No(format!("/proc/kallsyms has no {function}: it was inlined, or is hidden"))
                }
                answer => answer,
            },
            Some(("tracepoint", event)) => tracepoint(event),
            _ => Is::Unknown(format!("{hook} is of no known kind")),
        }
    }

    fn btf_has(&self, name: &str) -> Is {
        let wanted: Vec<u8> = [&[0], name.as_bytes(), &[0]].concat();
        match self.btf {
            Ok(btf) if contains(btf, &wanted) => Is::Yes,
            Ok(_) => Is::No(format!("this kernel's BTF has no {name}")),
            Err(why) => Is::No(why.clone()),
        }
    }

    /// Kernel address of a function, 0 where it is hidden, None where there is no such function.
    fn address(&self, function: &str) -> Option<u64> {
        self.symbols.lines().filter(|line| line.ends_with(function)).find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (address, _, name) = (words.next()?, words.next()?, words.next()?);
            (name == function).then(|| u64::from_str_radix(address, 16).ok()).flatten()
        })
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn tracepoint(event: &str) -> Is {
    let ids = TRACEFS.map(|root| Path::new(root).join("events").join(event).join("id"));
    let mut why = String::new();
    for id in ids {
        match fs::read_to_string(&id) {
            Ok(_) => return Is::Yes,
            Err(e) if why.is_empty() => why = format!("{}: {e}", id.display()),
            Err(_) => {}
        }
    }
    Is::No(why)
}

/// Whether tracefs can be read.
pub(super) fn tracefs() -> Is {
    if TRACEFS.iter().any(|root| fs::read_dir(Path::new(root).join("events")).is_ok()) {
        return Is::Yes;
    }
    let [root, _] = TRACEFS;
    match fs::read_dir(Path::new(root).join("events")) {
        Ok(_) => Is::Yes,
        Err(e) => Is::No(format!("{root}/events: {e}")),
    }
}

/// Loads and attaches the programs with a small ring buffer, notes what became of each hook, and lets go.
pub(super) fn attach_for_a_moment(deny: &[Rung], hooks: &mut [Hook]) -> Is {
    let config = EbpfConfig { ring_bytes: 64 << 10, deny: deny.to_vec(), ..EbpfConfig::default() };
    let (skipped, answer) = match ebpf::load(&config) {
        Ok(loaded) => {
            for attached in &loaded.attached {
                if let Some(hook) = find(hooks, attached.rung) {
                    hook.attached = Some(Is::Yes);
                    hook.lacks.clone_from(&attached.detail);
                }
            }
            loaded.control.detach();
            (loaded.skipped, Is::Yes)
        }
        Err(EbpfError::NothingAttached(skipped)) => (skipped, Is::No("no hook could be attached".to_owned())),
        Err(e) => (Vec::new(), Is::No(with_causes(&e))),
    };
    for (rung, why) in skipped {
        if let Some(hook) = find(hooks, rung) {
            hook.attached = Some(Is::No(why));
        }
    }
    answer
}

/// An error and its causes, outermost first, each once.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

fn find(hooks: &mut [Hook], rung: Rung) -> Option<&mut Hook> {
    let name = ebpf::ladder().iter().find(|info| info.rung == rung)?.hook;
    hooks.iter_mut().find(|hook| hook.name == name)
}

/// A fact in words.
pub(super) const fn fact_name(fact: Fact) -> &'static str {
    match fact {
        Fact::TcpState => "tcp state changed",
        Fact::NetnsCreated => "netns created",
        Fact::NetnsDestroyed => "netns destroyed",
        Fact::NetnsEntered => "netns entered",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
pub(super) fn serialize_fact<S: Serializer>(fact: &Fact, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(fact_name(*fact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_offered_when_the_kernel_names_it_whole() {
        let btf = Ok(b"\0btf_trace_sched_process_fork\0copy_net_ns\0__put_net_old\0setup_net\0".to_vec());
        let symbols = "ffffffff81e527a0 T copy_net_ns\nffffffff81e50410 T __put_net\n";
        let sources = Sources { btf: &btf, symbols };
        assert_eq!(sources.offers("tp_btf/sched_process_fork"), Is::Yes);
        assert_eq!(sources.offers("fexit/copy_net_ns"), Is::Yes);
        assert!(matches!(sources.offers("tp_btf/sched_process"), Is::No(_)));
        assert!(matches!(sources.offers("fentry/__put_net"), Is::No(_)), "in no type");
        assert!(matches!(sources.offers("fentry/setup_net"), Is::No(why) if why.contains("inlined")));
        assert!(matches!(sources.offers("kprobe/x"), Is::Unknown(_)));
    }

    #[test]
    fn the_end_of_a_namespace_is_known_by_an_address_that_is_not_hidden() {
        let btf = Ok(b"\0btf_trace_workqueue_execute_start\0".to_vec());
        let offers = |symbols| Sources { btf: &btf, symbols }.offers("tp_btf/workqueue_execute_start");
        assert_eq!(offers("ffffffff81e523c0 t cleanup_net\n"), Is::Yes);
        assert!(
            matches!(offers("0000000000000000 t cleanup_net\n"), Is::No(why) if why.contains("CAP_SYSLOG"))
        );
        assert!(matches!(offers("ffffffff81e523c0 t other_cleanup_net\n"), Is::No(_)));
    }

    #[test]
    fn without_types_the_reason_is_told() {
        let none = Err("no such file".to_owned());
        let sources = Sources { btf: &none, symbols: "" };
        assert_eq!(sources.offers("tp_btf/x"), Is::No("no such file".to_owned()));
    }

    #[test]
    fn each_hook_names_one_rung() {
        for info in ebpf::ladder() {
            assert_eq!(
                ebpf::ladder().iter().filter(|other| other.hook == info.hook).count(),
                1,
                "{}",
                info.hook
            );
        }
    }

    #[test]
    fn a_denied_hook_is_not_offered() {
        let hooks = gather(&[Rung::TcpStateBtf]);
        let denied = hooks.iter().find(|hook| hook.name == "tp_btf/inet_sock_set_state").unwrap();
        assert_eq!(denied.offered, Is::No("left out by --ebpf-deny".to_owned()));
    }
}
