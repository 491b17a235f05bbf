//! The part of a file that is looked at: grows to the largest thing that is asked for, and forgets what was taken.

use std::io::{self, Read};

use super::CaptureError;

/// What is read at once.
const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Window<R> {
    from: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Where `start` is in the file.
    offset: u64,
}

impl<R: Read> Window<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, buffer: vec![0; CHUNK], start: 0, end: 0, offset: 0 }
    }

    /// Where in the file the window begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next `len` bytes, fewer only at the end of the file. The caller bounds `len`.
    pub(super) fn look(&mut self, len: usize) -> Result<&[u8], CaptureError> {
        if self.buffer.len() - self.start < len {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.buffer.len() < len {
                self.buffer.resize(len.next_multiple_of(CHUNK), 0);
            }
        }
        while self.end - self.start < len {
            match self.from.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset + (self.end - self.start) as u64;
                    return Err(CaptureError::Read { offset, source });
                }
            }
        }
        let have = len.min(self.end - self.start);
        Ok(self.buffer.get(self.start..self.start + have).unwrap_or_default())
    }

    /// As [`look`](Self::look), and an error when there are fewer. `what` begins where the window does.
    pub(super) fn need(&mut self, len: usize, what: &'static str) -> Result<&[u8], CaptureError> {
        let offset = self.offset;
        let bytes = self.look(len)?;
        if bytes.len() < len {
            let end = offset + bytes.len() as u64;
            return Err(CaptureError::Truncated { what, offset, wanted: len, end });
        }
        Ok(bytes)
    }

    /// Takes `len` bytes that were looked at, and gives them.
    pub(super) fn take(&mut self, len: usize) -> &[u8] {
        let len = len.min(self.end - self.start);
        let from = self.start;
        self.start += len;
        self.offset += len as u64;
        self.buffer.get(from..self.start).unwrap_or_default()
    }
}
