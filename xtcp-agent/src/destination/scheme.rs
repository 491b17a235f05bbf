//! The list of destinations.

use std::fmt;
use std::sync::Arc;

use super::options::{OptionInfo, Options};
use super::{Opener, null, stdio};

/// A kind of destination that the contract knows.
#[derive(Debug)]
pub struct Scheme {
    /// What stands before the colon.
    pub name: &'static str,
    /// How an address is written.
    pub form: &'static str,
    /// What stands behind `dest-` in the cargo feature that has it; empty when every binary has it.
    pub feature: &'static str,
    /// How to use it; `None` when it is not built into this binary.
    pub built: Option<Built>,
}

type Parse = fn(&str, &Options) -> Result<Arc<dyn Opener>, String>;

/// What a destination's module provides.
pub struct Built {
    /// Understands what follows the colon and the options, which are known ones, or says what is wrong with them.
    pub(super) parse: Parse,
    /// Its own options.
    pub options: &'static [&'static [OptionInfo]],
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Scheme {
    const fn new(
        name: &'static str,
        form: &'static str,
        feature: &'static str,
        built: Option<Built>,
    ) -> Self {
        Self { name, form, feature, built }
    }
}

/// A destination's `BUILT` with its cargo feature, `None` without.
macro_rules! with_feature {
    ($feature:literal, $module:ident) => {{
        #[cfg(feature = $feature)]
        let built = Some(super::$module::BUILT);
        #[cfg(not(feature = $feature))]
        let built = None;
        built
    }};
}

/// Every destination of the contract, in the order that messages list them. One with a cargo feature is `None` without
/// it.
pub static SCHEMES: [Scheme; 16] = [
    Scheme::new("null", "null", "", Some(null::BUILT)),
    Scheme::new("stdout", "stdout", "", Some(stdio::STDOUT)),
    Scheme::new("stderr", "stderr", "", Some(stdio::STDERR)),
    Scheme::new("file", "file:PATH", "file", with_feature!("dest-file", file)),
    Scheme::new("tcp", "tcp:HOST:PORT", "tcp", with_feature!("dest-tcp", tcp)),
    Scheme::new("http", "http://HOST[:PORT][/PATH]", "http", with_feature!("dest-http", http)),
    Scheme::new("https", "https://HOST[:PORT][/PATH]", "http", with_feature!("dest-http", https)),
    Scheme::new("udp", "udp:HOST:PORT", "udp", with_feature!("dest-udp", udp)),
    Scheme::new("unix", "unix:PATH", "unix", with_feature!("dest-unix", unix)),
    Scheme::new("unixgram", "unixgram:PATH", "unix", with_feature!("dest-unix", unixgram)),
    Scheme::new("kafka", "kafka:HOST:PORT[,HOST:PORT…]", "kafka", with_feature!("dest-kafka", kafka)),
    Scheme::new("nats", "nats:HOST:PORT[,HOST:PORT…]", "nats", with_feature!("dest-nats", nats)),
    Scheme::new("nsq", "nsq:HOST:PORT", "nsq", with_feature!("dest-nsq", nsq)),
    Scheme::new("valkey", "valkey:HOST:PORT[/DATABASE]", "valkey", with_feature!("dest-valkey", valkey)),
    Scheme::new(
        "s3parquet",
        "s3parquet:ENDPOINT/BUCKET[/PREFIX]",
        "s3parquet",
        with_feature!("dest-s3parquet", s3parquet),
    ),
    Scheme::new(
        "clickhouse",
        "clickhouse:http[s]://HOST[:PORT]",
        "clickhouse",
        with_feature!("dest-clickhouse", clickhouse),
    ),
];

/// For destinations whose address is their name.
pub(super) fn nothing_follows(rest: &str) -> Result<(), String> {
    if rest.is_empty() { Ok(()) } else { Err("nothing may follow".to_owned()) }
}
