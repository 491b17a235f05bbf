use super::*;

/// Both files of a 6.18 kernel, shortened; the order of names and the groups between are as they were.
const SNMP: &[u8] = b"\
Ip: Forwarding DefaultTTL InReceives
Ip: 1 64 8
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors
Tcp: 1 200 120000 -1 3 2 1 0 4 57 56 5 0 1 0
UdpLite: InDatagrams NoPorts
UdpLite: 0 0
";
const NETSTAT: &[u8] = b"\
TcpExt: SyncookiesSent SyncookiesRecv ListenOverflows NotKnownYet ListenDrops
TcpExt: 7 6 18446744073709551615 9 12
IpExt: InNoRoutes ListenDrops
IpExt: 1 99
";

#[test]
fn counters_are_found_by_group_and_name_whatever_their_order() {
    let mut counters = NetnsCounters::default();
    parse(SNMP, &mut counters);
    parse(NETSTAT, &mut counters);
    assert_eq!(
        (counters.active_opens, counters.curr_estab, counters.retrans_segs),
        (Some(3), Some(4), Some(5))
    );
    assert_eq!((counters.syncookies_sent, counters.listen_overflows), (Some(7), Some(u64::MAX)));
    assert_eq!(counters.listen_drops, Some(12), "IpExt is another group");
    assert_eq!(counters.ofo_pruned, None, "what a kernel does not have is absent");
}

#[test]
fn a_file_that_is_cut_or_garbled_gives_what_can_be_read_of_it() {
    let garbled: [&[u8]; 6] = [
        b"",
        b"Tcp",
        b"Tcp: ActiveOpens\n",
        b"Tcp: ActiveOpens\nTcp: x\n",
        b"\xff\xfe:\n:\n",
        b"Tcp: ActiveOpens\nIp: 1\n",
    ];
    for text in garbled {
        let mut counters = NetnsCounters::default();
        parse(text, &mut counters);
        assert_eq!(counters, NetnsCounters::default(), "{text:?}");
    }
    let mut counters = NetnsCounters::default();
    parse(b"Tcp: ActiveOpens PassiveOpens\nTcp: 1", &mut counters);
    assert_eq!((counters.active_opens, counters.passive_opens), (Some(1), None));
}

#[test]
fn this_kernel_has_every_counter() {
    let reading = Files::open().read();
    assert_eq!(reading.counters.error, "");
    let absent: Vec<_> =
        NAMES.iter().zip(values(&reading.counters)).filter(|(_, value)| value.is_none()).collect();
    assert!(absent.is_empty(), "{absent:?}");
}

#[test]
fn an_error_is_said_and_leaves_no_half_reading() {
    let files = Files { files: Err(io::ErrorKind::NotFound.into()), opening_ns: 0 };
    let counters = files.read().counters;
    assert!(!counters.error.is_empty() && values(&counters).all(|value| value.is_none()));
    // A directory can be opened, but not read.
    let files = Files { files: Ok(["/proc", "/proc"].map(|path| File::open(path).unwrap())), opening_ns: 0 };
    assert!(files.read().counters.error.contains("/proc/thread-self/net/snmp"));
}
