//! Through which links this host reaches its network: fields of every record, looked at slowly and in the background.
//!
//! Rows never wait for a look: they carry what the last one found.

mod lldp;
mod nic;
mod pci_ids;
mod routes;
mod sysfs;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge, Registry, opts};
use prost::Message as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

use crate::config::Switch;
use lldp::Neighbour;
use nic::Nic;
use sysfs::Sysfs;

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Interfaces that are uplinks; none for those of the default routes.
    pub uplinks: Vec<String>,
    /// Uplinks at most.
    pub count: usize,
    /// The network cards.
    pub nic: bool,
    /// Their neighbours.
    pub lldp: bool,
    /// Program that tells what lldpd knows.
    pub lldpcli: PathBuf,
    /// Between two looks.
    pub frequency: Duration,
}

impl Settings {
    /// As the operator wants it.
    pub fn new(config: &crate::config::Topology) -> Self {
        let crate::config::Topology { enrich_nic, enrich_lldp, uplinks, uplink_count, frequency, lldpcli } =
            config;
        Self {
            uplinks: uplinks.clone(),
            count: usize::from(*uplink_count),
            nic: *enrich_nic == Switch::On,
            lldp: *enrich_lldp == Switch::On,
            lldpcli: lldpcli.clone(),
            frequency: *frequency,
        }
    }

    /// Whether anything is looked for.
    pub fn wants_something(&self) -> bool {
        self.nic || self.lldp
    }
}

/// What is counted about looks.
#[derive(Clone, Debug)]
pub struct Metrics {
    looks: IntCounterVec,
    uplinks: IntGauge,
    neighbours: IntGauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            looks: IntCounterVec::new(
                opts!(
                    "xtcp_topology_looks_total",
                    "Looks at the host's uplinks, by what was looked at (routes, nic, lldp) and outcome."
                ),
                &["what", "outcome"],
            )?,
            uplinks: IntGauge::new("xtcp_topology_uplinks", "Uplinks that the last look found.")?,
            neighbours: IntGauge::new(
                "xtcp_topology_neighbours",
                "Uplinks whose neighbour lldpd knew at the last look.",
            )?,
        };
        for what in ["routes", "nic", "lldp"] {
            for outcome in ["found", "failed"] {
                metrics.looks.with_label_values(&[what, outcome]);
            }
        }
        registry.register(Box::new(metrics.looks.clone()))?;
        registry.register(Box::new(metrics.uplinks.clone()))?;
        registry.register(Box::new(metrics.neighbours.clone()))?;
        Ok(metrics)
    }

    fn looked(&self, what: &str, found: bool) {
        self.looks.with_label_values(&[what, if found { "found" } else { "failed" }]).inc();
    }
}

/// One uplink, as the last look saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Uplink {
    name: String,
    nic: Nic,
    neighbour: Neighbour,
}

/// The fields of the last look, for who makes records. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Fields(Arc<RwLock<Arc<[u8]>>>);

impl Fields {
    /// The fields `uplink1_*` and `uplink2_*` of a record (100 to 224), encoded; empty before the first look.
    pub fn encoded(&self) -> Arc<[u8]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, uplinks: &[Uplink]) {
        let mut uplinks = uplinks.iter().cloned();
        let record = record(uplinks.next().unwrap_or_default(), uplinks.next().unwrap_or_default());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = record.encode_to_vec().into();
    }
}

fn record(first: Uplink, second: Uplink) -> XtcpFlatRecord {
    XtcpFlatRecord {
        uplink1_ifname: first.name,
        uplink1_nic_driver: first.nic.driver,
        uplink1_nic_model: first.nic.model,
        uplink1_nic_pci_vendor: first.nic.pci_vendor,
        uplink1_nic_pci_device: first.nic.pci_device,
        uplink1_nic_bus_info: first.nic.bus_info,
        uplink1_nic_speed_mbps: first.nic.speed_mbps,
        uplink1_nic_fw_version: first.nic.fw_version,
        uplink1_lldp_chassis_name: first.neighbour.chassis_name,
        uplink1_lldp_chassis_id: first.neighbour.chassis_id,
        uplink1_lldp_mgmt_ip: first.neighbour.mgmt_ip,
        uplink1_lldp_port_id: first.neighbour.port_id,
        uplink1_lldp_port_descr: first.neighbour.port_descr,
        uplink2_ifname: second.name,
        uplink2_nic_driver: second.nic.driver,
        uplink2_nic_model: second.nic.model,
        uplink2_nic_pci_vendor: second.nic.pci_vendor,
        uplink2_nic_pci_device: second.nic.pci_device,
        uplink2_nic_bus_info: second.nic.bus_info,
        uplink2_nic_speed_mbps: second.nic.speed_mbps,
        uplink2_nic_fw_version: second.nic.fw_version,
        uplink2_lldp_chassis_name: second.neighbour.chassis_name,
        uplink2_lldp_chassis_id: second.neighbour.chassis_id,
        uplink2_lldp_mgmt_ip: second.neighbour.mgmt_ip,
        uplink2_lldp_port_id: second.neighbour.port_id,
        uplink2_lldp_port_descr: second.neighbour.port_descr,
        ..XtcpFlatRecord::default()
    }
}

/// Looks now and then at each period, until `shutdown`.
pub async fn run(settings: Settings, fields: Fields, metrics: Metrics, shutdown: CancellationToken) {
    if !settings.wants_something() {
        return;
    }
    let mut period = tokio::time::interval(settings.frequency);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = Vec::new();
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            problems = look(&settings, &fields, &metrics) => {
                // Once for each new problem: the same one comes back with every look.
                for problem in problems.iter().filter(|problem| !said.contains(*problem)) {
                    tracing::warn!("host topology: {problem}; its fields stay empty");
                }
                said = problems;
            }
            () = shutdown.cancelled() => return,
        }
    }
}

