//! Names of PCI devices, from the database that distributions install (package `pci.ids` or `hwdata`).

use std::fs::File;
use std::io::{BufRead as _, BufReader};

/// Where distributions put it.
pub(super) const PATHS: &[&str] = &[
    "/usr/share/misc/pci.ids",
    "/usr/share/hwdata/pci.ids",
    "/usr/share/pci.ids",
    "/var/lib/pciutils/pci.ids",
];
/// Lines are shorter by far; one that never ends is no line.
const LONGEST_LINE: usize = 4096;

/// Name of a device out of the first database that can be read; `None` when it has none.
pub(super) fn model(databases: &[&str], vendor: u16, device: u16) -> Option<String> {
    let file = databases.iter().find_map(|path| File::open(path).ok())?;
    let (vendor, device) = (format!("{vendor:04x}  "), format!("\t{device:04x}  "));
    let mut in_vendor = false;
    for line in BufReader::new(file).split(b'\n') {
        let line = line.ok().filter(|line| line.len() <= LONGEST_LINE)?;
        if in_vendor {
            if let Some(name) = line.strip_prefix(device.as_bytes()) {
                return Some(String::from_utf8_lossy(name).trim().to_owned());
            }
            // Devices are indented; comments and empty lines may stand between them.
            if !matches!(line.first(), None | Some(b'\t' | b'#')) {
                return None;
            }
        } else {
            in_vendor = line.starts_with(vendor.as_bytes());
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::topology) const DATABASE: &str = "\
# Syntax:
# vendor  vendor_name
8086  Intel Corporation
\t101d  Not this one
15b3  Mellanox Technologies
\t0191  MT25408 [ConnectX IB Flash Recovery]
# a comment

\t101d  MT2892 Family [ConnectX-6 Dx]
\t\t15b3 0016  ConnectX-6 Dx, a subsystem
1af4  Red Hat, Inc.
\t1000  Virtio network device
C 02  Network controller
\t00  Ethernet controller
";

    #[test]
    fn a_device_is_looked_for_under_its_vendor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pci.ids");
        std::fs::write(&path, DATABASE).unwrap();
        let databases = ["/nonexistent", path.to_str().unwrap()];
        let name = |vendor, device| model(&databases, vendor, device);
        assert_eq!(name(0x15b3, 0x101d).as_deref(), Some("MT2892 Family [ConnectX-6 Dx]"));
        assert_eq!(name(0x1af4, 0x1000).as_deref(), Some("Virtio network device"));
        assert_eq!(name(0x15b3, 0x1000), None);
        assert_eq!(name(0x15b3, 0x0016), None, "a subsystem is no device");
        assert_eq!(name(0x1234, 0x101d), None);
        assert_eq!(model(&["/nonexistent"], 0x15b3, 0x101d), None);
    }
}
