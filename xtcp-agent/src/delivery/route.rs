//! One `--dest`: an address, and how what goes there is made, kept and sent. Every destination has these options beside
//! its own.

use std::fmt::Write as _;
use std::time::Duration;

use crate::destination::options::OptionInfo;
use crate::destination::{self, Address, DestinationError};
use crate::marshaller::{self, Marshaller};
use crate::select::{self, Select};

/// The options that every destination has.
pub const OPTIONS: [&[OptionInfo]; 2] = [DELIVERY, select::OPTIONS];

const DELIVERY: &[OptionInfo] = &[
    OptionInfo::new("name", "NAME (the scheme)", "What metrics, logs and the spool's folder call it."),
    OptionInfo::new("marshal", "FORMAT (--marshal)", "Format of what goes there."),
    marshaller::COLUMNS,
    marshaller::HEADER,
    OptionInfo::new("topic", "TOPIC (--topic)", "Topic, subject, stream or table, where it has one."),
    OptionInfo::new("events", "true|false (false)", "Carries change events instead of records."),
    OptionInfo::new("queue-bytes", "1MiB..64GiB (64MiB)", "Marshalled bytes that may wait in memory."),
    OptionInfo::new(
        "spool",
        "off|overflow|always (off)",
        "What memory cannot hold goes to disk (overflow), or everything does before it is sent (always).",
    ),
    OptionInfo::new("spool-bytes", "8MiB..16TiB (1GiB)", "Bytes that the spool may have on disk."),
    OptionInfo::new(
        "when-full",
        "drop-oldest|stop (drop-oldest)",
        "What happens when memory and spool are full: the oldest rows are dropped and counted, or the agent stops.",
    ),
    OptionInfo::new(
        "timeout",
        "DURATION (10s to 30s, by scheme)",
        "How long one send may take before it is tried anew.",
    ),
    OptionInfo::new(
        "retry-max",
        "DURATION (10s)",
        "Longest pause between two sends of a batch; it begins with 100 ms and doubles, with jitter.",
    ),
];

/// The longest time that an option takes.
const LONGEST: Duration = Duration::from_secs(3_600);

/// What of a destination's rows is kept on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolMode {
    /// Nothing.
    Off,
    /// What memory cannot hold.
    Overflow,
    /// Everything, before it is sent.
    Always,
}

/// What happens when there is no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest rows are dropped and counted.
    DropOldest,
    /// The agent ends.
    Stop,
}

/// How much waits where, and what happens behind that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes in memory.
    pub queue_bytes: usize,
    /// What goes to disk.
    pub spool: SpoolMode,
    /// Bytes on disk.
    pub spool_bytes: u64,
    /// When both are full.
    pub when_full: WhenFull,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            queue_bytes: 64 << 20,
            spool: SpoolMode::Off,
            spool_bytes: 1 << 30,
            when_full: WhenFull::DropOldest,
        }
    }
}

/// One destination as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Where to.
    pub address: Address,
    /// What it is called, if it was given a name.
    pub name: Option<String>,
    /// Format, if it is not the common one.
    pub marshal: Option<&'static dyn Marshaller>,
    /// Topic, if it is not the common one.
    pub topic: Option<String>,
    /// Change events instead of records.
    pub events: bool,
    /// Queue and spool.
    pub bounds: Bounds,
    /// How long one send may take, if not as long as the scheme says.
    pub timeout: Option<Duration>,
    /// The longest pause between two sends.
    pub retry_max: Duration,
    /// Which rows.
    pub select: Select,
}

