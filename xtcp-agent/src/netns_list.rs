//! `xtcp2-agent netns`: every network namespace as the running agent sees it, or, where none runs, as one look finds it.
//! It only reads.

mod ask;
mod line;
mod options;
mod show;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use xtcp_proto::netns::v1::NetnsChangeKind;

use crate::config::{Config, Resolved};
use crate::once;
use crate::printer::standard_output;

use ask::{Agent, AskError};
pub use options::{NetnsOptions, command};
use show::Show;

/// All is told; something is missing; it could not be done.
const COMPLETE: u8 = 0;
const INCOMPLETE: u8 = 1;
const FAILED: u8 = 2;

/// Why nothing is listed, or no more.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot start a runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot write to standard output: {0}")]
    Write(#[from] io::Error),
    /// The words of the look.
    #[error("{0}")]
    Look(String),
    #[error("{source}; --watch needs a running agent: start it, or name it with --agent ADDRESS:PORT")]
    NothingToWatch {
        /// Who did not answer.
        source: AskError,
    },
}

/// Lists or watches. Status 0 all is told, 1 something is missing (told on standard error), 2 it could not be done.
pub fn run(settings: Resolved, options: &NetnsOptions) -> ExitCode {
    let config = match once::ready(settings) {
        Ok(config) => config,
        Err(stop) => return stop,
    };
    match list(&config, options) {
        Ok(status) => ExitCode::from(status),
        // Whoever reads has seen enough.
        Err(ListError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

fn list(config: &Config, options: &NetnsOptions) -> Result<u8, ListError> {
    let output = standard_output()?;
    let mut show = Show::new(options.json, options.watch, output);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(ListError::Runtime)?;
    let address = options.agent.clone().unwrap_or_else(|| ask::address_of(config.listen.grpc()));
    let agent = runtime.block_on(Agent::connect(&address));
    match agent {
        Ok(mut agent) if options.watch => runtime.block_on(watch(&mut agent, &mut show)),
        Ok(mut agent) => {
            let all = runtime.block_on(agent.list())?;
            show.all(&all, SystemTime::now())?;
            Ok(COMPLETE)
        }
        Err(source @ AskError::Nobody { .. }) if options.watch => Err(ListError::NothingToWatch { source }),
        Err(error @ AskError::Nobody { .. }) if options.agent.is_none() => {
            drop(runtime);
            say(&format!("{error}: this is what one look of this command itself finds"));
            let (all, status) = once::look(config).map_err(ListError::Look)?;
            show.all(&all, SystemTime::now())?;
            Ok(status)
        }
        Err(error) => Err(error.into()),
    }
}

/// Shows what is and what happens, until the agent ends.
async fn watch(agent: &mut Agent, show: &mut Show<impl Write>) -> Result<u8, ListError> {
    let mut changes = agent.watch().await?;
    let mut there = Vec::new();
    while let Some(change) = changes.next().await? {
        match (change.kind(), &change.netns) {
            // Together, so that their columns are as wide as they need to be.
            (NetnsChangeKind::Exists, Some(netns)) => there.push(netns.clone()),
            (NetnsChangeKind::AllTold, _) => show.existing(&std::mem::take(&mut there), SystemTime::now())?,
            (NetnsChangeKind::Missed, _) => {
                say(&format!("missed: {} changes that came too fast", change.missed));
            }
            _ => show.change(&change)?,
        }
    }
    say("the agent has ended");
    Ok(INCOMPLETE)
}

fn say(text: &str) {
    // Standard error may be closed; the status still tells.
    let _ = writeln!(io::stderr(), "{text}");
}
