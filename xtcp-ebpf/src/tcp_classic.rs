//! A TCP socket changed state, seen by the classic tracepoint: where the kernel offers no BTF tracepoint. Its context
//! has addresses, ports and states, and the socket is only a number.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use xtcp_common::counter;
use xtcp_common::event::{Header, TcpClose, TcpNumbers, TcpState, kind, socket};
use xtcp_common::tracepoint::{Field, sock_state};

use crate::emit::{count, emit};
use crate::kernel::bytes;
use crate::task;
use crate::tcp_state::{
    AF_INET6, CLOSE, IPPROTO_MPTCP, Transition, ports_pass, protocol_passes, state_passes,
};

#[tracepoint(name = "inet_sock_set_state", category = "sock")]
fn tcp_state_classic(ctx: TracePointContext) -> i32 {
    let ctx = Context(ctx.as_ptr());
    let change =
        Transition { old: ctx.read::<u32>(sock_state::OLDSTATE), new: ctx.read::<u32>(sock_state::NEWSTATE) };
    let protocol = ctx.read(sock_state::PROTOCOL);
    let (source, destination) = (ctx.read(sock_state::SPORT), ctx.read(sock_state::DPORT));
    if !protocol_passes(protocol) || !state_passes(change) || !ports_pass(change, source, destination) {
        return 0;
    }
    if change.new == CLOSE {
        count(counter::NO_TCP_SOCK);
        emit::<TcpClose>(kind::TCP_CLOSE, |sample, header| {
            sample.write(TcpClose { state: ctx.state(header, change), numbers: TcpNumbers::default() });
        });
    } else {
        emit::<TcpState>(kind::TCP_STATE, |sample, header| {
            sample.write(ctx.state(header, change));
        });
    }
    0
}

/// The tracepoint's context.
#[derive(Clone, Copy)]
struct Context(*mut c_void);

impl Context {
    #[inline(always)]
    fn read<T: Copy>(self, field: Field) -> T {
        self.read_behind(field, 0)
    }

    #[inline(always)]
    fn read_behind<T: Copy>(self, field: Field, behind: usize) -> T {
        // SAFETY: the loader compared the field's place with this kernel's, and the verifier checks that it lies in
        // the context. Volatile, so that neighbours are not merged into one access of another alignment.
        unsafe { core::ptr::read_volatile(self.0.byte_add(field.offset + behind).cast()) }
    }

    #[inline(always)]
    fn address(self, v4: Field, v6: Field, family: u16) -> [u8; 16] {
        if family == AF_INET6 {
            bytes([self.read_behind(v6, 0), self.read_behind(v6, 8)])
        } else {
            bytes([u64::from(self.read::<u32>(v4)), 0])
        }
    }

    #[inline(always)]
    fn state(self, header: Header, change: Transition) -> TcpState {
        let family = self.read(sock_state::FAMILY);
        let protocol = self.read(sock_state::PROTOCOL);
        let mptcp = if protocol == IPPROTO_MPTCP { socket::MPTCP } else { 0 };
        TcpState {
            header,
            sk: self.read(sock_state::SKADDR),
            cookie: 0,
            netns_cookie: 0,
            cgroup_id: 0,
            netns_inode: 0,
            bound_if: 0,
            sk_err: 0,
            flags: socket::CLASSIC | mptcp,
            family,
            protocol,
            source_port: self.read(sock_state::SPORT),
            destination_port: self.read(sock_state::DPORT),
            old_state: change.old as u8,
            new_state: change.new as u8,
            shutdown: 0,
            pad: 0,
            uid: u32::MAX,
            source: self.address(sock_state::SADDR, sock_state::SADDR_V6, family),
            destination: self.address(sock_state::DADDR, sock_state::DADDR_V6, family),
            task: task::current_facts(),
        }
    }
}
