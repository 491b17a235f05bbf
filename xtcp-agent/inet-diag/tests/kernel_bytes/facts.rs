//! The decoder against what the sockets were, which the script that made them decided.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xtcp_inet_diag::attr::info::options;
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::message::{Decoded, decode};
use xtcp_inet_diag::socket_id::Family;
use xtcp_inet_diag::state::{State, States};

use super::fixtures::{DUMP_BOTH, DUMP_BOTH_BARE, DUMP_V4, DUMP_V6, LOOKUPS, all, all_rows, rows};

fn decoded(datagrams: &[&'static [u8]]) -> Vec<Decoded<'static>> {
    rows(datagrams).into_iter().map(|payload| decode(payload).unwrap()).collect()
}

/// The only row of this state whose local port is this.
fn local(port: u16, state: State) -> Decoded<'static> {
    only(|row| row.header.id.source_port == port && row.header.state() == Some(state))
}

/// The only row of this state whose peer's port is this.
fn peer(port: u16, state: State) -> Decoded<'static> {
    only(|row| row.header.id.destination_port == port && row.header.state() == Some(state))
}

fn only(is_it: impl Fn(&Decoded<'static>) -> bool) -> Decoded<'static> {
    let mut found: Vec<_> = decoded(DUMP_BOTH).into_iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    found.pop().unwrap()
}

#[test]
fn nothing_that_the_kernel_sends_is_unknown_malformed_or_damaged() {
    for payload in all_rows() {
        let row = decode(payload).unwrap();
        assert!(row.unknown.is_empty() && row.malformed.is_empty() && row.damage.is_none(), "{row:#?}");
    }
}

#[test]
fn one_pass_over_both_families_is_what_both_dumps_say() {
    let cookies = |datagrams: &[&'static [u8]]| {
        let mut cookies: Vec<_> = decoded(datagrams).iter().map(|row| row.header.id.cookie).collect();
        cookies.sort_unstable();
        cookies
    };
    let both = cookies(DUMP_BOTH);
    assert_eq!(both.len(), 25);
    let mut each = cookies(DUMP_V4);
    each.extend(cookies(DUMP_V6));
    each.sort_unstable();
    assert_eq!(both, each);
    assert_eq!(both, cookies(DUMP_BOTH_BARE));
    assert!(decoded(DUMP_V4).iter().all(|row| row.header.family() == Some(Family::Inet)));
    assert!(decoded(DUMP_V6).iter().all(|row| row.header.family() == Some(Family::Inet6)));
}

#[test]
fn a_dump_ends_with_done_and_is_never_interrupted() {
    for dump in [DUMP_BOTH, DUMP_BOTH_BARE, DUMP_V4, DUMP_V6] {
        let messages: Vec<_> =
            dump.iter().flat_map(|datagram| Messages::new(datagram)).collect::<Result<_, _>>().unwrap();
        let (last, rows) = messages.split_last().unwrap();
        assert!(matches!(last.body, Body::Done { status: 0, .. }), "{last:?}");
        assert!(rows.iter().all(|row| row.is_socket() && row.is_multipart() && !row.is_dump_interrupted()));
        assert!(messages.iter().all(|message| message.header.seq == 1));
    }
}

#[test]
fn each_congestion_control_has_its_name_and_bbr_its_numbers() {
    for (port, name) in [(24801, "cubic"), (24802, "bbr"), (24803, "reno")] {
        let listener = local(port, State::Listen);
        assert_eq!(listener.attributes.cong.unwrap().0, name);
        assert_eq!((listener.header.rqueue, listener.header.wqueue), (0, 16));
        assert_eq!(listener.attributes.info.unwrap().sacked, Some(16), "the backlog's limit");
        let client = peer(port, State::Established);
        assert_eq!(client.attributes.cong.unwrap().0, name);
        assert_eq!(client.attributes.bbr_info.is_some(), name == "bbr");
        assert_eq!((client.attributes.vegas_info, client.attributes.dctcp_info), (None, None));
    }
    let bbr = peer(24802, State::Established).attributes.bbr_info.unwrap();
    assert!(bbr.bw_bytes_per_s() > 1_000_000 && bbr.pacing_gain >= 256 && bbr.tail.is_empty(), "{bbr:?}");
    assert!(bbr.min_rtt_us < 1_000_000);
}

#[test]
fn tcp_info_counts_the_bytes_that_were_sent() {
    for port in [24801, 24802, 24803] {
        let sender = peer(port, State::Established).attributes.info.unwrap();
        let sent = sender.bytes_sent.unwrap() - sender.bytes_retrans.unwrap();
        assert_eq!((sent, sender.bytes_acked), (100_000, Some(100_001)), "the SYN is acknowledged too");
        let receiver = local(port, State::Established).attributes.info.unwrap();
        assert_eq!(receiver.bytes_received, Some(100_000));
        assert_eq!((receiver.bytes_sent, receiver.data_segs_out), (Some(0), Some(0)));
        assert_eq!(receiver.data_segs_in, sender.data_segs_out);
        assert_eq!((sender.state, sender.ca_state), (Some(1), Some(0)));
        assert_eq!(sender.options, Some(options::TIMESTAMPS | options::SACK | options::WSCALE));
        assert_eq!((sender.advmss_bytes, sender.pmtu_bytes), (Some(65_483), Some(65_535)), "the loopback's");
        assert_eq!(sender.max_pacing_rate_bytes_per_s, Some(u64::MAX));
        assert_eq!((sender.unacked, sender.lost, sender.notsent_bytes), (Some(0), Some(0), Some(0)));
        assert!(sender.busy_time_us.unwrap() < 1_000_000 && sender.rtt_us.unwrap() < 1_000_000);
        assert!(sender.min_rtt_us.unwrap() <= sender.rtt_us.unwrap());
        assert_eq!(sender.snd_wnd_bytes, receiver.rcv_wnd_bytes);
        assert_eq!((sender.total_rto, sender.total_rto_time_ms), (Some(0), Some(0)));
        assert_eq!(sender.snd_wscale(), receiver.rcv_wscale());
        assert!(sender.accecn_word.is_some(), "280 bytes since 6.18");
    }
}

#[test]
fn an_ipv6_client_has_its_options_mark_and_half_closed_state() {
    let client = peer(24804, State::FinWait2);
    let id = client.header.id;
    let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
    assert_eq!((id.source_ip(Family::Inet6), id.destination_ip(Family::Inet6)), (loopback, loopback));
    let attributes = client.attributes;
    assert_eq!((attributes.tos.unwrap().0, attributes.tclass.unwrap().0), (0x10, 0x20));
    assert_eq!(attributes.mark.unwrap().0, 0x1234);
    assert_eq!(attributes.class_id.unwrap().0, 6, "the priority that IP_TOS 0x10 brings");
    let shutdown = attributes.shutdown.unwrap();
    assert!(shutdown.send() && !shutdown.receive());
    assert_eq!(attributes.info.unwrap().bytes_acked, Some(1002), "SYN and FIN are acknowledged too");

    let server = local(24804, State::CloseWait);
    assert_eq!(server.header.rqueue, 1001, "the FIN counts for one");
    assert!(server.attributes.shutdown.unwrap().receive());
    assert_eq!(server.attributes.info.unwrap().bytes_received, Some(1001));
    let skmem = server.attributes.sk_meminfo.unwrap();
    assert!(skmem.rmem_alloc_bytes.unwrap() > 1000 && skmem.drops == Some(0), "{skmem:?}");
    let meminfo = server.attributes.meminfo.unwrap();
    assert_eq!(Some(meminfo.rmem_bytes), skmem.rmem_alloc_bytes);
    assert_eq!(Some(meminfo.wmem_bytes), skmem.wmem_queued_bytes);
    assert_eq!(Some(meminfo.tmem_bytes), skmem.wmem_alloc_bytes);

    assert!(local(24804, State::Listen).attributes.sk_v6only.unwrap().0);
    assert!(!local(24805, State::Listen).attributes.sk_v6only.unwrap().0);
}

#[test]
fn a_v4_mapped_socket_is_an_ipv6_row() {
    let id = peer(24805, State::Established).header.id;
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    assert_eq!(id.source_ip(Family::Inet6), IpAddr::V6(mapped));
    assert_eq!(id.destination, mapped.octets());
}

#[test]
fn ipv4_addresses_are_in_the_first_four_bytes() {
    let id = peer(24801, State::Established).header.id;
    assert_eq!(id.source, [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(id.destination_ip(Family::Inet), IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(local(24801, State::Listen).header.id.destination, [0; 16]);
}

#[test]
fn a_time_wait_and_a_request_row_have_a_header_and_no_tcp_info() {
    let time_wait = peer(24806, State::TimeWait);
    assert_eq!((time_wait.header.inode, time_wait.header.timer), (0, 3));
    assert!((1..=60_000).contains(&time_wait.header.expires_ms));
    assert_ne!(time_wait.header.id.cookie, 0);
    let request = local(24807, State::SynRecv);
    assert_eq!((request.header.inode, request.header.timer), (0, 1));
    for row in [time_wait, request] {
        assert_eq!((row.attributes.info, row.attributes.cong, row.attributes.shutdown), (None, None, None));
        assert!(row.attributes.mark.is_some());
    }
}

#[test]
fn a_bound_socket_is_shown_as_closed() {
    let bound = local(24808, State::Close);
    assert!(States::from(State::BoundInactive).shows(bound.header.state));
    assert_eq!((bound.attributes.info, bound.header.id.destination_port), (None, 0));
    assert_ne!(bound.header.inode, 0);
}

#[test]
fn an_mptcp_subflow_tells_its_tokens() {
    let client = peer(24809, State::Established).attributes.ulp_info.unwrap();
    let server = local(24809, State::Established).attributes.ulp_info.unwrap();
    assert_eq!((client.name, server.name), (Some("mptcp"), Some("mptcp")));
    let (client, server) = (client.mptcp.unwrap(), server.mptcp.unwrap());
    assert_eq!(server.token_loc, Some(0x63fd_b6b7));
    assert_eq!(client.token_loc, Some(0x603f_2f8f));
    assert_eq!((client.id_loc, client.id_rem, client.map_datalen), (Some(0), Some(0), Some(0)));
    assert!(client.map_seq.is_some() && client.flags.is_some() && client.ssn_offset.is_some());
    let listener = local(24809, State::Listen).attributes.ulp_info.unwrap();
    assert_eq!((listener.name, listener.mptcp), (Some("mptcp"), None));
}

#[test]
fn an_md5_key_is_kept_as_bytes_and_not_printed() {
    let listener = local(24810, State::Listen).attributes;
    let md5sig = listener.md5sig.unwrap();
    assert_eq!(md5sig.0.len(), 100);
    assert!(md5sig.0.windows(8).any(|window| window == b"test key"));
    assert_eq!(format!("{md5sig:?}"), "Md5Sig(100 bytes)");
}

#[test]
fn socket_options_and_cgroup_come_unasked() {
    for row in decoded(DUMP_BOTH_BARE) {
        let full =
            matches!(row.header.state(), Some(state) if state != State::TimeWait && state != State::SynRecv);
        assert_eq!(row.attributes.sockopt.is_some_and(|sockopt| sockopt.is_icsk), full);
        assert_eq!(row.attributes.cgroup_id.is_some_and(|id| id.0 == 1), full);
        assert_eq!((row.attributes.info, row.attributes.cong, row.attributes.tos), (None, None, None));
    }
}

#[test]
fn a_lookup_answers_with_one_message_and_a_missing_socket_with_enoent() {
    let answers: Vec<_> =
        LOOKUPS.iter().flat_map(|datagram| Messages::new(datagram)).collect::<Result<_, _>>().unwrap();
    assert_eq!(answers.iter().map(|answer| answer.header.seq).collect::<Vec<_>>(), [101, 102, 103]);
    assert!(answers.iter().all(|answer| !answer.is_multipart()));
    let Body::Error { errno: 2, request: Some(request), .. } = answers[1].body else {
        panic!("{:?}", answers[1]);
    };
    assert_eq!((request.kind, request.seq, request.len), (20, 102, 72));
    let cookies: Vec<_> = decoded(DUMP_BOTH).iter().map(|row| row.header.id.cookie).collect();
    for row in decoded(LOOKUPS) {
        assert!(cookies.contains(&row.header.id.cookie) && row.attributes.info.is_some());
        assert_eq!(row.attributes.meminfo, None, "not wanted");
    }
}

#[test]
fn every_datagram_is_walked_to_its_end() {
    for datagram in all() {
        assert!(Messages::new(datagram).all(|message| message.is_ok()));
    }
}
