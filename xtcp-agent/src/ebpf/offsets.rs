//! What this kernel offers to the programs: where its struct fields are, which helpers it has. All of it goes into
//! the programs' read-only data before they are loaded.

use xtcp_common::offset::{ABSENT, OFFSETS, Offset};
use xtcp_common::setting;

use super::btf::Btf;
use super::{Rung, RungInfo, attach};

/// Facts about the running kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Each offset, in the order of [`OFFSETS`].
    offsets: Vec<(&'static Offset, u32)>,
    socket_cookie: u32,
    task_btf: u32,
    /// Address of `cleanup_net`, or why it is not known.
    cleanup_net: Result<u64, String>,
    /// Why there are no offsets at all.
    no_btf: Option<String>,
}

/// Fields without which the programs behind a rung can tell nothing.
const fn needs(rung: Rung) -> &'static [&'static str] {
    match rung {
        Rung::TcpStateBtf => &["OFF_SK_FAMILY", "OFF_SK_PROTOCOL", "OFF_SK_NET", "OFF_NET_INUM"],
        Rung::TcpStateClassic => &[],
        Rung::CopyNetNs | Rung::PutNet => &["OFF_NET_INUM"],
        Rung::Fork | Rung::Unshare | Rung::Setns => &["OFF_TASK_NSPROXY", "OFF_NSPROXY_NET", "OFF_NET_INUM"],
        Rung::NetnsPut => &["OFF_NET_INUM", "OFF_NS_INUM", "OFF_NET_COUNT"],
        Rung::CleanupNet => &["OFF_WORK_FUNC"],
    }
}

impl Kernel {
    pub(super) fn gather() -> Self {
        let (btf, no_btf) = match Btf::of_kernel() {
            Ok(btf) => (Some(btf), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { cleanup_net: attach::kernel_address("cleanup_net"), no_btf, ..Self::of(btf.as_ref()) }
    }

    fn of(btf: Option<&Btf>) -> Self {
        // A helper has its number in this enum from the release on that brought it. The cookie helper is older than
        // its use in tracing, which came in 5.12 together with check_mtu.
        let has = |helper| u32::from(btf.is_some_and(|btf| btf.has_enumerator("bpf_func_id", helper)));
        let socket_cookie = has("BPF_FUNC_check_mtu");
        let resolve = |offset: &Offset| {
            // Until the same release a namespace had a cookie only once somebody had asked for it, so that the same one
            // would be told without and later with.
            if offset.global == "OFF_NET_COOKIE" && socket_cookie == 0 {
                return None;
            }
            let field = offset.path.split(" or ").find_map(|path| btf?.field(offset.of, path))?;
            (field.size == offset.size).then_some(field.offset)
        };
        let offsets = OFFSETS.iter().map(|offset| (offset, resolve(offset).unwrap_or(ABSENT))).collect();
        Self {
            offsets,
            socket_cookie,
            task_btf: has("BPF_FUNC_get_current_task_btf"),
            cleanup_net: Err(String::new()),
            no_btf: None,
        }
    }

    /// The `u32` globals and their values.
    pub(super) fn globals(&self) -> impl Iterator<Item = (&'static str, &u32)> {
        let helpers =
            [(setting::HAVE_SOCKET_COOKIE, &self.socket_cookie), (setting::HAVE_TASK_BTF, &self.task_btf)];
        self.offsets.iter().map(|(offset, value)| (offset.global, value)).chain(helpers)
    }

    /// Value of [`setting::CLEANUP_NET`].
    pub(super) fn cleanup_net(&self) -> &u64 {
        self.cleanup_net.as_ref().unwrap_or(&0)
    }

    /// Whether a rung can work here at all.
    ///
    /// # Errors
    ///
    /// The reason why not.
    pub(super) fn can(&self, rung: Rung) -> Result<(), String> {
        if let Some(global) = needs(rung).iter().find(|global| self.is_absent(global)) {
            return Err(match &self.no_btf {
                Some(reason) => reason.clone(),
                None => format!("this kernel has no field {}", path_of(global)),
            });
        }
        match rung {
            Rung::CleanupNet => self.cleanup_net.as_ref().map(|_| ()).map_err(Clone::clone),
            Rung::Unshare | Rung::Setns if self.task_btf == 0 => {
                Err("needs bpf_get_current_task_btf (Linux 5.11)".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// What an attached rung cannot tell on this kernel.
    pub(super) fn lacks(&self, info: &RungInfo) -> String {
        let mut lacks = Vec::new();
        if !info.lacks.is_empty() {
            lacks.push(info.lacks.to_owned());
        }
        if info.rung == Rung::TcpStateBtf {
            if self.socket_cookie == 0 {
                lacks.push(
                    "a socket's cookie before its first row (Linux 5.12): it is looked up by its addresses, and a connection \
                     that took them over meanwhile would be taken for it"
                        .to_owned(),
                );
            }
            if self.task_btf == 0 {
                lacks.push("whether the task is exiting or a kernel thread (Linux 5.11)".to_owned());
            }
            let absent = self.offsets.iter().filter(|(offset, value)| {
                *value == ABSENT
                    && matches!(offset.of, "sock" | "net" | "cgroup" | "kernfs_node" | "tcp_sock")
            });
            lacks.extend(absent.map(|(offset, _)| format!("{}.{}", offset.of, offset.path)));
        }
        lacks.join(", ")
    }

    fn is_absent(&self, global: &str) -> bool {
        self.offsets.iter().all(|(offset, value)| offset.global != global || *value == ABSENT)
    }
}

fn path_of(global: &str) -> String {
    let offset = OFFSETS.iter().find(|offset| offset.global == global);
    offset.map_or_else(|| global.to_owned(), |offset| format!("{}.{}", offset.of, offset.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_btf_everything_is_absent_and_the_reason_is_told() {
        let kernel = Kernel { no_btf: Some("no such file".to_owned()), ..Kernel::of(None) };
        assert!(kernel.globals().all(|(_, value)| *value == ABSENT || *value == 0));
        assert_eq!(kernel.can(Rung::TcpStateBtf), Err("no such file".to_owned()));
        assert_eq!(kernel.can(Rung::TcpStateClassic), Ok(()));
    }

    #[test]
    fn the_fields_that_a_rung_needs_are_in_the_list() {
        for rung in super::super::ladder() {
            for global in needs(rung.rung) {
                assert!(OFFSETS.iter().any(|offset| offset.global == *global), "{global}");
            }
        }
    }
}
