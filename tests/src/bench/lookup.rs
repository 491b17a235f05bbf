//! What a change event's question costs whose its namespace is: against making the same part of the event without it.

use std::hint::black_box;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use xtcp_agent::change_event::netns_of;
use xtcp_agent::netns::{NetnsId, Thread};
use xtcp_agent::workload::directory::LabelChoice;
use xtcp_agent::workload::socket::Sockets;
use xtcp_agent::workload::{self, Directory, Settings, WorkloadMetrics};

use super::{Spread, Stopped, cpu_of_thread, pause};
use crate::container::service::Service;
use crate::netns::Netns;

const ROUNDS: u32 = 21;
const EVENTS: u32 = 100_000;
const LIMIT: Duration = Duration::from_secs(30);

/// Measures and prints.
pub(super) fn main() -> Result<(), Stopped> {
    let netns = Netns::named("lookup");
    let enter = format!("--net={}", netns.path().display());
    let service = Service::start("lookup", &["nsenter", &enter, "--", "sleep", "600"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let stop = CancellationToken::new();
    let directory = directory(&stop);
    let inode = u32::try_from(netns.inode).expect("inodes of namespaces fit");
    let id = NetnsId { inode, cookie: 0 };
    let (pid, start) = (service.process.pid(), Instant::now());
    while directory.of_netns(id).is_none() {
        assert!(start.elapsed() < LIMIT, "the workload of a service's namespace is not known");
        directory.looked(&[(inode, Thread { pid, tid: pid })]);
        pause(Duration::from_millis(50))?;
    }
    let without = || drop(black_box(netns_of(black_box(id), "lookup", None)));
    let with = || {
        let workload = directory.of_netns(black_box(id));
        drop(black_box(netns_of(id, "lookup", workload.as_deref())));
    };
    let rounds: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (ns_each(without), ns_each(with))).collect();
    stop.cancel();
    let floor = Spread::of(rounds.iter().map(|(without, _)| *without));
    let asked = Spread::of(rounds.iter().map(|(_, with)| *with));
    let ratio = Spread::of(rounds.iter().map(|(without, with)| with / without));
    println!("\nThe namespace of a change event, {ROUNDS} rounds");
    println!("  {:44} {:>8.0} ns CPU", "floor: made without asking whose it is", floor.median);
    println!(
        "  {:44} {:>8.0} ns CPU [{:.0} .. {:.0}]  ratio {:.2} [{:.2} .. {:.2}]",
        "with its workload looked up", asked.median, asked.min, asked.max, ratio.median, ratio.min, ratio.max
    );
    Ok(())
}

fn directory(stop: &CancellationToken) -> Directory {
    let settings = Settings {
        bytes: 1 << 20,
        pod_labels: LabelChoice::default(),
        opt_out: Vec::new(),
        docker: Sockets::Off,
        cri: Sockets::Off,
    };
    let own = std::fs::metadata("/proc/self/ns/net").expect("this process has a network namespace").ino();
    let own = NetnsId { inode: u32::try_from(own).expect("inodes of namespaces fit"), cookie: 0 };
    let metrics = WorkloadMetrics::register(&Registry::new()).expect("an empty registry takes metrics");
    workload::start(&settings, own, metrics, stop).expect("the thread that reads /proc can be started")
}

fn ns_each(work: impl Fn()) -> f64 {
    let before = cpu_of_thread();
    for _ in 0..EVENTS {
        work();
    }
    cpu_of_thread().saturating_sub(before).as_secs_f64() * 1e9 / f64::from(EVENTS)
}
