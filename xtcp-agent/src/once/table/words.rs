//! A record in the words of `ss`.

use std::fmt::Write;
use std::net::IpAddr;

use xtcp_inet_diag::state::State;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

use crate::words::{TCP_OPTIONS, WINDOW_SCALE, address, thousandths, timer};

/// Slow start is not over: the kernel's infinity, and what else `ss` takes for it.
const NO_SSTHRESH: u32 = 0xffff;
/// A socket that measured no round trip yet.
const FIRST_RTO_US: u32 = 3_000_000;
/// Bits of `tcpi_options` that `ss` has words for, beside window scaling, which it shows elsewhere.
const SHOWN_OPTIONS: u32 = 1 | 2 | 8 | 16 | 32;

/// A state as `ss` writes it.
pub(super) fn state(number: u32) -> String {
    let name = match u8::try_from(number).ok().and_then(State::from_raw) {
        None => return number.to_string(),
        Some(State::Established) => "ESTAB",
        Some(State::SynSent) => "SYN-SENT",
        Some(State::SynRecv) => "SYN-RECV",
        Some(State::FinWait1) => "FIN-WAIT-1",
        Some(State::FinWait2) => "FIN-WAIT-2",
        Some(State::TimeWait) => "TIME-WAIT",
        Some(State::Close) => "UNCONN",
        Some(State::CloseWait) => "CLOSE-WAIT",
        Some(State::LastAck) => "LAST-ACK",
        Some(State::Listen) => "LISTEN",
        Some(State::Closing) => "CLOSING",
        Some(State::NewSynRecv) => "NEW-SYN-RECV",
        Some(State::BoundInactive) => "BOUND-INACTIVE",
    };
    name.to_owned()
}

/// Both addresses. An IPv6 socket that takes IPv4 too has `*`; the number behind `%` is an interface's, whose name only
/// its namespace knows.
pub(super) fn addresses(record: &XtcpFlatRecord) -> [String; 2] {
    let both = [&record.inet_diag_msg_socket_source, &record.inet_diag_msg_socket_destination];
    let [local, peer] = both.map(|bytes| match address(record.inet_diag_msg_family, bytes) {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(any) if any.is_unspecified() && record.skv6only != Some(true) => "*".to_owned(),
        IpAddr::V6(address) => format!("[{address}]"),
    });
    match record.inet_diag_msg_socket_interface {
        0 => [local, peer],
        interface => [format!("{local}%{interface}"), peer],
    }
}

/// What `ss -tiemo` tells behind the addresses.
pub(super) fn details(record: &XtcpFlatRecord) -> String {
    let mut words = Words(String::new());
    socket(&mut words, record);
    if record.tcp_info_state != 0 {
        path(&mut words, record);
        traffic(&mut words, record);
        rates(&mut words, record);
        quality(&mut words, record);
    }
    words.0
}

/// Words with a space between them.
struct Words(String);

impl Words {
    fn word(&mut self, word: &str) {
        let space = if self.0.is_empty() { "" } else { " " };
        self.0.extend([space, word]);
    }

    /// `name:value`, unless it is 0.
    fn count(&mut self, name: &str, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.word(&format!("{name}:{value}"));
        }
    }

    fn counts<const N: usize>(&mut self, counts: [(&str, u64); N]) {
        for (name, value) in counts {
            self.count(name, value);
        }
    }

    /// Milliseconds, unless it is 0.
    fn ms(&mut self, name: &str, us: u32) {
        if us != 0 {
            self.word(&format!("{name}:{}", ms(us)));
        }
    }

    /// `name 8bps`, unless it is 0.
    fn rate(&mut self, name: &str, bytes_per_s: u64) {
        if bytes_per_s != 0 {
            self.word(&format!("{name} {}bps", u128::from(bytes_per_s) * 8));
        }
    }
}

/// Microseconds as milliseconds, without zeros at the end.
fn ms(us: u32) -> String {
    thousandths(us.into())
}

fn socket(words: &mut Words, record: &XtcpFlatRecord) {
    let timer = timer(record.inet_diag_msg_timer);
    if !timer.is_empty() {
        let left = timer_left(record.inet_diag_msg_expires);
        words.word(&format!("timer:({timer},{left},{})", record.inet_diag_msg_retrans));
    }
    words.count("uid", record.inet_diag_msg_uid);
    words.count("ino", record.inet_diag_msg_inode);
    words.word(&format!("sk:{:x}", record.inet_diag_msg_socket_cookie));
    words.count("cgroup", record.c_group);
    if let Some(only) = record.skv6only {
        words.word(&format!("v6only:{}", u8::from(only)));
    }
    if record.mark != 0 {
        words.word(&format!("fwmark:{:#x}", record.mark));
    }
    if record.sk_mem_info_rcv_buf != 0 {
        words.word(&format!(
            "skmem:(r{},rb{},t{},tb{},f{},w{},o{},bl{},d{})",
            record.sk_mem_info_rmem_alloc,
            record.sk_mem_info_rcv_buf,
            record.sk_mem_info_wmem_alloc,
            record.sk_mem_info_snd_buf,
            record.sk_mem_info_fwd_alloc,
            record.sk_mem_info_wmem_queued,
            record.sk_mem_info_optmem,
            record.sk_mem_info_backlog,
            record.sk_mem_info_drops,
        ));
    }
    if !record.ulp_name.is_empty() {
        words.word(&format!("ulp:{}", record.ulp_name));
    }
}

