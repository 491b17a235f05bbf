//! A batch leaves the host, or says why not. Owns the list of destinations, their addresses and what a failed send
//! means; never retries, never queues: that is [`envelope`](crate::envelope)'s.

mod metrics;
mod null;
mod scheme;
mod stdout;

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use metrics::Metrics;
pub use scheme::{SCHEMES, Scheme};

/// One marshalled batch.
#[derive(Clone, Debug)]
pub struct Payload {
    /// What leaves; cheap to clone.
    pub bytes: Bytes,
    /// How many rows it holds.
    pub rows: usize,
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
    /// Sends one batch. Whoever drops the future before its end gives the destination up: part of the batch may have
    /// left.
    fn send<'a>(&'a mut self, payload: &'a Payload) -> BoxFuture<'a, Result<(), SendError>>;

    /// Waits until everything that was sent has left the process.
    fn flush(&mut self) -> BoxFuture<'_, Result<(), SendError>>;
}

/// A destination's address that this binary can open: `--dest`, parsed.
#[derive(Clone)]
pub struct Address {
    scheme: &'static Scheme,
    open: scheme::Open,
    rest: String,
}

impl Address {
    /// Name of the scheme.
    pub fn scheme(&self) -> &'static str {
        self.scheme.name
    }

    /// Gets ready to send. Does not wait for a peer: one that is not there yet is a matter of [`SendError::Retry`].
    pub fn open(&self) -> Result<Box<dyn Destination>, DestinationError> {
        (self.open)(&self.rest).map_err(|source| DestinationError::Open { address: self.to_string(), source })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rest.is_empty() {
            return f.write_str(self.scheme.name);
        }
        write!(f, "{}:{}", self.scheme.name, self.rest)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.scheme.name == other.scheme.name && self.rest == other.rest
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
    #[error("destination {scheme} is not built into this binary, which has {}", built())]
    NotBuilt {
        /// Name of the scheme.
        scheme: &'static str,
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
        source: std::io::Error,
    },
}

/// Reads an address as it is given to `--dest`: `scheme` or `scheme:rest`.
pub fn parse(address: &str) -> Result<Address, DestinationError> {
    let (name, rest) = address.split_once(':').unwrap_or((address, ""));
    let Some(scheme) = SCHEMES.iter().find(|scheme| scheme.name == name) else {
        return Err(DestinationError::Unknown { address: address.to_owned() });
    };
    let Some(built) = &scheme.built else {
        return Err(DestinationError::NotBuilt { scheme: scheme.name });
    };
    (built.check)(rest).map_err(|problem| DestinationError::Malformed {
        address: address.to_owned(),
        problem,
        form: scheme.form,
    })?;
    Ok(Address { scheme, open: built.open, rest: rest.to_owned() })
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

    #[test]
    fn an_unknown_scheme_is_an_error_that_lists_the_known_ones() {
        let message = parse("kafak:broker:9092").expect_err("no such scheme").to_string();
        assert!(
            message
                .starts_with("unknown destination \"kafak:broker:9092\": the known ones are null, stdout, "),
            "{message}"
        );
        assert!(message.contains("kafka"), "{message}");
        assert!(parse("").expect_err("empty").to_string().starts_with("unknown destination \"\""));
    }

    #[test]
    fn a_scheme_of_the_contract_that_is_not_built_in_says_so() {
        let addresses = [
            "stderr",
            "file:/var/log/rows",
            "tcp:host:9000",
            "http://host/rows",
            "https://host/rows",
            "udp:host:9000",
            "unix:/run/rows.sock",
            "unixgram:/run/rows.sock",
            "kafka:broker:9092",
            "nats:host:4222",
            "nsq:host:4150",
            "valkey:host:6379",
            "s3parquet:bucket",
        ];
        for address in addresses {
            let error = parse(address).expect_err(address);
            assert!(matches!(error, DestinationError::NotBuilt { .. }), "{address}: {error}");
        }
        assert_eq!(
            parse("kafka:broker:9092").expect_err("not built").to_string(),
            "destination kafka is not built into this binary, which has null, stdout"
        );
    }

    #[test]
    fn a_malformed_address_says_how_it_is_written() {
        assert_eq!(
            parse("stdout:file").expect_err("malformed").to_string(),
            "malformed destination \"stdout:file\": nothing may follow; it is written stdout"
        );
        assert_eq!(
            parse("null:x").expect_err("malformed").to_string(),
            "malformed destination \"null:x\": nothing may follow; it is written null"
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
