//! `decode`: captures become records.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use xtcp_inet_diag::attr::Selection;
use xtcp_inet_diag::framing::{Message, Messages};
use xtcp_inet_diag::message::Reading;
use xtcp_inet_diag::request::Protocol;
use xtcp_inet_diag::wire::Row;
use xtcp_proto::flat_record::v1::xtcp_flat_record::RecordMethod;

use super::dumps::{Dumps, Origin};
use super::summary::Summary;
use crate::marshaller::Marshaller;
use crate::netns::NetnsId;
use crate::pcap::{CaptureError, NETLINK_SOCK_DIAG, Reader};
use crate::printer::{Marshalled, PrintError, Printer, standard_output};
use crate::record::builder::{Builder, Context, Extras, HostFields, RowFields, Template};
use crate::record::{Reason, Rows};

/// Rows are handed on in chunks of at most this many.
const ROWS_PER_CHUNK: usize = 256;

/// What to decode, and how.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decode {
    /// Captures; `-` is standard input.
    pub(super) files: Vec<PathBuf>,
    /// Attributes that records are to have.
    pub(super) selection: Selection,
    /// Only the dump with this number.
    pub(super) dump: Option<u64>,
    /// Form of the rows.
    pub(super) marshal: &'static dyn Marshaller,
    /// What every row says of its host: a capture does not tell.
    pub(super) host: HostFields,
    /// (major, minor) of the kernel that was captured.
    pub(super) kernel: (u32, u32),
}

/// How a run ended, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Fine = 0,
    Malformed = 1,
    BadInput = 2,
}

/// `xtcp2-agent decode`: rows to standard output, a summary for each file to standard error. Status 0 fine, 1 something was
/// malformed, 2 a file could not be read, or not to its end.
pub(super) fn decode(what: &Decode, extras: Extras) -> ExitCode {
    let mut printer = match standard_output() {
        Ok(to) => Marshalled::new(what.marshal, to),
        Err(error) => return fail(&format!("standard output: {error}")),
    };
    let mut worst = Verdict::Fine;
    let builder = Builder::new(what.host.clone(), what.kernel).with(extras);
    let mut run = Run { what, builder, template: None, counter: 0 };
    for file in &what.files {
        match run.file(file, &mut printer) {
            Ok(verdict) => worst = worst.max(verdict),
            // Whoever reads has seen enough; what was found until then stands.
            Err(error) if error.is_closed_pipe() => return ExitCode::from(worst as u8),
            Err(error) => return fail(&error.to_string()),
        }
    }
    ExitCode::from(worst as u8)
}

pub(super) fn fail(error: &str) -> ExitCode {
    say(&format!("error: {error}"));
    ExitCode::from(Verdict::BadInput as u8)
}

fn say(text: &str) {
    // Standard error may be closed; the status still tells.
    let _ = writeln!(io::stderr(), "{text}");
}

struct Run<'a> {
    what: &'a Decode,
    builder: Builder,
    /// Of the answer at hand.
    template: Option<((Origin, u32), Template)>,
    counter: u64,
}

