//! Rows against `getsockopt`.

use std::fmt::Write;

use xtcp_inet_diag::attr::info::TcpInfo;
use xtcp_inet_diag::message::Decoded;

use super::model::{Scene, Socket, scenes};

/// How a field moves while nothing happens to its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Not at all.
    Still,
    /// It counts up, and not while nothing happens.
    Counter,
    /// It runs with time.
    Clock,
}
use Kind::{Clock, Counter, Still};

/// A field of `struct tcp_info`: its name, its place in the kernel's header, and what was decoded.
struct Field {
    name: &'static str,
    offset: usize,
    size: usize,
    kind: Kind,
    decoded: Option<u64>,
}

macro_rules! fields {
    ($info:expr; $($kind:ident { $($name:ident @ $offset:literal: $size:literal,)* })*) => {{
        // Taken apart without `..`: a field that the decoder learns must be added here.
        let TcpInfo { $($($name,)*)* tail } = $info;
        assert!(tail.is_empty(), "a kernel has fields that the table lacks: {tail:?}");
        vec![$($(Field {
            name: stringify!($name),
            offset: $offset,
            size: $size,
            kind: $kind,
            decoded: $name.map(u64::from),
        },)*)*]
    }};
}

/// The offsets are those of `struct tcp_info` in `include/uapi/linux/tcp.h`.
fn fields(info: &TcpInfo<'_>) -> Vec<Field> {
    fields! { info;
        Still {
            state @ 0: 1, ca_state @ 1: 1, retransmits @ 2: 1, probes @ 3: 1, backoff @ 4: 1, options @ 5: 1,
            wscales @ 6: 1, delivery_flags @ 7: 1, rto_us @ 8: 4, ato_us @ 12: 4, snd_mss_bytes @ 16: 4,
            rcv_mss_bytes @ 20: 4, unacked @ 24: 4, sacked @ 28: 4, lost @ 32: 4, retrans @ 36: 4, fackets @ 40: 4,
            last_ack_sent_ms @ 48: 4, pmtu_bytes @ 60: 4, rcv_ssthresh_bytes @ 64: 4, rtt_us @ 68: 4,
            rttvar_us @ 72: 4, snd_ssthresh @ 76: 4, snd_cwnd @ 80: 4, advmss_bytes @ 84: 4, reordering @ 88: 4,
            rcv_rtt_us @ 92: 4, rcv_space_bytes @ 96: 4, pacing_rate_bytes_per_s @ 104: 8,
            max_pacing_rate_bytes_per_s @ 112: 8, notsent_bytes @ 144: 4, min_rtt_us @ 148: 4,
            delivery_rate_bytes_per_s @ 160: 8, snd_wnd_bytes @ 228: 4, rcv_wnd_bytes @ 232: 4, rehash @ 236: 4,
            accecn_word @ 276: 4,
        }
        Counter {
            total_retrans @ 100: 4, bytes_acked @ 120: 8, bytes_received @ 128: 8, segs_out @ 136: 4, segs_in @ 140: 4,
            data_segs_in @ 152: 4, data_segs_out @ 156: 4, delivered @ 192: 4, delivered_ce @ 196: 4,
            bytes_sent @ 200: 8, bytes_retrans @ 208: 8, dsack_dups @ 216: 4, reord_seen @ 220: 4,
            rcv_ooopack @ 224: 4, total_rto @ 240: 2, total_rto_recoveries @ 242: 2, received_ce @ 248: 4,
            delivered_e1_bytes @ 252: 4, delivered_e0_bytes @ 256: 4, delivered_ce_bytes @ 260: 4,
            received_e1_bytes @ 264: 4, received_e0_bytes @ 268: 4, received_ce_bytes @ 272: 4,
        }
        Clock {
            last_data_sent_ms @ 44: 4, last_data_recv_ms @ 52: 4, last_ack_recv_ms @ 56: 4, busy_time_us @ 168: 8,
            rwnd_limited_us @ 176: 8, sndbuf_limited_us @ 184: 8, total_rto_time_ms @ 244: 4,
        }
    }
}

/// A little-endian or big-endian number as this machine has it.
fn number(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let field = bytes.get(offset..offset + size)?;
    Some(match size {
        1 => field[0].into(),
        2 => u16::from_ne_bytes(field.try_into().unwrap()).into(),
        4 => u32::from_ne_bytes(field.try_into().unwrap()).into(),
        _ => u64::from_ne_bytes(field.try_into().unwrap()),
    })
}

