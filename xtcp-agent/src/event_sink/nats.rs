//! Events to a NATS server: one message an event, on the subject of its host, namespace and kind.
//!
//! While there is no server the queue keeps the newest events up to its bound; older ones are dropped, counted and
//! said by a loss marker. A batch that was under way when the connection broke is sent again, so a consumer may see an
//! event twice (same sequence number) after a reconnect. What the kernel had already taken for a server that died is
//! lost as any core NATS message is; the sequence numbers show it.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event as Link};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::address::{Marshal, NatsServer, SinkError};
use super::batch::PerKind;
use super::metrics::SinkCounters;
use super::queue::{Delivery, Queue};
use super::subject::Subjects;
use crate::backoff;

/// How many events are handed to the client before it is asked whether they left.
const AT_ONCE: usize = 1024;
/// The shortest pause between two attempts to connect, but for the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// At most one line about the server's complaints in this time.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// A sink that was started.
pub(super) struct Nats {
    client: Client,
    connected: watch::Receiver<bool>,
    subjects: Subjects,
    marshal: Marshal,
    counters: Arc<SinkCounters>,
}

impl Nats {
    /// Begins to connect, in the background. `quiet`: nobody asked for this server, its absence is no fault.
    pub(super) async fn start(
        server: &NatsServer,
        hostname: &str,
        marshal: Marshal,
        quiet: bool,
        counters: Arc<SinkCounters>,
    ) -> Result<Self, SinkError> {
        let endpoint = server.endpoint();
        let (state, connected) = watch::channel(false);
        let reporter = Reporter::new(endpoint.clone(), quiet, state, Arc::clone(&counters));
        let client = ConnectOptions::new()
            .name(format!("xtcp2-agent on {hostname}"))
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(pause)
            // Our subjects consist of tokens that were made valid.
            .skip_subject_validation(true)
            .event_callback(move |link| {
                reporter.report(&link);
                std::future::ready(())
            })
            .connect(server.url())
            .await
            .map_err(|_| SinkError::Address {
                text: format!("nats:{endpoint}"),
                fault: "not an address that the NATS client understands",
            })?;
        Ok(Self { client, connected, subjects: Subjects::new(hostname), marshal, counters })
    }

    /// Sends what the queue holds until it is closed and empty, or `give_up`. Events that the queue still holds when
    /// it is closed while there is no server stay in it.
    pub(super) async fn run(mut self, queue: Arc<Queue>, give_up: CancellationToken) {
        loop {
            tokio::select! {
                () = is_true(&mut self.connected) => {}
                () = queue.closed() => {}
                () = give_up.cancelled() => return,
            }
            if !*self.connected.borrow() {
                return;
            }
            let Some(delivery) = queue.take(AT_ONCE).await else { return };
            tokio::select! {
                () = self.send(&delivery, &queue) => {}
                () = give_up.cancelled() => {
                    for event in delivery.wanted(queue.filter()) {
                        self.counters.dropped_shutdown.get(event.meta.kind).inc();
                    }
                    return;
                }
            }
        }
    }

    /// Sends a delivery and waits until it left; again when the connection was another at the end.
    async fn send(&mut self, delivery: &Delivery, queue: &Queue) {
        loop {
            let statistics = self.client.statistics();
            let connection = statistics.connects.load(Ordering::Acquire);
            let (mut sent, mut rejected) = (PerKind::<u64>::default(), PerKind::<u64>::default());
            for event in delivery.wanted(queue.filter()) {
                let subject = self.subjects.of(event.meta);
                let payload = match self.marshal {
                    Marshal::Protobuf => event.protobuf(),
                    Marshal::Jsonl => event.jsonl(),
                };
                let counts = if self.client.publish(subject, payload).await.is_ok() {
                    &mut sent
                } else {
                    &mut rejected
                };
                *counts.get_mut(event.meta.kind) += 1;
            }
            // An error means that the client's task is gone; then nothing can be sent any more.
            let flushed = self.client.flush().await.is_ok();
            if flushed && connection != statistics.connects.load(Ordering::Acquire) {
                continue;
            }
            for (kind, &events) in sent.iter() {
                let counters =
                    if flushed { &self.counters.published } else { &self.counters.dropped_rejected };
                counters.get(kind).inc_by(events);
            }
            for (kind, &events) in rejected.iter() {
                self.counters.dropped_rejected.get(kind).inc_by(events);
            }
            return;
        }
    }
}

