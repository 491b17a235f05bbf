//! A network namespace was created, entered or destroyed.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext, TracePointContext};
use xtcp_common::event::{NetnsEvent, Task, hook, kind};
use xtcp_common::offset::ABSENT;
use xtcp_common::tracepoint::sys_exit;

use crate::emit::emit;
use crate::kernel::{
    CLEANUP_NET, Global, OFF_NET_COOKIE, OFF_NET_COUNT, OFF_NET_INUM, OFF_NS_INUM, OFF_WORK_FUNC, Ptr,
};
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

/// How the names of the agent's own threads begin that go from namespace to namespace.
const OWN_VISITORS: &[u8; 10] = b"xtcp-netns";

/// `setns` returned: a namespace that nobody had told of may have been entered, and the task is a way in. Not worth telling
/// of the agent's own visits, two for each request.
#[tracepoint(name = "sys_exit_setns", category = "syscalls")]
fn netns_entered(ctx: TracePointContext) -> i32 {
    // SAFETY: as in `netns_unshared`.
    let returned: i64 =
        unsafe { core::ptr::read_volatile(ctx.as_ptr().byte_add(sys_exit::RET.offset).cast()) };
    if returned != 0 {
        return 0;
    }
    let Some(current) = task::current() else { return 0 };
    let facts = task::facts(current);
    let own = OWN_VISITORS.iter().zip(facts.comm).all(|(name, comm)| *name == comm);
    let net = task::netns(current);
    if !own && !net.is_null() {
        report(&ctx, kind::NETNS_ENTERED, hook::SETNS, net, facts);
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

/// `void netns_put(struct ns_common *ns)`: a file of the namespace was closed or unmounted (nsfs). It lies beside
/// `__put_net` and compilers put a copy of that into it, which no hook sees: Debian's in 5.10 to 7.3 do. Two that drop
/// the last two references at once may both find none left; the reader takes the second for what it is.
#[fexit(function = "netns_put")]
fn netns_file_put(ctx: FExitContext) -> i32 {
    let ns: *const u8 = ctx.arg(0);
    if beside::<i32>(ns, &OFF_NET_COUNT) != Some(0) {
        return 0;
    }
    emit::<NetnsEvent>(kind::NETNS_DESTROYED, |sample, header| {
        sample.write(NetnsEvent {
            header,
            netns_cookie: beside(ns, &OFF_NET_COOKIE).unwrap_or(0),
            netns_inode: beside(ns, &OFF_NET_INUM).unwrap_or(0),
            hook: hook::PUT_NET,
            task: task::current_facts(),
        });
    });
    0
}

/// A field of the `struct net` in which `ns` lies: the verifier knows only what is in `ns` itself. `None` when this
/// kernel has no such field.
#[inline(always)]
fn beside<T>(ns: *const u8, field: &Global<u32>) -> Option<T> {
    let (field, inum, ns_inum) = (field.get(), OFF_NET_INUM.get(), OFF_NS_INUM.get());
    if field == ABSENT || inum == ABSENT || ns_inum == ABSENT {
        return None;
    }
    let net = ns.wrapping_sub((inum - ns_inum) as usize);
    // SAFETY: the helper fails where it cannot read. A namespace's memory outlives this call, because its end waits for
    // running readers; and if it were another's by now, that would have references. Where lockdown refuses this helper,
    // it refuses fexit, too.
    unsafe { bpf_probe_read_kernel(net.wrapping_add(field as usize).cast()) }.ok()
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
