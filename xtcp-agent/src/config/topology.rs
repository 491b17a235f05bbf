//! Options about the host's links to its network.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::value::{Switch, duration};

/// The interfaces through which the host reaches its network, in fields of every record.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Host topology")]
pub struct Topology {
    /// Fill the fields of uplinks: interface, driver, model, PCI ids, bus, speed, firmware.
    #[arg(id = "enrich-nic", long = "enrich-nic", value_enum, value_name = "CHOICE", default_value = "off")]
    pub enrich_nic: Switch,

    /// Fill the fields of the uplinks' neighbours, by LLDP, as lldpd knows them.
    #[arg(
        id = "enrich-lldp",
        long = "enrich-lldp",
        value_enum,
        value_name = "CHOICE",
        default_value = "off"
    )]
    pub enrich_lldp: Switch,

    /// Interface that is an uplink, the first given the first; repeatable. None given: those of the default routes.
    ///
    /// A default route over a bond, a bridge or a VLAN means the devices below it.
    #[arg(id = "uplink", long = "uplink", value_name = "INTERFACE", value_delimiter = ',')]
    pub uplinks: Vec<String>,

    /// Uplinks told at most: 1 or 2.
    #[arg(id = "uplink-count", long = "uplink-count", value_name = "UPLINKS", default_value = "2",
          value_parser = value_parser!(u8).range(1..=2))]
    pub uplink_count: u8,

    /// Time between two looks at uplinks and neighbours: 1s to 24h.
    #[arg(id = "topology-frequency", long = "topology-frequency", value_name = "DURATION", default_value = "5m",
          value_parser = duration(Duration::from_secs(1), Duration::from_secs(86_400)))]
    pub frequency: Duration,

    /// Program that tells what lldpd knows: lldpcli, of lldpd.
    #[arg(long, value_name = "FILE", default_value = "lldpcli")]
    pub lldpcli: PathBuf,
}
