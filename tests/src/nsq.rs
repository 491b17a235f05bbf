//! A real nsqd on loopback ports of its own, and a reader of its topics.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::host::{free_port, server, wait_for, workspace};
use crate::http;
use crate::process::Process;

/// An nsqd; killed on drop.
#[derive(Debug)]
pub struct Nsqd {
    process: Option<Process>,
    tcp: u16,
    http: u16,
    options: Vec<String>,
    dir: TempDir,
}

impl Nsqd {
    /// Starts one with more options.
    pub fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut this = Self { process: None, tcp: free_port(), http: free_port(), options, dir };
        this.run();
        this
    }

    /// Starts it again, on the same ports with what it had on its disk.
    pub fn run(&mut self) {
        let mut argv = vec![
            server("nsqd").to_string_lossy().into_owned(),
            format!("-tcp-address={}", self.address()),
            format!("-http-address=127.0.0.1:{}", self.http),
            format!("-data-path={}", self.dir.path().display()),
        ];
        argv.extend(self.options.clone());
        let mut process = Process::start("nsqd", &argv);
        wait_for("nsqd to listen", Duration::from_secs(20), || {
            if let Some(status) = process.try_wait() {
                panic!("nsqd ended with {status}: {}", process.stderr.text());
            }
            [self.tcp, self.http]
                .iter()
                .all(|&port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
                .then_some(())
        });
        self.process = Some(process);
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    /// Ends it as an operator does: what it has in memory goes to its disk.
    pub fn stop(&mut self) {
        let status = self.process().terminate(Duration::from_secs(20));
        assert!(status.is_some(), "nsqd ends on SIGTERM");
        self.process = None;
    }

    /// Where it speaks the protocol.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.tcp)
    }

    /// How many messages it says that a topic has got since it was started; 0 for a topic that it has not.
    pub fn messages(&self, topic: &str) -> u64 {
        self.says(topic, "message_count")
    }

    /// How many messages of a topic nobody has taken yet.
    pub fn depth(&self, topic: &str) -> u64 {
        self.says(topic, "depth")
    }

    fn says(&self, topic: &str, what: &str) -> u64 {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, self.http));
        let (status, page) = http::get(at, "/stats?format=json").expect("nsqd answers");
        assert_eq!(status, 200, "{page}");
        let stats: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        let topics = stats["topics"].as_array().expect("topics");
        let of = topics.iter().find(|of| of["topic_name"] == topic);
        of.map_or(0, |of| of[what].as_u64().expect("a number"))
    }

    /// Takes `count` messages out of a topic, with a client that is not ours.
    pub fn read(&self, topic: &str, count: u64) -> Vec<Vec<u8>> {
        let script = workspace().join("tests/clients/nsq_read.py");
        let output = Command::new("timeout")
            .args(["60", "python3"])
            .arg(script)
            .args([&self.tcp.to_string(), topic, &count.to_string()])
            .output()
            .expect("python3 can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the reader ended with {}: {said}", output.status);
        String::from_utf8_lossy(&output.stdout).lines().map(from_base64).collect()
    }
}

/// What the reader's alphabet means.
fn from_base64(line: &str) -> Vec<u8> {
    let value = |c: char| "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".find(c);
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for six in line.chars().filter_map(value) {
        bits = bits << 6 | u32::try_from(six).expect("six bits");
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).expect("a byte"));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_and_without_padding() {
        assert_eq!(from_base64("cm93"), b"row");
        assert_eq!(from_base64("cm93cw=="), b"rows");
        assert_eq!(from_base64("/+8="), [0xff, 0xef]);
    }
}
