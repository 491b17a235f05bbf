//! What may stand behind the address, and what of it librdkafka is told.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::super::host_port::HostPort;
use super::super::options::{OptionInfo, Options};
use super::Kafka;
use super::registry::Registry;
use crate::tls::Tls;

/// The options of the scheme.
pub(super) const OPTIONS: [OptionInfo; 18] = [
    OptionInfo::new(
        "acks",
        "all|1|0 (all)",
        "Whose acknowledgement ends a send: all in-sync replicas', the leader's, nobody's.",
    ),
    OptionInfo::new("client-id", "NAME (xtcp2-agent)", "How the brokers' logs and quotas know this client."),
    OptionInfo::new("compression", "none|gzip|snappy|lz4|zstd (lz4)", "How messages are compressed."),
    OptionInfo::new(
        "idempotence",
        "true|false (true with acks=all)",
        "Whether the brokers drop what the client's own retries send twice.",
    ),
    OptionInfo::new(
        "key",
        "hostname|none (hostname)",
        "The messages' key: with one, a host's messages keep their order in one partition.",
    ),
    OptionInfo::new("linger", "0s to 10s (0s)", "How long a message waits for others to be sent with it."),
    OptionInfo::new(
        "message-max-bytes",
        "16KiB to 900MiB (1000000)",
        "The largest message, before compression; the brokers' message.max.bytes must allow it.",
    ),
    OptionInfo::new("password", "PASSWORD", "The user's password."),
    OptionInfo::new("password-file", "PATH", "A file with the user's password."),
    OptionInfo::new(
        "sasl-mechanism",
        "PLAIN|SCRAM-SHA-256|SCRAM-SHA-512",
        "How the user is proven; PLAIN shows the password to who reads a connection without TLS.",
    ),
    OptionInfo::new(
        "schema-registry",
        "http[s]://HOST[:PORT]",
        "A registry that is given the rows' .proto as subject TOPIC-value, once; messages carry no schema id.",
    ),
    OptionInfo::new("tls", "true|false (true with any of the tls- options)", "Whether connections are TLS."),
    OptionInfo::new("tls-ca", "PATH (the host's)", "PEM certificates that may sign a broker's."),
    OptionInfo::new("tls-cert", "PATH", "PEM certificate, and chain, that this client shows."),
    OptionInfo::new("tls-key", "PATH", "PEM key of tls-cert."),
    OptionInfo::new("tls-key-password", "PASSWORD", "The password of tls-key, where it has one."),
    OptionInfo::new("tls-key-password-file", "PATH", "A file with the password of tls-key."),
    OptionInfo::new("user", "NAME", "The user that sasl-mechanism proves."),
];

/// How long a send may take when nothing else is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shortest time that a message is given.
const LEAST: Duration = Duration::from_secs(1);

/// Understands `HOST:PORT[,HOST:PORT…]` and the options.
pub(super) fn parse(rest: &str, options: &Options) -> Result<Kafka, String> {
    if rest.is_empty() {
        return Err("no broker is named".to_owned());
    }
    let brokers: Vec<HostPort> = rest.split(',').map(HostPort::parse).collect::<Result<_, _>>()?;
    let brokers = brokers.iter().map(HostPort::to_string).collect::<Vec<_>>().join(",");
    let message_max = options.bytes("message-max-bytes", 16 << 10, 900 << 20)?.unwrap_or(1_000_000);
    // Half of what a send may take: its failure is heard of before who delivers has lost patience.
    let patience = options.duration("timeout", Duration::ZERO, Duration::MAX)?.unwrap_or(PATIENCE);
    let timeout = (patience / 2).max(LEAST);
    let mut config = ClientConfig::new();
    // What is worth saying is decided by who hears it.
    config.set_log_level(RDKafkaLogLevel::Info);
    config.set("bootstrap.servers", &brokers);
    config.set("client.id", options.text("client-id").unwrap_or("xtcp2-agent"));
    config.set("message.max.bytes", message_max.to_string());
    config.set("partitioner", "murmur2_random");
    config.set(
        "compression.type",
        options
            .one_of("compression", &["none", "gzip", "snappy", "lz4", "zstd"].map(|word| (word, word)))?
            .unwrap_or("lz4"),
    );
    let linger = options.duration("linger", Duration::ZERO, Duration::from_secs(10))?.unwrap_or_default();
    config.set("linger.ms", linger.as_millis().to_string());
    guarantee(&mut config, options)?;
    times(&mut config, timeout);
    let tls = tls(&mut config, options)?;
    sasl(&mut config, options, tls.is_some())?;
    let keyed = options.one_of("key", &[("hostname", true), ("none", false)])?.unwrap_or(true);
    let registry = options.text("schema-registry").map(Registry::new).transpose()?.map(Arc::new);
    config.create_native_config().map_err(|error| refused(&error))?;
    let message_max = usize::try_from(message_max).unwrap_or(usize::MAX);
    Ok(Kafka { config, brokers, message_max, patience, timeout, keyed, tls, registry })
}

