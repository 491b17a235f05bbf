//! Which hooks can tell each fact, best first. Data only.

use super::{Fact, Rung, RungInfo};

const LADDER: &[RungInfo] = &[
    RungInfo {
        fact: Fact::TcpState,
        rung: Rung::TcpStateBtf,
        step: 0,
        companion: false,
        program: "tcp_state",
        hook: "tp_btf/inet_sock_set_state",
        lacks: "",
    },
    RungInfo {
        fact: Fact::TcpState,
        rung: Rung::TcpStateClassic,
        step: 1,
        companion: false,
        program: "tcp_state_classic",
        hook: "tracepoint/sock/inet_sock_set_state",
        lacks: "network namespace, cookies, cgroup, error, owner's uid, last numbers",
    },
    RungInfo {
        fact: Fact::NetnsCreated,
        rung: Rung::CopyNetNs,
        step: 0,
        companion: false,
        program: "netns_copied",
        hook: "fexit/copy_net_ns",
        lacks: "",
    },
    RungInfo {
        fact: Fact::NetnsCreated,
        rung: Rung::Fork,
        step: 1,
        companion: true,
        program: "netns_forked",
        hook: "tp_btf/sched_process_fork",
        lacks: "",
    },
    RungInfo {
        fact: Fact::NetnsCreated,
        rung: Rung::Unshare,
        step: 1,
        companion: false,
        program: "netns_unshared",
        hook: "tracepoint/syscalls/sys_exit_unshare",
        lacks: "whether the namespace is new or the caller kept its own",
    },
    RungInfo {
        fact: Fact::NetnsDestroyed,
        rung: Rung::PutNet,
        step: 0,
        companion: false,
        program: "netns_put",
        hook: "fentry/__put_net",
        lacks: "",
    },
    RungInfo {
        fact: Fact::NetnsDestroyed,
        rung: Rung::NetnsPut,
        step: 0,
        companion: false,
        program: "netns_file_put",
        hook: "fexit/netns_put",
        lacks: "",
    },
    RungInfo {
        fact: Fact::NetnsDestroyed,
        rung: Rung::CleanupNet,
        step: 1,
        companion: false,
        program: "netns_cleanup",
        hook: "tp_btf/workqueue_execute_start",
        lacks: "which namespace died",
    },
    RungInfo {
        fact: Fact::NetnsEntered,
        rung: Rung::Setns,
        step: 0,
        companion: false,
        program: "netns_entered",
        hook: "tracepoint/syscalls/sys_exit_setns",
        lacks: "",
    },
];

/// Every rung of every fact's ladder, best first within a fact.
pub fn ladder() -> &'static [RungInfo] {
    LADDER
}

/// The rungs of one fact that are used although a step before theirs is.
pub(super) fn companions(fact: Fact, used: u8) -> impl Iterator<Item = &'static RungInfo> {
    LADDER.iter().filter(move |rung| rung.fact == fact && rung.step > used && rung.companion)
}

/// The rungs of one fact that are used together at `step`; empty past the ladder's end.
pub(super) fn step(fact: Fact, step: u8) -> impl Iterator<Item = &'static RungInfo> {
    LADDER.iter().filter(move |rung| rung.fact == fact && rung.step == step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_has_a_first_step_and_no_gap() {
        for fact in [Fact::TcpState, Fact::NetnsCreated, Fact::NetnsDestroyed, Fact::NetnsEntered] {
            let last = LADDER.iter().filter(|row| row.fact == fact).map(|row| row.step).max();
            let last = last.expect("a fact without any rung");
            assert!((0..=last).all(|at| step(fact, at).next().is_some()), "{fact:?} has a gap");
        }
    }

    #[test]
    fn a_rung_stands_in_the_ladder_once() {
        for row in LADDER {
            assert_eq!(LADDER.iter().filter(|other| other.rung == row.rung).count(), 1, "{:?}", row.rung);
        }
    }
}
