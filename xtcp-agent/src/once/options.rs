//! `dump` and `capture` on the command line.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, Command, value_parser};

use crate::config::{Config, Records};
use crate::marshaller::{self, FormatError, Marshaller};

const DUMP_ABOUT: &str = "Prints the sockets of every network namespace once, and ends";

const DUMP_LONG: &str = "Prints the sockets of every network namespace once, and ends.

One poll of all namespaces, or of those that --netns names, with the settings of the agent: --states, --include-port, \
--exclude-port, --netns-exclude and so on count here too. It needs no eBPF. To enter other namespaces it needs CAP_SYS_ADMIN, \
to find those of others' processes CAP_SYS_PTRACE; without them it prints what it may see, and says what not. A namespace that \
neither a process nor a file under --netns-dir leads to is not found.

Rows say whose their namespaces are (container, pod, unit) as the agent's do; the engines of --docker-socket and --cri-socket \
are waited for, all together, 2s at most, and who did not answer by then is named on standard error, which changes no status. \
With --process-scan start they say which process holds the socket, too.

On a terminal it prints a table like that of `ss`, elsewhere jsonl; --format says otherwise. What was missed is told on \
standard error. Ends with status 0 when nothing was missed, 1 when something was, 2 when it could not be done.

Examples:
  xtcp2-agent dump                                       everything, as a table
  xtcp2-agent dump --netns 'web-*' --wide                some namespaces, with tcp_info
  xtcp2-agent dump state listening --format jsonl        listeners, as JSON
  xtcp2-agent dump dport = :443 and dst 10.0.0.0/8       some connections
  xtcp2-agent dump --netns /proc/4711/ns/net             the namespace of a process";

const CAPTURE_ABOUT: &str = "Writes what the kernel answers to one poll, for bug reports";

const CAPTURE_LONG: &str = "Writes what the kernel answers to one poll, for bug reports.

Asks every network namespace once, as `dump` does, and writes requests and answers as they are: a pcap file of link type \
NETLINK (253), which `xtcp2-agent decode`, tcpdump and tshark read. The namespaces are told apart by the address in each \
packet's header, which is the namespace's inode.

TCP MD5 keys, which the kernel tells to whoever has CAP_NET_ADMIN, are blanked before anything is written. Addresses, \
ports, user ids and cgroups are in the file: look at it (`xtcp2-agent decode FILE`) before you give it away. Its mode is \
0600.

Ends with status 0 when nothing was missed, 1 when something was, 2 when it could not be done.

Examples:
  xtcp2-agent capture -o bug.pcap                        every namespace
  xtcp2-agent capture -o bug.pcap --netns blue           one namespace
  xtcp2-agent capture -o bug.pcap sport = :443           what concerns one port
  xtcp2-agent capture -o - | xtcp2-agent decode -        the same rows as `dump --format jsonl`";

/// The words of a filter behind a subcommand.
pub const FILTER: &str = "socket-filter";

/// Which namespaces, and which of their sockets.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Where {
    /// Only sockets that pass this filter in the words of ss, as --filter: dport = :443 and src 10.0.0.0/8
    ///
    /// Quote what the shell would take for its own: ( ) < > ! & |
    #[arg(id = FILTER, value_name = "FILTER")]
    pub filter: Vec<String>,

    /// Only these namespaces: a name in which * and ? are wild, an inode, or a path to one; repeatable
    ///
    /// As --netns-include, and paths. None given: all.
    #[arg(id = "netns", long = "netns", value_name = "NAME|INODE|PATH")]
    pub netns: Vec<String>,
}

impl Where {
    /// Adds to what the settings include.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), String> {
        for word in &self.netns {
            if word.is_empty() {
                return Err("--netns is empty: give a name, an inode or a path".to_owned());
            }
            let pattern = if word.contains('/') { inode_of(Path::new(word))? } else { word.clone() };
            config.netns.include.push(pattern);
        }
        Ok(())
    }
}

/// Inode of the namespace that a path leads to.
fn inode_of(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let there = std::fs::metadata(path).map_err(|error| format!("--netns {shown}: {error}"))?;
    let nsfs = std::fs::metadata("/proc/thread-self/ns/net").map_err(|error| format!("/proc: {error}"))?;
    if there.dev() != nsfs.dev() {
        return Err(format!("--netns {shown}: is no namespace"));
    }
    Ok(there.ino().to_string())
}

/// What `dump` is told besides the settings.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
pub struct DumpOptions {
    /// Which namespaces.
    #[command(flatten)]
    pub netns: Where,

    /// Form of the rows: table, or a format of --marshal
    #[arg(id = "form", long = "format", value_name = "FORM", value_parser = form())]
    pub format: Option<Form>,

    /// A table with what `ss -tiemo` tells too: timers, memory, tcp_info
    #[arg(id = "wide", long = "wide", short = 'w')]
    pub wide: bool,
}

impl DumpOptions {
    /// The form to print in.
    pub(super) fn form(&self, marshal: Option<&'static dyn Marshaller>, terminal: bool) -> Form {
        let asked = self.format.clone().or(marshal.map(Form::Marshal));
        let table = terminal || self.wide;
        asked.unwrap_or(if table { Form::Table } else { Form::Marshal(marshaller::LINES) })
    }
}

/// A form of rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Columns for people.
    Table,
    /// A format for programs.
    Marshal(&'static dyn Marshaller),
}

impl Form {
    /// With the columns and the header of the settings, if it is a form that has such.
    pub(super) fn laid_out(self, records: &Records, columns_given: bool) -> Result<Self, FormatError> {
        match self {
            Self::Table if columns_given => Err(FormatError::NoColumns { name: "table" }),
            Self::Table => Ok(Self::Table),
            Self::Marshal(format) => records.for_print(format, columns_given).map(Self::Marshal),
        }
    }
}

fn form() -> impl clap::builder::TypedValueParser<Value = Form> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    let names = std::iter::once("table").chain(marshaller::FORMATS.map(Marshaller::name));
    PossibleValuesParser::new(names).try_map(|name| {
        if name == "table" { Ok(Form::Table) } else { marshaller::parse(&name).map(Form::Marshal) }
    })
}

/// What `capture` is told besides the settings.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct CaptureOptions {
    /// Which namespaces.
    #[command(flatten)]
    pub netns: Where,

    /// The file to write; - is standard output
    #[arg(id = "output", long = "output", short = 'o', value_name = "FILE", required = true,
          value_parser = value_parser!(PathBuf))]
    pub output: PathBuf,
}

/// The subcommand `dump`.
// The texts come last: augmenting takes the options' own doc comment for the command's.
pub fn dump_command() -> Command {
    DumpOptions::augment_args(Command::new("dump")).about(DUMP_ABOUT).long_about(DUMP_LONG)
}

/// The subcommand `capture`.
pub fn capture_command() -> Command {
    CaptureOptions::augment_args(Command::new("capture")).about(CAPTURE_ABOUT).long_about(CAPTURE_LONG)
}