impl Run<'_> {
    fn file(&mut self, path: &Path, printer: &mut dyn Printer) -> Result<Verdict, PrintError> {
        let (input, name): (Box<dyn Read>, _) = if path == Path::new("-") {
            (Box::new(io::stdin().lock()), "standard input".to_owned())
        } else {
            match File::open(path) {
                Ok(file) => (Box::new(file), path.display().to_string()),
                Err(error) => {
                    say(&format!("error: {} cannot be opened: {error}", path.display()));
                    return Ok(Verdict::BadInput);
                }
            }
        };
        let mut summary = Summary::default();
        let mut reader = match Reader::open(input) {
            Ok(reader) => reader,
            Err(error) => {
                say(&format!("error: {name} {error}"));
                return Ok(Verdict::BadInput);
            }
        };
        let ended = self.packets(&mut reader, printer, &mut summary)?;
        printer.finish()?;
        say(&format!("{name}: {summary}"));
        if let Err(error) = ended {
            say(&format!("error: {name} {error}"));
            return Ok(Verdict::BadInput);
        }
        let missing = self.what.dump.filter(|dump| *dump > summary.counts.dumps || *dump == 0);
        if let Some(dump) = missing {
            say(&format!("error: {name} has no dump {dump}: it has {}", summary.counts.dumps));
            return Ok(Verdict::BadInput);
        }
        Ok(if summary.is_malformed() { Verdict::Malformed } else { Verdict::Fine })
    }

    /// Prints the rows of a capture. The inner error is the capture's.
    fn packets(
        &mut self,
        reader: &mut Reader<impl Read>,
        printer: &mut dyn Printer,
        summary: &mut Summary,
    ) -> Result<Result<(), CaptureError>, PrintError> {
        let mut dumps = Dumps::default();
        let mut rows = Rows::default();
        let ended = loop {
            let packet = match reader.packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if packet.protocol != NETLINK_SOCK_DIAG {
                continue;
            }
            for message in Messages::new(packet.datagram) {
                let Ok(message) = message else {
                    summary.framing += 1;
                    break;
                };
                self.message(
                    packet.timestamp_ns,
                    packet.netns_inode,
                    &message,
                    &mut dumps,
                    summary,
                    &mut rows,
                );
            }
            if rows.len() >= ROWS_PER_CHUNK {
                printer.print(&Arc::new(std::mem::take(&mut rows)))?;
            }
        };
        printer.print(&Arc::new(rows))?;
        summary.counts = dumps.finish();
        summary.other_links = reader.other_links();
        Ok(ended)
    }

    fn message(
        &mut self,
        timestamp_ns: i64,
        netns_inode: u32,
        message: &Message<'_>,
        dumps: &mut Dumps,
        summary: &mut Summary,
        rows: &mut Rows,
    ) {
        let Some((origin, payload)) = dumps.take(timestamp_ns, message) else { return };
        // What INFO holds depends on the protocol. Most dumps are of TCP.
        let protocol = origin.protocol.map_or(Protocol::TCP, Protocol);
        let Ok(row) = Row::new_as(payload, Reading { protocol, selection: self.what.selection }) else {
            summary.malformed_rows += 1;
            return;
        };
        summary.rows += 1;
        if self.what.dump.is_some_and(|wanted| wanted != origin.dump) {
            summary.attributes(&row.findings());
            return;
        }
        self.counter += 1;
        let fields = RowFields { counter: self.counter, ..RowFields::default() };
        match self.template(origin, netns_inode).append(&row, fields, rows) {
            Ok(findings) => {
                summary.printed += 1;
                summary.attributes(&findings);
            }
            Err(error) => say(&format!("error: {error}")),
        }
    }

    /// What the rows of one answer have in common.
    fn template(&mut self, origin: Origin, netns_inode: u32) -> &mut Template {
        let Self { builder, template, .. } = self;
        let known = template.take().filter(|(of, _)| *of == (origin, netns_inode));
        let (_, template) = template.insert(known.unwrap_or_else(|| {
            let Origin { dump, timestamp_ns, protocol: _, lookup } = origin;
            let name = if netns_inode == 0 { String::new() } else { format!("netns:[{netns_inode}]") };
            let context = Context {
                timestamp_ns,
                netns: &name,
                netns_id: NetnsId { inode: netns_inode, cookie: 0 },
                nsid: 0,
                workload: None,
                reason: Reason::Requested,
                method: method(dump, lookup),
                poll: 0,
                dump,
                socket_fd: 0,
                netlinker_id: 0,
            };
            ((origin, netns_inode), builder.template(&context))
        }));
        template
    }
}

fn method(dump: u64, lookup: bool) -> RecordMethod {
    match (dump, lookup) {
        (0, true) => RecordMethod::Lookup,
        (0, false) => RecordMethod::Unspecified,
        _ => RecordMethod::Dump,
    }
}
