//! Parsers of one value: a word becomes a typed value within its range, or an error that says what is accepted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use tracing_subscriber::EnvFilter;
use xtcp_inet_diag::attr::Selection;
use xtcp_inet_diag::state::States;

use super::error::{KNOWN, nearest};
use crate::ebpf::{self, Rung};
use crate::event_sink::Marshal;
use crate::marshaller::{self, Marshaller};
use crate::netns::filter::NetnsFilter;

/// A duration in words such as `10s`, `1m 30s` or `500us`, from `min` to `max`.
pub(crate) fn duration(
    min: Duration,
    max: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |word| {
        let accepted = format!(
            "accepted: a duration from {} to {}, such as 250ms, 10s or 1m 30s",
            in_words(min),
            in_words(max)
        );
        let value = humantime::parse_duration(word.trim()).map_err(|e| format!("{e}; {accepted}"))?;
        if value < min || value > max {
            return Err(format!("out of range; {accepted}"));
        }
        Ok(value)
    }
}

/// As people write it: whole days in hours, as the help has them.
fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// A number of bytes, plain or with `KiB`, `MiB` or `GiB`, from `min` to `max`.
pub(super) fn bytes(
    min: u32,
    max: u32,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    move |word| size(word, min.into(), max.into()).and_then(|n| u32::try_from(n).map_err(|e| e.to_string()))
}

/// As [`bytes`], for sizes that may be beyond 4 GiB.
pub(crate) fn size(word: &str, min: u64, max: u64) -> Result<u64, String> {
    let accepted = format!(
        "accepted: {} to {} bytes, plain or with KiB, MiB or GiB",
        format_bytes(min),
        format_bytes(max)
    );
    match parse_bytes(word.trim()) {
        Some(value) if (min..=max).contains(&value) => Ok(value),
        Some(_) => Err(format!("out of range; {accepted}")),
        None => Err(format!("not a number of bytes; {accepted}")),
    }
}

/// As [`bytes`], and a power of two.
pub(super) fn power_of_two_bytes(
    min: u32,
    max: u32,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    let parse = bytes(min, max);
    move |word| {
        let value = parse(word)?;
        if value.is_power_of_two() {
            return Ok(value);
        }
        let above = value.checked_next_power_of_two().unwrap_or(max).min(max);
        Err(format!(
            "not a power of two; accepted: powers of two from {} to {}, the next one is {}",
            format_bytes(min),
            format_bytes(max),
            format_bytes(above)
        ))
    }
}

fn parse_bytes(word: &str) -> Option<u64> {
    let digits = word.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().ok()?;
    let unit = match word.strip_prefix(digits)?.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// A number of bytes in the largest unit that divides it.
pub fn format_bytes(bytes: impl Into<u64>) -> String {
    match bytes.into() {
        0 => "0".to_owned(),
        b if b.is_multiple_of(1 << 30) => format!("{}GiB", b >> 30),
        b if b.is_multiple_of(1 << 20) => format!("{}MiB", b >> 20),
        b if b.is_multiple_of(1 << 10) => format!("{}KiB", b >> 10),
        b => b.to_string(),
    }
}

/// An address to listen on: `127.0.0.1:9088`, `[::1]:9088`, `localhost:9088`, or `:9088` for every IPv4 address.
pub(super) fn listen(word: &str) -> Result<SocketAddr, String> {
    let accepted =
        "accepted: ADDRESS:PORT such as 127.0.0.1:9088 or [::1]:9088, or :PORT for every IPv4 address";
    let word = word.trim();
    if let Ok(address) = SocketAddr::from_str(word) {
        return Ok(address);
    }
    let (host, port) = word.rsplit_once(':').ok_or_else(|| format!("no port; {accepted}"))?;
    let port: u16 = port.parse().map_err(|_| format!("no port in 0 to 65535; {accepted}"))?;
    let ip = match host {
        "" => Ipv4Addr::UNSPECIFIED,
        "localhost" => Ipv4Addr::LOCALHOST,
        _ => return Err(format!("host names are not looked up; {accepted}")),
    };
    Ok(SocketAddr::new(IpAddr::V4(ip), port))
}

/// A filter of tracing: `info`, or directives such as `warn,xtcp_agent::netns=debug`.
pub(super) fn log_filter(word: &str) -> Result<String, String> {
    let accepted =
        "accepted: error, warn, info, debug, trace, off, or directives such as warn,xtcp_agent::netns=debug";
    match EnvFilter::builder().parse(word) {
        // A lone word that is no level would be taken for the name of a module, and then log nothing.
        Ok(_) if is_level(word) || word.contains(['=', ',', '[']) => Ok(word.to_owned()),
        Ok(_) => Err(format!("not a level; {accepted}")),
        Err(e) => Err(format!("{e}; {accepted}")),
    }
}

fn is_level(word: &str) -> bool {
    ["error", "warn", "info", "debug", "trace", "off"].iter().any(|level| level.eq_ignore_ascii_case(word))
}

/// Whether the agent uses eBPF.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum EbpfMode {
    /// Use every hook that this kernel offers; poll only when there is none
    Auto,
    /// Load nothing into the kernel; poll only
    Off,
    /// Refuse to start without TCP state events
    Require,
}

/// A protocol whose sockets are reported.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketProtocol {
    /// Sockets of TCP, subflows of MPTCP among them
    Tcp,
    /// Connections of MPTCP
    Mptcp,
}

/// What happens to the connections of the agent itself.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnConnections {
    /// Recognised, counted, left out of events and records; listeners stay in records
    Exclude,
    /// Treated like everybody's
    Include,
}

