//! One destination's task: takes what waits, sends it until it is taken, and says how the destination does.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::DeliveryError;
use super::metrics::{Circuit, Loss, Meter};
use super::queue::{Item, Queue};
use crate::backoff;
use crate::destination::{Address, Cause, Context, Destination, Payload, SendError};
use crate::metrics::Readiness;

/// The first pause after a failed send.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Everything that one destination's task has.
pub(super) struct Lane {
    pub(super) name: Arc<str>,
    pub(super) address: Address,
    pub(super) context: Context,
    pub(super) queue: Arc<Queue>,
    /// The thread that writes the spool.
    pub(super) writer: Option<JoinHandle<()>>,
    pub(super) meter: Meter,
    pub(super) readiness: Readiness,
    /// How long one send may take.
    pub(super) patience: Option<Duration>,
    pub(super) retry_max: Duration,
    /// Opened; `None` after a send that had to be given up.
    pub(super) destination: Option<Box<dyn Destination>>,
    pub(super) end: End,
}

/// How the agent's end bounds delivery.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// Cancelled when nothing more comes in.
    pub(super) begun: CancellationToken,
    /// How long what is left may take to leave.
    pub(super) drain: Duration,
    /// Set once the end has begun.
    pub(super) deadline: Option<Instant>,
}

impl End {
    /// Ends when the end begins; never once it has.
    async fn begins(&mut self) {
        if self.deadline.is_some() {
            return std::future::pending().await;
        }
        self.begun.cancelled().await;
        self.deadline = Some(Instant::now() + self.drain);
    }

    /// Ends when the time to drain is over.
    async fn is_over(&mut self) {
        if self.deadline.is_none() {
            self.begins().await;
        }
        if let Some(deadline) = self.deadline {
            sleep_until(deadline).await;
        }
    }
}

/// What became of a payload.
enum Fate {
    /// It left, or never will and was counted.
    Settled,
    /// There is no time left.
    GivenUp,
    /// Nothing will leave any more.
    Failed(DeliveryError),
}

impl Lane {
    /// Sends what comes until the queue is closed and empty, the time to drain is over, or nothing can be sent any more.
    /// What is left then goes to the spool, or is dropped and counted.
    pub(super) async fn run(mut self) -> Result<(), DeliveryError> {
        let mut failed = None;
        let mut in_hand = None;
        loop {
            let item = tokio::select! {
                biased;
                () = self.end.is_over() => break,
                () = self.queue.overflowed() => {
                    failed = Some(DeliveryError::Full { destination: self.name.to_string() });
                    break;
                }
                item = self.queue.next() => item,
            };
            let Some(item) = item else { break };
            match self.send(&item.payload).await {
                Fate::Settled => self.queue.settle(item).await,
                Fate::GivenUp => {
                    in_hand = Some(item);
                    break;
                }
                Fate::Failed(error) => {
                    (in_hand, failed) = (Some(item), Some(error));
                    break;
                }
            }
        }
        let flushed = match (&failed, &mut self.destination) {
            (None, Some(destination)) => tokio::select! {
                biased;
                result = destination.flush() => result,
                () = self.end.is_over() => Ok(()),
            },
            _ => Ok(()),
        };
        let left = self.put_away(in_hand).await;
        match (failed, flushed) {
            (Some(error), _) => {
                self.ready(Err(error.to_string()));
                Err(error)
            }
            (None, Err(source)) => Err(self.ended(source)),
            (None, Ok(())) if left > 0 => {
                Err(DeliveryError::Late { destination: self.name.to_string(), rows: left })
            }
            (None, Ok(())) => Ok(()),
        }
    }

    async fn put_away(&mut self, in_hand: Option<Item>) -> usize {
        let (queue, writer) = (Arc::clone(&self.queue), self.writer.take());
        if writer.is_none() {
            return queue.put_away(None, in_hand);
        }
        tokio::task::spawn_blocking(move || queue.put_away(writer, in_hand)).await.unwrap_or(0)
    }

    /// Sends until the destination takes the payload or it is dropped and counted.
    async fn send(&mut self, payload: &Payload) -> Fate {
        let mut failures = 0_u32;
        loop {
            let begun = Instant::now();
            let result = tokio::select! {
                biased;
                result = attempt(&mut self.destination, &self.address, &self.context, self.patience, payload) => result,
                () = self.end.is_over() => {
                    self.destination = None;
                    return Fate::GivenUp;
                }
                () = self.queue.overflowed() => {
                    self.destination = None;
                    return Fate::Failed(DeliveryError::Full { destination: self.name.to_string() });
                }
            };
            self.meter.sent(payload, begun.elapsed(), &result);
            let error = match result {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!(destination = %self.name, failures, "destination takes batches again");
                    }
                    self.works();
                    return Fate::Settled;
                }
                Err(SendError::Drop(error)) => {
                    tracing::error!(destination = %self.name, rows = payload.rows, %error, "batch dropped");
                    self.meter.dropped(payload.rows, Loss::Refused);
                    self.works();
                    return Fate::Settled;
                }
                Err(error @ SendError::Fatal(_)) => return Fate::Failed(self.ended(error)),
                Err(SendError::Retry(error)) => error,
            };
            self.complain(&error, failures);
            failures += 1;
            if !self.pause(failures).await {
                return Fate::GivenUp;
            }
            self.meter.circuit(Circuit::HalfOpen);
        }
    }

    fn works(&self) {
        self.meter.circuit(Circuit::Closed);
        self.ready(Ok(()));
    }

    fn complain(&self, error: &Cause, failures: u32) {
        self.meter.circuit(Circuit::Open);
        self.ready(Err(error.to_string()));
        if failures == 0 {
            tracing::warn!(
                destination = %self.name,
                %error,
                "destination does not take a batch, which is sent again until it does"
            );
        } else {
            tracing::debug!(destination = %self.name, %error, failures, "destination does not take a batch");
        }
    }

    /// Waits before a retry; whether there is time for one.
    async fn pause(&mut self, failures: u32) -> bool {
        let pause = backoff::pause(FIRST_PAUSE, self.retry_max, failures - 1);
        // There is little time left: often.
        let pause = if self.end.deadline.is_some() { pause.min(FIRST_PAUSE) } else { pause };
        let wake = self.end.deadline.map_or(Instant::now() + pause, |end| end.min(Instant::now() + pause));
        tokio::select! {
            () = sleep_until(wake) => {}
            // Try at once. What has a spool need not wait for its peer.
            () = self.end.begins() => return !self.queue.has_spool(),
            () = self.queue.overflowed() => {}
        }
        let Some(deadline) = self.end.deadline else { return true };
        !self.queue.has_spool() && deadline > Instant::now()
    }

    fn ended(&self, source: SendError) -> DeliveryError {
        DeliveryError::Destination { destination: self.name.to_string(), source }
    }

    fn ready(&self, state: Result<(), String>) {
        self.readiness.set(format!("destination {}", self.name), state);
    }
}

/// One send, by a destination that is opened anew where the last one was given up.
async fn attempt(
    destination: &mut Option<Box<dyn Destination>>,
    address: &Address,
    context: &Context,
    patience: Option<Duration>,
    payload: &Payload,
) -> Result<(), SendError> {
    let open = match destination {
        Some(open) => open,
        None => destination.insert(address.opener().open(context).map_err(SendError::Retry)?),
    };
    let Some(patience) = patience else { return open.send(payload).await };
    let Ok(result) = timeout(patience, open.send(payload)).await else {
        *destination = None;
        let patience = humantime::format_duration(patience);
        return Err(SendError::Retry(format!("no answer within {patience} (option timeout)").into()));
    };
    result
}
