//! The record's fields of what is not plain TCP: upper-layer protocols, MPTCP's connections, keys, other protocols.
//!
//! Destructures in full, as its parent does.

use xtcp_inet_diag::attr::Selection;
use xtcp_inet_diag::attr::endpoint::Endpoint;
use xtcp_inet_diag::attr::md5sig::Md5Sig;
use xtcp_inet_diag::attr::mptcp_info::MptcpInfo;
use xtcp_inet_diag::attr::ulp_info::{MptcpSubflow, TlsInfo, UlpInfo};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

pub(super) fn ulp(record: &mut XtcpFlatRecord, ulp: &UlpInfo<'_>) {
    let UlpInfo { name, tls, mptcp } = ulp;
    name.unwrap_or_default().clone_into(&mut record.ulp_name);
    if let Some(tls) = tls {
        self::tls(record, tls);
    }
    if let Some(mptcp) = mptcp {
        subflow(record, mptcp);
    }
}

fn tls(record: &mut XtcpFlatRecord, tls: &TlsInfo) {
    let TlsInfo { version, cipher, tx_conf, rx_conf, zc_ro_tx, rx_no_pad, tx_max_payload_len_bytes } = *tls;
    record.tls_info_version = version.map_or(0, u32::from);
    record.tls_info_cipher = cipher.map_or(0, u32::from);
    record.tls_info_tx_conf = tx_conf.map_or(0, u32::from);
    record.tls_info_rx_conf = rx_conf.map_or(0, u32::from);
    record.tls_info_zc_ro_tx = zc_ro_tx;
    record.tls_info_rx_no_pad = rx_no_pad;
    record.tls_info_tx_max_payload_len = tx_max_payload_len_bytes.map_or(0, u32::from);
}

fn subflow(record: &mut XtcpFlatRecord, subflow: &MptcpSubflow) {
    let MptcpSubflow {
        token_rem,
        token_loc,
        relwrite_seq,
        map_seq,
        map_sfseq,
        ssn_offset,
        map_datalen,
        flags,
        id_rem,
        id_loc,
    } = *subflow;
    record.mptcp_subflow_token_rem = token_rem.unwrap_or(0);
    record.mptcp_subflow_token_loc = token_loc.unwrap_or(0);
    record.mptcp_subflow_relwrite_seq = relwrite_seq.unwrap_or(0);
    record.mptcp_subflow_map_seq = map_seq.unwrap_or(0);
    record.mptcp_subflow_map_sfseq = map_sfseq.unwrap_or(0);
    record.mptcp_subflow_ssn_offset = ssn_offset.unwrap_or(0);
    record.mptcp_subflow_map_datalen = map_datalen.map_or(0, u32::from);
    record.mptcp_subflow_flags = flags.unwrap_or(0);
    record.mptcp_subflow_id_rem = id_rem.map_or(0, u32::from);
    record.mptcp_subflow_id_loc = id_loc.map_or(0, u32::from);
}

pub(super) fn mptcp_info(record: &mut XtcpFlatRecord, info: &MptcpInfo<'_>) {
    let MptcpInfo {
        subflows,
        add_addr_signal,
        add_addr_accepted,
        subflows_max,
        add_addr_signal_max,
        add_addr_accepted_max,
        flags,
        token,
        write_seq,
        snd_una,
        rcv_nxt,
        local_addr_used,
        local_addr_max,
        csum_enabled,
        retransmits,
        bytes_retrans,
        bytes_sent,
        bytes_received,
        bytes_acked,
        subflows_total,
        endp_laminar_max,
        endp_fullmesh_max,
        last_data_sent_ms,
        last_data_recv_ms,
        last_ack_recv_ms,
        tail,
    } = *info;
    record.mptcp_info_subflows = subflows.map_or(0, u32::from);
    record.mptcp_info_add_addr_signal = add_addr_signal.map_or(0, u32::from);
    record.mptcp_info_add_addr_accepted = add_addr_accepted.map_or(0, u32::from);
    record.mptcp_info_subflows_max = subflows_max.map_or(0, u32::from);
    record.mptcp_info_add_addr_signal_max = add_addr_signal_max.map_or(0, u32::from);
    record.mptcp_info_add_addr_accepted_max = add_addr_accepted_max.map_or(0, u32::from);
    record.mptcp_info_flags = flags.unwrap_or(0);
    record.mptcp_info_token = token.unwrap_or(0);
    record.mptcp_info_write_seq = write_seq.unwrap_or(0);
    record.mptcp_info_snd_una = snd_una.unwrap_or(0);
    record.mptcp_info_rcv_nxt = rcv_nxt.unwrap_or(0);
    record.mptcp_info_local_addr_used = local_addr_used.map_or(0, u32::from);
    record.mptcp_info_local_addr_max = local_addr_max.map_or(0, u32::from);
    record.mptcp_info_csum_enabled = csum_enabled.map_or(0, u32::from);
    record.mptcp_info_retransmits = retransmits.unwrap_or(0);
    record.mptcp_info_bytes_retrans = bytes_retrans.unwrap_or(0);
    record.mptcp_info_bytes_sent = bytes_sent.unwrap_or(0);
    record.mptcp_info_bytes_received = bytes_received.unwrap_or(0);
    record.mptcp_info_bytes_acked = bytes_acked.unwrap_or(0);
    record.mptcp_info_subflows_total = subflows_total.map_or(0, u32::from);
    record.mptcp_info_endp_laminar_max = endp_laminar_max.map_or(0, u32::from);
    record.mptcp_info_endp_fullmesh_max = endp_fullmesh_max.map_or(0, u32::from);
    record.mptcp_info_last_data_sent = last_data_sent_ms.unwrap_or(0);
    record.mptcp_info_last_data_recv = last_data_recv_ms.unwrap_or(0);
    record.mptcp_info_last_ack_recv = last_ack_recv_ms.unwrap_or(0);
    record.mptcp_info_tail = tail.to_vec();
}

pub(super) fn md5sig(record: &mut XtcpFlatRecord, keys: Md5Sig<'_>, selection: Selection) {
    record.md5sig_keys = u32::try_from(keys.keys()).unwrap_or(u32::MAX);
    if selection.contains(Selection::MD5SIG_WITH_PEERS) {
        record.md5sig_peers = encoded(keys.peers());
    }
}

/// Addresses as the record has them, one behind the other.
pub(super) fn encoded(addresses: impl Iterator<Item = Endpoint>) -> Vec<u8> {
    addresses.flat_map(|address| address.encode()).collect()
}
