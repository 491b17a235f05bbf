//! Change events on their way to a destination that asked for them: batches of the hub become payloads. A payload is
//! events one behind the other, each as `uvarint(length) ‖ xtcp_event.v1.Event` (protobufList) or as a line of JSON.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::metrics::{Loss, Meter};
use super::queue::Queue;
use crate::destination::Payload;
use crate::event_sink::{Published, SinkCounters, Subscription};
use crate::marshaller::Marshaller;

/// Events that are taken at once.
const AT_ONCE: usize = 1024;
/// A payload is closed when it has so many bytes.
const ENOUGH: usize = 768 << 10;

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With its length in front.
    Delimited,
    /// As a line.
    Line,
}

impl Form {
    /// The one that goes with a format of records; `None` where none does.
    pub fn of(format: &dyn Marshaller) -> Option<Self> {
        match format.name() {
            "protobufList" => Some(Self::Delimited),
            "jsonl" => Some(Self::Line),
            _ => None,
        }
    }

    fn write(self, event: &Published<'_>) -> Bytes {
        match self {
            Self::Line => event.jsonl(),
            Self::Delimited => {
                let event = event.protobuf();
                let mut bytes = BytesMut::with_capacity(event.len() + 5);
                prost::encoding::encode_varint(u64::try_from(event.len()).unwrap_or(u64::MAX), &mut bytes);
                bytes.extend_from_slice(&event);
                bytes.freeze()
            }
        }
    }
}

/// One destination that carries change events.
pub(super) struct Feed {
    pub(super) form: Form,
    /// Most bytes of a payload.
    pub(super) limit: usize,
    pub(super) queue: Arc<Queue>,
    pub(super) meter: Meter,
    pub(super) instance: String,
}

impl Feed {
    /// Hands on what the hub publishes, until it is closed.
    pub(super) async fn run(self, subscription: Subscription, counters: Arc<SinkCounters>) {
        let mut number = 0_u64;
        while let Some(delivery) = subscription.take(AT_ONCE).await {
            let mut open = BytesMut::new();
            let mut events = 0;
            for event in delivery.wanted(subscription.filter()) {
                counters.published.get(event.meta.kind).inc();
                let written = self.form.write(&event);
                if written.len() > self.limit {
                    self.meter.accepted(1);
                    self.meter.dropped(1, Loss::Refused);
                    continue;
                }
                if open.len() + written.len() > self.limit.min(ENOUGH) {
                    self.offer(&mut open, &mut events, &mut number);
                }
                open.extend_from_slice(&written);
                events += 1;
            }
            self.offer(&mut open, &mut events, &mut number);
        }
    }

    fn offer(&self, open: &mut BytesMut, events: &mut usize, number: &mut u64) {
        let rows = std::mem::take(events);
        if rows == 0 {
            return;
        }
        *number += 1;
        let id = format!("{}-e{number}-0", self.instance).into();
        self.queue.offer(Payload { bytes: open.split().freeze(), header: 0, rows, id });
    }
}
