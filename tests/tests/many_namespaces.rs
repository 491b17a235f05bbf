//! Promise: thousands of namespaces are all known within two seconds of the agent's start and polled in one cycle by 4 threads
//! and as many as there are processors, with fewer than 100 open descriptors and less than 4 KiB of memory for
//! each; and namespaces that are made and ended as fast as the machine can leave nothing behind: not in the registry, not in the
//! kernel, not in the agent's memory; and no row is ever under another namespace's name.
//!
//! Each namespace's sockets have ports that no other's have, and the test knows their cookies, so that every single row is
//! checked for whose it is.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use xtcp_proto::event::v1::EventKind;
use xtcp_tests::agent::{Agent, agent, binary};
use xtcp_tests::events::{Seen, Subscriber, lost};
use xtcp_tests::fleet::{Harbour, Member, Roll, has_handles, on_a_thread, wait_until_dead};
use xtcp_tests::grpc;
use xtcp_tests::host::{allow_open_files, alone, monotonic_ns, scale, slowness, wait_for};
use xtcp_tests::http::{self, Metrics};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::Netns;
use xtcp_tests::process::run;

const LIMIT: Duration = Duration::from_secs(60);

/// What the agent holds now.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    threads: usize,
    descriptors: usize,
    rss_kib: u64,
}

impl Held {
    fn by(pid: u32) -> Self {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let rss_kib = rss.trim().trim_end_matches(" kB").parse().unwrap();
        Self { threads: count("task"), descriptors: count("fd"), rss_kib }
    }

    fn max(self, other: Self) -> Self {
        Self {
            threads: self.threads.max(other.threads),
            descriptors: self.descriptors.max(other.descriptors),
            rss_kib: self.rss_kib.max(other.rss_kib),
        }
    }
}

/// Whether a child is the agent yet: it is told by its name once the kernel has closed what the test's own process had open. A
/// child that has only just begun to be another program still has all of the fleet's descriptors, thousands of them.
fn is_agent(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    Some(name.trim()) == binary().file_name().and_then(OsStr::to_str)
}

/// What a process's descriptors are, and how many of each.
fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let link = std::fs::read_link(entry.path()).unwrap_or_default();
        let kind = link.to_string_lossy().replace(|c: char| c.is_ascii_digit(), "");
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Names of a process's threads.
fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    tasks.flatten().filter_map(name).map(|name| name.trim().to_owned()).collect()
}

fn known(agent: &Agent) -> f64 {
    agent.metrics().sum("xtcp_netns", &[])
}

/// Looks at the agent again and again while `work` is done; the most of everything.
fn most_while<T>(pid: u32, work: impl FnOnce() -> T) -> (T, Held) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = std::thread::Builder::new().name("watch".to_owned()).spawn_scoped(scope, || {
            let mut most = Held::default();
            while !done.load(Ordering::Relaxed) {
                if is_agent(pid) {
                    most = most.max(Held::by(pid));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let most = watch.unwrap().join().unwrap();
        (result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), most)
    })
}

#[test]
fn all_that_exist_are_known_soon_and_polled_in_one_cycle_by_few_threads_with_few_descriptors() {
    let _alone = alone();
    allow_open_files(20_000);
    let count: usize = scale(300, 5_000);
    let harbour = Harbour::new();
    // Every tenth has a connection: three sockets.
    let began = Instant::now();
    let fleet: Vec<Member> = on_a_thread(|| {
        let launch = |index: usize| harbour.launch(index, Some(&index.to_string()), index.is_multiple_of(10));
        (0..count).map(launch).collect()
    });
    println!("{count} namespaces were made in {:.1?}", began.elapsed());
    let mut roll = Roll::default();
    for member in &fleet {
        roll.add(member);
    }

    // The same agent, to whom nobody says where the fleet is (a kernel that lists namespaces does).
    let nats = NatsServer::start();
    let bare = agent().without_rows().events_to(&nats).start();
    let others = known(&bare);
    drop(grpc::poll(bare.grpc));
    let without = Held::by(bare.process.pid());
    drop(bare);

    let begin = Instant::now();
    let args = ["--netns-dir", harbour.path().to_str().unwrap()];
    let mut agent = agent().without_rows().events_to(&nats).args(&args).spawn();
    let pid = agent.process.pid();
    let (rows, most) = most_while(pid, || {
        wait_for("every namespace to be known", LIMIT, || {
            let (_, page) = http::get(agent.prom, "/metrics").ok()?;
            (Metrics::parse(&page).sum("xtcp_netns", &[]) >= count as f64).then_some(())
        });
        println!("all {count} were known {:.2?} after the agent's start (goal: 2 s)", begin.elapsed());
        assert!(begin.elapsed() < Duration::from_secs(20) * slowness(), "that is ten times the goal");
        agent.wait_until_ready();
        println!("the first poll had ended {:.2?} after the agent's start", begin.elapsed());
        let begin = Instant::now();
        let rows = grpc::poll(agent.grpc);
        println!("a poll on request took {:.2?}", begin.elapsed());
        rows
    });
    assert!(agent.metrics().sum("xtcp_polls_total", &["complete=\"no\""]) < 0.5, "a poll was not complete");
    roll.check(&rows);
    let mut polled: HashMap<u64, usize> = HashMap::new();
    for row in &rows {
        *polled.entry(row.cookie()).or_default() += 1;
    }
    for socket in roll.sockets() {
        assert_eq!(polled.get(&socket), Some(&1), "a socket is in a poll once");
    }
    let processors = std::thread::available_parallelism().unwrap().get();
    // Both after two polls: a start needs more for a moment.
    let rss_kib = Held::by(pid).rss_kib;
    let grown = rss_kib.saturating_sub(without.rss_kib) as f64 / count as f64;
    println!(
        "{most:?} at most, {processors} processors; {grown:.2} KiB for each namespace ({others} others on the host)"
    );
    // The loop, its runtime, the ring buffer's reader, what reads /proc, and the workers. As many for one namespace as for all.
    assert!(most.threads <= 4 + processors, "{} threads: {:?}", most.threads, threads(pid));
    assert!(most.descriptors < 100, "{} descriptors; now {:?}", most.descriptors, descriptors(pid));
    // What differs between two starts of the same agent is not the namespaces'.
    let slack = 4.0 * 1024.0 / count as f64;
    assert!(grown < 4.0 + slack, "{grown:.2} KiB for each namespace");

    for member in fleet {
        member.end();
    }
    let few = others.min(100.0) + 20.0;
    wait_for("the registry to be empty again", LIMIT, || (known(&agent) <= few).then_some(()));
    if has_handles() {
        wait_until_dead(roll.ids(), LIMIT);
    }
}

