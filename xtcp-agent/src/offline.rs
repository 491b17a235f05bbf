//! What needs no kernel: captures become records again.

mod decode;
mod dumps;
mod options;
mod request;
mod summary;

use std::process::ExitCode;

use crate::config::{ConfigErrors, Resolved, Source};

pub use options::{DecodeOptions, command};

/// `xtcp2-agent decode`. Of the settings only the command line counts.
pub fn decode(settings: &Resolved, options: &DecodeOptions) -> ExitCode {
    let wrong: Vec<_> =
        settings.errors.0.iter().filter(|error| error.from == Source::Flag).cloned().collect();
    if !wrong.is_empty() {
        return crate::cli::refuse(&ConfigErrors(wrong));
    }
    let extras = match options::extras(settings) {
        Ok(extras) => extras,
        Err(error) => return decode::fail(&error.to_string()),
    };
    match options::assemble(options, settings) {
        Ok(what) => decode::decode(&what, extras),
        Err(error) => decode::fail(&error.to_string()),
    }
}
