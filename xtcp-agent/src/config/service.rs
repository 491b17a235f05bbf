//! Options of the program itself: what it is called, where it listens, what it logs, how it ends.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::value::{LogFormat, duration, listen, log_filter};

/// What every record says about its host.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Identity")]
pub struct Identity {
    /// Name of this host in records and events. Default: the kernel's.
    #[arg(long, value_name = "NAME", default_value_t = kernel_hostname(), hide_default_value = true,
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub hostname: String,

    /// Free text: where this host is.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub location: String,

    /// Free text.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub label: String,

    /// Free text.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub tag: String,
}

fn kernel_hostname() -> String {
    match nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()) {
        Some(name) if !name.is_empty() => name,
        _ => "localhost".to_owned(),
    }
}

/// Where the agent listens. Everything is on loopback unless told otherwise.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Services")]
pub struct Listen {
    /// Address of /metrics, /healthz and /readyz; port 0 for any free one.
    #[arg(id = "prom-listen", long = "prom-listen", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9088",
          value_parser = listen)]
    pub prom: SocketAddr,

    /// Port of gRPC; 0 for any free one.
    #[arg(id = "grpc-port", long = "grpc-port", value_name = "PORT", default_value = "8889")]
    pub grpc_port: u16,

    /// Address of gRPC. It has neither TLS nor passwords: think before you leave loopback.
    #[arg(id = "grpc-listen", long = "grpc-listen", value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub grpc_ip: IpAddr,
}

impl Listen {
    /// Address and port of gRPC.
    pub fn grpc(&self) -> SocketAddr {
        SocketAddr::new(self.grpc_ip, self.grpc_port)
    }
}

/// What is logged, to standard error.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Program")]
pub struct Log {
    /// Form of log lines.
    #[arg(id = "log-format", long = "log-format", value_enum, value_name = "FORMAT", default_value = "text")]
    pub format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, off, or directives such as `warn,xtcp_agent::netns=debug`.
    #[arg(id = "log-level", long = "log-level", value_name = "FILTER", default_value = "info",
          value_parser = log_filter)]
    pub level: String,
}

/// The program as a process.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Program")]
pub struct Program {
    /// After SIGTERM, time to drain and flush before it ends all the same: 100ms to 10m.
    #[arg(long, value_name = "DURATION", default_value = "10s",
          value_parser = duration(Duration::from_millis(100), Duration::from_secs(600)))]
    pub shutdown_timeout: Duration,

    /// TOML file with settings. Default: /etc/xtcp2-agent/xtcp2-agent.toml if it exists.
    #[arg(id = "config", long = "config", value_name = "FILE", value_parser = value_parser!(PathBuf))]
    pub config_file: Option<PathBuf>,
}
