//! The fields of what is not plain TCP: upper-layer protocols, MPTCP's connections, keys.
//!
//! Few sockets have them: they go through the decoder's structs, which are destructured in full.

use super::writer::{Bits, Writer};
use crate::attr::locals::Locals;
use crate::attr::md5sig::Md5Sig;
use crate::attr::mptcp_info::MptcpInfo;
use crate::attr::peers::Peers;
use crate::attr::ulp_info::{MptcpSubflow, TlsInfo, UlpInfo};
use crate::attr::{Decode, Places, Selection, bbr_info, info};
use crate::message::Reading;

/// Whether any of these fields may be there.
pub(super) fn are_there(places: &Places<'_>) -> bool {
    let Places {
        info,
        mptcp_info,
        other_info,
        locals,
        peers,
        bbr_info: bbr,
        md5sig: keys,
        ulp_info,
        sk_bpf_storages,
        ..
    } = *places;
    [mptcp_info, other_info, locals, peers, keys, ulp_info, sk_bpf_storages].iter().any(Option::is_some)
        || info.is_some_and(|payload| payload.len() > info::LEN)
        || bbr.is_some_and(|payload| payload.len() > bbr_info::LEN)
}

/// Fields 3103 to 3109: the protocol's name, what is kept as bytes, and keys.
pub(super) fn raw(writer: &mut Writer<'_, impl Bits>, places: &Places<'_>, reading: Reading) {
    let Places { info, other_info, bbr_info, md5sig: keys, ulp_info, sk_bpf_storages, .. } = *places;
    if let Some(name) = ulp_info.and_then(UlpInfo::decode).and_then(|ulp| ulp.name) {
        writer.bytes::<3103>(name.as_bytes());
    }
    writer.bytes::<3104>(other_info.unwrap_or_default());
    writer.bytes::<3105>(info.and_then(|payload| payload.get(info::LEN..)).unwrap_or_default());
    writer.bytes::<3106>(bbr_info.and_then(|payload| payload.get(bbr_info::LEN..)).unwrap_or_default());
    if let Some(keys) = keys.and_then(Md5Sig::decode) {
        md5sig(writer, keys, reading.selection);
    }
    writer.bytes::<3109>(sk_bpf_storages.unwrap_or_default());
}

/// Fields 3130 to 3199.
pub(super) fn write(writer: &mut Writer<'_, impl Bits>, places: &Places<'_>) {
    let Places { mptcp_info: info, locals, peers, ulp_info, .. } = *places;
    if let Some(ulp) = ulp_info.and_then(UlpInfo::decode) {
        self::ulp(writer, &ulp);
    }
    if let Some(info) = info.and_then(MptcpInfo::decode) {
        mptcp_info(writer, &info);
    }
    if let Some(locals) = locals.and_then(Locals::decode) {
        writer.endpoints::<3180>(locals.addresses());
    }
    if let Some(peers) = peers.and_then(Peers::decode) {
        writer.endpoints::<3181>(peers.addresses());
    }
}

fn ulp(writer: &mut Writer<'_, impl Bits>, ulp: &UlpInfo<'_>) {
    let UlpInfo { name: _, tls, mptcp } = ulp;
    if let Some(tls) = tls {
        self::tls(writer, tls);
    }
    if let Some(mptcp) = mptcp {
        subflow(writer, mptcp);
    }
}

fn tls(writer: &mut Writer<'_, impl Bits>, tls: &TlsInfo) {
    let TlsInfo { version, cipher, tx_conf, rx_conf, zc_ro_tx, rx_no_pad, tx_max_payload_len_bytes } = *tls;
    writer.uint32::<3130>(version.map_or(0, u32::from));
    writer.uint32::<3131>(cipher.map_or(0, u32::from));
    writer.uint32::<3132>(tx_conf.map_or(0, u32::from));
    writer.uint32::<3133>(rx_conf.map_or(0, u32::from));
    writer.uint32::<3134>(zc_ro_tx.into());
    writer.uint32::<3135>(rx_no_pad.into());
    writer.uint32::<3136>(tx_max_payload_len_bytes.map_or(0, u32::from));
}

fn subflow(writer: &mut Writer<'_, impl Bits>, subflow: &MptcpSubflow) {
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
    writer.uint32::<3140>(token_rem.unwrap_or(0));
    writer.uint32::<3141>(token_loc.unwrap_or(0));
    writer.uint32::<3142>(relwrite_seq.unwrap_or(0));
    writer.uint64::<3143>(map_seq.unwrap_or(0));
    writer.uint32::<3144>(map_sfseq.unwrap_or(0));
    writer.uint32::<3145>(ssn_offset.unwrap_or(0));
    writer.uint32::<3146>(map_datalen.map_or(0, u32::from));
    writer.uint32::<3147>(flags.unwrap_or(0));
    writer.uint32::<3148>(id_rem.map_or(0, u32::from));
    writer.uint32::<3149>(id_loc.map_or(0, u32::from));
}

fn mptcp_info(writer: &mut Writer<'_, impl Bits>, info: &MptcpInfo<'_>) {
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
    writer.uint32::<3150>(subflows.map_or(0, u32::from));
    writer.uint32::<3151>(add_addr_signal.map_or(0, u32::from));
    writer.uint32::<3152>(add_addr_accepted.map_or(0, u32::from));
    writer.uint32::<3153>(subflows_max.map_or(0, u32::from));
    writer.uint32::<3154>(add_addr_signal_max.map_or(0, u32::from));
    writer.uint32::<3155>(add_addr_accepted_max.map_or(0, u32::from));
    writer.uint32::<3156>(flags.unwrap_or(0));
    writer.uint32::<3157>(token.unwrap_or(0));
    writer.uint64::<3158>(write_seq.unwrap_or(0));
    writer.uint64::<3159>(snd_una.unwrap_or(0));
    writer.uint64::<3160>(rcv_nxt.unwrap_or(0));
    writer.uint32::<3161>(local_addr_used.map_or(0, u32::from));
    writer.uint32::<3162>(local_addr_max.map_or(0, u32::from));
    writer.uint32::<3163>(csum_enabled.map_or(0, u32::from));
    writer.uint32::<3164>(retransmits.unwrap_or(0));
    writer.uint64::<3165>(bytes_retrans.unwrap_or(0));
    writer.uint64::<3166>(bytes_sent.unwrap_or(0));
    writer.uint64::<3167>(bytes_received.unwrap_or(0));
    writer.uint64::<3168>(bytes_acked.unwrap_or(0));
    writer.uint32::<3169>(subflows_total.map_or(0, u32::from));
    writer.uint32::<3170>(endp_laminar_max.map_or(0, u32::from));
    writer.uint32::<3171>(endp_fullmesh_max.map_or(0, u32::from));
    writer.uint32::<3172>(last_data_sent_ms.unwrap_or(0));
    writer.uint32::<3173>(last_data_recv_ms.unwrap_or(0));
    writer.uint32::<3174>(last_ack_recv_ms.unwrap_or(0));
    writer.bytes::<3175>(tail);
}

/// How many keys there are, and for whom where that is wanted; never the keys.
fn md5sig(writer: &mut Writer<'_, impl Bits>, keys: Md5Sig<'_>, selection: Selection) {
    writer.uint32::<3107>(u32::try_from(keys.keys()).unwrap_or(u32::MAX));
    if selection.contains(Selection::MD5SIG_WITH_PEERS) {
        writer.endpoints::<3108>(keys.peers());
    }
}
