//! What librdkafka says beside the fate of messages: why connections fail, and its log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::Statistics;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// How many complaints are kept, and how many are known to have been logged.
const KEPT: usize = 16;

/// How long a complaint is not logged again.
const QUIET: Duration = Duration::from_secs(60);

/// librdkafka says the same thing of a broker only twice a minute: what it said so long ago may still be so.
const STANDS: Duration = Duration::from_secs(60);

/// Where the log says that a connection has failed; only some of these come as errors, too.
const FAILED: &str = "FAIL";

/// What was said of connections.
#[derive(Default)]
pub(super) struct Heard {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The last complaint of each broker, by its address.
    complaints: BTreeMap<String, Complaint>,
    /// When the last message arrived.
    arrived: Option<Instant>,
    /// When each text was last logged.
    logged: BTreeMap<String, Instant>,
}

/// Why a broker cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// librdkafka's class of it.
    pub(super) code: RDKafkaErrorCode,
    /// Its words, without the broker's address.
    pub(super) text: String,
    /// When it was said.
    at: Instant,
}

impl Heard {
    /// The last complaint of each broker since a message arrived.
    pub(super) fn complaints(&self) -> Vec<(String, Complaint)> {
        self.said(|complaint, arrived| arrived.is_none_or(|arrived| complaint.at > arrived))
    }

    /// The last complaint of each broker from the minute before now, and before a message arrived.
    pub(super) fn before(&self) -> Vec<(String, Complaint)> {
        let now = Instant::now();
        self.said(|complaint, arrived| {
            arrived.is_some_and(|arrived| complaint.at <= arrived)
                && now.duration_since(complaint.at) < STANDS
        })
    }

    fn said(&self, wanted: impl Fn(&Complaint, Option<Instant>) -> bool) -> Vec<(String, Complaint)> {
        let inner = self.lock();
        let all = inner.complaints.iter().filter(|(_, complaint)| wanted(complaint, inner.arrived));
        all.map(|(broker, complaint)| (broker.clone(), complaint.clone())).collect()
    }

    /// Whether anything was said that explains a failure.
    pub(super) fn knows_why(&self) -> bool {
        !self.complaints().is_empty()
    }

    /// A message arrived: what was said before is over.
    pub(super) fn arrived(&self) {
        self.lock().arrived = Some(Instant::now());
    }

    /// Says better what is wrong with a broker, if that is still what is known of it.
    pub(super) fn amend(&self, broker: &str, known: &Complaint, text: String) {
        match self.lock().complaints.get_mut(broker) {
            Some(complaint) if complaint == known => complaint.text = text,
            _ => {}
        }
    }

    /// Notes what an error event says.
    fn note(&self, code: RDKafkaErrorCode, reason: &str) {
        // That all are down is known by then; why they are was said before.
        if code == RDKafkaErrorCode::AllBrokersDown {
            return;
        }
        let (broker, text) = apart(reason);
        let (mut inner, at) = (self.lock(), Instant::now());
        if inner.complaints.len() < KEPT || inner.complaints.contains_key(&broker) {
            inner.complaints.insert(broker, Complaint { code, text, at });
        }
    }

    /// Whether a text may be logged now: not twice in [`QUIET`].
    fn may_log(&self, text: &str, now: Instant) -> bool {
        let logged = &mut self.lock().logged;
        logged.retain(|_, last| now.duration_since(*last) < QUIET);
        if logged.len() >= KEPT || logged.contains_key(text) {
            return false;
        }
        logged.insert(text.to_owned(), now);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `ssl://HOST:PORT/ID: words (after 3ms in state CONNECT, …)` as the broker's address and the words.
fn apart(reason: &str) -> (String, String) {
    let reason = steady(reason);
    match reason.split_once(": ") {
        Some((broker, words)) if broker.contains('/') => {
            let place = broker.split_once("://").map_or(broker, |(_, place)| place);
            (place.split('/').next().unwrap_or(place).to_owned(), words.to_owned())
        }
        _ => (String::new(), reason.to_owned()),
    }
}

/// A text without what differs each time it is said.
fn steady(text: &str) -> &str {
    text.split(" (after ").next().unwrap_or(text).trim_end()
}

/// What a client tells its news.
pub(super) struct Ear(Arc<Heard>);

impl Ear {
    /// For one client.
    pub(super) fn new(heard: &Arc<Heard>) -> Self {
        Self(Arc::clone(heard))
    }
}

impl ClientContext for Ear {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // `[thrd:127.0.0.1:9092/bootstrap]: ` says nothing that follows does not.
        let text = message
            .strip_prefix("[thrd:")
            .and_then(|rest| rest.split_once("]: "))
            .map_or(message, |(_, text)| text);
        if facility == FAILED {
            self.0.note(RDKafkaErrorCode::BrokerTransportFailure, text);
        }
        let text = steady(text);
        if !self.0.may_log(text, Instant::now()) {
            return;
        }
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, "kafka: {text}"),
            // Among them that a broker has closed a connection on which nothing was sent for long.
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(facility, "kafka: {text}");
            }
        }
    }

    fn stats(&self, _: Statistics) {}

    /// Kept for the error of the message that fails; librdkafka also logs it.
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.note(super::code(&error), reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_known_by_its_broker_without_what_differs_each_time() {
        let heard = Heard::default();
        for milliseconds in [0, 7] {
            heard.note(
                RDKafkaErrorCode::BrokerTransportFailure,
                &format!("ssl://127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after {milliseconds}ms in state CONNECT)"),
            );
        }
        heard.note(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        let known: Vec<_> =
            heard.complaints().into_iter().map(|(broker, said)| (broker, said.text)).collect();
        let text = "Connect to ipv4#127.0.0.1:1 failed: Connection refused".to_owned();
        assert_eq!(known, [("127.0.0.1:1".to_owned(), text)]);
    }

    #[test]
    fn what_was_said_before_a_message_arrived_is_told_apart() {
        let heard = Heard::default();
        heard.note(RDKafkaErrorCode::Resolve, "a:1/bootstrap: before");
        let texts =
            |said: Vec<(String, Complaint)>| said.into_iter().map(|(_, said)| said.text).collect::<Vec<_>>();
        assert_eq!(texts(heard.complaints()), ["before"]);
        heard.arrived();
        assert!(!heard.knows_why());
        heard.note(RDKafkaErrorCode::Resolve, "b:1/1: after");
        assert_eq!(
            (texts(heard.complaints()), texts(heard.before())),
            (vec!["after".to_owned()], vec!["before".to_owned()])
        );
    }

    #[test]
    fn the_same_text_is_logged_once_a_minute_and_never_more_than_a_handful() {
        let (heard, start) = (Heard::default(), Instant::now());
        assert!(heard.may_log("refused", start));
        assert!(!heard.may_log("refused", start + QUIET / 2));
        assert!(heard.may_log("resolved", start + QUIET / 2));
        assert!(heard.may_log("refused", start + QUIET));
        let many = (0..100).filter(|number| heard.may_log(&number.to_string(), start + QUIET)).count();
        assert!(many <= KEPT, "{many}");
    }
}
