//! Events that travel together: encoded once, shared by every queue.

use std::ops::Range;
use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use xtcp_proto::event::v1::{Event, EventKind, event};

/// What kind of event; the index of the per-kind counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A network namespace was created.
    NetnsCreated,
    /// A network namespace was destroyed.
    NetnsDestroyed,
    /// A TCP socket changed state, but not to CLOSE.
    TcpState,
    /// A TCP socket went to CLOSE.
    TcpClose,
    /// Events are missing.
    Loss,
    /// TCP's counters of a network namespace.
    NetnsCounters,
}

impl Kind {
    /// Every kind, each at its own index.
    pub const ALL: [Self; 6] = [
        Self::NetnsCreated,
        Self::NetnsDestroyed,
        Self::TcpState,
        Self::TcpClose,
        Self::Loss,
        Self::NetnsCounters,
    ];

    /// The kind of an event; `None` for one without content.
    pub fn of(event: &Event) -> Option<Self> {
        event.event.as_ref().map(|event| match event {
            event::Event::NetnsCreated(_) => Self::NetnsCreated,
            event::Event::NetnsDestroyed(_) => Self::NetnsDestroyed,
            event::Event::TcpState(_) => Self::TcpState,
            event::Event::TcpClose(_) => Self::TcpClose,
            event::Event::Loss(_) => Self::Loss,
            event::Event::NetnsCounters(_) => Self::NetnsCounters,
        })
    }

    /// The last token of a subject, and the metrics' `kind` label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetnsCreated => "netns_created",
            Self::NetnsDestroyed => "netns_destroyed",
            Self::TcpState => "tcp_state",
            Self::TcpClose => "tcp_close",
            Self::Loss => "loss",
            Self::NetnsCounters => "netns_counters",
        }
    }

    /// The same in the contract.
    pub const fn proto(self) -> EventKind {
        match self {
            Self::NetnsCreated => EventKind::NetnsCreated,
            Self::NetnsDestroyed => EventKind::NetnsDestroyed,
            Self::TcpState => EventKind::TcpState,
            Self::TcpClose => EventKind::TcpClose,
            Self::Loss => EventKind::Loss,
            Self::NetnsCounters => EventKind::NetnsCounters,
        }
    }
}

/// Something for each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerKind<T>([T; 6]);

impl<T> PerKind<T> {
    /// Makes one for each kind.
    pub fn build(mut make: impl FnMut(Kind) -> T) -> Self {
        Self(Kind::ALL.map(&mut make))
    }

    /// The one of a kind.
    pub fn get(&self, kind: Kind) -> &T {
        let [created, destroyed, state, close, loss, counters] = &self.0;
        match kind {
            Kind::NetnsCreated => created,
            Kind::NetnsDestroyed => destroyed,
            Kind::TcpState => state,
            Kind::TcpClose => close,
            Kind::Loss => loss,
            Kind::NetnsCounters => counters,
        }
    }

    /// The one of a kind, to change.
    pub fn get_mut(&mut self, kind: Kind) -> &mut T {
        let [created, destroyed, state, close, loss, counters] = &mut self.0;
        match kind {
            Kind::NetnsCreated => created,
            Kind::NetnsDestroyed => destroyed,
            Kind::TcpState => state,
            Kind::TcpClose => close,
            Kind::Loss => loss,
            Kind::NetnsCounters => counters,
        }
    }

    /// Each with its kind.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &T)> {
        Kind::ALL.into_iter().zip(&self.0)
    }
}

/// What filters, subjects and counters need of an event without decoding it.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Kind.
    pub kind: Kind,
    /// Position in the stream; 0 in a sink's own loss marker.
    pub sequence: u64,
    /// Inode of the network namespace; 0 in a loss marker.
    pub netns_inode: u64,
    /// Local and remote port; 0 where there is none.
    pub ports: [u32; 2],
    name: u32,
    end: usize,
}

