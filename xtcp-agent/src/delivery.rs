//! Batches reach their destinations. Each is marshalled once for all that want the same bytes, waits in memory and on
//! disk within bounds, and is sent until it is taken. Owns queues, spools and retries; never knows a protocol, and never
//! makes the collection wait.

pub mod events;
mod lane;
mod metrics;
mod queue;
pub mod route;
mod spool;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::destination::{Context, DestinationError, Payload, SendError};
use crate::envelope::Batch;
use crate::event_sink::{Bound, EventHub, Filter, SinkMetrics, Subscription};
use crate::marshaller::{MarshalError, Marshaller};
use crate::metrics::Readiness;
use crate::select::{Select, Selector};
use events::{Feed, Form};
use lane::{End, Lane};
use metrics::Meter;
pub use metrics::{Loss, Metrics};
use queue::Queue;
use route::Route;

/// Why delivery ended before it was told to, or could not end well.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The destination takes nothing any more. What was queued was dropped and counted.
    #[error("destination {destination} ended: {source}")]
    Destination {
        /// Its name.
        destination: String,
        /// What it said.
        source: SendError,
    },
    /// Memory and spool were full, and `when-full=stop` was set.
    #[error("destination {destination}: no room for more rows, and when-full=stop")]
    Full {
        /// Its name.
        destination: String,
    },
    /// The destination did not take everything in time at the end. The rest was dropped and counted.
    #[error("destination {destination}: {rows} rows had not left when the time to drain was over")]
    Late {
        /// Its name.
        destination: String,
        /// How many rows were dropped.
        rows: usize,
    },
}

