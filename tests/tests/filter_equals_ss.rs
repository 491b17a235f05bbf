//! A filter selects the same sockets in the kernel, over decoded rows, and in `ss`.
//!
//! A namespace holds sockets of every kind that a test can tell apart: IPv4, IPv6, v4-mapped, link-local, listening,
//! half open, closing, time-wait, marked, bound to devices and ports, in a cgroup of their own, MPTCP. For each
//! expression the rows that the kernel lets pass (bytecode in the request), those of a full dump that pass in user
//! space, and those of `ss` with the same words are compared by cookie. Sound because nothing in the namespace opens or
//! ends meanwhile: a full dump before and after each expression gives the same cookies. Where it does not (a TIME-WAIT
//! ends after a minute) the expression is compared again.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that panics is a test that fails; what it compared is worth reading"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use xtcp_inet_diag::bytecode::{Program, Subject, Verdict};
use xtcp_inet_diag::filter::{Filter, Names, NoNames};
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::message;
use xtcp_inet_diag::request::{self, Dump, DumpBoth, Encoded, Extensions, Extras};
use xtcp_inet_diag::socket_id::Family;
use xtcp_inet_diag::state::{State, States};
use xtcp_tests::host::{alone, scale};
use xtcp_tests::netns::Netns;
use xtcp_tests::process::run;
use xtcp_tests::traffic::has_mptcp;

#[path = "filter_equals_ss/population.rs"]
mod population;

use population::{time_waits, world};

/// Without bound-inactive, which `ss` does not know before 6.8.
fn states() -> States {
    States::ALL.without(States::one(State::BoundInactive))
}

/// The errno, or every row by its cookie, and what a filter may know of it.
fn ask(request: &[u8]) -> Result<BTreeMap<u64, (u8, Subject)>, i32> {
    let netlink = Domain::from(libc::AF_NETLINK);
    let socket = Socket::new(netlink, Type::RAW, Some(Protocol::from(libc::NETLINK_SOCK_DIAG))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send(request).unwrap();
    let mut rows = BTreeMap::new();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let length = (&socket).read(&mut buffer).unwrap();
        for message in Messages::new(&buffer[..length]) {
            match message.unwrap().body {
                Body::Data { payload } => {
                    let row = message::decode(payload).unwrap();
                    rows.insert(row.header.id.cookie, (row.header.state, Subject::of(&row)));
                }
                Body::Done { status: 0, .. } => return Ok(rows),
                Body::Done { status, .. } => return Err(-status),
                Body::Error { errno, .. } => return Err(errno),
                other => panic!("the kernel answered {other:?}"),
            }
        }
    }
}

/// Both families at once, with the old request.
fn dump(filter: &Program, states: States) -> Result<BTreeMap<u64, (u8, Subject)>, i32> {
    let dump = DumpBoth { states, extensions: Extensions::NONE };
    ask(&dump.to_bytes_with(1, &Extras { filter, bpf_storages: false }))
}

fn of_family(
    family: Family,
    protocol: request::Protocol,
    filter: &Program,
) -> Encoded<{ request::DUMP_MAX }> {
    let dump = Dump { family, protocol, states: states(), extensions: Extensions::NONE };
    dump.to_bytes_with(1, &Extras { filter, bpf_storages: false })
}

/// Cookies that `ss` shows for an expression.
fn ss(kind: &str, expression: &str) -> BTreeSet<u64> {
    let argv: Vec<&str> = ["ss", kind, "-anHeO"].into_iter().chain(expression.split_whitespace()).collect();
    let cookie = |line: &str| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix("sk:"));
        let word = word.unwrap_or_else(|| panic!("ss shows no cookie in {line:?}"));
        u64::from_str_radix(word, 16).unwrap()
    };
    run(&argv).lines().filter(|line| !line.trim().is_empty()).map(cookie).collect()
}

struct Here;

impl Names for Here {
    fn interface(&self, name: &str) -> Option<u32> {
        fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifindex"))
            .ok()
            .and_then(|index| index.trim().parse().ok())
            .or_else(|| ifindex(name))
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        fs::metadata(path).ok().map(|folder| folder.ino())
    }

    fn service(&self, _name: &str) -> Option<u16> {
        None
    }
}

/// An interface of the calling thread's namespace; `/sys` shows those of the namespace that mounted it.
fn ifindex(name: &str) -> Option<u32> {
    let text = run(&["ip", "-o", "link", "show", "dev", name]);
    text.split(':').next().and_then(|index| index.trim().parse().ok())
}

