//! The command line: which command, with which settings.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use crate::config::{self, Config, ConfigError, ConfigErrors, Resolved, Source, Surroundings};
use crate::load::{self, LoadOptions};
use crate::netns_list::{self, NetnsOptions};
use crate::offline::{self, DecodeOptions};
use crate::once::{self, CaptureOptions, DumpOptions};
use crate::schema::{self, SchemaOptions};

const ABOUT: &str = "Watches every TCP socket of every network namespace of this host";

const LONG_ABOUT: &str = "Watches every TCP socket of every network namespace of this host.

Kernel events (eBPF) tell which socket changed, exact inet_diag lookups ask for it, and a periodic poll of every \
namespace is the truth that both are held to. Without eBPF it polls only. Started with no options it polls every 10 s, \
serves gRPC on 127.0.0.1:8889 and metrics on 127.0.0.1:9088, and sends change events to a NATS on 127.0.0.1:4222.";

const AFTER_HELP: &str = "Every option is also an environment variable and a key of the settings file:
  --events-queue 65536      XTCP_EVENTS_QUEUE=65536      events-queue = 65536
  --netns-dir A --netns-dir B   XTCP_NETNS_DIR=A,B       netns-dir = [\"A\", \"B\"]
A flag beats the environment, which beats the file, which beats the default. An empty variable counts as not set.

Examples:
  xtcp2-agent check                                      can it run here, and if not why
  xtcp2-agent --dest stdout --marshal jsonl              see rows
  xtcp2-agent --events stdout: --events-marshal jsonl    see change events
  xtcp2-agent --frequency 1s --netns-include 'web-*'     poll some namespaces every second
  xtcp2-agent dump --wide                                every socket now, as a table
  xtcp2-agent netns --watch                              what the running agent knows of namespaces
  xtcp2-agent capture -o bug.pcap                        what the kernel answers, for a bug report
  xtcp2-agent decode bug.pcap                            read it again, anywhere";

const CHECK_ABOUT: &str =
    "Says whether the agent can run here with these settings, and what to do where it cannot";

const CHECK_LONG: &str = "Says whether the agent can run here with these settings, and what to do where it cannot.

Prints facts of this host (kernel, capabilities, hooks, namespaces), what the agent would do, and for each shortfall \
what it costs and how to mend it. The eBPF programs are attached for a moment, to see whether they can be; nothing \
stays behind. Ends with status 0 when all is there, 1 when it would run with less, \
2 when it would refuse.";

/// What the program was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Collect until told to end.
    Run,
    /// Say whether it can run here.
    Check {
        /// As JSON instead of text.
        json: bool,
    },
    /// Turn captures into records.
    Decode(DecodeOptions),
    /// Poll once and print.
    Dump(DumpOptions),
    /// Poll once and keep what passes.
    Capture(CaptureOptions),
    /// List namespaces.
    Netns(NetnsOptions),
    /// Make namespaces and connections.
    Load(LoadOptions),
    /// List the destinations and their options.
    Destinations,
    /// Print what rows are.
    Schema(SchemaOptions),
}

/// A command line that was understood; its settings may still be wrong.
pub struct Invocation {
    /// What to do.
    pub task: Task,
    /// With which settings.
    pub settings: Resolved,
}

impl Invocation {
    /// The settings, if all are valid.
    pub fn config(self) -> Result<Config, ConfigErrors> {
        match self.settings.config {
            Some(config) if self.settings.errors.0.is_empty() => Ok(config),
            _ => Err(self.settings.errors),
        }
    }
}

/// Why there is nothing to do.
#[derive(Debug)]
pub enum Stop {
    /// Help or version was asked for.
    Shown(clap::Error),
    /// The command line was not understood; the faults of the other layers stand here too.
    Invalid(ConfigErrors),
}

impl Stop {
    /// Prints help, version or errors; 0 for the former, 2 for the latter.
    pub fn exit(self) -> ExitCode {
        match self {
            Self::Shown(shown) => {
                // A reader that closed its end of the pipe has seen what it wanted.
                let _ = shown.print();
                ExitCode::SUCCESS
            }
            Self::Invalid(errors) => refuse(&errors),
        }
    }
}

