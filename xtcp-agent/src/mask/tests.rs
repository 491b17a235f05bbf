use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};

use super::*;

fn masked(mask: &Mask, address: &str) -> String {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => {
            let mut bytes = [0xee; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            let out = mask.address(true, bytes);
            assert_eq!(out[4..], [0; 12], "what lies behind an IPv4 address is nobody's business");
            Ipv4Addr::new(out[0], out[1], out[2], out[3]).to_string()
        }
        IpAddr::V6(v6) => Ipv6Addr::from(mask.address(false, v6.octets())).to_string(),
    }
}

fn prefixes(word: &str) -> Mask {
    Mask::new(&word.parse().unwrap()).unwrap()
}

fn hashing(key: &[u8]) -> Result<Mask, MaskError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(key).unwrap();
    Mask::new(&Choice::Hash(file.path().to_owned()))
}

#[test]
fn addresses_keep_their_prefix_and_nothing_else() {
    let mask = prefixes("v4=24,v6=48");
    for (address, expected) in [
        ("192.0.2.77", "192.0.2.0"),
        ("0.0.0.0", "0.0.0.0"),
        ("127.0.0.1", "127.0.0.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("::", "::"),
        ("::1", "::"),
        ("fe80::1:2:3:4", "fe80::"),
    ] {
        assert_eq!(masked(&mask, address), expected, "{address}");
    }
    assert_eq!(masked(&prefixes("v6=0,v4=0"), "192.0.2.77"), "0.0.0.0");
    assert_eq!(masked(&prefixes("v4=32,v6=128"), "192.0.2.77"), "192.0.2.77");
    assert_eq!(masked(&prefixes("v4=32,v6=128"), "2001:db8:1:2:3:4:5:6"), "2001:db8:1:2:3:4:5:6");
}

#[test]
fn an_ipv4_address_inside_an_ipv6_one_keeps_no_more_than_its_own_prefix() {
    let mask = prefixes("v4=8,v6=128");
    for (address, expected) in [
        ("::ffff:192.0.2.77", "::ffff:192.0.0.0"),
        ("2002:c000:24d:1::1", "2002:c000::"),
        ("64:ff9b::192.0.2.77", "64:ff9b::c000:0"),
        ("2001:0:c000:24d::1", "2001:0:c000::"),
        ("::192.0.2.77", "::192.0.0.0"),
    ] {
        assert_eq!(masked(&mask, address), expected.parse::<Ipv6Addr>().unwrap().to_string(), "{address}");
    }
    assert_eq!(masked(&prefixes("v4=24,v6=48"), "::ffff:192.0.2.77"), "::ffff:192.0.2.0");
}

#[test]
fn a_hash_is_the_same_for_the_same_key_and_address_only() {
    let mask = hashing(b"00112233445566778899aabbccddeeff\n").unwrap();
    let raw: Vec<u8> = (0..16u8).map(|n| n * 0x11).collect();
    let same = hashing(&raw).unwrap();
    let other = hashing(b"0123456789abcdef").unwrap();
    for address in ["192.0.2.77", "2001:db8::1", "::ffff:192.0.2.77"] {
        assert_eq!(masked(&mask, address), masked(&same, address));
        assert_ne!(masked(&mask, address), masked(&other, address));
        assert_ne!(masked(&mask, address), address);
    }
    assert_ne!(masked(&mask, "192.0.2.77"), masked(&mask, "192.0.2.78"));
    // The same host, through whichever socket.
    assert_eq!(masked(&mask, "::ffff:192.0.2.77"), format!("::ffff:{}", masked(&mask, "192.0.2.77")));
    assert_eq!((masked(&mask, "0.0.0.0"), masked(&mask, "::")), ("0.0.0.0".to_owned(), "::".to_owned()));
    assert_eq!(format!("{mask:?}"), "Mask(hash)");
}

#[test]
fn a_file_that_holds_no_key_is_named_with_what_is_wanted() {
    for wrong in
        [&b""[..], b"short", b"0011223344556677 8899aabbccddeef", b"+0112233445566778899aabbccddeeff"]
    {
        let error = hashing(wrong).unwrap_err().to_string();
        assert!(error.contains("openssl rand -hex 16"), "{error}");
    }
    let missing = Mask::new(&Choice::Hash("/nonexistent/key".into())).unwrap_err().to_string();
    assert!(missing.contains("/nonexistent/key: cannot be read"), "{missing}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_is_accepted() {
    for word in ["", "v4=24", "v4=33,v6=48", "v4=24,v6=129", "v4=24,v4=24", "24,48", "hash:", "v4=x,v6=1"] {
        let error = word.parse::<Choice>().unwrap_err();
        assert!(error.ends_with(ACCEPTED), "{word}: {error}");
    }
    assert_eq!("v6=48, v4=24".parse(), Ok(Choice::Prefixes { v4: 24, v6: 48 }));
    assert_eq!("hash:/etc/key".parse(), Ok(Choice::Hash("/etc/key".into())));
}

#[test]
fn the_header_of_a_row_differs_in_its_addresses_only() {
    let mask = prefixes("v4=8,v6=16");
    for family in [2, 10] {
        let mut header = [0xab; ROW_LEN];
        header[0] = family;
        let masked = mask.header(&header);
        let differ: Vec<usize> = (0..ROW_LEN).filter(|at| header[*at] != masked[*at]).collect();
        let kept = if family == 2 { 1 } else { 2 };
        let expected: Vec<usize> =
            (SOURCE + kept..SOURCE + 16).chain(DESTINATION + kept..DESTINATION + 16).collect();
        assert_eq!(differ, expected, "family {family}");
    }
}

#[test]
fn listeners_of_counters_keep_the_length_of_their_addresses_and_their_prefix() {
    use xtcp_proto::netns::v1::{Listener, NetnsCounters};

    let addresses: [&[u8]; 4] = [&[192, 0, 2, 77], &[0x20; 16], &[0; 16], &[1, 2, 3]];
    let listeners =
        addresses.map(|address| Listener { address: address.to_vec(), port: 80, ..Listener::default() });
    let counters = NetnsCounters { listeners: listeners.to_vec(), ..NetnsCounters::default() };
    let mut event = Kind::NetnsCounters(Box::new(counters));
    prefixes("v4=24,v6=8").event(&mut event);
    let Kind::NetnsCounters(counters) = event else { panic!("another event") };
    let told: Vec<&[u8]> = counters.listeners.iter().map(|listener| &*listener.address).collect();
    let v6 = [&[0x20][..], &[0; 15]].concat();
    assert_eq!(told, [&[192, 0, 2, 0][..], &v6, &[0; 16], &[]]);
    assert!(counters.listeners.iter().all(|listener| listener.port == 80));
}
