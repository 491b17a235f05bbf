//! `valkey:HOST:PORT[/DATABASE]`, and Redis: each payload is published on the topic as its channel, or appended to the
//! topic as a stream.
//!
//! PUBLISH is acknowledged whether anybody listens or not, as the protocol has it; a stream keeps what it acknowledges.

mod link;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::Cmd;

use super::host_port::HostPort;
use super::options::{OptionInfo, Options};
use super::scheme::Built;
use super::{Cause, Context, Destination, Opener, Payload, SendError};
use crate::tls::{self, Tls};
use link::{Failure, Link};

pub(super) const BUILT: Built = Built { parse, options: &[OWN, tls::OPTIONS] };

const OWN: &[OptionInfo] = &[
    OptionInfo::new("mode", "pubsub|stream, default pubsub", "PUBLISH on a channel, or XADD to a stream."),
    OptionInfo::new("maxlen", "NUMBER, default 10000", "About how many entries a stream keeps; 0: all."),
    OptionInfo::new("user", "NAME", "Name to log in with."),
    OptionInfo::new("password", "TEXT", "Password."),
    OptionInfo::new("password-file", "PATH", "File with the password."),
    OptionInfo::new("tls", "true|false, default false", "Speak TLS; implied by the other tls- options."),
];

const TIMEOUT: Duration = Duration::from_secs(10);
const MAXLEN: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    PubSub,
    Stream,
}

/// What an address says.
struct Settings {
    place: HostPort,
    database: i64,
    mode: Mode,
    maxlen: u64,
    user: Option<String>,
    password: Option<String>,
    tls: Option<Tls>,
    timeout: Duration,
}

struct Valkey(Arc<Settings>);

fn parse(rest: &str, options: &Options) -> Result<Arc<dyn Opener>, String> {
    let place = rest.strip_prefix("//").unwrap_or(rest);
    let (place, database) = match place.split_once('/') {
        None | Some((_, "")) => (place.trim_end_matches('/'), 0),
        Some((place, database)) => {
            let number =
                database.parse::<u16>().map_err(|_| format!("{database:?} is no database: a number"))?;
            (place, i64::from(number))
        }
    };
    let tls = Tls::from_options(options)?;
    let secure = options.switch("tls")?.unwrap_or(false) || tls.is_wanted();
    let modes = [("pubsub", Mode::PubSub), ("stream", Mode::Stream)];
    let mode = options.one_of("mode", &modes)?.unwrap_or(Mode::PubSub);
    let maxlen = options.number("maxlen", 0, u64::MAX)?;
    if maxlen.is_some() && mode == Mode::PubSub {
        return Err("option maxlen needs mode=stream".to_owned());
    }
    let (user, password) = (options.text("user").map(str::to_owned), options.secret("password")?);
    if user.is_some() && password.is_none() {
        return Err("option user needs password beside it".to_owned());
    }
    let most = Duration::from_secs(300);
    Ok(Arc::new(Valkey(Arc::new(Settings {
        place: HostPort::parse(place)?,
        database,
        mode,
        maxlen: maxlen.unwrap_or(MAXLEN),
        user,
        password,
        tls: secure.then_some(tls),
        timeout: options.duration("timeout", Duration::from_millis(100), most)?.unwrap_or(TIMEOUT),
    }))))
}

impl Opener for Valkey {
    fn open(&self, context: &Context) -> Result<Box<dyn Destination>, Cause> {
        // A file that is missing or wrong is better told at the start than at the first batch.
        if let Some(tls) = &self.0.tls {
            tls.client()?;
        }
        Ok(Box::new(Sender {
            settings: Arc::clone(&self.0),
            topic: context.topic.clone(),
            format: context.format.name(),
            link: None,
        }))
    }

    fn patience(&self) -> Option<Duration> {
        // A connection and an answer.
        Some(self.0.timeout.saturating_mul(3))
    }
}

struct Sender {
    settings: Arc<Settings>,
    topic: String,
    format: &'static str,
    link: Option<Link>,
}

impl Sender {
    fn command(&self, payload: &Payload) -> Cmd {
        let bytes = &*payload.bytes;
        match self.settings.mode {
            Mode::PubSub => {
                let mut command = redis::cmd("PUBLISH");
                command.arg(&self.topic).arg(bytes);
                command
            }
            Mode::Stream => {
                let mut command = redis::cmd("XADD");
                command.arg(&self.topic);
                if self.settings.maxlen > 0 {
                    command.arg("MAXLEN").arg("~").arg(self.settings.maxlen);
                }
                command.arg("*").arg("data").arg(bytes).arg("id").arg(&*payload.id);
                command.arg("format").arg(self.format).arg("rows").arg(payload.rows);
                command
            }
        }
    }

    async fn ask(&mut self, command: &Cmd) -> Result<redis::Value, SendError> {
        // Out of here while it is used: what ends early, or with an error, does not put it back.
        let whole = self.link.take().and_then(Link::if_whole);
        let asked = async {
            let mut link = match whole {
                Some(link) => link,
                None => Link::connect(&self.settings).await?,
            };
            let answer = link.ask(command, self.settings.timeout).await?;
            Ok((link, answer))
        };
        let (link, answer) =
            asked.await.map_err(|failure: Failure| failure.error(&self.settings.place, &self.topic))?;
        self.link = Some(link);
        Ok(answer)
    }

    async fn look(&mut self) -> Result<String, SendError> {
        self.ask(&redis::cmd("PING")).await?;
        let how = if self.settings.tls.is_some() { " over TLS" } else { "" };
        if self.settings.mode == Mode::PubSub {
            return Ok(format!("answers{how}"));
        }
        let mut command = redis::cmd("TYPE");
        match self.ask(command.arg(&self.topic)).await? {
            redis::Value::SimpleString(kind) if kind == "stream" => {
                Ok(format!("answers{how}, has stream {}", self.topic))
            }
            redis::Value::SimpleString(kind) if kind == "none" => {
                Ok(format!("answers{how}, will make stream {}", self.topic))
            }
            other => Err(Failure::new(format!("key {} is no stream but {other:?}: set topic", self.topic))
                .error(&self.settings.place, &self.topic)),
        }
    }
}

impl Destination for Sender {
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>> {
        async move {
            let command = self.command(payload);
            self.ask(&command).await.map(drop)
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

#[cfg(test)]
mod tests;
