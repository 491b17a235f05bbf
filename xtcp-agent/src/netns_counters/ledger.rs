//! Whose counters are due, and what they come to for the whole host.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use prometheus::{Counter, IntCounter, IntCounterVec, IntGauge, Registry, opts};
use xtcp_proto::netns::v1::NetnsCounters;

use super::{NAMES, Reading, listeners, values};
use crate::netns::NetnsId;

/// How often a namespace's counters are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Never.
    Off,
    /// At each poll.
    EachPoll,
    /// At the first poll after this time.
    Every(Duration),
}

impl Period {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(86_400);
}

impl FromStr for Period {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "off" => Ok(Self::Off),
            "poll" => Ok(Self::EachPoll),
            _ => match humantime::parse_duration(word) {
                Ok(period) if (Self::SHORTEST..=Self::LONGEST).contains(&period) => Ok(Self::Every(period)),
                _ => Err("expected off, poll or a time from 1s to 24h".to_owned()),
            },
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::EachPoll => f.write_str("poll"),
            Self::Every(period) => humantime::format_duration(*period).fmt(f),
        }
    }
}

/// Counters whose sums over all namespaces are metrics: those that mean trouble.
const SUMMED: [&str; 12] = [
    "AttemptFails",
    "EstabResets",
    "RetransSegs",
    "OutRsts",
    "SyncookiesSent",
    "SyncookiesFailed",
    "ListenOverflows",
    "ListenDrops",
    "TCPTimeouts",
    "TCPAbortOnMemory",
    "TCPAbortOnTimeout",
    "TCPBacklogDrop",
];

/// What is counted about the counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    sums: [IntCounter; SUMMED.len()],
    read: IntCounter,
    failed: IntCounter,
    listeners_left_out: IntCounter,
    full: IntGauge,
    seconds: Counter,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let sums = IntCounterVec::new(
            opts!(
                "xtcp_netns_tcp_total",
                "What the kernel counted in all namespaces together, by its name for it; of each namespace since it was \
                 first read (--netns-counters)."
            ),
            &["counter"],
        )?;
        let readings = IntCounterVec::new(
            opts!("xtcp_netns_counters_read_total", "Readings of a namespace's counters, by outcome."),
            &["outcome"],
        )?;
        let metrics = Self {
            sums: SUMMED.map(|name| sums.with_label_values(&[name])),
            read: readings.with_label_values(&["read"]),
            failed: readings.with_label_values(&["failed"]),
            listeners_left_out: IntCounter::new(
                "xtcp_netns_counters_listeners_left_out_total",
                "Listeners that a namespace's counters do not tell of, because it has too many.",
            )?,
            full: IntGauge::new(
                "xtcp_listeners_full",
                "Listeners that had no room for another connection when their namespace was last read.",
            )?,
            seconds: Counter::new(
                "xtcp_netns_counters_seconds_total",
                "Time that workers spent on reading the counters of namespaces.",
            )?,
        };
        registry.register(Box::new(sums))?;
        registry.register(Box::new(readings))?;
        registry.register(Box::new(metrics.listeners_left_out.clone()))?;
        registry.register(Box::new(metrics.full.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        Ok(metrics)
    }
}

/// What is remembered of a namespace.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: NetnsId,
    read_ktime_ns: u64,
    summed: [Option<u64>; SUMMED.len()],
    full: i64,
}

/// Remembers what was read of whom: about 250 bytes a namespace.
#[derive(Debug)]
pub struct Ledger {
    period: Period,
    metrics: Metrics,
    known: HashMap<u32, Known>,
}

impl Ledger {
    /// Remembers nothing yet.
    pub fn new(period: Period, metrics: Metrics) -> Self {
        Self { period, metrics, known: HashMap::new() }
    }

    /// Whether a poll that visits this namespace is to read its counters.
    pub fn is_due(&self, netns: NetnsId, now_ktime_ns: u64) -> bool {
        let since = match (self.period, self.known.get(&netns.inode)) {
            (Period::Off, _) => return false,
            (Period::EachPoll, _) | (Period::Every(_), None) => return true,
            (Period::Every(_), Some(known)) if !known.id.matches(netns) => return true,
            (Period::Every(_), Some(known)) => now_ktime_ns.saturating_sub(known.read_ktime_ns),
        };
        matches!(self.period, Period::Every(period) if Duration::from_nanos(since) >= period)
    }

