//! TCP states: the kernel's numbers (`include/net/tcp_states.h`) and the words that `ss` uses.

use core::fmt;
use core::ops::BitOr;

/// A TCP state with the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// `TCP_ESTABLISHED`.
    Established = 1,
    /// `TCP_SYN_SENT`.
    SynSent = 2,
    /// `TCP_SYN_RECV`. Request sockets are shown in it too.
    SynRecv = 3,
    /// `TCP_FIN_WAIT1`.
    FinWait1 = 4,
    /// `TCP_FIN_WAIT2`. Also a time-wait socket whose peer has not sent its FIN yet.
    FinWait2 = 5,
    /// `TCP_TIME_WAIT`.
    TimeWait = 6,
    /// `TCP_CLOSE`. Rows of bound but unconnected sockets are shown in it.
    Close = 7,
    /// `TCP_CLOSE_WAIT`.
    CloseWait = 8,
    /// `TCP_LAST_ACK`.
    LastAck = 9,
    /// `TCP_LISTEN`.
    Listen = 10,
    /// `TCP_CLOSING`.
    Closing = 11,
    /// `TCP_NEW_SYN_RECV`, a request socket. Since Linux 4.1. inet_diag never answers with it: a request
    /// socket's row says [`State::SynRecv`].
    NewSynRecv = 12,
    /// `TCP_BOUND_INACTIVE`, bound and neither listening nor connected. Since Linux 6.8, and only to select
    /// by: the row says [`State::Close`].
    BoundInactive = 13,
}

/// All states in the kernel's order.
const STATES: [State; 13] = [
    State::Established,
    State::SynSent,
    State::SynRecv,
    State::FinWait1,
    State::FinWait2,
    State::TimeWait,
    State::Close,
    State::CloseWait,
    State::LastAck,
    State::Listen,
    State::Closing,
    State::NewSynRecv,
    State::BoundInactive,
];

impl State {
    /// The state of this number; `None` for one that no kernel known so far has.
    pub fn from_raw(raw: u8) -> Option<Self> {
        STATES.into_iter().find(|state| *state as u8 == raw)
    }

    /// The kernel's number, 1 to 13.
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// The word that `ss` uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn-sent",
            Self::SynRecv => "syn-recv",
            Self::FinWait1 => "fin-wait-1",
            Self::FinWait2 => "fin-wait-2",
            Self::TimeWait => "time-wait",
            Self::Close => "closed",
            Self::CloseWait => "close-wait",
            Self::LastAck => "last-ack",
            Self::Listen => "listening",
            Self::Closing => "closing",
            Self::NewSynRecv => "new-syn-recv",
            Self::BoundInactive => "bound-inactive",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A set of states, as `idiag_states` holds it: bit *n* is state *n*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct States(u32);

/// What a user may write, and what it selects.
const WORDS: &[(&str, States)] = &[
    ("established", States::one(State::Established)),
    ("syn-sent", States::one(State::SynSent)),
    ("syn-recv", States::one(State::SynRecv)),
    ("fin-wait-1", States::one(State::FinWait1)),
    ("fin-wait-2", States::one(State::FinWait2)),
    ("time-wait", States::one(State::TimeWait)),
    ("closed", States::one(State::Close)),
    ("unconnected", States::one(State::Close)),
    ("close-wait", States::one(State::CloseWait)),
    ("last-ack", States::one(State::LastAck)),
    ("listening", States::one(State::Listen)),
    ("closing", States::one(State::Closing)),
    ("new-syn-recv", States::one(State::NewSynRecv)),
    ("bound-inactive", States::one(State::BoundInactive)),
    ("syn-rcv", States::one(State::SynRecv)),
    ("close", States::one(State::Close)),
    ("listen", States::one(State::Listen)),
    ("all", States::ALL),
    ("connected", States::CONNECTED),
    ("synchronized", States::SYNCHRONIZED),
    ("bucket", States::BUCKET),
    ("big", States::BIG),
];

impl States {
    /// No state.
    pub const NONE: Self = Self(0);
    /// Every state, bound-inactive included, which makes the kernel (6.8+) walk its bind hash too.
    pub const ALL: Self = Self(0x3ffe);
    /// All but listening, closed and bound-inactive.
    pub const CONNECTED: Self = Self::ALL
        .without(Self::one(State::Listen))
        .without(Self::one(State::Close))
        .without(Self::one(State::BoundInactive));
    /// All connected but syn-sent.
    pub const SYNCHRONIZED: Self = Self::CONNECTED.without(Self::one(State::SynSent));
    /// Kept as mini-sockets: time-wait and syn-recv.
    pub const BUCKET: Self = Self::one(State::TimeWait).union(Self::one(State::SynRecv));
    /// All that are not [`States::BUCKET`].
    pub const BIG: Self = Self::ALL.without(Self::BUCKET);
    /// All but time-wait and bound-inactive: what a poll asks for unless told otherwise.
    pub const DEFAULT: Self =
        Self::ALL.without(Self::one(State::TimeWait)).without(Self::one(State::BoundInactive));

