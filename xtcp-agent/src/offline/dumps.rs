//! Which request each captured message answers, and which number each dump has.
//!
//! Dumps are counted from 1 in the order of their requests. An answer belongs to the dump that is open for its port id
//! and sequence number; else to the oldest unanswered request of that sequence number that names this port id, or names
//! none, as most do, and fits it (message type, family, all or one). Answers of a dump whose request is not in the capture
//! take the next number when the first of them is seen. What no dump gave has the number 0: exact lookups, and notices
//! of destroyed sockets. Pure; holds a bounded number of requests.

use std::collections::{BTreeMap, HashMap, VecDeque};

use xtcp_inet_diag::framing::{Body, Header, Message, NLM_F_REQUEST, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK};
use xtcp_inet_diag::socket_id::Family;

use super::request::{DCCPDIAG_GETSOCK, Request};

/// Dumps under way, and unanswered requests, at most. Where there are more they are all taken to be without an end.
const MOST_OPEN: usize = 1 << 16;

/// Where a row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Number of its dump; 0 for none.
    pub(super) dump: u64,
    /// When it was asked for, else when the first answer came; nanoseconds since the epoch.
    pub(super) timestamp_ns: i64,
    /// IP protocol that was asked for (MPTCP is 262: its INFO is another struct); `None` when not known.
    pub(super) protocol: Option<u16>,
    /// It answers an exact request.
    pub(super) lookup: bool,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// `inet_diag` dumps.
    pub(super) dumps: u64,
    /// Of these, changed while they were under way (`NLM_F_DUMP_INTR`).
    pub(super) interrupted: u64,
    /// Of these, neither `NLMSG_DONE` nor an error ended them.
    pub(super) without_end: u64,
    /// Errors that answered dumps and lookups, by errno.
    pub(super) errors: BTreeMap<i32, u64>,
    /// Times that the kernel said that it lost answers.
    pub(super) overruns: u64,
    /// Errors too short to say which.
    pub(super) malformed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    request: Request,
    /// Port id in the request; 0 for none.
    port: u32,
    origin: Origin,
    interrupted: bool,
}

/// The conversations of one capture.
#[derive(Debug, Default)]
pub(super) struct Dumps {
    /// Port id and sequence number of the answers → dump under way.
    open: HashMap<(u32, u32), Asked>,
    /// Sequence number → requests that no answer was seen to, in order.
    pending: HashMap<u32, VecDeque<Asked>>,
    waiting: usize,
    counts: Counts,
}

