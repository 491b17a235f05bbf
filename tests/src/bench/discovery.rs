//! How long until a namespace is known and until its end is, by each source that can tell: from before it was made, or ended,
//! to the change event at a NATS subscriber. And how long until a container's name is, by each engine.

mod names;

use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use xtcp_proto::event::v1::event::Event as Kind;

use super::{Stopped, pause};
use crate::agent::agent;
use crate::events::{Seen, Subscriber};
use crate::fleet::{Harbour, Member};
use crate::host::monotonic_ns;
use crate::nats::NatsServer;
use crate::netns::Id;
use crate::stats::Latencies;

const LIMIT: Duration = Duration::from_secs(30);

/// How often.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Options {
    /// Namespaces made and ended for each source
    #[arg(long, value_name = "NAMESPACES", default_value = "50", value_parser = clap::value_parser!(u32).range(2..=10_000))]
    rounds: u32,
}

/// One line of the table.
struct Source {
    name: &'static str,
    args: &'static [&'static str],
    held: Held,
}

/// What holds the namespaces that are made.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    /// A mount in a watched folder, and nothing else.
    Mount,
    /// A thread.
    Thread,
    /// A thread, and it is given an id in the agent's namespace, as a veth pair would.
    ThreadWithNsid,
}

/// Only the next reconcile can tell what nothing hints at: here once a second, so that half a second is the middle.
const SOURCES: [Source; 5] = [
    Source { name: "eBPF, a mount", args: &[], held: Held::Mount },
    Source { name: "eBPF, a thread", args: &[], held: Held::Thread },
    Source {
        name: "no eBPF: inotify and mount table",
        args: &["--ebpf", "off", "--reconcile-frequency", "1h"],
        held: Held::Mount,
    },
    Source {
        name: "no eBPF: RTM_NEWNSID, RTM_DELNSID",
        args: &["--ebpf", "off", "--reconcile-frequency", "1h"],
        held: Held::ThreadWithNsid,
    },
    Source {
        name: "no eBPF: reconcile, every second",
        args: &["--ebpf", "off", "--reconcile-frequency", "1s"],
        held: Held::Thread,
    },
];

/// Measures and prints.
pub fn main(options: &Options) -> Result<(), Stopped> {
    println!(
        "\nFrom a namespace's beginning and end to the change event at NATS, {} times each",
        options.rounds
    );
    println!("  {:36} {:>11} {:>11} {:>11} {:>11}", "", "known, p50", "p99", "ended, p50", "p99");
    for source in SOURCES {
        let (known, ended) = measure(&source, options.rounds)?;
        let ms = |latencies: &Latencies, percent| latencies.percentile(percent).as_secs_f64() * 1e3;
        println!(
            "  {:36} {:>8.1} ms {:>8.1} ms {:>8.1} ms {:>8.1} ms",
            source.name,
            ms(&known, 50),
            ms(&known, 99),
            ms(&ended, 50),
            ms(&ended, 99)
        );
    }
    names::main(options.rounds)
}

fn measure(source: &Source, rounds: u32) -> Result<(Latencies, Latencies), Stopped> {
    let harbour = Harbour::new();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let _agent = agent()
        .without_rows()
        .events_to(&nats)
        .args(source.args)
        .args(&["--netns-dir", harbour.path().to_str().expect("the folder has a plain name")])
        .start();
    let (mut known, mut ended) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // At no fixed distance from the reconcile.
        pause(Duration::from_millis(u64::from(round * 37 % 101)))?;
        let begin = monotonic_ns();
        let inside = Inside::begin(&harbour, source.held);
        let created = arrival(&subscriber, inside.id, begin, |kind| matches!(kind, Kind::NetnsCreated(_)));
        known.push(created - begin);
        // Its cookie, which is how its end is asked for, is learned by the first visit.
        pause(Duration::from_millis(20))?;
        let end = monotonic_ns();
        let id = inside.id;
        inside.end();
        let destroyed = arrival(&subscriber, id, end, |kind| matches!(kind, Kind::NetnsDestroyed(_)));
        ended.push(destroyed - end);
    }
    Ok((Latencies::new(known), Latencies::new(ended)))
}

/// When the first such event about a namespace came after `since`. Without eBPF it may not know the cookie, and the inode may have
/// been another's before.
fn arrival(subscriber: &Subscriber, id: Id, since: u64, wanted: impl Fn(&Kind) -> bool) -> u64 {
    let is_it = |seen: &Seen| seen.arrived_ns > since && seen.may_be_of(id) && wanted(seen.kind());
    subscriber.wait_for("a namespace to be told", LIMIT, is_it).arrived_ns
}

/// A namespace, and what holds it.
struct Inside {
    id: Id,
    member: Option<Member>,
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl Inside {
    fn begin(harbour: &Harbour, held: Held) -> Self {
        let (told, tells) = sync_channel::<Member>(1);
        let (stop, stopped) = sync_channel::<()>(1);
        let path = (held == Held::Mount).then(|| "mount".to_owned());
        let home = Socket::new(NETLINK_ROUTE).expect("a netlink socket can be made");
        let harbour = harbour.path().to_owned();
        let thread = std::thread::Builder::new()
            .name("inside".to_owned())
            .spawn(move || {
                let member = Member::begin(0, path.map(|name| harbour.join(name)), false);
                if held == Held::ThreadWithNsid {
                    give_nsid(&home, &member);
                }
                let keeps = held != Held::Mount;
                let _ = told.send(member);
                if keeps {
                    let _ = stopped.recv();
                }
            })
            .expect("a thread can be started");
        let mut member = tells.recv().expect("the namespace was made");
        // The thread holds it, not the descriptor.
        member.file = None;
        Self { id: member.id, member: Some(member), thread: Some((stop, thread)) }
    }

    fn end(mut self) {
        if let Some(member) = self.member.take() {
            member.end();
        }
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

/// `ip netns set … auto` by descriptor: RTM_NEWNSID with `NETNSA_NSID` -1 and `NETNSA_FD`, in the namespace of `home`.
fn give_nsid(home: &Socket, member: &Member) {
    let file = member.file.as_ref().expect("one without a mount has a descriptor");
    let mut message = Vec::new();
    message.extend(36_u32.to_ne_bytes());
    message.extend(libc::RTM_NEWNSID.to_ne_bytes());
    // NLM_F_REQUEST and NLM_F_ACK.
    message.extend(5_u16.to_ne_bytes());
    message.extend([0; 8]);
    // struct rtgenmsg, padded; two attributes of four bytes each.
    message.extend([0; 4]);
    for (attribute, value) in [(1_u16, -1), (3, file.as_fd().as_raw_fd())] {
        message.extend(8_u16.to_ne_bytes());
        message.extend(attribute.to_ne_bytes());
        message.extend(i32::to_ne_bytes(value));
    }
    home.send(&message, 0).expect("rtnetlink takes a request");
    let mut answer = Vec::with_capacity(4096);
    home.recv(&mut answer, 0).expect("rtnetlink answers");
    assert_eq!(answer.get(16..20), Some(&[0; 4][..]), "an id cannot be given");
}
