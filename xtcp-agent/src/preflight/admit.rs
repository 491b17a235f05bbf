//! The look before the start: findings go to the log, what is fatal ends it.

use std::fmt;

use super::decide::{Decision, Finding, Severity, decide};
use super::facts::{Depth, Settings, gather};
use super::instance::{LOCK_FILE, Lock, Other, lock};
use crate::config::Config;

/// The agent may start.
#[derive(Debug)]
pub struct Admission {
    /// How it will work.
    pub decision: Decision,
    /// Tells others that an agent runs, as long as it lives; None where another has the lock, or none can be taken.
    pub lock: Option<Lock>,
}

/// The agent may not start: what stands in the way, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub Vec<Finding>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the agent cannot run here")?;
        for finding in &self.0 {
            write!(f, "\n  {}\n    why  {}", finding.what, finding.why)?;
            for (at, way) in finding.remedy.iter().enumerate() {
                write!(f, "\n    {}  {way}", if at == 0 { "do " } else { "or " })?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Gathers without trying, decides, logs what will be missing, and takes the lock.
///
/// # Errors
///
/// When the agent must not start; every reason at once.
pub fn admit(config: &Config) -> Result<Admission, Refusal> {
    let facts = gather(config, Settings::default(), Depth::Look);
    let decision = decide(&facts, config.ebpf.mode);
    let fatal: Vec<Finding> =
        decision.findings.iter().filter(|finding| finding.severity == Severity::Fatal).cloned().collect();
    if !fatal.is_empty() {
        return Err(Refusal(fatal));
    }
    for finding in &decision.findings {
        match finding.severity {
            Severity::Fatal | Severity::Degraded => tracing::warn!("{finding}"),
            Severity::Note => tracing::debug!("{finding}"),
        }
    }
    let lock = match lock(LOCK_FILE.as_ref()) {
        Ok(lock) => Some(lock),
        Err(Other::Running { pid }) => {
            tracing::warn!(?pid, "another agent runs on this host: both work, and cost twice");
            None
        }
        Err(Other::Unknown(why)) => {
            tracing::debug!(%why, "cannot tell others that an agent runs");
            None
        }
        Err(Other::None) => None,
    };
    Ok(Admission { decision, lock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_every_reason_with_every_way() {
        let finding = |what: &str| Finding {
            severity: Severity::Fatal,
            what: what.to_owned(),
            why: "w".to_owned(),
            remedy: vec!["one".to_owned(), "two".to_owned()],
        };
        let text = Refusal(vec![finding("a"), finding("b")]).to_string();
        let expected = "the agent cannot run here\n  a\n    why  w\n    do   one\n    or   two\n  b\n    why  w\n    do   one\n    or   two";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_port_that_is_taken_is_a_reason() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::defaults().unwrap();
        config.listen.prom = taken.local_addr().unwrap();
        let refusal = admit(&config).unwrap_err().to_string();
        assert!(refusal.contains(&format!("{} is in use by ", config.listen.prom)), "{refusal}");
    }
}
