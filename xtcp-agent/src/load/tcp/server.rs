//! Servers: each byte that comes goes back.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::super::{LoadError, system};
use super::Load;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Bytes that are taken from a connection at once; all of a thread share them.
const BUFFER: usize = 64 << 10;
/// When to accept again after an error.
const AGAIN: Duration = Duration::from_millis(10);

/// A listener.
pub(super) struct Listener(TcpListener);

impl Listener {
    /// Listens on an address of the calling thread's namespace.
    pub(super) fn bind(address: SocketAddr) -> Result<Self, LoadError> {
        let bind = || -> io::Result<TcpListener> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        };
        bind().map(Self).map_err(system("listen on the address of --address and --port"))
    }

    /// Where it listens.
    pub(super) fn address(&self) -> Result<SocketAddr, LoadError> {
        self.0.local_addr().map_err(system("read the address of a listener"))
    }
}

/// Serves until the servers' end.
pub(super) async fn run(load: &Arc<Load>, listeners: Vec<Listener>) {
    let buffer = Rc::new(RefCell::new(vec![0; BUFFER]));
    for listener in listeners {
        spawn_local(accept(Arc::clone(load), listener.0, Rc::clone(&buffer)));
    }
    load.served.token().cancelled().await;
}

async fn accept(load: Arc<Load>, listener: TcpListener, buffer: Rc<RefCell<Vec<u8>>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                load.accepted.one();
                let (load, buffer) = (Arc::clone(&load), Rc::clone(&buffer));
                spawn_local(async move {
                    let served = serve(&load, &stream, &buffer).await;
                    drop(stream);
                    load.closed.one();
                    match served {
                        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => {
                            load.faults.take(system("serve a connection")(error), &load.stop);
                        }
                        _ => {}
                    }
                });
            }
            Err(error) => {
                load.faults.take(system("accept a connection")(error), &load.stop);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Until the client's end.
async fn serve(load: &Load, stream: &TcpStream, buffer: &RefCell<Vec<u8>>) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let mut rest = {
            let mut buffer = buffer.borrow_mut();
            let number = match stream.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(number) => number,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            load.bytes_served.add(u64::try_from(number).unwrap_or(0));
            let came = buffer.get(..number).unwrap_or_default();
            let gone = written(stream.try_write(came))?;
            came.get(gone..).unwrap_or_default().to_vec()
        };
        while !rest.is_empty() {
            stream.writable().await?;
            let gone = written(stream.try_write(&rest))?;
            rest.drain(..gone);
        }
    }
}

/// How many bytes were written; none where there is no room.
fn written(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
