//! Ids that the agent's own network namespace gave to others (nsid): asked for by RTM_GETNSID, remembered, and told by
//! the kernel when they are given and when they end.
//!
//! A namespace has such an id only if somebody gave it one: `ip netns set`, or the kernel when a link of this namespace
//! has its other end there (a container's veth). It ends with its namespace and not before, and can be used again by
//! another: the kernel sends RTM_DELNSID from `cleanup_net` only (net/core/net_namespace.c), so this is the one word of an
//! end that needs no eBPF. Which namespace an id belongs to cannot be asked; it is known of those that were asked here.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use tokio::io::Interest;

use super::NetnsId;
use crate::sys::Polled;

/// Multicast group of RTM_NEWNSID and RTM_DELNSID (`RTNLGRP_NSID` in `linux/rtnetlink.h`, 4.0).
const RTNLGRP_NSID: u32 = 28;
/// Bytes of the largest answer and then some: a header and five attributes of four bytes.
const ANSWER_BYTES: usize = 1024;
/// The kernel answers within the `send`; an answer that takes longer will not come.
const PATIENCE: Duration = Duration::from_secs(1);
/// Answers to earlier questions that are stepped over.
const STALE: usize = 8;

/// What the kernel told of the ids of the agent's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A namespace was given this id. The kernel does not say which one.
    Assigned(u32),
    /// The namespace that had this id has ended.
    Released(u32),
    /// Some notices were lost, because they came faster than they were read.
    Missed,
}

/// Notices of the kernel about the ids of one namespace.
#[derive(Debug)]
pub struct Notices {
    socket: Socket,
    readable: Polled,
    /// Those of one datagram that were not handed out yet, last first.
    waiting: Vec<Told>,
}

impl Notices {
    /// Joins the group in the calling thread's namespace, inside a tokio runtime. Needs no privilege.
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.add_membership(RTNLGRP_NSID)?;
        let readable = Polled::new(socket.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        Ok(Self { socket, readable, waiting: Vec::new() })
    }

    /// The next notice. Losing this future loses none.
    pub async fn next(&mut self) -> io::Result<Told> {
        loop {
            if let Some(told) = self.waiting.pop() {
                return Ok(told);
            }
            let mut guard = self.readable.ready(Interest::READABLE).await?;
            let mut datagram = Vec::with_capacity(ANSWER_BYTES);
            match self.socket.recv(&mut datagram, 0) {
                Ok(_) => {
                    self.waiting = messages(&datagram).filter_map(|message| told(&message)).collect();
                    self.waiting.reverse();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return Ok(Told::Missed),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Asks which id the namespace of the thread that made this gave to another. 3 µs a question.
#[derive(Debug)]
pub struct Query {
    socket: Socket,
    sequence: u32,
}

impl Query {
    /// Opens a socket in the calling thread's namespace, which it keeps alive.
    pub fn new() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        let patience = TimeVal::milliseconds(i64::try_from(PATIENCE.as_millis()).unwrap_or(1_000));
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The id of the namespace behind an nsfs descriptor; `None` when it has none.
    pub fn of(&mut self, namespace: BorrowedFd<'_>) -> io::Result<Option<u32>> {
        let descriptor = u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
        self.sequence = self.sequence.wrapping_add(1);
        let mut question = NsidMessage::default();
        question.attributes.push(NsidAttribute::Fd(descriptor));
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, RouteNetlinkMessage::GetNsId(question).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        for _ in 0..STALE {
            let mut datagram = Vec::with_capacity(ANSWER_BYTES);
            match self.socket.recv(&mut datagram, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let answer = messages(&datagram).find(|message| message.header.sequence_number == self.sequence);
            match answer.map(|message| message.payload) {
                Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer))) => {
                    return Ok(id_of(&answer));
                }
                Some(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                Some(_) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no answer to RTM_GETNSID"));
                }
                None => {}
            }
        }
        Err(Errno::ETIMEDOUT.into())
    }
}

/// What is known of the ids, shared by those who ask, who hear and who use them. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Nsids(Arc<RwLock<State>>);

#[derive(Debug, Default)]
struct State {
    /// Rises whenever a namespace without an id may have been given one.
    generation: u64,
    known: HashMap<NetnsId, Answer>,
    holders: HashMap<u32, NetnsId>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    nsid: Option<u32>,
    generation: u64,
}

impl Nsids {
    /// The id that this namespace is known to have.
    pub fn get(&self, netns: NetnsId) -> Option<u32> {
        self.read().known.get(&netns)?.nsid
    }

    /// Whether to ask for this namespace's id: it was not asked yet, or had none and may have been given one since. Then
    /// the value to give to [`answered`](Self::answered).
    pub fn wanted(&self, netns: NetnsId) -> Option<u64> {
        let state = self.read();
        match state.known.get(&netns) {
            Some(Answer { nsid: Some(_), .. }) => None,
            Some(answer) if answer.generation == state.generation => None,
            Some(_) | None => Some(state.generation),
        }
    }

    /// Takes in an answer; `generation` is what [`wanted`](Self::wanted) said before the question.
    pub fn answered(&self, netns: NetnsId, generation: u64, nsid: Option<u32>) {
        let mut state = self.write();
        if let Some(nsid) = nsid
            && let Some(former) = state.holders.insert(nsid, netns)
            && former != netns
        {
            // It has ended, and the notice was missed.
            state.known.remove(&former);
        }
        state.known.insert(netns, Answer { nsid, generation });
    }

    /// Takes in a notice. For an end: whose, if that is known.
    pub fn heard(&self, told: Told) -> Option<NetnsId> {
        let mut state = self.write();
        match told {
            Told::Assigned(_) | Told::Missed => {
                state.generation += 1;
                None
            }
            Told::Released(nsid) => {
                let netns = state.holders.remove(&nsid)?;
                state.known.remove(&netns);
                Some(netns)
            }
        }
    }

    /// Forgets a namespace that is dead.
    pub fn forget(&self, netns: NetnsId) {
        let mut state = self.write();
        if let Some(Answer { nsid: Some(nsid), .. }) = state.known.remove(&netns)
            && state.holders.get(&nsid) == Some(&netns)
        {
            state.holders.remove(&nsid);
        }
    }

    /// Number of namespaces that were asked, and of those that have an id.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.read();
        (state.known.len(), state.holders.len())
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The messages of a datagram up to the first that is none.
fn messages(datagram: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(rest).ok()?.length() as usize;
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest.get(..length)?).ok()?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn told(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Told> {
    match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(message)) => {
            Some(Told::Assigned(id_of(message)?))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNsId(message)) => {
            Some(Told::Released(id_of(message)?))
        }
        _ => None,
    }
}

/// -1 (`NETNSA_NSID_NOT_ASSIGNED`) is none.
fn id_of(message: &NsidMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) => u32::try_from(*id).ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
