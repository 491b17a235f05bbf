//! One poll of all namespaces or of named ones, now: `dump` prints its rows, `capture` keeps its datagrams. Without eBPF,
//! and with the same collector, discovery and settings as the agent.

mod capture;
mod options;
mod poll;
mod redact;
mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use xtcp_proto::netns::v1::Netns;

use crate::collector::RowSink;
use crate::config::{Config, Resolved, Source};
use crate::printer::{Marshalled, PrintError, Printer, standard_output};
use crate::record::RowChunk;

use capture::CaptureTap;
pub use options::{CaptureOptions, DumpOptions, FILTER, capture_command, dump_command};
use options::{Form, Where};
use poll::Outcome;
use table::Table;

/// Everything was seen; something was missed; it could not be done.
const COMPLETE: u8 = 0;
const INCOMPLETE: u8 = 1;
const FAILED: u8 = 2;

/// `xtcp2-agent dump`: rows to standard output, what was missed to standard error. Status 0 complete, 1 something was
/// missed, 2 it could not be done.
pub fn dump(settings: Resolved, options: &DumpOptions) -> ExitCode {
    let given = |key: &str| settings.sources.get(key) == Some(&Source::Flag);
    let (marshal_given, columns_given) = (given("marshal"), given("columns"));
    let config = match prepared(settings, &options.netns) {
        Ok(config) => config,
        Err(stop) => return stop,
    };
    let form = options.form(marshal_given.then_some(config.records.marshal), io::stdout().is_terminal());
    let form = match form.laid_out(&config.records, columns_given) {
        Ok(form) => form,
        Err(error) => return failed(&error.to_string()),
    };
    let output = match standard_output() {
        Ok(output) => io::BufWriter::new(output),
        Err(error) => return failed(&format!("standard output: {error}")),
    };
    let (printer, workers): (Box<dyn Printer + Send>, _) = match form {
        // One namespace after the other.
        Form::Table => (Box::new(Table::new(options.wide, output)), 1),
        Form::Marshal(marshaller) => (Box::new(Marshalled::new(marshaller, output)), config.netns.workers),
    };
    let printing = Printing(Arc::new(Mutex::new(State { printer, failed: None })));
    let polled = poll::poll(&config, usize::from(workers), None, &|| Box::new(printing.clone()));
    match (polled, printing.finish()) {
        (Err(error), _) => failed(&error.to_string()),
        // Whoever reads has seen enough.
        (Ok(outcome), Err(error)) if error.is_closed_pipe() => ExitCode::from(told(&outcome)),
        (Ok(_), Err(error)) => failed(&error.to_string()),
        (Ok(outcome), Ok(())) => ExitCode::from(told(&outcome)),
    }
}

/// `xtcp2-agent capture`: what is sent to the kernel and what it answers, to a file. Status as of [`dump`].
pub fn capture(settings: Resolved, options: &CaptureOptions) -> ExitCode {
    let config = match prepared(settings, &options.netns) {
        Ok(config) => config,
        Err(stop) => return stop,
    };
    if config.attribution.mask_addresses.is_some() {
        return failed(
            "--mask-addresses: a capture holds what the kernel sent, addresses and all, and cannot be masked; `dump` can, \
             and `decode` of a capture",
        );
    }
    let tap = match CaptureTap::create(&options.output) {
        Ok(tap) => Arc::new(tap),
        Err(error) => return failed(&error.to_string()),
    };
    let polled = poll::poll(&config, 1, Some(tap.clone()), &|| Box::new(Nowhere));
    match (polled, tap.finish()) {
        (Err(error), _) => failed(&error.to_string()),
        (Ok(_), Err(error)) => failed(&error.to_string()),
        (Ok(outcome), Ok(summary)) => {
            say(&summary);
            ExitCode::from(told(&outcome))
        }
    }
}

/// Every namespace that can be found, each asked once; what was missed is told on standard error. The status as of [`dump`].
pub(crate) fn look(config: &Config) -> Result<(Vec<Netns>, u8), String> {
    let workers = usize::from(config.netns.workers);
    let outcome =
        poll::poll(config, workers, None, &|| Box::new(Nowhere)).map_err(|error| error.to_string())?;
    let status = told(&outcome);
    Ok((outcome.namespaces, status))
}

/// The settings of the agent, with what the subcommand says of namespaces.
fn prepared(settings: Resolved, netns: &Where) -> Result<Config, ExitCode> {
    let mut config = ready(settings)?;
    netns.apply(&mut config).map_err(|error| failed(&error))?;
    Ok(config)
}

/// The settings of the agent for a command that people wait for: only what is wrong is logged, unless they say otherwise.
pub(crate) fn ready(settings: Resolved) -> Result<Config, ExitCode> {
    let quiet = !settings.sources.contains_key("log-level");
    let (config, errors) = (settings.config, settings.errors);
    let Some(mut config) = config.filter(|_| errors.0.is_empty()) else {
        return Err(crate::cli::refuse(&errors));
    };
    if quiet {
        "warn".clone_into(&mut config.log.level);
    }
    crate::logging::init(&config.log).map_err(|error| failed(&error.to_string()))?;
    Ok(config)
}

fn say(text: &str) {
    // Standard error may be closed; the status still tells.
    let _ = writeln!(io::stderr(), "{text}");
}

fn failed(error: &str) -> ExitCode {
    say(&format!("error: {error}"));
    ExitCode::from(FAILED)
}

/// Says what was missed, and gives the status.
fn told(outcome: &Outcome) -> u8 {
    for silent in &outcome.silent {
        say(&format!("names of containers may be missing: {silent}"));
    }
    for missed in &outcome.missed {
        say(&format!("missed: {missed}"));
    }
    match outcome {
        Outcome { visited: 0, .. } => {
            say("error: no network namespace was asked");
            FAILED
        }
        Outcome { missed, .. } if missed.is_empty() => COMPLETE,
        Outcome { .. } => INCOMPLETE,
    }
}

struct State {
    printer: Box<dyn Printer + Send>,
    failed: Option<PrintError>,
}

/// Where workers' rows are printed, one chunk at a time.
#[derive(Clone)]
struct Printing(Arc<Mutex<State>>);

impl Printing {
    fn finish(self) -> Result<(), PrintError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.failed.take() {
            Some(error) => Err(error),
            None => state.printer.finish(),
        }
    }
}

impl RowSink for Printing {
    fn take(&mut self, chunk: RowChunk) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failed.is_none() {
            state.failed = state.printer.print(&chunk.rows).err();
        }
    }
}

/// Takes no rows.
struct Nowhere;

impl RowSink for Nowhere {
    fn take(&mut self, _: RowChunk) {}
}
