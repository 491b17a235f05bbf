//! Capabilities that matter to the agent.

use serde::Serialize;

/// A capability, by the bit that it has in `/proc/<pid>/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Capability {
    /// Bit 2.
    CapDacReadSearch,
    /// Bit 12.
    CapNetAdmin,
    /// Bit 19.
    CapSysPtrace,
    /// Bit 21.
    CapSysAdmin,
    /// Bit 24.
    CapSysResource,
    /// Bit 34.
    CapSyslog,
    /// Bit 38 (5.8).
    CapPerfmon,
    /// Bit 39 (5.8).
    CapBpf,
}

impl Capability {
    /// All, the most needed first.
    pub const ALL: [Self; 8] = [
        Self::CapSysAdmin,
        Self::CapNetAdmin,
        Self::CapSysPtrace,
        Self::CapBpf,
        Self::CapPerfmon,
        Self::CapSyslog,
        Self::CapDacReadSearch,
        Self::CapSysResource,
    ];

    const fn bit(self) -> u32 {
        match self {
            Self::CapDacReadSearch => 2,
            Self::CapNetAdmin => 12,
            Self::CapSysPtrace => 19,
            Self::CapSysAdmin => 21,
            Self::CapSysResource => 24,
            Self::CapSyslog => 34,
            Self::CapPerfmon => 38,
            Self::CapBpf => 39,
        }
    }

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CapDacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::CapNetAdmin => "CAP_NET_ADMIN",
            Self::CapSysPtrace => "CAP_SYS_PTRACE",
            Self::CapSysAdmin => "CAP_SYS_ADMIN",
            Self::CapSysResource => "CAP_SYS_RESOURCE",
            Self::CapSyslog => "CAP_SYSLOG",
            Self::CapPerfmon => "CAP_PERFMON",
            Self::CapBpf => "CAP_BPF",
        }
    }

    /// Those among a mask of capabilities, such as `CapEff`.
    pub fn in_mask(mask: u64) -> Vec<Self> {
        Self::ALL.into_iter().filter(|capability| mask >> capability.bit() & 1 == 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_becomes_names() {
        let expected = [Capability::CapSysAdmin, Capability::CapNetAdmin, Capability::CapBpf];
        assert_eq!(Capability::in_mask(1 << 21 | 1 << 12 | 1 << 39 | 1), expected);
        assert_eq!(Capability::in_mask(u64::MAX), Capability::ALL);
    }

    #[test]
    fn the_name_in_json_is_the_kernels() {
        for capability in Capability::ALL {
            assert_eq!(serde_json::to_value(capability).unwrap(), capability.name());
        }
    }
}
