//! Rows of real sockets: every answer in the captures of `fixtures`, encoded as the agent encodes it.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use xtcp_agent::envelope::{Batch, Batcher, Limits};
use xtcp_agent::netns::NetnsId;
use xtcp_agent::pcap::{NETLINK_SOCK_DIAG, Reader};
use xtcp_agent::record::builder::{Builder, Context, HostFields, RowFields};
use xtcp_agent::record::{Reason, Rows};
use xtcp_inet_diag::framing::{Body, Messages, SOCK_DIAG_BY_FAMILY};
use xtcp_inet_diag::wire::Row;
use xtcp_proto::flat_record::v1::xtcp_flat_record::RecordMethod;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;

/// So many rows as one batch.
pub(crate) fn batch(count: usize) -> Batch {
    let host = HostFields {
        hostname: "host.example".to_owned(),
        boot_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        agent_instance: "0123456789abcdef".to_owned(),
        ..HostFields::default()
    };
    let mut template = Builder::new(host, (6, 12)).template(&Context {
        timestamp_ns: 1_700_000_000_000_000_000,
        netns: "default",
        netns_id: NetnsId { inode: 4_026_531_840, cookie: 1 },
        nsid: 0,
        workload: None,
        reason: Reason::Poll,
        method: RecordMethod::Dump,
        poll: 1_000,
        dump: 0,
        socket_fd: 9,
        netlinker_id: 1,
    });
    let payloads = payloads();
    let mut rows = Rows::default();
    for (counter, payload) in (1_000_000..).zip(payloads.iter().cycle().take(count)) {
        let row = Row::new(payload).expect("a row of a capture");
        let fields = RowFields { counter, ..RowFields::default() };
        template.append(&row, fields, &mut rows).expect("a row is encoded");
    }
    let mut batcher = Batcher::new(Limits { rows: count + 1, bytes: usize::MAX, ..Limits::default() });
    batcher.push(&Arc::new(rows), Instant::now(), |_, _| panic!("no limit was reached"));
    batcher.close().expect("rows")
}

fn payloads() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/inet_diag/linux-6.12");
    let mut files: Vec<_> =
        fs::read_dir(root).expect("fixtures").map(|file| file.expect("a file").path()).collect();
    files.sort();
    let mut payloads = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "pcap")) {
        let mut reader = Reader::open(File::open(path).expect("opened")).expect("a capture");
        while let Some(packet) = reader.packet().expect("a packet") {
            if packet.protocol != NETLINK_SOCK_DIAG {
                continue;
            }
            for message in Messages::new(packet.datagram) {
                let message = message.expect("a message");
                if let Body::Data { payload } = message.body
                    && message.header.kind == SOCK_DIAG_BY_FAMILY
                    && message.header.flags & REQUEST == 0
                    && Row::new(payload).is_ok()
                {
                    payloads.push(payload.to_vec());
                }
            }
        }
    }
    payloads
}

/// A clock of CPU time.
pub(crate) fn cpu(clock: ClockId) -> Duration {
    clock_gettime(clock).expect("CPU clocks can be read").into()
}

/// The median, and the lowest and highest tenth.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let tenth = values.len() / 10;
    [values.len() / 2, tenth, values.len() - 1 - tenth].map(|at| values[at])
}
