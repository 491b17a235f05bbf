//! What became of a message, in words that name the broker, the cause and the fix.

use std::fmt::Write as _;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::{Cause, SendError};
use super::certificate::REFUSED;
use super::heard::{Complaint, Heard};
use super::{Peer, code};

/// Why a message did not arrive, and whether it can.
pub(super) fn not_sent(
    error: &KafkaError,
    heard: &Heard,
    peer: &Peer,
    bytes: usize,
    timeout: Duration,
) -> SendError {
    let Peer { brokers, topic, .. } = peer;
    let problem = match code(error) {
        RDKafkaErrorCode::MessageSizeTooLarge => {
            return SendError::Drop(
                format!(
                    "kafka {brokers}: topic {topic} takes no message of {bytes} bytes: raise max.message.bytes \
                     of the topic (message.max.bytes of the brokers), or lower option message-max-bytes"
                )
                .into(),
            );
        }
        RDKafkaErrorCode::InvalidRecord => {
            return SendError::Drop(
                format!(
                    "kafka {brokers}: topic {topic} refuses the message (INVALID_RECORD): a compacted topic \
                     takes only messages with a key (option key=hostname)"
                )
                .into(),
            );
        }
        RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
            format!("topic {topic} does not exist and the brokers do not create it: create it")
        }
        RDKafkaErrorCode::InvalidTopic => format!("topic {topic:?} is no name that the brokers take"),
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            format!("writing to topic {topic} is not allowed: grant the client Write and Describe")
        }
        RDKafkaErrorCode::ClusterAuthorizationFailed => "the client may not write idempotently: grant it \
             IdempotentWrite, or set idempotence=false"
            .to_owned(),
        RDKafkaErrorCode::UnsupportedCompressionType => {
            "the brokers are too old for the compression: set another one".to_owned()
        }
        RDKafkaErrorCode::NotEnoughReplicas | RDKafkaErrorCode::NotEnoughReplicasAfterAppend => {
            format!("topic {topic} has fewer replicas in sync than its min.insync.replicas")
        }
        other => why(other, error, heard, peer, timeout),
    };
    SendError::Retry(format!("kafka {brokers}: {problem}").into())
}

/// What was heard meanwhile, or else that nothing was.
fn why(code: RDKafkaErrorCode, error: &KafkaError, heard: &Heard, peer: &Peer, timeout: Duration) -> String {
    let complaints = heard.complaints();
    if complaints.is_empty() {
        let silence = match code {
            RDKafkaErrorCode::MessageTimedOut
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut => {
                format!(
                    "no answer within {timeout:?}: a broker is frozen or too slow, or a firewall eats packets"
                )
            }
            _ => error.to_string(),
        };
        // librdkafka says the same thing of a broker only twice a minute: it may be that again.
        let before = heard.before();
        if before.is_empty() {
            silence
        } else {
            format!("{silence}; shortly before: {}", listed(&before, peer))
        }
    } else {
        listed(&complaints, peer)
    }
}

/// What was said of brokers, each with what to do.
fn listed(complaints: &[(String, Complaint)], peer: &Peer) -> String {
    let mut text = String::new();
    for (number, (broker, complaint)) in complaints.iter().enumerate() {
        let between = if number == 0 { "" } else { "; " };
        let whose =
            if broker.is_empty() || *broker == peer.brokers { String::new() } else { format!("{broker}: ") };
        // Writing to a String cannot fail.
        let _ = write!(text, "{between}{whose}{}{}", complaint.text, fix(complaint, peer.tls.is_some()));
    }
    text
}

/// What to do about a complaint, with what joins it to the text.
fn fix(complaint: &Complaint, tls: bool) -> &'static str {
    let says = |part: &str| complaint.text.contains(part);
    match complaint.code {
        RDKafkaErrorCode::Resolve => ": check the name and this host's DNS",
        RDKafkaErrorCode::Authentication => ": check user, password and sasl-mechanism",
        // What was found at a second look says what to do.
        _ if complaint.text.starts_with(REFUSED) => "",
        _ if says(REFUSED) => {
            ": set tls-ca to the authority that signed the broker's certificate, and use a name that it is for"
        }
        _ if says("alert unknown ca") => ": the broker does not know the authority that signed tls-cert",
        _ if says("certificate required") || says("handshake failure") || says("bad certificate") => {
            ": the broker wants a client's certificate that it trusts: set tls-cert and tls-key"
        }
        _ if says("SSL connection closed by peer")
            || says("wrong version number")
            || says("record layer failure")
            || says("packet length too long") =>
        {
            ": the broker speaks no TLS there: set tls=false, or use its TLS port"
        }
        _ if says("Connection refused") => ": is a broker listening there?",
        _ if says("imed out") => ": the broker is frozen or too slow, or a firewall eats packets",
        _ if says("Disconnected") && tls => {
            ": if that lasts, it is another protocol's port, or the broker wants SASL"
        }
        _ if says("Disconnected") => ": if that lasts, the broker wants TLS (tls=true) or SASL there",
        _ => "",
    }
}

/// Why there is no client.
pub(super) fn not_made(error: &KafkaError) -> Cause {
    match error {
        KafkaError::ClientCreation(problem) => {
            let option = [
                ("ssl.ca.location", "tls-ca"),
                ("ssl.certificate.location", "tls-cert"),
                ("ssl.key.location", "tls-key"),
            ]
            .into_iter()
            .find(|(property, _)| problem.contains(property));
            match option {
                Some((_, option)) => format!("option {option}: {problem}").into(),
                None => problem.clone().into(),
            }
        }
        other => other.to_string().into(),
    }
}

/// What a probe says when it got an answer.
pub(super) fn found(brokers: usize, partitions: Option<usize>, peer: &Peer) -> String {
    let (brokers_s, topic) = (if brokers == 1 { "" } else { "s" }, &peer.topic);
    match partitions {
        Some(1) => format!("{brokers} broker{brokers_s}, topic {topic} has 1 partition"),
        Some(partitions) => format!("{brokers} broker{brokers_s}, topic {topic} has {partitions} partitions"),
        None => format!(
            "{brokers} broker{brokers_s}, topic {topic} is not there: create it, unless the brokers do so at the first message"
        ),
    }
}
