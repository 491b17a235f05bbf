//! The list of destinations.

use std::io;

use super::{Destination, null, stdout};

/// A kind of destination that the contract knows.
#[derive(Debug)]
pub struct Scheme {
    /// What stands before the colon.
    pub name: &'static str,
    /// How an address is written.
    pub form: &'static str,
    /// How to use it; `None` when it is not built into this binary.
    pub built: Option<Built>,
}

/// What a destination's module provides.
#[derive(Debug)]
pub struct Built {
    /// Says what is wrong with what follows the colon.
    pub(super) check: fn(&str) -> Result<(), String>,
    /// Opens what `check` accepted.
    pub(super) open: Open,
}

pub(super) type Open = fn(&str) -> io::Result<Box<dyn Destination>>;

impl Scheme {
    const fn new(name: &'static str, form: &'static str, built: Option<Built>) -> Self {
        Self { name, form, built }
    }
}

/// Every destination of the contract, in the order that messages list them. One with a cargo feature (`dest-<name>`)
/// is `None` without it.
pub static SCHEMES: [Scheme; 15] = [
    Scheme::new("null", "null", Some(null::BUILT)),
    Scheme::new("stdout", "stdout", Some(stdout::BUILT)),
    Scheme::new("stderr", "stderr", None),
    Scheme::new("file", "file:PATH", None),
    Scheme::new("tcp", "tcp:HOST:PORT", None),
    Scheme::new("http", "http://HOST[:PORT][/PATH]", None),
    Scheme::new("https", "https://HOST[:PORT][/PATH]", None),
    Scheme::new("udp", "udp:HOST:PORT", None),
    Scheme::new("unix", "unix:PATH", None),
    Scheme::new("unixgram", "unixgram:PATH", None),
    Scheme::new("kafka", "kafka:HOST:PORT[,HOST:PORT…]", None),
    Scheme::new("nats", "nats:HOST:PORT", None),
    Scheme::new("nsq", "nsq:HOST:PORT", None),
    Scheme::new("valkey", "valkey:HOST:PORT", None),
    Scheme::new("s3parquet", "s3parquet:ENDPOINT", None),
];

/// For destinations whose address is their name.
pub(super) fn nothing_follows(rest: &str) -> Result<(), String> {
    if rest.is_empty() { Ok(()) } else { Err("nothing may follow".to_owned()) }
}
