//! Which namespaces the operator wants to see. Pure.

use wildmatch::WildMatch;

/// A filter that cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// A pattern is empty; it would match nothing.
    #[error("empty netns pattern: give a name, a glob with * and ?, or an inode")]
    Empty,
}

/// Namespaces to include and to exclude, by name or inode. Excluding wins; without an inclusion everything is
/// included.
#[derive(Clone, Debug, Default)]
pub struct NetnsFilter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

/// One pattern: a glob over the name, and the inode when it is a number.
#[derive(Clone, Debug)]
struct Pattern {
    glob: WildMatch,
    inode: Option<u32>,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        let number = text.strip_prefix("netns:[").and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        Ok(Self { glob: WildMatch::new(text), inode: number.parse().ok() })
    }

    fn matches(&self, name: &str, inode: u32) -> bool {
        self.inode == Some(inode) || self.glob.matches(name)
    }
}

impl NetnsFilter {
    /// Understands patterns: a name, a glob with `*` (any characters, also none) and `?` (exactly one), an inode as
    /// `4026531840` or `netns:[4026531840]`. A number matches a name of these digits too.
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

    /// Whether a namespace is wanted.
    pub fn matches(&self, name: &str, inode: u32) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name, inode));
        !any(&self.exclude) && (self.include.is_empty() || any(&self.include))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> NetnsFilter {
        NetnsFilter::parse(include, exclude).unwrap()
    }

    #[test]
    fn without_patterns_everything_passes() {
        assert!(filter(&[], &[]).matches("blue", 1));
        assert!(filter(&[], &[]).is_empty());
    }

    #[test]
    fn globs_match_whole_names() {
        let filter = filter(&["cni-*", "pod?"], &[]);
        assert!(filter.matches("cni-0f31", 1) && filter.matches("cni-", 1) && filter.matches("pod7", 1));
        assert!(
            !filter.matches("pod", 1) && !filter.matches("pod77", 1) && !filter.matches("my-cni-0f31", 1)
        );
    }

    #[test]
    fn excluding_wins_over_including() {
        let filter = filter(&["a*"], &["ab*"]);
        assert!(filter.matches("ac", 1));
        assert!(!filter.matches("abc", 1));
    }

    #[test]
    fn an_inode_is_given_as_number_or_as_the_kernel_writes_it() {
        for text in ["4026531840", "netns:[4026531840]"] {
            let filter = filter(&[], &[text]);
            assert!(!filter.matches("default", 4_026_531_840));
            assert!(filter.matches("default", 4_026_531_841));
        }
    }

    #[test]
    fn a_number_also_matches_a_name_of_digits() {
        assert!(!filter(&[], &["42"]).matches("42", 4_026_532_000));
    }

    #[test]
    fn an_empty_pattern_is_refused() {
        assert_eq!(NetnsFilter::parse(&["", "a"], &[]).unwrap_err(), FilterError::Empty);
    }
}
