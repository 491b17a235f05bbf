//! `netns` on the command line.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Command};

const ABOUT: &str = "Lists network namespaces as the running agent sees them";

const LONG_ABOUT: &str = "Lists network namespaces as the running agent sees them: who each is, whose, how it is reached, and what its last \
dump gave and cost.

It asks the agent at --agent, or else at --grpc-listen and --grpc-port. Where none runs there, it looks itself once, as `dump` \
does (which needs root to see everything), and says so on standard error.

States: new (not dumped yet), polled, incomplete (its last dump was cut short), unreachable (it could not be entered), excluded \
(left out by --netns-include or --netns-exclude). Took is what its last dump took, the entry included. A dash stands for what is \
not known.

With --watch it shows what exists, and then each that is created (+), changed (~: its name, owner, state or number of sockets) \
and destroyed (-), until the agent ends. With --json it prints one JSON object a line.

Ends with status 0 when all is told, 1 when something is missing, 2 when it could not be done.

Examples:
  xtcp2-agent netns                                      a table
  xtcp2-agent netns --watch                              what comes and goes
  xtcp2-agent netns --json | jq -r 'select(.sockets > 100) | .name'
  xtcp2-agent netns --agent 127.0.0.1:18889              another agent";

/// What `netns` is told besides the settings.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct NetnsOptions {
    /// Show changes as they happen
    #[arg(id = "list-watch", long = "watch", short = 'w')]
    pub watch: bool,

    /// Print one JSON object a line
    #[arg(id = "list-json", long = "json")]
    pub json: bool,

    /// The agent's gRPC address
    #[arg(id = "list-agent", long = "agent", value_name = "ADDRESS:PORT", value_parser = NonEmptyStringValueParser::new())]
    pub agent: Option<String>,
}

/// The subcommand.
pub fn command() -> Command {
    NetnsOptions::augment_args(Command::new("netns")).about(ABOUT).long_about(LONG_ABOUT)
}
