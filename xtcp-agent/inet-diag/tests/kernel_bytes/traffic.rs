//! Rows against the traffic that the scenarios made: bytes, losses, marks and queues.

use xtcp_inet_diag::attr::info::options;
use xtcp_inet_diag::socket_id::Family;
use xtcp_inet_diag::state::State;

use super::facts::{info, scenes};

#[test]
fn tcp_info_counts_the_bytes_that_were_sent() {
    for scene in scenes("established") {
        let (server, client) = scene.ends(24801, Family::Inet);
        let (server, client) = (info(&server), info(&client));
        assert_eq!((client.bytes_sent, client.bytes_received), (Some(10_000), Some(3000)), "{}", scene.name);
        assert_eq!(client.bytes_acked, Some(10_001), "the SYN is acknowledged too");
        assert_eq!((server.bytes_sent, server.bytes_received), (Some(3000), Some(10_000)));
        assert_eq!((client.data_segs_in, client.data_segs_out), (server.data_segs_out, server.data_segs_in));
        assert_eq!((client.state, client.ca_state, client.lost), (Some(1), Some(0), Some(0)));
        let negotiated = options::TIMESTAMPS | options::SACK | options::WSCALE;
        assert_eq!((client.options, server.options), (Some(negotiated), Some(negotiated)));
        assert_eq!((client.advmss_bytes, client.pmtu_bytes), (Some(65_483), Some(65_535)), "the loopback's");
        assert_eq!(client.max_pacing_rate_bytes_per_s, Some(u64::MAX));
        assert!(client.min_rtt_us.unwrap() <= client.rtt_us.unwrap());
        assert_eq!((client.snd_wscale(), client.rcv_wscale()), (server.rcv_wscale(), server.snd_wscale()));
        // Linux 6.2 and later.
        assert_eq!(client.rcv_wnd_bytes.is_some(), scene.version >= (6, 2), "{}", scene.name);
        if let Some(window) = server.rcv_wnd_bytes {
            assert_eq!(client.snd_wnd_bytes, Some(window));
        }
        assert_eq!(client.total_rto.is_some(), scene.version >= (6, 7), "{}", scene.name);
        assert_eq!(client.accecn_word.is_some(), scene.version >= (6, 18), "{}", scene.name);
    }
    for scene in scenes("no-options") {
        let (server, client) = scene.ends(24847, Family::Inet);
        assert_eq!((info(&server).options, info(&client).options), (Some(0), Some(0)), "{}", scene.name);
    }
}

#[test]
fn loss_reordering_and_marks_are_counted() {
    for scene in scenes("retransmits") {
        let client = info(&scene.ends(24841, Family::Inet).1);
        assert!(
            client.total_retrans.unwrap() >= 2 && client.bytes_retrans.unwrap() >= 2000,
            "{}",
            scene.name
        );
        assert_eq!(client.bytes_sent.unwrap() - client.bytes_retrans.unwrap(), 40_000, "{}", scene.name);
        assert_eq!((client.unacked, client.lost, client.notsent_bytes), (Some(0), Some(0), Some(0)));
    }
    for scene in scenes("in-recovery") {
        let (server, client) = scene.ends(24842, Family::Inet);
        let (server, client) = (info(&server), info(&client));
        assert!(client.sacked.unwrap() > 0 && client.unacked.unwrap() > 0, "{}", scene.name);
        assert!([Some(3), Some(4)].contains(&client.ca_state), "{}: {:?}", scene.name, client.ca_state);
        assert!(server.rcv_ooopack.unwrap() > 0 && server.bytes_received == Some(5000), "{}", scene.name);
    }
    for scene in scenes("timeouts") {
        let row = scene.ends(24843, Family::Inet).1;
        let client = info(&row);
        assert!(client.backoff.unwrap() >= 2 && client.retransmits.unwrap() >= 3, "{}", scene.name);
        assert_eq!(
            (row.header.timer, row.header.retrans),
            (1, client.retransmits.unwrap()),
            "{}",
            scene.name
        );
        assert!(row.header.expires_ms <= client.rto_us.unwrap() / 1000, "{}", scene.name);
        assert_eq!((row.header.wqueue, client.bytes_acked), (3000, Some(1)), "{}", scene.name);
    }
    for scene in scenes("reordering") {
        let client = info(&scene.ends(24844, Family::Inet).1);
        assert!(client.reord_seen.unwrap() >= 1, "{}", scene.name);
    }
    for scene in scenes("spurious-retransmit") {
        let client = info(&scene.ends(24845, Family::Inet).1);
        assert!(client.dsack_dups.unwrap() >= 1 && client.total_retrans.unwrap() >= 1, "{}", scene.name);
    }
    for scene in scenes("ecn") {
        let (server, client) = scene.ends(24846, Family::Inet);
        assert!(info(&client).delivered_ce.unwrap() >= 1, "{}", scene.name);
        for end in [server, client] {
            assert_ne!(info(&end).options.unwrap() & options::ECN, 0, "{}", scene.name);
        }
    }
    for scene in scenes("accecn") {
        let (server, client) = scene.ends(24846, Family::Inet);
        assert!(info(&server).received_ce.unwrap() >= 3, "{}", scene.name);
        assert!(info(&client).delivered_ce.unwrap() >= 3, "{}", scene.name);
    }
}

#[test]
fn queues_are_as_full_as_they_were_made() {
    for scene in scenes("unread") {
        let (server, client) = scene.ends(24851, Family::Inet);
        assert_eq!((server.header.rqueue, client.header.rqueue), (1000, 2000), "{}", scene.name);
        assert_eq!((server.header.wqueue, client.header.wqueue), (0, 0), "{}", scene.name);
    }
    for scene in scenes("zero-window") {
        let (receiver, sender) = scene.ends(24852, Family::Inet);
        let (told, sent) = (info(&receiver), info(&sender));
        assert_eq!(
            receiver.header.rqueue,
            u32::try_from(told.bytes_received.unwrap()).unwrap(),
            "{}",
            scene.name
        );
        assert!(sent.notsent_bytes.unwrap() > 0 && sender.header.wqueue >= sent.notsent_bytes.unwrap());
        assert!(sent.rwnd_limited_us.unwrap() > 0, "{}", scene.name);
        assert_eq!(sender.header.timer, 4, "{}: it probes", scene.name);
    }
    for scene in scenes("listen-backlog") {
        let limits: Vec<_> = [24802, 24803, 24804]
            .map(|port| {
                scene.only(|row| {
                    row.header.state() == Some(State::Listen) && row.header.id.source_port == port
                })
            })
            .map(|row| (row.header.rqueue, row.header.wqueue))
            .to_vec();
        assert_eq!(limits, [(3, 8), (2, 1), (0, 128)], "{}", scene.name);
        for row in scene.rows().iter().filter(|row| row.header.state() == Some(State::Listen)) {
            let info = info(row);
            assert_eq!((info.unacked, info.sacked), (Some(row.header.rqueue), Some(row.header.wqueue)));
        }
    }
}