/// One event of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Published<'a> {
    /// What it is about.
    pub meta: &'a Meta,
    /// Name of its network namespace; empty in a loss marker.
    pub netns_name: &'a str,
    batch: &'a Batch,
    start: usize,
    index: usize,
}

impl Published<'_> {
    /// The encoded `xtcp_event.v1.Event`.
    pub fn protobuf(&self) -> Bytes {
        self.batch.bytes.slice(self.start..self.meta.end)
    }

    /// Length of [`protobuf`](Self::protobuf).
    pub fn byte_len(&self) -> usize {
        self.meta.end - self.start
    }

    /// The same in proto3 JSON, and a line feed. The first call encodes the whole batch.
    pub fn jsonl(&self) -> Bytes {
        self.batch.json().get(self.index).cloned().unwrap_or_default()
    }

    /// The message itself, decoded anew; `None` never happens for what this module encoded.
    pub fn event(&self) -> Option<Event> {
        Event::decode(self.protobuf()).ok()
    }
}

/// Events in the order of their sequence numbers, encoded back to back.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Bytes,
    events: Vec<Meta>,
    names: Vec<String>,
    json: OnceLock<Vec<Bytes>>,
}

impl Batch {
    /// Encodes `events`. One without content is left out.
    pub fn new(events: &[Event]) -> Self {
        let mut bytes = BytesMut::with_capacity(events.len().saturating_mul(320));
        let mut batch = Self { events: Vec::with_capacity(events.len()), ..Self::default() };
        for event in events {
            let Some(kind) = Kind::of(event) else { continue };
            event.encode_raw(&mut bytes);
            let (inode, name) =
                event.netns.as_ref().map_or((0, ""), |netns| (netns.inode, netns.name.as_str()));
            // Events of one namespace come in runs; a name that returns later costs a copy, not a search.
            if batch.names.last().is_none_or(|last| last != name) {
                batch.names.push(name.to_owned());
            }
            batch.events.push(Meta {
                kind,
                sequence: event.sequence,
                netns_inode: inode,
                ports: ports(event),
                name: u32::try_from(batch.names.len() - 1).unwrap_or(u32::MAX),
                end: bytes.len(),
            });
        }
        batch.bytes = bytes.freeze();
        batch
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Encoded bytes of all events together.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The event at `index`.
    pub fn get(&self, index: usize) -> Option<Published<'_>> {
        let meta = self.events.get(index)?;
        let start = match index.checked_sub(1) {
            Some(previous) => self.events.get(previous)?.end,
            None => 0,
        };
        let netns_name = self.names.get(usize::try_from(meta.name).ok()?).map_or("", String::as_str);
        Some(Published { meta, netns_name, batch: self, start, index })
    }

    /// The events at `range`, in order.
    pub fn iter(&self, range: Range<usize>) -> impl Iterator<Item = Published<'_>> {
        range.map_while(|index| self.get(index))
    }

    fn json(&self) -> &[Bytes] {
        self.json.get_or_init(|| {
            let mut text = BytesMut::with_capacity(self.bytes.len().saturating_mul(4));
            self.iter(0..self.len())
                .map(|published| {
                    if let Some(event) = published.event() {
                        // Writing JSON into memory fails only where a map has keys that are no strings.
                        if serde_json::to_writer((&mut text).writer(), &event).is_err() {
                            text.clear();
                        }
                        text.put_u8(b'\n');
                    }
                    text.split().freeze()
                })
                .collect()
        })
    }
}

fn ports(event: &Event) -> [u32; 2] {
    let socket = match &event.event {
        Some(event::Event::TcpState(state)) => state.socket.as_ref(),
        Some(event::Event::TcpClose(close)) => close.socket.as_ref(),
        Some(
            event::Event::NetnsCreated(_)
            | event::Event::NetnsDestroyed(_)
            | event::Event::NetnsCounters(_)
            | event::Event::Loss(_),
        )
        | None => None,
    };
    socket.map_or([0, 0], |socket| [socket.source_port, socket.destination_port])
}
