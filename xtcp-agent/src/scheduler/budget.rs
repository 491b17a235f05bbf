//! How many lookups per second triggers may cost: a bucket that fills with time and holds one second's worth.

const NS_PER_S: u64 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct Budget {
    per_s: u64,
    /// In lookups times a second, so that no fraction is lost.
    level: u64,
    filled_at: u64,
}

impl Budget {
    pub(super) fn new(per_s: u32, now: u64) -> Self {
        let per_s = u64::from(per_s);
        Self { per_s, level: per_s * NS_PER_S, filled_at: now }
    }

    pub(super) fn take(&mut self, now: u64) -> bool {
        if self.per_s == 0 {
            return true;
        }
        let elapsed = now.saturating_sub(self.filled_at).min(NS_PER_S);
        self.filled_at = now;
        self.level = (self.level + elapsed * self.per_s).min(self.per_s * NS_PER_S);
        match self.level.checked_sub(NS_PER_S) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }
}
