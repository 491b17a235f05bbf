//! The answer to one request, message by message.
//!
//! Owns when an answer is over and how. Several answers may come in one stream, their messages mixed: whoever reads
//! one keeps an [`Answer`] for each (protocol, port id, sequence number) and gives it that key's messages.

use super::{Body, Message};

/// How far the answer to one request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The request was a dump: rows up to `NLMSG_DONE`. Else one row, or an error.
    dump: bool,
    interrupted: bool,
    damaged: bool,
    ending: Option<Ending>,
}

/// What a message meant to the answer that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A row, for [`crate::message::decode`].
    Row(&'a [u8]),
    /// A control message: see [`Answer::ending`].
    Control,
    /// It cannot belong here: no inet_diag row, or the answer was over. To be counted and forgotten.
    Foreign,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing is missing.
    Complete,
    /// The table changed under the dump, which may lack entries or have them twice (`NLM_F_DUMP_INTR` on any of its
    /// messages). Asking again may help.
    Interrupted,
    /// A part of it was lost on the way: [`Answer::damage`]. Asking again may help.
    Damaged,
    /// The kernel lost data (`NLMSG_OVERRUN`). Asking again may help.
    Overrun,
    /// `NLMSG_ERROR`, or an `NLMSG_DONE` whose status is not 0.
    Refused {
        /// The errno, positive.
        errno: i32,
    },
    /// A control message that says nothing, or one that such an answer does not have.
    Malformed,
}

impl Answer {
    /// To a request with `NLM_F_DUMP`.
    pub const fn to_dump() -> Self {
        Self { dump: true, interrupted: false, damaged: false, ending: None }
    }

    /// To a request for one socket.
    pub const fn to_lookup() -> Self {
        Self { dump: false, ..Self::to_dump() }
    }

    /// Takes the next message whose sequence number and port id are this answer's.
    pub fn take<'a>(&mut self, message: &Message<'a>) -> Step<'a> {
        if self.ending.is_some() {
            return Step::Foreign;
        }
        self.interrupted |= message.is_dump_interrupted();
        let (step, ending) = match message.body {
            Body::Data { .. } if !message.is_socket() => (Step::Foreign, None),
            Body::Data { payload } => (Step::Row(payload), (!self.dump).then(|| self.told())),
            // Errno 0 is an acknowledgement; it comes beside what was asked for.
            Body::Noop | Body::Error { errno: 0, .. } => (Step::Control, None),
            Body::Error { errno, .. } => (Step::Control, Some(Ending::Refused { errno })),
            Body::Done { status: 0, .. } if self.dump => (Step::Control, Some(self.told())),
            Body::Done { status, .. } if self.dump => {
                (Step::Control, Some(Ending::Refused { errno: status.saturating_neg() }))
            }
            Body::Overrun => (Step::Control, Some(Ending::Overrun)),
            Body::Done { .. } | Body::Malformed => (Step::Control, Some(Ending::Malformed)),
        };
        self.ending = ending;
        step
    }

    /// Notes that a datagram with messages of this answer could not be read to its end: cut off, or damaged. What
    /// else comes is still of use, but it is not all.
    pub fn damage(&mut self) {
        self.damaged = true;
    }

    /// How it ended; `None` while more is to come.
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// The end of an answer in which all was said that the kernel meant to say.
    const fn told(&self) -> Ending {
        match (self.damaged, self.interrupted) {
            (true, _) => Ending::Damaged,
            (false, true) => Ending::Interrupted,
            (false, false) => Ending::Complete,
        }
    }
}