#[test]
fn what_is_made_and_ended_as_fast_as_possible_is_told_and_leaves_nothing_behind() {
    let _alone = alone();
    allow_open_files(20_000);
    let count: usize = scale(300, 10_000);
    let harbour = Harbour::new();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let outside = Netns::anonymous("outside");
    let agent = agent().events_to(&nats).args(&["--netns-dir", harbour.path().to_str().unwrap()]).start();
    let pid = agent.process.pid();
    let before = known(&agent);
    let mut after_rounds = Vec::new();
    let mut all = Roll::default();
    for round in 0..3 {
        let began = Instant::now();
        let roll = churn(&harbour, &outside, round * count, count);
        println!("round {round}: {count} in {:.2?}", began.elapsed());
        let ended = roll.ids().copied().collect::<Vec<_>>();
        all.merge(roll);
        wait_for("the registry to be empty again", LIMIT, || (known(&agent) <= before + 10.0).then_some(()));
        if has_handles() {
            wait_until_dead(&ended, LIMIT);
        }
        wait_for("the veth peers of the ended to go", LIMIT, || {
            (outside.exec(&["ip", "-o", "link"]).lines().count() == 1).then_some(())
        });
        told(&subscriber, &all);
        after_rounds.push(Held::by(pid));
    }
    let checked = all.check(&agent.delivered_rows());
    println!("{checked} rows were of these namespaces; the agent held {after_rounds:?}");
    let (first, last) = (after_rounds[0], after_rounds[2]);
    assert!(last.threads <= first.threads, "threads grew: {after_rounds:?}");
    assert!(last.descriptors <= first.descriptors + 2, "descriptors grew: {after_rounds:?}");
    // An allocator's leftovers, not a leak: 20 000 namespaces more would be far above.
    assert!(last.rss_kib < first.rss_kib + first.rss_kib / 4 + 4096, "memory grew: {after_rounds:?}");
    quiet(&agent);
}

/// Makes and ends namespaces with connections inside, on as many threads as there are processors. Every fiftieth also has a veth
/// pair whose other end is `outside`.
fn churn(harbour: &Harbour, outside: &Netns, first: usize, count: usize) -> Roll {
    let next = AtomicUsize::new(0);
    let outside_pid = outside.holder_pid().unwrap().to_string();
    let work = || {
        let mut roll = Roll::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return roll;
            }
            let index = first + at;
            // Named, and held by a descriptor alone.
            let name = at.is_multiple_of(2).then(|| index.to_string());
            let member = harbour.launch(index, name.as_deref(), true);
            if at.is_multiple_of(50) {
                let peer = format!("v{index}");
                run(&[
                    "ip",
                    "link",
                    "add",
                    "inside",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    &peer,
                    "netns",
                    &outside_pid,
                ]);
            }
            roll.add(&member);
            member.end();
        }
    };
    std::thread::scope(|scope| {
        let processors = std::thread::available_parallelism().unwrap().get();
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        let mut roll = Roll::default();
        for thread in threads {
            roll.merge(thread.join().unwrap());
        }
        roll
    })
}

