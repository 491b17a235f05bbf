//! Sockets of container engines, and whether somebody listens there.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::facts::Is;
use crate::workload::socket::{CRI, DOCKER, Sockets};

/// Longest wait for a connection: only an engine with a full queue of them makes one wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// A socket that the agent would ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Engine {
    /// What is spoken there: `Docker API` or `CRI`.
    pub speaks: &'static str,
    /// Where.
    pub socket: PathBuf,
    /// It was named by a setting, not looked for.
    pub named: bool,
    /// Whether it accepts a connection.
    pub listens: Is,
}

/// Tries each socket that these settings name.
pub(super) fn gather(docker: &Sockets, cri: &Sockets) -> Vec<Engine> {
    let of = |speaks, sockets: &Sockets, usual| {
        let named = matches!(sockets, Sockets::At(_));
        let paths = sockets.paths(usual);
        let engine = |socket: PathBuf| Engine { speaks, listens: listens(&socket), socket, named };
        paths.into_iter().map(engine).collect::<Vec<_>>()
    };
    [of("Docker API", docker, DOCKER), of("CRI", cri, CRI)].concat()
}

fn listens(socket: &Path) -> Is {
    let (to, tried) = sync_channel(1);
    let path = socket.to_owned();
    let attempt = thread::Builder::new().name("xtcp-check".to_owned()).spawn(move || {
        // Whoever waited may be gone.
        let _ = to.send(UnixStream::connect(path).map(drop));
    });
    if let Err(error) = attempt {
        return Is::Unknown(error.to_string());
    }
    match tried.recv_timeout(PATIENCE) {
        Ok(Ok(())) => Is::Yes,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Is::No("not there".to_owned()),
        Ok(Err(error)) => Is::No(error.to_string()),
        Err(_) => Is::No("it accepts no connection".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_there_when_somebody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let (live, dead, none) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
        let _listener = UnixListener::bind(&live).unwrap();
        drop(UnixListener::bind(&dead).unwrap());
        let engines = gather(&Sockets::At(vec![live, dead, none]), &Sockets::Off);
        assert!(engines.iter().all(|engine| engine.named && engine.speaks == "Docker API"));
        assert_eq!(engines[0].listens, Is::Yes);
        assert!(matches!(&engines[1].listens, Is::No(why) if why.contains("refused")));
        assert_eq!(engines[2].listens, Is::No("not there".to_owned()));
    }
}