/// What is left of a timer: minutes, seconds and milliseconds, coarser the more it is.
fn timer_left(all_ms: u32) -> String {
    let (minutes, seconds, millis) = (all_ms / 60_000, all_ms / 1_000 % 60, all_ms % 1_000);
    let mut text = String::new();
    let mut put = |number: u32, unit: &str| {
        // Writing to a string does not fail.
        let _ = write!(text, "{number}{unit}");
    };
    match (minutes, seconds, millis) {
        (0, 0, millis) => put(millis, "ms"),
        (0, 1..=9, 1..) => text = format!("{seconds}.{millis:03}ms"),
        (0, seconds, _) => put(seconds, "sec"),
        (1..=9, 1.., _) => text = format!("{minutes}min{seconds}sec"),
        (minutes, ..) => put(minutes, "min"),
    }
    text
}

fn path(words: &mut Words, record: &XtcpFlatRecord) {
    for (bit, name) in TCP_OPTIONS {
        if record.tcp_info_options & bit & SHOWN_OPTIONS != 0 {
            words.word(name);
        }
    }
    words.word(&record.congestion_algorithm_string);
    if record.tcp_info_options & WINDOW_SCALE != 0 {
        let (send, receive) = (record.tcp_info_send_scale, record.tcp_info_rcv_scale);
        words.word(&format!("wscale:{send},{receive}"));
    }
    if record.tcp_info_rto != FIRST_RTO_US {
        words.ms("rto", record.tcp_info_rto);
    }
    words.count("backoff", record.tcp_info_backoff);
    if record.tcp_info_rtt != 0 {
        words.word(&format!("rtt:{}/{}", ms(record.tcp_info_rtt), ms(record.tcp_info_rtt_var)));
    }
    words.ms("ato", record.tcp_info_ato);
    // A listener has its backlog where others have what these count.
    if record.inet_diag_msg_state != State::Listen as u32 {
        words.counts([
            ("mss", record.tcp_info_snd_mss.into()),
            ("pmtu", record.tcp_info_pmtu.into()),
            ("rcvmss", record.tcp_info_rcv_mss.into()),
            ("advmss", record.tcp_info_adv_mss.into()),
        ]);
    }
    words.count("cwnd", record.tcp_info_snd_cwnd);
    if record.tcp_info_snd_ssthresh < NO_SSTHRESH {
        words.count("ssthresh", record.tcp_info_snd_ssthresh);
    }
}

fn traffic(words: &mut Words, record: &XtcpFlatRecord) {
    words.counts([
        ("bytes_sent", record.tcp_info_bytes_sent),
        ("bytes_retrans", record.tcp_info_bytes_retrans),
        ("bytes_acked", record.tcp_info_bytes_acked),
        ("bytes_received", record.tcp_info_bytes_received),
        ("segs_out", record.tcp_info_segs_out.into()),
        ("segs_in", record.tcp_info_segs_in.into()),
        ("data_segs_out", record.tcp_info_data_segs_out.into()),
        ("data_segs_in", record.tcp_info_data_segs_in.into()),
    ]);
    if record.dctcp_info_enabled != 0 {
        words.word(&format!(
            "dctcp:(ce_state:{},alpha:{},ab_ecn:{},ab_tot:{})",
            record.dctcp_info_ce_state,
            record.dctcp_info_alpha,
            record.dctcp_info_ab_ecn,
            record.dctcp_info_ab_tot,
        ));
    }
    if record.bbr_info_min_rtt != 0 {
        let bytes_per_s = u64::from(record.bbr_info_bw_hi) << 32 | u64::from(record.bbr_info_bw_lo);
        let mut bbr = format!("bbr:(bw:{}bps", u128::from(bytes_per_s) * 8);
        bbr.extend([",mrtt:", &ms(record.bbr_info_min_rtt)]);
        for (name, gain) in
            [("pacing_gain", record.bbr_info_pacing_gain), ("cwnd_gain", record.bbr_info_cwnd_gain)]
        {
            if gain != 0 {
                // Both are in 256ths.
                let gain = format!("{:.5}", f64::from(gain) / 256.0);
                bbr.extend([",", name, ":", gain.trim_end_matches('0').trim_end_matches('.')]);
            }
        }
        bbr.push(')');
        words.word(&bbr);
    }
}

