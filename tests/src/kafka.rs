//! Kafka as the tests have it: what kcat reads, a certificate authority, and a real broker of one node.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::host::{free_port, server, wait_for};
use crate::process::Process;

/// A message as kcat prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Milliseconds since the epoch, as the producer stamped it.
    pub timestamp_ms: i64,
    /// `None` when it has none.
    pub key: Option<String>,
    /// By name.
    pub headers: BTreeMap<String, String>,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// All messages of a topic from the beginning to the end, read by kcat.
pub fn consume(brokers: &str, topic: &str, options: &[&str]) -> Vec<Message> {
    let mut kcat = Command::new("timeout");
    kcat.args(["60", "kcat", "-b", brokers, "-C", "-t", topic, "-o", "beginning", "-e", "-q"]);
    kcat.args(["-f", "%T\n%K\n%k\n%h\n%S\n%s\n"]).args(options);
    let output = kcat.output().expect("kcat can be started (Debian: apt-get install kcat)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kcat ended with {}: {said}", output.status);
    let (mut rest, mut messages) = (&output.stdout[..], Vec::new());
    while !rest.is_empty() {
        let timestamp_ms = line(&mut rest).parse().expect("a timestamp");
        let key_length: i64 = line(&mut rest).parse().expect("a length");
        let key = line(&mut rest);
        let headers = line(&mut rest);
        let length: usize = line(&mut rest).parse().expect("a length");
        messages.push(Message {
            timestamp_ms,
            key: (key_length >= 0).then_some(key),
            headers: headers
                .split(',')
                .filter_map(|header| header.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            bytes: rest[..length].to_vec(),
        });
        rest = &rest[length + 1..];
    }
    messages
}

fn line(rest: &mut &[u8]) -> String {
    let end = rest.iter().position(|&byte| byte == b'\n').expect("a whole line");
    let text = String::from_utf8(rest[..end].to_vec()).expect("text");
    *rest = &rest[end + 1..];
    text
}

/// An authority made for one test, and its certificates as PEM files in a folder.
#[derive(Debug)]
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    dir: TempDir,
    name: String,
}

impl Authority {
    /// A new one, whose certificate is `NAME.pem` in its folder.
    pub fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(dir.path().join(format!("{name}.pem")), certificate.pem()).expect("written");
        Self { issuer: rcgen::Issuer::new(params, key), dir, name: name.to_owned() }
    }

    /// Path of its own certificate.
    pub fn certificate(&self) -> String {
        self.path(&format!("{}.pem", self.name))
    }

    /// Signs a certificate for `common_name` that is good for `names`; the paths of certificate, key, and both in one file.
    pub fn sign(&self, common_name: &str, names: &[&str]) -> [String; 3] {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let own = std::fs::read_to_string(self.certificate()).expect("read");
        let files = [
            ("crt", format!("{certificate}{own}")),
            ("key", key.serialize_pem()),
            ("both", format!("{}{certificate}{own}", key.serialize_pem())),
        ];
        files.map(|(kind, text)| {
            let path = self.path(&format!("{common_name}.{kind}"));
            std::fs::write(&path, text).expect("written");
            path
        })
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }
}

/// A listener of a [`Broker`] beside the plain one: its name, its security protocol and its properties, without the prefix
/// that names the listener.
pub type Listener<'a> = (&'a str, &'a str, Vec<(&'a str, String)>);

/// A real Apache Kafka broker, with everything in a folder of its own; killed on drop.
#[derive(Debug)]
pub struct Broker {
    process: Option<Process>,
    ports: BTreeMap<String, u16>,
    dir: TempDir,
}

impl Broker {
    /// Starts one with a listener without TLS and those that are asked for. Users of SCRAM are named with their passwords.
    pub fn start(listeners: &[Listener<'_>], users: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut this = Self { process: None, ports: BTreeMap::new(), dir };
        let mut all: Vec<Listener<'_>> = listeners.to_vec();
        all.push(("PLAIN", "PLAINTEXT", Vec::new()));
        all.push(("CONTROLLER", "PLAINTEXT", Vec::new()));
        let (mut places, mut protocols, mut more) = (Vec::new(), Vec::new(), String::new());
        for (name, protocol, properties) in &all {
            let port = free_port();
            this.ports.insert((*name).to_owned(), port);
            places.push(format!("{name}://127.0.0.1:{port}"));
            protocols.push(format!("{name}:{protocol}"));
            for (key, value) in properties {
                let prefix = format!("listener.name.{}", name.to_lowercase());
                writeln!(more, "{prefix}.{key}={value}").expect("room");
            }
        }
        let advertised: Vec<_> =
            places.iter().filter(|place| !place.starts_with("CONTROLLER")).cloned().collect();
        let text = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAIN\nlisteners={}\n\
             advertised.listeners={}\nlistener.security.protocol.map={}\nlog.dirs={}\nnum.partitions=1\n\
             offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\nmessage.max.bytes=2000000\n{more}",
            this.port("CONTROLLER"),
            places.join(","),
            advertised.join(","),
            protocols.join(","),
            this.dir.path().join("logs").display(),
        );
        std::fs::write(this.config(), text).expect("the configuration can be written");
        let mut format: Vec<String> =
            ["kafka.tools.StorageTool", "format", "-t", "cKzMkTbHQ4WfC0oFQzZ3tA", "-c"]
                .map(str::to_owned)
                .into();
        format.push(this.config());
        for (user, password) in users {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                format.push("--add-scram".to_owned());
                format.push(format!("{mechanism}=[name={user},password={password}]"));
            }
        }
        let mut tool = java(this.dir.path(), &format);
        let status = tool.wait(Duration::from_secs(60));
        let said = format!("{} {}", tool.stdout.text(), tool.stderr.text());
        assert!(status.is_some_and(|status| status.success()), "kafka.tools.StorageTool: {status:?}: {said}");
        this.run();
        this
    }

    /// Starts it again, with all that it had written.
    pub fn run(&mut self) {
        let mut process = java(self.dir.path(), &["kafka.Kafka".to_owned(), self.config()]);
        let ports: Vec<u16> = self.ports.values().copied().collect();
        wait_for("Apache Kafka to listen", Duration::from_secs(90), || {
            if let Some(status) = process.try_wait() {
                let said = process.stdout.text();
                let last: Vec<_> = said.lines().rev().take(30).collect();
                panic!("the broker ended with {status}: {} {}", process.stderr.text(), last.join("\n"));
            }
            ports.iter().all(|&port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()).then_some(())
        });
        self.process = Some(process);
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// `HOST:PORT` of a listener; the one without TLS is `PLAIN`.
    pub fn address(&self, listener: &str) -> String {
        format!("127.0.0.1:{}", self.port(listener))
    }

    fn port(&self, listener: &str) -> u16 {
        self.ports[listener]
    }

    fn config(&self) -> String {
        self.dir.path().join("server.properties").to_string_lossy().into_owned()
    }
}

/// A Java program among Kafka's jars.
fn java(dir: &Path, argv: &[String]) -> Process {
    let jars = server("kafka").join("*");
    let options = [
        "java".to_owned(),
        "-Xmx384m".to_owned(),
        "-XX:TieredStopAtLevel=1".to_owned(),
        "-XX:+UseSerialGC".to_owned(),
        format!("-Djava.io.tmpdir={}", dir.display()),
        "-cp".to_owned(),
        jars.to_string_lossy().into_owned(),
    ];
    Process::start("java", &[&options[..], argv].concat())
}
