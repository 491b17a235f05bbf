//! Options of what leaves the host: records and change events.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::value::{Switch, bytes, duration, events_marshal, marshaller};
use crate::delivery::route::{self, Route};
use crate::event_sink::{self, Marshal, SinkAddress};
use crate::marshaller::{self, FormatError, Marshaller};

/// Where records go and as what.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Records")]
pub struct Records {
    /// Where records go: SCHEME, SCHEME:ADDRESS or SCHEME:ADDRESS#OPTION=VALUE&OPTION=VALUE; repeatable.
    ///
    /// Each destination has its own queue and never delays another. `xtcp2-agent destinations` lists the schemes and their
    /// options. In a variable, several are separated by |.
    #[arg(long, value_name = "DESTINATION", default_value = "null", value_delimiter = '|', value_parser = route::parse)]
    pub dest: Vec<Route>,

    /// Format of a batch of records, for destinations that name none.
    #[arg(long, value_name = "FORMAT", default_value = "protobufList", value_parser = marshaller())]
    pub marshal: &'static dyn Marshaller,

    /// Columns of csv and tsv, in this order: names of the record's fields. Default: all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = column)]
    pub columns: Vec<String>,

    /// Whether csv and tsv begin with a line that names the columns.
    #[arg(id = "header", long = "header", value_name = "SWITCH", default_value = "on", ignore_case = true)]
    pub header: Switch,

    /// Topic or subject of destinations that have one and name none.
    #[arg(long, value_name = "TOPIC", default_value = "xtcp")]
    pub topic: String,

    /// Folder of the destinations' spools (option spool of a destination).
    #[arg(long, value_name = "DIR", default_value = "/var/lib/xtcp2-agent/spool")]
    pub spool_dir: PathBuf,
}

impl Records {
    /// The format in which a command prints rows; columns that were asked of it alone are refused where it has none.
    pub(crate) fn for_print(
        &self,
        format: &'static dyn Marshaller,
        columns_given: bool,
    ) -> Result<&'static dyn Marshaller, FormatError> {
        if columns_given && format.layout().is_none() {
            return Err(FormatError::NoColumns { name: format.name() });
        }
        self.laid_out(format)
    }

    /// Another format with these columns and this header, if it is one that has such.
    pub fn laid_out(&self, format: &'static dyn Marshaller) -> Result<&'static dyn Marshaller, FormatError> {
        if format.layout().is_none() {
            return Ok(format);
        }
        let format = marshaller::with_header(format, self.header == Switch::On)?;
        if self.columns.is_empty() { Ok(format) } else { marshaller::with_columns(format, &self.columns) }
    }
}

/// When a batch of records is full.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Records")]
pub struct Envelope {
    /// A batch leaves with this many records: 1 to 1000000.
    #[arg(id = "envelope-flush-rows", long = "envelope-flush-rows", value_name = "ROWS", default_value = "10000",
          value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub flush_rows: u32,

    /// A batch leaves with this many bytes of records: 1KiB to 256MiB.
    #[arg(id = "envelope-flush-bytes", long = "envelope-flush-bytes", value_name = "BYTES", default_value = "786432",
          value_parser = bytes(1 << 10, 256 << 20))]
    pub flush_bytes: u32,

    /// A batch leaves when its first record is this old: 1ms to 1h.
    #[arg(id = "envelope-flush-age", long = "envelope-flush-age", value_name = "DURATION", default_value = "1s",
          value_parser = duration(Duration::from_millis(1), Duration::from_secs(3_600)))]
    pub flush_age: Duration,

    /// A batch leaves when a record in it that an event led to is this old: 0s to 1h.
    ///
    /// The record of a new connection is at its destination that much later; each batch costs a send.
    #[arg(id = "envelope-flush-event-age", long = "envelope-flush-event-age", value_name = "DURATION",
          default_value = "10ms", value_parser = duration(Duration::ZERO, Duration::from_secs(3_600)))]
    pub flush_event_age: Duration,
}

/// Where change events go and as what.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Change events")]
pub struct Events {
    /// Where change events go: nats:HOST:PORT, stdout:, or off; repeatable.
    ///
    /// An event tells that a namespace was created or destroyed, or that a TCP socket changed state or closed. NATS gets
    /// it at subject xtcp.v1.HOSTNAME.INODE.KIND. An unreachable server is tried again for ever.
    #[arg(
        id = "events",
        long = "events",
        value_name = "SINK",
        default_value = "nats:127.0.0.1:4222",
        value_delimiter = ',',
        value_parser = event_sink::parse
    )]
    pub sinks: Vec<SinkAddress>,

    /// Whether `sinks` is the default, which nobody asked for.
    #[arg(skip)]
    pub by_default: bool,

    /// Format of a change event.
    #[arg(
        id = "events-marshal",
        long = "events-marshal",
        value_name = "FORMAT",
        default_value = "protobuf",
        value_parser = events_marshal()
    )]
    pub marshal: Marshal,

    /// Change events that may wait for each sink: 1 to 16777216. When it is full the oldest are dropped and counted.
    #[arg(id = "events-queue", long = "events-queue", value_name = "EVENTS", default_value = "65536",
          value_parser = value_parser!(u32).range(1..=16_777_216))]
    pub queue: u32,
}

fn column(word: &str) -> Result<String, FormatError> {
    let name = word.trim();
    marshaller::column(name).map(|_| name.to_owned())
}
