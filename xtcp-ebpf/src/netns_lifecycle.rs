//! A network namespace was created or destroyed.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext, TracePointContext};
use xtcp_common::event::{NetnsEvent, Task, hook, kind};
use xtcp_common::tracepoint::sys_exit;

use crate::emit::emit;
use crate::kernel::{CLEANUP_NET, OFF_NET_COOKIE, OFF_NET_INUM, OFF_WORK_FUNC, Ptr};
use crate::task;

const CLONE_NEWNET: u64 = 0x4000_0000;
/// The last 4095 addresses are errors (`IS_ERR`).
const MAX_ERRNO: u64 = 4095;

/// `struct net *copy_net_ns(flags, user_ns, old_net)`: every creation, by clone, unshare or setns, goes through it.
#[fexit(function = "copy_net_ns")]
fn netns_copied(ctx: FExitContext) -> i32 {
    let flags: u64 = ctx.arg(0);
    let net: *const c_void = ctx.arg(3);
    if flags & CLONE_NEWNET == 0 || net.is_null() || net as u64 >= MAX_ERRNO.wrapping_neg() {
        return 0;
    }
    // SAFETY: the verifier knows the return value as a `struct net`.
    let net = unsafe { Ptr::new(net) };
    report(&ctx, kind::NETNS_CREATED, hook::COPY_NET_NS, net, task::current_facts());
    0
}

/// `sched_process_fork(parent, child)`: a child that is not where its parent is was given a new namespace.
#[btf_tracepoint(function = "sched_process_fork")]
fn netns_forked(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the verifier knows both arguments as `task_struct`.
    let (parent, child) = unsafe { (Ptr::new(ctx.arg(0)), Ptr::new(ctx.arg(1))) };
    let net = task::netns(child);
    if net.is_null() || net.address() == task::netns(parent).address() {
        return 0;
    }
    report(&ctx, kind::NETNS_CREATED, hook::FORK, net, task::facts(child));
    0
}

/// `unshare` returned. Whether it was asked for a new namespace is not in this context, and remembering the entry
/// would cost a map: the reader knows the namespaces that there are.
#[tracepoint(name = "sys_exit_unshare", category = "syscalls")]
fn netns_unshared(ctx: TracePointContext) -> i32 {
    // SAFETY: the loader compared the field's place with this kernel's; the verifier knows the context.
    let returned: i64 =
        unsafe { core::ptr::read_volatile(ctx.as_ptr().byte_add(sys_exit::RET.offset).cast()) };
    if returned != 0 {
        return 0;
    }
    let Some(current) = task::current() else { return 0 };
    let net = task::netns(current);
    if !net.is_null() {
        report(&ctx, kind::NETNS_CREATED, hook::UNSHARE, net, task::facts(current));
    }
    0
}

/// `void __put_net(struct net *net)`: the last reference went.
#[fentry(function = "__put_net")]
fn netns_put(ctx: FEntryContext) -> i32 {
    // SAFETY: the verifier knows the argument as a `struct net`.
    let net = unsafe { Ptr::new(ctx.arg(0)) };
    report(&ctx, kind::NETNS_DESTROYED, hook::PUT_NET, net, task::current_facts());
    0
}

/// `workqueue_execute_start(work)`: the work that ends namespaces begins.
#[btf_tracepoint(function = "workqueue_execute_start")]
fn netns_cleanup(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the verifier knows the argument as a `struct work_struct`.
    let work = unsafe { Ptr::new(ctx.arg(0)) };
    let cleanup = CLEANUP_NET.get();
    if cleanup == 0 || work.read::<u64>(&OFF_WORK_FUNC) != Some(cleanup) {
        return 0;
    }
    emit::<NetnsEvent>(kind::NETNS_SOME_DESTROYED, |sample, header| {
        let task = task::current_facts();
        sample.write(NetnsEvent { header, netns_cookie: 0, netns_inode: 0, hook: hook::CLEANUP_NET, task });
    });
    0
}

/// `ctx` is for log lines, in builds with them.
#[inline(always)]
#[cfg_attr(not(feature = "log"), expect(unused_variables, reason = "only log lines need it"))]
fn report(ctx: &impl EbpfContext, kind: u32, hook: u32, net: Ptr, task: Task) {
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        ctx,
        "netns {}: kind {} hook {}",
        net.read::<u32>(&OFF_NET_INUM).unwrap_or(0),
        kind,
        hook
    );
    emit::<NetnsEvent>(kind, |sample, header| {
        sample.write(NetnsEvent {
            header,
            netns_cookie: net.read(&OFF_NET_COOKIE).unwrap_or(0),
            netns_inode: net.read(&OFF_NET_INUM).unwrap_or(0),
            hook,
            task,
        });
    });
}
