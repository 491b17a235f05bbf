//! `load` on the command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum, value_parser};

use crate::config;

const ABOUT: &str = "Makes network namespaces and TCP connections in numbers, for tests";

const LONG_ABOUT: &str = "Makes network namespaces and TCP connections in numbers, for tests of the agent and of hosts.

It needs neither eBPF nor a running agent. Progress goes to standard error, a summary as one line of JSON to standard output. \
It ends when all is made that --count asks for, after --time, or by SIGINT or SIGTERM, and removes all that it made. Ends with \
status 0 when all went well, 1 when something did not, 2 when it could not be done.";

const NETNS_ABOUT: &str = "Makes and ends network namespaces, with connections inside";

const NETNS_LONG: &str = "Makes and ends network namespaces, with connections inside.

First so many are made as --initial says. Then, if there is a --rate or a --count, one after the other is made, and for each the \
oldest is ended, so that their number stays the same; with --initial 0 each is ended as soon as it is made. Without --rate and \
--count the first ones stay until --time is over or a signal comes. --time counts from when the first ones are made. It needs \
root.

Anonymous namespaces (the default) are held by a thread inside, or with --held-by socket by their sockets alone; --named ones by \
a file under --directory, as `ip netns add` makes them. Inside, loopback is up; each connection goes over it from a port of its \
own to a listener, and carries one message each way, with --sleep another one as often as that. With --through-veth it comes \
over a veth from one more namespace, which holds the other ends and is gone with the rest. Every namespace has ports of its own out of --ports, as long as they \
reach: a row that shows a port under another namespace's identity is wrong. --log tells which namespace had which ports, and \
when it was made and ended.

The summary's still_alive says how many of the ended namespaces the kernel still had at the end, after up to 10 s (null where \
it cannot tell: Linux other than 6.18).

Examples:
  xtcp2-agent load netns --initial 1000 --time 1m        1 000 namespaces for a minute
  xtcp2-agent load netns --count 10000                   as fast as it goes, one after the other
  xtcp2-agent load netns --initial 50 --rate 20 --named  churn until ^C, under /run/netns
  xtcp2-agent load netns --initial 50 --through-veth --sleep 100ms  traffic over 50 veths until ^C";

const TCP_ABOUT: &str = "Makes TCP connections, with messages on them";

const TCP_LONG: &str = "Makes TCP connections, with messages on them.

A server answers each message with the same bytes. --connections of them are open at once: they stay until the end, with a \
message every --sleep (or with --hold silent after the first), or with --short-lived each is closed after --messages, and the \
next one made, up to --count in all. --rate says how many are opened a second. --time counts from the start.

Servers and clients run here, or with --netns, --server-netns and --client-netns in other namespaces (CAP_SYS_ADMIN). With --role \
server it only serves, with --role client it only connects, to whoever answers a message with as many bytes.

Examples:
  xtcp2-agent load tcp --connections 10000 --hold        10 000 silent connections until ^C
  xtcp2-agent load tcp --short-lived --rate 500 --count 100000 --close reset
  xtcp2-agent load tcp --family ipv6 --netns blue --sleep 10ms --message 16384 --time 30s";

/// What `load` is told.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    pub(super) task: Task,
}

impl LoadOptions {
    /// Out of the matches of [`command`].
    pub fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Task::from_arg_matches(matches).map(|task| Self { task })
    }
}

#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(super) enum Task {
    #[command(about = NETNS_ABOUT, long_about = NETNS_LONG)]
    Netns(NetnsOptions),
    #[command(about = TCP_ABOUT, long_about = TCP_LONG)]
    Tcp(TcpOptions),
    /// Waits for the end of its standard input, then removes what `netns --named` left
    #[command(hide = true)]
    Guard {
        #[arg(id = "guard-directory", long = "directory")]
        directory: PathBuf,
        #[arg(id = "guard-prefix", long = "prefix", value_parser = name_prefix)]
        prefix: String,
    },
}

/// The subcommand. The agent's settings are accepted, as with every other one, count for nothing, and are not shown.
pub fn command() -> Command {
    let settings = config::schema();
    let settings = settings
        .get_arguments()
        .map(|arg| arg.clone().global(true).hide(true).value_parser(ValueParser::os_string()));
    Task::augment_subcommands(Command::new("load"))
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .hide(true)
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .args(settings)
}

