//! `ss -tan` in a namespace, as the set that the agent's rows are compared with.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::netns::Netns;
use crate::process::run;

/// What identifies a socket for both: state (the kernel's number), local and remote address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// The state, numbered as in the kernel's `net/tcp_states.h`.
    pub state: u32,
    /// Local address.
    pub local: SocketAddr,
    /// Remote address; port 0 for a listener.
    pub remote: SocketAddr,
}

/// How often each socket occurs: `SO_REUSEPORT` listeners look alike.
pub type Bag = BTreeMap<Socket, usize>;

/// Counts equal sockets.
pub fn bag(sockets: impl IntoIterator<Item = Socket>) -> Bag {
    let mut bag = Bag::new();
    for socket in sockets {
        *bag.entry(socket).or_default() += 1;
    }
    bag
}

/// `ss -tanH` inside `netns`, or in the test's own namespace.
pub fn tan(netns: Option<&Netns>) -> Bag {
    let argv = ["ss", "-tanH"];
    let text = netns.map_or_else(|| run(&argv), |netns| netns.exec(&argv));
    bag(text.lines().filter(|line| !line.trim().is_empty()).map(parse))
}

/// The kernel's number of a state in `ss`'s words.
pub fn state_number(word: &str) -> Option<u32> {
    let words = [
        "ESTAB",
        "SYN-SENT",
        "SYN-RECV",
        "FIN-WAIT-1",
        "FIN-WAIT-2",
        "TIME-WAIT",
        "UNCONN",
        "CLOSE-WAIT",
        "LAST-ACK",
        "LISTEN",
        "CLOSING",
        "NEW-SYN-RECV",
        "BOUND-INACTIVE",
    ];
    words.iter().position(|&known| known == word).and_then(|index| u32::try_from(index + 1).ok())
}

fn parse(line: &str) -> Socket {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [state, _recv_queue, _send_queue, local, remote, ..] = fields[..] else {
        panic!("ss wrote a line without five columns: {line:?}")
    };
    let state = state_number(state).unwrap_or_else(|| panic!("ss wrote an unknown state: {line:?}"));
    Socket { state, local: address(local), remote: address(remote) }
}

/// `192.0.2.1:80`, `[::1]:80`, `[fe80::1]%eth0:80`, `*:80` (an IPv6 socket that takes IPv4 too), `0.0.0.0:*`.
fn address(text: &str) -> SocketAddr {
    let (host, port) = text.rsplit_once(':').unwrap_or_else(|| panic!("ss wrote {text:?} for an address"));
    let host = host.split('%').next().unwrap_or(host);
    let ip: IpAddr = match host {
        "*" => Ipv6Addr::UNSPECIFIED.into(),
        _ => host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .unwrap_or_else(|e| panic!("ss wrote {text:?} for an address: {e}")),
    };
    let port =
        if port == "*" { 0 } else { port.parse().unwrap_or_else(|e| panic!("ss wrote port {port:?}: {e}")) };
    SocketAddr::new(ip, port)
}

/// One line for each socket whose count differs, and how.
pub fn difference(rows: &Bag, ss: &Bag) -> String {
    let mut text = String::new();
    for socket in rows.keys().chain(ss.keys().filter(|socket| !rows.contains_key(socket))) {
        let (in_rows, in_ss) = (rows.get(socket).unwrap_or(&0), ss.get(socket).unwrap_or(&0));
        if in_rows != in_ss {
            let Socket { state, local, remote } = socket;
            let _ = writeln!(text, "  state {state} {local} {remote}: {in_rows} rows, {in_ss} in ss");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_address_that_ss_writes_is_read() {
        let line = "LISTEN 0      128          *:22                *:*          ";
        assert_eq!(parse(line), socket(10, "[::]:22", "[::]:0"));
        let line = "ESTAB 0 0 [::ffff:127.0.0.1]:80 [::ffff:127.0.0.1]:51000";
        assert_eq!(parse(line), socket(1, "[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:51000"));
        let line = "TIME-WAIT 0 0 127.0.0.1%lo:80 127.0.0.2:1";
        assert_eq!(parse(line), socket(6, "127.0.0.1:80", "127.0.0.2:1"));
    }

    #[test]
    fn a_difference_names_the_socket_and_both_counts() {
        let a = socket(10, "0.0.0.0:80", "0.0.0.0:0");
        assert_eq!(difference(&bag([a.clone(), a.clone()]), &bag([a.clone(), a.clone()])), "");
        let text = difference(&bag([a.clone()]), &bag([a.clone(), a]));
        assert_eq!(text, "  state 10 0.0.0.0:80 0.0.0.0:0: 1 rows, 2 in ss\n");
    }

    fn socket(state: u32, local: &str, remote: &str) -> Socket {
        Socket { state, local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }
}
