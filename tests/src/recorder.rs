//! An HTTP server that is none of ours: Python's, which writes down each request and answers as it is told.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::authority::{Authority, Identity};
use crate::host::{free_port, python, wait_for, workspace};
use crate::process::Process;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method, as it is written.
    pub method: String,
    /// Its path, and the query behind it.
    pub path: String,
    /// Its headers; names in lower case.
    pub headers: Value,
    /// Its body as it was before a content encoding.
    pub body: PathBuf,
    /// Number of the connection on which it came, from 1.
    pub connection: u64,
}

impl Request {
    /// The body's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.body).expect("the body was written")
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(Value::as_str)
    }
}

/// A running server; killed on drop.
#[derive(Debug)]
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    /// The process, to stop and continue it.
    pub process: Process,
    dir: TempDir,
}

impl Recorder {
    /// Starts one on a free port.
    pub fn start() -> Self {
        Self::start_on(free_port(), &[])
    }

    /// Starts one that speaks TLS and wants a client's certificate of the same authority.
    pub fn start_secured(authority: &Authority, server: &Identity) -> Self {
        let file = |path: &PathBuf| path.display().to_string();
        Self::start_on(
            free_port(),
            &[
                "--ca".to_owned(),
                file(&authority.ca()),
                "--cert".to_owned(),
                file(&server.cert),
                "--key".to_owned(),
                file(&server.key),
            ],
        )
    }

    /// Starts one on `port` with these arguments.
    pub fn start_on(port: u16, arguments: &[String]) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let script = workspace().join("tests/clients/record_http.py");
        let mut argv = vec![python().display().to_string(), script.display().to_string()];
        argv.extend([
            "--port".to_owned(),
            port.to_string(),
            "--dir".to_owned(),
            dir.path().display().to_string(),
        ]);
        argv.extend(arguments.iter().cloned());
        let mut process = Process::start("record_http.py", &argv);
        wait_for("the recording HTTP server to listen", Duration::from_secs(30), || {
            if let Some(status) = process.try_wait() {
                panic!("record_http.py ended with {status}: {}", process.stderr.text());
            }
            TcpStream::connect(address).ok()
        });
        Self { address, process, dir }
    }

    /// All requests so far that it took whole, once there are as many.
    pub fn at_least(&self, count: usize) -> Vec<Request> {
        wait_for("the recording HTTP server to write its requests", Duration::from_secs(30), || {
            Some(self.requests()).filter(|requests| requests.len() >= count)
        })
    }

    /// All requests so far that it took whole. Whoever was answered finds his there a moment later.
    pub fn requests(&self) -> Vec<Request> {
        let parse = |line: crate::process::Line| {
            let value: Value = serde_json::from_str(&line.text).expect("a line of JSON");
            let text = |name: &str| value[name].as_str().expect("text").to_owned();
            Request {
                method: text("method"),
                path: text("path"),
                headers: value["headers"].clone(),
                body: self.dir.path().join(text("body")),
                connection: value["connection"].as_u64().expect("a number"),
            }
        };
        self.process.stdout.since(0).into_iter().map(parse).collect()
    }

    /// Its next requests are answered with `status` and `body`, until it is told otherwise.
    pub fn answer(&self, status: u16, body: &str) {
        let answer = serde_json::json!({"status": status, "body": body});
        std::fs::write(self.dir.path().join("answer.new"), answer.to_string()).expect("written");
        std::fs::rename(self.dir.path().join("answer.new"), self.dir.path().join("answer"))
            .expect("in place");
    }
}
