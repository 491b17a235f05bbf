//! A field's value in words.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value as Json;
use xtcp_inet_diag::state::State;

use crate::fields::{FAMILY, Field, Kind, RowView, Value};
use crate::words::{TCP_OPTIONS, address, thousandths, timer};

/// How a field is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// A moment, nanoseconds since the epoch.
    Moment,
    /// A time in microseconds; the number that stands for none.
    Us(u64),
    /// A time in milliseconds.
    Ms,
    /// Bytes a second.
    Rate,
    /// The lower half of a rate, whose upper half is in the field with this number.
    HalfRate(u32),
    /// Shown with another field.
    Elsewhere,
    /// An address.
    Address,
    /// Addresses of 20 bytes each, with prefix or port.
    Endpoints,
    /// A TCP state.
    State,
    /// What runs out.
    Timer,
    /// Bits of `tcpi_options`.
    Options,
    /// Hexadecimal.
    Hex,
    /// 256 is 1.
    Gain,
    /// No limit from this number on.
    Limit(u64),
    /// One of these words.
    Word(&'static [(u64, &'static str)]),
}

/// No number stands for none.
const ALWAYS: u64 = u64::MAX;
const U32_MAX: u64 = u32::MAX as u64;
const I32_MAX: u64 = i32::MAX as u64;

/// Those that are not shown as they are, by number.
pub(super) const SHOWN: &[(u32, Show)] = &[
    (10, Show::Moment),
    (1001, Show::Word(&[(2, "IPv4"), (10, "IPv6")])),
    (1002, Show::State),
    (1003, Show::Timer),
    (1007, Show::Address),
    (1008, Show::Address),
    (1010, Show::Hex),
    (1013, Show::Ms),
    (1201, Show::State),
    (1202, Show::Word(&[(1, "disorder"), (2, "congestion window reduced"), (3, "recovery"), (4, "loss")])),
    (1206, Show::Options),
    (1215, Show::Us(ALWAYS)),
    (1216, Show::Us(ALWAYS)),
    (1224, Show::Ms),
    (1225, Show::Ms),
    (1226, Show::Ms),
    (1227, Show::Ms),
    (1230, Show::Us(ALWAYS)),
    (1231, Show::Us(ALWAYS)),
    (1232, Show::Limit(I32_MAX)),
    (1236, Show::Us(ALWAYS)),
    (1239, Show::Rate),
    (1240, Show::Rate),
    (1246, Show::Us(U32_MAX)),
    (1249, Show::Rate),
    (1250, Show::Us(ALWAYS)),
    (1251, Show::Us(ALWAYS)),
    (1252, Show::Us(ALWAYS)),
    (1265, Show::Ms),
    (1600, Show::Word(&[(1, "receiving"), (2, "sending"), (3, "both directions")])),
    (1703, Show::Us(I32_MAX)),
    (1704, Show::Us(I32_MAX)),
    (1901, Show::HalfRate(1902)),
    (1902, Show::Elsewhere),
    (1903, Show::Us(U32_MAX)),
    (1904, Show::Gain),
    (1905, Show::Gain),
    (3100, Show::Hex),
    (3102, Show::Word(&[(17, "UDP"), (33, "DCCP"), (132, "SCTP"), (136, "UDP-Lite"), (262, "MPTCP")])),
    (3108, Show::Endpoints),
    (3117, Show::Word(&[(0, "none"), (1, "ECN"), (2, "Accurate ECN"), (3, "not yet known")])),
    (3118, Show::Word(&[(1, "empty"), (2, "with counters"), (3, "failed")])),
    (3130, Show::Word(&[(0x0303, "TLS 1.2"), (0x0304, "TLS 1.3")])),
    (
        3131,
        Show::Word(&[
            (51, "AES-GCM-128"),
            (52, "AES-GCM-256"),
            (53, "AES-CCM-128"),
            (54, "ChaCha20-Poly1305"),
            (55, "SM4-GCM"),
            (56, "SM4-CCM"),
            (57, "ARIA-GCM-128"),
            (58, "ARIA-GCM-256"),
        ]),
    ),
    (3132, CRYPTO),
    (3133, CRYPTO),
    (3172, Show::Ms),
    (3173, Show::Ms),
    (3174, Show::Ms),
    (3180, Show::Endpoints),
    (3181, Show::Endpoints),
];

