//! Random filters over random rows: the bytecode says what the tree says.

use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use proptest::prelude::*;

use super::super::expression::{Comparison, Expression, Named, Node, NodeId, Test};
use super::super::{Filter, NoNames};
use super::{Known, audit, subject};
use crate::bytecode::{Program, Side, Subject, Verdict};
use crate::socket_id::Family;

/// The tree itself, with three values of truth.
fn evaluate(expression: &Expression<'_>, id: NodeId, subject: &Subject) -> Option<bool> {
    match *expression.node(id).unwrap() {
        Node::Test(test) => holds(&test, subject),
        Node::Not(inner) => evaluate(expression, inner, subject).map(|holds| !holds),
        Node::And(one, other) => {
            match (evaluate(expression, one, subject), evaluate(expression, other, subject)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            }
        }
        Node::Or(one, other) => {
            match (evaluate(expression, one, subject), evaluate(expression, other, subject)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            }
        }
    }
}

fn number<N: Copy>(named: Named<'_, N>) -> N {
    let Named::Number(number) = named else { panic!("a name") };
    number
}

fn holds(test: &Test<'_>, subject: &Subject) -> Option<bool> {
    let end = |side| match side {
        Side::Source => (subject.source, subject.source_port),
        Side::Destination => (subject.destination, subject.destination_port),
    };
    Some(match *test {
        Test::Host { side, family, address, prefix, port } => {
            let (own, own_port) = end(side);
            let bits =
                |bytes: &[u8]| bytes.iter().take(16).fold(0_u128, |all, byte| all << 8 | u128::from(*byte));
            // Each address as 16 bytes, IPv4 as v4-mapped.
            let wide = |address: [u8; 16], four: bool| {
                if !four {
                    return bits(&address);
                }
                0xffff_0000_0000 | bits(&address[..4])
            };
            let same = match family {
                None => true,
                Some(family) => {
                    let prefix = u32::from(prefix) + if family == Family::Inet { 96 } else { 0 };
                    let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
                    let wanted = wide(address, family == Family::Inet);
                    let reachable = family == Family::Inet || subject.family == 10;
                    reachable && (wide(own, subject.family == 2) ^ wanted) & mask == 0
                }
            };
            same && port.is_none_or(|port| number(port) == own_port)
        }
        Test::Port { side, comparison, port } => {
            let (own, port) = (end(side).1, number(port));
            match comparison {
                Comparison::Eq => own == port,
                Comparison::Ne => own != port,
                Comparison::Ge => own >= port,
                Comparison::Le => own <= port,
                Comparison::Gt => own > port,
                Comparison::Lt => own < port,
            }
        }
        Test::Device(index) => number(index) == subject.interface,
        Test::Mark { mark: 0, mask: 0 } => true,
        Test::Mark { mask: 0, .. } => false,
        Test::Mark { mark, mask } => subject.mark? & mask == mark,
        Test::Cgroup(id) => number(id) == subject.cgroup_id?,
        Test::Autobound => subject.autobound?,
    })
}

const ADDRESSES: [&str; 10] = [
    "10.1.2.3",
    "10.0.0.0/8",
    "192.0.2.1",
    "0.0.0.0/0",
    "10.1.2.0/23",
    "[::1]",
    "[2001:db8::/32]",
    "[2001:db8::1]",
    "[::ffff:10.1.2.3]",
    "[::/0]",
];

fn any_test() -> impl Strategy<Value = String> {
    let side = prop_oneof![Just("s"), Just("d")];
    let order =
        prop_oneof!["=", "==", "eq", "!=", "ne", "neq", ">=", "ge", "geq", "<=", "le", "leq", ">", "gt", "<"];
    let address = proptest::sample::select(ADDRESSES.to_vec());
    let end = prop_oneof![Just("src"), Just("dst")];
    let equal = prop_oneof![Just(""), Just("="), Just("!=")];
    prop_oneof![
        (side, order, 0..4_u16).prop_map(|(side, order, port)| format!("{side}port {order} :{port}")),
        (end.clone(), equal.clone(), address, proptest::option::of(0..4_u16)).prop_map(
            |(end, equal, address, port)| match port {
                Some(port) => format!("{end} {equal} {address}:{port}"),
                None => format!("{end} {equal} {address}"),
            }
        ),
        (end, prop_oneof!["[*]", "inet:[*]", "inet6:[*]"]).prop_map(|(end, any)| format!("{end} {any}")),
        (equal.clone(), 0..3_u32).prop_map(|(equal, index)| format!("dev {equal} {index}")),
        (equal.clone(), 0..4_u32, 0..4_u32)
            .prop_map(|(equal, mark, mask)| format!("fwmark {equal} {mark}/{mask}")),
        (equal, 0..3_u64).prop_map(|(equal, id)| format!("cgroup {equal} {id}")),
        Just("autobound".to_string()),
    ]
}

