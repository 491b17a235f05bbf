//! One more network namespace, in which the outer ends of all veths are that carry connections: nothing of theirs is in the
//! generator's own. A thread inside holds it and furnishes it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};
use socket2::Socket;

use super::link::Links;
use super::{LoadError, system};

/// Jobs that may wait; whoever has one waits for its end anyway.
const JOBS: usize = 64;

/// Addresses of the two ends of the veth with this number: a network of two addresses for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Road {
    number: u32,
}

impl Road {
    /// Of the namespace with this number; numbers come round after 2^23.
    pub(super) fn new(number: u64) -> Self {
        Self { number: u32::try_from(number % (1 << 23)).unwrap_or(0) }
    }

    /// Addresses and prefix lengths of the end inside, or of the one in the hub.
    pub(super) fn ends(self, inside: bool) -> [(IpAddr, u8); 2] {
        let low = 2 * self.number + u32::from(inside);
        [
            (Ipv4Addr::from_bits((10 << 24) | low).into(), 31),
            (Ipv6Addr::from_bits((0xfd00 << 112) | u128::from(low)).into(), 127),
        ]
    }

    /// Of the family of `like`: the end in the hub, and the one inside.
    pub(super) fn of(self, like: IpAddr) -> (IpAddr, IpAddr) {
        let [hub, inside] = [false, true].map(|inside| {
            let [(v4, _), (v6, _)] = self.ends(inside);
            if like.is_ipv4() { v4 } else { v6 }
        });
        (hub, inside)
    }
}

type Job = Box<dyn FnOnce(&Links) + Send>;

/// The namespace; it ends with the last handle and its sockets.
#[derive(Clone)]
pub(super) struct Hub(Arc<Inside>);

struct Inside {
    netns: File,
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hub").field(&self.0.netns).finish()
    }
}

impl Hub {
    /// Makes it.
    pub(super) fn new() -> Result<Self, LoadError> {
        let (jobs, given) = sync_channel::<Job>(JOBS);
        let (made_to, made) = sync_channel(1);
        let inside = move || {
            let entered = enter();
            let links = match entered {
                Ok((netns, links)) => made_to.send(Ok(netns)).is_ok().then_some(links),
                Err(error) => made_to.send(Err(error)).ok().and(None),
            };
            drop(made_to);
            for job in links.iter().flat_map(|links| given.iter().map(move |job| (job, links))) {
                (job.0)(job.1);
            }
        };
        let thread = thread::Builder::new().name("load-hub".to_owned()).spawn(inside);
        let thread = thread.map_err(system("start a thread"))?;
        let netns = made.recv().map_err(|_| LoadError::Thread)??;
        Ok(Self(Arc::new(Inside { netns, jobs: Some(jobs), thread: Some(thread) })))
    }

    /// Its descriptor, for links whose other end is to be in it.
    pub(super) fn netns(&self) -> i32 {
        self.0.netns.as_raw_fd()
    }

    /// Brings the outer end of a veth up and gives it its addresses.
    pub(super) fn furnish(&self, link: String, road: Road) -> io::Result<()> {
        self.ask(move |links| links.up_with(&link, &road.ends(false)))
    }

    /// A socket in it that is bound to this address.
    pub(super) fn socket(&self, address: SocketAddr) -> io::Result<Socket> {
        self.ask(move |_| super::bound_socket(address))
    }

    fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Links) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done_to, done) = sync_channel(1);
        let job: Job = Box::new(move |links| {
            // Whoever asked waits for it.
            let _ = done_to.send(what(links));
        });
        let gone = || io::Error::other("the thread of the hub ended");
        self.0.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(gone)?;
        done.recv().map_err(|_| gone())?
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It only ends when it is told to.
            let _ = thread.join();
        }
    }
}

/// This thread goes to a new namespace for good.
fn enter() -> Result<(File, Links), LoadError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(system("make a network namespace"))?;
    let netns = File::open("/proc/thread-self/ns/net").map_err(system("open a network namespace"))?;
    let links = Links::open().map_err(system("open a route netlink socket"))?;
    links.loopback_up().map_err(system("bring loopback up"))?;
    Ok((netns, links))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_veth_has_a_network_of_its_own_in_each_family() {
        let (hub, inside) = Road::new(3).of(Ipv4Addr::LOCALHOST.into());
        assert_eq!((hub, inside), ("10.0.0.6".parse().unwrap(), "10.0.0.7".parse().unwrap()));
        let (hub, inside) = Road::new((1 << 23) + 3).of(Ipv6Addr::LOCALHOST.into());
        assert_eq!((hub, inside), ("fd00::6".parse().unwrap(), "fd00::7".parse().unwrap()));
        let [(last, _), _] = Road::new((1 << 23) - 1).ends(true);
        assert_eq!(last, "10.255.255.255".parse::<IpAddr>().unwrap());
    }
}