/// What both have.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
pub(super) struct Common {
    /// End after this time: 10ms to 7 days
    #[arg(id = "load-time", long = "time", value_name = "DURATION",
          value_parser = config::duration(Duration::from_millis(10), Duration::from_secs(7 * 86_400)))]
    pub(super) time: Option<Duration>,

    /// How many a second: above 0, to 1000000; with a fraction if need be. Default: as many as the machine gives
    #[arg(id = "load-rate", long = "rate", value_name = "NUMBER", value_parser = per_second)]
    pub(super) rate: Option<f64>,

    /// IP version of the connections
    #[arg(id = "load-family", long = "family", value_enum, value_name = "FAMILY", default_value = "ipv4")]
    pub(super) family: Family,

    /// How connections are closed
    #[arg(id = "load-close", long = "close", value_enum, value_name = "HOW")]
    pub(super) close: Option<Close>,

    /// No progress
    #[arg(id = "load-quiet", long = "quiet", short = 'q')]
    pub(super) quiet: bool,
}

#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
pub(super) struct NetnsOptions {
    /// Namespaces that exist at once: 0 to 1000000
    #[arg(id = "load-initial", long = "initial", value_name = "NUMBER", default_value_t = 0,
          value_parser = value_parser!(u64).range(..=1_000_000))]
    pub(super) initial: u64,

    /// Namespaces made after the first ones. Default: until the end
    #[arg(id = "load-count", long = "count", value_name = "NUMBER", value_parser = value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,

    #[command(flatten)]
    pub(super) common: Common,

    /// Bind each to a file, as `ip netns add` does
    #[arg(id = "load-named", long = "named")]
    pub(super) named: bool,

    /// Folder of those files
    #[arg(id = "load-directory", long = "directory", value_name = "FOLDER", default_value = "/run/netns")]
    pub(super) directory: PathBuf,

    /// How their names begin; the process id and a number follow: letters, digits, - and _
    #[arg(id = "load-prefix", long = "prefix", value_name = "TEXT", default_value = "load", value_parser = name_prefix)]
    pub(super) prefix: String,

    /// What holds the anonymous ones
    #[arg(
        id = "load-holder",
        long = "held-by",
        value_enum,
        value_name = "HOLDER",
        default_value = "thread",
        conflicts_with = "load-named"
    )]
    pub(super) holder: Holder,

    /// Connections in each namespace: 0 to 10000
    #[arg(id = "load-inside", long = "connections", value_name = "NUMBER", default_value_t = 1,
          value_parser = value_parser!(u16).range(..=10_000))]
    pub(super) connections: u16,

    /// Bytes of the message that each connection carries in each direction: 0 to 16384
    #[arg(id = "load-message", long = "message", value_name = "BYTES", default_value_t = 100,
          value_parser = value_parser!(u32).range(..=16_384))]
    pub(super) message: u32,

    /// Ports that the namespaces share out: each takes one for its listener and one for each connection
    #[arg(id = "load-ports", long = "ports", value_name = "FIRST-LAST", default_value = "20000-59999",
          value_parser = ports)]
    pub(super) ports: Ports,

    /// Give each a veth: eth0 inside, the other end in this namespace; both stay down
    #[arg(id = "load-veth", long = "veth")]
    pub(super) veth: bool,

    /// Give each a veth that is up, and make its connections over it: from one more namespace, with the other ends
    #[arg(id = "load-through-veth", long = "through-veth", conflicts_with = "load-veth")]
    pub(super) through_veth: bool,

    /// Time between two messages of each connection: 10ms to 24h. Default: it has one when it is made, and no more
    #[arg(id = "load-again", long = "sleep", value_name = "DURATION",
          value_parser = config::duration(Duration::from_millis(10), Duration::from_secs(86_400)))]
    pub(super) sleep: Option<Duration>,

    /// Threads that make and end namespaces: 1 to 64. Default: as many as processors, at most 4
    #[arg(id = "load-workers", long = "workers", value_name = "THREADS", value_parser = value_parser!(u8).range(1..=64))]
    pub(super) workers: Option<u8>,

    /// File that gets a line of JSON for each namespace that was made, and for each that was ended
    #[arg(id = "load-log", long = "log", value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
}