    /// The set that selects one state. Both forms of a half-open connection go together: since Linux 4.1
    /// nearly all of them are request sockets in `TCP_NEW_SYN_RECV`, which are then shown as `SYN_RECV`.
    pub const fn one(state: State) -> Self {
        match state {
            State::SynRecv | State::NewSynRecv => {
                Self(1 << State::SynRecv.raw() | 1 << State::NewSynRecv.raw())
            }
            other => Self(1 << other.raw()),
        }
    }

    /// A set from the kernel's bits, as they are.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The kernel's bits (`idiag_states`).
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set less the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// No state is selected.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The state is selected.
    pub const fn contains(self, state: State) -> bool {
        self.0 & 1 << state.raw() != 0
    }

    /// A row whose header shows this state number can be an answer to this set. A row never says
    /// bound-inactive but closed.
    pub fn shows(self, raw: u8) -> bool {
        State::from_raw(raw).is_some_and(|state| {
            self.contains(state) || state == State::Close && self.contains(State::BoundInactive)
        })
    }

    /// Parses a list of words separated by commas, such as `established,close-wait` or `big`. Space round
    /// words and upper case are allowed; an empty list is [`States::NONE`].
    pub fn parse(list: &str) -> Result<Self, UnknownState<'_>> {
        list.split(',').map(str::trim).filter(|word| !word.is_empty()).try_fold(Self::NONE, |set, word| {
            match WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)) {
                Some((_, states)) => Ok(set | *states),
                None => Err(UnknownState { word }),
            }
        })
    }

    /// Every word that [`States::parse`] knows.
    pub fn words() -> impl Iterator<Item = &'static str> {
        WORDS.iter().map(|(word, _)| *word)
    }
}

impl BitOr for States {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl From<State> for States {
    fn from(state: State) -> Self {
        Self::one(state)
    }
}

/// The list of words that [`States::parse`] reads back to the same set.
impl fmt::Display for States {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return formatter.write_str("all");
        }
        let mut separator = "";
        for state in STATES.into_iter().filter(|state| self.contains(*state)) {
            if state == State::NewSynRecv && self.contains(State::SynRecv) {
                continue;
            }
            write!(formatter, "{separator}{state}")?;
            separator = ",";
        }
        Ok(())
    }
}

/// A word that names no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownState<'a> {
    /// The word as written.
    pub word: &'a str,
}

impl fmt::Display for UnknownState<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unknown TCP state '{}'; known are", self.word)?;
        for (index, word) in States::words().enumerate() {
            write!(formatter, "{} {word}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownState<'_> {}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn selecting_syn_recv_selects_request_sockets_too() {
        for word in ["syn-recv", "new-syn-recv", "SYN-RECV"] {
            assert_eq!(States::parse(word).unwrap().bits(), 1 << 3 | 1 << 12);
        }
    }

    #[test]
    fn groups_are_what_ss_makes_of_them() {
        let parse = |word| States::parse(word).unwrap();
        assert_eq!(parse("all").bits(), 0x3ffe);
        assert_eq!(parse("bucket"), parse("syn-recv,time-wait"));
        assert_eq!(parse("big") | parse("bucket"), parse("all"));
        assert_eq!(parse("connected"), parse("all").without(parse("listening,closed,bound-inactive")));
        assert_eq!(parse("synchronized"), parse("connected").without(parse("syn-sent")));
        assert_eq!(parse(" established , listening,").bits(), 1 << 1 | 1 << 10);
        assert!(parse("").is_empty());
        assert_eq!(States::DEFAULT.bits(), 0x3ffe & !(1 << 6) & !(1 << 13));
    }

    #[test]
    fn an_unknown_word_is_named_with_all_that_are_known() {
        let message = States::parse("established,opened").unwrap_err().to_string();
        assert!(message.starts_with("unknown TCP state 'opened'; known are established, syn-sent,"));
        for word in States::words() {
            assert!(message.contains(word), "{word}");
        }
    }

    #[test]
    fn what_is_displayed_parses_to_the_same_set() {
        for (_, states) in WORDS {
            assert_eq!(States::parse(&states.to_string()), Ok(*states));
        }
        assert_eq!(States::BUCKET.to_string(), "syn-recv,time-wait");
    }

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(State::from_raw(0), None);
        assert_eq!(State::from_raw(14), None);
        for raw in 1..=13 {
            assert_eq!(State::from_raw(raw).unwrap().raw(), raw);
        }
        assert_eq!(State::Listen.raw(), 10);
        assert!(States::from(State::BoundInactive).shows(7));
        assert!(!States::from(State::Listen).shows(7));
    }
}
