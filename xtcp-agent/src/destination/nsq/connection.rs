//! One connection to an nsqd: its frames, who we are, and a message at a time.
//!
//! A frame is a length, a kind and data, numbers of 32 bits with the highest byte first; a command is a line, and a
//! length and a body behind it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::super::explain::error_text;
use super::Nsq;
use crate::tls::{self, Tls};

/// The first bytes of a connection.
const MAGIC: &[u8] = b"  V2";

/// No frame that a publisher gets is longer; what is, is another protocol.
const LONGEST_FRAME: usize = 64 << 10;

/// How long an error may take that nsqd sends before it hangs up.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How soon a peer that vanished without a word is noticed while nothing is sent.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// There is none.
    #[error("cannot connect: {}", error_text(.0))]
    Connect(io::Error),
    /// No TLS, with what was found in the server's certificate.
    #[error("TLS: {0}")]
    Tls(String),
    /// The server was asked for TLS and has none.
    #[error("nsqd speaks no TLS: start it with -tls-cert and -tls-key, or set tls=false")]
    NoTls,
    /// The server wants to know who we are.
    #[error("nsqd wants a secret (auth_required): set token or token-file")]
    NoToken,
    /// It broke.
    #[error("the connection broke: {}", error_text(.0))]
    Broke(io::Error),
    /// The server ended it.
    #[error("nsqd closed the connection")]
    Closed,
    /// An error frame: `E_CODE words`.
    #[error("nsqd says {0}")]
    Refused(String),
    /// Not the protocol.
    #[error("the answer is not nsqd's: {0}: is that its TCP port?")]
    Garbage(String),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// What a connection is made of, with and without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Frames = FramedRead<Box<dyn Stream>, LengthDelimitedCodec>;

/// What nsqd answers to IDENTIFY.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Identified {
    version: String,
    tls_v1: bool,
    auth_required: bool,
}

/// A connection on which messages can be published.
pub(super) struct Connection {
    frames: Frames,
    version: String,
    secured: bool,
}

impl Connection {
    /// Connects and says who we are.
    pub(super) async fn open(nsq: &Nsq, hostname: &str) -> Result<Self, ConnectionError> {
        let tcp = TcpStream::connect((nsq.address.host.as_str(), nsq.address.port))
            .await
            .map_err(ConnectionError::Connect)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
        SockRef::from(&tcp).set_tcp_keepalive(&keepalive).map_err(ConnectionError::Broke)?;
        tcp.set_nodelay(true).map_err(ConnectionError::Broke)?;
        let mut this =
            Self { frames: frames(Box::new(tcp)), version: String::new(), secured: nsq.tls.is_some() };
        this.write(&[MAGIC]).await?;
        let who = serde_json::json!({
            "client_id": nsq.client_id,
            "hostname": hostname,
            "user_agent": concat!("xtcp2-agent/", env!("CARGO_PKG_VERSION")),
            "feature_negotiation": true,
            "tls_v1": nsq.tls.is_some(),
            // Nobody is there to answer between two messages; the kernel's keepalive does that.
            "heartbeat_interval": -1,
        });
        let answer = this.ask(&[b"IDENTIFY\n"], who.to_string().as_bytes()).await?;
        let identified: Identified =
            serde_json::from_slice(&answer).map_err(|_| ConnectionError::Garbage(shown(&answer)))?;
        this.version = identified.version;
        if let Some(tls) = &nsq.tls {
            if !identified.tls_v1 {
                return Err(ConnectionError::NoTls);
            }
            this = this.secure(tls, &nsq.address.host).await?;
        }
        match &nsq.token {
            Some(token) => drop(this.ask(&[b"AUTH\n"], token.as_bytes()).await?),
            None if identified.auth_required => return Err(ConnectionError::NoToken),
            None => {}
        }
        Ok(this)
    }