/// Each was told to be created and destroyed, once, or is among those that are counted as missed. Who it is was told by an eBPF
/// program, and is known here from `SO_NETNS_COOKIE`: the two must be the same for any to be found.
fn told(subscriber: &Subscriber, roll: &Roll) {
    // Before 5.14 there are no cookies, and one inode may have been several namespaces'.
    let mut lives: HashMap<(u64, u64), i64> = HashMap::new();
    roll.ids().for_each(|id| *lives.entry((id.inode, id.cookie)).or_default() += 1);
    let missing = |events: &[Seen]| {
        let (mut births, mut deaths) = (lives.clone(), lives.clone());
        for seen in events {
            let Some(netns) = seen.event.netns.as_ref() else { continue };
            let left = match seen.kind() {
                xtcp_proto::event::v1::event::Event::NetnsCreated(_) => &mut births,
                xtcp_proto::event::v1::event::Event::NetnsDestroyed(_) => &mut deaths,
                _ => continue,
            };
            if let Some(left) = left.get_mut(&(netns.inode, netns.cookie)) {
                *left -= 1;
                assert!(*left >= 0, "told twice: {seen:?}");
            }
        }
        (births.values().sum::<i64>().unsigned_abs(), deaths.values().sum::<i64>().unsigned_abs())
    };
    let counted = |events: &[Seen]| {
        let unknown = lost(events, EventKind::Unspecified);
        (unknown + lost(events, EventKind::NetnsCreated), unknown + lost(events, EventKind::NetnsDestroyed))
    };
    let complete = |events: &[Seen]| {
        let (missing, counted) = (missing(events), counted(events));
        missing.0 <= counted.0 && missing.1 <= counted.1
    };
    subscriber.wait_until(LIMIT, complete);
    subscriber.look(|events| {
        let (missing, counted) = (missing(events), counted(events));
        println!("creations and ends not told: {missing:?}, counted as missed: {counted:?}");
        assert!(complete(events), "some are neither told nor counted");
    });
}

/// Nothing that happens to namespaces is worth more than a counter.
fn quiet(agent: &Agent) {
    let log = agent.process.stderr.text();
    let loud: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("WARN"))
        // Of this host, at the start.
        .filter(|line| !line.contains("xtcp_agent::preflight"))
        .collect();
    assert!(loud.is_empty(), "{}", loud.join("\n"));
}

#[test]
fn ends_while_it_is_entered_or_dumped_confuse_no_row() {
    ends_while_asked(&[]);
}

#[test]
fn ends_while_it_is_entered_or_dumped_confuse_no_row_without_ebpf() {
    ends_while_asked(&["--ebpf", "off"]);
}

/// Namespaces come and go at the same paths, a few dozen alive at any time, while the agent polls without pause: so it finds
/// doors that lead to a successor, and ends at every moment of a visit.
fn ends_while_asked(args: &[&str]) {
    const ALIVE: usize = 48;
    let _alone = alone();
    allow_open_files(20_000);
    let count: usize = scale(300, 10_000);
    let harbour = Harbour::new();
    let agent = agent()
        .frequency("100ms")
        .args(&["--reconcile-frequency", "100ms", "--netns-dir", harbour.path().to_str().unwrap()])
        .args(args)
        .start();
    let before = known(&agent);
    let roll = on_a_thread(|| {
        let mut roll = Roll::default();
        let mut alive: VecDeque<Member> = VecDeque::new();
        for index in 0..count {
            if alive.len() == ALIVE {
                alive.pop_front().unwrap().end();
            }
            let member = harbour.launch(index, Some(&(index % ALIVE).to_string()), true);
            roll.add(&member);
            alive.push_back(member);
            // A different moment of the agent's cycle each time.
            let until = monotonic_ns() + (index as u64 * 7_919) % 3_000_000;
            while monotonic_ns() < until {
                std::thread::yield_now();
            }
        }
        for member in alive {
            member.end();
        }
        roll
    });
    wait_for("the registry to be empty again", LIMIT, || (known(&agent) <= before + 10.0).then_some(()));
    let checked = roll.check(&agent.delivered_rows());
    let metrics = agent.metrics();
    let errors = metrics.sum("xtcp_netns_enter_errors_total", &[]);
    let polls = metrics.sum("xtcp_polls_total", &[]);
    println!(
        "{count} ended during {polls} polls: {checked} rows, {errors} entries failed, none under another name"
    );
    assert!(checked > count / 4, "the agent hardly met them: {checked} rows");
    if has_handles() {
        wait_until_dead(roll.ids(), LIMIT);
    }
    quiet(&agent);
}

/// Guards the proof above: that a door of a dead namespace can lead to a living one with other sockets.
#[test]
fn a_path_of_a_fleet_leads_to_its_latest_namespace() {
    let _alone = alone();
    let harbour = Harbour::new();
    let inodes: Vec<u64> = on_a_thread(|| {
        let mut inodes = Vec::new();
        for index in 0..3 {
            let member = harbour.launch(index, Some("same"), false);
            let meta = std::fs::metadata(Path::new(harbour.path()).join("same")).unwrap();
            assert_eq!(meta.ino(), member.id.inode);
            inodes.push(meta.ino());
            member.end();
            assert!(!harbour.path().join("same").exists());
        }
        inodes
    });
    assert_eq!(inodes.len(), 3);
}