/// Whose acknowledgement, and whether twice is once.
fn guarantee(config: &mut ClientConfig, options: &Options) -> Result<(), String> {
    let acks = options.one_of("acks", &[("all", "all"), ("1", "1"), ("0", "0")])?.unwrap_or("all");
    let idempotence = options.switch("idempotence")?;
    if idempotence == Some(true) && acks != "all" {
        return Err(format!("option idempotence=true needs acks=all, not acks={acks}"));
    }
    config.set("acks", acks);
    config.set("enable.idempotence", idempotence.unwrap_or(acks == "all").to_string());
    Ok(())
}

/// How long things may take: everything ends within a message's time, and a broker that is back is found soon.
fn times(config: &mut ClientConfig, timeout: Duration) {
    let within = |most: u64| u128::from(most).min(timeout.as_millis()).to_string();
    config.set("message.timeout.ms", timeout.as_millis().to_string());
    config.set("request.timeout.ms", within(10_000));
    config.set("socket.timeout.ms", within(10_000));
    config.set("socket.connection.setup.timeout.ms", within(10_000));
    config.set("topic.metadata.propagation.max.ms", within(5_000));
    config.set("reconnect.backoff.max.ms", "2000");
    config.set("socket.keepalive.enable", "true");
}

/// Whether it is TLS, and with which files; whom to trust.
fn tls(config: &mut ClientConfig, options: &Options) -> Result<Option<Tls>, String> {
    let files = [
        ("tls-ca", "ssl.ca.location"),
        ("tls-cert", "ssl.certificate.location"),
        ("tls-key", "ssl.key.location"),
    ];
    let given = files.iter().find(|(option, _)| options.text(option).is_some());
    match (options.switch("tls")?, given) {
        (Some(false), Some((option, _))) => return Err(format!("option {option} needs tls=true")),
        (Some(false) | None, None) => return Ok(None),
        _ => {}
    }
    if options.text("tls-cert").is_some() != options.text("tls-key").is_some() {
        return Err("options tls-cert and tls-key go together".to_owned());
    }
    for (option, property) in files {
        if let Some(path) = options.text(option) {
            config.set(property, path);
        }
    }
    if let Some(password) = options.secret("tls-key-password")? {
        config.set("ssl.key.password", password);
    }
    let mut trust = Options::default();
    if let Some(ca) = options.text("tls-ca") {
        trust.add("tls-ca", ca)?;
    }
    Tls::from_options(&trust).map(Some)
}

/// Who we are.
fn sasl(config: &mut ClientConfig, options: &Options, tls: bool) -> Result<(), String> {
    let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].map(|word| (word, word));
    let mechanism = options.one_of("sasl-mechanism", &mechanisms)?;
    let password = options.secret("password")?;
    let protocol = match (mechanism, options.text("user"), password) {
        (Some(mechanism), Some(user), Some(password)) => {
            config.set("sasl.mechanism", mechanism);
            config.set("sasl.username", user);
            config.set("sasl.password", password);
            if tls { "sasl_ssl" } else { "sasl_plaintext" }
        }
        (None, None, None) => {
            if tls {
                "ssl"
            } else {
                "plaintext"
            }
        }
        _ => return Err("options sasl-mechanism, user and password go together".to_owned()),
    };
    config.set("security.protocol", protocol);
    Ok(())
}

/// What librdkafka thinks of a setting, without its value, which may be secret.
fn refused(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, problem, key, _) => format!("librdkafka refuses {key}: {problem}"),
        other => other.to_string(),
    }
}
