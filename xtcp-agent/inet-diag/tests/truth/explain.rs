//! What a decoded row explains of a line of `ss`: every word that it can write, and the value that it must have.

use std::net::IpAddr;

use xtcp_inet_diag::attr::info::{TcpInfo, options};
use xtcp_inet_diag::attr::ulp_info::UlpInfo;
use xtcp_inet_diag::message::Decoded;

use super::model::Scene;
use super::tokens::timer_ms;

/// What a word of `ss` must say.
#[derive(Debug)]
pub(crate) enum Say {
    /// This, letter by letter.
    Text(String),
    /// This number, in six digits or more.
    Number(f64),
    /// A time that runs: from this, ms, to what it can have become since the dump.
    Since(u64),
    /// The same as part of another: µs of this time, and of the whole, in which case its share stands behind it.
    Share(u64, u64),
    /// A timer: its name, ms left, retransmissions.
    Timer(&'static str, u64, u8),
    /// A cgroup's path, of this id.
    Cgroup(u64),
}

/// A word that the decoded row explains.
pub(crate) struct Word {
    pub(crate) name: String,
    pub(crate) say: Say,
    /// It must be there.
    pub(crate) always: bool,
}

/// All words of one row.
#[derive(Default)]
struct Words(Vec<Word>);

impl Words {
    fn add(&mut self, name: &str, say: Say) {
        self.0.push(Word { name: name.to_owned(), say, always: true });
    }

    /// A number, unless it is 0.
    fn count(&mut self, name: &str, value: Option<impl Into<u64>>) {
        let value = value.map_or(0, Into::into);
        if value != 0 {
            self.add(name, Say::Text(value.to_string()));
        }
    }

    fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            self.add(name, Say::Text(String::new()));
        }
    }

    /// µs as ms, unless 0.
    fn ms(&mut self, name: &str, us: Option<u32>) {
        if let Some(us) = us.filter(|us| *us != 0) {
            self.add(name, Say::Number(f64::from(us) / 1000.0));
        }
    }

    fn since(&mut self, name: &str, ms: Option<u32>) {
        // Whether it was 0 a moment later is not known.
        let say = Say::Since(ms.unwrap_or(0).into());
        self.0.push(Word { name: name.to_owned(), say, always: ms.unwrap_or(0) != 0 });
    }
}

fn header_words(words: &mut Words, decoded: &Decoded<'_>) {
    let (header, attributes) = (&decoded.header, &decoded.attributes);
    let name = ["", "on", "keepalive", "timewait", "persist"][usize::from(header.timer)];
    if header.timer != 0 {
        words.add("timer", Say::Timer(name, header.expires_ms.into(), header.retrans));
    }
    words.count("uid", Some(header.uid));
    words.add("ino", Say::Text(header.inode.to_string()));
    words.add("sk", Say::Text(format!("{:x}", header.id.cookie)));
    if let Some(mark) = attributes.mark.filter(|mark| mark.0 != 0) {
        words.add("fwmark", Say::Text(format!("{:#x}", mark.0)));
    }
    if let Some(id) = attributes.cgroup_id.filter(|id| id.0 != 0) {
        words.add("cgroup", Say::Cgroup(id.0));
    }
    if let Some(only) = attributes.sk_v6only {
        words.add("v6only", Say::Text(u8::from(only.0).to_string()));
    }
    if let Some(shutdown) = attributes.shutdown {
        let arrow =
            [if shutdown.receive() { '-' } else { '<' }, '-', if shutdown.send() { '-' } else { '>' }];
        words.flag(&arrow.iter().collect::<String>(), true);
    }
    let hex = |value: u32| Say::Text(if value == 0 { "0".to_owned() } else { format!("{value:#x}") });
    if let Some(tos) = attributes.tos {
        words.add("tos", hex(tos.0.into()));
    }
    if let Some(tclass) = attributes.tclass {
        words.add("tclass", hex(tclass.0.into()));
    }
    if let Some(class) = attributes.class_id {
        words.add("class_id", hex(class.0));
    }
    if let Some(bits) = attributes.sockopt {
        let names = [
            (bits.recverr, "recverr"),
            (bits.is_icsk, "is_icsk"),
            (bits.freebind, "freebind"),
            (bits.hdrincl, "hdrincl"),
            (bits.mc_loop, "mc_loop"),
            (bits.transparent, "transparent"),
            (bits.mc_all, "mc_all"),
            (bits.nodefrag, "nodefrag"),
            (bits.bind_address_no_port, "bind_addr_no_port"),
            (bits.recverr_rfc4884, "recverr_rfc4884"),
            (bits.defer_connect, "defer_connect"),
        ];
        let set: Vec<_> = names.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect();
        words.add("inet-sockopt", Say::Text(set.join(" ")));
    }
    if let Some(mem) = attributes.sk_meminfo {
        let of = |value: Option<u32>| value.unwrap();
        let text = format!(
            "(r{},rb{},t{},tb{},f{},w{},o{},bl{},d{})",
            of(mem.rmem_alloc_bytes),
            of(mem.rcvbuf_bytes),
            of(mem.wmem_alloc_bytes),
            of(mem.sndbuf_bytes),
            of(mem.fwd_alloc_bytes),
            of(mem.wmem_queued_bytes),
            of(mem.optmem_bytes),
            of(mem.backlog_bytes),
            of(mem.drops)
        );
        words.add("skmem", Say::Text(text));
    }
}

