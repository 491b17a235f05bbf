//! The filter of a destination, over rows.
//!
//! A row says less than the kernel knows: what is 0 in it may be unknown, and counts as 0; addresses are as the row has
//! them, masked where they were masked.

use std::fmt;
use std::time::{Duration, Instant};

use xtcp_inet_diag::bytecode::{Program, Verdict};
use xtcp_inet_diag::state::{State, States};

use super::facts::Facts;
use crate::selection::SocketFilter;

/// How long a cgroup's id is taken for its path's.
const FRESH: Duration = Duration::from_secs(10);

/// Says what of a filter no row can tell.
pub(super) fn check(filter: &SocketFilter) -> Result<(), &'static str> {
    if filter.names_interfaces() {
        return Err(
            "rows have an interface's index, not its name, which each namespace gives anew: write the index",
        );
    }
    if program(filter).tests_autobound() {
        return Err("no row tells whether a port was bound automatically");
    }
    Ok(())
}

fn program(filter: &SocketFilter) -> Box<Program> {
    Box::new(filter.compile(&|_| None))
}

/// A filter that is ready.
pub(super) struct Judge {
    filter: SocketFilter,
    states: Option<States>,
    program: Box<Program>,
    /// When it was compiled, if that depends on what there is.
    compiled: Option<Instant>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Judge").field(&self.filter.to_string()).finish()
    }
}

impl Judge {
    pub(super) fn new(filter: SocketFilter) -> Self {
        let program = program(&filter);
        let compiled = filter.depends_on_names().then(Instant::now);
        Self { states: filter.states(), filter, program, compiled }
    }

    pub(super) fn passes(&mut self, facts: &Facts) -> bool {
        // Cgroups come and go.
        if self.compiled.is_some_and(|compiled| compiled.elapsed() >= FRESH) {
            *self = Self::new(self.filter.clone());
        }
        let state = u8::try_from(facts.state).ok().and_then(State::from_raw);
        let in_states = |states: States| state.is_some_and(|state| states.contains(state));
        self.states.is_none_or(in_states)
            && (self.program.is_empty() || self.program.judge(&facts.subject) == Verdict::Pass)
    }
}
