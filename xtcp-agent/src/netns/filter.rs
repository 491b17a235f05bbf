//! Which namespaces the operator wants to see. Pure.

use wildmatch::WildMatch;

use crate::workload::Workload;

/// A filter that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// A pattern is empty; it would match nothing.
    #[error(
        "empty netns pattern: give a name, a glob with * and ?, an inode, container:NAME or pod:NAMESPACE/NAME"
    )]
    Empty,
    /// A pod without its namespace in Kubernetes, or the other way round.
    #[error("a pod is named with its namespace in Kubernetes, such as pod:default/web-* or pod:*/web-*")]
    Pod,
}

/// Namespaces to include and to exclude, by name, inode, container or pod. Excluding wins; without an inclusion
/// everything is included.
#[derive(Clone, Debug, Default)]
pub struct NetnsFilter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

/// One pattern.
#[derive(Clone, Debug)]
enum Pattern {
    /// A glob over the name, and the inode when it is a number.
    Netns { glob: WildMatch, inode: Option<u32> },
    /// A glob over a container's name and its id.
    Container(WildMatch),
    /// Globs over a pod's namespace in Kubernetes, and its name.
    Pod { namespace: WildMatch, name: WildMatch },
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if let Some(container) = text.strip_prefix("container:") {
            return if container.is_empty() {
                Err(FilterError::Empty)
            } else {
                Ok(Self::Container(WildMatch::new(container)))
            };
        }
        if let Some(pod) = text.strip_prefix("pod:") {
            let (namespace, name) = pod.split_once('/').ok_or(FilterError::Pod)?;
            if namespace.is_empty() || name.is_empty() {
                return Err(FilterError::Pod);
            }
            return Ok(Self::Pod { namespace: WildMatch::new(namespace), name: WildMatch::new(name) });
        }
        let number = text.strip_prefix("netns:[").and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        Ok(Self::Netns { glob: WildMatch::new(text), inode: number.parse().ok() })
    }

    fn matches(&self, name: &str, inode: u32, workload: Option<&Workload>) -> bool {
        match self {
            Self::Netns { glob, inode: wanted } => *wanted == Some(inode) || glob.matches(name),
            Self::Container(glob) => {
                workload.and_then(|workload| workload.container.as_ref()).is_some_and(|container| {
                    let named = !container.name.is_empty() && glob.matches(&container.name);
                    named || glob.matches(&container.id)
                })
            }
            Self::Pod { namespace, name } => {
                workload.and_then(|workload| workload.pod.as_ref()).is_some_and(|pod| {
                    !pod.name.is_empty() && namespace.matches(&pod.namespace) && name.matches(&pod.name)
                })
            }
        }
    }
}

impl NetnsFilter {
    /// Understands patterns: a name, a glob with `*` (any characters, also none) and `?` (exactly one), an inode as
    /// `4026531840` or `netns:[4026531840]`, `container:` and a glob over a container's name or id, `pod:` and globs over
    /// a pod's namespace in Kubernetes and its name. A number matches a name of these digits too.
    pub fn parse<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, FilterError> {
        let all = |patterns: &[S]| -> Result<Vec<_>, _> {
            patterns.iter().map(|pattern| Pattern::parse(pattern.as_ref())).collect()
        };
        Ok(Self { include: all(include)?, exclude: all(exclude)? })
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether a namespace is wanted. While its workload is not known, no pattern over containers or pods matches it.
    pub fn matches(&self, name: &str, inode: u32, workload: Option<&Workload>) -> bool {
        let any =
            |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name, inode, workload));
        !any(&self.exclude) && (self.include.is_empty() || any(&self.include))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Container, Pod};

    fn filter(include: &[&str], exclude: &[&str]) -> NetnsFilter {
        NetnsFilter::parse(include, exclude).unwrap()
    }

    #[test]
    fn without_patterns_everything_passes() {
        assert!(filter(&[], &[]).matches("blue", 1, None));
        assert!(filter(&[], &[]).is_empty());
    }

    #[test]
    fn globs_match_whole_names() {
        let filter = filter(&["cni-*", "pod?"], &[]);
        assert!(
            filter.matches("cni-0f31", 1, None)
                && filter.matches("cni-", 1, None)
                && filter.matches("pod7", 1, None)
        );
        assert!(
            !filter.matches("pod", 1, None)
                && !filter.matches("pod77", 1, None)
                && !filter.matches("my-cni-0f31", 1, None)
        );
    }

    #[test]
    fn excluding_wins_over_including() {
        let filter = filter(&["a*"], &["ab*"]);
        assert!(filter.matches("ac", 1, None));
        assert!(!filter.matches("abc", 1, None));
    }

    #[test]
    fn an_inode_is_given_as_number_or_as_the_kernel_writes_it() {
        for text in ["4026531840", "netns:[4026531840]"] {
            let filter = filter(&[], &[text]);
            assert!(!filter.matches("default", 4_026_531_840, None));
            assert!(filter.matches("default", 4_026_531_841, None));
        }
    }

    #[test]
    fn a_number_also_matches_a_name_of_digits() {
        assert!(!filter(&[], &["42"]).matches("42", 4_026_532_000, None));
    }

    #[test]
    fn an_empty_pattern_is_refused() {
        assert_eq!(NetnsFilter::parse(&["", "a"], &[]).unwrap_err(), FilterError::Empty);
    }

    #[test]
    fn containers_and_pods_are_chosen_once_they_are_known() {
        let container =
            Container { id: "0123abcd".to_owned(), name: "web".to_owned(), ..Container::default() };
        let pod = Pod { name: "web-7d".to_owned(), namespace: "shop".to_owned(), ..Pod::default() };
        let known = Workload { container: Some(container), pod: Some(pod), ..Workload::default() };
        for text in ["container:web", "container:w?b", "container:0123*", "pod:shop/web-*", "pod:*/web-7d"] {
            assert!(filter(&[text], &[]).matches("netns:[1]", 1, Some(&known)), "{text}");
            assert!(!filter(&[], &[text]).matches("netns:[1]", 1, Some(&known)), "{text}");
            assert!(!filter(&[text], &[]).matches("web", 1, None), "{text}");
        }
        for text in ["container:we", "pod:shop/web", "pod:/web-*", "web"] {
            let matches =
                NetnsFilter::parse(&[text], &[]).is_ok_and(|f| f.matches("netns:[1]", 1, Some(&known)));
            assert!(!matches, "{text}");
        }
        // One that no engine has named is not any of these.
        let unnamed = Workload {
            container: Some(Container { id: "0123abcd".to_owned(), ..Container::default() }),
            pod: Some(Pod { uid: "1".to_owned(), ..Pod::default() }),
            ..Workload::default()
        };
        assert!(!filter(&["pod:*/*"], &[]).matches("netns:[1]", 1, Some(&unnamed)));
        assert!(filter(&["container:*"], &[]).matches("netns:[1]", 1, Some(&unnamed)));
    }

    #[test]
    fn a_pod_without_its_namespace_is_refused() {
        for text in ["pod:web", "pod:/web", "pod:shop/"] {
            assert_eq!(NetnsFilter::parse(&[text], &[]).unwrap_err(), FilterError::Pod);
        }
        assert_eq!(NetnsFilter::parse(&["container:"], &[]).unwrap_err(), FilterError::Empty);
    }
}
