//! What all parts count, registered in one place.

use prometheus::Registry;

use super::attribution::AttributionMetrics;
use crate::collector::CollectorMetrics;
use crate::ebpf::EbpfMetrics;
use crate::engine::EngineMetrics;
use crate::event_sink::SinkMetrics;
use crate::grpc::GrpcMetrics;
use crate::netns::metrics::DiscoveryMetrics;
use crate::netns_counters::ledger;
use crate::workload::WorkloadMetrics;
use crate::{delivery, envelope, topology};

/// The metrics of every part.
pub(super) struct Meters {
    pub(super) ebpf: EbpfMetrics,
    pub(super) discovery: DiscoveryMetrics,
    pub(super) engine: EngineMetrics,
    pub(super) collector: CollectorMetrics,
    pub(super) workload: WorkloadMetrics,
    pub(super) envelope: envelope::Metrics,
    pub(super) delivery: delivery::Metrics,
    pub(super) sinks: SinkMetrics,
    pub(super) grpc: GrpcMetrics,
    pub(super) attribution: AttributionMetrics,
    pub(super) ledger: ledger::Metrics,
    pub(super) topology: topology::Metrics,
}

impl Meters {
    /// Registers them all.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            ebpf: EbpfMetrics::register(registry)?,
            discovery: DiscoveryMetrics::register(registry)?,
            engine: EngineMetrics::register(registry)?,
            collector: CollectorMetrics::register(registry)?,
            workload: WorkloadMetrics::register(registry)?,
            envelope: envelope::Metrics::register(registry)?,
            delivery: delivery::Metrics::register(registry)?,
            sinks: SinkMetrics::register(registry)?,
            grpc: GrpcMetrics::register(registry)?,
            attribution: AttributionMetrics::register(registry)?,
            ledger: ledger::Metrics::register(registry)?,
            topology: topology::Metrics::register(registry)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use prometheus::proto::MetricType;
    use xtcp_inet_diag::attr::info::AccEcnLayout;
    use xtcp_inet_diag::wire::{Context, Findings, Row};

    use super::*;

    /// Of a socket's header, an attribute that nobody knows, and a `meminfo` that cannot be one.
    fn odd_findings() -> Findings {
        let attribute = |kind: u16, payload: &[u8]| {
            let length = u16::try_from(4 + payload.len()).unwrap();
            [&length.to_ne_bytes()[..], &kind.to_ne_bytes()[..], payload].concat()
        };
        let message = [vec![0; 72], attribute(200, &[0; 4]), attribute(1, &[0; 3])].concat();
        let context =
            Context { before: &[], counter: 0, between: &[], after: &[], accecn: AccEcnLayout::BitFields };
        let row = Row::new(&message).unwrap();
        let mut findings = Findings::default();
        row.write(&context, &mut vec![0; row.room(&context)], &mut findings).unwrap();
        findings
    }

    /// The page as it is after every kind of thing has happened.
    fn registry() -> Registry {
        let registry = crate::metrics::registry("0.0.0").unwrap();
        let meters = Meters::register(&registry).unwrap();
        meters.sinks.sink("nats:127.0.0.1:4222");
        meters.workload.show_engine();
        meters.delivery.show("kafka");
        meters.collector.attributes(&odd_findings());
        registry
    }

    #[test]
    fn the_metrics_page_is_as_blessed() {
        let mut page = String::new();
        for family in registry().gather() {
            let labels: BTreeSet<&str> = family
                .get_metric()
                .iter()
                .flat_map(prometheus::proto::Metric::get_label)
                .map(prometheus::proto::LabelPair::name)
                .collect();
            let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            writeln!(page, "{} {kind} {{{labels}}}\n    {}", family.name(), family.help()).unwrap();
        }
        crate::cli::tests::assert_golden("metrics.txt", &page);
    }

    #[test]
    fn counters_alone_are_called_totals_and_every_metric_is_explained() {
        for family in registry().gather() {
            let name = family.name();
            let counts = family.get_field_type() == MetricType::COUNTER;
            assert_eq!(name.ends_with("_total"), counts, "{name} is a {:?}", family.get_field_type());
            assert!(name.starts_with("xtcp_") || name.starts_with("process_"), "{name}");
            assert!(family.help().ends_with('.'), "{name}: {}", family.help());
        }
    }
}
