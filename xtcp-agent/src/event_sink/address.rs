//! Where change events go, as written on the command line.

use std::fmt;

/// Port of a NATS server that is written without one.
const NATS_PORT: u16 = 4222;

/// A destination of change events that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Nothing before the colon, or nothing at all.
    #[error("event sink {text:?} has no scheme; known: {KNOWN}")]
    NoScheme {
        /// As written.
        text: String,
    },
    /// A scheme that nobody implements.
    #[error("event sink {text:?} has the unknown scheme {scheme:?}; known: {KNOWN}")]
    UnknownScheme {
        /// As written.
        text: String,
        /// What stands before the first colon.
        scheme: String,
    },
    /// The scheme is known, what follows it is not an address.
    #[error("event sink {text:?}: {fault}; known: {KNOWN}")]
    Address {
        /// As written, without its password.
        text: String,
        /// What is wrong.
        fault: &'static str,
    },
    /// `off` together with a destination.
    #[error("event sink \"off\" cannot be combined with others")]
    OffAndOthers,
    /// One destination twice: every event would be sent to it twice.
    #[error("event sink \"{0}\" is given twice")]
    Twice(String),
    /// A marshaller that nobody implements.
    #[error("events cannot be marshalled as {0:?}; known: protobuf, jsonl")]
    UnknownMarshal(String),
}

const KNOWN: &str = "nats:HOST[:PORT] or nats://[USER:PASSWORD@]HOST[:PORT] (port 4222), stdout:, off";

/// A NATS server.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsServer {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What stands before the `@`: `USER:PASSWORD` or a token. Never shown.
    pub credentials: Option<String>,
}

impl NatsServer {
    /// The URL to connect to, credentials included.
    pub(super) fn url(&self) -> String {
        match &self.credentials {
            Some(credentials) => format!("nats://{credentials}@{}", self.endpoint()),
            None => format!("nats://{}", self.endpoint()),
        }
    }

    /// `HOST:PORT`.
    pub fn endpoint(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for NatsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsServer").field(&self.endpoint()).finish()
    }
}

/// Where change events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkAddress {
    /// A NATS server.
    Nats(NatsServer),
    /// Standard output, a JSON object a line.
    Stdout,
    /// Nowhere but to gRPC subscribers.
    Off,
}

impl fmt::Display for SinkAddress {
    /// As it could be written, without credentials: the metrics' `sink` label.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats(server) => write!(f, "nats:{}", server.endpoint()),
            Self::Stdout => f.write_str("stdout"),
            Self::Off => f.write_str("off"),
        }
    }
}

/// How an event becomes bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marshal {
    /// One `xtcp_event.v1.Event`.
    #[default]
    Protobuf,
    /// The same in proto3 JSON, and a line feed.
    Jsonl,
}

impl std::str::FromStr for Marshal {
    type Err = SinkError;

    fn from_str(text: &str) -> Result<Self, SinkError> {
        match text {
            "protobuf" => Ok(Self::Protobuf),
            "jsonl" => Ok(Self::Jsonl),
            other => Err(SinkError::UnknownMarshal(other.to_owned())),
        }
    }
}

/// Reads one `--events` value.
pub fn parse(text: &str) -> Result<SinkAddress, SinkError> {
    if text == "off" {
        return Ok(SinkAddress::Off);
    }
    let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| !scheme.is_empty()) else {
        return Err(SinkError::NoScheme { text: text.to_owned() });
    };
    let address = |fault| SinkError::Address { text: without_password(scheme, rest), fault };
    match scheme {
        "nats" => nats(rest).map(SinkAddress::Nats).map_err(address),
        "stdout" if rest.is_empty() => Ok(SinkAddress::Stdout),
        "stdout" => Err(address("stdout takes no address")),
        "off" => Err(address("off takes no address")),
        other => {
            Err(SinkError::UnknownScheme { text: without_password(scheme, rest), scheme: other.to_owned() })
        }
    }
}

/// Reads all `--events` values: the destinations, none for `off`.
pub fn parse_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<SinkAddress>, SinkError> {
    let mut sinks: Vec<SinkAddress> = Vec::new();
    for text in texts {
        let sink = parse(text)?;
        if sinks.iter().any(|other| other.to_string() == sink.to_string()) {
            return Err(SinkError::Twice(sink.to_string()));
        }
        sinks.push(sink);
    }
    if sinks.contains(&SinkAddress::Off) {
        if sinks.len() > 1 {
            return Err(SinkError::OffAndOthers);
        }
        sinks.clear();
    }
    Ok(sinks)
}

