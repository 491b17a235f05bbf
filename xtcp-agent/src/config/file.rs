//! The settings file: TOML text becomes words for known keys, each with its line.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Source};
use super::layer::{Given, Key, unknown};

/// What the file says, and what is wrong with it.
pub(super) fn parse(text: &str, path: &Path, keys: &[Key]) -> (BTreeMap<String, Given>, Vec<ConfigError>) {
    let (table, faults) = DeTable::parse_recoverable(text);
    let from = |start: usize| Source::File { path: path.to_owned(), line: line_of(text, start) };
    let mut errors: Vec<ConfigError> = faults
        .iter()
        .map(|fault| ConfigError {
            key: "TOML".to_owned(),
            value: None,
            from: from(fault.span().map_or(0, |span| span.start)),
            problem: fault.message().to_owned(),
        })
        .collect();
    let mut given = BTreeMap::new();
    if !errors.is_empty() {
        // What a broken file says after the fault cannot be trusted to be what was meant.
        return (given, errors);
    }
    for (name, value) in table.get_ref() {
        let source = from(name.span().start);
        let written: &str = name.get_ref();
        let long = written.replace('_', "-");
        let Some(key) = keys.iter().find(|key| key.long == long && key.long != "config") else {
            let known = keys.iter().map(|key| key.long.as_str()).filter(|known| *known != "config");
            errors.push(unknown("key", written, &long, known, source));
            continue;
        };
        match words(value, key.repeatable) {
            Ok(values) => {
                if given.insert(long.clone(), Given { values, source: source.clone() }).is_some() {
                    errors.push(fault(key, source, "given twice, with - and with _".to_owned()));
                }
            }
            Err(problem) => errors.push(fault(key, source, problem)),
        }
    }
    (given, errors)
}

fn fault(key: &Key, from: Source, problem: String) -> ConfigError {
    ConfigError { key: key.long.clone(), value: None, from, problem }
}

fn words(value: &Spanned<DeValue<'_>>, repeatable: bool) -> Result<Vec<String>, String> {
    match value.get_ref() {
        DeValue::Array(items) if repeatable => {
            items.iter().map(|item| word(item.get_ref(), "a list of single values")).collect()
        }
        single => word(single, "one value").map(|word| vec![word]),
    }
}

fn word(value: &DeValue<'_>, wanted: &str) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|e| format!("{e}; accepted: {wanted}")),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        other @ (DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_)) => {
            Err(format!("is a {}; accepted: {wanted}", other.type_str()))
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}
