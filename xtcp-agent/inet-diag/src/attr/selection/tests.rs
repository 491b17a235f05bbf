use std::collections::BTreeSet;
use std::string::ToString;

use super::*;
use crate::attr;

fn parse(words: &str) -> Selection {
    words.split(',').map(|word| Selection::parse(word).unwrap()).fold(Selection::NONE, Selection::union)
}

#[test]
fn the_go_collectors_names_select_its_thirteen_attributes() {
    let names = "meminfo,info,vegas,cong,tos,tc,skmem,shut,dctcp,bbr,classid,cgroup,sockopt";
    let numbers: BTreeSet<u16> = (1..31).filter(|number| parse(names).takes(*number)).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 21, 22].into());
}

#[test]
fn every_known_attribute_is_in_exactly_one_group_and_every_name_is_one_groups() {
    for number in (1..=22).filter(|number| attr::name(*number) != Some("INET_DIAG_PAD")) {
        let groups: BTreeSet<&str> =
            GROUPS.iter().filter(|(group, ..)| group.takes(number)).map(|(_, name, _)| *name).collect();
        let expected = if number == 18 { 2 } else { 1 };
        assert_eq!(groups.len(), expected, "{number} {groups:?}");
    }
    let words: BTreeSet<&str> = Selection::words().collect();
    assert_eq!(words.len(), Selection::words().count());
    let names: BTreeSet<&str> = Selection::names().collect();
    assert!(names.is_subset(&words));
}

#[test]
fn the_extension_bits_are_those_that_the_kernel_looks_at() {
    let bits = |words| parse(words).extensions(Protocol::TCP).bits();
    // dctcp and bbr are asked for as vegas, the class as the traffic class, the others by their own bit.
    assert_eq!([bits("bbr"), bits("dctcp"), bits("vegas"), bits("bbr,vegas")], [4; 4]);
    assert_eq!([bits("class_id"), bits("traffic_class")], [32; 2]);
    assert_eq!([bits("tcp_info"), bits("ulp_info"), bits("md5sig"), bits("md5sig_peers")], [2; 4]);
    assert_eq!([bits("cong"), bits("tos"), bits("skmem"), bits("shut")], [8, 16, 64, 128]);
    assert_eq!([bits("meminfo"), bits("meminfo,skmem")], [1, 64]);
    assert_eq!(bits("mark,sock_opt,c_group,skv6only,inet_diag_protocol,sk_bpf_storages"), 0);
    assert_eq!([bits("default"), bits("all")], [0xfe; 2]);
    assert_eq!(Selection::ULP_INFO.extensions(Protocol::MPTCP), Extensions::NONE);
    assert_eq!(parse("mptcp_info").extensions(Protocol::MPTCP), Extensions::INFO);
}

#[test]
fn the_default_is_all_but_duplicates_lists_and_foreign_data() {
    let left_out: BTreeSet<u16> = (1..=22).filter(|number| !Selection::DEFAULT.takes(*number)).collect();
    assert_eq!(left_out, [1, 20].into());
    assert!(!Selection::DEFAULT.contains(Selection::MD5SIG_WITH_PEERS));
    assert!(Selection::DEFAULT.contains(Selection::MD5SIG));
    assert!(Selection::NONE.takes(31) && Selection::NONE.takes(200), "what nobody knows is counted");
}

#[test]
fn what_is_displayed_parses_to_the_same_set() {
    for word in Selection::words() {
        let selection = parse(word);
        assert_eq!(parse(&selection.to_string()), selection, "{word}");
    }
    assert_eq!(parse("skmem,md5sig_peers,info").to_string(), "tcp_info,sk_mem_info,md5sig_peers");
    assert_eq!((parse("default").to_string(), parse("ALL").to_string()), ("default".into(), "all".into()));
}

#[test]
fn an_unknown_word_is_named_with_all_groups() {
    let message = Selection::parse("tcpinfo").unwrap_err().to_string();
    assert!(
        message.starts_with("unknown group of attributes 'tcpinfo'; known are mem_info, tcp_info,"),
        "{message}"
    );
    assert!(message.ends_with("sk_bpf_storages, default, all"), "{message}");
}
