//! An S3 server on a folder, in this process, and the independent reader of what is in a bucket.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use s3s::auth::SimpleAuth;
use s3s::service::S3Service;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;

use crate::host::{free_port, python, workspace};
use crate::process::Process;

/// The access key of a server here, and its secret.
pub const KEYS: (&str, &str) = ("tester-key", "tester-secret");
/// The bucket that a server has from its start.
pub const BUCKET: &str = "rows";

/// A running server; ends with its handle.
#[derive(Debug)]
pub struct S3Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// How it speaks TLS from its next start on; without it it does not.
    pub tls: Option<Arc<ServerConfig>>,
    root: TempDir,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Starts one with an empty bucket.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts one with an empty bucket, which may speak TLS.
    pub fn start_with(tls: Option<Arc<ServerConfig>>) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::create_dir(root.path().join(BUCKET)).expect("a bucket can be made");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut server = Self { address, tls, root, runtime: None };
        server.restart();
        server
    }

    /// Ends it in the middle of whatever it does; what it has stays.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        self.kill();
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("s3-server")
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let files = FileSystem::new(self.root.path()).expect("the folder can be served");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(KEYS.0, KEYS.1));
        let service = service.build();
        let listener = runtime.block_on(TcpListener::bind(self.address)).expect("the port is free");
        let acceptor = self.tls.clone().map(TlsAcceptor::from);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, acceptor) = (service.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, service).await,
                        // A client that does not like us, or that we refuse, is one that went away.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, service).await;
                            }
                        }
                    }
                });
            }
        });
        self.runtime = Some(runtime);
    }

    /// An address of its bucket with more behind it: a prefix, options beside the keys.
    pub fn destination(&self, prefix: &str, options: &str) -> String {
        let Self { address, tls, .. } = self;
        let scheme = if tls.is_some() { "https" } else { "http" };
        format!(
            "s3parquet:{scheme}://{address}/{BUCKET}{prefix}#access-key={}&secret-key={}{options}",
            KEYS.0, KEYS.1
        )
    }

    /// What independent readers find in its bucket.
    pub fn read(&self) -> Found {
        Found::read(&json!({
            "endpoint": self.address.to_string(),
            "scheme": "http",
            "bucket": BUCKET,
            "access_key": KEYS.0,
            "secret_key": KEYS.1,
        }))
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, service: S3Service) {
    let server = auto::Builder::new(TokioExecutor::new());
    // A client that went away is no matter.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What `clients/read_parquet.py` says: pyarrow as client of S3 and as reader, DuckDB as another reader.
#[derive(Debug)]
pub struct Found(Value);

impl Found {
    /// Runs it; `server` says where and as whom, as the script's head explains.
    pub fn read(server: &Value) -> Self {
        let script: PathBuf = workspace().join("tests/clients/read_parquet.py");
        let argv = [python(), script, server.to_string().into()];
        let mut process = Process::start("read_parquet.py", &argv);
        let status = process.wait(Duration::from_secs(60));
        let errors = process.stderr.text();
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {errors}");
        Self(serde_json::from_str(&process.stdout.text()).expect("the script prints JSON"))
    }

    /// Names of all objects, sorted.
    pub fn keys(&self) -> Vec<String> {
        let keys = self.0["keys"].as_array().expect("keys");
        keys.iter().map(|key| key.as_str().expect("text").to_owned()).collect()
    }

    /// What else it says.
    pub fn get(&self, name: &str) -> &Value {
        &self.0[name]
    }

    /// The rows that both readers agree on, by their `record_counter`.
    pub fn rows(&self) -> &[Value] {
        assert_eq!(self.0["pyarrow"], self.0["duckdb"], "pyarrow and DuckDB read different rows");
        self.0["pyarrow"].as_array().expect("rows")
    }
}
