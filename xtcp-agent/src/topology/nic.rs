//! What is known of one network card.

use std::io;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::os::fd::AsFd as _;

use super::pci_ids;
use super::sysfs::Sysfs;
use crate::sys::{self, DriverInfo};

/// A network card; what is not known is empty or 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nic {
    /// As `ethtool -i` says it.
    pub(super) driver: String,
    /// From the PCI database.
    pub(super) model: String,
    pub(super) pci_vendor: u32,
    pub(super) pci_device: u32,
    /// As `ethtool -i` says it: a PCI slot, as a rule.
    pub(super) bus_info: String,
    pub(super) speed_mbps: u32,
    /// As `ethtool -i` says it.
    pub(super) fw_version: String,
}

/// No such interface.
#[derive(Debug, thiserror::Error)]
pub(super) enum NicError {
    #[error("there is no interface {0}: name those of this host with --uplink")]
    Missing(String),
    #[error("cannot ask for the driver of interfaces: {0}")]
    Socket(#[from] io::Error),
}

impl Nic {
    /// Looks at an interface of the calling thread's namespace.
    pub(super) fn of(sysfs: &Sysfs, name: &str, databases: &[&str]) -> Result<Self, NicError> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        let info = sys::driver_info(socket.as_fd(), name);
        if info.as_ref().is_err_and(is_no_device) && !sysfs.has(name) {
            return Err(NicError::Missing(name.to_owned()));
        }
        // A driver need not answer: sysfs knows less, but of each.
        Ok(Self::join(sysfs, name, info.unwrap_or_default(), databases))
    }

    fn join(sysfs: &Sysfs, name: &str, info: DriverInfo, databases: &[&str]) -> Self {
        let DriverInfo { driver, bus_info, fw_version } = info;
        let or = |said: String, other: Option<String>| {
            if said.is_empty() || said == "N/A" { other.unwrap_or_default() } else { said }
        };
        let pci = sysfs.pci(name);
        let model = pci.as_ref().and_then(|pci| pci_ids::model(databases, pci.vendor, pci.device));
        Self {
            driver: or(driver, sysfs.driver(name)),
            model: model.unwrap_or_default(),
            pci_vendor: pci.as_ref().map_or(0, |pci| u32::from(pci.vendor)),
            pci_device: pci.as_ref().map_or(0, |pci| u32::from(pci.device)),
            bus_info: or(bus_info, pci.map(|pci| pci.slot)),
            speed_mbps: sysfs.speed_mbps(name).unwrap_or(0),
            fw_version: or(fw_version, None),
        }
    }
}

fn is_no_device(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32)
        || error.kind() == io::ErrorKind::InvalidInput
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_says_comes_before_what_sysfs_says() {
        let folder = tempfile::tempdir().unwrap();
        let sysfs = super::super::sysfs::tests::tree(folder.path());
        let database = folder.path().join("pci.ids");
        std::fs::write(&database, pci_ids::tests::DATABASE).unwrap();
        let database = database.to_str().unwrap();
        let said = DriverInfo {
            driver: "mlx5_core".to_owned(),
            bus_info: "0000:3b:00.0".to_owned(),
            fw_version: "22.31.1014 (MT_0000000359)".to_owned(),
        };
        let nic = Nic::join(&sysfs, "eth0", said.clone(), &[database]);
        assert_eq!(nic.model, "MT2892 Family [ConnectX-6 Dx]");
        assert_eq!((nic.pci_vendor, nic.pci_device, nic.speed_mbps), (0x15b3, 0x101d, 100_000));
        assert_eq!((nic.driver, nic.bus_info, nic.fw_version), (said.driver, said.bus_info, said.fw_version));

        let silent = Nic::join(
            &sysfs,
            "virt0",
            DriverInfo { fw_version: "N/A".to_owned(), ..DriverInfo::default() },
            &["/nonexistent"],
        );
        let (driver, bus_info) = ("virtio_net".to_owned(), "0000:00:03.0".to_owned());
        assert_eq!(
            silent,
            Nic { driver, bus_info, pci_vendor: 0x1af4, pci_device: 0x1000, ..Nic::default() }
        );
    }

    #[test]
    fn the_loopback_has_no_card_and_a_name_that_no_interface_has_is_an_error() {
        let nic = Nic::of(&Sysfs::of_host(), "lo", pci_ids::PATHS).unwrap();
        assert_eq!((nic.pci_vendor, nic.model.as_str()), (0, ""));
        for name in ["nosuchlink", "a name that is far too long"] {
            assert!(matches!(Nic::of(&Sysfs::of_host(), name, &[]), Err(NicError::Missing(_))), "{name}");
        }
    }
}
