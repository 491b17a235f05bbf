//! Which sockets of container engines are asked.

use std::path::{Path, PathBuf};

/// Where Docker listens. Podman's socket is not among them: asking it would keep a service running that is made to come
/// and go.
pub const DOCKER: &[&str] = &["/run/docker.sock"];
/// Where containerd, CRI-O, and Docker behind its own adapter listen for kubelet.
pub const CRI: &[&str] = &[
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/k3s/containerd/containerd.sock",
];

/// Which sockets are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// The usual ones, those that are there; one that appears later is found.
    Auto,
    /// None.
    Off,
    /// These.
    At(Vec<PathBuf>),
}

/// One word of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// `auto`.
    Auto,
    /// `off`.
    Off,
    /// A path.
    At(PathBuf),
}

impl Word {
    /// Reads `auto`, `off`, or an absolute path, which may begin with `unix://`.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "auto" => return Ok(Self::Auto),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        let path = word.strip_prefix("unix://").unwrap_or(word);
        if Path::new(path).is_absolute() && !path.contains('\0') {
            Ok(Self::At(PathBuf::from(path)))
        } else {
            Err("accepted: auto, off, or the absolute path of a socket".to_owned())
        }
    }
}

impl Sockets {
    /// Puts words together: paths, or one of the other two alone. Several words of which one is no path make no sense
    /// together, which is said elsewhere; then the first counts.
    pub fn of(words: &[Word]) -> Self {
        match words.first() {
            None | Some(Word::Auto) => Self::Auto,
            Some(Word::Off) => Self::Off,
            Some(Word::At(_)) => Self::At(
                words
                    .iter()
                    .filter_map(|word| match word {
                        Word::At(path) => Some(path.clone()),
                        Word::Auto | Word::Off => None,
                    })
                    .collect(),
            ),
        }
    }

    /// They were named, not looked for.
    pub fn are_named(&self) -> bool {
        matches!(self, Self::At(_))
    }

    /// The sockets that are asked, when they are there.
    pub fn paths(&self, usual: &[&str]) -> Vec<PathBuf> {
        match self {
            Self::Auto => usual.iter().map(PathBuf::from).collect(),
            Self::Off => Vec::new(),
            Self::At(paths) => paths.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_by_its_path_or_by_a_word() {
        assert_eq!(Word::parse("auto"), Ok(Word::Auto));
        assert_eq!(Word::parse("off"), Ok(Word::Off));
        let path = Ok(Word::At("/run/x.sock".into()));
        assert_eq!(Word::parse("/run/x.sock"), path);
        assert_eq!(Word::parse("unix:///run/x.sock"), path);
        for word in ["", "x.sock", "unix://x.sock", "tcp://127.0.0.1:2375", "unix://"] {
            assert!(Word::parse(word).is_err(), "{word}");
        }
    }

    #[test]
    fn words_come_to_the_sockets_that_are_asked() {
        assert_eq!(Sockets::of(&[]).paths(DOCKER), [PathBuf::from("/run/docker.sock")]);
        assert!(Sockets::of(&[Word::Off]).paths(DOCKER).is_empty());
        let two = ["/a", "/b"].map(|path| Word::At(path.into()));
        assert_eq!(Sockets::of(&two).paths(DOCKER), ["/a", "/b"].map(PathBuf::from));
    }
}
