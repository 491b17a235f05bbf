//! Who owns a socket, as far as a transition's own context tells.

use xtcp_common::event::{TcpState as Transition, kind, socket, task};
use xtcp_proto::event::v1::{OwnerSource, TcpState as State};

use super::is;

/// A process, and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Command name, NUL-padded.
    pub comm: [u8; 16],
    /// Where this was learnt.
    pub source: OwnerSource,
    /// The signal that is ending the process; 0 if none or if it is not ending.
    pub exit_signal: u32,
}

impl Owner {
    /// The command name as text; bytes that are not UTF-8 are replaced.
    pub fn comm(&self) -> String {
        comm_text(&self.comm)
    }
}

/// A NUL-padded command name as text; bytes that are not UTF-8 are replaced.
pub fn comm_text(comm: &[u8; 16]) -> String {
    let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// The owner, if this transition happens in a call of its own process. Everywhere else the current task is whoever the
/// packet interrupted.
pub(super) fn of_transition(seen: &Transition) -> Option<Owner> {
    let source = source(seen)?;
    let current = &seen.task;
    if current.tgid == 0 || current.flags & task::KTHREAD != 0 {
        return None;
    }
    let exiting = current.flags & task::EXITING != 0;
    let source = if exiting && source == OwnerSource::Close { OwnerSource::Exit } else { source };
    let exit_signal = if exiting { current.exit_code & 0x7f } else { 0 };
    Some(Owner { pid: current.tgid, comm: current.comm, source, exit_signal })
}

fn source(seen: &Transition) -> Option<OwnerSource> {
    let old = State::try_from(i32::from(seen.old_state)).ok()?;
    let new = State::try_from(i32::from(seen.new_state)).ok()?;
    let classic = seen.flags & socket::CLASSIC != 0;
    match (old, new) {
        _ if classic || seen.flags & socket::MPTCP != 0 => None,
        (State::Close, State::SynSent) => Some(OwnerSource::Connect),
        (State::Close, State::Listen) => Some(OwnerSource::Listen),
        // close(), shutdown() and the end of the process send the FIN; nothing else does.
        (_, State::FinWait1 | State::LastAck) | (State::Listen, State::Close) => Some(OwnerSource::Close),
        (_, State::Close) if seen.header.kind == kind::TCP_CLOSE && closes_in_its_own_call(seen, old) => {
            Some(OwnerSource::Close)
        }
        _ => None,
    }
}

/// A transition to CLOSE without an error, of a socket that still has its file, comes from `close()` or `connect()` of
/// the process: what the network ends sets an error or has gone through FIN. A child that was never accepted has no
/// file and ends in its listener's `close()`.
fn closes_in_its_own_call(seen: &Transition, old: State) -> bool {
    let facts = seen.flags & socket::FACTS != 0;
    let has_file = seen.flags & socket::HAS_FILE != 0;
    let dead = seen.flags & socket::DEAD != 0;
    let open = matches!(old, State::Established | State::CloseWait | State::SynSent);
    facts && seen.sk_err == 0 && open && (has_file || (!dead && !is(seen.old_state, State::SynSent)))
}