/// What does not fit, one line a field.
fn tcp_info_misses(info: &TcpInfo<'_>, before: &[u8], after: &[u8]) -> String {
    let mut text = String::new();
    for Field { name, offset, size, kind, decoded } in fields(info) {
        let (first, last) = (number(before, offset, size), number(after, offset, size));
        let fits = match (first, decoded, last) {
            (Some(first), Some(decoded), Some(last)) => match kind {
                Still => first == decoded && decoded == last,
                Counter | Clock => first <= decoded && decoded <= last,
            },
            (None, None, None) => true,
            _ => false,
        };
        if !fits {
            let _ = writeln!(text, "  {name} ({kind:?}): before {first:?}, row {decoded:?}, after {last:?}");
        }
    }
    text
}

#[test]
fn tcp_info_of_every_row_lies_between_two_reads_of_its_socket() {
    let (mut rows, mut misses) = (0, String::new());
    for scene in scenes() {
        for row in scene.tcp_rows() {
            let Some((socket, info)) = scene.socket_of(&row.decoded).zip(row.decoded.attributes.info) else {
                continue;
            };
            let wrong = tcp_info_misses(&info, &socket.before["TCP_INFO"], &socket.after["TCP_INFO"]);
            if !wrong.is_empty() {
                let _ = write!(misses, "{} {}:\n{wrong}", scene.capture.name(), socket.role);
            }
            rows += 1;
        }
    }
    assert!(misses.is_empty(), "{misses}");
    assert!(rows > 500, "only {rows} rows have tcp_info and a socket that was held");
}

/// Everything else that a socket says of itself, and what the row says: name, row, socket.
fn others(decoded: &Decoded<'_>, socket: &Socket) -> Vec<(&'static str, Option<u64>, Option<u64>)> {
    let attributes = decoded.attributes;
    let option = |name: &str| socket.option(name).map(u64::from);
    let mut pairs = vec![
        ("inode", Some(decoded.header.inode.into()), Some(socket.inode)),
        ("uid", Some(decoded.header.uid.into()), Some(socket.uid)),
    ];
    // What the row has, the socket must have too: extensions that were not asked for are not there.
    let mut same = |name: &'static str, row: Option<u64>, socket: Option<u64>| {
        if row.is_some() {
            pairs.push((name, row, socket));
        }
    };
    same("tos", attributes.tos.map(|tos| tos.0.into()), option("IP_TOS"));
    same("tclass", attributes.tclass.map(|tclass| tclass.0.into()), option("IPV6_TCLASS"));
    same("mark", attributes.mark.map(|mark| mark.0.into()), option("SO_MARK"));
    same("class_id", attributes.class_id.map(|id| id.0.into()), option("SO_PRIORITY"));
    same("v6only", attributes.sk_v6only.map(|only| only.0.into()), option("IPV6_V6ONLY"));
    if let Some(bits) = attributes.sockopt {
        same("recverr", Some(bits.recverr.into()), option("IP_RECVERR"));
        same("freebind", Some(bits.freebind.into()), option("IP_FREEBIND"));
        same("transparent", Some(bits.transparent.into()), option("IP_TRANSPARENT"));
        same("mc_loop", Some(bits.mc_loop.into()), option("IP_MULTICAST_LOOP"));
        same("mc_all", Some(bits.mc_all.into()), option("IP_MULTICAST_ALL"));
        same(
            "bind_address_no_port",
            Some(bits.bind_address_no_port.into()),
            option("IP_BIND_ADDRESS_NO_PORT"),
        );
        same("is_icsk", Some(bits.is_icsk.into()), Some(1));
    }
    let memory = |index: usize| {
        let (first, last) = (socket.before.get("SO_MEMINFO"), socket.after.get("SO_MEMINFO"));
        let read = |bytes: Option<&Vec<u8>>| bytes.and_then(|bytes| number(bytes, index * 4, 4));
        (read(first) == read(last)).then(|| read(first)).flatten()
    };
    if let Some(mem) = attributes.sk_meminfo.filter(|_| socket.before.contains_key("SO_MEMINFO")) {
        same("rmem_alloc", mem.rmem_alloc_bytes.map(u64::from), memory(0));
        same("rcvbuf", mem.rcvbuf_bytes.map(u64::from), option("SO_RCVBUF"));
        same("wmem_alloc", mem.wmem_alloc_bytes.map(u64::from), memory(2));
        same("sndbuf", mem.sndbuf_bytes.map(u64::from), option("SO_SNDBUF"));
        same("fwd_alloc", mem.fwd_alloc_bytes.map(u64::from), memory(4));
        same("wmem_queued", mem.wmem_queued_bytes.map(u64::from), memory(5));
        same("optmem", mem.optmem_bytes.map(u64::from), memory(6));
        same("backlog", mem.backlog_bytes.map(u64::from), memory(7));
        same("drops", mem.drops.map(u64::from), memory(8));
    }
    if let Some(mem) = attributes.meminfo.filter(|_| socket.before.contains_key("SO_MEMINFO")) {
        same("meminfo rmem", Some(mem.rmem_bytes.into()), memory(0));
        same("meminfo wmem", Some(mem.wmem_bytes.into()), memory(5));
        same("meminfo fmem", Some(mem.fmem_bytes.into()), memory(4));
        same("meminfo tmem", Some(mem.tmem_bytes.into()), memory(2));
    }
    pairs
}

