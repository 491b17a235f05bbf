//! Change events as a subscriber of NATS gets them.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use prost::Message;
use tokio::sync::oneshot;
use xtcp_proto::event::v1 as pb;
use xtcp_proto::event::v1::event::Event as Kind;

use crate::host::{monotonic_ns, slowness};
use crate::nats::NatsServer;
use crate::netns::Id;
use crate::row::address;

/// One event and when the test had it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it arrived, `CLOCK_MONOTONIC` nanoseconds.
    pub arrived_ns: u64,
    /// The NATS subject.
    pub subject: String,
    /// The event.
    pub event: pb::Event,
}

impl Seen {
    /// Inode of its namespace; 0 for a loss.
    pub fn inode(&self) -> u64 {
        self.event.netns.as_ref().map_or(0, |netns| netns.inode)
    }

    /// Whether it concerns this namespace. Of one that died before, only the inode may be the same.
    pub fn is_of(&self, netns: Id) -> bool {
        let told_since = netns.cookie != 0 || self.event.monotonic_ns >= netns.since_ns;
        self.event.netns.as_ref().is_some_and(|of| of.inode == netns.inode && of.cookie == netns.cookie)
            && told_since
    }

    /// As [`is_of`](Self::is_of), also where the event does not know the cookie: for what no hook told.
    pub fn may_be_of(&self, netns: Id) -> bool {
        self.is_of(netns) || self.is_of(Id { cookie: 0, ..netns })
    }

    /// What happened.
    pub fn kind(&self) -> &Kind {
        self.event.event.as_ref().unwrap_or_else(|| panic!("an event without a kind: {:?}", self.event))
    }

    /// Its transition if it is a state change.
    pub fn state(&self) -> Option<&pb::TcpStateChanged> {
        match self.kind() {
            Kind::TcpState(state) => Some(state),
            Kind::NetnsCreated(_)
            | Kind::NetnsDestroyed(_)
            | Kind::TcpClose(_)
            | Kind::Loss(_)
            | Kind::NetnsCounters(_) => None,
        }
    }

    /// The end of a connection if it is one.
    pub fn close(&self) -> Option<&pb::TcpClosed> {
        match self.kind() {
            Kind::TcpClose(close) => Some(close),
            Kind::NetnsCreated(_)
            | Kind::NetnsDestroyed(_)
            | Kind::TcpState(_)
            | Kind::Loss(_)
            | Kind::NetnsCounters(_) => None,
        }
    }

    /// The loss if it is one.
    pub fn loss(&self) -> Option<&pb::Loss> {
        match self.kind() {
            Kind::Loss(loss) => Some(loss),
            Kind::NetnsCreated(_)
            | Kind::NetnsDestroyed(_)
            | Kind::TcpState(_)
            | Kind::TcpClose(_)
            | Kind::NetnsCounters(_) => None,
        }
    }

    /// Whether it is the creation of this namespace.
    pub fn is_created(&self, netns: Id) -> bool {
        matches!(self.kind(), Kind::NetnsCreated(_)) && self.is_of(netns)
    }

    /// Whether it is the end of this namespace.
    pub fn is_destroyed(&self, netns: Id) -> bool {
        matches!(self.kind(), Kind::NetnsDestroyed(_)) && self.is_of(netns)
    }
}

/// Local and remote address of an event's socket.
pub fn addresses(socket: &pb::Socket) -> (SocketAddr, SocketAddr) {
    (
        address(socket.family, &socket.source, socket.source_port),
        address(socket.family, &socket.destination, socket.destination_port),
    )
}

/// How many events of `kind` all losses in `events` count as missing.
pub fn lost(events: &[Seen], kind: pb::EventKind) -> u64 {
    let counts = events.iter().filter_map(Seen::loss).flat_map(|loss| &loss.lost);
    counts.filter(|lost| lost.kind() == kind).map(|lost| lost.count).sum()
}

