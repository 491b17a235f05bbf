//! Both ways to a record, and that they agree: asked of fixtures and made rows by the tests, of everything else by the
//! fuzz target `dump`.

use prost::Message;
use xtcp_inet_diag::attr::Selection;
use xtcp_inet_diag::attr::info::AccEcnLayout;
use xtcp_inet_diag::message::{Reading, decode_as};
use xtcp_inet_diag::request::Protocol;
use xtcp_inet_diag::wire::{Context, Findings, Row};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

use super::reference;

/// What a record says beside the row, as the runs of the writer's context and as a record.
pub(crate) struct Beside {
    runs: [Vec<u8>; 3],
    record: XtcpFlatRecord,
}

impl Beside {
    pub(crate) fn new(counter: u64) -> Self {
        let before = XtcpFlatRecord {
            schema_version: 1,
            timestamp_ns: -1,
            hostname: "a host".to_owned(),
            tag: "the last field before".to_owned(),
            ..XtcpFlatRecord::default()
        };
        let between = XtcpFlatRecord {
            socket_fd: 300,
            netlinker_id: 1,
            uplink2_lldp_port_descr: "the last field between".to_owned(),
            ..XtcpFlatRecord::default()
        };
        let after = XtcpFlatRecord {
            record_reason: 1,
            comm: "a comm".to_owned(),
            netns_cookie: u64::MAX,
            ..XtcpFlatRecord::default()
        };
        let runs = [before, between, after].map(|record| record.encode_to_vec());
        let mut bytes = runs.concat();
        XtcpFlatRecord { record_counter: counter, ..XtcpFlatRecord::default() }.encode(&mut bytes).unwrap();
        Self { runs, record: XtcpFlatRecord::decode(bytes.as_slice()).unwrap() }
    }

    pub(crate) fn none() -> Self {
        Self { runs: [const { Vec::new() }; 3], record: XtcpFlatRecord::default() }
    }

    pub(crate) fn context(&self, accecn: AccEcnLayout) -> Context<'_> {
        let [before, between, after] = &self.runs;
        Context { before, counter: self.record.record_counter, between, after, accecn }
    }
}

/// Every protocol whose INFO is another, and selections of attributes.
pub(crate) const READINGS: [Reading; 5] = [
    Reading::TCP,
    Reading { protocol: Protocol::MPTCP, selection: Selection::ALL },
    Reading { protocol: Protocol::SCTP, selection: Selection::ALL },
    Reading { protocol: Protocol::TCP, selection: Selection::DEFAULT },
    Reading { protocol: Protocol::TCP, selection: Selection::NONE },
];

/// Both ways agree on a row of TCP.
pub(crate) fn assert_same(payload: &[u8], beside: &Beside, layout: AccEcnLayout) {
    assert_same_as(payload, Reading::TCP, beside, layout);
}

/// Both ways agree on a row.
pub(crate) fn assert_same_as(payload: &[u8], reading: Reading, beside: &Beside, layout: AccEcnLayout) {
    let context = beside.context(layout);
    let (row, decoded) = match (Row::new_as(payload, reading), decode_as(payload, reading)) {
        (Err(error), Err(same)) => {
            assert_eq!(error, same);
            return;
        }
        (row, decoded) => (row.unwrap(), decoded.unwrap()),
    };
    assert_eq!(row.state(), decoded.header.state);
    assert_eq!(row.source_port(), decoded.header.id.source_port);
    assert_eq!(row.destination_port(), decoded.header.id.destination_port);
    assert_eq!(row.cookie(), decoded.header.id.cookie);
    assert_eq!(row.inode(), decoded.header.inode);
    assert_eq!(row.uid(), decoded.header.uid);

    let mut out = vec![0xee; row.room(&context)];
    let mut findings = Findings::default();
    let len = row.write(&context, &mut out, &mut findings).unwrap();
    assert_eq!(row.findings(), findings);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("lzcnt") {
        let mut same = vec![0xee; row.room(&context)];
        let mut found = Findings::default();
        #[allow(unsafe_code, reason = "asked for one line above")]
        // SAFETY: the processor has both.
        let same_len = unsafe { row.write_bmi2(&context, &mut same, &mut found) }.unwrap();
        assert_eq!((&same[..same_len], found), (&out[..len], findings), "{payload:x?}");
    }
    let Findings { unknown, malformed, damage } = findings;
    assert_eq!((unknown, malformed, damage), (decoded.unknown, decoded.malformed, decoded.damage));
    let expected = reference::record(beside.record.clone(), &decoded, layout);
    if out[..len] != expected.encode_to_vec() {
        let written = XtcpFlatRecord::decode(&out[..len]);
        panic!("{payload:x?}: wrote {:x?}, {written:#?} instead of {expected:#?}", &out[..len]);
    }
}
