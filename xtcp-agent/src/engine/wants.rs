//! What the engine cannot know by itself.

use std::collections::HashMap;

use crate::netns::NetnsId;
use crate::netns::registry::Source;

/// What the engine would like to know; taken by [`Engine::wants`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// A look at mounts.
    pub mounts: bool,
    /// A look at mounts and all threads.
    pub everything: bool,
    /// Whether these namespaces live, asked by handle, and who is to be named as the source of an end.
    pub alive: HashMap<NetnsId, Source>,
    /// Namespaces whose sockets the kernel side shall leave out, or not any more.
    pub drop: Vec<(u32, bool)>,
}

impl Wants {
    /// Asks whether namespaces live. That the kernel's clean-up work began says more than that something is missing.
    pub(super) fn ask(&mut self, ids: impl IntoIterator<Item = NetnsId>, source: Source) {
        for id in ids {
            let known = self.alive.entry(id).or_insert(source);
            if source == Source::Cleanup {
                *known = source;
            }
        }
    }

    /// Adds what is wanted besides.
    pub fn add(&mut self, other: Self) {
        let Self { mounts, everything, alive, drop } = other;
        self.mounts |= mounts;
        self.everything |= everything;
        self.drop.extend(drop);
        for (id, source) in alive {
            self.ask([id], source);
        }
    }
}
