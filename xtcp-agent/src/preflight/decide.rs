//! From facts to what the agent does, and what is to be said about it. Pure.

use std::fmt;

use serde::Serialize;

use super::advice;
use super::facts::{Facts, Hook, Is};
use super::hooks::{fact_name, serialize_fact};
use super::judge;
use crate::config::EbpfMode;
use crate::ebpf::Fact;

/// What the agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Kernel events, and polling.
    Hybrid,
    /// Polling only.
    PollOnly,
    /// Nothing: it does not start.
    Refuse,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Something will be missing.
    Degraded,
    /// The agent cannot start.
    Fatal,
}

/// Something that is not as it could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to do about it; each entry is one way.
    pub remedy: Vec<String>,
}

/// How a fact of the kernel becomes known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ladder {
    /// What it tells.
    #[serde(serialize_with = "serialize_fact")]
    pub fact: Fact,
    /// The hooks in use; none when there are no events of this kind.
    pub hooks: Vec<&'static str>,
    /// What is not known through them; empty when nothing is missing.
    pub lacks: String,
}

/// What the agent does on this host, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What it does.
    pub mode: Mode,
    /// Through which hooks.
    pub ladders: Vec<Ladder>,
    /// What is not as it could be, worst first.
    pub findings: Vec<Finding>,
}

impl Decision {
    /// The worst finding's severity.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Note)
    }

    /// Exit status of `check`: 0 fine, 1 with less, 2 refused.
    pub fn status(&self) -> u8 {
        match self.worst() {
            Severity::Note => 0,
            Severity::Degraded => 1,
            Severity::Fatal => 2,
        }
    }
}

