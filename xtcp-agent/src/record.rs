//! Records: one message plus its context becomes the bytes of one `XtcpFlatRecord`.

pub mod builder;
pub mod tally;
mod template;

use std::ops::Range;
use std::sync::Arc;

/// Rows of one dump or lookup: encoded `XtcpFlatRecord`s, one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Rows {
    /// Adds one record.
    pub fn push(&mut self, record: &impl prost::Message) {
        self.bytes.reserve(record.encoded_len());
        record.encode_raw(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Adds one record that is encoded.
    pub fn push_encoded(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all rows together.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The encoded rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.range(0..self.ends.len())
    }

    /// The encoded rows with these numbers, counted from 0, in order; none when the range is not within [`len`].
    ///
    /// [`len`]: Self::len
    pub fn range(&self, numbers: Range<usize>) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = numbers.start.checked_sub(1).and_then(|i| self.ends.get(i)).copied().unwrap_or(0);
        self.ends.get(numbers).unwrap_or_default().iter().map(move |&end| {
            let row = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            row
        })
    }
}

/// Why rows exist; the same as the record's `record_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Every known namespace, on the clock.
    Poll,
    /// A namespace that was found after its beginning.
    NetnsCreated,
    /// A socket's state changed.
    TcpState,
    /// A client asked.
    Requested,
}

/// What leaves a collector: rows with what they have in common.
#[derive(Clone, Debug)]
pub struct RowChunk {
    /// Why.
    pub reason: Reason,
    /// Number of the poll that the rows belong to, counted from 1; 0 outside polls.
    pub poll: u64,
    /// Inode of the namespace.
    pub netns_inode: u32,
    /// The rows.
    pub rows: Arc<Rows>,
}
