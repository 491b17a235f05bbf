//! `unix:PATH`: a stream of batches to whoever listens on that socket.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::UnixStream;

use super::Opener;
use super::options::Options;
use super::scheme::Built;
use super::stream::{self, Peer, Socket, common_fix};

pub(super) const BUILT: Built = Built { parse, options: &[&stream::OPTIONS] };

fn parse(rest: &str, options: &Options) -> Result<Arc<dyn Opener>, String> {
    stream::opener(Listener(socket_path(rest)?), options)
}

/// A path that a socket can have.
pub(super) fn socket_path(rest: &str) -> Result<PathBuf, String> {
    // `sockaddr_un.sun_path` in `linux/un.h`, with the zero behind it.
    const LONGEST: usize = 107;
    match rest.len() {
        0 => Err("there is no path".to_owned()),
        1..=LONGEST => Ok(PathBuf::from(rest)),
        length => Err(format!("the path has {length} bytes; a socket's has at most {LONGEST}")),
    }
}

/// What to do about an error of connecting to a path.
pub(super) fn fix(error: &io::Error) -> String {
    if let Some(fix) = common_fix(error) {
        return fix.to_owned();
    }
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::NotFound, _) => "there is no such socket: start the receiver or mend the path",
        (ErrorKind::PermissionDenied, _) => "let the agent's user write to the socket and enter its folders",
        (_, Some(libc::EPROTOTYPE)) => {
            "the receiver's socket is of the other kind: unix: is a stream, unixgram: takes datagrams"
        }
        _ => "look at the path",
    }
    .to_owned()
}

struct Listener(PathBuf);

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix {}", self.0.display())
    }
}

impl Peer for Listener {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Socket>>> {
        async { Ok(Box::new(UnixStream::connect(&self.0).await?) as Box<dyn Socket>) }.boxed()
    }

    fn fix(&self, error: &io::Error) -> String {
        fix(error)
    }
}