/// Whether some sockets pass and some do not, if the three answers to one expression are equal; else how they differ.
fn compare(text: &str, all: &BTreeMap<u64, (u8, Subject)>) -> Result<bool, String> {
    let filter = Filter::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let program = filter.compile(&Here).unwrap_or_else(|e| panic!("{text}: {e}"));
    let selected = filter.states().map_or(states(), |own| States::from_bits(own.bits() & states().bits()));
    let kernel = dump(&program, selected).unwrap_or_else(|errno| panic!("{text}: refused with {errno}"));
    let kernel: BTreeSet<u64> = kernel.into_keys().collect();
    let judged = |verdict: Verdict| -> BTreeSet<u64> {
        let of =
            |(state, subject): &(u8, Subject)| selected.shows(*state) && program.judge(subject) == verdict;
        all.iter().filter(|(_, row)| of(row)).map(|(cookie, _)| *cookie).collect()
    };
    let (certain, unknown) = (judged(Verdict::Pass), judged(Verdict::Unknown));
    let equal = |same: bool, what: &str, one: &BTreeSet<u64>, other: &BTreeSet<u64>| {
        if same { Ok(()) } else { Err(format!("{text}: {what} {:?}", rows(one, other, all))) }
    };
    equal(certain.is_subset(&kernel), "only user space lets pass", &certain, &kernel)?;
    let possible = certain.union(&unknown).copied().collect();
    equal(kernel.is_subset(&possible), "only the kernel lets pass", &kernel, &possible)?;
    let vague = |cookie: &u64| text.contains("autobound") || text.contains("fwmark") && all[cookie].0 == 6;
    equal(unknown.iter().all(vague), "user space does not know", &unknown, &certain)?;
    let words = ss("-t", text);
    // Of the kernel's answer to autobound, ss leaves out what is no ephemeral port.
    let narrowed = text.contains("autobound") && words != kernel;
    equal(kernel == words || narrowed, "only one of kernel and ss:", &kernel, &words)?;
    Ok(!kernel.is_empty() && kernel.len() < all.len())
}

fn everything() -> BTreeMap<u64, (u8, Subject)> {
    dump(&Program::EVERYTHING, states()).unwrap()
}

/// [`compare`] between two dumps with the same sockets.
fn compare_at_rest(text: &str) -> bool {
    for _ in 0..10 {
        let mut before = everything();
        if !before.values().any(|(state, _)| *state == 6) {
            time_waits();
            before = everything();
        }
        let compared = compare(text, &before);
        if before.into_keys().eq(everything().into_keys()) {
            return compared.unwrap_or_else(|why| panic!("{why}"));
        }
    }
    panic!("{text}: sockets come and go: the comparison means nothing");
}

fn rows<'a>(
    one: &BTreeSet<u64>,
    other: &BTreeSet<u64>,
    all: &'a BTreeMap<u64, (u8, Subject)>,
) -> Vec<Option<&'a (u8, Subject)>> {
    one.symmetric_difference(other).map(|cookie| all.get(cookie)).collect()
}

const TESTS: &str = "sport = :21001; dport = :21001; sport 21004; sport >= :21004; dport le :21003; sport gt 22000; \
    dport lt 1; dport != :0; sport neq 21002; dport eq 80; sport >= :0; dport > 65535; src 127.0.0.1; \
    dst 127.0.0.0/8; src 127.0.0.2/31; dst 127.0.0.1:21004; src :21004; src *; dst *:443; dst 192.0.2.0/24; \
    dst 192.0.2.2:80; src [::1]; dst [::1]:21003; src [2001:db8::/32]; dst [2001:db8::2]:443; \
    src [::ffff:127.0.0.1]; dst [::ffff:127.0.0.0/104]; src fe80::/10; dev = lo; dev != lo; dev wire0; \
    fwmark = 0x11; fwmark 0x01/0x03; fwmark != 0/0xff; fwmark 0x10/0x10; cgroup = CGROUP; cgroup != CGROUP; \
    autobound; not autobound";
const STATES: &str = "; state established; state connected; exclude listening; state bucket; state big; \
    state syn-recv state syn-sent; state all exclude time-wait exclude fin-wait-2";
const JOINS: [&str; 5] = ["and", "or", "", "&", "||"];

/// Random numbers that are the same each time (a linear congruential generator).
struct Dice(u64);