fn without_password(scheme: &str, rest: &str) -> String {
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}"),
        None => format!("{scheme}:{rest}"),
    }
}

fn nats(rest: &str) -> Result<NatsServer, &'static str> {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (credentials, place) = match rest.rsplit_once('@') {
        Some(("", _)) => return Err("there is nothing before the @"),
        Some((credentials, place)) => (Some(credentials.to_owned()), place),
        None => (None, rest),
    };
    let place = place.strip_suffix('/').unwrap_or(place);
    let (host, port) = if let Some(v6) = place.strip_prefix('[') {
        let (host, after) = v6.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("what stands in brackets is not an IPv6 address");
        }
        match after {
            "" => (host, None),
            after => {
                (host, Some(after.strip_prefix(':').ok_or("a colon and a port must follow the bracket")?))
            }
        }
    } else if place.matches(':').count() > 1 {
        return Err("an IPv6 address needs brackets");
    } else {
        place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)))
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if !host.chars().all(allowed) {
        return Err("the host has a character that no name has");
    }
    let port = match port {
        None => NATS_PORT,
        Some(port) => {
            port.parse().ok().filter(|&port| port != 0).ok_or("the port is not a number from 1 to 65535")?
        }
    };
    Ok(NatsServer { host: host.to_owned(), port, credentials })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(sink) => sink.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_way_to_write_a_sink_is_understood() {
        assert_eq!(shown("nats:10.0.0.1:4333"), "nats:10.0.0.1:4333");
        assert_eq!(shown("nats:broker"), "nats:broker:4222");
        assert_eq!(shown("nats://broker:1"), "nats:broker:1");
        assert_eq!(shown("nats://broker/"), "nats:broker:4222");
        assert_eq!(shown("nats:[::1]:5000"), "nats:[::1]:5000");
        assert_eq!(shown("nats:[fd00::1]"), "nats:[fd00::1]:4222");
        assert_eq!(shown("stdout:"), "stdout");
        assert_eq!(shown("off"), "off");
    }

    #[test]
    fn a_fault_is_named_with_the_known_schemes() {
        for (text, fault) in [
            ("", "no scheme"),
            ("broker", "no scheme"),
            (":4222", "no scheme"),
            ("kafka:broker", "unknown scheme \"kafka\""),
            ("nats:", "the host is missing"),
            ("nats::4222", "the host is missing"),
            ("nats:broker:0", "not a number from 1 to 65535"),
            ("nats:broker:x", "not a number from 1 to 65535"),
            ("nats:broker:65536", "not a number from 1 to 65535"),
            ("nats:::1:4222", "needs brackets"),
            ("nats:[::1", "not closed"),
            ("nats:[::1]4222", "a colon and a port"),
            ("nats:[name]", "not an IPv6 address"),
            ("nats:a b", "no name has"),
            ("nats://@broker", "nothing before the @"),
            ("stdout:x", "takes no address"),
            ("off:", "takes no address"),
        ] {
            let error = shown(text);
            assert!(error.contains(fault), "{text:?}: {error}");
            assert!(error.contains("known: nats:HOST[:PORT]"), "{text:?}: {error}");
        }
    }

    #[test]
    fn credentials_are_used_and_never_shown() {
        let Ok(SinkAddress::Nats(server)) = parse("nats://me:secret@broker:1") else { panic!("parses") };
        assert_eq!(server.url(), "nats://me:secret@broker:1");
        assert!(!format!("{server:?}").contains("secret"));
        assert!(!shown("nats://me:secret@broker:1").contains("secret"));
        assert!(!shown("nats://me:secret@broker:x").contains("secret"));
        assert!(!shown("nuts://me:secret@broker:1").contains("secret"));
    }

    #[test]
    fn off_stands_alone_and_no_sink_is_given_twice() {
        assert_eq!(parse_all(["off"]), Ok(vec![]));
        assert_eq!(parse_all(["off", "stdout:"]), Err(SinkError::OffAndOthers));
        assert_eq!(parse_all(["nats:a", "nats://a:4222"]), Err(SinkError::Twice("nats:a:4222".to_owned())));
        assert_eq!(parse_all(["nats:a", "nats:b"]).map(|sinks| sinks.len()), Ok(2));
    }

    #[test]
    fn marshallers_are_known_by_name() {
        assert_eq!("jsonl".parse(), Ok(Marshal::Jsonl));
        assert_eq!("protobuf".parse(), Ok(Marshal::Protobuf));
        let error = "xml".parse::<Marshal>().expect_err("unknown").to_string();
        assert!(error.contains("\"xml\"") && error.contains("protobuf, jsonl"), "{error}");
    }
}