#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
pub(super) struct TcpOptions {
    /// Connections that are open at once: 1 to 1000000
    #[arg(id = "load-connections", long = "connections", value_name = "NUMBER", default_value_t = 100,
          value_parser = value_parser!(u64).range(1..=1_000_000))]
    pub(super) connections: u64,

    /// Bytes of a message: 1 to 1048576
    #[arg(id = "load-message", long = "message", value_name = "BYTES", default_value_t = 100,
          value_parser = value_parser!(u32).range(1..=1_048_576))]
    pub(super) message: u32,

    /// Time between two messages of a connection: 0s to 24h
    #[arg(id = "load-sleep", long = "sleep", value_name = "DURATION", default_value = "1s",
          value_parser = config::duration(Duration::ZERO, Duration::from_secs(86_400)))]
    pub(super) sleep: Duration,

    /// Stay silent after the first message
    #[arg(id = "load-hold", long = "hold", conflicts_with_all = ["load-short", "load-sleep"])]
    pub(super) hold: bool,

    /// Close each connection after --messages, and make another
    #[arg(id = "load-short", long = "short-lived")]
    pub(super) short_lived: bool,

    /// Messages of a short-lived connection: 1 to 1000000
    #[arg(id = "load-messages", long = "messages", value_name = "NUMBER", default_value_t = 1, requires = "load-short",
          value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(super) messages: u32,

    /// Short-lived connections in all. Default: until the end
    #[arg(id = "load-count", long = "count", value_name = "NUMBER", requires = "load-short",
          value_parser = value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,

    #[command(flatten)]
    pub(super) common: Common,

    /// Which ends are made
    #[arg(id = "load-role", long = "role", value_enum, value_name = "ROLE", default_value = "both")]
    pub(super) role: Role,

    /// Where servers listen and clients connect to. Default: loopback
    #[arg(id = "load-address", long = "address", value_name = "ADDRESS", conflicts_with = "load-family")]
    pub(super) address: Option<IpAddr>,

    /// First port of the servers; 0 for any free ones
    #[arg(
        id = "load-port",
        long = "port",
        value_name = "PORT",
        default_value_t = 0,
        required_if_eq("load-role", "client")
    )]
    pub(super) port: u16,

    /// Listeners, on a port each: 1 to 1000. Default: one for each 20000 connections, and 4 for short-lived ones
    #[arg(id = "load-listeners", long = "listeners", value_name = "NUMBER", value_parser = value_parser!(u16).range(1..=1_000))]
    pub(super) listeners: Option<u16>,

    /// Namespace of both ends: a name under /run/netns, or a path
    #[arg(id = "load-netns", long = "netns", value_name = "NAME|PATH")]
    pub(super) netns: Option<PathBuf>,

    /// Namespace of the servers
    #[arg(
        id = "load-server-netns",
        long = "server-netns",
        value_name = "NAME|PATH",
        conflicts_with = "load-netns"
    )]
    pub(super) server_netns: Option<PathBuf>,

    /// Namespace of the clients
    #[arg(
        id = "load-client-netns",
        long = "client-netns",
        value_name = "NAME|PATH",
        conflicts_with = "load-netns"
    )]
    pub(super) client_netns: Option<PathBuf>,
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Family {
    /// 127.0.0.1
    Ipv4,
    /// ::1
    Ipv6,
    /// Both, in turn
    Both,
}

impl Family {
    /// Loopback of the connection with this number.
    pub(super) fn loopback(self, number: u64) -> IpAddr {
        match self {
            Self::Ipv4 => [127, 0, 0, 1].into(),
            Self::Ipv6 => [0, 0, 0, 0, 0, 0, 0, 1_u16].into(),
            Self::Both if number.is_multiple_of(2) => Self::Ipv4.loopback(0),
            Self::Both => Self::Ipv6.loopback(0),
        }
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Close {
    /// The client closes, then the server; leaves a TIME_WAIT
    Fin,
    /// The client sends a reset; leaves nothing
    Reset,
}

/// What keeps a namespace without a name alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Holder {
    /// A thread inside
    Thread,
    /// Its sockets: no process and no file leads there
    Socket,
}

/// Which ends of the connections are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Servers and clients
    Both,
    /// Only servers
    Server,
    /// Only clients
    Client,
}

/// A range of ports, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) first: u16,
    pub(super) last: u16,
}

fn ports(word: &str) -> Result<Ports, String> {
    let numbers =
        word.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    match numbers {
        Some((first, last)) if first > 0 && first <= last => Ok(Ports { first, last }),
        _ => Err("accepted: two ports from 1 to 65535, the lower one first, such as 20000-59999".to_owned()),
    }
}

fn per_second(word: &str) -> Result<f64, String> {
    match word.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("accepted: a number above 0, at most 1000000, such as 200 or 0.5".to_owned()),
    }
}

fn name_prefix(word: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=64).contains(&word.len()) && word.chars().all(fits) {
        return Ok(word.to_owned());
    }
    Err("accepted: 1 to 64 letters, digits, - and _".to_owned())
}
