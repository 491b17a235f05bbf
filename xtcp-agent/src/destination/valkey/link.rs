//! One connection to a Valkey or Redis server, with no task behind it: whoever asks moves it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisConnectionInfo, RedisError, Value};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Settings;
use crate::destination::SendError;
use crate::destination::explain::error_text;
use crate::destination::host_port::HostPort;
use crate::tls;

pub(super) struct Link {
    connection: MultiplexedConnection,
    /// What reads and writes; it ends with the connection.
    driver: BoxFuture<'static, ()>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Link {
    pub(super) async fn connect(settings: &Settings) -> Result<Self, Failure> {
        let patience = settings.timeout;
        timeout(patience, Self::set_up(settings))
            .await
            .unwrap_or_else(|_| Err(Failure::new(format!("cannot connect: no answer within {patience:?}"))))
    }

    async fn set_up(settings: &Settings) -> Result<Self, Failure> {
        let place = &settings.place;
        let failed = |error: std::io::Error| Failure::new(format!("cannot connect: {}", error_text(&error)));
        let socket = TcpStream::connect((place.host.as_str(), place.port)).await.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let stream: Box<dyn Stream> = match &settings.tls {
            None => Box::new(socket),
            Some(tls) => {
                let config = tls.client().map_err(|error| Failure::new(error.to_string()))?;
                let name = ServerName::try_from(place.host.clone()).map_err(|_| {
                    Failure::new(format!("{:?} is no name that a certificate can have", place.host))
                })?;
                let secured = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
                Box::new(
                    secured
                        .map_err(|error| Failure::new(format!("cannot connect: {}", tls::explain(&error))))?,
                )
            }
        };
        let mut info = RedisConnectionInfo::default()
            .set_db(settings.database)
            .set_lib_name("xtcp2-agent", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &settings.user {
            info = info.set_username(user);
        }
        if let Some(password) = &settings.password {
            info = info.set_password(password);
        }
        // Its own bound of half a second is not for a server that is busy.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| Failure::of(&error))?;
        Ok(Self { connection, driver: driver.boxed() })
    }

    /// Itself, unless the server has closed it meanwhile.
    pub(super) fn if_whole(mut self) -> Option<Self> {
        match (&mut self.driver).now_or_never() {
            None => Some(self),
            Some(()) => None,
        }
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn ask(&mut self, command: &Cmd, patience: Duration) -> Result<Value, Failure> {
        tokio::select! {
            biased;
            answer = command.query_async(&mut self.connection) => answer.map_err(|error| Failure::of(&error)),
            () = &mut self.driver => Err(Failure::new("the connection is lost".to_owned())),
            () = tokio::time::sleep(patience) => Err(Failure::new(format!("no answer within {patience:?}"))),
        }
    }
}

/// Why there is no answer, or none that we want.
#[derive(Debug)]
pub(super) struct Failure {
    problem: String,
    code: String,
    too_large: bool,
}

impl Failure {
    pub(super) fn new(problem: String) -> Self {
        Self { problem, code: String::new(), too_large: false }
    }

    fn of(error: &RedisError) -> Self {
        let problem = tls::explain(error);
        // The server's proto-max-bulk-len.
        let too_large = problem.contains("invalid bulk length");
        let code = match error.kind() {
            ErrorKind::AuthenticationFailed => "WRONGPASS",
            _ => error.code().unwrap_or_default(),
        };
        Self { problem, code: code.to_owned(), too_large }
    }

    /// The same with the server's name and what to do.
    pub(super) fn error(&self, place: &HostPort, topic: &str) -> SendError {
        let advice = match self.code.as_str() {
            "NOAUTH" | "WRONGPASS" => ": check user and password",
            "NOPERM" => ": allow the user PUBLISH or XADD on the topic",
            "WRONGTYPE" => ": the topic is a key of another kind, set topic",
            "READONLY" => ": this is a replica, write the address of its primary",
            "MOVED" | "ASK" => ": write the address of the cluster's node that has the topic",
            "OOM" => ": the server's memory is full, lower maxlen or raise maxmemory",
            // The library shows what it comes from only as words.
            _ if self.problem.contains("received fatal alert") => {
                ": it wants a certificate of ours that it trusts: name it with tls-cert and tls-key"
            }
            _ if self.problem.contains("without any password configured") => ": leave password away",
            _ => "",
        };
        let text = format!("valkey {place}, topic {topic}: {}{advice}", self.problem).into();
        if self.too_large { SendError::Drop(text) } else { SendError::Retry(text) }
    }
}
