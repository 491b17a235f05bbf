//! Performs a `DumpRequest`: one visit, one socket, requests and datagrams, records.
//!
//! Every word of an answer is looked at: type, sequence number, DUMP_INTR, errors, the status of DONE, truncation. What
//! is interrupted or overrun is asked again, and a socket that was delivered before is not delivered twice. Nothing
//! of a namespace outlives its request.

mod delivery;
mod exchange;
mod metrics;
mod own;
mod tap;
mod worker;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nix::errno::Errno;
use xtcp_inet_diag::attr::Selection;
use xtcp_inet_diag::bytecode::Program;
use xtcp_inet_diag::message::{self, Reading};
use xtcp_inet_diag::request::{Extras, Protocol};
use xtcp_inet_diag::state::{State, States};
use xtcp_inet_diag::wire::Row;
use xtcp_proto::flat_record::v1::xtcp_flat_record::RecordMethod;

use crate::clock::{self, Clock};
use crate::netns::NetnsId;
use crate::netns::enter::{EnterError, Visitor};
use crate::netns::nsid::Nsids;
use crate::netns_counters::Reading as Counters;
use crate::netns_counters::listeners::Listeners;
use crate::owners::{Owners, View};
use crate::record::RowChunk;
use crate::record::builder::{Builder, Context, Template};
use crate::scheduler::{Completion, Lookup, Scope};
use crate::selection::SocketSelection;

use delivery::{Delivery, Found, ROWS_PER_CHUNK};
use exchange::{Exchange, Fault, Question};
pub use metrics::CollectorMetrics;
pub use tap::Tap;
use tap::Tapped;
pub use worker::{Done, Job, Shared, WorkerHandle, spawn};

/// What to ask for and what to leave out, all from `Config`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// MPTCP's sockets too, in whole dumps.
    pub mptcp: bool,
    /// States of the rows wanted.
    pub states: States,
    /// Attributes that are wanted.
    pub selection: Selection,
    /// Only sockets with one of these ports; empty for all.
    pub include_ports: Vec<u16>,
    /// No socket with one of these ports.
    pub exclude_ports: Vec<u16>,
    /// The filter and the ports, as a program for the kernel.
    pub sockets: SocketSelection,
    /// Longest wait for one answer of the kernel.
    pub timeout: Duration,
    /// Lookups in one `send`.
    pub lookups_per_send: usize,
    /// The agent's own network namespace, where a dump leaves out the agent's own connections; `None` to keep them. Its
    /// listeners stay.
    pub leave_out_own_in: Option<NetnsId>,
}

impl Settings {
    /// Whether a row is wanted. A port of 0 is one that the socket does not have yet.
    fn wants(&self, states: States, row: &Row<'_>) -> bool {
        let ports = [row.source_port(), row.destination_port()];
        let any = |set: &[u16]| set.iter().any(|port| ports.contains(port));
        let unknown = row.source_port() == 0;
        states.shows(row.state())
            && (self.include_ports.is_empty() || unknown || any(&self.include_ports))
            && !any(&self.exclude_ports)
    }
}

/// Takes rows away from a collector, without making it wait longer than it must.
pub trait RowSink: Send {
    /// Rows of a request, or a part of them.
    fn take(&mut self, chunk: RowChunk);
}

/// Visits of one request: the first, and repetitions of what was interrupted.
const ATTEMPTS: u32 = 3;

/// One worker's means.
pub struct Collector {
    visitor: Visitor,
    exchange: Exchange,
    /// The kernel takes every filter so far.
    kernel_filters: bool,
    /// The kernel knows MPTCP so far.
    kernel_mptcp: bool,
    settings: Arc<Settings>,
    builder: Builder,
    owners: Owners,
    clock: Arc<Clock>,
    counter: Arc<AtomicU64>,
    metrics: CollectorMetrics,
    sink: Box<dyn RowSink>,
    tap: Option<Arc<dyn Tap>>,
    nsids: Option<Nsids>,
    number: u64,
}