/// Prints a text to standard output.
pub fn show(text: &str) -> ExitCode {
    // A reader that closed its end of the pipe has seen what it wanted.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Prints what is wrong with the settings to standard error; status 2.
pub fn refuse(errors: &ConfigErrors) -> ExitCode {
    let text = format!("error: {errors}\n\n`xtcp2-agent --help` explains every option.\n");
    // Standard error may be closed; the status still tells.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(2)
}

/// The whole command with every option, as help shows it.
pub fn command() -> Command {
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON instead of text");
    let check = Command::new("check").about(CHECK_ABOUT).long_about(CHECK_LONG).arg(json);
    config::schema()
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .after_long_help(AFTER_HELP)
        .version(env!("CARGO_PKG_VERSION"))
        .max_term_width(120)
        .mut_args(|arg| arg.global(true))
        .subcommand(check)
        .subcommand(offline::command())
        .subcommand(once::dump_command())
        .subcommand(once::capture_command())
        .subcommand(netns_list::command())
        .subcommand(load::command())
        .subcommand(
            Command::new("destinations").about("Lists every destination, how it is written, and its options"),
        )
        .subcommand(schema::command())
}

/// Understands this process's command line, environment and settings file.
pub fn parse() -> Result<Invocation, Stop> {
    let around = Surroundings {
        env: std::env::vars_os().collect(),
        default_file: config::DEFAULT_FILE.into(),
        read: &|path| std::fs::read_to_string(path),
    };
    parse_from(std::env::args_os().collect(), &around)
}

/// As [`parse`], from the given arguments (the program's name first) and surroundings.
pub fn parse_from(args: Vec<OsString>, around: &Surroundings<'_>) -> Result<Invocation, Stop> {
    match config::untyped(command()).try_get_matches_from(args.clone()) {
        Ok(matches) => {
            let matches = with_filter(&args, matches)?;
            let task = match matches.subcommand() {
                Some(("check", check)) => Ok(Task::Check { json: check.get_flag("json") }),
                Some(("decode", decode)) => DecodeOptions::from_arg_matches(decode).map(Task::Decode),
                Some(("dump", dump)) => DumpOptions::from_arg_matches(dump).map(Task::Dump),
                Some(("capture", capture)) => CaptureOptions::from_arg_matches(capture).map(Task::Capture),
                Some(("netns", netns)) => NetnsOptions::from_arg_matches(netns).map(Task::Netns),
                Some(("load", load)) => LoadOptions::from_arg_matches(load).map(Task::Load),
                Some(("destinations", _)) => Ok(Task::Destinations),
                Some(("schema", schema)) => SchemaOptions::from_arg_matches(schema).map(Task::Schema),
                _ => Ok(Task::Run),
            };
            let task = task.map_err(|e| Stop::Invalid(ConfigErrors(vec![config::structural(&e)])))?;
            Ok(Invocation { task, settings: config::resolve(Some(&matches), around) })
        }
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // The untyped command knows no accepted words; the real one shows them.
            Err(Stop::Shown(command().try_get_matches_from(args).err().unwrap_or(e)))
        }
        Err(e) => {
            let mut errors = vec![config::structural(&e)];
            errors.extend(config::resolve(None, around).errors.0);
            Err(Stop::Invalid(ConfigErrors(errors)))
        }
    }
}

