//! One line of `ss -tiemnOa --tos --cgroup --inet-sockopt` taken apart into words with their values.

/// A line about a socket.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) state: &'a str,
    pub(crate) receive_queue: &'a str,
    pub(crate) send_queue: &'a str,
    pub(crate) local: &'a str,
    pub(crate) remote: &'a str,
    /// Name and value of every further word; the value is empty for a word that stands alone.
    pub(crate) words: Vec<(&'a str, String)>,
}

/// Names whose value is the next word.
const APART: [&str; 7] = ["send", "pacing_rate", "delivery_rate", "version", "cipher", "rxconf", "txconf"];

/// Every line about a socket.
pub(crate) fn lines(text: &str) -> Vec<Line<'_>> {
    // The heading is one line, before which ss writes the keys of MD5 signatures without a newline.
    text.lines().skip(1).map(line).collect()
}

fn line(text: &str) -> Line<'_> {
    let mut words = text.split_whitespace();
    let mut column = || words.next().unwrap_or_else(|| panic!("five columns in {text:?}"));
    let (state, receive_queue, send_queue) = (column(), column(), column());
    let (local, remote) = (column(), column());
    let mut named = Vec::new();
    while let Some(word) = words.next() {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        let value = if name == "inet-sockopt" {
            let mut list = Vec::new();
            for option in words.by_ref() {
                list.push(option.trim_matches(['(', ')']));
                if option.ends_with(')') {
                    break;
                }
            }
            list.retain(|option| !option.is_empty());
            list.join(" ")
        } else if APART.contains(&name) {
            words.next().unwrap_or_else(|| panic!("{name} has a value in {text:?}")).to_owned()
        } else {
            value.to_owned()
        };
        named.push((name, value));
    }
    Line { state, receive_queue, send_queue, local, remote, words: named }
}

/// `2min3.456sec`-like times of a timer, ms: what it says, and how much more it may have been, since it leaves small
/// parts of long times out.
pub(crate) fn timer_ms(text: &str) -> (u64, u64) {
    let mut rest = text;
    let (mut total, mut slack) = (0, 1);
    if let Some((minutes, after)) = rest.split_once("min") {
        total += minutes.parse::<u64>().unwrap() * 60_000;
        slack = if total > 9 * 60_000 { 60_000 } else { 1000 };
        rest = after;
    }
    if let Some(seconds) = rest.strip_suffix("sec") {
        return (total + seconds.parse::<u64>().unwrap() * 1000, 1000);
    }
    if let Some(fraction) = rest.strip_suffix("ms") {
        // Seconds and milliseconds are joined by a dot: 2.616ms is 2616 ms.
        return match fraction.split_once('.') {
            Some((seconds, ms)) => {
                (total + seconds.parse::<u64>().unwrap() * 1000 + ms.parse::<u64>().unwrap(), slack)
            }
            None => (total + fraction.parse::<u64>().unwrap(), slack),
        };
    }
    assert!(rest.is_empty(), "a time is like 1min2sec or 2.616ms, not {text:?}");
    (total, slack)
}

#[test]
fn a_line_is_taken_apart_to_its_last_word() {
    let text = "heading\nESTAB 1 2 [::1]%lo:80 *:* timer:(on,2.616ms,4) ino:7 <-> inet-sockopt: ( is_icsk mc_all) \
                bbr:(bw:8bps,mrtt:1) send 12bps tcp-ulp-tls rxconf: sw\n";
    let lines = lines(text);
    let [
        Line {
            state: "ESTAB",
            receive_queue: "1",
            send_queue: "2",
            local: "[::1]%lo:80",
            remote: "*:*",
            words,
        },
    ] = lines.as_slice()
    else {
        panic!("{lines:?}")
    };
    let words: Vec<_> = words.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let wanted = [
        ("timer", "(on,2.616ms,4)"),
        ("ino", "7"),
        ("<->", ""),
        ("inet-sockopt", "is_icsk mc_all"),
        ("bbr", "(bw:8bps,mrtt:1)"),
        ("send", "12bps"),
        ("tcp-ulp-tls", ""),
        ("rxconf", "sw"),
    ];
    assert_eq!(words, wanted);
}

#[test]
fn every_form_of_a_timers_time_is_read() {
    let times = ["204ms", "2.616ms", "59sec", "9.007ms", "14min", "1min2sec", "2min3sec"].map(timer_ms);
    assert_eq!(times.map(|(ms, _)| ms), [204, 2616, 59_000, 9007, 840_000, 62_000, 123_000]);
    assert_eq!(times.map(|(_, slack)| slack), [1, 1, 1000, 1, 60_000, 1000, 1000]);
}
