//! What sysfs says of an interface, and which interfaces are below it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Devices above one another at most: a VLAN over a bridge over a bond, and some more.
const DEPTH: u8 = 8;

/// `/sys`, which shows the interfaces of the network namespace of whoever mounted it.
#[derive(Clone, Debug)]
pub(super) struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    pub(super) fn of_host() -> Self {
        Self { root: "/sys".into() }
    }

    #[cfg(test)]
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn interface(&self, name: &str) -> PathBuf {
        self.root.join("class/net").join(name)
    }

    /// Whether the interface is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.interface(name).exists()
    }

    /// The devices with a driver of their own at the bottom of a bond, bridge or VLAN, in the order in which the host found
    /// them; the interface itself when it has none below it, such as a bridge of containers.
    pub(super) fn physical(&self, name: &str) -> Vec<String> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        self.descend(name, DEPTH, &mut seen, &mut found);
        if found.is_empty() { vec![name.to_owned()] } else { found }
    }

    fn descend(&self, name: &str, depth: u8, seen: &mut HashSet<String>, found: &mut Vec<String>) {
        if depth == 0 || !seen.insert(name.to_owned()) {
            return;
        }
        if self.interface(name).join("device").exists() {
            found.push(name.to_owned());
            return;
        }
        let mut below: Vec<(u64, String)> = fs::read_dir(self.interface(name))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("lower_")?.to_owned()))
            .map(|lower| (self.number(&lower, "ifindex").unwrap_or(u64::MAX), lower))
            .collect();
        below.sort();
        for (_, lower) in below {
            self.descend(&lower, depth - 1, seen, found);
        }
    }

    /// Link speed, Mbit/s; `None` when the driver does not know it, or the link is down.
    pub(super) fn speed_mbps(&self, name: &str) -> Option<u32> {
        // -1 as signed or as unsigned is SPEED_UNKNOWN of linux/ethtool.h.
        u32::try_from(self.number(name, "speed")?).ok().filter(|speed| *speed != u32::MAX && *speed > 0)
    }

    fn number(&self, name: &str, file: &str) -> Option<u64> {
        fs::read_to_string(self.interface(name).join(file)).ok()?.trim().parse().ok()
    }

    /// Name of the interface's driver.
    pub(super) fn driver(&self, name: &str) -> Option<String> {
        last_part(&fs::read_link(self.interface(name).join("device/driver")).ok()?)
    }

    /// The PCI device that the interface is on, also where another bus (virtio) is between them.
    pub(super) fn pci(&self, name: &str) -> Option<Pci> {
        let device = fs::canonicalize(self.interface(name).join("device")).ok()?;
        let is_pci = |device: &Path| {
            fs::read_link(device.join("subsystem")).is_ok_and(|bus| last_part(&bus).as_deref() == Some("pci"))
        };
        let device = device.ancestors().find(|device| is_pci(device))?;
        let id = |file: &str| {
            let text = fs::read_to_string(device.join(file)).ok()?;
            u16::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
        };
        Some(Pci { slot: last_part(device)?, vendor: id("vendor")?, device: id("device")? })
    }
}

/// A device on PCI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pci {
    /// Where it is: "0000:3b:00.0".
    pub(super) slot: String,
    pub(super) vendor: u16,
    pub(super) device: u16,
}

fn last_part(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Two cards under a bond, a VLAN on it, a bridge on that with a container's veth; a virtio card; a bridge of
    /// containers; a loop that no kernel makes.
    pub(in crate::topology) fn tree(root: &Path) -> Sysfs {
        let net = root.join("class/net");
        let make = |name: &str, ifindex: u32, lowers: &[&str]| {
            let folder = net.join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("ifindex"), format!("{ifindex}\n")).unwrap();
            for lower in lowers {
                symlink(format!("../{lower}"), folder.join(format!("lower_{lower}"))).unwrap();
            }
        };
        let pci = |slot: &str, vendor: &str, device: &str| {
            let folder = root.join("devices/pci0000:00").join(slot);
            fs::create_dir_all(&folder).unwrap();
            fs::create_dir_all(root.join("bus/pci/drivers/mlx5_core")).unwrap();
            symlink("../../../bus/pci", folder.join("subsystem")).unwrap();
            symlink("../../../bus/pci/drivers/mlx5_core", folder.join("driver")).unwrap();
            fs::write(folder.join("vendor"), format!("{vendor}\n")).unwrap();
            fs::write(folder.join("device"), format!("{device}\n")).unwrap();
            folder
        };
        for (name, ifindex, slot) in [("eth1", 3, "0000:3b:00.1"), ("eth0", 2, "0000:3b:00.0")] {
            make(name, ifindex, &[]);
            symlink(pci(slot, "0x15b3", "0x101d"), net.join(name).join("device")).unwrap();
        }
        fs::write(net.join("eth0/speed"), "100000\n").unwrap();
        fs::write(net.join("eth1/speed"), "-1\n").unwrap();
        make("virt0", 4, &[]);
        let virtio = pci("0000:00:03.0", "0x1af4", "0x1000").join("virtio0");
        fs::create_dir_all(&virtio).unwrap();
        fs::create_dir_all(root.join("bus/virtio/drivers/virtio_net")).unwrap();
        symlink("../../../../bus/virtio", virtio.join("subsystem")).unwrap();
        symlink("../../../../bus/virtio/drivers/virtio_net", virtio.join("driver")).unwrap();
        symlink(&virtio, net.join("virt0/device")).unwrap();
        fs::write(net.join("virt0/speed"), "4294967295\n").unwrap();
        make("veth7", 9, &[]);
        make("bond0", 5, &["eth1", "eth0"]);
        make("bond0.42", 6, &["bond0"]);
        make("br0", 7, &["bond0.42", "veth7"]);
        make("docker0", 8, &["veth7"]);
        make("loop1", 10, &["loop2"]);
        make("loop2", 11, &["loop1"]);
        Sysfs::at(root)
    }

    #[test]
    fn a_bridge_over_a_vlan_over_a_bond_is_its_cards_in_the_hosts_order() {
        let folder = tempfile::tempdir().unwrap();
        let sysfs = tree(folder.path());
        for above in ["br0", "bond0.42", "bond0"] {
            assert_eq!(sysfs.physical(above), ["eth0", "eth1"], "{above}");
        }
        for itself in ["eth0", "virt0", "docker0", "veth7", "loop1", "nosuch"] {
            assert_eq!(sysfs.physical(itself), [itself]);
        }
    }

    #[test]
    fn a_card_behind_virtio_is_the_pci_device_that_virtio_is_on() {
        let folder = tempfile::tempdir().unwrap();
        let sysfs = tree(folder.path());
        let pci = |slot: &str, vendor, device| Some(Pci { slot: slot.to_owned(), vendor, device });
        assert_eq!(sysfs.pci("virt0"), pci("0000:00:03.0", 0x1af4, 0x1000));
        assert_eq!(sysfs.pci("eth1"), pci("0000:3b:00.1", 0x15b3, 0x101d));
        assert_eq!(sysfs.pci("veth7"), None);
        assert_eq!(sysfs.driver("virt0").as_deref(), Some("virtio_net"));
    }

    #[test]
    fn a_speed_that_the_driver_does_not_know_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let sysfs = tree(folder.path());
        let speeds = ["eth0", "eth1", "virt0", "veth7", "nosuch"].map(|name| sysfs.speed_mbps(name));
        assert_eq!(speeds, [Some(100_000), None, None, None, None]);
    }
}
