//! `nsq:HOST:PORT`: a batch is one message of an nsqd, which says OK when it has it.
//!
//! An nsqd keeps messages in memory and on its own disk: with its OK they are its responsibility, and no other node's.

mod connection;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::host_port::HostPort;
use super::options::{OptionInfo, Options};
use super::scheme::Built;
use super::{Cause, Context, Destination, Opener, Payload, SendError};
use crate::tls::{self, Tls};
use connection::{Connection, ConnectionError};

/// The options of the scheme, beside those of TLS.
const OPTIONS: [OptionInfo; 5] = [
    OptionInfo::new("client-id", "NAME (xtcp2-agent)", "How nsqd's list of clients calls this one."),
    OptionInfo::new(
        "message-max-bytes",
        "16KiB to 900MiB (1MiB)",
        "The largest message; nsqd's -max-msg-size must allow it.",
    ),
    OptionInfo::new(
        "tls",
        "true|false (true with any of the tls- options)",
        "Whether the connection is TLS.",
    ),
    OptionInfo::new("token", "SECRET", "The secret of AUTH."),
    OptionInfo::new("token-file", "PATH", "A file with the secret of AUTH."),
];

pub(super) const BUILT: Built = Built {
    parse: |rest, options| parse(rest, options).map(|nsq| Arc::new(nsq) as _),
    options: &[&OPTIONS, tls::OPTIONS],
};

/// How long a send may take when nothing else is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// An address that was understood.
#[derive(Clone)]
struct Nsq {
    address: HostPort,
    client_id: String,
    token: Option<String>,
    tls: Option<Tls>,
    message_max: usize,
    /// How long a send may take.
    patience: Duration,
    /// How long connecting may take, and then a message.
    timeout: Duration,
}

fn parse(rest: &str, options: &Options) -> Result<Nsq, String> {
    let address = HostPort::parse(rest)?;
    let tls = Tls::from_options(options)?;
    let wants_tls = options.switch("tls")?.unwrap_or(tls.is_wanted());
    if tls.is_wanted() && !wants_tls {
        return Err("the options tls-… need tls=true".to_owned());
    }
    let patience = options.duration("timeout", Duration::ZERO, Duration::MAX)?.unwrap_or(PATIENCE);
    let message_max = options.bytes("message-max-bytes", 16 << 10, 900 << 20)?.unwrap_or(1 << 20);
    Ok(Nsq {
        address,
        client_id: options.text("client-id").unwrap_or("xtcp2-agent").to_owned(),
        token: options.secret("token")?,
        tls: wants_tls.then_some(tls),
        message_max: usize::try_from(message_max).unwrap_or(usize::MAX),
        patience,
        // One for connecting and one for the message.
        timeout: patience / 2,
    })
}

impl Opener for Nsq {
    fn open(&self, context: &Context) -> Result<Box<dyn Destination>, Cause> {
        if !is_topic(&context.topic) {
            return Err(format!(
                "topic {:?} is none that nsqd takes: 1 to 64 of letters, digits, '.', '_' and '-'",
                context.topic
            )
            .into());
        }
        if let Some(tls) = &self.tls {
            // A file that is not there is found now.
            tls.client()?;
        }
        Ok(Box::new(Topic { nsq: self.clone(), context: context.clone(), connection: None }))
    }

    fn max_payload(&self) -> Option<usize> {
        Some(self.message_max)
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.patience)
    }
}

/// What nsqd takes for the name of a topic.
fn is_topic(name: &str) -> bool {
    let stem = name.strip_suffix("#ephemeral").unwrap_or(name);
    (1..=64).contains(&name.len())
        && !stem.is_empty()
        && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// A topic and the connection on which it is written, when there is one.
struct Topic {
    nsq: Nsq,
    context: Context,
    connection: Option<Connection>,
}

impl Topic {
    /// Sends on the connection that is there, or on a new one: after any error there is none.
    async fn publish(&mut self, payload: &Payload) -> Result<(), SendError> {
        if let Some(connection) = self.connection.take() {
            match self.publish_on(connection, payload).await {
                // It had ended since the last message: nothing is known yet of how nsqd is now.
                Err(ConnectionError::Closed | ConnectionError::Broke(_)) => {}
                other => return other.map_err(|error| self.failed(&error)),
            }
        }
        let connection = self.connect().await?;
        self.publish_on(connection, payload).await.map_err(|error| self.failed(&error))
    }

    async fn publish_on(
        &mut self,
        mut connection: Connection,
        payload: &Payload,
    ) -> Result<(), ConnectionError> {
        let topic = &self.context.topic;
        within(self.nsq.timeout, connection.publish(topic, &payload.bytes)).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn connect(&mut self) -> Result<Connection, SendError> {
        let connecting = Connection::open(&self.nsq, &self.context.hostname);
        within(self.nsq.timeout, connecting).await.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &ConnectionError) -> SendError {
        let Nsq { address, .. } = &self.nsq;
        let topic = &self.context.topic;
        let cause = format!("nsq {address}: topic {topic}: {error}{}", fix(error, &self.nsq)).into();
        let refused = |code| matches!(error, ConnectionError::Refused(text) if text.starts_with(code));
        if refused("E_BAD_TOPIC") || refused("E_BAD_MESSAGE") {
            SendError::Drop(cause)
        } else {
            SendError::Retry(cause)
        }
    }
}

/// What to do about an error, with what joins it to the text.
fn fix(error: &ConnectionError, nsq: &Nsq) -> &'static str {
    let ConnectionError::Refused(text) = error else {
        return match error {
            ConnectionError::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                ": is nsqd listening there?"
            }
            ConnectionError::Timeout(_) => ": nsqd is frozen or too slow, or a firewall eats packets",
            _ => "",
        };
    };
    let code = text.split(' ').next().unwrap_or(text);
    match code {
        "E_BAD_MESSAGE" => ": raise -max-msg-size of nsqd, or lower option message-max-bytes",
        "E_INVALID" if text.contains("TLS required") => ": set tls=true",
        "E_AUTH_FIRST" | "E_AUTH_FAILED" | "E_AUTH_ERROR" | "E_UNAUTHORIZED" if nsq.token.is_some() => {
            ": the token gives no right to publish there: check it and what nsqd's -auth-http-address says of it"
        }
        "E_AUTH_FIRST" => ": set token or token-file",
        "E_AUTH_DISABLED" => ": nsqd has no -auth-http-address: leave out token",
        "E_PUB_FAILED" => ": nsqd is ending, or cannot write to its disk",
        _ => "",
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ConnectionError>>,
) -> Result<T, ConnectionError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(ConnectionError::Timeout(limit)))
}

impl Destination for Topic {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        self.publish(payload).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        // A send that succeeded was acknowledged.
        std::future::ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        async {
            let connection = self.connect().await?;
            let found = connection.greeting();
            self.connection = Some(connection);
            Ok(found)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
