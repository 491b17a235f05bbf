use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use prost::Message;
use xtcp_inet_diag::bytecode::Subject;
use xtcp_inet_diag::framing::{Body, Messages, SOCK_DIAG_BY_FAMILY};
use xtcp_inet_diag::message;
use xtcp_inet_diag::wire::Row;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_proto::flat_record::v1::xtcp_flat_record::RecordMethod;

use super::*;
use crate::fields;
use crate::netns::NetnsId;
use crate::pcap::{NETLINK_SOCK_DIAG, Reader};
use crate::record::builder::{Builder, Context, HostFields, RowFields};
use crate::record::{Reason, Rows};

fn select(options: &str) -> Select {
    Select::parse(&Options::parse(options).expect(options)).expect(options)
}

fn error(options: &str) -> String {
    Select::parse(&Options::parse(options).expect(options)).expect_err(options)
}

fn mapped(a: u8, b: u8, c: u8, d: u8) -> Vec<u8> {
    std::net::Ipv4Addr::new(a, b, c, d).to_ipv6_mapped().octets().to_vec()
}

fn inet(a: u8, b: u8, c: u8, d: u8) -> Vec<u8> {
    [&[a, b, c, d][..], &[0; 12]].concat()
}

fn connection() -> XtcpFlatRecord {
    XtcpFlatRecord {
        netns_inode: 7,
        inet_diag_msg_family: 2,
        inet_diag_msg_state: 1,
        inet_diag_msg_socket_source: inet(192, 0, 2, 1),
        inet_diag_msg_socket_destination: inet(198, 51, 100, 7),
        inet_diag_msg_socket_source_port: 443,
        inet_diag_msg_socket_destination_port: 50_000,
        inet_diag_msg_socket_cookie: 9,
        tcp_info_state: 1,
        tcp_info_rtt: 250,
        tcp_info_bytes_acked: 1_000,
        ..Default::default()
    }
}

#[test]
fn nothing_said_selects_everything() {
    for options in ["", "sample=1", "changed-only=false"] {
        assert!(select(options).is_everything(), "{options}");
    }
    for options in ["sample=0.5", "changed-only=true", "filter=sport+%3D+:443"] {
        assert!(!select(options).is_everything(), "{options}");
    }
    assert!(select("").start().passes(&connection().encode_to_vec()));
    // Whoever marshals it says what is wrong with it.
    assert!(select("filter=sport+%3D+:1").start().passes(&[0xff]));
}

#[test]
fn what_cannot_be_selected_is_said() {
    for options in ["sample=2", "sample=-0.1", "sample=NaN", "sample=some"] {
        let problem = "accepted: a number from 0 to 1, such as 0.01";
        assert_eq!(error(options), format!("option {options}: {problem}"));
    }
    assert!(error("filter=dport+%3D").starts_with("option filter=dport =: filter, byte 7: expected"));
    assert!(error("filter=dev+%3D+eth0").contains("write the index"));
    assert!(select("filter=dev+%3D+3").filter.is_some());
    assert!(error("filter=not+autobound").contains("no row tells"));
    assert_eq!(error("changed-only-bytes=1MiB"), "option changed-only-bytes needs changed-only=true");
}

/// Rows of every capture: as the decoder sees them, and as they are sent.
fn captured() -> Vec<(Subject, u8, Vec<u8>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/inet_diag");
    let template = Builder::new(HostFields::default(), (6, 12)).template(&Context {
        timestamp_ns: 1,
        netns: "default",
        netns_id: NetnsId { inode: 1, cookie: 0 },
        nsid: 0,
        workload: None,
        reason: Reason::Poll,
        method: RecordMethod::Dump,
        poll: 1,
        dump: 0,
        socket_fd: 0,
        netlinker_id: 0,
    });
    let mut template = template;
    let mut rows = Vec::new();
    for kernel in fs::read_dir(root).expect("fixtures") {
        let Ok(captures) = fs::read_dir(kernel.expect("a folder").path()) else { continue };
        for capture in captures {
            let path = capture.expect("a file").path();
            if path.extension().is_none_or(|extension| extension != "pcap") {
                continue;
            }
            let mut reader = Reader::open(fs::File::open(&path).expect("opened")).expect("a capture");
            while let Some(packet) = reader.packet().expect("a packet") {
                if packet.protocol != NETLINK_SOCK_DIAG {
                    continue;
                }
                for message in Messages::new(packet.datagram) {
                    let message = message.expect("a message");
                    let Body::Data { payload } = message.body else { continue };
                    // Requests have a type of their own flags, and are shorter than a row.
                    if message.header.kind != SOCK_DIAG_BY_FAMILY || message.header.flags & 1 != 0 {
                        continue;
                    }
                    let Ok(decoded) = message::decode(payload) else { continue };
                    let mut encoded = Rows::default();
                    let row = Row::new(payload).expect("a row");
                    template.append(&row, RowFields::default(), &mut encoded).expect("appended");
                    let encoded = encoded.iter().next().expect("one").to_vec();
                    rows.push((Subject::of(&decoded), decoded.header.state, encoded));
                }
            }
        }
    }
    rows
}