/// Waits until the value is true; for ever when nobody can change it any more.
async fn is_true(value: &mut watch::Receiver<bool>) {
    if value.wait_for(|&value| value).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The pause before the attempt with this number since the last connection, counted from 1: none, then doubling.
fn pause(attempt: usize) -> Duration {
    let Some(doublings) = attempt.checked_sub(2) else { return Duration::ZERO };
    backoff::pause(FIRST_PAUSE, LONGEST_PAUSE, u32::try_from(doublings).unwrap_or(u32::MAX))
}

/// Says once what became of the connection, whatever the number of attempts.
struct Reporter {
    endpoint: String,
    quiet: bool,
    state: watch::Sender<bool>,
    counters: Arc<SinkCounters>,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    ever_connected: bool,
    reasons: HashSet<String>,
    complaint: Option<Instant>,
}

impl Reporter {
    fn new(endpoint: String, quiet: bool, state: watch::Sender<bool>, counters: Arc<SinkCounters>) -> Self {
        Self { endpoint, quiet, state, counters, said: Mutex::default() }
    }

    fn report(&self, link: &Link) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = self.endpoint.as_str();
        match link {
            Link::Connected => {
                if said.ever_connected {
                    tracing::info!("connected again to NATS at {endpoint}");
                } else {
                    tracing::info!("connected to NATS at {endpoint}: change events go there");
                }
                said.ever_connected = true;
                said.reasons.clear();
                self.counters.connected.set(1);
                self.state.send_replace(true);
            }
            Link::Disconnected => {
                tracing::warn!("lost NATS at {endpoint}: change events wait for it, retrying quietly");
                self.counters.connected.set(0);
                self.state.send_replace(false);
            }
            Link::ClientError(error) => self.attempt_failed(&mut said, error.to_string()),
            Link::ServerError(error) => {
                self.counters.errors.inc();
                if said.complaint.is_none_or(|last| last.elapsed() >= COMPLAINT_PAUSE) {
                    said.complaint = Some(Instant::now());
                    tracing::warn!("NATS at {endpoint} says: {error}");
                }
            }
            Link::LameDuckMode | Link::Draining | Link::Closed | Link::SlowConsumer(_) => {}
        }
    }

    /// One line for the first failed attempt, and one for each new reason after it.
    fn attempt_failed(&self, said: &mut Said, reason: String) {
        let endpoint = self.endpoint.as_str();
        let first = said.reasons.is_empty() && !said.ever_connected;
        // After a lost connection the refusal of the next attempts is no news.
        let absent = reason.contains("IO error") || reason.contains("timed out");
        if said.reasons.contains(&reason) || (!first && absent) {
            return;
        }
        if first && absent && self.quiet {
            tracing::info!("no NATS at {endpoint} yet: change events wait for it, retrying quietly");
        } else if first && absent {
            tracing::warn!(
                "no NATS at {endpoint} yet ({reason}): change events wait for it, retrying quietly"
            );
        } else {
            tracing::warn!(
                "cannot use NATS at {endpoint} ({reason}): change events wait for it, retrying quietly"
            );
        }
        said.reasons.insert(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_attempts_double_with_jitter_up_to_a_bound() {
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(1), Duration::ZERO);
        for attempt in 2..200 {
            let pause = pause(attempt);
            assert!(pause >= Duration::from_millis(50) && pause <= LONGEST_PAUSE, "{attempt}: {pause:?}");
        }
        assert!(pause(100) >= LONGEST_PAUSE / 2);
    }
}