impl Dice {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from[usize::try_from(self.0 >> 33).unwrap() % from.len()]
    }

    fn expression(&mut self, tests: &[&str], depth: usize) -> String {
        let shape =
            if depth == 0 { "test" } else { self.pick(&["test", "join", "join", "not", "parens", "chain"]) };
        match shape {
            "join" => format!(
                "( {} ) {} {}",
                self.expression(tests, depth - 1),
                self.pick(&JOINS),
                self.expression(tests, depth - 1)
            ),
            "chain" => (0..3).fold(self.pick(tests).to_owned(), |all, _| {
                format!("{all} {} {}", self.pick(&JOINS), self.pick(tests))
            }),
            "not" => format!("{} ( {} )", self.pick(&["not", "!"]), self.expression(tests, depth - 1)),
            "parens" => format!("( {} )", self.expression(tests, depth - 1)),
            _ => self.pick(tests).to_owned(),
        }
    }
}

#[test]
fn kernel_user_space_and_ss_agree_on_every_filter() {
    let _alone = alone();
    let world = world();
    let folder = world.cgroup.0.to_str().unwrap();
    let (tests, selections): (Vec<_>, Vec<_>) = (TESTS.split("; ").collect(), STATES.split("; ").collect());
    let mut texts: Vec<String> = tests.iter().chain(&selections).map(|text| (*text).to_owned()).collect();
    texts.extend(
        [
            "sport = :21001 or sport = :21002 and sport = :21003",
            "not src 127.0.0.1 or dport = :21001",
            // What ss judges by itself, after the kernel or in its place, forgets families: so these stand alone.
            "src 0.0.0.0",
            "src [::]",
            "dst [::/1]",
            "src [::/0]",
            "src 0.0.0.0/0",
        ]
        .map(str::to_owned),
    );
    let mut dice = Dice(1);
    texts.extend((0..scale(400, 5_000)).map(|_| {
        let states = dice.pick(&selections);
        format!("{states} {}", dice.expression(&tests, 3))
    }));
    let telling = world.netns.run_in(|| {
        let sockets = everything();
        for state in [1, 2, 3, 5, 6, 8, 10] {
            assert!(sockets.values().any(|(own, _)| *own == state), "no socket is in state {state}");
        }
        let mut telling = 0;
        for text in &texts {
            telling += usize::from(compare_at_rest(&text.replace("CGROUP", folder)));
        }
        println!(
            "{} sockets, {} filters, {telling} of them select some and leave some",
            sockets.len(),
            texts.len()
        );
        telling
    });
    assert!(telling > texts.len() / 2, "only {telling} of {} filters tell sockets apart", texts.len());
}

#[test]
fn mptcp_sockets_are_dumped_by_family_with_and_without_a_filter() {
    let _alone = alone();
    let world = world();
    let known = has_mptcp();
    world.netns.run_in(|| {
        for text in ["", "sport = :21008", "dport = :21008", "dport = :1"] {
            let program = Filter::parse(text).unwrap().compile(&NoNames).unwrap();
            if !known {
                // A kernel that was built without it has nobody to answer.
                for family in [Family::Inet, Family::Inet6] {
                    let answer = ask(&of_family(family, request::Protocol::MPTCP, &program));
                    assert_eq!(answer.map(|rows| rows.len()), Err(libc::ENOENT), "{text}");
                }
                continue;
            }
            let mut found = BTreeSet::new();
            for family in [Family::Inet, Family::Inet6] {
                let request = of_family(family, request::Protocol::MPTCP, &program);
                found.extend(ask(&request).unwrap_or_else(|errno| panic!("MPTCP: {errno}")).into_keys());
            }
            assert_eq!(found, ss("-M", text), "{text}");
            assert_eq!(found.is_empty(), text == "dport = :1");
        }
    });
}

#[test]
fn the_kernel_takes_filters_up_to_the_longest() {
    let _alone = alone();
    let netns = Netns::named("filter");
    netns.run_in(|| {
        let long = "dst [2001:db8::1]:1 or ".repeat(63) + "src [2001:db8::1]:1";
        let ports: Vec<u16> = (1..=170).map(|port| port * 3).collect();
        for program in [
            Filter::parse(&long).unwrap().compile(&NoNames).unwrap(),
            Program::no_port_of(&ports).unwrap(),
            Program::any_port_of(&ports[..100]).unwrap(),
        ] {
            assert!(program.as_bytes().len() > 2_000);
            assert_eq!(dump(&program, states()), Ok(BTreeMap::new()));
            for family in [Family::Inet, Family::Inet6] {
                assert_eq!(ask(&of_family(family, request::Protocol::TCP, &program)), Ok(BTreeMap::new()));
            }
        }
        let all = DumpBoth { states: states(), extensions: Extensions::NONE };
        let extras = Extras { filter: &Program::EVERYTHING, bpf_storages: true };
        assert_eq!(ask(&all.to_bytes_with(1, &extras)), Ok(BTreeMap::new()));
    });
}
