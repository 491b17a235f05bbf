//! One connection to a NATS server, from its first byte to the first thing that is wrong with it.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, PublishErrorKind as StreamErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, PublishErrorKind, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::{Login, Settings};
use crate::destination::SendError;
use crate::tls;

/// How long a server's complaint about the first message may come behind our own message to us.
const SETTLING: Duration = Duration::from_millis(50);

pub(super) struct Link {
    shown: String,
    client: Client,
    stream: jetstream::Context,
    /// Where our messages to ourselves come back.
    echo: Subscriber,
    inbox: Subject,
    /// What is wrong with it, once something is.
    problem: watch::Receiver<Option<String>>,
    /// Whether a message went through.
    proven: bool,
    timeout: Duration,
}

impl Link {
    pub(super) async fn connect(settings: &Settings, name: &str) -> Result<Self, SendError> {
        let shown = settings.shown.as_str();
        let (said, problem) = watch::channel(None);
        let options = login(settings)?
            .name(name)
            .connection_timeout(settings.timeout)
            // As many attempts as servers, and then an end: whoever sends again connects again.
            .max_reconnects(settings.servers.len())
            .reconnect_delay_callback(|_| Duration::ZERO)
            .ignore_discovered_servers()
            .skip_subject_validation(true)
            .event_callback(move |event| {
                if let Some(problem) = problem_of(&event) {
                    // The first is the cause, what follows it are consequences.
                    said.send_if_modified(|known| {
                        let first = known.is_none();
                        known.get_or_insert(problem);
                        first
                    });
                }
                std::future::ready(())
            });
        let options = match settings.tls.client() {
            Ok(tls) => options.tls_client_config(tls),
            Err(error) if settings.secure => {
                return Err(SendError::Retry(format!("{shown}: {error}").into()));
            }
            // Who does not ask for TLS may do without authorities.
            Err(_) => options,
        };
        let client = options.require_tls(settings.secure).connect(settings.servers.clone()).await.map_err(
            |error| {
                SendError::Retry(
                    format!("{shown}: cannot connect: {}{}", tls::explain(&error), hint(&error)).into(),
                )
            },
        )?;
        let inbox = client.new_inbox();
        let echo = client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| SendError::Retry(format!("{shown}: {}", tls::explain(&error)).into()))?;
        let stream = ContextBuilder::new()
            .timeout(settings.timeout)
            .ack_timeout(settings.timeout)
            .build(client.clone());
        Ok(Self {
            shown: shown.to_owned(),
            client,
            stream,
            echo,
            inbox: inbox.into(),
            problem,
            proven: false,
            timeout: settings.timeout,
        })
    }

    /// Whether nothing is known to be wrong with it.
    pub(super) fn is_whole(&self) -> bool {
        self.problem.borrow().is_none() && self.problem.has_changed().is_ok()
    }

    /// Sends a message and waits until the server has taken it.
    pub(super) async fn publish(
        &mut self,
        subject: &Subject,
        headers: HeaderMap,
        bytes: Bytes,
    ) -> Result<(), SendError> {
        let published = self.client.publish_with_headers(subject.clone(), headers, bytes).await;
        if let Err(error) = published {
            let told = tls::explain(&error);
            return Err(match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => self.too_large(&told),
                PublishErrorKind::InvalidSubject | PublishErrorKind::Send => self.retry(&told),
            });
        }
        self.round_trip(subject).await
    }

    /// Waits until the server has done all that it was told before.
    async fn round_trip(&mut self, subject: &Subject) -> Result<(), SendError> {
        if let Err(error) = self.client.publish(self.inbox.clone(), Bytes::new()).await {
            return Err(self.retry(&tls::explain(&error)));
        }
        let back = tokio::select! {
            biased;
            problem = told(&mut self.problem) => Err(problem),
            message = self.echo.next() => message.map(drop).ok_or_else(|| "the connection is closed".to_owned()),
            () = tokio::time::sleep(self.timeout) => Err(format!("no answer within {:?}", self.timeout)),
        };
        if let Err(problem) = back {
            return Err(self.retry(&with_advice(&problem, subject)));
        }
        if !self.proven {
            // Complaints take another way through the client than messages.
            if let Ok(problem) = tokio::time::timeout(SETTLING, told(&mut self.problem)).await {
                return Err(self.retry(&with_advice(&problem, subject)));
            }
            self.proven = true;
        }
        Ok(())
    }

    /// Sends a message and waits until a stream has stored it.
    pub(super) async fn store(
        &mut self,
        subject: &Subject,
        headers: HeaderMap,
        bytes: Bytes,
    ) -> Result<(), SendError> {
        let published =
            async { self.stream.publish_with_headers(subject.clone(), headers, bytes).await?.await };
        let error = tokio::select! {
            biased;
            problem = told(&mut self.problem) => return Err(self.retry(&with_advice(&problem, subject))),
            stored = published => match stored {
                Ok(_) => return Ok(()),
                Err(error) => error,
            },
        };
        let told = tls::explain(&error);
        Err(match error.kind() {
            StreamErrorKind::MaxPayloadExceeded => self.too_large(&told),
            StreamErrorKind::StreamNotFound => self.retry(&format!(
                "no stream takes subject {subject}: make one (nats stream add --subjects {subject})"
            )),
            StreamErrorKind::TimedOut => self.retry(&format!("no acknowledgement within {:?}", self.timeout)),
            _ => self.refused(&error, &told),
        })
    }

    /// What a stream says instead of an acknowledgement.
    fn refused(&self, error: &jetstream::context::PublishError, told: &str) -> SendError {
        let code = std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<jetstream::Error>())
            .map(jetstream::Error::error_code);
        if code == Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) {
            return self.too_large(&format!("{told} (max_msg_size of the stream)"));
        }
        self.retry(told)
    }

    /// For `check`: what is there.
    pub(super) async fn look(&mut self, subject: &Subject, jetstream: bool) -> Result<String, SendError> {
        self.round_trip(subject).await?;
        let info = self.client.server_info();
        let mut found = format!("NATS {}", info.version);
        if jetstream {
            let stream = self.stream.stream_by_subject(subject.to_string()).await;
            let name = stream.map_err(|error| {
                self.retry(&format!("no stream takes subject {subject} ({}): make one", tls::explain(&error)))
            })?;
            let _ = write!(found, ", stream {name} takes subject {subject}");
        }
        Ok(found)
    }

    fn retry(&self, problem: &str) -> SendError {
        SendError::Retry(format!("{}: {problem}", self.shown).into())
    }

    fn too_large(&self, problem: &str) -> SendError {
        let most = self.client.max_payload();
        SendError::Drop(
            format!("{}: {problem}: the server takes {most} bytes, set max-payload to less", self.shown)
                .into(),
        )
    }
}

