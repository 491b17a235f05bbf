//! `HOST:PORT` in an address.

use std::fmt;

/// A host and a port, as `HOST:PORT` with an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    /// A name, or an address without brackets.
    pub(super) host: String,
    /// Not 0.
    pub(super) port: u16,
}

impl HostPort {
    /// Reads `HOST:PORT`, and `//HOST:PORT` as in a URL.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix("//").unwrap_or(text);
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no :PORT at its end"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if bare.is_none() && host.contains([':', '[', ']']) {
            return Err(format!("{host:?} is no host: an IPv6 address stands in brackets, [::1]"));
        }
        let host = bare.unwrap_or(host);
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(format!("{host:?} is no host"));
        }
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self { host: host.to_owned(), port }),
            _ => Err(format!("{port:?} is no port: accepted: 1 to 65535")),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_read_as_they_are_shown() {
        for text in ["localhost:9000", "127.0.0.1:1", "[::1]:65535"] {
            assert_eq!(HostPort::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(HostPort::parse("//collector:9000").expect("a URL").to_string(), "collector:9000");
        assert_eq!(HostPort::parse("[::1]:1").expect("IPv6").host, "::1");
    }

    #[test]
    fn what_is_no_host_and_port_says_what_is_wrong() {
        for (text, problem) in [
            ("localhost", "\"localhost\" has no :PORT at its end"),
            ("localhost:0", "\"0\" is no port: accepted: 1 to 65535"),
            ("localhost:70000", "\"70000\" is no port: accepted: 1 to 65535"),
            ("::1:9000", "\"::1\" is no host: an IPv6 address stands in brackets, [::1]"),
            (":9000", "\"\" is no host"),
        ] {
            assert_eq!(HostPort::parse(text).expect_err(text), problem);
        }
    }
}
