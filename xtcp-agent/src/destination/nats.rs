//! `nats:HOST:PORT[,HOST:PORT…]`: each payload is one message, on the topic as its subject.
//!
//! Core NATS acknowledges nothing. A send ends when a message of ours to ourselves has come back behind the payload: the
//! server had taken it, whoever was subscribed then has it. With `jetstream=true` the stream's acknowledgement ends it.
//! A connection is used until something is wrong with it; the client's own reconnecting, and what it would hold back for
//! that, is given up for a new connection at the next send.

mod link;

use std::sync::Arc;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{HeaderMap, ServerAddr, Subject};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::host_port::HostPort;
use super::options::{OptionInfo, Options};
use super::scheme::Built;
use super::{Cause, Context, Destination, Opener, Payload, SendError};
use crate::tls::{self, Tls};
use link::Link;

pub(super) const BUILT: Built = Built { parse, options: &[OWN, tls::OPTIONS] };

const OWN: &[OptionInfo] = &[
    OptionInfo::new(
        "jetstream",
        "true|false, default false",
        "Send to the stream that takes the subject, and wait for its acknowledgement.",
    ),
    OptionInfo::new("user", "NAME", "Name to log in with."),
    OptionInfo::new("password", "TEXT", "Password of user."),
    OptionInfo::new("password-file", "PATH", "File with the password."),
    OptionInfo::new("token", "TEXT", "Token to log in with."),
    OptionInfo::new("token-file", "PATH", "File with the token."),
    OptionInfo::new("creds", "PATH", "Credentials file with a JWT and its key."),
    OptionInfo::new("nkey-file", "PATH", "File with the seed of an NKey."),
    OptionInfo::new("tls", "true|false, default false", "Insist on TLS; implied by the other tls- options."),
    OptionInfo::new(
        "max-payload",
        "SIZE, default 1MiB",
        "The server's max_payload; larger batches are split.",
    ),
];

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_PAYLOAD: u64 = 1 << 20;
/// What the headers of a message take of the server's limit, at most.
const HEADERS: u64 = 1 << 10;

/// Who we say that we are.
#[derive(Clone)]
enum Login {
    Nobody,
    Password(String, String),
    Token(String),
    Creds(std::path::PathBuf),
    NKey(String),
}

/// What an address says.
struct Settings {
    servers: Vec<ServerAddr>,
    shown: String,
    login: Login,
    tls: Tls,
    secure: bool,
    jetstream: bool,
    timeout: Duration,
    max_payload: u64,
}

struct Nats(Arc<Settings>);

fn parse(rest: &str, options: &Options) -> Result<Arc<dyn Opener>, String> {
    let places = rest.strip_prefix("//").unwrap_or(rest);
    let mut servers = Vec::new();
    for place in places.split(',') {
        let place = HostPort::parse(place)?;
        let url = format!("nats://{place}");
        servers.push(url.parse().map_err(|error| format!("{place}: {error}"))?);
    }
    let tls = Tls::from_options(options)?;
    let seconds = Duration::from_secs;
    Ok(Arc::new(Nats(Arc::new(Settings {
        servers,
        shown: format!("nats {places}"),
        login: login(options)?,
        secure: options.switch("tls")?.unwrap_or(false) || tls.is_wanted(),
        tls,
        jetstream: options.switch("jetstream")?.unwrap_or(false),
        timeout: options.duration("timeout", Duration::from_millis(100), seconds(300))?.unwrap_or(TIMEOUT),
        max_payload: options.bytes("max-payload", 4 << 10, 64 << 20)?.unwrap_or(MAX_PAYLOAD),
    }))))
}

fn login(options: &Options) -> Result<Login, String> {
    let user = options.text("user").map(str::to_owned);
    let (password, token) = (options.secret("password")?, options.secret("token")?);
    let mut logins = Vec::new();
    match (user, password) {
        (Some(user), password) => logins.push(Login::Password(user, password.unwrap_or_default())),
        (None, Some(_)) => return Err("option password needs user beside it".to_owned()),
        (None, None) => {}
    }
    logins.extend(token.map(Login::Token));
    logins.extend(options.path("creds").map(Login::Creds));
    logins.extend(options.secret("nkey")?.map(|seed| Login::NKey(seed.trim().to_owned())));
    if logins.len() > 1 {
        return Err("options user, token, creds and nkey-file exclude each other".to_owned());
    }
    Ok(logins.pop().unwrap_or(Login::Nobody))
}

impl Opener for Nats {
    fn open(&self, context: &Context) -> Result<Box<dyn Destination>, Cause> {
        let topic = context.topic.as_str();
        let is_token = |token: &str| !matches!(token, "" | "*" | ">") && !token.contains(char::is_whitespace);
        if !topic.split('.').all(is_token) {
            return Err(format!("{topic:?} is no subject to send on: words with a dot between them").into());
        }
        // A file that is missing or wrong is better told at the start than at the first batch.
        if self.0.secure {
            self.0.tls.client()?;
        }
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", context.format.content_type());
        if !context.hostname.contains(['\r', '\n']) {
            headers.insert("xtcp-host", &*context.hostname);
        }
        Ok(Box::new(Sender {
            settings: Arc::clone(&self.0),
            name: format!("xtcp2-agent on {}", context.hostname),
            subject: Subject::from(topic),
            headers,
            link: None,
        }))
    }

    fn max_payload(&self) -> Option<usize> {
        usize::try_from(self.0.max_payload - HEADERS).ok()
    }

    fn patience(&self) -> Option<Duration> {
        // A connection to each server, and the answer.
        let servers = u32::try_from(self.0.servers.len()).unwrap_or(u32::MAX);
        Some(self.0.timeout.saturating_mul(servers.saturating_add(2)))
    }
}

struct Sender {
    settings: Arc<Settings>,
    name: String,
    subject: Subject,
    headers: HeaderMap,
    link: Option<Link>,
}

impl Sender {
    async fn deliver(&mut self, payload: &Payload) -> Result<(), SendError> {
        // Out of here while it is used: what ends early, or with an error, does not put it back.
        let mut link = self.link().await?;
        let mut headers = self.headers.clone();
        headers.insert(NATS_MESSAGE_ID, &*payload.id);
        headers.insert("xtcp-batch-id", &*payload.id);
        headers.insert("xtcp-rows", payload.rows.to_string().as_str());
        let sent = if self.settings.jetstream {
            link.store(&self.subject, headers, payload.bytes.clone()).await
        } else {
            link.publish(&self.subject, headers, payload.bytes.clone()).await
        };
        if matches!(sent, Ok(()) | Err(SendError::Drop(_))) {
            self.link = Some(link);
        }
        sent
    }

    async fn link(&mut self) -> Result<Link, SendError> {
        match self.link.take() {
            Some(link) if link.is_whole() => Ok(link),
            _ => Link::connect(&self.settings, &self.name).await,
        }
    }

    async fn look(&mut self) -> Result<String, SendError> {
        let mut link = self.link().await?;
        let found = link.look(&self.subject, self.settings.jetstream).await?;
        self.link = Some(link);
        Ok(found)
    }
}

impl Destination for Sender {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        self.deliver(payload).boxed()
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>> {
        // A send that succeeded was taken by the server.
        std::future::ready(Ok(())).boxed()
    }

    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>> {
        self.look().boxed()
    }
}

#[cfg(test)]
mod tests;
