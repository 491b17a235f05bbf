//! A TCP relay in front of a server that can refuse, or let bytes through slowly.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// The value that lets everything through.
const UNLIMITED: u64 = u64::MAX;
/// How often a limit is looked at.
const SLICE: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Rules {
    server: SocketAddr,
    refuses: AtomicBool,
    /// Bytes a second from clients to the server, over each connection.
    bytes_per_s: AtomicU64,
    ended: AtomicBool,
}

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    rules: Arc<Rules>,
}

impl Proxy {
    /// Relays to `server`, which need not be there yet.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let rules = Arc::new(Rules {
            server,
            refuses: AtomicBool::new(false),
            bytes_per_s: AtomicU64::new(UNLIMITED),
            ended: AtomicBool::new(false),
        });
        let shared = Arc::clone(&rules);
        spawn("proxy", move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                // Whoever cannot be relayed is hung up on.
                if !shared.refuses.load(Ordering::Relaxed)
                    && let Ok(server) = TcpStream::connect(shared.server)
                {
                    relay(&client, &server, &shared);
                    continue;
                }
                reset(&client);
            }
        });
        Self { address, rules }
    }

    /// Hangs up on everybody, now and until it is told otherwise.
    pub fn refuse(&self, refuses: bool) {
        self.rules.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Lets so many bytes a second through to the server; `None`: all.
    pub fn limit(&self, bytes_per_s: Option<u64>) {
        self.rules.bytes_per_s.store(bytes_per_s.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.rules.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread");
}

fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn relay(client: &TcpStream, server: &TcpStream, rules: &Arc<Rules>) {
    let pair = |from: &TcpStream, to: &TcpStream| {
        (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"))
    };
    for (upwards, (from, to)) in [(true, pair(client, server)), (false, pair(server, client))] {
        let rules = Arc::clone(rules);
        spawn("relay", move || {
            copy(&from, &to, &rules, upwards);
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
}

/// Until either side ends, or the rules end it.
fn copy(mut from: &TcpStream, mut to: &TcpStream, rules: &Rules, upwards: bool) {
    from.set_read_timeout(Some(SLICE)).expect("a timeout");
    let mut buffer = vec![0; 64 << 10];
    loop {
        if rules.ended.load(Ordering::Relaxed) || rules.refuses.load(Ordering::Relaxed) {
            return reset(from);
        }
        let limit = rules.bytes_per_s.load(Ordering::Relaxed);
        let limited = upwards && limit != UNLIMITED;
        let share = usize::try_from(limit / 50).unwrap_or(usize::MAX);
        let most = if limited { share.clamp(1, buffer.len()) } else { buffer.len() };
        match from.read(&mut buffer[..most]) {
            Ok(0) => return,
            Ok(read) => {
                if to.write_all(&buffer[..read]).is_err() {
                    return;
                }
                if limited {
                    thread::sleep(SLICE);
                }
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}