/// Every scheme of this binary with its options, for people.
pub fn explain() -> String {
    let mut text = String::from(
        "A destination is written SCHEME, SCHEME:ADDRESS or either with options behind it:\n\
         \n  --dest 'kafka:broker1:9092,broker2:9092#topic=tcp&compression=zstd&spool=overflow'\n\
         \nor as a table of the settings file:\n\
         \n  [[destination]]\n  address = \"kafka:broker1:9092,broker2:9092\"\n  topic = \"tcp\"\n  compression = \"zstd\"\n  \
         spool = \"overflow\"\n\
         \nIn an address %XX stands for a character that it could not hold, %26 for & as an example.\n",
    );
    let mut table = |title: &str, options: &[OptionInfo]| {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "\n{title}");
        for OptionInfo { name, value, help } in options {
            let _ = writeln!(text, "  {name}={value}\n      {help}");
        }
    };
    table("Options of every destination:", &OPTIONS.concat());
    for scheme in &destination::SCHEMES {
        let Some(built) = &scheme.built else {
            table(&format!("{} (not in this binary: --features dest-{})", scheme.form, scheme.feature), &[]);
            continue;
        };
        table(scheme.form, &built.options.concat());
    }
    text
}

/// Reads one `--dest`.
pub fn parse(word: &str) -> Result<Route, DestinationError> {
    let address = destination::parse(word, &OPTIONS)?;
    understand(&address).map_err(|problem| DestinationError::Malformed {
        address: address.to_string(),
        problem,
        form: address.form(),
    })
}

fn understand(address: &Address) -> Result<Route, String> {
    let options = address.options();
    let name = options.text("name").map(str::to_owned);
    if let Some(name) = &name
        && (name.is_empty()
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            || name.starts_with('.'))
    {
        return Err(format!("option name={name}: accepted: letters, digits, -, _ and ."));
    }
    let marshal = options
        .text("marshal")
        .map(marshaller::parse)
        .transpose()
        .map_err(|error| format!("option marshal: {error}"))?;
    let defaults = Bounds::default();
    let queue_bytes = options.bytes("queue-bytes", 1 << 20, 64 << 30)?;
    let bounds = Bounds {
        queue_bytes: queue_bytes
            .map_or(defaults.queue_bytes, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        spool: options
            .one_of(
                "spool",
                &[("off", SpoolMode::Off), ("overflow", SpoolMode::Overflow), ("always", SpoolMode::Always)],
            )?
            .unwrap_or(defaults.spool),
        spool_bytes: options.bytes("spool-bytes", 8 << 20, 16 << 40)?.unwrap_or(defaults.spool_bytes),
        when_full: options
            .one_of("when-full", &[("drop-oldest", WhenFull::DropOldest), ("stop", WhenFull::Stop)])?
            .unwrap_or(defaults.when_full),
    };
    let topic = options.text("topic").map(str::to_owned);
    let events = options.switch("events")?.unwrap_or(false);
    let timeout = options.duration("timeout", Duration::from_millis(100), LONGEST)?;
    let retry_max = options
        .duration("retry-max", Duration::from_millis(100), LONGEST)?
        .unwrap_or(Duration::from_secs(10));
    let select = Select::parse(options)?;
    if events && !select.is_everything() {
        return Err(
            "options filter, sample and changed-only are for records: they do not go with events".to_owned()
        );
    }
    Ok(Route { address: address.clone(), name, marshal, topic, events, bounds, timeout, retry_max, select })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_scheme_calls_an_option_as_all_destinations_do() {
        for scheme in &destination::SCHEMES {
            for option in scheme.built.iter().flat_map(|built| built.options.concat()) {
                let common = OPTIONS.concat().into_iter().find(|common| common.name == option.name);
                assert_eq!(common, None, "{}", scheme.name);
            }
        }
    }

    #[test]
    fn every_option_has_its_default_and_refuses_what_it_cannot_be() {
        let route = parse("null").expect("null");
        assert_eq!((route.bounds, route.events, route.select), (Bounds::default(), false, Select::default()));
        for (word, expected) in [
            ("null#name=a/b", "option name=a/b: accepted: letters, digits, -, _ and ."),
            ("null#spool=maybe", "accepted: off, overflow, always"),
            ("null#queue-bytes=1", "out of range"),
            ("null#marshal=xml", "option marshal: unknown format"),
            ("null#events=true&sample=0.5", "do not go with events"),
        ] {
            let error = parse(word).map(drop).expect_err(word).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