fn any_expression() -> impl Strategy<Value = String> {
    any_test().prop_recursive(5, 24, 3, |inner| {
        let join = prop_oneof!["and", "&", "&&", "", "or", "[|]", "[|][|]"];
        let not = prop_oneof![Just("not"), Just("!")];
        prop_oneof![
            (inner.clone(), join, inner.clone())
                .prop_map(|(one, join, other)| format!("{one} {join} {other}")),
            (not, inner.clone()).prop_map(|(not, one)| format!("{not} ( {one} )")),
            inner.prop_map(|one| format!("( {one} )")),
        ]
    })
}

fn any_subject() -> impl Strategy<Value = Subject> {
    let addresses = [
        ([10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 2),
        ([10, 1, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 2),
        ([192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 2),
        ([0; 16], 10),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 10),
        ([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 10),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3], 10),
    ];
    let four: Vec<[u8; 16]> = addresses.iter().filter(|(_, family)| *family == 2).map(|(a, _)| *a).collect();
    let six: Vec<[u8; 16]> = addresses.iter().filter(|(_, family)| *family == 10).map(|(a, _)| *a).collect();
    let pair = prop_oneof![
        (Just(2_u8), proptest::sample::select(four.clone()), proptest::sample::select(four)),
        (Just(10_u8), proptest::sample::select(six.clone()), proptest::sample::select(six))
    ];
    let rest =
        (proptest::option::of(0..4_u32), proptest::option::of(0..3_u64), proptest::option::of(any::<bool>()));
    (pair, 0..4_u16, 0..4_u16, 0..3_u32, rest).prop_map(
        |((family, source, destination), source_port, destination_port, interface, rest)| Subject {
            family,
            source_port,
            destination_port,
            source,
            destination,
            interface,
            mark: rest.0,
            cgroup_id: rest.1,
            autobound: rest.2,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn bytecode_says_of_any_row_what_the_tree_says(text in any_expression(), subject in any_subject()) {
        let filter = Filter::parse(&text).unwrap();
        let program = filter.compile(&NoNames).unwrap();
        prop_assert_eq!(audit(program.as_bytes()), Ok(()));
        let expected = match evaluate(&filter.expression, filter.expression.root().unwrap(), &subject) {
            Some(true) => Verdict::Pass,
            Some(false) => Verdict::Refuse,
            None => Verdict::Unknown,
        };
        prop_assert_eq!(program.judge(&subject), expected);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text: String) {
        let _ = Filter::parse(&text);
    }

    #[test]
    fn no_row_of_known_words_makes_the_parser_panic(words in proptest::collection::vec(any_piece(), 0..20)) {
        if let Ok(filter) = Filter::parse(&words.join(" ")) {
            let _ = filter.compile(&Known);
        }
        let _ = Filter::parse(&words.concat());
    }

    #[test]
    fn lists_of_ports_pass_what_is_listed(
        ports in proptest::collection::vec(prop_oneof![0..40_u16, 65_500..=u16::MAX], 0..20),
        source in prop_oneof![0..45_u16, 65_500..=u16::MAX],
        destination in prop_oneof![0..45_u16, 65_500..=u16::MAX],
    ) {
        let subject = Subject { source_port: source, destination_port: destination, ..subject() };
        let listed = ports.contains(&source) || ports.contains(&destination);
        let include = Program::any_port_of(&ports).unwrap();
        let exclude = Program::no_port_of(&ports).unwrap();
        prop_assert_eq!(audit(include.as_bytes()), Ok(()));
        prop_assert_eq!(audit(exclude.as_bytes()), Ok(()));
        prop_assert_eq!(include.matches(&subject), ports.is_empty() || source == 0 || listed);
        prop_assert_eq!(exclude.matches(&subject), !listed);
    }
}

fn any_piece() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "state",
        "exclude",
        "all",
        "src",
        "dst",
        "sport",
        "dport",
        "dev",
        "fwmark",
        "cgroup",
        "autobound",
        "and",
        "or",
        "not",
        "!",
        "(",
        ")",
        "=",
        "!=",
        ">=",
        ":443",
        "10.0.0.0/8",
        "[::1]:80",
        "*",
        "0x1/0x3",
        "\"",
        "/",
        ":",
        "[",
        "]",
        "inet:",
        "\u{fc}",
        "eth0",
        "1",
    ])
}
