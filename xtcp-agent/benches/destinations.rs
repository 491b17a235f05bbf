//! What a row costs on its way out: from the batch through queue and marshaller to each destination that runs without a
//! foreign server, nanoseconds of CPU of all the agent's threads.
//!
//! `cargo xtask bench destinations` hands each destination the same batches, round after round and in turn, and waits
//! until all of them were taken. Servers (nats-server, redis-server) are processes of their own, and receivers and
//! librdkafka's mock cluster threads of their own, which are not counted. Beside that the same run measures what a row
//! costs to be collected: asked for over netlink, parsed, encoded. The last column is what the agent as a whole costs more
//! than with `null`. It needs no privilege.

#![allow(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that panics has failed, and it prints what it finds"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::time::ClockId;
use prometheus::Registry;
use xtcp_agent::delivery::route;
use xtcp_agent::delivery::{Metrics, Outlets, Settings};
use xtcp_agent::envelope::Batch;
use xtcp_agent::event_sink::{Bound, EventHub, SinkMetrics};
use xtcp_agent::marshaller;
use xtcp_agent::metrics::Readiness;

#[path = "common/collect.rs"]
mod collect;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/rows.rs"]
mod rows;

use peers::Peers;
use rows::{cpu, spread};

const ROUNDS: usize = 9;
const ROWS: usize = 1_000;
/// Batches of a round. All of them fit into a destination's queue: nothing may be dropped.
const BATCHES: u16 = 40;

/// Hands all batches to one destination, waits until it took them, and gives what that cost a row, ns.
fn deliver(runtime: &tokio::runtime::Runtime, address: &str, batch: &Batch, spool: &Path) -> f64 {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).expect("registered");
    let settings = Settings {
        hostname: Arc::from("host.example"),
        instance: "bench".to_owned(),
        marshal: marshaller::parse("protobufList").expect("a format"),
        topic: "xtcp".to_owned(),
        spool_dir: spool.to_owned(),
        drain: Duration::from_secs(60),
        readiness: Readiness::default(),
        events: (EventHub::default(), Bound::default()),
        event_metrics: SinkMetrics::register(&registry).expect("registered"),
    };
    let routes = [route::parse(address).expect(address)];
    let began = agents_cpu();
    runtime.block_on(async {
        let mut outlets = Outlets::open(&routes, &settings, &metrics).expect(address);
        for _ in 0..BATCHES {
            outlets.hand_out(batch);
        }
        settings.events.0.close();
        outlets.finish().await.expect(address);
    });
    let used = agents_cpu().saturating_sub(began);
    let taken: f64 = registry
        .gather()
        .iter()
        .filter(|family| family.name() == "xtcp_destination_rows_total")
        .flat_map(|family| family.get_metric().iter().map(|metric| metric.get_counter().get_value()))
        .sum();
    let rows = (usize::from(BATCHES) * batch.len()) as f64;
    assert!((taken - rows).abs() < 0.5, "{address} took {taken} of {rows} rows");
    used.as_secs_f64() * 1e9 / rows
}

/// CPU time of this process without the threads that stand for others.
fn agents_cpu() -> Duration {
    cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID).saturating_sub(peers::cpu())
}

fn main() {
    let batch = rows::batch(ROWS);
    let folder = tempfile::tempdir().expect("a folder");
    let peers = Peers::start(folder.path());
    let destinations = peers.addresses();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("xtcp-io")
        .enable_all()
        .build()
        .expect("a runtime");
    let mut collector = collect::Collector::start();
    let mut collected = Vec::new();
    let mut costs = vec![Vec::new(); destinations.len()];
    for round in 0..=ROUNDS {
        let cost = collector.row_ns();
        let own: Vec<f64> = destinations
            .iter()
            .map(|(_, address)| deliver(&runtime, address, &batch, folder.path()))
            .collect();
        // The first is to warm up.
        if round > 0 {
            collected.push(cost);
            costs.iter_mut().zip(own).for_each(|(costs, cost)| costs.push(cost));
        }
    }

    let bytes = batch.rows().map(<[u8]>::len).sum::<usize>() / batch.len();
    println!(
        "{ROWS} rows of real sockets a batch, {bytes} bytes each as protobuf, {BATCHES} batches a round"
    );
    println!("ns of CPU a row, medians of {ROUNDS} rounds; in brackets the lowest and the highest tenth");
    let [median, low, high] = spread(collected.iter().copied());
    println!("{:<28} {median:>9.0} [{low:>6.0} {high:>6.0}]", "collected (dump, encode)");
    println!("{:<28} {:>25} {:>26} {:>22}", "", "delivered", "ratio to null", "agent, ratio to null");
    for ((name, _), own) in destinations.iter().zip(&costs) {
        let [median, low, high] = spread(own.iter().copied());
        let [ratio, least, most] = spread(own.iter().zip(&costs[0]).map(|(own, null)| own / null));
        let whole = own
            .iter()
            .zip(&costs[0])
            .zip(&collected)
            .map(|((own, null), first)| (first + own) / (first + null));
        let [agent, lowest, highest] = spread(whole);
        println!(
            "{name:<28} {median:>9.0} [{low:>6.0} {high:>6.0}] {ratio:>9.1} [{least:>6.1} {most:>6.1}] {agent:>8.2} [{lowest:>4.2} {highest:>4.2}]"
        );
    }
}
