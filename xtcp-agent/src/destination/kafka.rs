//! `kafka:HOST:PORT[,HOST:PORT…]`: a batch is one message, acknowledged by the brokers.
//!
//! librdkafka queues, retries and reconnects by itself; here it holds one message at a time, for a bounded time, and
//! what became of it is what `send` says. So an outage is seen by who delivers, and not hidden in a second queue.

mod certificate;
mod explain;
mod heard;
mod registry;
mod settings;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::util::Timeout;

use super::scheme::Built;
use super::{Cause, Context, Destination, Opener, Payload, SendError};
use heard::{Ear, Heard};
use registry::Registry;

use crate::tls::Tls;

pub(super) const BUILT: Built = Built {
    parse: |rest, options| settings::parse(rest, options).map(|kafka| Arc::new(kafka) as _),
    options: &[&settings::OPTIONS],
};

/// What the longest key and headers take of a message.
const OVERHEAD: usize = 1024;

/// An address that was understood.
struct Kafka {
    /// For librdkafka.
    config: ClientConfig,
    /// The brokers of the address.
    brokers: String,
    /// The largest message.
    message_max: usize,
    /// How long a send may take.
    patience: Duration,
    /// How long librdkafka may take for a message.
    timeout: Duration,
    /// Whether messages have the host's name as their key.
    keyed: bool,
    /// Whom to trust, where connections are TLS.
    tls: Option<Tls>,
    registry: Option<Arc<Registry>>,
}

impl Opener for Kafka {
    fn open(&self, context: &Context) -> Result<Box<dyn Destination>, Cause> {
        let mut topic = Topic {
            context: context.clone(),
            config: self.config.clone(),
            heard: Arc::new(Heard::default()),
            producer: None,
            key: if self.keyed { context.hostname.to_string() } else { String::new() },
            peer: Peer { brokers: self.brokers.clone(), topic: context.topic.clone(), tls: self.tls.clone() },
            timeout: self.timeout,
            registry: self.registry.clone(),
        };
        // A certificate that is not there is found now.
        topic.producer().map(drop)?;
        Ok(Box::new(topic))
    }

    fn max_payload(&self) -> Option<usize> {
        Some(self.message_max.saturating_sub(OVERHEAD))
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.patience)
    }
}

/// Whom an error is about.
#[derive(Debug)]
struct Peer {
    brokers: String,
    topic: String,
    tls: Option<Tls>,
}

/// A topic and the client that writes to it.
struct Topic {
    context: Context,
    config: ClientConfig,
    heard: Arc<Heard>,
    producer: Option<FutureProducer<Ear>>,
    /// Empty: none.
    key: String,
    peer: Peer,
    timeout: Duration,
    registry: Option<Arc<Registry>>,
}

impl Topic {
    /// The client; made anew after a fatal error, which ends only the client.
    fn producer(&mut self) -> Result<FutureProducer<Ear>, Cause> {
        if let Some(producer) = &self.producer {
            return Ok(producer.clone());
        }
        let producer: FutureProducer<Ear> = self
            .config
            .create_with_context(Ear::new(&self.heard))
            .map_err(|error| explain::not_made(&error))?;
        Ok(self.producer.insert(producer).clone())
    }

    async fn produce(&mut self, payload: &Payload) -> Result<(), SendError> {
        let producer = self.producer().map_err(SendError::Retry)?;
        let mut record = FutureRecord::<str, [u8]>::to(&self.peer.topic)
            .payload(&payload.bytes)
            .headers(self.headers(payload))
            .timestamp(milliseconds(SystemTime::now()));
        if !self.key.is_empty() {
            record = record.key(&self.key);
        }
        match producer.send(record, Timeout::After(Duration::ZERO)).await {
            Ok(_) => {
                self.heard.arrived();
                Ok(())
            }
            Err((error, _)) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                    self.give_up_client();
                }
                Err(self.not_sent(&error, payload.bytes.len()).await)
            }
        }
    }

    /// Why, in all that is known.
    async fn not_sent(&self, error: &KafkaError, bytes: usize) -> SendError {
        if let Some(tls) = &self.peer.tls {
            certificate::look_again(tls, &self.heard).await;
        }
        explain::not_sent(error, &self.heard, &self.peer, bytes, self.timeout)
    }

    fn headers(&self, payload: &Payload) -> OwnedHeaders {
        let header = |key, value| Header { key, value: Some(value) };
        let format = self.context.format;
        OwnedHeaders::new_with_capacity(4)
            .insert(header("content-type", format.content_type()))
            .insert(header("xtcp-format", format.name()))
            .insert(header("xtcp-batch-id", &payload.id))
            .insert(header("xtcp-hostname", &self.context.hostname))
    }

    /// What the brokers say of the topic, without asking for the topic alone: that would create it at some.
    async fn look(&mut self) -> Result<String, SendError> {
        let producer = self.producer().map_err(SendError::Retry)?;
        let deadline = tokio::time::Instant::now() + self.timeout;
        loop {
            let asking = producer.clone();
            let asked = tokio::task::spawn_blocking(move || {
                asking.client().fetch_metadata(None, Duration::from_secs(2))
            });
            let error = match asked.await {
                Ok(Ok(metadata)) => {
                    let partitions = metadata
                        .topics()
                        .iter()
                        .find(|topic| topic.name() == self.peer.topic)
                        .map(|topic| topic.partitions().len());
                    return Ok(explain::found(metadata.brokers().len(), partitions, &self.peer));
                }
                Ok(Err(error)) => error,
                Err(error) => return Err(SendError::Retry(error.into())),
            };
            // Somebody has said why: it gets no better by waiting.
            if self.heard.knows_why() || tokio::time::Instant::now() >= deadline {
                return Err(self.not_sent(&error, 0).await);
            }
        }
    }

    /// Ends the client apart: it waits for its threads, and one of them may be resolving a name.
    fn give_up_client(&mut self) {
        let Some(producer) = self.producer.take() else { return };
        let ending = thread::Builder::new().name("kafka end".to_owned()).spawn(move || drop(producer));
        if let Err(error) = ending {
            tracing::debug!(%error, "no thread for the end of a kafka client: ended here");
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        self.give_up_client();
    }
}

impl Destination for Topic {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        async move {
            let registry = self.registry.take();
            let topic = self.peer.topic.clone();
            let register = async {
                if let Some(registry) = registry {
                    registry.register_once(&topic).await;
                }
            };
            futures_util::future::join(self.produce(payload), register).await.0
        }
        .boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        // A send that succeeded was acknowledged.
        std::future::ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        self.look().boxed()
    }
}

fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The code of an error, if it has one.
fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)
}

#[cfg(test)]
mod tests;