fn info_words(words: &mut Words, decoded: &Decoded<'_>, info: &TcpInfo<'_>) {
    let has = |option: u8| info.options.unwrap() & option != 0;
    words.flag("ts", has(options::TIMESTAMPS));
    words.flag("sack", has(options::SACK));
    words.flag("ecn", has(options::ECN));
    words.flag("ecnseen", has(options::ECN_SEEN));
    words.flag("fastopen", has(options::SYN_DATA));
    if let Some(cong) = decoded.attributes.cong {
        words.flag(cong.0, true);
    }
    if has(options::WSCALE) {
        let scales = format!("{},{}", info.snd_wscale().unwrap(), info.rcv_wscale().unwrap());
        words.add("wscale", Say::Text(scales));
    }
    words.ms("rto", info.rto_us.filter(|rto| *rto != 3_000_000));
    words.count("backoff", info.backoff);
    if info.rtt_us.is_some_and(|rtt| rtt != 0) {
        let both = [info.rtt_us, info.rttvar_us].map(|us| f64::from(us.unwrap()) / 1000.0);
        words.add("rtt", Say::Text(both.map(six_digits).join("/")));
    }
    words.ms("ato", info.ato_us);
    words.count("mss", info.snd_mss_bytes);
    words.count("pmtu", info.pmtu_bytes);
    words.count("rcvmss", info.rcv_mss_bytes);
    words.count("advmss", info.advmss_bytes);
    words.count("cwnd", info.snd_cwnd);
    words.count("ssthresh", info.snd_ssthresh.filter(|ssthresh| *ssthresh < 0xffff));
    words.count("bytes_sent", info.bytes_sent);
    words.count("bytes_retrans", info.bytes_retrans);
    words.count("bytes_acked", info.bytes_acked);
    words.count("bytes_received", info.bytes_received);
    words.count("segs_out", info.segs_out);
    words.count("segs_in", info.segs_in);
    words.count("data_segs_out", info.data_segs_out);
    words.count("data_segs_in", info.data_segs_in);
    words.since("lastsnd", info.last_data_sent_ms);
    words.since("lastrcv", info.last_data_recv_ms);
    words.since("lastack", info.last_ack_recv_ms);
    words.count("delivered", info.delivered);
    words.count("delivered_ce", info.delivered_ce);
    words.flag("app_limited", info.delivery_rate_app_limited().unwrap());
    let busy = info.busy_time_us.unwrap();
    for (name, us) in [
        ("busy", info.busy_time_us),
        ("rwnd_limited", info.rwnd_limited_us),
        ("sndbuf_limited", info.sndbuf_limited_us),
    ] {
        let us = us.unwrap();
        // It may have begun to run after the dump.
        words.0.push(Word { name: name.to_owned(), say: Say::Share(us, busy), always: us != 0 });
    }
    words.count("unacked", info.unacked);
    if info.retrans != Some(0) || info.total_retrans != Some(0) {
        let both = format!("{}/{}", info.retrans.unwrap(), info.total_retrans.unwrap());
        words.add("retrans", Say::Text(both));
    }
    words.count("lost", info.lost);
    // Of a listener it is the limit of its backlog.
    words.count("sacked", info.sacked.filter(|_| decoded.header.state != 10));
    words.count("dsack_dups", info.dsack_dups);
    words.count("fackets", info.fackets);
    if let Some(reordering) = info.reordering.filter(|reordering| *reordering != 3) {
        words.add("reordering", Say::Text(reordering.to_string()));
    }
    words.count("reord_seen", info.reord_seen);
    words.ms("rcv_rtt", info.rcv_rtt_us);
    words.count("rcv_space", info.rcv_space_bytes);
    words.count("rcv_ssthresh", info.rcv_ssthresh_bytes);
    words.count("notsent", info.notsent_bytes);
    words.ms("minrtt", info.min_rtt_us.filter(|rtt| *rtt != u32::MAX));
    words.count("rcv_ooopack", info.rcv_ooopack);
    words.count("snd_wnd", info.snd_wnd_bytes);
}

