//! Which ports the operator wants to see. The kernel side lets pass what it cannot judge yet; here it waits until its
//! socket's next transition, which the kernel side judges with both ports.

use xtcp_common::event::{TcpState as Transition, kind};

use super::transitions::State;

/// Ports to include and to exclude; without any everything passes.
#[derive(Clone, Debug, Default)]
pub struct PortFilter {
    /// Only sockets with one of these, local or remote; empty for all.
    pub include: Vec<u16>,
    /// No socket with one of these.
    pub exclude: Vec<u16>,
}

/// What becomes of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is wanted.
    Pass,
    /// It is not.
    Drop,
    /// A port that decides is not known yet.
    Wait,
}

impl PortFilter {
    /// A port of 0 is one that the socket does not have yet; a listener never has a remote one, and who ends without a
    /// port never will.
    pub(super) fn verdict(&self, seen: &Transition) -> Verdict {
        let has = |ports: &[u16]| ports.contains(&seen.source_port) || ports.contains(&seen.destination_port);
        let final_ports = seen.new_state == State::LISTEN || seen.header.kind == kind::TCP_CLOSE;
        let unknown = !final_ports && (seen.source_port == 0 || seen.destination_port == 0);
        let included = self.include.is_empty() || has(&self.include);
        if has(&self.exclude) || (!included && !unknown) {
            Verdict::Drop
        } else if unknown && !(included && self.exclude.is_empty()) {
            Verdict::Wait
        } else {
            Verdict::Pass
        }
    }
}

#[cfg(test)]
mod tests {
    use xtcp_common::event::Header;

    use super::*;

    fn verdict(include: &[u16], exclude: &[u16], ports: (u16, u16), new_state: u8) -> Verdict {
        let filter = PortFilter { include: include.to_vec(), exclude: exclude.to_vec() };
        let kind = if new_state == 7 { kind::TCP_CLOSE } else { kind::TCP_STATE };
        let header = Header { kind, ..Header::default() };
        let (source_port, destination_port) = ports;
        filter.verdict(&Transition {
            header,
            source_port,
            destination_port,
            new_state,
            ..Transition::default()
        })
    }

    #[test]
    fn a_transition_waits_only_while_a_port_that_decides_is_unknown() {
        const SYN_SENT: u8 = 2;
        assert_eq!(verdict(&[], &[], (0, 80), SYN_SENT), Verdict::Pass);
        assert_eq!(verdict(&[80], &[], (0, 80), SYN_SENT), Verdict::Pass);
        assert_eq!(verdict(&[443], &[], (0, 80), SYN_SENT), Verdict::Wait);
        assert_eq!(verdict(&[443], &[], (4000, 80), 1), Verdict::Drop);
        assert_eq!(verdict(&[4000], &[], (4000, 80), 1), Verdict::Pass);
        assert_eq!(verdict(&[], &[80], (0, 80), SYN_SENT), Verdict::Drop);
        assert_eq!(verdict(&[], &[4000], (0, 80), SYN_SENT), Verdict::Wait);
        assert_eq!(verdict(&[], &[4000], (4000, 80), 1), Verdict::Drop);
        assert_eq!(verdict(&[80], &[4000], (0, 80), SYN_SENT), Verdict::Wait);
    }

    #[test]
    fn listeners_and_the_closed_are_judged_by_the_ports_that_they_have() {
        assert_eq!(verdict(&[80], &[], (80, 0), State::LISTEN), Verdict::Pass);
        assert_eq!(verdict(&[443], &[], (80, 0), State::LISTEN), Verdict::Drop);
        assert_eq!(verdict(&[443], &[], (0, 80), 7), Verdict::Drop);
        assert_eq!(verdict(&[], &[443], (0, 80), 7), Verdict::Pass);
    }
}