#[test]
fn a_filter_says_of_a_row_what_the_decoder_says_of_the_kernels_message() {
    let rows = captured();
    assert!(rows.len() > 500, "{}", rows.len());
    for text in [
        "src 127.0.0.0/8",
        "src inet6:*",
        "dst [::1] or sport > 40000",
        "not dst 127.0.0.1 and dport < 1024",
        "state established",
        "state time-wait",
        "state listening sport != :0",
        "exclude established dst 10.0.0.0/8",
        "dev != 0",
        "dev = 1",
        "fwmark = 0x2a/0xff",
        "cgroup = 1",
        "( sport >= :1024 or dport >= :1024 ) and not src [::1]",
    ] {
        let filter: SocketFilter = text.parse().expect(text);
        let (states, program) = (filter.states(), filter.compile(&|_| None));
        let options =
            format!("filter={}", form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
        let mut selector = select(&options).start();
        let (mut passed, mut unlike) = (0, 0);
        for (subject, state, row) in &rows {
            let state = xtcp_inet_diag::state::State::from_raw(*state).expect("a state");
            // What is not in a row is 0 in it.
            let told = Subject {
                mark: subject.mark.or(Some(0)),
                cgroup_id: subject.cgroup_id.or(Some(0)),
                ..*subject
            };
            let expected = states.is_none_or(|states| states.contains(state)) && program.matches(&told);
            assert_eq!(selector.passes(row), expected, "{text}: {subject:?}");
            passed += usize::from(expected);
            unlike += usize::from(!expected);
        }
        assert!(unlike > 0, "{text} lets everything pass");
        let rare = ["dev", "fwmark", "exclude", "cgroup"].iter().any(|word| text.starts_with(word));
        assert!(passed > 0 || rare, "{text} lets nothing pass");
    }
}

#[test]
fn a_share_is_the_same_at_both_ends_whatever_their_family() {
    let here = connection();
    let mut there = connection();
    there.inet_diag_msg_socket_source = here.inet_diag_msg_socket_destination.clone();
    there.inet_diag_msg_socket_destination = here.inet_diag_msg_socket_source.clone();
    there.inet_diag_msg_socket_source_port = here.inet_diag_msg_socket_destination_port;
    there.inet_diag_msg_socket_destination_port = here.inet_diag_msg_socket_source_port;
    let mut dual = there.clone();
    dual.inet_diag_msg_family = 10;
    dual.inet_diag_msg_socket_source = mapped(198, 51, 100, 7);
    dual.inet_diag_msg_socket_destination = mapped(192, 0, 2, 1);
    let mut later = here.clone();
    later.timestamp_ns = 5;
    later.inet_diag_msg_state = 6;
    later.tcp_info_bytes_acked = 7_000;
    let hash =
        |record: &XtcpFlatRecord| sample::hash(&Facts::of(&record.encode_to_vec(), false).expect("a row"));
    // Other implementations agree with this number, or with none.
    assert_eq!(hash(&here), 2_725_327_768_434_791_676);
    for other in [there, dual, later] {
        assert_eq!(hash(&other), hash(&here));
    }
}

#[test]
fn a_share_is_about_as_large_as_it_says_and_holds_the_smaller_ones() {
    let mut shares = ["0.01", "0.1", "0.5"].map(|share| select(&format!("sample={share}")).start());
    let mut taken = [0_u32; 3];
    let mut record = connection();
    for port in 1..=20_000 {
        record.inet_diag_msg_socket_destination_port = port;
        let row = record.encode_to_vec();
        let passes = shares.each_mut().map(|share| share.passes(&row));
        assert!(passes.is_sorted(), "a larger share leaves out what a smaller one takes");
        for (taken, passes) in taken.iter_mut().zip(passes) {
            *taken += u32::from(passes);
        }
    }
    // Six standard deviations of a fair draw. The hash is fixed, so this never changes.
    for (taken, (expected, six)) in taken.into_iter().zip([(200, 85), (2_000, 255), (10_000, 425)]) {
        assert!(taken.abs_diff(expected) <= six, "{taken} of about {expected}");
    }
    assert!(!select("sample=0").start().passes(&record.encode_to_vec()));
}

proptest! {
    #[test]
    fn both_ends_of_any_connection_are_sampled_alike(
        source: [u8; 16],
        destination: [u8; 16],
        ports: (u16, u16),
        share in 0.0..1.0_f64,
    ) {
        let end = |source: [u8; 16], destination: [u8; 16], source_port: u16, destination_port: u16| XtcpFlatRecord {
            inet_diag_msg_family: 10,
            inet_diag_msg_socket_source: source.to_vec(),
            inet_diag_msg_socket_destination: destination.to_vec(),
            inet_diag_msg_socket_source_port: source_port.into(),
            inet_diag_msg_socket_destination_port: destination_port.into(),
            ..Default::default()
        };
        let mut selector = select(&format!("sample={share}")).start();
        let here = selector.passes(&end(source, destination, ports.0, ports.1).encode_to_vec());
        let there = selector.passes(&end(destination, source, ports.1, ports.0).encode_to_vec());
        prop_assert_eq!(here, there);
    }
}

#[test]
fn a_socket_passes_when_its_counters_moved_and_only_then() {
    let mut selector = select("changed-only=true").start();
    let mut record = connection();
    let mut passes = |record: &XtcpFlatRecord| selector.passes(&record.encode_to_vec());
    assert!(passes(&record), "a first row");
    assert!(!passes(&record));
    record.timestamp_ns = 99;
    record.poll_number = 2;
    record.tcp_info_rtt = 300;
    record.tcp_info_last_data_sent = 10_000;
    record.tcp_info_pacing_rate = 5;
    assert!(!passes(&record), "time passes, estimates move");
    record.tcp_info_bytes_acked += 1;
    assert!(passes(&record));
    assert!(!passes(&record));
    // Two sockets in two namespaces may have one cookie.
    record.netns_inode = 8;
    assert!(passes(&record));
    record.inet_diag_msg_state = 8;
    assert!(passes(&record), "a new state");
    record.inet_diag_msg_socket_cookie = 0;
    assert!(passes(&record) && passes(&record), "nobody knows whose row it is");

    let mut listener = connection();
    listener.inet_diag_msg_state = 10;
    listener.inet_diag_msg_socket_cookie = 10;
    assert!(passes(&listener));
    assert!(!passes(&listener));
    listener.inet_diag_msg_rqueue = 3;
    assert!(passes(&listener), "its backlog grew");
    listener.inet_diag_msg_rqueue = 0;
    assert!(passes(&listener), "its backlog is empty again");
}

#[test]
fn what_is_remembered_has_a_bound_and_what_is_forgotten_is_counted_and_passes_again() {
    let mut selector = select("changed-only=true&changed-only-bytes=12KiB").start();
    let mut record = connection();
    let mut pass = |selector: &mut Selector, cookies: std::ops::RangeInclusive<u64>| {
        cookies
            .filter(|cookie| {
                record.inet_diag_msg_socket_cookie = *cookie;
                selector.passes(&record.encode_to_vec())
            })
            .count()
    };
    assert_eq!(pass(&mut selector, 1..=50), 50);
    assert_eq!(pass(&mut selector, 1..=50), 0);
    assert_eq!(selector.forgotten(), 0);
    assert_eq!(pass(&mut selector, 1..=1_000), 950);
    let kept = 12 * 1_024 / 120;
    assert_eq!(selector.forgotten(), 1_000 - kept);
    assert_eq!(pass(&mut selector, 1..=50), 50, "forgotten");
    // Rows that passed were lost: all pass again.
    selector.forget();
    assert_eq!(pass(&mut selector, 1..=50), 50);
    assert_eq!(selector.forgotten(), 1_000 - kept + 50);
}

#[test]
fn a_filter_comes_first_so_that_what_it_refuses_is_not_remembered() {
    let mut selector = select("filter=state+established&changed-only=true&sample=1").start();
    let mut record = connection();
    record.inet_diag_msg_state = 8;
    assert!(!selector.passes(&record.encode_to_vec()));
    record.inet_diag_msg_state = 1;
    assert!(selector.passes(&record.encode_to_vec()));
    assert!(!selector.passes(&record.encode_to_vec()));
}

#[test]
fn what_counts_as_a_change_exists_and_is_no_time_rate_or_estimate() {
    let counted: Vec<&str> = fields::all()
        .iter()
        .filter(|field| facts::counts(field.number))
        .map(|field| field.name.as_str())
        .collect();
    assert!(counted.len() > 30, "{counted:?}");
    for name in ["inet_diag_msg_state", "tcp_info_total_retrans", "tcp_info_bytes_acked", "sk_mem_info_drops"]
    {
        assert!(counted.contains(&name), "{name}");
    }
    for word in ["rtt", "last_", "rate", "cwnd", "timestamp", "expires", "snd_wnd", "rcv_wnd"] {
        assert!(!counted.iter().any(|name| name.contains(word)), "{word}: {counted:?}");
    }
}