impl Dumps {
    /// Takes in a message of `NETLINK_SOCK_DIAG`; a row's payload with where it comes from.
    pub(super) fn take<'m>(
        &mut self,
        timestamp_ns: i64,
        message: &Message<'m>,
    ) -> Option<(Origin, &'m [u8])> {
        if message.header.flags & NLM_F_REQUEST != 0 {
            self.asked(timestamp_ns, message);
            return None;
        }
        self.answered(timestamp_ns, message)
    }

    /// The end of the capture.
    pub(super) fn finish(mut self) -> Counts {
        self.give_up();
        self.counts
    }

    fn asked(&mut self, timestamp_ns: i64, message: &Message<'_>) {
        let Some(request) = Request::of(message) else { return };
        let dump = if request.inet && request.dump { self.next_dump() } else { 0 };
        if self.waiting >= MOST_OPEN {
            self.give_up();
        }
        let Header { seq, pid, .. } = message.header;
        let (protocol, lookup) = (Some(request.protocol), !request.dump);
        let origin = Origin { dump, timestamp_ns, protocol, lookup };
        let asked = Asked { request, port: pid, origin, interrupted: false };
        self.pending.entry(seq).or_default().push_back(asked);
        self.waiting += 1;
    }

    fn answered<'m>(&mut self, timestamp_ns: i64, message: &Message<'m>) -> Option<(Origin, &'m [u8])> {
        let Message { header, body } = *message;
        match body {
            Body::Noop | Body::Error { errno: 0, .. } => {}
            Body::Overrun => self.counts.overruns += 1,
            Body::Error { errno, request, .. } => {
                let of_sockets = |kind| (TCPDIAG_GETSOCK..=SOCK_DIAG_BY_FAMILY).contains(&kind);
                let known = self.ended(&header, None);
                let counts = known.map_or_else(
                    || request.is_some_and(|request| of_sockets(request.kind)),
                    |asked| asked.request.inet,
                );
                if counts {
                    *self.counts.errors.entry(errno).or_default() += 1;
                }
            }
            Body::Malformed => {
                self.counts.malformed += 1;
                self.ended(&header, None);
            }
            Body::Done { status, .. } => {
                let ended = self.ended(&header, Some(message.is_dump_interrupted()));
                if status != 0 && ended.is_some_and(|asked| asked.request.inet) {
                    *self.counts.errors.entry(status.saturating_neg()).or_default() += 1;
                }
            }
            Body::Data { payload } => return self.row(timestamp_ns, message, payload),
        }
        None
    }

    fn row<'m>(
        &mut self,
        timestamp_ns: i64,
        message: &Message<'m>,
        payload: &'m [u8],
    ) -> Option<(Origin, &'m [u8])> {
        let header = message.header;
        if !matches!(header.kind, TCPDIAG_GETSOCK | DCCPDIAG_GETSOCK | SOCK_DIAG_BY_FAMILY) {
            return None;
        }
        let key = (header.pid, header.seq);
        let multipart = message.is_multipart();
        let family = payload.first().copied();
        let like = |asked: &Asked| asked.request.kind == header.kind && asked.request.dump == multipart;
        let under_way = if multipart { self.open.remove(&key) } else { None };
        let asked = under_way
            .or_else(|| self.claim(&header, |asked| like(asked) && asked.request.may_give(family)))
            // A damaged family, or the IPv4 socket that a lookup of an IPv6 address found.
            .or_else(|| self.claim(&header, like));
        let mut asked = match asked {
            Some(asked) => asked,
            None => self.unasked(timestamp_ns, &header, multipart, family)?,
        };
        if message.is_dump_interrupted() && !asked.interrupted {
            asked.interrupted = true;
            self.counts.interrupted += u64::from(asked.origin.dump != 0);
        }
        if multipart {
            if self.open.len() >= MOST_OPEN {
                self.give_up();
            }
            self.open.insert(key, asked);
        }
        asked.request.inet.then_some((asked.origin, payload))
    }

    /// A row whose request is not in the capture. `None` when it is none of inet_diag.
    fn unasked(
        &mut self,
        timestamp_ns: i64,
        header: &Header,
        multipart: bool,
        family: Option<u8>,
    ) -> Option<Asked> {
        family.and_then(Family::from_raw)?;
        let dump = if multipart { self.next_dump() } else { 0 };
        let origin = Origin { dump, timestamp_ns, protocol: None, lookup: false };
        let request = Request { kind: header.kind, dump: multipart, inet: true, family: None, protocol: 0 };
        Some(Asked { request, port: header.pid, origin, interrupted: false })
    }

    /// The request that ends with this message, by `NLMSG_DONE` (with whether it says that it was interrupted) or by an
    /// error.
    fn ended(&mut self, header: &Header, done: Option<bool>) -> Option<Asked> {
        let key = (header.pid, header.seq);
        // A dump that is under way ends with DONE: an error is about another request, if there is one.
        let asked = match done {
            Some(_) => self.open.remove(&key).or_else(|| self.claim(header, |asked| asked.request.dump)),
            None => self.claim(header, |_| true).or_else(|| self.open.remove(&key)),
        }?;
        if done == Some(true) && !asked.interrupted {
            self.counts.interrupted += u64::from(asked.origin.dump != 0);
        }
        Some(asked)
    }

    /// Takes the oldest unanswered request that this may answer.
    fn claim(&mut self, header: &Header, fits: impl Fn(&Asked) -> bool) -> Option<Asked> {
        let queue = self.pending.get_mut(&header.seq)?;
        let by = |wanted: &dyn Fn(&Asked) -> bool| queue.iter().position(wanted);
        let named = |asked: &Asked| asked.port == header.pid;
        let unnamed = |asked: &Asked| asked.port == 0;
        let at = by(&|asked| named(asked) && fits(asked))
            .or_else(|| by(&|asked| unnamed(asked) && fits(asked)))?;
        let asked = queue.remove(at);
        if queue.is_empty() {
            self.pending.remove(&header.seq);
        }
        self.waiting -= usize::from(asked.is_some());
        asked
    }

    /// Whatever is open ends without having been ended.
    fn give_up(&mut self) {
        let pending = self.pending.drain().flat_map(|(_, queue)| queue);
        let open = self.open.drain().map(|(_, asked)| asked);
        let dumps = pending.chain(open).filter(|asked| asked.origin.dump != 0).count();
        self.counts.without_end += dumps as u64;
        self.waiting = 0;
    }

    fn next_dump(&mut self) -> u64 {
        self.counts.dumps += 1;
        self.counts.dumps
    }
}

#[cfg(test)]
mod tests;
