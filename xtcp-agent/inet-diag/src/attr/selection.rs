//! Which attributes are wanted, by name.
//!
//! A group is what one attribute says; its name is that of its fields in the record. The short names are those that
//! users of the Go collector know. Attributes that no group has are always let through, so that they are counted.

use core::fmt;
use core::ops::BitOr;

use crate::request::Extensions;
use crate::request::Protocol;

/// A set of attributes: bit *n* is attribute *n*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Selection(u32);

/// Not an attribute but a part of one: the peers of `INET_DIAG_MD5SIG`.
const MD5SIG_PEERS: u32 = 31;

macro_rules! groups {
    ($($(#[$doc:meta])* $constant:ident = $bits:expr, $name:literal, [$($alias:literal),*];)*) => {
        impl Selection {
            $($(#[$doc])* pub const $constant: Self = Self($bits);)*
        }

        /// Each group with its name and its other names.
        const GROUPS: &[(Selection, &str, &[&str])] = &[$((Selection::$constant, $name, &[$($alias),*]),)*];
    };
}

groups! {
    /// `INET_DIAG_MEMINFO`. What it says is in [`Selection::SK_MEM_INFO`] too.
    MEM_INFO = 1 << 1, "mem_info", ["meminfo"];
    /// `INET_DIAG_INFO`: `tcp_info`; of MPTCP's connections `mptcp_info`, of others their own.
    INFO = 1 << 2, "tcp_info", ["info", "mptcp_info", "inet_diag_info"];
    /// `INET_DIAG_VEGASINFO`.
    VEGAS_INFO = 1 << 3, "vegas_info", ["vegas"];
    /// `INET_DIAG_CONG`.
    CONG = 1 << 4, "congestion_algorithm", ["cong"];
    /// `INET_DIAG_TOS`.
    TOS = 1 << 5, "type_of_service", ["tos"];
    /// `INET_DIAG_TCLASS`.
    TCLASS = 1 << 6, "traffic_class", ["tc", "tclass"];
    /// `INET_DIAG_SKMEMINFO`.
    SK_MEM_INFO = 1 << 7, "sk_mem_info", ["skmem", "skmeminfo"];
    /// `INET_DIAG_SHUTDOWN`.
    SHUTDOWN = 1 << 8, "shutdown_state", ["shut", "shutdown"];
    /// `INET_DIAG_DCTCPINFO`.
    DCTCP_INFO = 1 << 9, "dctcp_info", ["dctcp"];
    /// `INET_DIAG_BBRINFO`.
    BBR_INFO = 1 << 16, "bbr_info", ["bbr"];
    /// `INET_DIAG_CLASS_ID`.
    CLASS_ID = 1 << 17, "class_id", ["classid"];
    /// `INET_DIAG_SOCKOPT`.
    SOCK_OPT = 1 << 22, "sock_opt", ["sockopt"];
    /// `INET_DIAG_CGROUP_ID`.
    C_GROUP = 1 << 21, "c_group", ["cgroup", "cgroup_id"];
    /// `INET_DIAG_MARK`.
    MARK = 1 << 15, "mark", [];
    /// `INET_DIAG_SKV6ONLY`.
    SKV6ONLY = 1 << 11, "skv6only", ["v6only"];
    /// `INET_DIAG_PROTOCOL`.
    PROTOCOL = 1 << 10, "inet_diag_protocol", ["protocol"];
    /// `INET_DIAG_ULP_INFO`.
    ULP_INFO = 1 << 19, "ulp_info", ["ulp", "ulp_name", "tls_info", "mptcp_subflow"];
    /// `INET_DIAG_LOCALS`, `INET_DIAG_PEERS`.
    SCTP_ADDRESSES = 1 << 12 | 1 << 13, "sctp_addresses", ["sctp"];
    /// `INET_DIAG_MD5SIG`: how many keys there are.
    MD5SIG = 1 << 18, "md5sig", ["md5sig_keys"];
    /// `INET_DIAG_MD5SIG`: for whom the keys are, which of a listener can be a long list.
    MD5SIG_WITH_PEERS = 1 << 18 | 1 << MD5SIG_PEERS, "md5sig_peers", [];
    /// `INET_DIAG_SK_BPF_STORAGES`: other programs' data, up to 64 KiB a socket. Only dumps have it.
    SK_BPF_STORAGES = 1 << 20, "sk_bpf_storages", ["bpf_storages"];
}

impl Selection {
    /// No attribute.
    pub const NONE: Self = Self(0);
    /// Every attribute.
    pub const ALL: Self = Self(u32::MAX);
    /// What a poll asks for unless told otherwise: all but what `sk_mem_info` says too, what can be long, and other
    /// programs' data.
    pub const DEFAULT: Self =
        Self::ALL.without(Self::MEM_INFO).without(Self(1 << MD5SIG_PEERS)).without(Self::SK_BPF_STORAGES);

    /// The set that a word names: a group, `default` or `all`.
    pub fn parse(word: &str) -> Result<Self, UnknownGroup<'_>> {
        let word = word.trim();
        let is = |name: &str| name.eq_ignore_ascii_case(word);
        match GROUPS.iter().find(|(_, name, aliases)| is(name) || aliases.iter().any(|alias| is(alias))) {
            Some((group, ..)) => Ok(*group),
            None if is("default") => Ok(Self::DEFAULT),
            None if is("all") => Ok(Self::ALL),
            None => Err(UnknownGroup { word }),
        }
    }

    /// The name of every group, each the first of its names.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        GROUPS.iter().map(|(_, name, _)| *name)
    }

    /// Every word that [`Selection::parse`] knows.
    pub fn words() -> impl Iterator<Item = &'static str> + Clone {
        let groups =
            GROUPS.iter().flat_map(|(_, name, aliases)| [*name].into_iter().chain(aliases.iter().copied()));
        groups.chain(["default", "all"])
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

    /// Any of the other set is in this one.
    const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// An attribute of this number is wanted. True for all that are not known.
    #[inline]
    pub const fn takes(self, number: u16) -> bool {
        // Bit 31 is no attribute.
        number >= 31 || self.0 & 1 << number != 0
    }

    /// What a request for this protocol has to ask for so that the kernel sends these attributes. What comes unasked
    /// (mark, sock_opt, c_group, …) can only be left out afterwards, and `sk_bpf_storages` is asked for by attribute.
    pub const fn extensions(self, protocol: Protocol) -> Extensions {
        let bits = [
            // What SKMEMINFO says is the same; both would cost 54 ns a socket more.
            (Self::MEM_INFO, Extensions::MEMINFO, !self.contains(Self::SK_MEM_INFO)),
            (Self::INFO, Extensions::INFO, true),
            // Both come with INFO (tcp_diag_get_aux), and only of TCP's sockets.
            (Self(Self::ULP_INFO.0 | Self::MD5SIG.0), Extensions::INFO, protocol.0 == Protocol::TCP.0),
            (Self(Self::VEGAS_INFO.0 | Self::DCTCP_INFO.0 | Self::BBR_INFO.0), Extensions::VEGASINFO, true),
            (Self::CONG, Extensions::CONG, true),
            (Self::TOS, Extensions::TOS, true),
            (Self(Self::TCLASS.0 | Self::CLASS_ID.0), Extensions::TCLASS, true),
            (Self::SK_MEM_INFO, Extensions::SKMEMINFO, true),
            (Self::SHUTDOWN, Extensions::SHUTDOWN, true),
        ];
        let mut extensions = Extensions::NONE;
        let mut rest: &[(Self, Extensions, bool)] = &bits;
        while let [(groups, bit, applies), others @ ..] = rest {
            if *applies && self.has_any(*groups) {
                extensions = extensions.union(*bit);
            }
            rest = others;
        }
        extensions
    }
}

impl BitOr for Selection {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// The words that [`Selection::parse`] takes for the same set, separated by commas.
impl fmt::Display for Selection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::DEFAULT {
            return formatter.write_str("default");
        }
        if *self == Self::ALL {
            return formatter.write_str("all");
        }
        let mut separator = "";
        for (group, name, _) in GROUPS {
            // Of a group within another one only the larger is named.
            let within = *group == Self::MD5SIG && self.contains(Self::MD5SIG_WITH_PEERS);
            if self.contains(*group) && !within {
                write!(formatter, "{separator}{name}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

/// A word that names no group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownGroup<'a> {
    /// The word as written.
    pub word: &'a str,
}

impl fmt::Display for UnknownGroup<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unknown group of attributes '{}'; known are", self.word)?;
        for name in Selection::names() {
            write!(formatter, " {name},")?;
        }
        formatter.write_str(" default, all")
    }
}

impl core::error::Error for UnknownGroup<'_> {}

#[cfg(test)]
#[path = "selection/tests.rs"]
mod tests;