#[test]
fn every_other_field_equals_what_its_socket_says() {
    let (mut compared, mut misses) = (0, String::new());
    for scene in scenes() {
        for row in scene.tcp_rows() {
            // A time-wait row has its socket's cookie and nothing else of it.
            let Some(socket) = scene.socket_of(&row.decoded).filter(|_| row.decoded.header.timer != 3) else {
                continue;
            };
            for (name, said, read) in others(&row.decoded, socket) {
                compared += 1;
                // Of sockets that are one of many, only tcp_info was read.
                let unread = read.is_none() && !socket.options.contains_key("SO_MARK");
                if said != read && !unread {
                    let _ = writeln!(
                        misses,
                        "{} {}: {name}: row {said:?}, socket {read:?}",
                        scene.capture.name(),
                        socket.role
                    );
                }
            }
        }
    }
    assert!(misses.is_empty(), "{misses}");
    assert!(compared > 5000, "only {compared} values were compared");
}

/// The words of `union tcp_cc_info` that the kernel filled.
fn congestion_words(socket: &Socket) -> Option<Vec<u64>> {
    let (before, after) = (socket.before.get("TCP_CC_INFO")?, socket.after.get("TCP_CC_INFO")?);
    assert_eq!(before, after, "the moment was quiet");
    Some((0..before.len() / 4).filter_map(|index| number(before, index * 4, 4)).collect())
}

#[test]
fn the_congestion_control_has_its_name_and_its_own_numbers() {
    let mut seen = std::collections::BTreeSet::new();
    for scene in scenes() {
        for row in scene.tcp_rows() {
            let (Some(socket), attributes) = (scene.socket_of(&row.decoded), row.decoded.attributes) else {
                continue;
            };
            if let Some(cong) = attributes.cong.filter(|_| socket.options.contains_key("TCP_CONGESTION")) {
                let name = socket.options["TCP_CONGESTION"].split(|byte| *byte == 0).next().unwrap();
                assert_eq!(cong.0.as_bytes(), name, "{} {}", scene.capture.name(), socket.role);
            }
            let said = if let Some(bbr) = attributes.bbr_info {
                seen.insert("bbr");
                let words = [bbr.bw_lo, bbr.bw_hi, bbr.min_rtt_us, bbr.pacing_gain, bbr.cwnd_gain];
                words.map(u64::from).to_vec()
            } else if let Some(vegas) = attributes.vegas_info {
                seen.insert("vegas");
                [vegas.enabled, vegas.rtt_cnt, vegas.rtt_us, vegas.min_rtt_us].map(u64::from).to_vec()
            } else if let Some(dctcp) = attributes.dctcp_info {
                seen.insert("dctcp");
                let first = u64::from(dctcp.enabled) | u64::from(dctcp.ce_state) << 16;
                [first, dctcp.alpha.into(), dctcp.ab_ecn_bytes.into(), dctcp.ab_tot_bytes.into()].to_vec()
            } else {
                continue;
            };
            let Some(read) = congestion_words(socket) else { continue };
            assert!(!read.is_empty(), "{} {}", scene.capture.name(), socket.role);
            assert_eq!(
                said[..read.len().min(said.len())],
                read[..],
                "{} {}",
                scene.capture.name(),
                socket.role
            );
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["bbr", "dctcp", "vegas"]);
}

#[test]
fn a_cgroup_of_its_own_has_its_folders_inode_for_id() {
    let mut rows = 0;
    for scene in scenes().iter().filter(|scene| scene.capture.scenario == "cgroup") {
        let id = scene.facts["cgroup_id"].as_u64().unwrap();
        for row in scene.tcp_rows() {
            assert_eq!(row.decoded.attributes.cgroup_id.unwrap().0, id, "{}", scene.capture.name());
            rows += 1;
        }
    }
    assert!(rows > 10, "{rows} rows");
}

/// A scene with its name, for tests of one scenario on every kernel that has it.
pub(crate) fn of_scenario(name: &str) -> Vec<Scene> {
    scenes().into_iter().filter(|scene| scene.capture.scenario == name).collect()
}