/// Rates are in bits a second.
fn rate_words(words: &mut Words, decoded: &Decoded<'_>, info: &TcpInfo<'_>) {
    let attributes = &decoded.attributes;
    let bits = |bytes: u64| format!("{:.0}bps", bytes as f64 * 8.0);
    let vegas = attributes.vegas_info.filter(|vegas| vegas.enabled != 0);
    let vegas_rtt = vegas.map(|vegas| vegas.rtt_us).filter(|rtt| ![0, 0x7fff_ffff].contains(rtt));
    let rtt = vegas_rtt.or(info.rtt_us).unwrap();
    let (cwnd, mss) = (info.snd_cwnd.unwrap(), info.snd_mss_bytes.unwrap());
    if rtt != 0 && cwnd != 0 && mss != 0 {
        let rate = f64::from(cwnd) * f64::from(mss) * 8_000_000.0 / f64::from(rtt);
        words.add("send", Say::Number(rate.round()));
    }
    let (pacing, most) = (info.pacing_rate_bytes_per_s.unwrap(), info.max_pacing_rate_bytes_per_s.unwrap());
    if ![0, u64::MAX].contains(&pacing) {
        let most = if [0, u64::MAX].contains(&most) { String::new() } else { format!("/{}", bits(most)) };
        words.add("pacing_rate", Say::Text(bits(pacing) + &most));
    }
    if let Some(rate) = info.delivery_rate_bytes_per_s.filter(|rate| *rate != 0) {
        words.add("delivery_rate", Say::Text(bits(rate)));
    }
    if let Some(bbr) = attributes.bbr_info {
        let gain = |name: &str, gain: u32| {
            if gain == 0 { String::new() } else { format!(",{name}:{}", six_digits(f64::from(gain) / 256.0)) }
        };
        let text = format!(
            "(bw:{},mrtt:{}{}{})",
            bits(bbr.bw_bytes_per_s()),
            six_digits(f64::from(bbr.min_rtt_us) / 1000.0),
            gain("pacing_gain", bbr.pacing_gain),
            gain("cwnd_gain", bbr.cwnd_gain)
        );
        words.add("bbr", Say::Text(text));
    }
    if let Some(dctcp) = attributes.dctcp_info {
        let (ce, alpha) = (dctcp.ce_state, dctcp.alpha);
        let text = match dctcp.enabled {
            0 => "fallback_mode".to_owned(),
            _ => format!(
                "(ce_state:{ce},alpha:{alpha},ab_ecn:{},ab_tot:{})",
                dctcp.ab_ecn_bytes, dctcp.ab_tot_bytes
            ),
        };
        words.add("dctcp", Say::Text(text));
    }
}

/// As C's `%g` writes numbers that are neither very small nor very large.
fn six_digits(value: f64) -> String {
    let whole = value.abs().max(1.0).log10().floor();
    let scale = 10_f64.powf(5.0 - whole);
    format!("{}", (value * scale).round() / scale)
}

