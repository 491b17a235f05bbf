//! What the collectors count.

use prometheus::{HistogramVec, IntCounter, IntCounterVec, Registry, histogram_opts, opts};
use xtcp_inet_diag::attr;
use xtcp_inet_diag::wire::Findings;

use super::exchange::Fault;
use crate::netns::enter::EnterError;
use crate::record::Reason;
use crate::scheduler::{DumpRequest, Scope};

const SCOPES: [&str; 3] = ["dump", "listeners", "lookups"];
const REASONS: [&str; 4] = ["poll", "netns_created", "tcp_state", "requested"];

/// Counters of all workers together.
#[derive(Clone)]
pub struct CollectorMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    rows: IntCounterVec,
    lookups: IntCounterVec,
    faults: IntCounterVec,
    enter_errors: IntCounterVec,
    unknown_attributes: IntCounterVec,
    malformed_attributes: IntCounterVec,
    malformed_rows: IntCounter,
    repeated_rows: IntCounter,
    own_rows: IntCounter,
    opted_out_rows: IntCounter,
    foreign_messages: IntCounter,
}

/// Whether an attribute's number is a label of its own: what the kernels of many years to come may send, and not whatever
/// a damaged row says.
fn is_told_apart(number: u16) -> bool {
    attr::Path(number).last() < 64
}

impl CollectorMetrics {
    /// Registers everything under `xtcp_`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let vec = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(opts!(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let one = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let seconds = HistogramVec::new(
            histogram_opts!(
                "xtcp_request_duration_seconds",
                "Time from entering a namespace to the end of its answer.",
                vec![0.000_02, 0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0]
            ),
            &["scope"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let metrics = Self {
            requests: vec(
                "xtcp_requests_total",
                "inet_diag requests to a namespace, by what was asked, why, and whether the answer was complete.",
                &["scope", "reason", "complete"],
            )?,
            seconds,
            rows: vec("xtcp_rows_total", "Records made, by why they exist.", &["reason"])?,
            lookups: vec(
                "xtcp_lookups_total",
                "Exact lookups: found, gone (closed since), other_socket (a listener answered in its place).",
                &["result"],
            )?,
            faults: vec(
                "xtcp_netlink_faults_total",
                "Answers that broke off, by why; some are asked for again.",
                &["fault"],
            )?,
            enter_errors: vec(
                "xtcp_netns_enter_errors_total",
                "Namespaces that could not be entered, by why.",
                &["why"],
            )?,
            unknown_attributes: vec(
                "xtcp_unknown_attributes_total",
                "inet_diag attributes that this version does not know, by number (19.2.7: number 7 in nest 2 of 19; other: above 63, or more than six numbers in a row).",
                &["attribute"],
            )?,
            malformed_attributes: vec(
                "xtcp_malformed_attributes_total",
                "inet_diag attributes whose payload cannot be what they say, by number as in xtcp_unknown_attributes_total; length: one that leads out of its row.",
                &["attribute"],
            )?,
            malformed_rows: one(
                "xtcp_malformed_rows_total",
                "inet_diag messages shorter than their header.",
            )?,
            repeated_rows: one(
                "xtcp_repeated_rows_total",
                "Rows of a socket that the same request had given already.",
            )?,
            own_rows: one(
                "xtcp_own_rows_total",
                "Rows of the agent's own connections, left out of dumps (--own-connections).",
            )?,
            opted_out_rows: one(
                "xtcp_opted_out_rows_total",
                "Rows left out because the process or cgroup of the socket belongs to a workload that opted out.",
            )?,
            foreign_messages: one(
                "xtcp_foreign_messages_total",
                "Netlink messages that answer no request of ours.",
            )?,
        };
        metrics.begin();
        Ok(metrics)
    }

    /// Makes every series whose labels are known at 0: a series that appears with its first fault cannot be watched.
    fn begin(&self) {
        for reason in REASONS {
            self.rows.with_label_values(&[reason]);
            for scope in SCOPES {
                for complete in ["yes", "no"] {
                    self.requests.with_label_values(&[scope, reason, complete]);
                }
            }
        }
        for scope in SCOPES {
            self.seconds.with_label_values(&[scope]);
        }
        for result in ["found", "gone", "other_socket"] {
            self.lookups.with_label_values(&[result]);
        }
        for fault in Fault::NAMES {
            self.faults.with_label_values(&[fault]);
        }
        for why in ["gone", "mismatch", "denied", "no_door", "failed", "home"] {
            self.enter_errors.with_label_values(&[why]);
        }
    }

    pub(super) fn enter_failed(&self, error: &EnterError) {
        let why = match error {
            EnterError::Gone(_) => "gone",
            EnterError::Mismatch { .. } => "mismatch",
            EnterError::Denied { .. } => "denied",
            EnterError::NoDoor(_) => "no_door",
            EnterError::Failed { .. } => "failed",
            EnterError::Home(_) => "home",
        };
        self.enter_errors.with_label_values(&[why]).inc();
    }

    pub(super) fn fault(&self, fault: &Fault) {
        self.faults.with_label_values(&[fault.name()]).inc();
    }

    pub(super) fn request_ended(&self, request: &DumpRequest, complete: bool, rows: u64, duration_ns: u64) {
        let scope = match request.scope {
            Scope::Dump => "dump",
            Scope::Listeners => "listeners",
            Scope::Lookups(_) => "lookups",
        };
        let reason = match request.reason {
            Reason::Poll => "poll",
            Reason::NetnsCreated => "netns_created",
            Reason::TcpState => "tcp_state",
            Reason::Requested => "requested",
        };
        let complete = if complete { "yes" } else { "no" };
        self.requests.with_label_values(&[scope, reason, complete]).inc();
        self.rows.with_label_values(&[reason]).inc_by(rows);
        #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
        let seconds = duration_ns as f64 / 1e9;
        self.seconds.with_label_values(&[scope]).observe(seconds);
    }

    pub(super) fn looked_up(&self, result: &str) {
        self.lookups.with_label_values(&[result]).inc();
    }

    pub(super) fn malformed_row(&self, error: &impl std::error::Error) {
        tracing::debug!(%error, "malformed inet_diag row");
        self.malformed_rows.inc();
    }

    pub(super) fn repeated_row(&self) {
        self.repeated_rows.inc();
    }

    pub(super) fn own_row(&self) {
        self.own_rows.inc();
    }

    pub(super) fn opted_out_row(&self) {
        self.opted_out_rows.inc();
    }

    pub(super) fn foreign_message(&self) {
        self.foreign_messages.inc();
    }

    pub(crate) fn attributes(&self, findings: &Findings) {
        if findings.is_empty() {
            return;
        }
        let Findings { unknown, malformed, damage } = findings;
        for (tally, counter) in [(unknown, &self.unknown_attributes), (malformed, &self.malformed_attributes)]
        {
            let mut others = tally.total();
            for (number, count) in tally.iter().filter(|(number, _)| is_told_apart(*number)) {
                counter.with_label_values(&[&attr::Path(number).to_string()]).inc_by(u64::from(count));
                others = others.saturating_sub(u32::from(count));
            }
            if others != 0 {
                counter.with_label_values(&["other"]).inc_by(u64::from(others));
            }
        }
        if let Some(damage) = damage {
            tracing::debug!(?damage, "inet_diag attributes end early");
            self.malformed_attributes.with_label_values(&["length"]).inc();
        }
    }
}
