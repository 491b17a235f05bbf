//! The states that a socket went through.

/// At most 15 states, oldest first: the longest path of a real socket has seven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    states: [u8; 15],
    len: u8,
    truncated: bool,
}

impl Path {
    /// Adds a state at the end; past the fifteenth it is left out and [`is_truncated`](Self::is_truncated) says so.
    pub fn push(&mut self, state: u8) {
        match self.states.get_mut(usize::from(self.len)) {
            Some(slot) => {
                *slot = state;
                self.len += 1;
            }
            None => self.truncated = true,
        }
    }

    /// States in order, numbered as in the kernel's `net/tcp_states.h`.
    pub fn states(&self) -> &[u8] {
        self.states.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether there is no state.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether states are missing for want of room.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }
}
