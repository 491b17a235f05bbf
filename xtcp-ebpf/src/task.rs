//! Who was running.

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, generated::bpf_get_current_task_btf,
};
use xtcp_common::event::{Task, task};

use crate::kernel::{
    HAVE_TASK_BTF, OFF_NSPROXY_NET, OFF_TASK_COMM, OFF_TASK_EXIT_CODE, OFF_TASK_FLAGS, OFF_TASK_NSPROXY,
    OFF_TASK_PID, OFF_TASK_TGID, Ptr, bytes,
};

/// `PF_EXITING` and `PF_KTHREAD` of `include/linux/sched.h`.
const PF_EXITING: u32 = 0x0000_0004;
const PF_KTHREAD: u32 = 0x0020_0000;

/// The current task; `None` before 5.11.
#[inline(always)]
pub(crate) fn current() -> Option<Ptr> {
    if HAVE_TASK_BTF.get() == 0 {
        return None;
    }
    // SAFETY: the helper has no argument, and the verifier knows what it returns as a `task_struct`.
    Some(unsafe { Ptr::new(bpf_get_current_task_btf().cast()) })
}

/// Facts on the current task.
#[inline(always)]
pub(crate) fn current_facts() -> Task {
    if let Some(task) = current() {
        return facts(task);
    }
    let ids = bpf_get_current_pid_tgid();
    Task {
        tgid: (ids >> 32) as u32,
        tid: ids as u32,
        flags: task::FLAGS_UNKNOWN,
        exit_code: 0,
        comm: bpf_get_current_comm().unwrap_or_default(),
    }
}

/// Facts on a task that the kernel handed to the program.
#[inline(always)]
pub(crate) fn facts(of: Ptr) -> Task {
    let mut flags = 0;
    let mut exit_code = 0;
    match of.read::<u32>(&OFF_TASK_FLAGS) {
        Some(bits) => {
            if bits & PF_KTHREAD != 0 {
                flags |= task::KTHREAD;
            }
            if bits & PF_EXITING != 0 {
                flags |= task::EXITING;
                exit_code = of.read::<u32>(&OFF_TASK_EXIT_CODE).unwrap_or(0);
            }
        }
        None => flags |= task::FLAGS_UNKNOWN,
    }
    Task {
        tgid: of.read(&OFF_TASK_TGID).unwrap_or(0),
        tid: of.read(&OFF_TASK_PID).unwrap_or(0),
        flags,
        exit_code,
        comm: bytes(of.read_16(&OFF_TASK_COMM).unwrap_or_default()),
    }
}

/// The network namespace that a task is in; null when it has none any more (exiting) or this kernel hides it.
#[inline(always)]
pub(crate) fn netns(of: Ptr) -> Ptr {
    let nsproxy = of.follow(&OFF_TASK_NSPROXY);
    if nsproxy.is_null() { nsproxy } else { nsproxy.follow(&OFF_NSPROXY_NET) }
}