/// The words of a filter behind a subcommand are its option, said otherwise: with them as the option all that holds for
/// the one holds for the other.
fn with_filter(args: &[OsString], matches: ArgMatches) -> Result<ArgMatches, Stop> {
    let words = matches.subcommand().and_then(|(_, told)| told.try_get_many::<String>(once::FILTER).ok()?);
    let Some(words) = words.map(|words| words.map(String::as_str).collect::<Vec<_>>().join(" ")) else {
        return Ok(matches);
    };
    let invalid = |error| Stop::Invalid(ConfigErrors(vec![error]));
    if matches.value_source("filter") == Some(ValueSource::CommandLine) {
        let problem = "given twice: as an option and behind the command".to_owned();
        let (key, value, from) = ("filter".to_owned(), None, Source::Flag);
        return Err(invalid(ConfigError { key, value, from, problem }));
    }
    let mut args = args.to_vec();
    args.insert(1, format!("--filter={words}").into());
    config::untyped(command()).try_get_matches_from(args).map_err(|e| invalid(config::structural(&e)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The surface is pinned: a change shows in the diff of the golden file, and is blessed with `BLESS=1`.
    pub(crate) fn assert_golden(name: &str, actual: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
        if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, actual).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(golden == actual, "{} differs; BLESS=1 blesses what is now:\n{actual}", path.display());
    }

    fn help(args: &[&str]) -> String {
        let args = std::iter::once("xtcp2-agent").chain(args.iter().copied());
        let shown = command().term_width(100).try_get_matches_from(args).unwrap_err();
        assert_eq!(shown.kind(), ErrorKind::DisplayHelp);
        shown.to_string()
    }

    #[test]
    fn help_is_as_blessed() {
        assert_golden("help.txt", &help(&["--help"]));
    }

    #[test]
    fn short_help_is_as_blessed() {
        assert_golden("help-short.txt", &help(&["-h"]));
    }

    #[test]
    fn help_of_check_is_as_blessed() {
        assert_golden("help-check.txt", &help(&["check", "--help"]));
    }

    #[test]
    fn help_of_decode_is_as_blessed() {
        assert_golden("help-decode.txt", &help(&["decode", "--help"]));
    }

    #[test]
    fn help_of_dump_and_capture_is_as_blessed() {
        assert_golden("help-dump.txt", &help(&["dump", "--help"]));
        assert_golden("help-capture.txt", &help(&["capture", "--help"]));
    }

    #[test]
    fn help_of_schema_is_as_blessed() {
        assert_golden("help-schema.txt", &help(&["schema", "--help"]));
    }

    #[test]
    fn help_of_netns_is_as_blessed() {
        assert_golden("help-netns.txt", &help(&["netns", "--help"]));
    }

    #[test]
    fn help_of_load_is_as_blessed() {
        assert_golden("help-load.txt", &help(&["load", "--help"]));
        assert_golden("help-load-netns.txt", &help(&["load", "netns", "--help"]));
        assert_golden("help-load-tcp.txt", &help(&["load", "tcp", "--help"]));
    }

    #[test]
    fn the_list_of_destinations_is_as_blessed_where_all_are_built_in() {
        let list = crate::delivery::route::explain();
        if cfg!(feature = "full") {
            assert_golden("destinations.txt", &list);
        }
        assert!(list.contains("\nnull\n") && list.contains("  queue-bytes="), "{list}");
    }

    #[test]
    fn a_filter_behind_a_command_is_the_option() {
        let around = Surroundings {
            env: Vec::new(),
            default_file: "none.toml".into(),
            read: &|_| Err(std::io::ErrorKind::NotFound.into()),
        };
        let parse = |line: &str| parse_from(line.split(' ').map(OsString::from).collect(), &around);
        let behind = parse("xtcp2-agent dump state listening sport = :443 --wide").ok().unwrap();
        let option = parse_from(
            ["xtcp2-agent", "--filter", "state listening sport = :443"].map(OsString::from).into(),
            &around,
        );
        assert_eq!(behind.config().unwrap(), option.ok().unwrap().config().unwrap());
        for (line, expected) in [
            ("xtcp2-agent dump sport --filter dport=:1", "given twice"),
            ("xtcp2-agent capture -o - sport = nonsense", "filter"),
        ] {
            let errors = match parse(line) {
                Ok(invocation) => invocation.config().unwrap_err(),
                Err(Stop::Invalid(errors)) => errors,
                Err(Stop::Shown(shown)) => panic!("{shown}"),
            };
            assert!(errors.to_string().contains(expected), "{errors}");
        }
    }

    #[test]
    fn the_default_settings_file_is_as_blessed() {
        assert_golden("default.toml", &config::default_file_text());
    }

    #[test]
    fn the_default_settings_file_changes_nothing() {
        let text = config::default_file_text();
        let around = Surroundings {
            env: Vec::new(),
            default_file: "default.toml".into(),
            read: &|_| Ok(text.clone()),
        };
        let invocation = parse_from(vec!["xtcp2-agent".into()], &around).ok().unwrap();
        let mut config = invocation.config().unwrap();
        // Whoever writes the default sink down asks for it.
        assert!(!config.events.by_default);
        config.events.by_default = true;
        assert_eq!(config, Config::defaults().unwrap());
    }
}
