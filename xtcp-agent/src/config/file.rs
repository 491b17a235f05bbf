//! The settings file: TOML text becomes words for known keys, each with its line.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Source};
use super::layer::{Given, Key, unknown};

/// Key of a table for each destination: what `dest` takes as one word.
const DESTINATION: &str = "destination";

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
        if long == DESTINATION {
            for (address, line) in destinations(value, &mut errors, &from) {
                let given = given.entry("dest".to_owned());
                given.or_insert_with(|| Given { values: Vec::new(), source: line }).values.push(address);
            }
            continue;
        }
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

/// The addresses that tables stand for: their other keys are options behind it.
fn destinations(
    value: &Spanned<DeValue<'_>>,
    errors: &mut Vec<ConfigError>,
    from: &dyn Fn(usize) -> Source,
) -> Vec<(String, Source)> {
    let DeValue::Array(tables) = value.get_ref() else {
        errors.push(destination_fault(
            from(value.span().start),
            "accepted: tables, each under [[destination]]",
        ));
        return Vec::new();
    };
    let mut addresses = Vec::new();
    for table in tables {
        let place = from(table.span().start);
        match address(table.get_ref()) {
            Ok(address) => addresses.push((address, place)),
            Err(problem) => errors.push(destination_fault(place, &problem)),
        }
    }
    addresses
}

fn destination_fault(from: Source, problem: &str) -> ConfigError {
    ConfigError { key: DESTINATION.to_owned(), value: None, from, problem: problem.to_owned() }
}

fn address(table: &DeValue<'_>) -> Result<String, String> {
    let DeValue::Table(table) = table else { return Err("accepted: a table".to_owned()) };
    let mut address = None;
    let mut options = form_urlencoded::Serializer::new(String::new());
    for (name, value) in table {
        let name: &str = name.get_ref();
        let word = word(value.get_ref(), "one value").map_err(|problem| format!("{name} {problem}"))?;
        if name == "address" {
            address = Some(word);
        } else {
            options.append_pair(name, &word);
        }
    }
    let address = address.ok_or_else(|| "it needs an address, as --dest takes it".to_owned())?;
    let options = options.finish();
    let sign = if address.contains('#') { '&' } else { '#' };
    Ok(if options.is_empty() { address } else { format!("{address}{sign}{options}") })
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
