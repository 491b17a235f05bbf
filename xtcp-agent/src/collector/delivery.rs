//! What becomes of the rows of one request: which are wanted and new, whose they are, and where they go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::HashSet;
use xtcp_inet_diag::bytecode::{Program, Subject};
use xtcp_inet_diag::message::{self, Reading};
use xtcp_inet_diag::request::Protocol;
use xtcp_inet_diag::state::{State, States};
use xtcp_inet_diag::wire::Row;

use super::{CollectorMetrics, RowSink, Settings};
use crate::netns_counters::listeners::Listeners;
use crate::owners::{Known, Remembered, View};
use crate::record::builder::{RowFields, Template};
use crate::record::{RowChunk, Rows};
use crate::scheduler::DumpRequest;

/// Rows are handed on in chunks of at most this many.
pub(super) const ROWS_PER_CHUNK: usize = 512;

/// One request under way.
pub(super) struct Delivery<'a> {
    pub(super) request: &'a DumpRequest,
    pub(super) rows: Rows,
    pub(super) delivered: u64,
    pub(super) seen: HashSet<u64>,
    pub(super) states: States,
    /// Inodes of the agent's own sockets, where they are left out.
    pub(super) own: HashSet<u32>,
    /// The listeners, where they are wanted.
    pub(super) listeners: Option<Listeners>,
    /// What passes, in the namespace that is asked.
    pub(super) program: Program,
    pub(super) owners: View,
}

/// A row as it came.
pub(super) struct Found<'a> {
    pub(super) row: Row<'a>,
    pub(super) payload: &'a [u8],
    /// Its owner, as far as that is remembered.
    pub(super) remembered: Remembered,
    /// Sequence number of the change event behind it; 0 for none.
    pub(super) event_sequence: u64,
}

impl<'a> Found<'a> {
    pub(super) fn new(payload: &'a [u8], reading: Reading, metrics: &CollectorMetrics) -> Option<Self> {
        match Row::new_as(payload, reading) {
            Ok(row) => Some(Self { row, payload, remembered: Remembered::default(), event_sequence: 0 }),
            Err(error) => {
                metrics.malformed_row(&error);
                None
            }
        }
    }
}

impl<'a> Delivery<'a> {
    pub(super) fn new(request: &'a DumpRequest, states: States, owners: View) -> Self {
        Self {
            request,
            rows: Rows::default(),
            delivered: 0,
            seen: request.seen.clone(),
            states,
            own: HashSet::default(),
            listeners: None,
            program: Program::EVERYTHING,
            owners,
        }
    }

    /// Whether a row that the kernel did not judge certainly passes. What it tells too little for comes with the next
    /// dump, if it passes.
    pub(super) fn passes(&self, payload: &[u8]) -> bool {
        self.program.is_empty()
            || message::decode(payload).is_ok_and(|row| self.program.matches(&Subject::of(&row)))
    }

    /// Notes a listener, also one whose row was delivered before.
    pub(super) fn listener(&mut self, protocol: Protocol, found: &Found<'_>, settings: &Settings) {
        let Found { row, payload, .. } = found;
        if row.state() == State::Listen as u8
            && protocol == Protocol::TCP
            && settings.wants(self.states, row)
            && let Some(listeners) = &mut self.listeners
        {
            listeners.add(payload);
        }
    }

    /// Adds one row if it is wanted and new. True if it was added.
    pub(super) fn row(
        &mut self,
        found: &Found<'_>,
        template: &mut Template,
        settings: &Settings,
        counter: &AtomicU64,
        metrics: &CollectorMetrics,
    ) -> bool {
        let Found { row, payload: _, remembered, event_sequence } = found;
        if !self.seen.insert(row.cookie()) {
            metrics.repeated_row();
            return false;
        }
        if !settings.wants(self.states, row) {
            return false;
        }
        if self.own.contains(&row.inode()) && row.state() != State::Listen as u8 {
            metrics.own_row();
            return false;
        }
        let Known { owner, workload } = self.owners.of(remembered, row.cgroup_id());
        if workload.is_some_and(|workload| workload.opted_out) {
            metrics.opted_out_row();
            return false;
        }
        let fields = RowFields {
            counter: counter.fetch_add(1, Ordering::Relaxed) + 1,
            event_sequence: *event_sequence,
            owner: owner.as_ref(),
            workload,
        };
        match template.append(row, fields, &mut self.rows) {
            Ok(findings) => {
                metrics.attributes(&findings);
                true
            }
            Err(error) => {
                metrics.malformed_row(&error);
                false
            }
        }
    }

    pub(super) fn hand_over(&mut self, sink: &mut dyn RowSink) {
        if self.rows.is_empty() {
            return;
        }
        let rows = std::mem::take(&mut self.rows);
        self.delivered += rows.len() as u64;
        let DumpRequest { netns_inode, reason, poll, .. } = *self.request;
        sink.take(RowChunk { reason, poll, netns_inode, rows: Arc::new(rows) });
    }
}