/// Looks once. What went wrong is counted, said to the caller, and leaves its fields empty.
pub async fn look(settings: &Settings, fields: &Fields, metrics: &Metrics) -> Vec<String> {
    let mut problems = Vec::new();
    let (names, nic) = (settings.uplinks.clone(), settings.nic);
    let count = settings.count;
    let found = tokio::task::spawn_blocking(move || host_links(names, count, nic)).await;
    let links = match found {
        Ok(links) => links,
        Err(error) => Links { problems: vec![("routes", error.to_string())], uplinks: Vec::new() },
    };
    for what in ["routes", "nic"] {
        if what == "routes" && !settings.uplinks.is_empty() || what == "nic" && !settings.nic {
            continue;
        }
        metrics.looked(what, links.problems.iter().all(|(of, _)| *of != what));
    }
    problems.extend(links.problems.into_iter().map(|(_, problem)| problem));
    let mut uplinks = links.uplinks;
    if settings.lldp {
        let neighbours = lldp::neighbours(&settings.lldpcli).await;
        metrics.looked("lldp", neighbours.is_ok());
        match neighbours {
            Ok(neighbours) => {
                for (interface, neighbour) in neighbours {
                    if let Some(uplink) = uplinks
                        .iter_mut()
                        .find(|uplink| uplink.name == interface && uplink.neighbour == Neighbour::default())
                    {
                        uplink.neighbour = neighbour;
                    }
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.uplinks.set(count(uplinks.len()));
    let known = uplinks.iter().filter(|uplink| uplink.neighbour != Neighbour::default()).count();
    metrics.neighbours.set(count(known));
    fields.set(&uplinks);
    problems
}

/// What was found, and what could not be: of what, and why.
struct Links {
    uplinks: Vec<Uplink>,
    problems: Vec<(&'static str, String)>,
}

/// Finds the uplinks. Blocks for some system calls.
fn host_links(given: Vec<String>, count: usize, nic: bool) -> Links {
    let sysfs = Sysfs::of_host();
    let mut problems = Vec::new();
    let mut names = given;
    if names.is_empty() {
        match routes::default_interfaces() {
            Ok(interfaces) => {
                for below in interfaces.iter().flat_map(|interface| sysfs.physical(interface)) {
                    if !names.contains(&below) {
                        names.push(below);
                    }
                }
            }
            Err(error) => problems.push(("routes", error.to_string())),
        }
    }
    names.truncate(count);
    let uplinks = names.into_iter().map(|name| {
        let nic = if nic {
            Nic::of(&sysfs, &name, pci_ids::PATHS).unwrap_or_else(|error| {
                problems.push(("nic", error.to_string()));
                Nic::default()
            })
        } else {
            Nic::default()
        };
        Uplink { name, nic, neighbour: Neighbour::default() }
    });
    Links { uplinks: uplinks.collect(), problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(name: &str) -> Uplink {
        let nic = Nic {
            driver: "mlx5_core".to_owned(),
            model: "ConnectX".to_owned(),
            pci_vendor: 0x15b3,
            pci_device: 0x101d,
            bus_info: "0000:3b:00.0".to_owned(),
            speed_mbps: 100_000,
            fw_version: "22.31".to_owned(),
        };
        let neighbour = Neighbour {
            chassis_name: "tor".to_owned(),
            chassis_id: "00:11".to_owned(),
            mgmt_ip: "192.0.2.2".to_owned(),
            port_id: "Ethernet1".to_owned(),
            port_descr: "rack".to_owned(),
        };
        Uplink { name: name.to_owned(), nic, neighbour }
    }

    #[test]
    fn the_fields_are_those_between_100_and_224_and_replaced_by_the_next_look() {
        let fields = Fields::default();
        assert!(fields.encoded().is_empty());
        fields.set(&[uplink("eth0"), uplink("eth1")]);
        let record = XtcpFlatRecord::decode(&*fields.encoded()).unwrap();
        assert_eq!((record.uplink1_ifname.as_str(), record.uplink2_ifname.as_str()), ("eth0", "eth1"));
        assert_eq!((record.uplink1_nic_speed_mbps, record.uplink2_nic_pci_device), (100_000, 0x101d));
        assert_eq!(
            (record.uplink2_lldp_port_id.as_str(), record.uplink1_lldp_mgmt_ip.as_str()),
            ("Ethernet1", "192.0.2.2")
        );
        assert_eq!(record, self::record(uplink("eth0"), uplink("eth1")), "nothing else");
        fields.set(&[]);
        assert!(fields.encoded().is_empty());
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_a_problem_and_keeps_its_name() {
        let settings = Settings {
            uplinks: vec!["nosuchlink".to_owned()],
            count: 2,
            nic: true,
            lldp: true,
            lldpcli: "/nonexistent/lldpcli".into(),
            frequency: Duration::from_secs(1),
        };
        let registry = Registry::new();
        let (fields, metrics) = (Fields::default(), Metrics::register(&registry).unwrap());
        let problems = look(&settings, &fields, &metrics).await;
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(XtcpFlatRecord::decode(&*fields.encoded()).unwrap().uplink1_ifname, "nosuchlink");
        assert_eq!(metrics.looks.with_label_values(&["nic", "failed"]).get(), 1);
        assert_eq!(metrics.looks.with_label_values(&["lldp", "failed"]).get(), 1);
        assert_eq!(metrics.looks.with_label_values(&["routes", "found"]).get(), 0);
    }
}
