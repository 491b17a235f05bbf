//! Settings: layers of words in, one valid [`Config`] out, all errors at once.
//!
//! Never does: act on a setting. A new option is a field in one of the groups with its doc, unit and range; the
//! environment variable, the key of the file and the help follow from it.

mod attribution;
mod ebpf;
mod error;
mod file;
mod layer;
mod netns;
mod output;
mod poll;
mod rule;
mod sample;
mod service;
mod topology;
mod value;
mod workload;

use std::collections::BTreeMap;

use clap::{ArgMatches, Args, Command, FromArgMatches};

pub use attribution::Attribution;
pub use ebpf::Ebpf;
pub(crate) use error::nearest;
pub use error::{ConfigError, ConfigErrors, Source};
pub use layer::Surroundings;
pub use netns::{Netns, Sockets};
pub use output::{Envelope, Events, Records};
pub use poll::{Lookup, Poll};
pub use sample::default_file_text;
pub use service::{Identity, Listen, Log, Program};
pub use topology::Topology;
pub use value::{EbpfMode, LogFormat, OwnConnections, ProcessScan, Switch, UserNames, format_bytes};
pub(crate) use value::{duration, size};
pub use workload::Workload;

/// File that is read when `--config` names none.
pub const DEFAULT_FILE: &str = "/etc/xtcp2-agent/xtcp2-agent.toml";

/// Every setting, valid alone and with the others.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[expect(missing_docs, reason = "each group has its documentation; here it would become a text of --help")]
pub struct Config {
    #[command(flatten)]
    pub poll: Poll,
    #[command(flatten)]
    pub sockets: Sockets,
    #[command(flatten)]
    pub netns: Netns,
    #[command(flatten)]
    pub workload: Workload,
    #[command(flatten)]
    pub attribution: Attribution,
    #[command(flatten)]
    pub topology: Topology,
    #[command(flatten)]
    pub records: Records,
    #[command(flatten)]
    pub envelope: Envelope,
    #[command(flatten)]
    pub events: Events,
    #[command(flatten)]
    pub ebpf: Ebpf,
    #[command(flatten)]
    pub lookup: Lookup,
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub log: Log,
    #[command(flatten)]
    pub program: Program,
}

impl Config {
    /// The settings of an agent that was told nothing.
    pub fn defaults() -> Result<Self, ConfigErrors> {
        let nothing = Surroundings {
            env: Vec::new(),
            default_file: DEFAULT_FILE.into(),
            read: &|_| Err(std::io::ErrorKind::NotFound.into()),
        };
        let resolved = resolve(None, &nothing);
        resolved.config.filter(|_| resolved.errors.0.is_empty()).ok_or(resolved.errors)
    }
}

/// What the layers came to.
pub struct Resolved {
    /// The settings. Where one was not valid, its default stands here, so that `check` can go on. None only if the
    /// defaults themselves do not parse.
    pub config: Option<Config>,
    /// What is wrong; empty when all is well.
    pub errors: ConfigErrors,
    /// Where each setting that is not a default came from, by key.
    pub sources: BTreeMap<String, Source>,
}

/// The schema: a command that has every setting as an option.
pub(crate) fn schema() -> Command {
    Config::augment_args(Command::new("xtcp2-agent"))
}

/// The schema for the first pass over the command line, where every word passes.
pub(crate) fn untyped(command: Command) -> Command {
    layer::untyped(command)
}

/// An error in the command line's form rather than in a value.
pub(crate) fn structural(error: &clap::Error) -> ConfigError {
    layer::structural(error, &layer::keys(&schema()))
}

/// Puts the layers together. `flags` are the matches of the [`untyped`] command line.
pub fn resolve(flags: Option<&ArgMatches>, around: &Surroundings<'_>) -> Resolved {
    let keys = layer::keys(&schema());
    let (given, mut errors) = layer::merge(&keys, flags, around);
    let words = given
        .iter()
        .flat_map(|(long, given)| given.values.iter().map(|value| layer::argument(long, value)))
        .collect::<Vec<_>>();
    // A comma in a word that is already one item of a list must not split it again.
    let typed = schema().no_binary_name(true).mut_args(|arg| arg.value_delimiter(None));
    let parsed = typed.try_get_matches_from(words).and_then(|matches| Config::from_arg_matches(&matches));
    let mut config = match parsed {
        Ok(config) => Some(config),
        Err(e) => {
            errors.push(layer::structural(&e, &keys));
            None
        }
    };
    if let Some(config) = &mut config {
        config.events.by_default = !given.contains_key("events");
        rule::adapt(config, |key| given.contains_key(key) || errors.iter().any(|error| error.key == key));
        for broken in rule::broken(config) {
            if errors.iter().any(|error| broken.keys.contains(&error.key.as_str())) {
                continue;
            }
            let blame = broken.keys.iter().find_map(|key| Some((*key, given.get(*key)?)));
            let (key, from) = blame
                .map_or((*broken.keys.first().unwrap_or(&""), Source::Default), |(key, given)| {
                    (key, given.source.clone())
                });
            errors.push(ConfigError { key: key.to_owned(), value: None, from, problem: broken.problem });
        }
    }
    let sources = given.into_iter().map(|(key, given)| (key, given.source)).collect();
    Resolved { config, errors: ConfigErrors(errors), sources }
}

#[cfg(test)]
mod tests;
