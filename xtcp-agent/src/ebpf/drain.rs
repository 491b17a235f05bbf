//! The ring buffer's reader: a thread of its own that wakes rarely, takes everything there is, and hands it on in
//! batches. When the receiver is slow it waits; the ring buffer then fills, and the kernel side counts what it loses.

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use super::{Control, EbpfError};
use crate::event::{Event, EventBatch};

/// The reader looks into the ring buffer at least this often, wake-up or not.
const LONGEST_WAIT_MS: u16 = 1000;

/// The reader of the ring buffer, not running yet.
pub struct Drain {
    ring: RingBuf<MapData>,
    /// Forwards log lines of the programs, in objects built with them.
    flush_log: Option<Box<dyn FnMut() + Send>>,
    control: Control,
    delay: Duration,
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("delay", &self.delay).finish_non_exhaustive()
    }
}

impl Drain {
    /// The forwarder of the programs' log lines (to the `log` facade, which the agent's subscriber bridges), when
    /// the object was built with `--log`. To be taken before the programs run.
    pub(super) fn log_forwarder(ebpf: &mut Ebpf) -> Option<Box<dyn FnMut() + Send>> {
        let mut logger = aya_log::EbpfLogger::init(ebpf).ok()?;
        Some(Box::new(move || logger.flush()))
    }

    pub(super) fn new(
        ring: RingBuf<MapData>,
        flush_log: Option<Box<dyn FnMut() + Send>>,
        control: Control,
        delay: Duration,
    ) -> Self {
        Self { ring, flush_log, control, delay }
    }

    /// Starts the reader's thread. It ends when [`DrainHandle::stop`] is called or `to` is closed.
    ///
    /// # Errors
    ///
    /// When the thread or its event descriptor cannot be made.
    pub fn start(self, to: mpsc::Sender<EventBatch>) -> Result<DrainHandle, EbpfError> {
        let event_fd = || {
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .map(Arc::new)
                .map_err(|errno| EbpfError::Reader { call: "eventfd", source: errno.into() })
        };
        let (stop, ask) = (event_fd()?, event_fd()?);
        let reader = Reader { drain: self, to, stop: Arc::clone(&stop), ask: Arc::clone(&ask), lost: None };
        let thread = thread::Builder::new()
            .name("ebpf-drain".to_owned())
            .spawn(move || reader.run())
            .map_err(|source| EbpfError::Reader { call: "thread", source })?;
        Ok(DrainHandle { stop, ask, thread: Some(thread) })
    }
}

/// The running reader. Dropping it stops the reader without waiting for it.
#[derive(Debug)]
pub struct DrainHandle {
    stop: Arc<EventFd>,
    ask: Arc<EventFd>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl DrainHandle {
    /// Asks for a batch even if there are no events: one whose [`EventBatch::told_until_ktime_ns`] is later than this
    /// call. Returns at once; the batch comes after the reader's delay.
    pub fn ask(&self) {
        // As below.
        let _ = self.ask.write(1);
    }

    /// Lets the reader take what the ring buffer holds, send it, close the channel and end. Returns at once. To lose
    /// nothing: [`Control::detach`], then this, then receive until the channel is closed.
    pub fn stop(&self) {
        // The counter of an event descriptor overflows after 2^64 - 2 calls; no other error is possible.
        let _ = self.stop.write(1);
    }

    /// Waits for the reader's end, which comes only once the receiver takes what is left or is dropped: not to be
    /// called by the task that receives.
    ///
    /// # Errors
    ///
    /// When waiting for the ring buffer failed and the reader gave up.
    pub fn join(mut self) -> io::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the ring buffer's reader panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for DrainHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Reader {
    drain: Drain,
    to: mpsc::Sender<EventBatch>,
    stop: Arc<EventFd>,
    ask: Arc<EventFd>,
    /// Loss counters as last reported.
    lost: Option<[u64; xtcp_common::event::kind::COUNT as usize]>,
}

/// The receiver is gone.
struct Closed;

/// Why the reader looks into the ring buffer.
struct Wake {
    /// `CLOCK_MONOTONIC` nanoseconds at which it was woken, before the delay: what a program had begun to write by then
    /// is complete when the delay is over.
    ktime_ns: u64,
    /// Somebody waits for a batch, also for an empty one.
    asked: bool,
    /// It is time to stop.
    stopping: bool,
}

impl Reader {
    fn run(mut self) -> io::Result<()> {
        loop {
            let wake = self.wait()?;
            if self.drain_all(&wake).is_err() || wake.stopping {
                return Ok(());
            }
        }
    }