fn ulp_words(words: &mut Words, ulp: &UlpInfo<'_>) {
    words.flag(&format!("tcp-ulp-{}", ulp.name.unwrap()), true);
    if let Some(tls) = ulp.tls {
        let conf = |conf: u16| ["", "none", "sw", "hw", "hw-record"][usize::from(conf)].to_owned();
        if let Some(version) = tls.version {
            words.add("version", Say::Text(format!("1.{}", version - 0x301)));
        }
        if let Some(cipher) = tls.cipher {
            words.add(
                "cipher",
                Say::Text(["aes-gcm-128", "aes-gcm-256"][usize::from(cipher - 51)].to_owned()),
            );
        }
        for (name, value) in [("rxconf", tls.rx_conf), ("txconf", tls.tx_conf)] {
            if let Some(value) = value {
                words.add(name, Say::Text(conf(value)));
            }
        }
    }
    if let Some(mptcp) = ulp.mptcp {
        let bits = mptcp.flags.unwrap();
        let flags: String = "MmJjBbecv"
            .chars()
            .enumerate()
            .filter(|(bit, _)| bits >> bit & 1 != 0)
            .map(|(_, flag)| flag)
            .collect();
        if bits != 0 {
            words.add("flags", Say::Text(flags));
        }
        let token = format!(
            "{:04x}(id:{})/{:04x}(id:{})",
            mptcp.token_rem.unwrap(),
            mptcp.id_rem.unwrap(),
            mptcp.token_loc.unwrap(),
            mptcp.id_loc.unwrap()
        );
        words.add("token", Say::Text(token));
        words.add("seq", Say::Text(format!("{:x}", mptcp.map_seq.unwrap())));
        words.add("sfseq", Say::Text(format!("{:x}", mptcp.map_sfseq.unwrap())));
        words.add("ssnoff", Say::Text(format!("{:x}", mptcp.ssn_offset.unwrap())));
        words.add("maplen", Say::Text(format!("{:x}", mptcp.map_datalen.unwrap())));
    }
}

/// Every word that the row explains.
pub(crate) fn explained(decoded: &Decoded<'_>) -> Vec<Word> {
    let mut words = Words::default();
    header_words(&mut words, decoded);
    if let Some(info) = decoded.attributes.info {
        info_words(&mut words, decoded, &info);
        rate_words(&mut words, decoded, &info);
    }
    if let Some(ulp) = decoded.attributes.ulp_info.filter(|ulp| ulp.name.is_some()) {
        ulp_words(&mut words, &ulp);
    }
    if let Some(md5) = decoded.attributes.md5sig {
        // The key itself goes to another place of its output.
        let address = IpAddr::from(*md5.0[4..8].first_chunk::<4>().unwrap());
        words.add("md5keys", Say::Text(format!("{address}/{}=", md5.0[1])));
    }
    words.0
}

impl Say {
    /// Whether `ss` said so, at most `span` ms after the dump.
    pub(crate) fn fits(&self, said: &str, scene: &Scene) -> bool {
        let span = scene.span_ms + scene.jiffy_ms;
        match self {
            Self::Text(text) => said == text,
            Self::Number(value) => {
                let said: f64 = said.trim_end_matches("bps").parse().unwrap_or(f64::NAN);
                (said - value).abs() <= value.abs() * 5e-6
            }
            Self::Since(ms) => said.parse().is_ok_and(|said: u64| (*ms..=ms + span).contains(&said)),
            Self::Share(us, whole) => {
                let (time, share) = said.split_once("ms").unwrap_or((said, ""));
                let runs = time.parse().is_ok_and(|said: u64| (us / 1000..=us / 1000 + span).contains(&said));
                let share = share.trim_matches(['(', ')', '%']);
                let most = span * 1000;
                let percent = |part: u64, of: u64| 100.0 * part as f64 / of as f64;
                let range = percent(*us, whole + most) - 0.1..=percent(us + most, *whole) + 0.1;
                runs && (share.is_empty() || share.parse().is_ok_and(|share: f64| range.contains(&share)))
            }
            Self::Timer(name, ms, retrans) => {
                let parts: Vec<_> = said.trim_matches(['(', ')']).split(',').collect();
                let [its_name, left, count] = parts[..] else { return false };
                let (left, slack) = if left.is_empty() { (0, 1) } else { timer_ms(left) };
                // What ran out in between may have begun anew, or have become another one.
                let ran_out = *ms <= span;
                let runs = (ms.saturating_sub(span)..=*ms).contains(&left)
                    || (ms.saturating_sub(span)..=*ms).contains(&(left + slack - 1))
                    || left <= *ms && ms.saturating_sub(span) <= left + slack;
                ran_out || its_name == *name && runs && count == retrans.to_string()
            }
            Self::Cgroup(id) => match scene.facts["cgroup_path"].as_str() {
                Some(path) => said.ends_with(path),
                None => said.starts_with('/') || said == format!("unreachable:{id:x}"),
            },
        }
    }
}
