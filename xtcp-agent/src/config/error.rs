//! What is wrong with the settings: every fault at once, each with its key, where it came from and what is accepted.

use std::fmt;
use std::path::PathBuf;

/// Stands before the names that are known where one is not.
pub(super) const KNOWN: &str = "known: ";

/// Which layer a setting came from. A flag beats the environment beats the file beats the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Default,
    /// The settings file.
    File {
        /// Path of the file.
        path: PathBuf,
        /// Line, counted from 1; 0 where it is not known.
        line: usize,
    },
    /// The environment variable of this name.
    Env(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{from}{}: {problem}", Subject(self))]
pub struct ConfigError {
    /// Key as in the file, without dashes in front; the name as it was written where it is not known.
    pub key: String,
    /// The value as it was written, where one value is at fault.
    pub value: Option<String>,
    /// Where it came from.
    pub from: Source,
    /// What is wrong and what is accepted.
    pub problem: String,
}

/// Key and value, each where it says more than the source does.
struct Subject<'a>(&'a ConfigError);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        if error.from != Source::Env(error.key.clone()) {
            write!(f, ": {}", error.key)?;
        }
        error.value.as_ref().map_or(Ok(()), |value| write!(f, " = {value:?}"))
    }
}

impl ConfigError {
    /// A fault of one setting. What stands before an `@` in its value is a password, and is not told.
    pub(super) fn new(key: &str, value: Option<&str>, from: Source, problem: String) -> Self {
        Self { key: key.to_owned(), value: value.map(without_credentials), from, problem }
    }
}

fn without_credentials(value: &str) -> String {
    match value.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once(':').map(|(scheme, _)| format!("{scheme}:")).unwrap_or_default();
            format!("{scheme}***@{host}")
        }
        None => value.to_owned(),
    }
}

/// Every fault of the settings; never empty where it is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "{one}"),
            all => {
                write!(f, "{} settings are not valid", all.len())?;
                let mut told = Vec::new();
                all.iter().try_for_each(|error| match error.problem.split_once(KNOWN) {
                    // Forty names once are help, twice they hide the rest.
                    Some((problem, known)) if told.contains(&known) => {
                        let problem = format!("{problem}{KNOWN}as above");
                        write!(f, "\n  {}", ConfigError { problem, ..error.clone() })
                    }
                    split => {
                        told.extend(split.map(|(_, known)| known));
                        write!(f, "\n  {error}")
                    }
                })
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// The known name that is nearest to `name`, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(name.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours that lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (i, ca) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut best = (cell(&row, j) + usize::from(ca != cb)).min(cell(&row, j + 1) + 1).min(left + 1);
            if j > 0 && last == Some(cb) && b.get(j - 1) == Some(&ca) {
                best = best.min(cell(&before, j - 1) + 1);
            }
            next.push(best);
            left = best;
        }
        before = std::mem::replace(&mut row, next);
        last = Some(ca);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_one_step() {
        assert_eq!(distance("frequency", "frequency"), 0);
        assert_eq!(distance("frequencey", "frequency"), 1);
        assert_eq!(distance("frequnecy", "frequency"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        assert_eq!(nearest("timout", ["topic", "timeout", "tag"]), Some("timeout"));
        assert_eq!(nearest("zzzz", ["topic", "timeout", "tag"]), None);
    }

    #[test]
    fn a_list_of_known_names_is_told_once() {
        let error = |key| ConfigError::new(key, None, Source::Flag, "unknown; known: a, b".to_owned());
        let both = ConfigErrors(vec![error("x"), error("y")]).to_string();
        assert!(
            both.contains("x: unknown; known: a, b\n") && both.ends_with("y: unknown; known: as above"),
            "{both}"
        );
    }

    #[test]
    fn a_password_in_a_value_is_not_told() {
        let error = ConfigError::new("events", Some("nats:u:secret@h"), Source::Flag, String::new());
        assert_eq!(error.value.as_deref(), Some("nats:***@h"));
    }

    #[test]
    fn an_error_names_source_key_value_and_problem() {
        let error = ConfigError {
            key: "frequency".to_owned(),
            value: Some("1ms".to_owned()),
            from: Source::File { path: "a.toml".into(), line: 3 },
            problem: "out of range".to_owned(),
        };
        assert_eq!(error.to_string(), "a.toml:3: frequency = \"1ms\": out of range");
    }
}