/// Who does TLS's work.
const CRYPTO: Show = Show::Word(&[(1, "nobody"), (2, "kernel"), (3, "device")]);

/// A field's key and value; `None` when it is shown elsewhere.
pub(super) fn shown(
    field: &'static Field,
    value: &Value<'_>,
    row: &RowView<'_>,
) -> Option<(&'static str, Json)> {
    let name = field.name.as_str();
    let number = value.number();
    let Ok(at) = SHOWN.binary_search_by_key(&field.number, |(number, _)| *number) else {
        return Some((name, plain(field, value)));
    };
    let shown = match SHOWN.get(at).map_or(Show::Elsewhere, |(_, show)| *show) {
        Show::Moment => moment(number),
        Show::Us(none) if number == none => "none yet".into(),
        Show::Us(_) => span(number).into(),
        Show::Ms => span(number.saturating_mul(1_000)).into(),
        Show::Rate => rate(number).into(),
        Show::HalfRate(upper) => {
            let whole = row.get(upper).number() << 32 | number;
            return Some(("bbr_info_bw", rate(whole).into()));
        }
        Show::Elsewhere if row.get(1901).number() == 0 => {
            return Some(("bbr_info_bw", rate(number << 32).into()));
        }
        Show::Elsewhere => return None,
        Show::Address => {
            let family = u32::try_from(row.get(FAMILY).number()).unwrap_or(0);
            address(family, value.bytes()).to_string().into()
        }
        Show::Endpoints => endpoints(value.bytes()),
        Show::State => match u8::try_from(number).ok().and_then(State::from_raw) {
            Some(state) => state.name().into(),
            None => number.into(),
        },
        Show::Timer => timer(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Show::Options => options(number),
        Show::Hex => format!("{number:#x}").into(),
        Show::Gain => thousandths(number.saturating_mul(1_000) / 256).into(),
        Show::Limit(none) if number >= none => "unlimited".into(),
        Show::Limit(_) => number.into(),
        Show::Word(words) => match words.iter().find(|(own, _)| *own == number) {
            Some((_, word)) => (*word).into(),
            None => number.into(),
        },
    };
    Some((name, shown))
}

/// As the contract has it.
fn plain(field: &Field, value: &Value<'_>) -> Json {
    match (&field.kind, value) {
        (_, Value::List(list)) => list.iter().map(|item| String::from_utf8_lossy(item)).collect(),
        (Kind::I64, value) => value.number().cast_signed().into(),
        (Kind::U32 | Kind::U64, value) => value.number().into(),
        (Kind::Bool, value) => (value.number() != 0).into(),
        (Kind::Text, value) => value.text().into(),
        (Kind::Bytes, value) => hex(value.bytes()).into(),
        (Kind::Enum(words), value) => match field.word(value.number()) {
            Some(word) => {
                // All begin with the enum's own name, which the first shows.
                let first = words.first().map_or("", |(_, word)| word.as_str());
                let prefix = first.strip_suffix("UNSPECIFIED").unwrap_or_default();
                word.trim_start_matches(prefix).to_ascii_lowercase().into()
            }
            None => value.number().into(),
        },
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn moment(ns: u64) -> Json {
    match u64::try_from(ns.cast_signed()) {
        Ok(ns) => humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(ns)).to_string().into(),
        // Before the epoch: a clock that was never set.
        Err(_) => ns.cast_signed().into(),
    }
}

/// A time with the unit that fits.
fn span(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 => format!("{}ms", thousandths(us)),
        1_000_000..60_000_000 => format!("{}s", thousandths(us / 1_000)),
        _ => humantime::format_duration(Duration::from_secs(us / 1_000_000)).to_string(),
    }
}

/// Bytes a second as bits a second, with the unit that fits.
fn rate(bytes_per_s: u64) -> String {
    if bytes_per_s == u64::MAX {
        return "unlimited".to_owned();
    }
    let mut thousandth_bits = u128::from(bytes_per_s) * 8_000;
    for unit in ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"] {
        if thousandth_bits < 1_000_000 {
            let number = u64::try_from(thousandth_bits).unwrap_or(u64::MAX);
            return format!("{} {unit}", thousandths(number));
        }
        thousandth_bits /= 1_000;
    }
    format!("{} Tbit/s", thousandths(u64::try_from(thousandth_bits).unwrap_or(u64::MAX)))
}

