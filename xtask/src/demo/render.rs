//! One line of JSON becomes one line for people. What a row or an event does not say is left out.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

/// The kernel's TCP states by number, in `ss`'s words.
const STATES: [&str; 14] = [
    "?",
    "ESTAB",
    "SYN-SENT",
    "SYN-RECV",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSE",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
    "NEW-SYN-RECV",
    "BOUND-INACTIVE",
];

/// The row of a socket in `netns`.
pub(super) fn row(netns: &str, row: &Value) -> String {
    let state = usize::try_from(number(row, "inetDiagMsgState")).ok();
    let state = state.and_then(|state| STATES.get(state)).copied().unwrap_or("?");
    let family = number(row, "inetDiagMsgFamily");
    let from = address(row, family, "inetDiagMsgSocketSource", "inetDiagMsgSocketSourcePort");
    let to = address(row, family, "inetDiagMsgSocketDestination", "inetDiagMsgSocketDestinationPort");
    let mut line = format!("row    {netns:<12} {state:<11} {from} > {to}");
    if state != "LISTEN" {
        let (sent, received) = (number(row, "tcpInfoBytesSent"), number(row, "tcpInfoBytesReceived"));
        let (rtt, window) = (number(row, "tcpInfoRtt"), number(row, "tcpInfoSndCwnd"));
        add(&mut line, format_args!("rtt {rtt} us, cwnd {window}, sent {sent}, received {received}"));
    }
    owner(&mut line, row);
    let (reason, method) =
        (word(row, "recordReason", "RECORD_REASON_"), word(row, "recordMethod", "RECORD_METHOD_"));
    add(&mut line, format_args!("by {method} because of {reason}"));
    line
}

/// A change event of `netns`, of which `kind` is the JSON field and `event` its value.
pub(super) fn event(netns: &str, kind: &str, event: &Value) -> String {
    let mut line = format!("event  {netns:<12} ");
    match kind {
        "netnsCreated" => {
            line.push_str("netns created");
            owner(&mut line, event.get("creator").unwrap_or(&Value::Null));
        }
        "netnsDestroyed" => {
            line.push_str("netns destroyed");
            add(&mut line, format_args!("it lived {}", duration(event, "lifetimeNs")));
        }
        "tcpState" => {
            let (old, new) = (word(event, "oldState", "TCP_STATE_"), word(event, "newState", "TCP_STATE_"));
            let _ = write!(line, "{:<11} {}", new.to_uppercase(), socket(event));
            add(&mut line, format_args!("was {old}"));
            owner(&mut line, event.get("owner").unwrap_or(&Value::Null));
        }
        "tcpClose" => {
            let _ = write!(line, "{:<11} {}", "CLOSE", socket(event));
            add(&mut line, format_args!("{}", word(event, "reason", "CLOSE_REASON_")));
            add(&mut line, format_args!("it lived {}", duration(event, "lifetimeNs")));
            if let Some(numbers) = event.get("numbers") {
                let (sent, received) = (number(numbers, "bytesSent"), number(numbers, "bytesReceived"));
                add(&mut line, format_args!("sent {sent}, received {received}"));
            }
            owner(&mut line, event.get("owner").unwrap_or(&Value::Null));
        }
        other => {
            let _ = write!(line, "{other}: {event}");
        }
    }
    line
}

fn add(line: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = write!(line, "  {what}");
}

fn owner(line: &mut String, of: &Value) {
    let pid = number(of, "pid");
    if pid != 0 {
        add(line, format_args!("{}[{pid}]", text(of, "comm")));
    }
}

fn socket(event: &Value) -> String {
    let socket = event.get("socket").unwrap_or(&Value::Null);
    let family = number(socket, "family");
    let from = address(socket, family, "source", "sourcePort");
    format!("{from} > {}", address(socket, family, "destination", "destinationPort"))
}

fn address(of: &Value, family: u64, bytes: &str, port: &str) -> String {
    let port = u16::try_from(number(of, port)).unwrap_or(0);
    let bytes = base64(text(of, bytes));
    let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?));
    let v6 = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(..16)?).ok()?));
    let address =
        if family == 2 { v4().map(std::net::IpAddr::from) } else { v6().map(std::net::IpAddr::from) };
    address.map_or_else(|| format!("*:{port}"), |address| SocketAddr::new(address, port).to_string())
}

fn duration(of: &Value, field: &str) -> String {
    format!("{:.1?}", Duration::from_nanos(number(of, field)))
}

/// An enum's value without its prefix, as a word.
fn word(of: &Value, field: &str, prefix: &str) -> String {
    let name = text(of, field);
    let name = if name.is_empty() { "unknown" } else { name };
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

pub(super) fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A number; proto3 JSON writes 64-bit ones as text and leaves out zeros.
pub(super) fn number(of: &Value, field: &str) -> u64 {
    match of.get(field) {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(value) => value.as_u64().unwrap_or(0),
        None => 0,
    }
}

fn base64(text: &str) -> Vec<u8> {
    let six_bits = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0_u32);
    for value in text.bytes().map_while(six_bits) {
        held = (held << 6 | u32::from(value)) & 0xfff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).unwrap_or(0));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn base64_of_any_length_decodes() {
        assert_eq!(base64(""), b"");
        assert_eq!(base64("/w=="), [0xff]);
        assert_eq!(base64("aGVsbG8="), b"hello");
        assert_eq!(base64("fwAAAQAAAAAAAAAAAAAAAA=="), [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_row_says_where_how_fast_how_much_and_why() {
        let line = row(
            "xtcp-demo-1",
            &json!({
                "inetDiagMsgState": 1, "inetDiagMsgFamily": 2,
                "inetDiagMsgSocketSource": "fwAAAQAAAAAAAAAAAAAAAA==", "inetDiagMsgSocketSourcePort": 40000,
                "inetDiagMsgSocketDestination": "fwAAAQAAAAAAAAAAAAAAAA==", "inetDiagMsgSocketDestinationPort": 8080,
                "tcpInfoRtt": 31, "tcpInfoSndCwnd": 10, "tcpInfoBytesSent": "100",
                "recordReason": "RECORD_REASON_TCP_STATE", "recordMethod": "RECORD_METHOD_LOOKUP",
            }),
        );
        assert_eq!(
            line,
            "row    xtcp-demo-1  ESTAB       127.0.0.1:40000 > 127.0.0.1:8080  rtt 31 us, cwnd 10, sent 100, \
             received 0  by lookup because of tcp state"
        );
    }

    #[test]
    fn a_close_says_how_it_ended_and_who_did_it() {
        let line = event(
            "xtcp-demo-3",
            "tcpClose",
            &json!({
                "socket": {"family": 10, "source": "AAAAAAAAAAAAAAAAAAAAAQ==", "sourcePort": 1,
                    "destination": "AAAAAAAAAAAAAAAAAAAAAQ==", "destinationPort": 2},
                "reason": "CLOSE_REASON_LOCAL_FIN", "lifetimeNs": "9000000",
                "numbers": {"bytesSent": "100"}, "owner": {"pid": 7, "comm": "curl"},
            }),
        );
        assert_eq!(
            line,
            "event  xtcp-demo-3  CLOSE       [::1]:1 > [::1]:2  local fin  it lived 9.0ms  sent 100, received 0  \
             curl[7]"
        );
    }
}
