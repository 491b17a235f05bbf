//! What a row costs to become bytes, in each format, and to be selected for a destination: nanoseconds of CPU.
//!
//! `cargo bench -p xtcp-agent --bench marshal` lets each contender work through the same batch of rows of real sockets in
//! turn, round after round; so that what disturbs one disturbs all. Ratios are taken within a round, to a copy of the same
//! rows. It needs no privilege.

#![allow(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that panics has failed, and it prints what it finds"
)]

use std::hint::black_box;
use std::time::Duration;

use nix::time::ClockId;
use xtcp_agent::destination::options::Options;
use xtcp_agent::envelope::Batch;
use xtcp_agent::marshaller::{self, FORMATS, Marshaller};
use xtcp_agent::select::Select;

#[path = "common/rows.rs"]
mod rows;

use rows::{cpu, spread};

const ROUNDS: usize = 41;
const ROWS: usize = 1_000;
/// What one contender works in one round, at least.
const SHARE: Duration = Duration::from_millis(4);

/// Works through the batch once; gives the bytes that it made.
type Work<'a> = Box<dyn FnMut() -> usize + 'a>;

fn format<'a>(format: &'static dyn Marshaller, batch: &'a Batch) -> Work<'a> {
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        format.marshal(black_box(batch), &mut out).expect("marshalled");
        black_box(&out).len()
    })
}

fn selection<'a>(options: &str, batch: &'a Batch) -> Work<'a> {
    let options = Options::parse(options).expect("options");
    let mut selector = Select::parse(&options).expect("a selection").start();
    Box::new(move || black_box(batch).rows().filter(|row| selector.passes(row)).map(<[u8]>::len).sum())
}

/// The first is the floor.
fn contenders(batch: &Batch) -> Vec<(String, Work<'_>)> {
    let mut copied = Vec::new();
    let copy: Work<'_> = Box::new(move || {
        copied.clear();
        black_box(batch).rows().for_each(|row| copied.extend_from_slice(row));
        black_box(&copied).len()
    });
    let mut contenders = vec![("copied".to_owned(), copy)];
    contenders.extend(FORMATS.map(|each| (each.name().to_owned(), format(each, batch))));
    let few =
        ["timestamp_ns", "inet_diag_msg_socket_source", "inet_diag_msg_socket_destination", "tcp_info_rtt"];
    let few = marshaller::with_columns(marshaller::parse("csv").expect("csv"), &few).expect("columns");
    contenders.push(("csv, four columns".to_owned(), format(few, batch)));
    for options in ["filter=dport+%3D+:443", "sample=0.01", "changed-only=true"] {
        contenders.push((format!("select {options}"), selection(options, batch)));
    }
    contenders
}

/// CPU time of so many turns.
fn measure(work: &mut Work<'_>, times: u32) -> Duration {
    let began = cpu(ClockId::CLOCK_THREAD_CPUTIME_ID);
    for _ in 0..times {
        black_box(work());
    }
    cpu(ClockId::CLOCK_THREAD_CPUTIME_ID).saturating_sub(began)
}

/// How many turns make a share.
fn turns(work: &mut Work<'_>) -> u32 {
    let mut times = 1;
    while measure(work, times) < SHARE {
        times *= 2;
    }
    times
}

fn main() {
    let batch = rows::batch(ROWS);
    let rows = batch.len() as f64;
    let mut contenders = contenders(&batch);
    let sizes: Vec<f64> = contenders.iter_mut().map(|(_, work)| work() as f64 / rows).collect();
    let turns: Vec<u32> = contenders.iter_mut().map(|(_, work)| turns(work)).collect();
    let mut costs = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (((_, work), costs), turns) in contenders.iter_mut().zip(&mut costs).zip(&turns) {
            costs.push(measure(work, *turns).as_secs_f64() * 1e9 / f64::from(*turns) / rows);
        }
    }

    println!("{} rows of real sockets, {:.0} bytes each as protobuf", batch.len(), sizes[0]);
    println!("medians of {ROUNDS} rounds; in brackets the lowest and the highest tenth");
    println!(
        "{:<32} {:>10} {:>12} {:>26} {:>26}",
        "", "bytes/row", "rows/s", "ns of CPU a row", "ratio to the first"
    );
    for (((name, _), own), size) in contenders.iter().zip(&costs).zip(&sizes) {
        let [median, low, high] = spread(own.iter().copied());
        let [ratio, least, most] = spread(own.iter().zip(&costs[0]).map(|(own, floor)| own / floor));
        let rate = 1e9 / median;
        println!(
            "{name:<32} {size:>10.0} {rate:>12.0} {median:>9.0} [{low:>6.0} {high:>6.0}] {ratio:>9.1} [{least:>6.1} {most:>6.1}]"
        );
    }
}