    /// The same connection inside TLS.
    async fn secure(self, tls: &Tls, host: &str) -> Result<Self, ConnectionError> {
        let failed = |problem: &dyn std::fmt::Display| ConnectionError::Tls(problem.to_string());
        let config = tls.client().map_err(|error| failed(&error))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, self.frames.into_inner());
        let stream = connecting.await.map_err(|error| failed(&tls::explain(&error)))?;
        let mut this = Self { frames: frames(Box::new(stream)), version: self.version, secured: true };
        this.expect_ok().await.map_err(|error| match error {
            // A certificate that a server refuses is heard of after the handshake.
            ConnectionError::Broke(error) => failed(&tls::explain(&error)),
            other => other,
        })?;
        Ok(this)
    }

    /// Publishes one message and waits for its OK.
    pub(super) async fn publish(&mut self, topic: &str, body: &[u8]) -> Result<(), ConnectionError> {
        match self.command(&[b"PUB ", topic.as_bytes(), b"\n"], body).await {
            Ok(()) => self.expect_ok().await,
            // It hangs up in the middle of a message that it refuses, and says why before.
            Err(broke) => match tokio::time::timeout(LAST_WORDS, self.response()).await {
                Ok(Err(refused @ ConnectionError::Refused(_))) => Err(refused),
                _ => Err(broke),
            },
        }
    }

    /// What was found at the other end.
    pub(super) fn greeting(&self) -> String {
        format!("nsqd {}{}", self.version, if self.secured { ", TLS" } else { "" })
    }

    async fn ask(&mut self, command: &[&[u8]], body: &[u8]) -> Result<BytesMut, ConnectionError> {
        self.command(command, body).await?;
        self.response().await
    }

    async fn command(&mut self, command: &[&[u8]], body: &[u8]) -> Result<(), ConnectionError> {
        let length = u32::try_from(body.len())
            .map_err(|_| ConnectionError::Broke(io::Error::other("a body of more than 4 GiB")))?;
        let head = [command.concat(), length.to_be_bytes().to_vec()].concat();
        self.write(&[&head, body]).await
    }

    async fn write(&mut self, parts: &[&[u8]]) -> Result<(), ConnectionError> {
        let stream = self.frames.get_mut();
        for part in parts {
            stream.write_all(part).await.map_err(ConnectionError::Broke)?;
        }
        stream.flush().await.map_err(ConnectionError::Broke)
    }

    async fn expect_ok(&mut self) -> Result<(), ConnectionError> {
        let answer = self.response().await?;
        if &*answer == b"OK" { Ok(()) } else { Err(ConnectionError::Garbage(shown(&answer))) }
    }

    /// The next response that is not a heartbeat.
    async fn response(&mut self) -> Result<BytesMut, ConnectionError> {
        loop {
            let frame = self.frames.next().await;
            if let Some(response) = self.understand(frame).await? {
                return Ok(response);
            }
        }
    }

    /// A frame's data; nothing when it was a heartbeat, which is answered.
    async fn understand(
        &mut self,
        frame: Option<io::Result<BytesMut>>,
    ) -> Result<Option<BytesMut>, ConnectionError> {
        let mut frame = match frame {
            None => return Err(ConnectionError::Closed),
            Some(Ok(frame)) => frame,
            // A length that no frame has.
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(ConnectionError::Garbage(error.to_string()));
            }
            // Bytes that are no whole frame, and then the end.
            Some(Err(error)) if error.kind() == io::ErrorKind::Other => return Err(ConnectionError::Closed),
            Some(Err(error)) => return Err(ConnectionError::Broke(error)),
        };
        let Some((kind, _)) = frame.split_first_chunk::<4>() else {
            return Err(ConnectionError::Garbage(shown(&frame)));
        };
        let kind = u32::from_be_bytes(*kind);
        let data = frame.split_off(4);
        match kind {
            0 if &*data == b"_heartbeat_" => {
                self.write(&[b"NOP\n"]).await?;
                Ok(None)
            }
            0 => Ok(Some(data)),
            1 => Err(ConnectionError::Refused(shown(&data))),
            other => Err(ConnectionError::Garbage(format!("frame type {other}"))),
        }
    }
}

fn frames(stream: Box<dyn Stream>) -> Frames {
    let codec = LengthDelimitedCodec::builder().max_frame_length(LONGEST_FRAME).new_codec();
    FramedRead::new(stream, codec)
}

/// The beginning of what a peer said, fit for a line.
fn shown(data: &[u8]) -> String {
    let start = data.get(..200).unwrap_or(data);
    let text: String = String::from_utf8_lossy(start).chars().filter(|c| !c.is_control()).collect();
    text.trim().to_owned()
}
