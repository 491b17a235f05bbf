//! What engines tell, and which labels matter.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::BuildHasher;

use wildmatch::WildMatch;

use crate::workload::{Container, Pod, Source};

/// What an engine tells of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFacts {
    /// The container.
    pub container: Container,
    /// Uid of its pod.
    pub pod_uid: Option<String>,
    /// It only holds a pod's namespaces: the pause container.
    pub is_sandbox: bool,
    /// A label of it opts out.
    pub opted_out: bool,
    /// Who tells.
    pub source: Source,
}

/// What an engine tells of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// The pod, with the labels that were asked for.
    pub pod: Pod,
    /// A label of it opts out.
    pub opted_out: bool,
    /// Who tells.
    pub source: Source,
}

/// Which labels of pods are kept: keys, in which `*` and `?` are wild.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelChoice(Vec<WildMatch>);

impl LabelChoice {
    /// Keys in which `*` and `?` are wild; none keeps none.
    pub fn new<S: AsRef<str>>(keys: &[S]) -> Self {
        Self(keys.iter().map(|key| WildMatch::new(key.as_ref())).collect())
    }

    /// The chosen ones, each `key=value`, sorted by key.
    pub fn of<H: BuildHasher>(&self, labels: &HashMap<String, String, H>) -> Vec<String> {
        let chosen: BTreeMap<_, _> =
            labels.iter().filter(|(key, _)| self.0.iter().any(|wanted| wanted.matches(key))).collect();
        chosen.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }
}

/// A label by which a container or pod opts out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptOut {
    key: String,
    value: Option<String>,
}

impl OptOut {
    /// Reads `key=value`, or `key` for any value. `None` without a key.
    pub fn parse(text: &str) -> Option<Self> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        (!key.is_empty()).then(|| Self { key: key.to_owned(), value })
    }

    /// Whether these labels opt out.
    pub fn is_in<H: BuildHasher>(&self, labels: &HashMap<String, String, H>) -> bool {
        labels.get(&self.key).is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}
