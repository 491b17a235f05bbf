//! Rows go to standard output as they come, in a marshaller's form.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::time::Instant;

use crate::envelope::{Batch, Batcher, Limits};
use crate::marshaller::{MarshalError, Marshaller};
use crate::record::Rows;

/// Rows are printed in batches of about this many bytes.
const BATCH_BYTES: usize = 256 << 10;

/// Why rows were not printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// They do not become bytes.
    #[error(transparent)]
    Marshal(#[from] MarshalError),
    /// Standard output takes them not.
    #[error("cannot write to standard output: {0}")]
    Write(#[from] io::Error),
}

impl PrintError {
    /// Whoever reads has seen enough.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Something that shows rows.
pub trait Printer {
    /// Shows these rows.
    fn print(&mut self, rows: &Arc<Rows>) -> Result<(), PrintError>;
    /// Shows what waits for more.
    fn finish(&mut self) -> Result<(), PrintError>;
}

/// Standard output without the line buffer of the standard library's own.
pub fn standard_output() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

/// Prints in a marshaller's form.
pub struct Marshalled<W> {
    marshaller: &'static dyn Marshaller,
    batcher: Batcher,
    bytes: Vec<u8>,
    /// Whether something was printed, which began with the header if the format has one.
    begun: bool,
    to: W,
}

impl<W: Write> Marshalled<W> {
    /// Prints to `to`, a batch in one write.
    pub fn new(marshaller: &'static dyn Marshaller, to: W) -> Self {
        let limits = Limits { bytes: BATCH_BYTES, ..Limits::default() };
        Self { marshaller, batcher: Batcher::new(limits), bytes: Vec::new(), begun: false, to }
    }

    fn write(&mut self, batches: impl IntoIterator<Item = Batch>) -> Result<(), PrintError> {
        for batch in batches {
            self.bytes.clear();
            self.marshaller.marshal(&batch, &mut self.bytes)?;
            let told = if self.begun { self.marshaller.header_len() } else { 0 };
            self.begun = true;
            self.to.write_all(self.bytes.get(told..).unwrap_or_default())?;
        }
        Ok(())
    }
}

impl<W: Write> Printer for Marshalled<W> {
    fn print(&mut self, rows: &Arc<Rows>) -> Result<(), PrintError> {
        let mut full = Vec::new();
        self.batcher.push(rows, Instant::now(), |batch, _| full.push(batch));
        self.write(full)
    }

    fn finish(&mut self) -> Result<(), PrintError> {
        let last = self.batcher.close();
        self.write(last)?;
        if !self.begun && self.marshaller.header_len() > 0 {
            // No row is there: what the columns would be is told all the same.
            self.write([Batch::default()])?;
        }
        Ok(self.to.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use xtcp_proto::flat_record::v1::XtcpFlatRecord;

    use super::*;
    use crate::marshaller;

    fn printed(rows_of_chunks: &[usize]) -> String {
        let format = marshaller::with_columns(marshaller::parse("tsv").unwrap(), &["pid", "comm"]).unwrap();
        let mut out = Vec::new();
        let mut printer = Marshalled::new(format, &mut out);
        for count in rows_of_chunks {
            let mut rows = Rows::default();
            let comm = "x".repeat(BATCH_BYTES);
            (0..*count).for_each(|_| rows.push(&XtcpFlatRecord { comm: comm.clone(), ..Default::default() }));
            printer.print(&Arc::new(rows)).unwrap();
        }
        // A printer is finished after each capture.
        printer.finish().unwrap();
        printer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_header_is_printed_once_also_when_there_is_no_row() {
        assert_eq!(printed(&[]), "pid\tcomm\n");
        let many = printed(&[2, 0, 1]);
        assert_eq!((many.lines().count(), many.matches("pid").count()), (4, 1));
    }
}
