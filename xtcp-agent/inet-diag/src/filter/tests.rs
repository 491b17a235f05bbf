//! What is understood, what it means, and what is refused in which words.

use std::format;
use std::string::ToString;

use super::*;
use crate::bytecode::{PROGRAM_MAX, Subject, Verdict};
use crate::state::State;

mod audit;
mod model;

use audit::audit;

/// Knows a few names.
struct Known;

impl Names for Known {
    fn interface(&self, name: &str) -> Option<u32> {
        (name == "eth0").then_some(3)
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        (path == "/sys/fs/cgroup/web (1)").then_some(77)
    }

    fn service(&self, name: &str) -> Option<u16> {
        (name == "https").then_some(443)
    }
}

fn subject() -> Subject {
    Subject {
        family: 2,
        source_port: 40_000,
        destination_port: 443,
        source: [10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        destination: [192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        interface: 3,
        mark: Some(0x15),
        cgroup_id: Some(77),
        autobound: Some(true),
    }
}

fn six(source: &str, destination: &str) -> Subject {
    let octets = |text: &str| text.parse::<core::net::Ipv6Addr>().unwrap().octets();
    Subject { family: 10, source: octets(source), destination: octets(destination), ..subject() }
}

fn passes(text: &str, subject: &Subject) -> bool {
    let filter = Filter::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let program = filter.compile(&Known).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(audit(program.as_bytes()), Ok(()), "{text}");
    match program.judge(subject) {
        Verdict::Pass => true,
        Verdict::Refuse => false,
        Verdict::Unknown => panic!("{text}: unknown"),
    }
}

#[test]
fn every_test_means_what_ss_says() {
    let four = subject();
    let global = six("2001:db8::1", "2001:db8:1::2");
    let mapped = six("::ffff:10.1.2.3", "::ffff:192.0.2.1");
    for (text, expected) in [
        ("", [true; 3]),
        ("dport = :443 and src 10.0.0.0/8", [true, false, true]),
        ("dport=443 src=10.0.0.0/8", [true, false, true]),
        ("DPORT EQ :https & SRC 10.1.2.3", [true, false, true]),
        ("sport >= :1024", [true; 3]),
        ("sport > :40000 or sport < :40000", [false; 3]),
        ("sport le 40000 && sport ge 0x9c40", [true; 3]),
        ("sport gt 39999 and not sport lt 40000", [true; 3]),
        ("dport neq :443 | dport != 443", [false; 3]),
        ("dport = * and src *", [true; 3]),
        ("dport != *", [false; 3]),
        ("dst 192.0.2.1:443", [true, false, true]),
        ("dst 192.0.2.0/24:https", [true, false, true]),
        ("dst 192.0.2.0/24:444", [false; 3]),
        ("dst :443", [true; 3]),
        ("dst *:443 src *:*", [true; 3]),
        ("dst [2001:db8:1::2]:443", [false, true, false]),
        ("dst [2001:db8:1::/48]:443", [false, true, false]),
        ("dst 2001:db8::/32", [false, true, false]),
        ("dst 2001:db8::/32:443", [false, true, false]),
        ("src 0.0.0.0/0", [true, false, true]),
        ("src inet:*", [true, false, true]),
        ("src inet6:*", [false, true, true]),
        ("src inet6::40000", [false, true, true]),
        ("src [::ffff:10.0.0.0/104]", [false, false, true]),
        ("src [::/0]", [false, true, true]),
        ("src != 10.0.0.0/8", [false, true, false]),
        ("dev = eth0 dev 3", [true; 3]),
        ("dev != 3 or dev = 0", [false; 3]),
        ("fwmark = 0x01/0x03", [true; 3]),
        ("fwmark 21 and fwmark != 0x15/0x0f", [true; 3]),
        ("cgroup = 77 and cgroup \"/sys/fs/cgroup/web (1)\"", [true; 3]),
        ("autobound and ! autobound", [false; 3]),
        ("not ( autobound and dport 443 ) or not not autobound", [true; 3]),
        ("!(autobound)||!dport=:443", [false; 3]),
    ] {
        assert_eq!([&four, &global, &mapped].map(|subject| passes(text, subject)), expected, "{text}");
    }
}

#[test]
fn and_and_or_bind_alike_from_left_to_right() {
    let yes = "dport = 443";
    let no = "dport = 1";
    assert!(!passes(&format!("{yes} or {yes} and {no}"), &subject()));
    assert!(passes(&format!("{yes} or ( {yes} and {no} )"), &subject()));
    assert!(!passes(&format!("{yes} or {yes} {no}"), &subject()));
    assert!(passes(&format!("not {no} or {yes}"), &subject()));
    assert!(passes(&format!("{no} and {no} or {yes}"), &subject()));
}

#[test]
fn states_stand_in_front_and_add_up() {
    let states = |text| Filter::parse(text).unwrap().states();
    let one = States::one;
    assert_eq!(states("dport 1"), None);
    assert_eq!(states("state established dport 1"), Some(one(State::Established)));
    assert_eq!(
        states("state established state close-wait"),
        Some(one(State::Established) | State::CloseWait.into())
    );
    assert_eq!(states("exclude listening"), Some(States::ALL.without(one(State::Listen))));
    assert_eq!(
        states("state CONNECTED exclude time-wait"),
        Some(States::CONNECTED.without(one(State::TimeWait)))
    );
    assert_eq!(states("state listening exclude listening"), Some(States::NONE));
    assert!(!Filter::parse("state all").unwrap().has_expression());
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_was_expected() {
    let deep = "( ".repeat(DEPTH_MAX + 1);
    let long = "sport 1 ".repeat(TERMS_MAX);
    for (text, offset, words) in [
        ("port 80", 0, &["expected src, dst, sport", "found 'port'"][..]),
        ("dport = :443 and", 16, &["autobound, not or '('", "it ends here"]),
        ("dport 443 or or", 13, &["found 'or'"]),
        ("dport = :70000", 8, &["0 to 65535", "':70000'"]),
        ("dport = :0443", 8, &["0 to 65535"]),
        ("dport = -1", 8, &["0 to 65535"]),
        ("dport =", 7, &["a port", "it ends here"]),
        ("dport >= *", 9, &["a port to compare with", "'*'"]),
        ("dport = = 3", 8, &["a port from 0"]),
        ("src 10.0.0.0/33", 4, &["10.0.0.0/8", "'10.0.0.0/33'"]),
        ("src 10.0.0", 4, &["an address such as"]),
        ("src 2001:db8::1", 4, &["[2001:db8::1]"]),
        ("src [2001:db8::1", 4, &["[2001:db8::1]"]),
        ("src [10.0.0.1]", 4, &["[2001:db8::1]"]),
        ("src [::1]443", 4, &["perhaps :PORT"]),
        ("src inet:[::1]", 4, &["an address"]),
        ("src [::1]:x y", 12, &["expected src"]),
        ("src >= 10.0.0.1", 4, &["= or !=", "'>='"]),
        ("dev", 3, &["an interface's name or index"]),
        ("fwmark 0x1/zz", 7, &["0x01/0x03"]),
        ("fwmark 0x100000000", 7, &["32 bits"]),
        ("cgroup", 6, &["path or id"]),
        ("cgroup \"/a b", 7, &["second '\"'"]),
        ("state opened", 6, &["a state: established", "'opened'"]),
        ("state", 5, &["a state", "it ends here"]),
        ("dport 1 state all", 8, &["in front of all tests", "'state'"]),
        ("( dport 1", 0, &["'(' is never closed"]),
        ("dport 1 )", 8, &["or the end, found ')'"]),
        ("( )", 2, &["expected src", "')'"]),
        (&deep, 2 * DEPTH_MAX, &["too deep", "32"]),
        (&long, 512, &["too long", "128"]),
        ("dport 443 ünsinn", 10, &["'ünsinn'"]),
    ] {
        let error = Filter::parse(text).err().unwrap_or_else(|| panic!("{text} was understood"));
        let message = error.to_string();
        for word in words {
            assert!(message.contains(word), "{text}: {message}");
        }
        assert_eq!(error.offset, offset, "{text}: {message}");
        assert!(message.starts_with(&format!("filter, byte {offset}: ")), "{message}");
    }
}

#[test]
fn an_unknown_name_is_an_error_when_it_is_compiled() {
    for (text, offset, word) in
        [("dport 1 dev = tun9", 14, "tun9"), ("cgroup /x", 7, "/x"), ("dst *:htps", 6, "htps")]
    {
        let filter = Filter::parse(text).unwrap();
        let error = filter.compile(&Known).unwrap_err();
        assert_eq!((error.offset, error.word), (offset, word));
        assert!(error.to_string().contains(word));
        assert_eq!(filter.depends_on_names(), !text.contains("htps"));
    }
}

#[test]
fn the_longest_filter_fits_into_a_program() {
    let text = "dst [2001:db8::1]:1 or ".repeat(TERMS_MAX / 2 - 1) + "src [2001:db8::1]:1";
    let program = Filter::parse(&text).unwrap().compile(&NoNames).unwrap();
    assert_eq!(audit(program.as_bytes()), Ok(()));
    assert!(program.as_bytes().len() < PROGRAM_MAX);
}

#[test]
fn what_a_row_does_not_tell_is_unknown_only_where_it_matters() {
    let vague = Subject { mark: None, cgroup_id: None, autobound: None, ..subject() };
    let judge = |text| Filter::parse(text).unwrap().compile(&NoNames).unwrap().judge(&vague);
    assert_eq!(judge("autobound"), Verdict::Unknown);
    assert_eq!(judge("fwmark 3 and dport 443"), Verdict::Unknown);
    assert_eq!(judge("cgroup 3 and dport 1"), Verdict::Refuse);
    assert_eq!(judge("autobound or dport 443"), Verdict::Pass);
    assert_eq!(judge("fwmark 0/0"), Verdict::Pass);
}

#[test]
fn two_programs_joined_pass_what_both_pass() {
    let program = |text: &str| Filter::parse(text).unwrap().compile(&NoNames).unwrap();
    let texts = ["", "dport 443", "not ( dport 443 or sport 1 )", "sport 40000 or dport 1", "dport != *"];
    for (one, other) in texts.iter().flat_map(|one| texts.iter().map(move |other| (one, other))) {
        let both = program(one).and(&program(other)).unwrap();
        assert_eq!(audit(both.as_bytes()), Ok(()), "{one} + {other}");
        assert_eq!(
            both.matches(&subject()),
            passes(one, &subject()) && passes(other, &subject()),
            "{one} + {other}"
        );
    }
    let long = program(&("dst [::1]:1 or ".repeat(63) + "dst [::2]"));
    let joined = (0..4).try_fold(Program::EVERYTHING, |all, _| all.and(&long));
    assert_eq!(joined, None, "longer than a program may be");
}
