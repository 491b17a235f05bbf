//! What a socket's row costs, in nanoseconds of CPU: to walk, to decode, to write, to encode.
//!
//! `cargo bench -p xtcp-inet-diag` opens connections over loopback, takes the kernel's own datagrams of them, and lets
//! each contender work through these in turn, round after round; so that what disturbs one disturbs all. Ratios are
//! taken within a round. It needs no privilege.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark that panics has failed, and it prints what it finds"
)]

use std::hint::black_box;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use prost::Message;
use xtcp_inet_diag::attr::info::AccEcnLayout;
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::message::{ROW_LEN, decode};
use xtcp_inet_diag::wire::{Context, Findings, NoRoom, Row};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

#[path = "socket/capture.rs"]
mod capture;
#[path = "../tests/wire/reference.rs"]
mod reference;

const ROUNDS: usize = 101;
/// What one contender works in one round, at least.
const SHARE: Duration = Duration::from_micros(1500);
/// Number of the first row.
const FIRST: u64 = 1_000_000;
const LAYOUT: AccEcnLayout = AccEcnLayout::Halves;

/// A contender: works through all datagrams once.
struct Contender<'a> {
    name: &'static str,
    work: Box<dyn FnMut() + 'a>,
}

fn payloads(datagrams: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    datagrams.iter().flat_map(|datagram| Messages::new(datagram)).filter_map(|message| match message {
        Ok(message) => match message.body {
            Body::Data { payload } => Some(payload),
            Body::Noop | Body::Overrun | Body::Done { .. } | Body::Error { .. } | Body::Malformed => None,
        },
        Err(_) => None,
    })
}

/// What a record may say beside the row, before the row's fields.
fn before() -> XtcpFlatRecord {
    XtcpFlatRecord {
        schema_version: 1,
        daemon_version: "0.1.0".to_owned(),
        timestamp_ns: 1_700_000_000_000_000_000,
        hostname: "host.example".to_owned(),
        netns: "default".to_owned(),
        netns_inode: 4_026_531_840,
        ..XtcpFlatRecord::default()
    }
}

/// The same, after them.
fn after() -> XtcpFlatRecord {
    XtcpFlatRecord {
        record_reason: 1,
        record_method: 1,
        poll_number: 1000,
        boot_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        agent_instance: "0123456789abcdef".to_owned(),
        netns_cookie: 1,
        ..XtcpFlatRecord::default()
    }
}

/// Both, and the row's number.
fn beside(record_counter: u64) -> XtcpFlatRecord {
    let XtcpFlatRecord {
        record_reason,
        record_method,
        poll_number,
        boot_id,
        agent_instance,
        netns_cookie,
        ..
    } = after();
    XtcpFlatRecord {
        record_reason,
        record_method,
        poll_number,
        boot_id,
        agent_instance,
        netns_cookie,
        record_counter,
        ..before()
    }
}

/// The floor: the same attributes, and their bytes copied.
fn copy(payload: &[u8], out: &mut [u8]) -> Option<usize> {
    let (header, mut rest) = payload.split_at_checked(ROW_LEN)?;
    out.get_mut(..ROW_LEN)?.copy_from_slice(header);
    let mut at = ROW_LEN;
    while let Some((&[a, b, ..], _)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let attribute = rest.get(4..len)?;
        out.get_mut(at..)?.get_mut(..attribute.len())?.copy_from_slice(attribute);
        at += attribute.len();
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(at)
}

fn contender<'a>(name: &'static str, work: impl FnMut() + 'a) -> Contender<'a> {
    Contender { name, work: Box::new(work) }
}

/// Ways of [`Row::write`].
type Write = fn(&Row<'_>, &Context<'_>, &mut [u8], &mut Findings) -> Result<usize, NoRoom>;

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "given out by `writers` alone")]
fn write_bmi2(
    row: &Row<'_>,
    context: &Context<'_>,
    out: &mut [u8],
    findings: &mut Findings,
) -> Result<usize, NoRoom> {
    // SAFETY: `writers` gives this out where the processor has both.
    unsafe { row.write_bmi2(context, out, findings) }
}

/// Those that this processor can.
fn writers() -> Vec<(&'static str, Write)> {
    let mut writers: Vec<(&str, Write)> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("lzcnt") {
        writers.push(("wire writer, with bmi2 and lzcnt", write_bmi2));
    }
    writers.push(("wire writer, on any processor", |row, context, out, findings| {
        row.write(context, out, findings)
    }));
    writers
}