fn login(settings: &Settings) -> Result<ConnectOptions, SendError> {
    let options = ConnectOptions::new();
    Ok(match settings.login.clone() {
        Login::Nobody => options,
        Login::Password(user, password) => options.user_and_password(user, password),
        Login::Token(token) => options.token(token),
        Login::NKey(seed) => options.nkey(seed),
        Login::Creds(path) => {
            let failed = |error: std::io::Error| {
                let text = format!("{}: creds {}: {error}", settings.shown, path.display());
                SendError::Retry(text.into())
            };
            options.credentials(&fs::read_to_string(&path).map_err(failed)?).map_err(failed)?
        }
    })
}

/// What an event says is wrong, if anything.
fn problem_of(event: &Event) -> Option<String> {
    match event {
        Event::Disconnected => Some("the connection is lost".to_owned()),
        Event::ServerError(error) => Some(format!("the server says: {error}")),
        Event::ClientError(error) => Some(error.to_string()),
        Event::LameDuckMode => Some("the server is about to end".to_owned()),
        Event::Closed => Some("the connection is closed".to_owned()),
        Event::Connected | Event::Draining | Event::SlowConsumer(_) => None,
    }
}

/// What is wrong, as soon as something is.
async fn told(problem: &mut watch::Receiver<Option<String>>) -> String {
    match problem.wait_for(Option::is_some).await {
        Ok(problem) => problem.clone().unwrap_or_default(),
        Err(_) => "the connection is closed".to_owned(),
    }
}

fn with_advice(problem: &str, subject: &Subject) -> String {
    if problem.to_ascii_lowercase().contains("permissions violation") {
        return format!("{problem}: allow the user to publish on {subject} and to use _INBOX.>");
    }
    problem.to_owned()
}

fn hint(error: &async_nats::ConnectError) -> &'static str {
    match error.kind() {
        async_nats::ConnectErrorKind::AuthorizationViolation
        | async_nats::ConnectErrorKind::Authentication => {
            ": check user and password, token, creds or nkey-file"
        }
        async_nats::ConnectErrorKind::Dns => ": check the name and the resolver (DNS)",
        _ => "",
    }
}
