//! The settings file that says what the defaults say, with every option's explanation: a start for one's own.

use std::fmt::Write;

use super::{layer, schema};

/// TOML text with every key at its default; what depends on the host, or is not set by default, is commented out.
pub fn default_file_text() -> String {
    let mut text = String::from(
        "# Settings of xtcp2-agent, each at its default. A flag or an environment variable (XTCP_<KEY>) beats this file.\n",
    );
    let mut heading = None;
    for key in layer::keys(&schema()) {
        if key.long == "config" {
            continue;
        }
        let arg = key.arg();
        if heading.as_deref() != arg.get_help_heading() {
            heading = arg.get_help_heading().map(str::to_owned);
            // Writing to a String cannot fail.
            let _ = write!(text, "\n## {}\n", heading.as_deref().unwrap_or_default());
        }
        let _ = write!(text, "\n# {}\n", arg.get_help().map(ToString::to_string).unwrap_or_default());
        let accepted: Vec<String> =
            arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        if !accepted.is_empty() {
            let _ = writeln!(text, "# One of: {}.", accepted.join(", "));
        }
        let hidden = arg.is_hide_default_value_set();
        let words: Vec<String> = arg
            .get_default_values()
            .iter()
            .filter(|_| !hidden)
            .map(|value| literal(&value.to_string_lossy()))
            .collect();
        let _ = match (key.repeatable, words.as_slice()) {
            (true, _) if hidden => writeln!(text, "#{} = []", key.long),
            (true, words) => writeln!(text, "{} = [{}]", key.long, words.join(", ")),
            (false, [word]) => writeln!(text, "{} = {word}", key.long),
            (false, _) => writeln!(text, "#{} = \"\"", key.long),
        };
    }
    text
}

fn literal(word: &str) -> String {
    match word.parse::<u64>() {
        Ok(number) => number.to_string(),
        Err(_) => toml::Value::String(word.to_owned()).to_string(),
    }
}