/// When descriptors of all processes are looked through.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessScan {
    /// Never
    Off,
    /// Once, when the agent starts
    Start,
}

/// Whether users' names are looked up.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNames {
    /// Rows have user ids only
    Off,
    /// Rows have names too
    On,
}

/// Whether something is done.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// No
    #[value(alias = "false")]
    Off,
    /// Yes
    #[value(alias = "true")]
    On,
}

/// How log lines are written to standard error.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// One or more TCP states, in the words of `ss`.
pub(super) fn states(words: &str) -> Result<States, String> {
    match States::parse(words) {
        Ok(states) if states.is_empty() => Err("names no state".to_owned()),
        Ok(states) => Ok(states),
        Err(unknown) => Err(unknown.to_string()),
    }
}

/// A group of attributes, by the name of the record's fields or the Go collector's.
pub(super) fn deserializers(word: &str) -> Result<Selection, String> {
    Selection::parse(word).map_err(|unknown| {
        let near = nearest(&unknown.word.to_ascii_lowercase(), Selection::words());
        let hint = near.map(|name| format!("did you mean {name}? ")).unwrap_or_default();
        let known: Vec<&str> = Selection::words().collect();
        format!("unknown group of attributes; {hint}{KNOWN}{}", known.join(", "))
    })
}

/// Patterns of network namespaces stay words: the filter is made of all of them together.
pub(super) fn netns_pattern(word: &str) -> Result<String, String> {
    NetnsFilter::parse(&[word], &[]).map(|_| word.to_owned()).map_err(|e| e.to_string())
}

/// How records are written.
pub(super) fn marshaller() -> impl TypedValueParser<Value = &'static dyn Marshaller> {
    PossibleValuesParser::new(marshaller::FORMATS.map(Marshaller::name))
        .try_map(|word| marshaller::parse(&word))
}

/// A hook, by the name of its program or the kernel's name for it.
pub(super) fn hook() -> impl TypedValueParser<Value = Rung> {
    let names =
        ebpf::ladder().iter().map(|info| PossibleValue::new(info.program).help(info.hook).alias(info.hook));
    PossibleValuesParser::new(names).try_map(|word| {
        let info = ebpf::ladder().iter().find(|info| info.program == word || info.hook == word);
        info.map(|info| info.rung).ok_or("no such hook")
    })
}

/// How change events are written.
pub(super) fn events_marshal() -> impl TypedValueParser<Value = Marshal> {
    PossibleValuesParser::new([
        PossibleValue::new("protobuf").help("One xtcp_event.v1.Event a message"),
        PossibleValue::new("jsonl").help("One proto3-JSON object a message"),
    ])
    .try_map(|word| word.parse::<Marshal>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xtcp_inet_diag::state::State;

    #[test]
    fn states_are_sets_of_the_words_of_ss() {
        assert_eq!(
            states("listening,established"),
            Ok(States::from(State::Listen) | State::Established.into())
        );
        assert!(states("listn").unwrap_err().contains("known are established"));
        assert!(states(" ").is_err());
    }

    #[test]
    fn an_unknown_deserializer_is_told_the_nearest_and_all() {
        assert_eq!(deserializers("skmem"), Ok(Selection::SK_MEM_INFO));
        let error = deserializers("tcp_inof").unwrap_err();
        assert!(
            error.starts_with("unknown group of attributes; did you mean tcp_info? known: mem_info, "),
            "{error}"
        );
        assert!(error.contains("sockopt") && error.ends_with("default, all"), "{error}");
        assert!(deserializers("zzzz").unwrap_err().starts_with("unknown group of attributes; known: "));
        assert!(deserializers("").is_err());
    }

    #[test]
    fn bytes_take_binary_suffixes() {
        let parse = bytes(1, u32::MAX);
        assert_eq!(parse("8MiB"), Ok(8 << 20));
        assert_eq!(parse("64 KiB"), Ok(64 << 10));
        assert_eq!(parse("786432"), Ok(786_432));
        assert!(parse("8MB").unwrap_err().contains("KiB"));
        assert!(parse("99GiB").unwrap_err().contains("out of range"));
    }

    #[test]
    fn a_ring_of_odd_size_is_told_the_next_power_of_two() {
        let error = power_of_two_bytes(4096, 1 << 30)("5MiB").unwrap_err();
        assert!(error.contains("the next one is 8MiB"), "{error}");
    }

    #[test]
    fn a_lone_word_that_is_no_level_is_an_error() {
        assert!(log_filter("verbose").is_err());
        assert_eq!(log_filter("warn,xtcp_agent=debug").as_deref(), Ok("warn,xtcp_agent=debug"));
    }

    #[test]
    fn a_port_alone_listens_on_every_address() {
        assert_eq!(listen(":9088"), Ok("0.0.0.0:9088".parse().unwrap()));
        assert_eq!(listen("localhost:1"), Ok("127.0.0.1:1".parse().unwrap()));
        assert!(listen("example.org:1").is_err());
        assert!(listen("127.0.0.1").is_err());
    }

    proptest! {
        #[test]
        fn a_formatted_size_parses_back(size: u32) {
            prop_assert_eq!(parse_bytes(&format_bytes(size)), Some(u64::from(size)));
        }

        #[test]
        fn no_word_makes_a_parser_panic(word: String) {
            let _ = duration(Duration::ZERO, Duration::from_secs(1))(&word);
            let _ = bytes(0, 10)(&word);
            let _ = listen(&word);
            let _ = states(&word);
        }
    }
}
