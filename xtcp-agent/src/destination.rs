//! A batch leaves the host, or says why not. Owns the list of destinations, their addresses and what a failed send
//! means; never retries, never queues: that is [`delivery`](crate::delivery)'s.

#[cfg(feature = "dest-clickhouse")]
mod clickhouse;
#[cfg(any(feature = "dest-udp", feature = "dest-unix"))]
mod datagram;
mod explain;
#[cfg(feature = "dest-file")]
mod file;
#[cfg(any(
    feature = "dest-kafka",
    feature = "dest-nats",
    feature = "dest-nsq",
    feature = "dest-tcp",
    feature = "dest-udp",
    feature = "dest-valkey"
))]
mod host_port;
#[cfg(feature = "dest-http")]
mod http;
#[cfg(feature = "dest-http")]
mod https;
#[cfg(feature = "dest-kafka")]
mod kafka;
#[cfg(feature = "dest-nats")]
mod nats;
#[cfg(feature = "dest-nsq")]
mod nsq;
mod null;
pub mod options;
#[cfg(feature = "dest-s3parquet")]
mod s3parquet;
mod scheme;
mod stdio;
#[cfg(any(feature = "dest-tcp", feature = "dest-unix"))]
mod stream;
#[cfg(feature = "dest-tcp")]
mod tcp;
#[cfg(feature = "dest-udp")]
mod udp;
#[cfg(feature = "dest-unix")]
mod unix;
#[cfg(feature = "dest-unix")]
mod unixgram;
#[cfg(feature = "dest-valkey")]
mod valkey;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::marshaller::Marshaller;

use options::{OptionInfo, Options};
pub use scheme::{Built, SCHEMES, Scheme};

/// One marshalled batch, or the part of one that a destination takes at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// What leaves; cheap to clone.
    pub bytes: Bytes,
    /// How many of the first bytes say what columns follow and are no row: a stream carries them once, a message always.
    pub header: usize,
    /// How many rows it holds.
    pub rows: usize,
    /// The same again only when the same payload is sent again: `INSTANCE-BATCH-PART`, for consumers that drop what they
    /// have. Letters, digits and hyphens, at most 64 of them.
    pub id: Arc<str>,
}

/// Why a batch did not leave, by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing of the batch left, or the receiver knows it when it comes again: try later.
    #[error("{0}")]
    Retry(#[source] Cause),
    /// This batch can never leave; the next one may.
    #[error("{0}")]
    Drop(#[source] Cause),
    /// Nothing will ever leave again.
    #[error("{0}")]
    Fatal(#[source] Cause),
}

/// What stands behind a [`SendError`].
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Where batches go. A send takes a batch whole or fails; `flush` ends when everything sent has left the process.
pub trait Destination: Send {
    /// Sends one batch. Where the protocol acknowledges, it ends with the acknowledgement. Whoever drops the future before
    /// its end gives the destination up: part of the batch may have left.
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>>;

    /// Waits until everything that was sent has left the process.
    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>>;

    /// For `check`: connects, sends no row, and says in a few words what it found there.
    fn probe(&mut self) -> BoxFuture<'_, Result<String, SendError>>;
}

/// What a destination is told of what it will carry.
#[derive(Clone, Debug)]
pub struct Context {
    /// Name of the host, as in the rows.
    pub hostname: Arc<str>,
    /// Topic, subject, channel, stream or table: `topic` of the address, else `--topic`.
    pub topic: String,
    /// What the payloads are.
    pub format: &'static dyn Marshaller,
}

/// A destination's address that was understood, ready to be opened as often as it takes.
pub trait Opener: Send + Sync {
    /// Gets ready to send. Does not wait for a peer: one that is not there yet is a matter of [`SendError::Retry`].
    fn open(&self, context: &Context) -> Result<Box<dyn Destination>, Cause>;

    /// How many bytes a payload may have; `None`: any number.
    fn max_payload(&self) -> Option<usize> {
        None
    }

    /// Whether it can carry a format; else which ones it can.
    fn takes(&self, format: &dyn Marshaller) -> Result<(), String> {
        let _ = format;
        Ok(())
    }

    /// How long one send may take before the destination is opened anew; `None`: as long as it takes, because a second
    /// one would write into the same stream.
    fn patience(&self) -> Option<Duration> {
        Some(Duration::from_secs(30))
    }
}

/// A destination's address that this binary can open: one `--dest`, parsed.
#[derive(Clone)]
pub struct Address {
    scheme: &'static Scheme,
    rest: String,
    options: Options,
    opener: Arc<dyn Opener>,
}

impl Address {
    /// Name of the scheme.
    pub fn scheme(&self) -> &'static str {
        self.scheme.name
    }

    /// How the scheme is written.
    pub fn form(&self) -> &'static str {
        self.scheme.form
    }

    /// All its options, also those that are not the destination's own.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What opens it.
    pub fn opener(&self) -> &dyn Opener {
        &*self.opener
    }

    /// Gets ready to send.
    pub fn open(&self, context: &Context) -> Result<Box<dyn Destination>, DestinationError> {
        self.opener
            .open(context)
            .map_err(|source| DestinationError::Open { address: self.to_string(), source })
    }
}

