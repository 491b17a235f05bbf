//! How a socket ended, told from its last transition and what was known before it.

use nix::errno::Errno;
use xtcp_common::event::{TcpState as Transition, socket};
use xtcp_proto::event::v1::{CloseReason, OpenedBy, OwnerSource, TcpState as State};

use super::Owner;

/// Why the socket went to CLOSE. `closer` is whoever closed it or shut it down, if that was seen.
///
/// The kernel sets `sk_err` before the transition when a reset (`tcp_reset`), a timeout (`tcp_write_err`), an ICMP
/// error (`tcp_v4_err`) or SOCK_DESTROY (`tcp_abort`) ends a socket, and leaves it 0 when a process does.
pub(super) fn reason(seen: &Transition, opened_by: OpenedBy, closer: Option<Owner>) -> CloseReason {
    let Ok(old) = State::try_from(i32::from(seen.old_state)) else {
        return CloseReason::Unspecified;
    };
    if seen.flags & socket::MPTCP != 0 {
        return CloseReason::Mptcp;
    }
    if old == State::Listen {
        return CloseReason::ListenerClosed;
    }
    if seen.sk_err != 0 {
        return of_error(seen.sk_err, old);
    }
    let exited = closer.is_some_and(|closer| closer.source == OwnerSource::Exit);
    let facts = seen.flags & socket::FACTS != 0;
    match old {
        State::LastAck => CloseReason::PeerFin,
        State::FinWait1 if !facts => CloseReason::Unspecified,
        // Closed, and its FIN not yet acknowledged: the kernel gave up an orphan for want of memory.
        State::FinWait1 => CloseReason::Destroyed,
        State::FinWait2 | State::TimeWait if exited => CloseReason::ProcessExit,
        State::FinWait2 | State::TimeWait => CloseReason::LocalFin,
        State::Closing => CloseReason::SimultaneousFin,
        _ if !facts => CloseReason::Unspecified,
        State::SynSent if exited => CloseReason::ProcessExit,
        State::SynSent => CloseReason::ConnectAbandoned,
        State::Established | State::CloseWait | State::SynRecv | State::NewSynRecv => {
            without_fin(seen, opened_by, exited)
        }
        State::Unspecified | State::Close | State::Listen | State::BoundInactive => CloseReason::Unspecified,
    }
}

/// An established connection that ends at once, without an error, is thrown away by a process: its own, or its
/// listener's while it waits to be accepted (`inet_csk_listen_stop`).
fn without_fin(seen: &Transition, opened_by: OpenedBy, exited: bool) -> CloseReason {
    let has_file = seen.flags & socket::HAS_FILE != 0;
    let dead = seen.flags & socket::DEAD != 0;
    if !has_file && !dead && opened_by != OpenedBy::Local {
        CloseReason::NeverAccepted
    } else if exited {
        CloseReason::ProcessExit
    } else {
        CloseReason::LocalReset
    }
}

fn of_error(sk_err: u32, old: State) -> CloseReason {
    match Errno::from_raw(i32::try_from(sk_err).unwrap_or(0)) {
        Errno::ECONNREFUSED => CloseReason::Refused,
        Errno::ECONNRESET => CloseReason::PeerReset,
        // tcp_reset() of a socket whose peer had sent FIN before.
        Errno::EPIPE if old == State::CloseWait => CloseReason::PeerReset,
        Errno::ETIMEDOUT => CloseReason::TimedOut,
        Errno::EHOSTUNREACH
        | Errno::ENETUNREACH
        | Errno::EHOSTDOWN
        | Errno::ENETDOWN
        | Errno::ENOPROTOOPT
        | Errno::EACCES => CloseReason::Unreachable,
        Errno::ECONNABORTED => CloseReason::Destroyed,
        _ => CloseReason::Error,
    }
}