    /// Takes in a reading.
    pub fn take(&mut self, netns: NetnsId, reading: &Reading) {
        let Self { metrics, known, .. } = self;
        let Reading { ktime_ns, cost_ns, counters } = reading;
        #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
        metrics.seconds.inc_by(*cost_ns as f64 / 1e9);
        if counters.error.is_empty() {
            metrics.read.inc();
        } else {
            metrics.failed.inc();
        }
        metrics.listeners_left_out.inc_by(counters.listeners_left_out);
        let full = counters.listeners.iter().filter(|one| listeners::is_full(one)).count();
        let mut now = Known {
            id: netns,
            read_ktime_ns: *ktime_ns,
            summed: summed(counters),
            full: i64::try_from(full).unwrap_or(i64::MAX),
        };
        let before = known.get(&netns.inode).filter(|before| before.id.matches(netns));
        for ((sum, now), before) in
            metrics.sums.iter().zip(&mut now.summed).zip(before.map_or([None; SUMMED.len()], |it| it.summed))
        {
            match (*now, before) {
                (Some(now), Some(before)) => sum.inc_by(now.saturating_sub(before)),
                // It could not be read this time: what comes next is counted from the last time.
                (None, before) => *now = before,
                (Some(_), None) => {}
            }
        }
        let left = known.insert(netns.inode, now).map_or(0, |former| former.full);
        metrics.full.add(now.full - left);
    }

    /// Forgets a namespace that is dead, or is not asked any more.
    pub fn forget(&mut self, inode: u32) {
        if let Some(known) = self.known.remove(&inode) {
            self.metrics.full.sub(known.full);
        }
    }
}

fn summed(counters: &NetnsCounters) -> [Option<u64>; SUMMED.len()] {
    SUMMED.map(|name| {
        NAMES.iter().zip(values(counters)).find(|((_, known), _)| *known == name).and_then(|(_, value)| value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLUE: NetnsId = NetnsId { inode: 1, cookie: 11 };
    const NEXT: NetnsId = NetnsId { inode: 1, cookie: 12 };

    fn reading(at_s: u64, retrans_segs: Option<u64>, full: usize) -> Reading {
        let listener = xtcp_proto::netns::v1::Listener { backlog: 3, limit: 2, ..Default::default() };
        let listeners = vec![listener; full];
        let error = if retrans_segs.is_some() { String::new() } else { "no procfs".to_owned() };
        let counters = Box::new(NetnsCounters { retrans_segs, listeners, error, ..NetnsCounters::default() });
        Reading { ktime_ns: at_s * 1_000_000_000, cost_ns: 1000, counters }
    }

    fn ledger(period: &str) -> Ledger {
        Ledger::new(period.parse().unwrap(), Metrics::register(&Registry::new()).unwrap())
    }

    #[test]
    fn a_namespace_is_due_when_its_period_is_over_and_its_successor_at_once() {
        let mut ledger = ledger("60s");
        assert!(ledger.is_due(BLUE, 0));
        ledger.take(BLUE, &reading(100, Some(1), 0));
        assert!(!ledger.is_due(BLUE, 159_000_000_000));
        assert!(ledger.is_due(BLUE, 160_000_000_000));
        assert!(ledger.is_due(NEXT, 100_000_000_000));
    }

    #[test]
    fn off_is_never_due_and_poll_always() {
        for (word, due) in [("off", false), ("poll", true)] {
            let mut ledger = ledger(word);
            ledger.take(BLUE, &reading(1, Some(1), 0));
            assert_eq!(ledger.is_due(BLUE, 1_000_000_000), due);
            assert_eq!(ledger.period.to_string(), word);
        }
        for word in ["", "0s", "25h", "on", "-1s"] {
            assert!(word.parse::<Period>().is_err(), "{word}");
        }
    }

    #[test]
    fn sums_rise_by_what_was_counted_between_two_readings_of_the_same_namespace() {
        let mut ledger = ledger("poll");
        let retransmitted = |ledger: &Ledger| ledger.metrics.sums[2].get();
        ledger.take(BLUE, &reading(1, Some(1000), 0));
        assert_eq!(retransmitted(&ledger), 0, "what was before is not the agent's");
        ledger.take(BLUE, &reading(2, Some(1007), 0));
        ledger.take(BLUE, &reading(3, None, 0));
        ledger.take(BLUE, &reading(4, Some(1010), 0));
        assert_eq!(retransmitted(&ledger), 10);
        ledger.take(NEXT, &reading(5, Some(5), 0));
        assert_eq!(retransmitted(&ledger), 10, "another namespace under the same inode");
        assert_eq!((ledger.metrics.read.get(), ledger.metrics.failed.get()), (4, 1));
    }

    #[test]
    fn full_listeners_are_those_of_the_last_reading_of_the_living() {
        let mut ledger = ledger("poll");
        ledger.take(BLUE, &reading(1, Some(1), 3));
        ledger.take(NetnsId { inode: 2, cookie: 2 }, &reading(1, Some(1), 1));
        ledger.take(BLUE, &reading(2, Some(1), 2));
        assert_eq!(ledger.metrics.full.get(), 3);
        ledger.forget(1);
        assert_eq!(ledger.metrics.full.get(), 1);
    }

    #[test]
    fn every_name_that_is_summed_is_one_of_the_kernels() {
        for name in SUMMED {
            assert!(NAMES.iter().any(|(_, known)| *known == name), "{name}");
        }
    }
}