#[cfg(test)]
impl Address {
    /// A `null` that something else opens.
    pub(crate) fn of(opener: Arc<dyn Opener>) -> Self {
        let [scheme, ..] = &SCHEMES;
        Self { scheme, rest: String::new(), options: Options::default(), opener }
    }
}

/// As it was written, without the secrets among its options.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme.name)?;
        if !self.rest.is_empty() {
            write!(f, ":{}", self.rest)?;
        }
        write!(f, "{}", self.options)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.scheme.name == other.scheme.name && self.rest == other.rest && self.options == other.options
    }
}

/// Why there is no destination.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// No such destination exists.
    #[error("unknown destination {address:?}: the known ones are {}", known())]
    Unknown {
        /// What was asked for.
        address: String,
    },
    /// This binary has it not.
    #[error(
        "destination {scheme} is not built into this binary, which has {}; build it with --features dest-{feature}",
        built()
    )]
    NotBuilt {
        /// Name of the scheme.
        scheme: &'static str,
        /// What stands behind `dest-` in the cargo feature that has it.
        feature: &'static str,
    },
    /// The scheme is right, what follows is not.
    #[error("malformed destination {address:?}: {problem}; it is written {form}")]
    Malformed {
        /// What was asked for.
        address: String,
        /// What is wrong.
        problem: String,
        /// How the scheme is written.
        form: &'static str,
    },
    /// It is well formed and could not be opened.
    #[error("cannot open destination {address}: {source}")]
    Open {
        /// What was asked for.
        address: String,
        /// What the system said.
        source: Cause,
    },
}

/// Reads an address as it is given to `--dest`: `scheme` or `scheme:rest`, and `#name=value&…` behind either. `common` are
/// the options that every destination has; the scheme's own come beside them.
pub fn parse(address: &str, common: &[&'static [OptionInfo]]) -> Result<Address, DestinationError> {
    let (place, options) = address.split_once('#').unwrap_or((address, ""));
    let (name, rest) = place.split_once(':').unwrap_or((place, ""));
    let Some(scheme) = SCHEMES.iter().find(|scheme| scheme.name == name) else {
        return Err(DestinationError::Unknown { address: place.to_owned() });
    };
    let Some(built) = &scheme.built else {
        return Err(DestinationError::NotBuilt { scheme: scheme.name, feature: scheme.feature });
    };
    let read = |options: &str| {
        let options = Options::parse(options)?;
        options.check_known(built.options.iter().chain(common).copied().flatten())?;
        (built.parse)(rest, &options).map(|opener| (options, opener))
    };
    match read(options) {
        Ok((options, opener)) => Ok(Address { scheme, rest: rest.to_owned(), options, opener }),
        Err(problem) => {
            Err(DestinationError::Malformed { address: place.to_owned(), problem, form: scheme.form })
        }
    }
}

fn known() -> String {
    let names: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.name).collect();
    names.join(", ")
}

fn built() -> String {
    let names: Vec<&str> =
        SCHEMES.iter().filter(|scheme| scheme.built.is_some()).map(|scheme| scheme.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str) -> Result<Address, DestinationError> {
        super::parse(address, &[])
    }

    #[test]
    fn an_unknown_scheme_is_an_error_that_lists_the_known_ones() {
        let message = parse("kafak:broker:9092").map(drop).expect_err("no such scheme").to_string();
        assert!(
            message
                .starts_with("unknown destination \"kafak:broker:9092\": the known ones are null, stdout, "),
            "{message}"
        );
        assert!(message.contains("kafka"), "{message}");
        assert!(parse("").expect_err("empty").to_string().starts_with("unknown destination \"\""));
    }

    #[test]
    fn a_scheme_that_is_not_built_in_says_which_feature_has_it() {
        for scheme in SCHEMES.iter().filter(|scheme| scheme.built.is_none()) {
            let error = parse(scheme.name).expect_err(scheme.name).to_string();
            let expected =
                format!("destination {} is not built into this binary, which has null,", scheme.name);
            assert!(error.starts_with(&expected), "{error}");
            assert!(error.ends_with(&format!("build it with --features dest-{}", scheme.feature)), "{error}");
        }
    }

    #[test]
    fn a_malformed_address_says_how_it_is_written() {
        assert_eq!(
            parse("stdout:file").expect_err("malformed").to_string(),
            "malformed destination \"stdout:file\": nothing may follow; it is written stdout"
        );
        assert_eq!(
            parse("null#colour=red").expect_err("malformed").to_string(),
            "malformed destination \"null\": option colour is unknown; the known ones are ; it is written null"
        );
    }

    #[test]
    fn a_built_in_scheme_is_accepted_with_and_without_the_colon() {
        for (address, shown) in [("null", "null"), ("null:", "null"), ("stdout", "stdout")] {
            let parsed = parse(address).expect(address);
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(parsed.scheme(), shown);
        }
    }
}
