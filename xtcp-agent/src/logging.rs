//! Log lines to standard error, as text for people or JSON for machines; standard output stays for data.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter was not understood.
    #[error("cannot understand log level {level:?}: {source}")]
    Filter {
        /// The filter as it was written.
        level: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// This process has a subscriber already.
    #[error("cannot install the logger: {0}")]
    Install(#[from] TryInitError),
}

/// The directives of the user, and before them those of modules that say by themselves what a library would shout.
fn directives(level: &str) -> String {
    format!("{},{level}", crate::event_sink::LOG_DIRECTIVE)
}

/// Installs the logger of this process. To be called once, before the first thread that logs.
pub fn init(log: &Log) -> Result<(), LoggingError> {
    let filter = EnvFilter::builder()
        .parse(directives(&log.level))
        .map_err(|source| LoggingError::Filter { level: log.level.clone(), source })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written would be reported on standard error too, by a macro that panics there.
        .log_internal_errors(false);
    match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}