fn writer<'a>(name: &'static str, write: Write, datagrams: &'a [Vec<u8>]) -> Contender<'a> {
    let (before, after) = (before().encode_to_vec(), after().encode_to_vec());
    let mut written = vec![0_u8; 1 << 16];
    contender(name, move || {
        for (counter, payload) in (FIRST..).zip(payloads(datagrams)) {
            let row = Row::new(black_box(payload)).unwrap();
            let context = Context { before: &before, counter, between: &[], after: &after, accecn: LAYOUT };
            let mut findings = Findings::default();
            black_box(write(&row, &context, &mut written, &mut findings).unwrap());
            black_box((&written, &findings));
        }
    })
}

/// Those that work on the kernel's datagrams. The first is the floor.
fn of_datagrams(datagrams: &[Vec<u8>]) -> Vec<Contender<'_>> {
    let mut copied = vec![0_u8; 1 << 16];
    let mut contenders = vec![
        contender("attributes walked, bytes copied", move || {
            for payload in payloads(datagrams) {
                black_box(copy(black_box(payload), &mut copied));
                black_box(&copied);
            }
        }),
        contender("header walk", move || {
            for payload in payloads(datagrams) {
                let row = Row::new(black_box(payload)).unwrap();
                black_box((row.state(), row.source_port(), row.destination_port(), row.cookie()));
            }
        }),
        contender("full decode into structs", move || {
            for payload in payloads(datagrams) {
                black_box(&decode(black_box(payload)).unwrap());
            }
        }),
    ];
    contenders.extend(writers().into_iter().map(|(name, write)| writer(name, write, datagrams)));
    contenders
}

/// Those that work on records.
fn of_records<'a>(datagrams: &'a [Vec<u8>], records: &'a [XtcpFlatRecord]) -> Vec<Contender<'a>> {
    let mut encoded = Vec::with_capacity(1 << 16);
    let (mut filled, mut lines) = (encoded.clone(), encoded.clone());
    vec![
        contender("prost encode", move || {
            for record in records {
                encoded.clear();
                black_box(record).encode(&mut encoded).unwrap();
                black_box(&encoded);
            }
        }),
        contender("decode, fill the record, prost encode", move || {
            for (counter, payload) in (FIRST..).zip(payloads(datagrams)) {
                let record = beside(counter);
                let record = reference::record(record, &decode(black_box(payload)).unwrap(), LAYOUT);
                filled.clear();
                record.encode(&mut filled).unwrap();
                black_box(&filled);
            }
        }),
        contender("jsonl", move || {
            for record in records {
                lines.clear();
                serde_json::to_writer(&mut lines, black_box(record)).unwrap();
                lines.push(b'\n');
                black_box(&lines);
            }
        }),
    ]
}

/// CPU time of so many turns.
fn measure(work: &mut dyn FnMut(), times: u32) -> Duration {
    let cpu = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let began = cpu();
    for _ in 0..times {
        work();
    }
    cpu().saturating_sub(began)
}

/// How many turns make a share.
fn turns(work: &mut dyn FnMut()) -> u32 {
    let mut times = 1;
    while measure(work, times) < SHARE {
        times *= 2;
    }
    times
}

/// The median, and the lowest and highest tenth.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let tenth = values.len() / 10;
    [values.len() / 2, tenth, values.len() - 1 - tenth].map(|at| values[at])
}

fn main() {
    let datagrams = capture::datagrams();
    let record = |payload| reference::record(beside(FIRST), &decode(payload).unwrap(), LAYOUT);
    let records: Vec<_> = payloads(&datagrams).map(record).collect();
    let sockets = records.len();
    let bytes: usize = records.iter().map(XtcpFlatRecord::encoded_len).sum();

    let mut contenders = of_datagrams(&datagrams);
    contenders.extend(of_records(&datagrams, &records));
    let turns: Vec<u32> = contenders.iter_mut().map(|Contender { work, .. }| turns(work)).collect();
    let mut costs = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for ((Contender { work, .. }, costs), turns) in contenders.iter_mut().zip(&mut costs).zip(&turns) {
            let rows = f64::from(*turns) * f64::from(u32::try_from(sockets).unwrap());
            costs.push(measure(work, *turns).as_secs_f64() * 1e9 / rows);
        }
    }

    println!("{sockets} sockets in {} datagrams, records of {} bytes", datagrams.len(), bytes / sockets);
    println!("medians of {ROUNDS} rounds; in brackets the lowest and the highest tenth");
    println!("{:<40} {:>24} {:>22}", "", "ns a socket", "ratio to the first");
    for (Contender { name, .. }, own) in contenders.iter().zip(&costs) {
        let [median, low, high] = spread(own.iter().copied());
        let [ratio, least, most] = spread(own.iter().zip(&costs[0]).map(|(own, floor)| own / floor));
        println!("{name:<40} {median:>8.1} [{low:>6.1} {high:>6.1}] {ratio:>8.2} [{least:>5.2} {most:>5.2}]");
    }
}