fn options(bits: u64) -> Json {
    let known = TCP_OPTIONS.iter().filter(|(bit, _)| bits & u64::from(*bit) != 0);
    known.map(|(_, word)| *word).collect()
}

/// Address family, prefix length, port (big-endian), address.
fn endpoints(bytes: &[u8]) -> Json {
    let (items, _) = bytes.as_chunks::<20>();
    let shown = items.iter().map(|[family, prefix, high, low, bytes @ ..]| {
        let address = address(u32::from(*family), bytes);
        match u16::from_be_bytes([*high, *low]) {
            0 => format!("{address}/{prefix}"),
            port => std::net::SocketAddr::new(address, port).to_string(),
        }
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields;

    #[test]
    fn every_field_with_a_unit_of_time_or_rate_is_shown_with_it() {
        assert!(SHOWN.is_sorted_by_key(|(number, _)| *number));
        for field in fields::all() {
            let show = SHOWN.iter().find(|(number, _)| *number == field.number).map(|(_, show)| *show);
            let has = |word: &str| field.doc.contains(word);
            match show {
                Some(Show::Us(_)) => assert!(has(" microseconds"), "{}", field.name),
                Some(Show::Rate | Show::HalfRate(_)) => assert!(has("bytes a second"), "{}", field.name),
                // The kernel never sets it, so its comment does not speak of a unit.
                Some(Show::Ms) => assert!(has(" milliseconds") || field.number == 1225, "{}", field.name),
                Some(Show::Moment) => assert!(has("nanoseconds"), "{}", field.name),
                _ => {
                    let unit = [", microseconds", ", milliseconds", "bytes a second", "nanoseconds"];
                    assert!(!unit.iter().any(|unit| has(unit)), "{} has a unit", field.name);
                }
            }
        }
    }

    #[test]
    fn times_and_rates_have_the_unit_that_fits() {
        let spans = [
            (0, "0us"),
            (250, "250us"),
            (1_000, "1ms"),
            (204_500, "204.5ms"),
            (1_500_000, "1.5s"),
            (59_999_999, "59.999s"),
            (3_723_000_000, "1h 2m 3s"),
        ];
        for (us, expected) in spans {
            assert_eq!(span(us), expected);
        }
        let rates = [
            (1, "8 bit/s"),
            (125, "1 kbit/s"),
            (1_562_500, "12.5 Mbit/s"),
            (1_250_000_000, "10 Gbit/s"),
            (u64::MAX - 1, "147573952.589 Tbit/s"),
            (u64::MAX, "unlimited"),
        ];
        for (bytes_per_s, expected) in rates {
            assert_eq!(rate(bytes_per_s), expected);
        }
    }

    #[test]
    fn endpoints_are_addresses_with_prefix_or_port() {
        let v4 = [&[2, 24, 0, 0, 192, 0, 2, 0][..], &[0; 12]].concat();
        let mut v6 = [&[10, 128, 0x1f, 0x90, 0x20, 1, 0x0d, 0xb8][..], &[0; 12]].concat();
        v6[19] = 1;
        assert_eq!(endpoints(&[v4, v6].concat()), serde_json::json!(["192.0.2.0/24", "[2001:db8::1]:8080"]));
    }
}