impl Collector {
    /// Performs a job. The completion says how it went; who was found there, or why nobody was, stands beside it, and the
    /// namespace's counters, where the job wants them.
    pub fn perform(&mut self, job: &Job) -> (Completion, Result<NetnsId, EnterError>, Option<Counters>) {
        let Job { request, target, .. } = job;
        let started = clock::ktime_ns();
        let states = match request.scope {
            Scope::Listeners => States::one(State::Listen),
            Scope::Dump | Scope::Lookups(_) => self.settings.states,
        };
        let mut delivery = Delivery::new(request, states, self.owners.view());
        let mut complete = false;
        let mut why = None;
        let mut found = Err(EnterError::NoDoor(target.id));
        let mut counters = None;
        for attempt in 1..=ATTEMPTS {
            let answered = match self.attempt(job, &mut delivery, &mut counters) {
                Ok((id, answered)) => {
                    found = Ok(id);
                    answered
                }
                Err(error) => {
                    self.metrics.enter_failed(&error);
                    found = Err(error);
                    break;
                }
            };
            match answered {
                Ok(()) => {
                    complete = true;
                    why = None;
                    break;
                }
                Err(fault) => {
                    self.metrics.fault(&fault);
                    tracing::debug!(netns = %target.id, attempt, %fault, "inet_diag request failed");
                    why = Some(fault.to_string());
                    if !fault.is_worth_repeating() {
                        break;
                    }
                }
            }
        }
        let duration_ns = clock::ktime_ns().saturating_sub(started);
        self.metrics.request_ended(request, complete, delivery.delivered, duration_ns);
        let seen = if request.poll != 0 { delivery.seen } else { foldhash::HashSet::default() };
        let rows = delivery.delivered;
        if let (Some(counters), Some(listeners)) = (&mut counters, delivery.listeners) {
            listeners.finish(&mut counters.counters);
        }
        (Completion { id: request.id, complete, fault: why, rows, duration_ns, seen }, found, counters)
    }

    /// One visit: who was found, and whether everything was answered. Counters that an earlier one read stay.
    fn attempt(
        &mut self,
        job: &Job,
        delivery: &mut Delivery<'_>,
        counters: &mut Option<Counters>,
    ) -> Result<(NetnsId, Result<(), Fault>), EnterError> {
        let Job { request, target, name, workload, counters: wants_counters } = job;
        let mut visit = if *wants_counters && counters.is_none() {
            self.visitor.open_diag_and_counters(target)?
        } else {
            self.visitor.open_diag(target)?
        };
        if let Some(files) = visit.counters.take() {
            *counters = Some(files.read());
        }
        delivery.listeners = wants_counters.then(Listeners::default);
        delivery.program = self.settings.sockets.program(visit.socket.as_fd());
        if request.scope == Scope::Dump
            && self.settings.leave_out_own_in.is_some_and(|own| own.matches(visit.id))
        {
            delivery.own = own::socket_inodes();
        }
        let context = Context {
            timestamp_ns: self.clock.now(),
            netns: name,
            netns_id: visit.id,
            nsid: self.nsids.as_ref().and_then(|nsids| nsids.get(visit.id)).unwrap_or(0),
            workload: workload.as_ref(),
            reason: request.reason,
            method: method_of(&request.scope),
            poll: request.poll,
            dump: 0,
            socket_fd: exchange::descriptor(&visit.socket),
            netlinker_id: self.number,
        };
        let mut template = self.builder.template(&context);
        let tap = self.tap.clone();
        let link = Tapped { socket: &visit.socket, tap: tap.as_deref(), netns_inode: visit.id.inode };
        let answered =
            Exchange::prepare(&visit.socket, self.settings.timeout).and_then(|()| match &request.scope {
                Scope::Dump | Scope::Listeners => self.dump(&link, &mut template, delivery),
                Scope::Lookups(lookups) => self.look_up(&link, lookups, &mut template, delivery),
            });
        let id = visit.id;
        drop(visit);
        delivery.hand_over(self.sink.as_mut());
        Ok((id, answered))
    }

    fn dump(
        &mut self,
        socket: &Tapped<'_>,
        template: &mut Template,
        delivery: &mut Delivery<'_>,
    ) -> Result<(), Fault> {
        self.dump_protocol(socket, Protocol::TCP, template, delivery)?;
        if !self.settings.mptcp || !self.kernel_mptcp || delivery.request.scope != Scope::Dump {
            return Ok(());
        }
        match self.dump_protocol(socket, Protocol::MPTCP, template, delivery) {
            Err(Fault::Refused(Errno::ENOENT)) => {
                tracing::warn!("this kernel does not tell of MPTCP sockets (mptcp_diag): TCP only");
                self.kernel_mptcp = false;
                Ok(())
            }
            answered => answered,
        }
    }