    /// Waits until the kernel says that there is something, or somebody asks, then for the delay in which more gathers:
    /// the kernel wakes a reader only for the first sample after it had read them all.
    fn wait(&self) -> io::Result<Wake> {
        let ring = PollFd::new(self.drain.ring.as_fd(), PollFlags::POLLIN);
        let ask = PollFd::new(self.ask.as_fd(), PollFlags::POLLIN);
        let stopping = poll_stop(&self.stop, [ring, ask], PollTimeout::from(LONGEST_WAIT_MS))?;
        // Nobody asked when it would block; asks during the delay are for the next look.
        let asked = self.ask.read().is_ok();
        let ktime_ns = ktime_ns();
        if stopping {
            return Ok(Wake { ktime_ns, asked, stopping });
        }
        let delay = PollTimeout::try_from(self.drain.delay).unwrap_or(PollTimeout::from(LONGEST_WAIT_MS));
        let stopping = poll_stop(&self.stop, [], delay)?;
        Ok(Wake { ktime_ns, asked, stopping })
    }

    fn drain_all(&mut self, wake: &Wake) -> Result<(), Closed> {
        loop {
            let mut batch = self.batch();
            let full = batch.events.len() >= EventBatch::CAPACITY;
            if !full {
                batch.told_until_ktime_ns = wake.ktime_ns;
            }
            if !batch.is_empty() || (wake.asked && !full) {
                self.to.blocking_send(batch).map_err(|_| Closed)?;
            }
            if let Some(flush_log) = &mut self.drain.flush_log {
                flush_log();
            }
            if !full {
                return Ok(());
            }
        }
    }

    fn batch(&mut self) -> EventBatch {
        let mut batch = EventBatch::default();
        while batch.events.len() < EventBatch::CAPACITY {
            let Some(sample) = self.drain.ring.next() else { break };
            match Event::decode(&sample) {
                Ok(event) => batch.events.push(event),
                Err(error) => {
                    tracing::debug!(%error, "sample left out");
                    batch.malformed += 1;
                }
            }
        }
        batch.drained_ktime_ns = ktime_ns();
        self.count_lost(&mut batch);
        batch
    }

    fn count_lost(&mut self, batch: &mut EventBatch) {
        let now = match self.drain.control.counters() {
            Ok(counters) => counters.lost,
            // Reported with a later batch: the counters only grow.
            Err(error) => return tracing::debug!(%error, "loss counters not read"),
        };
        let before = self.lost.replace(now).unwrap_or_default();
        for ((delta, now), before) in batch.lost.iter_mut().zip(now).zip(before) {
            *delta = now.saturating_sub(before);
        }
    }
}

/// Waits for one of `others` or the timeout; true when it is time to stop.
fn poll_stop<'a, const N: usize>(
    stop: &'a EventFd,
    others: [PollFd<'a>; N],
    timeout: PollTimeout,
) -> io::Result<bool> {
    let stop = PollFd::new(stop.as_fd(), PollFlags::POLLIN);
    let mut fds: Vec<PollFd<'_>> = std::iter::once(stop).chain(others).collect();
    match poll(&mut fds, timeout) {
        Ok(_) => Ok(fds.first().and_then(PollFd::any).unwrap_or(false)),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// `CLOCK_MONOTONIC`, nanoseconds: the clock of `bpf_ktime_get_ns`.
fn ktime_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
