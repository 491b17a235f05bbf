//! Clients: each connects, sends messages, waits for their return, and closes.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::{LoadError, system};
use super::Load;

/// Connections that are being opened at once: well below a listener's queue.
const OPENING: usize = 256;
/// Bytes that are taken from a connection at once; all of a thread share them.
const BUFFER: usize = 64 << 10;
/// How long a server may take to close after its client did.
const LAST: Duration = Duration::from_secs(5);

/// What the clients of a thread share.
struct Clients {
    load: Arc<Load>,
    addresses: Vec<SocketAddr>,
    message: Vec<u8>,
    opening: Semaphore,
    buffer: RefCell<Vec<u8>>,
}

/// Until all that was asked for is made, or the end.
pub(super) async fn run(load: &Arc<Load>, addresses: Vec<SocketAddr>) {
    let clients = Rc::new(Clients {
        load: Arc::clone(load),
        addresses,
        message: vec![0x78; usize::try_from(load.options.message).unwrap_or(0)],
        opening: Semaphore::new(OPENING),
        buffer: RefCell::new(vec![0; BUFFER]),
    });
    let at_once = load.options.connections.min(load.options.count.unwrap_or(u64::MAX));
    let mut all = JoinSet::new();
    for _ in 0..at_once {
        let clients = Rc::clone(&clients);
        all.spawn_local(async move { clients.work().await });
    }
    while all.join_next().await.is_some() {}
}

impl Clients {
    /// One connection after the other, or one that stays.
    async fn work(&self) {
        let (load, options) = (&self.load, &self.load.options);
        let last = if options.short_lived { options.count.unwrap_or(u64::MAX) } else { options.connections };
        while let Some(number) = load.next.take_below(last) {
            if !self.reached(load.pace.due(number)).await {
                return;
            }
            match self.one(number).await {
                Ok(()) => load.faults.none(),
                Err(error) => load.faults.take(error, &load.stop),
            }
            if !options.short_lived {
                return;
            }
        }
    }

    /// Waits until a time or the end: whether that has not come.
    async fn reached(&self, due: Instant) -> bool {
        let stop = self.load.stop.token();
        // Also where nothing is to be waited for, others get their turn.
        let _ = tokio::time::timeout_at(due.into(), stop.cancelled()).await;
        !stop.is_cancelled()
    }

    async fn one(&self, number: u64) -> Result<(), LoadError> {
        let (load, stop) = (&self.load, self.load.stop.token());
        let places = u64::try_from(self.addresses.len()).unwrap_or(1).max(1);
        let place = usize::try_from(number % places).unwrap_or(0);
        let Some(address) = self.addresses.get(place) else { return Ok(()) };
        let opened = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            opened = self.open(*address) => opened,
        };
        let mut stream = opened.map_err(system("connect"))?;
        load.connections.one();
        let conversed = tokio::select! {
            () = stop.cancelled() => Ok(()),
            conversed = self.converse(&mut stream) => conversed,
        };
        let closed = self.close(stream).await;
        load.closed.one();
        conversed.and(closed).map_err(system("use a connection"))
    }

    async fn open(&self, address: SocketAddr) -> io::Result<TcpStream> {
        // It is never closed.
        let _place = self.opening.acquire().await.map_err(io::Error::other)?;
        TcpStream::connect(address).await
    }

    /// All messages of a connection; those of one that stays come to no end.
    async fn converse(&self, stream: &mut TcpStream) -> io::Result<()> {
        let options = &self.load.options;
        for sent in 1_u64.. {
            self.exchange(stream).await?;
            self.load.messages.one();
            if options.short_lived && sent >= u64::from(options.messages) {
                break;
            }
            if options.hold {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(options.sleep).await;
        }
        Ok(())
    }

    /// A message there and back, both at once: neither end's buffers hold all of a long one.
    async fn exchange(&self, stream: &mut TcpStream) -> io::Result<()> {
        let (mut answers, mut to) = stream.split();
        let send = async {
            to.write_all(&self.message).await?;
            self.load.bytes_sent.add(u64::try_from(self.message.len()).unwrap_or(0));
            Ok(())
        };
        tokio::try_join!(send, self.receive(&mut answers)).map(|_| ())
    }

    async fn receive(&self, answers: &mut ReadHalf<'_>) -> io::Result<()> {
        let mut missing = self.message.len();
        while missing > 0 {
            answers.readable().await?;
            let mut buffer = self.buffer.borrow_mut();
            let room = missing.min(buffer.len());
            match answers.try_read(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(number) => {
                    missing = missing.saturating_sub(number);
                    self.load.bytes_received.add(u64::try_from(number).unwrap_or(0));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn close(&self, mut stream: TcpStream) -> io::Result<()> {
        if self.load.resets() {
            return SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        stream.shutdown().await?;
        let end = async {
            loop {
                stream.readable().await?;
                let mut buffer = self.buffer.borrow_mut();
                match stream.try_read(&mut buffer) {
                    // What is left of a message that the end cut off.
                    Ok(number) if number > 0 => {
                        self.load.bytes_received.add(u64::try_from(number).unwrap_or(0));
                    }
                    Ok(_) => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::time::timeout(LAST, end).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