/// Why delivery did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A destination could not be opened.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// A destination's spool could not be opened.
    #[error("cannot open the spool of destination {destination} in {}: {source} (--spool-dir)", dir.display())]
    Spool {
        /// Name of the destination.
        destination: String,
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What all destinations have in common.
#[derive(Clone)]
pub struct Settings {
    /// Name of the host, as in the rows.
    pub hostname: Arc<str>,
    /// Names this run of the agent in the ids of payloads.
    pub instance: String,
    /// Format of destinations that name none.
    pub marshal: &'static dyn Marshaller,
    /// Topic of destinations that name none.
    pub topic: String,
    /// Folder of the spools.
    pub spool_dir: PathBuf,
    /// How long what is queued when the agent ends may take to leave.
    pub drain: Duration,
    /// Where it is said how destinations do.
    pub readiness: Readiness,
    /// Where change events come from, for destinations that carry them, and how many may wait there.
    pub events: (EventHub, Bound),
    /// Counts the events that came and those that were lost before they could be handed on.
    pub event_metrics: SinkMetrics,
}

/// Destinations that want the same bytes.
struct Stream {
    select: Select,
    selector: Selector,
    format: &'static dyn Marshaller,
    /// Most bytes of a payload.
    limit: Option<usize>,
    queues: Vec<(Arc<Queue>, Meter)>,
}

/// All destinations, started.
pub struct Outlets {
    instance: String,
    streams: Vec<Stream>,
    lanes: JoinSet<Result<(), DeliveryError>>,
    /// Hand on change events.
    feeds: JoinSet<()>,
    /// Queues of destinations that carry those.
    fed: Vec<Arc<Queue>>,
    end: CancellationToken,
    drain: Duration,
}

impl Outlets {
    /// Opens every destination and its spool, and starts a task for each.
    pub fn open(routes: &[Route], settings: &Settings, metrics: &Metrics) -> Result<Self, StartError> {
        let mut outlets = Self {
            instance: settings.instance.clone(),
            streams: Vec::new(),
            lanes: JoinSet::new(),
            feeds: JoinSet::new(),
            fed: Vec::new(),
            drain: settings.drain,
            end: CancellationToken::new(),
        };
        for (route, name) in routes.iter().zip(names(routes)) {
            outlets.add(route, name.into(), settings, metrics)?;
        }
        Ok(outlets)
    }

    fn add(
        &mut self,
        route: &Route,
        name: Arc<str>,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Result<(), StartError> {
        let format = route.marshal.unwrap_or(settings.marshal);
        let context = Context {
            hostname: Arc::clone(&settings.hostname),
            topic: route.topic.clone().unwrap_or_else(|| settings.topic.clone()),
            format,
        };
        let destination = route.address.open(&context)?;
        let meter = metrics.of(&name);
        // What waits on disk is in one format, and must not go out as another.
        let dir = settings.spool_dir.join(format!("{name}.{}", format.name()));
        let (queue, writer) = Queue::open(Arc::clone(&name), route.bounds, &dir, meter.clone())
            .map_err(|source| StartError::Spool { destination: name.to_string(), dir, source })?;
        let opener = route.address.opener();
        let limit = opener.max_payload();
        if let Some(form) = Form::of(format).filter(|_| route.events) {
            let (hub, bound) = &settings.events;
            let counters = settings.event_metrics.sink(&name);
            let subscription = Subscription::new(hub, *bound, Filter::default(), Arc::clone(&counters));
            let feed = Feed {
                form,
                limit: limit.unwrap_or(usize::MAX),
                queue: Arc::clone(&queue),
                meter: meter.clone(),
                instance: settings.instance.clone(),
            };
            self.feeds.spawn(feed.run(subscription, counters));
            self.fed.push(Arc::clone(&queue));
        } else {
            let waiting = (Arc::clone(&queue), meter.clone());
            let same = |stream: &&mut Stream| {
                stream.format == format && stream.limit == limit && stream.select == route.select
            };
            match self.streams.iter_mut().find(same) {
                Some(stream) => stream.queues.push(waiting),
                None => self.streams.push(Stream {
                    select: route.select.clone(),
                    selector: route.select.start(),
                    format,
                    limit,
                    queues: vec![waiting],
                }),
            }
        }
        settings.readiness.set(format!("destination {name}"), Ok(()));
        let lane = Lane {
            name,
            address: route.address.clone(),
            context,
            queue,
            writer,
            meter,
            readiness: settings.readiness.clone(),
            patience: opener.patience().map(|patience| route.timeout.unwrap_or(patience)),
            retry_max: route.retry_max,
            destination: Some(destination),
            end: End { begun: self.end.clone(), drain: settings.drain, deadline: None },
        };
        self.lanes.spawn(lane.run());
        Ok(())
    }

    /// Gives a batch to every destination. Never waits.
    pub fn hand_out(&mut self, batch: &Batch) {
        for stream in &mut self.streams {
            stream.hand_out(batch, &self.instance);
        }
    }

    /// Ends when the agent should: every destination has failed, or one was full and that was to be the end.
    pub async fn failed(&mut self) -> DeliveryError {
        loop {
            match self.lanes.join_next().await {
                Some(Ok(Err(error @ DeliveryError::Full { .. }))) => return error,
                Some(Ok(Err(error))) if self.lanes.is_empty() => return error,
                Some(Ok(Err(error))) => {
                    tracing::error!(%error, "the other destinations go on without it");
                }
                Some(Ok(Ok(()))) => {}
                Some(Err(error)) => tracing::error!(%error, "a destination's task failed"),
                None => return std::future::pending().await,
            }
        }
    }

    /// Takes nothing more, and waits until everything has left or the time to drain is over. The first error, if any.
    pub async fn finish(mut self) -> Result<(), DeliveryError> {
        let fed = async { while self.feeds.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain, fed).await.is_err() {
            tracing::warn!("change events still come: the last ones are not delivered");
        }
        let of_rows = self.streams.iter().flat_map(|stream| &stream.queues).map(|(queue, _)| queue);
        for queue in of_rows.chain(&self.fed) {
            queue.close();
        }
        self.end.cancel();
        let mut first = Ok(());
        while let Some(ended) = self.lanes.join_next().await {
            match ended {
                Ok(Err(error)) => {
                    tracing::warn!(%error, "not everything was delivered");
                    first = first.and(Err(error));
                }
                Ok(Ok(())) => {}
                Err(error) => tracing::error!(%error, "a destination's task failed"),
            }
        }
        first
    }
}

/// A name for each: its own, or its scheme's with a number where that is taken.
pub fn names(routes: &[Route]) -> Vec<String> {
    let mut taken: BTreeSet<String> = routes.iter().filter_map(|route| route.name.clone()).collect();
    let mut free = |scheme: &str| {
        let numbered = (2..).map(|number| format!("{scheme}-{number}"));
        let name = std::iter::once(scheme.to_owned()).chain(numbered).find(|name| !taken.contains(name));
        let name = name.unwrap_or_default();
        taken.insert(name.clone());
        name
    };
    routes.iter().map(|route| route.name.clone().unwrap_or_else(|| free(route.address.scheme()))).collect()
}

impl Stream {
    fn hand_out(&mut self, batch: &Batch, instance: &str) {
        if self.queues.iter().any(|(queue, _)| queue.has_lost()) {
            self.selector.forget();
        }
        let wanted = if self.select.is_everything() {
            Some(batch.clone())
        } else {
            batch.filter(|row| self.selector.passes(row))
        };
        let mut part = 0;
        // Halves of halves, the first rows first.
        let mut pieces: Vec<Batch> = wanted.into_iter().collect();
        while let Some(piece) = pieces.pop() {
            match self.marshal(&piece) {
                Ok(bytes) => {
                    let id = format!("{instance}-{}-{part}", batch.id()).into();
                    let header = self.format.header_len();
                    let payload = Payload { bytes, header, rows: piece.len(), id };
                    for (queue, _) in &self.queues {
                        queue.offer(payload.clone());
                    }
                    part += 1;
                }
                Err(Unfit::Large) => {
                    if let Some([first, second]) = piece.halves() {
                        pieces.extend([second, first]);
                        continue;
                    }
                    let limit = self.limit;
                    tracing::error!(
                        batch = batch.id(),
                        limit,
                        "a row is larger than its destination takes, and dropped"
                    );
                    self.lose(piece.len(), Loss::Refused);
                }
                Err(Unfit::Broken(error)) => {
                    tracing::error!(batch = batch.id(), rows = piece.len(), %error, "batch dropped");
                    self.lose(piece.len(), Loss::Marshal);
                }
            }
        }
    }

    fn marshal(&self, piece: &Batch) -> Result<Bytes, Unfit> {
        let limit = self.limit.unwrap_or(usize::MAX);
        // What is too large as it is becomes no smaller as text.
        if piece.len() > 1 && piece.envelope_len() > limit {
            return Err(Unfit::Large);
        }
        let mut bytes = Vec::new();
        self.format.marshal(piece, &mut bytes).map_err(Unfit::Broken)?;
        if bytes.len() > limit { Err(Unfit::Large) } else { Ok(bytes.into()) }
    }

    fn lose(&self, rows: usize, loss: Loss) {
        for (_, meter) in &self.queues {
            meter.accepted(rows);
            meter.dropped(rows, loss);
        }
    }
}

/// Why rows make no payload.
enum Unfit {
    Large,
    Broken(MarshalError),
}

#[cfg(test)]
mod tests;
