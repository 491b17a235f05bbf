//! `decode` on the command line.

use std::path::PathBuf;

use clap::{Args, Command, value_parser};

use prometheus::Registry;
use xtcp_inet_diag::attr::Selection;

use super::decode::Decode;
use crate::agent::attribution::{self, AttributionError, AttributionMetrics};
use crate::config::{Resolved, Source, Switch, UserNames};
use crate::marshaller::{self, FormatError};
use crate::record::builder::{Extras, HostFields};

const ABOUT: &str = "Turns captures of inet_diag conversations into records, without privilege";

const LONG_ABOUT: &str = "Turns captures of inet_diag conversations into records, without privilege.

Reads pcap and pcapng of link type NETLINK (253), as `xtcp2-agent capture` writes and nlmon devices give them, and files that \
are nothing but netlink messages one behind the other. Whatever else is in a capture is passed over. Each row has the number \
of its dump in dump_number: inet_diag dumps are counted from 1 in the order of their requests, over all families and \
protocols; an answer whose request is not in the file takes the next number where it is first seen; answers to exact \
requests have 0. timestamp_ns is when the dump was asked for, by the capture's clock; files without times have 0.

Rows go to standard output, as jsonl unless --marshal is given; a summary of each file goes to standard error. Settings of \
the environment and the settings file do not count here, and of a capture's host only what --hostname, --location, \
--label and --tag tell is in the rows. Ends with status 0 when all was well, 1 when something in the captures was malformed, \
2 when one could not be read to its end; what was read before is printed all the same.

Examples:
  xtcp2-agent decode bug.pcap                            every row as JSON
  xtcp2-agent decode --dump 2 bug.pcap                   only the second dump
  xtcp2-agent decode --kernel 7.2 bug.pcap               captured on Linux 7.2
  tcpdump -i nlmon0 -w - | xtcp2-agent decode -          as it happens";

/// What `decode` is told besides the settings.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct DecodeOptions {
    /// Captures; - is standard input
    #[arg(id = "capture-file", value_name = "FILE", required = true, value_parser = value_parser!(PathBuf))]
    pub files: Vec<PathBuf>,

    /// Only the dump with this number, counted from 1 in each file
    #[arg(id = "dump-number", long = "dump", value_name = "NUMBER", value_parser = value_parser!(u64).range(1..))]
    pub dump: Option<u64>,

    /// Kernel that was captured, such as 6.12. Default: the running one
    ///
    /// Only the AccECN numbers of tcp_info need it, which 7.0 packs anew.
    #[arg(id = "captured-kernel", long = "kernel", value_name = "VERSION", value_parser = version)]
    pub kernel: Option<(u32, u32)>,
}

fn version(text: &str) -> Result<(u32, u32), String> {
    let mut numbers = text.split(['.', '-']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err("not a version such as 6.12 or 6.12.48".to_owned()),
    }
}

/// The subcommand.
// The texts come last: augmenting takes the options' own doc comment for the command's.
pub fn command() -> Command {
    DecodeOptions::augment_args(Command::new("decode")).about(ABOUT).long_about(LONG_ABOUT)
}

/// Options and what of the settings counts, which is what the command line says.
pub(super) fn assemble(options: &DecodeOptions, settings: &Resolved) -> Result<Decode, FormatError> {
    let given = |key: &str| settings.sources.get(key) == Some(&Source::Flag);
    let config = settings.config.as_ref();
    let mut marshal = marshaller::LINES;
    if let Some(config) = config {
        let mut records = config.records.clone();
        let columns_given = given("columns");
        if !columns_given {
            records.columns.clear();
        }
        if !given("header") {
            records.header = Switch::On;
        }
        let format = if given("marshal") { records.marshal } else { marshaller::LINES };
        marshal = records.for_print(format, columns_given)?;
    }
    let mut host = HostFields::default();
    if let Some(config) = config {
        let fields = [
            ("hostname", &mut host.hostname, &config.identity.hostname),
            ("location", &mut host.location, &config.identity.location),
            ("label", &mut host.label, &config.identity.label),
            ("tag", &mut host.tag, &config.identity.tag),
        ];
        for (key, to, from) in fields {
            if given(key) {
                to.clone_from(from);
            }
        }
    }
    let selection = config.filter(|_| given("deserializers")).map(|config| config.poll.deserializers());
    Ok(Decode {
        selection: selection.unwrap_or(Selection::ALL),
        files: options.files.clone(),
        dump: options.dump,
        marshal,
        host,
        kernel: options.kernel.unwrap_or_else(crate::agent::kernel_version),
    })
}

/// What rows get beside the kernel's words, or lose of them.
pub(super) fn extras(settings: &Resolved) -> Result<Extras, AttributionError> {
    let given = |key: &str| settings.sources.get(key) == Some(&Source::Flag);
    let Some(config) = &settings.config else { return Ok(Extras::default()) };
    let mut attribution = config.attribution.clone();
    // User ids are those of the host that was captured.
    attribution.user_names = UserNames::Off;
    attribution.asn_db.take_if(|_| !given("asn-db"));
    attribution.mask_addresses.take_if(|_| !given("mask-addresses"));
    attribution::extras(&attribution, &AttributionMetrics::register(&Registry::new())?)
}