    fn dump_protocol(
        &mut self,
        socket: &Tapped<'_>,
        protocol: Protocol,
        template: &mut Template,
        delivery: &mut Delivery<'_>,
    ) -> Result<(), Fault> {
        if self.kernel_filters {
            let program = delivery.program;
            let answered = self.dump_passing(socket, protocol, &program, template, delivery);
            let Err(Fault::Refused(Errno::EINVAL)) = answered else { return answered };
            if program.is_empty() {
                return answered;
            }
            // It lacks an operation, such as the one for cgroups.
            tracing::warn!(
                "this kernel does not take the filter: it answers with every socket, and rows are judged here"
            );
            self.kernel_filters = false;
        }
        self.dump_passing(socket, protocol, &Program::EVERYTHING, template, delivery)
    }

    /// Dumps with a program in the kernel; what it was not asked is judged here.
    fn dump_passing(
        &mut self,
        socket: &Tapped<'_>,
        protocol: Protocol,
        program: &Program,
        template: &mut Template,
        delivery: &mut Delivery<'_>,
    ) -> Result<(), Fault> {
        let Self { exchange, settings, counter, metrics, sink, .. } = self;
        let reading = Reading { protocol, selection: settings.selection };
        let extensions = settings.selection.extensions(protocol);
        let bpf_storages = settings.selection.contains(Selection::SK_BPF_STORAGES);
        let extras = Extras { filter: program, bpf_storages };
        let question = Question { protocol, states: delivery.states, extensions, extras };
        let judged = *program == delivery.program;
        exchange.dump(socket, question, metrics, &mut |payloads| {
            let found: Vec<Found<'_>> =
                payloads.iter().filter_map(|payload| Found::new(payload, reading, metrics)).collect();
            let remembered =
                delivery.owners.recall(found.iter().map(|Found { row, .. }| (row.cookie(), row.inode())));
            for (found, remembered) in found.into_iter().zip(remembered) {
                if !judged && !delivery.passes(found.payload) {
                    continue;
                }
                delivery.listener(protocol, &found, settings);
                let found = Found { remembered, ..found };
                let added = delivery.row(&found, template, settings, counter, metrics);
                if added && delivery.rows.len() >= ROWS_PER_CHUNK {
                    delivery.hand_over(sink.as_mut());
                }
            }
        })
    }

    fn look_up(
        &mut self,
        socket: &Tapped<'_>,
        lookups: &[Lookup],
        template: &mut Template,
        delivery: &mut Delivery<'_>,
    ) -> Result<(), Fault> {
        let Self { exchange, settings, counter, metrics, .. } = self;
        let reading = Reading { protocol: Protocol::TCP, selection: settings.selection };
        let extensions = settings.selection.extensions(reading.protocol);
        for batch in lookups.chunks(settings.lookups_per_send.max(1)) {
            exchange.look_up(socket, batch, extensions, metrics, &mut |lookup, payload| {
                let Some(mut found) = Found::new(payload, reading, metrics) else { return };
                if !is_asked_for(lookup, &found) {
                    metrics.looked_up("other_socket");
                    return;
                }
                metrics.looked_up("found");
                let socket = (found.row.cookie(), found.row.inode());
                if let (0, Some(owner)) = (lookup.cookie, lookup.owner) {
                    delivery.owners.name(socket.0, owner);
                }
                if !delivery.passes(payload) {
                    return;
                }
                found.event_sequence = lookup.event_sequence;
                found.remembered = match lookup.owner {
                    Some(owner) => View::told(owner),
                    None => delivery.owners.recall([socket].into_iter()).pop().unwrap_or_default(),
                };
                delivery.row(&found, template, settings, counter, metrics);
            })?;
        }
        Ok(())
    }
}

fn method_of(scope: &Scope) -> RecordMethod {
    match scope {
        Scope::Dump | Scope::Listeners => RecordMethod::Dump,
        Scope::Lookups(lookups) if lookups.iter().any(|lookup| lookup.cookie == 0) => {
            RecordMethod::LookupByAddress
        }
        Scope::Lookups(_) => RecordMethod::Lookup,
    }
}

/// Whether an answer is of the socket that was asked for: a connection that is gone comes back as its listener. Without
/// a cookie one with the same addresses and ports is taken for it, unless it listens.
fn is_asked_for(lookup: &Lookup, Found { row, payload, .. }: &Found<'_>) -> bool {
    if lookup.cookie != 0 {
        return row.cookie() == lookup.cookie;
    }
    row.state() != State::Listen as u8
        && message::decode(payload).is_ok_and(|decoded| {
            let id = decoded.header.id;
            (id.source, id.source_port) == (lookup.source, lookup.source_port)
                && (id.destination, id.destination_port) == (lookup.destination, lookup.destination_port)
        })
}
