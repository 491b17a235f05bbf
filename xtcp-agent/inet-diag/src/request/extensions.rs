//! Which attributes a request asks for.

use core::ops::BitOr;

/// Attributes to ask for, as `idiag_ext` holds them: attribute *n* is bit *n* − 1.
///
/// Only the first eight attributes can be asked for. Some bring others with them; `SHUTDOWN`, `MARK`, `CGROUP_ID`,
/// `SOCKOPT` and `SKV6ONLY` come unasked where they apply (seen on 6.18). Costs are
/// for one socket on Linux 6.18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extensions(u8);

impl Extensions {
    /// Nothing but what comes unasked.
    pub const NONE: Self = Self(0);
    /// `INET_DIAG_MEMINFO`, 54 ns; contained in [`Extensions::SKMEMINFO`].
    pub const MEMINFO: Self = Self(1 << 0);
    /// `INET_DIAG_INFO`: `tcp_info`, 235 ns; brings `MD5SIG` and `ULP_INFO`.
    pub const INFO: Self = Self(1 << 1);
    /// `INET_DIAG_VEGASINFO`, 61 ns: what the congestion control tells of itself, which is answered as
    /// `VEGASINFO`, `DCTCPINFO` or `BBRINFO`.
    pub const VEGASINFO: Self = Self(1 << 2);
    /// `INET_DIAG_CONG`: the congestion control's name, 87 ns.
    pub const CONG: Self = Self(1 << 3);
    /// `INET_DIAG_TOS`, 82 ns.
    pub const TOS: Self = Self(1 << 4);
    /// `INET_DIAG_TCLASS`, 44 ns; brings `CLASS_ID` (4.13+).
    pub const TCLASS: Self = Self(1 << 5);
    /// `INET_DIAG_SKMEMINFO`, 113 ns.
    pub const SKMEMINFO: Self = Self(1 << 6);
    /// `INET_DIAG_SHUTDOWN`, nothing.
    pub const SHUTDOWN: Self = Self(1 << 7);

    /// All that a record holds: every attribute but `MEMINFO`, which says nothing that `SKMEMINFO` does not.
    pub const ALL_WANTED: Self = Self(!Self::MEMINFO.0);
    /// Everything.
    pub const ALL: Self = Self(u8::MAX);

    /// The kernel's bits (`idiag_ext`).
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set less the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// All of the other set are in this one.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Extensions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}