fn rates(words: &mut Words, record: &XtcpFlatRecord) {
    let (window, mss, rtt_us) = (record.tcp_info_snd_cwnd, record.tcp_info_snd_mss, record.tcp_info_rtt);
    let bits = u128::from(window) * u128::from(mss) * 8_000_000;
    let rounded = bits + u128::from(rtt_us / 2);
    if let Some(per_s) = rounded.checked_div(rtt_us.into()).filter(|per_s| *per_s > 0) {
        words.word(&format!("send {per_s}bps"));
    }
    words.counts([
        ("lastsnd", record.tcp_info_last_data_sent.into()),
        ("lastrcv", record.tcp_info_last_data_recv.into()),
        ("lastack", record.tcp_info_last_ack_recv.into()),
    ]);
    // All ones are no limit.
    match (record.tcp_info_pacing_rate, record.tcp_info_max_pacing_rate) {
        (0 | u64::MAX, _) => {}
        (rate, 0 | u64::MAX) => words.rate("pacing_rate", rate),
        (rate, most) => {
            words.word(&format!("pacing_rate {}bps/{}bps", u128::from(rate) * 8, u128::from(most) * 8));
        }
    }
    words.rate("delivery_rate", record.tcp_info_delivery_rate);
    words.count("delivered", record.tcp_info_delivered);
    words.count("delivered_ce", record.tcp_info_delivered_ce);
    if record.tcp_info_delivery_rate_app_limited != 0 {
        words.word("app_limited");
    }
}

fn quality(words: &mut Words, record: &XtcpFlatRecord) {
    let busy_us = record.tcp_info_busy_time;
    for (name, us) in [
        ("busy", busy_us),
        ("rwnd_limited", record.tcp_info_rwnd_limited),
        ("sndbuf_limited", record.tcp_info_sndbuf_limited),
    ] {
        if us != 0 {
            let share = match us.saturating_mul(1_000).checked_div(busy_us) {
                Some(per_mille) if name != "busy" => format!("({}.{}%)", per_mille / 10, per_mille % 10),
                Some(_) | None => String::new(),
            };
            words.word(&format!("{name}:{}ms{share}", us / 1_000));
        }
    }
    words.count("unacked", record.tcp_info_unacked);
    if record.tcp_info_retrans != 0 || record.tcp_info_total_retrans != 0 {
        words.word(&format!("retrans:{}/{}", record.tcp_info_retrans, record.tcp_info_total_retrans));
    }
    let listens = record.inet_diag_msg_state == State::Listen as u32;
    words.counts([
        ("lost", record.tcp_info_lost.into()),
        ("sacked", if listens { 0 } else { record.tcp_info_sacked.into() }),
        ("dsack_dups", record.tcp_info_dsack_dups.into()),
        ("fackets", record.tcp_info_fackets.into()),
        // 3 is what every connection begins with.
        ("reordering", if record.tcp_info_reordering == 3 { 0 } else { record.tcp_info_reordering.into() }),
        ("reord_seen", record.tcp_info_reord_seen.into()),
    ]);
    words.ms("rcv_rtt", record.tcp_info_rcv_rtt);
    words.counts([
        ("rcv_space", record.tcp_info_rcv_space.into()),
        ("rcv_ssthresh", record.tcp_info_rcv_ssthresh.into()),
        ("notsent", record.tcp_info_not_sent_bytes.into()),
    ]);
    if record.tcp_info_min_rtt != u32::MAX {
        words.ms("minrtt", record.tcp_info_min_rtt);
    }
    words.counts([
        ("rcv_ooopack", record.tcp_info_rcv_ooopack.into()),
        ("snd_wnd", record.tcp_info_snd_wnd.into()),
        ("rcv_wnd", record.tcp_info_rcv_wnd.into()),
        ("rehash", record.tcp_info_rehash.into()),
        ("total_rto", record.tcp_info_total_rto.into()),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_ss_writes_them() {
        let cases = [
            (0, "0ms"),
            (204, "204ms"),
            (8_400, "8.400ms"),
            (9_000, "9sec"),
            (12_345, "12sec"),
            (59_999, "59sec"),
            (119_000, "1min59sec"),
            (120_000, "2min"),
            (7_199_000, "119min"),
        ];
        for (ms, expected) in cases {
            assert_eq!(timer_left(ms), expected);
        }
        assert_eq!((ms(6), ms(204_000), ms(1_250)), ("0.006".into(), "204".into(), "1.25".into()));
    }

    #[test]
    fn an_ipv6_listener_that_takes_ipv4_too_is_a_star() {
        let mut record = XtcpFlatRecord {
            inet_diag_msg_family: 10,
            inet_diag_msg_socket_source: vec![0; 16],
            inet_diag_msg_socket_destination: vec![0; 16],
            skv6only: Some(false),
            ..XtcpFlatRecord::default()
        };
        assert_eq!(addresses(&record), ["*", "*"]);
        record.skv6only = Some(true);
        record.inet_diag_msg_socket_interface = 3;
        assert_eq!(addresses(&record), ["[::]%3", "[::]"]);
    }
}
