//! Layers of words become one value for each option: a flag beats the environment beats the file beats the default.
//!
//! The clap command is the only list of options: its long names are the keys of the file and, in capitals after
//! `XTCP_`, the names of the variables; its value parsers check the words of every layer alike.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::error::{ConfigError, KNOWN, Source, nearest};
use super::file;

/// Everything that settings are made of besides the command line.
pub struct Surroundings<'a> {
    /// Environment variables.
    pub env: Vec<(OsString, OsString)>,
    /// File that is read when none is named, if it exists.
    pub default_file: PathBuf,
    /// How a file is read.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// One option of the schema.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Long flag without dashes.
    pub(super) long: String,
    /// Whether it takes several values.
    pub(super) repeatable: bool,
    arg: Arg,
}

impl Key {
    /// The option as the schema has it.
    pub(super) fn arg(&self) -> &Arg {
        &self.arg
    }

    /// What stands between several values in one word.
    fn separator(&self) -> char {
        self.arg.get_value_delimiter().unwrap_or(',')
    }
}

/// What one layer says about one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) values: Vec<String>,
    pub(super) source: Source,
}

/// The options of a command that was not built yet, and so has neither help nor version.
pub(super) fn keys(schema: &Command) -> Vec<Key> {
    schema
        .get_arguments()
        .filter_map(|arg| {
            let long = arg.get_long()?.to_owned();
            let repeatable = matches!(arg.get_action(), ArgAction::Append);
            Some(Key { long, repeatable, arg: arg.clone() })
        })
        .collect()
}

/// The same command for words: any value of any option passes, so that one bad value does not hide another.
pub(super) fn untyped(schema: Command) -> Command {
    schema.mut_args(|arg| arg.value_parser(ValueParser::os_string()))
}

/// The layers put together: for each option that is given, the words of the strongest layer. Options whose words are
/// not valid are left out, and named in the errors.
pub(super) fn merge(
    keys: &[Key],
    flags: Option<&ArgMatches>,
    around: &Surroundings<'_>,
) -> (BTreeMap<String, Given>, Vec<ConfigError>) {
    let mut errors = Vec::new();
    let mut flags = flags.map(|matches| from_flags(keys, matches, &mut errors)).unwrap_or_default();
    let mut env = from_env(keys, &around.env, &mut errors);
    let named = flags.get("config").or_else(|| env.get("config"));
    let mut file = read_file(keys, named, around, &mut errors);
    let mut merged = BTreeMap::new();
    for key in keys {
        // Each layer is checked, also where a stronger one hides it: what is wrong there would strike later.
        for layer in [&mut file, &mut env, &mut flags] {
            if let Some(given) = layer.remove(&key.long)
                && check(key, &given, &mut errors)
                && !given.values.is_empty()
            {
                merged.insert(key.long.clone(), given);
            }
        }
    }
    (merged, errors)
}

fn from_flags(keys: &[Key], matches: &ArgMatches, errors: &mut Vec<ConfigError>) -> BTreeMap<String, Given> {
    let mut given = BTreeMap::new();
    for key in keys {
        let id = key.arg.get_id().as_str();
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let raw = matches.get_raw(id).into_iter().flatten();
        let values = raw.filter_map(|word| text(key, word, &Source::Flag, errors)).collect();
        given.insert(key.long.clone(), Given { values, source: Source::Flag });
    }
    given
}

fn text(key: &Key, word: &OsStr, from: &Source, errors: &mut Vec<ConfigError>) -> Option<String> {
    if let Some(text) = word.to_str() {
        return Some(text.to_owned());
    }
    errors.push(ConfigError {
        key: key.long.clone(),
        value: Some(word.to_string_lossy().into_owned()),
        from: from.clone(),
        problem: "not UTF-8".to_owned(),
    });
    None
}

/// The environment variable of an option.
pub(crate) fn variable(long: &str) -> String {
    format!("XTCP_{}", long.replace('-', "_").to_ascii_uppercase())
}

fn from_env(
    keys: &[Key],
    env: &[(OsString, OsString)],
    errors: &mut Vec<ConfigError>,
) -> BTreeMap<String, Given> {
    let names: Vec<String> = keys.iter().map(|key| variable(&key.long)).collect();
    let mut given = BTreeMap::new();
    for (name, value) in env {
        let Some(name) = name.to_str().filter(|name| name.starts_with("XTCP_")) else { continue };
        if name.starts_with("XTCP_TEST_") {
            continue;
        }
        let source = Source::Env(name.to_owned());
        let Some(key) = keys.iter().find(|key| variable(&key.long) == name) else {
            if is_service_link(name, value) {
                continue;
            }
            errors.push(unknown("variable", name, name, names.iter().map(String::as_str), source));
            continue;
        };
        // Empty is how a unit file or a manifest says "not set".
        let Some(value) = text(key, value, &source, errors).filter(|value| !value.is_empty()) else {
            continue;
        };
        let values = if key.repeatable {
            value.split(key.separator()).map(|word| word.trim().to_owned()).collect()
        } else {
            vec![value]
        };
        given.insert(key.long.clone(), Given { values, source });
    }
    given
}