#[derive(Debug, Default)]
struct Store {
    events: Mutex<Vec<Seen>>,
    more: Condvar,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subscriber that keeps every event.
#[derive(Debug)]
pub struct Subscriber {
    store: Arc<Store>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Subscriber {
    /// Subscribes to every event at `nats`; when it returns, the server knows of the subscription.
    pub fn new(nats: &NatsServer) -> Self {
        let store = Arc::<Store>::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let (kept, address) = (Arc::clone(&store), nats.address);
        let thread = std::thread::Builder::new()
            .name("nats subscriber".to_owned())
            .spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(subscribe(address, &kept, ready, stopped));
            })
            .expect("a thread can be started");
        is_ready
            .recv_timeout(Duration::from_secs(10) * slowness())
            .expect("the subscription reaches nats-server");
        Self { store, stop: Some(stop), thread: Some(thread) }
    }

    /// All events so far.
    pub fn all(&self) -> Vec<Seen> {
        self.store.lock().clone()
    }

    /// Looks at all events so far in place; new ones wait meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&[Seen]) -> T) -> T {
        look(&self.store.lock())
    }

    /// How many events there are so far.
    pub fn count(&self) -> usize {
        self.store.lock().len()
    }

    /// The events of one namespace so far, in the order of their sequence.
    pub fn of(&self, netns: Id) -> Vec<Seen> {
        let mut events: Vec<Seen> =
            self.store.lock().iter().filter(|seen| seen.is_of(netns)).cloned().collect();
        events.sort_by_key(|seen| seen.event.sequence);
        events
    }

    /// The first event that `wanted` accepts, waiting for it; fails naming `what` after `limit` times [`slowness`].
    pub fn wait_for(&self, what: &str, limit: Duration, wanted: impl FnMut(&Seen) -> bool) -> Seen {
        self.find(limit, wanted).unwrap_or_else(|| {
            let events = self.all();
            let last: Vec<&Seen> = events.iter().rev().take(5).collect();
            panic!(
                "waited {limit:?} for {what}; {} events did not match, the last of them {last:#?}",
                events.len()
            )
        })
    }

    /// Waits until all events so far together are `enough`; false after `limit` times [`slowness`].
    pub fn wait_until(&self, limit: Duration, mut enough: impl FnMut(&[Seen]) -> bool) -> bool {
        let limit = limit * slowness();
        let wait = self.store.more.wait_timeout_while(self.store.lock(), limit, |events| !enough(events));
        !wait.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The first event that `wanted` accepts within `limit` times [`slowness`]. `wanted` must not ask this subscriber for more.
    pub fn find(&self, limit: Duration, mut wanted: impl FnMut(&Seen) -> bool) -> Option<Seen> {
        let limit = limit * slowness();
        let start = Instant::now();
        let mut looked = 0;
        let mut events = self.store.lock();
        loop {
            if let Some(found) = events[looked..].iter().find(|seen| wanted(seen)) {
                return Some(found.clone());
            }
            looked = events.len();
            let left = limit.checked_sub(start.elapsed())?;
            events = self.store.more.wait_timeout(events, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn subscribe(
    address: SocketAddr,
    store: &Store,
    ready: std::sync::mpsc::SyncSender<()>,
    mut stopped: oneshot::Receiver<()>,
) {
    // What this client cannot hold it drops: as much as the largest test makes must fit.
    let options = async_nats::ConnectOptions::new().subscription_capacity(4 << 20);
    let client = options.connect(format!("nats://{address}")).await.expect("nats-server takes connections");
    let mut messages = client.subscribe("xtcp.v1.>").await.expect("a subscription can be made");
    client.flush().await.expect("nats-server answers");
    let _ = ready.send(());
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            _ = &mut stopped => return,
        };
        let Some(message) = message else { return };
        let arrived_ns = monotonic_ns();
        let event = pb::Event::decode(message.payload).expect("a message is one protobuf event");
        store.lock().push(Seen { arrived_ns, subject: message.subject.to_string(), event });
        store.more.notify_all();
    }
}