impl fmt::Display for Finding {
    /// On one line, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        match self.remedy.first() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Decides.
pub fn decide(facts: &Facts, ebpf: EbpfMode) -> Decision {
    let ladders: Vec<Ladder> = [Fact::TcpState, Fact::NetnsCreated, Fact::NetnsDestroyed]
        .map(|fact| climb(facts, ebpf, fact))
        .into();
    let mut findings = judge::settings(facts);
    findings.extend(judge::requirements(facts));
    findings.extend(judge::sight(facts));
    findings.extend(judge::engines(facts));
    findings.extend(judge::destinations(facts));
    findings.extend(judge::neighbours(facts));
    findings.extend(events(facts, ebpf, &ladders));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mode = match findings.first() {
        Some(finding) if finding.severity == Severity::Fatal => Mode::Refuse,
        _ if ladders.iter().all(|ladder| ladder.hooks.is_empty()) => Mode::PollOnly,
        _ => Mode::Hybrid,
    };
    Decision { mode, ladders, findings }
}

/// The hooks that tell a fact: those that attached, or without a trial the first step that the kernel offers.
fn climb(facts: &Facts, ebpf: EbpfMode, fact: Fact) -> Ladder {
    let usable = ebpf != EbpfMode::Off && facts.ebpf.object.yes() && facts.ebpf.ring_buffer.yes();
    let works = |hook: &&Hook| match (&facts.ebpf.trial, &hook.attached) {
        (Some(_), attached) => *attached == Some(Is::Yes),
        (None, _) => hook.offered.yes(),
    };
    let hooks = facts.ebpf.hooks.iter().filter(|hook| usable && hook.fact == fact).filter(works);
    let step = hooks.clone().map(|hook| hook.step).min();
    let chosen: Vec<&Hook> = hooks.filter(|hook| Some(hook.step) == step).collect();
    let lacks: Vec<&str> =
        chosen.iter().map(|hook| hook.lacks.as_str()).filter(|lacks| !lacks.is_empty()).collect();
    Ladder { fact, hooks: chosen.iter().map(|hook| hook.name).collect(), lacks: lacks.join("; ") }
}

const NO_EVENTS: &str = "no kernel events: connections that live between two polls are not seen, there are no change \
                         events, and new namespaces wait for the next scan";

/// What is to be said about events.
fn events(facts: &Facts, mode: EbpfMode, ladders: &[Ladder]) -> Vec<Finding> {
    if mode == EbpfMode::Off {
        return vec![Finding {
            severity: Severity::Note,
            what: "eBPF is switched off (--ebpf off)".to_owned(),
            why: NO_EVENTS.to_owned(),
            remedy: vec!["leave --ebpf at auto".to_owned()],
        }];
    }
    let nothing = || {
        let reasons: Vec<String> = ladders.iter().map(|ladder| reasons(facts, ladder)).collect();
        let what = format!("not one hook can be used: {}", reasons.join("; "));
        ladders.iter().all(|ladder| ladder.hooks.is_empty()).then(|| (what, vec![advice::HOOKS.to_owned()]))
    };
    match judge::obstacle(facts).or_else(nothing) {
        Some((what, remedy)) => vec![Finding {
            severity: if mode == EbpfMode::Require { Severity::Fatal } else { Severity::Degraded },
            what,
            why: NO_EVENTS.to_owned(),
            remedy,
        }],
        None => ladders.iter().filter_map(|ladder| about_ladder(facts, mode, ladder)).collect(),
    }
}

fn about_ladder(facts: &Facts, mode: EbpfMode, ladder: &Ladder) -> Option<Finding> {
    let fact = fact_name(ladder.fact);
    let is_tcp = ladder.fact == Fact::TcpState;
    let reasons = reasons(facts, ladder);
    if ladder.hooks.is_empty() {
        let instead = match ladder.fact {
            Fact::TcpState => "connections that live between two polls are not seen",
            Fact::NetnsCreated => "a new namespace waits for the next scan (--reconcile-frequency)",
            Fact::NetnsDestroyed => "the end of a namespace is noticed at the next poll of it",
            Fact::NetnsEntered => "a namespace that only a socket holds stays shut when somebody enters it",
        };
        let fatal = is_tcp && mode == EbpfMode::Require;
        return Some(Finding {
            severity: if fatal { Severity::Fatal } else { Severity::Degraded },
            what: format!("no hook tells \"{fact}\": {reasons}"),
            why: instead.to_owned(),
            remedy: vec![advice::HOOKS.to_owned()],
        });
    }
    if ladder.lacks.is_empty() && reasons.is_empty() {
        return None;
    }
    let lacking = if ladder.lacks.is_empty() {
        "it tells the same".to_owned()
    } else {
        format!("not known through it: {}", ladder.lacks)
    };
    let what = if reasons.is_empty() {
        format!("\"{fact}\" comes from {}", ladder.hooks.join(" and "))
    } else {
        format!("\"{fact}\" comes from {}, since {reasons}", ladder.hooks.join(" and "))
    };
    // Without a namespace an event can only wake lookups; of a death, the scan finds whose it was.
    let severity = if is_tcp && !ladder.lacks.is_empty() { Severity::Degraded } else { Severity::Note };
    Some(Finding { severity, what, why: lacking, remedy: Vec::new() })
}

/// Why the hooks of a fact that would be better than those in use are not.
fn reasons(facts: &Facts, ladder: &Ladder) -> String {
    let used = facts.ebpf.hooks.iter().filter(|hook| ladder.hooks.contains(&hook.name)).map(|hook| hook.step);
    let step = used.min().unwrap_or(u8::MAX);
    let reasons: Vec<String> = facts
        .ebpf
        .hooks
        .iter()
        .filter(|hook| hook.fact == ladder.fact && hook.step < step)
        .filter_map(|hook| match hook.attached.as_ref().unwrap_or(&hook.offered) {
            Is::Yes => None,
            Is::No(why) | Is::Unknown(why) => Some(format!("{}: {why}", hook.name)),
        })
        .collect();
    reasons.join("; ")
}

#[cfg(test)]
mod tests;