/// Whether Kubernetes made the variable: every container is told of the services of its namespace, and one of them may be
/// called xtcp or xtcp-something.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let is_numbered = |rest: &str| {
        let mut words = rest.split('_');
        words.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && words.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| is_numbered(rest))
        || (name.ends_with("_PORT") && value.to_str().is_some_and(|value| value.contains("://")))
}

fn read_file(
    keys: &[Key],
    named: Option<&Given>,
    around: &Surroundings<'_>,
    errors: &mut Vec<ConfigError>,
) -> BTreeMap<String, Given> {
    let named_path = named.and_then(|given| given.values.first()).map(PathBuf::from);
    let path = named_path.as_deref().unwrap_or(&around.default_file);
    match (around.read)(path) {
        Ok(content) => {
            let (given, faults) = file::parse(&content, path, keys);
            errors.extend(faults);
            given
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && named.is_none() => BTreeMap::new(),
        Err(e) => {
            let from =
                named.map_or(Source::File { path: path.to_owned(), line: 0 }, |given| given.source.clone());
            let value = Some(path.display().to_string());
            errors.push(ConfigError {
                key: "config".to_owned(),
                value,
                from,
                problem: format!("cannot be read: {e}"),
            });
            BTreeMap::new()
        }
    }
}

/// Whether every word of an option is valid; what is not is added to the errors.
fn check(key: &Key, given: &Given, errors: &mut Vec<ConfigError>) -> bool {
    let before = errors.len();
    let error =
        |value: Option<&str>, problem| ConfigError::new(&key.long, value, given.source.clone(), problem);
    if given.values.is_empty() && !key.arg.get_default_values().is_empty() {
        errors.push(error(None, "an empty list; leave the key out for the default".to_owned()));
    }
    let lone = Command::new("value")
        .no_binary_name(true)
        .disable_help_flag(true)
        .arg(key.arg.clone().value_delimiter(None).global(false));
    for value in &given.values {
        if let Err(e) = lone.clone().try_get_matches_from([argument(&key.long, value)]) {
            errors.push(error(Some(value), problem(&e)));
        }
    }
    errors.len() == before
}

/// The words of an option as clap takes them.
pub(super) fn argument(long: &str, value: &str) -> OsString {
    OsString::from(format!("--{long}={value}"))
}

/// What clap found wrong with a value, in one line.
fn problem(error: &clap::Error) -> String {
    if let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue)
        && !valid.is_empty()
    {
        return format!("accepted: {}", valid.join(", "));
    }
    let source = std::error::Error::source(error).map(ToString::to_string);
    source.unwrap_or_else(|| one_line(error))
}

/// An error of the command line's form, such as a flag that does not exist.
pub(super) fn structural(error: &clap::Error, keys: &[Key]) -> ConfigError {
    let mut problem = one_line(error);
    if error.kind() == ErrorKind::UnknownArgument {
        let known: Vec<String> = keys.iter().map(|key| format!("--{}", key.long)).collect();
        problem = format!("{problem}; {KNOWN}{}", known.join(", "));
    }
    if error.kind() == ErrorKind::InvalidSubcommand {
        problem = format!("{problem}; {KNOWN}check, decode, dump, capture, netns, destinations, schema");
    }
    ConfigError { key: "arguments".to_owned(), value: None, from: Source::Flag, problem }
}

fn one_line(error: &clap::Error) -> String {
    let all = error.to_string();
    let head = all.split("\n\nUsage:").next().unwrap_or(&all);
    let head = head.split("\n\nFor more information").next().unwrap_or(head);
    let lines: Vec<&str> = head.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").trim_start_matches("error: ").to_owned()
}

/// An error for a name that no option has; `like` is the name in the form of the known ones.
pub(super) fn unknown<'a>(
    what: &str,
    written: &str,
    like: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    from: Source,
) -> ConfigError {
    let hint = nearest(like, known.clone()).map(|name| format!("did you mean {name}? ")).unwrap_or_default();
    let known: Vec<&str> = known.collect();
    let problem = format!("unknown {what}; {hint}{KNOWN}{}", known.join(", "));
    ConfigError { key: written.to_owned(), value: None, from, problem }
}
