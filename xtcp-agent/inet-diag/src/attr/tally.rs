//! Counting attributes by number, without allocation.

/// Distinct numbers that a [`Tally`] tells apart. A kernel that is one release ahead brings one or two.
const DISTINCT: usize = 6;

/// How many attributes of which numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number and count; a count of 0 is a free place.
    places: [(u16, u16); DISTINCT],
    others: u16,
}

impl Tally {
    #[cold]
    pub(crate) fn add(&mut self, number: u16) {
        let place = self.places.iter_mut().find(|(known, count)| *count == 0 || *known == number);
        match place {
            Some((known, count)) => {
                *known = number;
                *count = count.saturating_add(1);
            }
            None => self.others = self.others.saturating_add(1),
        }
    }

    /// Each number with its count, in the order in which they were met. Of more than six distinct numbers
    /// the later ones are only in [`Tally::total`].
    pub fn iter(&self) -> impl Iterator<Item = (u16, u16)> {
        self.places.into_iter().filter(|(_, count)| *count != 0)
    }

    /// How many there are in all.
    pub fn total(&self) -> u32 {
        self.iter().map(|(_, count)| u32::from(count)).fold(u32::from(self.others), u32::saturating_add)
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        let [(_, first), ..] = self.places;
        first == 0 && self.others == 0
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn numbers_beyond_the_sixth_are_counted_without_their_name() {
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        for number in [23, 0, 23, 24, 25, 26, 27, 28, 29] {
            tally.add(number);
        }
        assert_eq!(tally.iter().collect::<Vec<_>>(), [(23, 2), (0, 1), (24, 1), (25, 1), (26, 1), (27, 1)]);
        assert_eq!(tally.total(), 9);
    }
}
