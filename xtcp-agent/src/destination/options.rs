//! Options behind an address: `#name=value&name=value`, as the fragment of a URL is written. Owns what all
//! destinations read them with; never knows what an option means.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::config::{duration, size};

/// An option that a destination knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionInfo {
    /// Its name, as in `#name=value` and as a key of `[[destination]]`.
    pub name: &'static str,
    /// What its value looks like, with the default behind it where there is one.
    pub value: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
}

impl OptionInfo {
    /// One row of a destination's table.
    pub const fn new(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, value, help }
    }

    /// Whether its value must not be shown.
    fn is_secret(name: &str) -> bool {
        matches!(name, "password" | "token" | "secret-key" | "header" | "headers" | "tls-key-password")
    }
}

/// The options that were given, by name. Every reader says in its error which option is wrong and what it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// Reads what follows `#`. Values are percent-encoded where they hold `&`, `%` or `+`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            options.add(&name, &value)?;
        }
        Ok(options)
    }

    /// Adds one; given twice is an error.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let name = name.replace('_', "-");
        match self.0.insert(name.clone(), value.to_owned()) {
            None => Ok(()),
            Some(_) => Err(format!("option {name} is given twice")),
        }
    }

    /// Says of the first option that nobody knows which ones there are.
    pub fn check_known<'a>(&self, known: impl Iterator<Item = &'a OptionInfo> + Clone) -> Result<(), String> {
        for name in self.0.keys() {
            if !known.clone().any(|info| info.name == name) {
                let names: Vec<&str> = known.map(|info| info.name).collect();
                return Err(format!("option {name} is unknown; the known ones are {}", names.join(", ")));
            }
        }
        Ok(())
    }

    /// The words of an option.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// An option that anything with `FromStr` understands.
    pub fn get<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Option<T>, String> {
        self.read(name, |value| value.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// `true` or `false`.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, String> {
        self.one_of(name, &[("true", true), ("false", false)])
    }

    /// One of these words.
    pub fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, String> {
        self.read(name, |value| {
            words.iter().find(|(word, _)| *word == value).map(|&(_, meaning)| meaning).ok_or_else(|| {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                format!("accepted: {}", words.join(", "))
            })
        })
    }

    /// A time such as `500ms`, within both bounds.
    pub fn duration(&self, name: &str, least: Duration, most: Duration) -> Result<Option<Duration>, String> {
        self.read(name, |value| duration(least, most)(value))
    }

    /// A size such as `64MiB`, within both bounds.
    pub fn bytes(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, String> {
        self.read(name, |value| size(value, least, most))
    }

    /// A number within both bounds.
    pub fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, String> {
        self.read(name, |value| {
            let number: u64 = value.parse().map_err(|_| format!("accepted: {least} to {most}"))?;
            (least..=most)
                .contains(&number)
                .then_some(number)
                .ok_or_else(|| format!("accepted: {least} to {most}"))
        })
    }

    /// A path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// A secret: the words of `name`, or the content of the file that `name-file` names, without the line feed at its
    /// end. Both at once are an error.
    pub fn secret(&self, name: &str) -> Result<Option<String>, String> {
        let from_file = format!("{name}-file");
        let Some(path) = self.text(&from_file) else { return Ok(self.text(name).map(str::to_owned)) };
        if self.0.contains_key(name) {
            return Err(format!("options {name} and {from_file} exclude each other"));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("option {from_file}: cannot read {path}: {error}"))?;
        Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
    }

    fn read<T>(
        &self,
        name: &str,
        understand: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.text(name) else { return Ok(None) };
        understand(value).map(Some).map_err(|problem| format!("option {name}={value}: {problem}"))
    }
}

/// As they are written behind an address; values that are secrets are not shown.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, value)) in self.0.iter().enumerate() {
            let shown = if OptionInfo::is_secret(name) { "…" } else { value };
            f.write_char(if number == 0 { '#' } else { '&' })?;
            write!(f, "{name}={shown}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        Options::parse(text).expect(text)
    }

    #[test]
    fn options_are_read_as_a_fragment_is_written() {
        let options = options("topic=a%26b&queue-bytes=2MiB&acks_wait=1s");
        assert_eq!(options.text("topic"), Some("a&b"));
        assert_eq!(options.bytes("queue-bytes", 1, 1 << 30), Ok(Some(2 << 20)));
        assert_eq!(
            options.duration("acks-wait", Duration::ZERO, Duration::MAX),
            Ok(Some(Duration::from_secs(1)))
        );
        assert_eq!(options.text("absent"), None);
    }

    #[test]
    fn each_error_names_the_option_and_what_it_takes() {
        let options = options("fsync=maybe&limit=17");
        assert_eq!(
            options.switch("fsync").expect_err("no such word"),
            "option fsync=maybe: accepted: true, false"
        );
        assert_eq!(
            options.number("limit", 1, 16).expect_err("too many"),
            "option limit=17: accepted: 1 to 16"
        );
        let known = [OptionInfo::new("fsync", "true|false", "")];
        assert_eq!(
            options.check_known(known.iter()).expect_err("unknown"),
            "option limit is unknown; the known ones are fsync"
        );
        assert_eq!(Options::parse("a=1&a=2").expect_err("twice"), "option a is given twice");
    }

    #[test]
    fn a_secret_comes_from_a_file_and_is_never_shown() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, "hunter2\n").expect("written");
        let from_file = options(&format!("password-file={}", file.path().display()));
        assert_eq!(from_file.secret("password"), Ok(Some("hunter2".to_owned())));
        let shown = options("password=hunter2&user=me").to_string();
        assert_eq!(shown, "#password=…&user=me");
        let both = options("token=a&token-file=b");
        assert_eq!(
            both.secret("token").expect_err("both"),
            "options token and token-file exclude each other"
        );
        assert!(options("token-file=/nowhere/at/all").secret("token").is_err());
    }
}
