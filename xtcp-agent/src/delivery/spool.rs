//! Payloads on disk, oldest first: segment files that survive a restart and, once synced, a loss of power. Owns one
//! folder; never decides what is written or when.
//!
//! A segment is a row of records: length of the body, rows, length of the header, length of the id (32 bits each,
//! little-endian), CRC-32 of the body, CRC-32 of these 20 bytes, then the body: id and payload. A record is whole or it is
//! not there: what a crash tore is cut off when the folder is opened. `cursor` holds the segment and the offset up to
//! which everything has been sent; it may be behind, then payloads are sent twice, with the same ids.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::destination::Payload;

const HEAD: usize = 24;
/// Segments are at most this long, and at most an eighth of the quota.
const SEGMENT: u64 = 16 << 20;
/// No record is longer: a length beyond it is damage.
const LONGEST: usize = 1 << 30;

/// Place behind a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    segment: u64,
    offset: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    /// Bytes of whole records.
    len: u64,
    /// Rows that have not been taken.
    rows: u64,
}

/// The folder, opened.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    quota: u64,
    segments: VecDeque<Segment>,
    next_number: u64,
    /// The last segment, while it is written to.
    writer: Option<File>,
    /// Where the next record is read, with its open segment.
    next: Place,
    reader: Option<(u64, File)>,
    cursor: File,
    /// Rows that could not be read, since they were last asked for.
    corrupt_rows: u64,
}

impl Spool {
    /// Opens or makes the folder; what is torn at the end of a segment is cut off. Rows of whole records before that
    /// are there to be sent.
    pub(super) fn open(dir: &Path, quota: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let cursor = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("cursor"))?;
        let start = read_cursor(&cursor);
        let mut numbers: Vec<u64> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".segment"));
            numbers.extend(number.and_then(|hex| u64::from_str_radix(hex, 16).ok()));
        }
        numbers.sort_unstable();
        let next_number = numbers.last().map_or(start.segment, |last| last + 1).max(start.segment + 1);
        let mut spool = Self {
            dir: dir.to_owned(),
            quota,
            segments: VecDeque::new(),
            next_number,
            writer: None,
            next: start,
            reader: None,
            cursor,
            corrupt_rows: 0,
        };
        for number in numbers {
            if number < start.segment {
                fs::remove_file(spool.path(number))?;
                continue;
            }
            let from = if number == start.segment { start.offset } else { 0 };
            let segment = spool.survey(number, from)?;
            spool.segments.push_back(segment);
        }
        spool.settle();
        Ok(spool)
    }

    /// Rows that have not been taken.
    pub(super) fn rows(&self) -> u64 {
        self.segments.iter().map(|segment| segment.rows).sum()
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// Whether nothing is left to be taken.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.back().is_none_or(|last| {
            self.next.segment > last.number
                || (self.next.segment == last.number && self.next.offset >= last.len)
        })
    }

    /// Rows that could not be read back since the last call.
    pub(super) fn take_corrupt_rows(&mut self) -> u64 {
        std::mem::take(&mut self.corrupt_rows)
    }

    /// Whether a payload of so many bytes is more than the quota leaves room for.
    pub(super) fn is_full_for(&self, payload: &Payload) -> bool {
        self.bytes() + record_len(payload) > self.quota
    }

    /// Forgets the oldest segment; says how many of its rows had not been taken. 0 when there is none.
    pub(super) fn drop_oldest(&mut self) -> io::Result<u64> {
        let Some(oldest) = self.segments.pop_front() else { return Ok(0) };
        if self.segments.is_empty() {
            self.writer = None;
        }
        self.reader = None;
        self.next = self.next.max(Place { segment: oldest.number + 1, offset: 0 });
        fs::remove_file(self.path(oldest.number))?;
        Ok(oldest.rows)
    }

    /// Has the disk hold what was written.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.writer.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Writes a payload behind all others; after an error it is not there.
    pub(super) fn write(&mut self, payload: &Payload) -> io::Result<()> {
        let record = record(payload);
        let most = SEGMENT.min(self.quota / 8);
        let full = self.segments.back().is_none_or(|last| last.len > 0 && last.len + len(&record) > most);
        let writer = match self.writer.take() {
            Some(writer) if !full => writer,
            sealed => {
                sealed.map_or(Ok(()), |sealed| sealed.sync_data())?;
                self.begin_segment()?
            }
        };
        let Some(last) = self.segments.back_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        let written = writer.write_all_at(&record, last.len);
        if written.is_ok() {
            last.len += len(&record);
            last.rows += rows(payload);
        } else {
            // What was half written must not stand before the next record.
            writer.set_len(last.len)?;
        }
        self.writer = Some(writer);
        written
    }

    fn begin_segment(&mut self) -> io::Result<File> {
        let number = self.next_number;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.path(number))?;
        File::open(&self.dir)?.sync_all()?;
        self.next_number += 1;
        self.segments.push_back(Segment { number, len: 0, rows: 0 });
        Ok(file)
    }

    /// The oldest payload that has not been taken, and the place behind it; `None` when all are.
    pub(super) fn take(&mut self) -> io::Result<Option<(Payload, Place)>> {
        while !self.is_empty() {
            self.settle();
            let Some(position) = self.segments.iter().position(|s| s.number == self.next.segment) else {
                return Ok(None);
            };
            let Some(end) = self.segments.get(position).map(|segment| segment.len) else { return Ok(None) };
            if self.next.offset >= end {
                if position + 1 == self.segments.len() {
                    // More may be written to it.
                    return Ok(None);
                }
                self.next = Place { segment: self.next.segment + 1, offset: 0 };
                continue;
            }
            let file = self.reader(self.next.segment)?;
            let found = read_record(&file, self.next.offset, end)?;
            self.reader = Some((self.next.segment, file));
            let Some(segment) = self.segments.get_mut(position) else { return Ok(None) };
            match found {
                Read::Whole(payload, record) => {
                    self.next.offset += record;
                    segment.rows = segment.rows.saturating_sub(rows(&payload));
                    return Ok(Some((payload, self.next)));
                }
                Read::Damaged { rows, record } => {
                    self.next.offset += record;
                    segment.rows = segment.rows.saturating_sub(rows);
                    self.corrupt_rows += rows;
                }
                Read::Lost => {
                    self.next.offset = end;
                    self.corrupt_rows += std::mem::take(&mut segment.rows);
                }
            }
        }
        Ok(None)
    }

    /// Whether the record before `place` is still on the disk, and will be there after a restart.
    pub(super) fn holds(&self, place: Place) -> bool {
        self.segments.iter().any(|segment| segment.number == place.segment)
    }

    /// Everything up to `place` was sent, and need not be kept.
    pub(super) fn sent(&mut self, place: Place) -> io::Result<()> {
        while let Some(first) = self.segments.front() {
            let number = first.number;
            if number > place.segment || (number == place.segment && first.len > place.offset) {
                break;
            }
            self.segments.pop_front();
            if self.segments.is_empty() {
                self.writer = None;
            }
            self.reader = self.reader.take().filter(|(open, _)| *open != number);
            fs::remove_file(self.path(number))?;
        }
        self.cursor.write_all_at(&cursor(place), 0)
    }

    /// Moves the next place to a segment that is there.
    fn settle(&mut self) {
        if let Some(first) = self.segments.front()
            && self.next.segment < first.number
        {
            self.next = Place { segment: first.number, offset: 0 };
        }
        if let Some(next) = self.segments.iter().find(|segment| segment.number >= self.next.segment)
            && next.number > self.next.segment
        {
            self.next = Place { segment: next.number, offset: 0 };
        }
    }

    fn reader(&mut self, number: u64) -> io::Result<File> {
        match self.reader.take() {
            Some((open, file)) if open == number => Ok(file),
            _ => File::open(self.path(number)),
        }
    }

    /// What a segment of an earlier run holds behind `from`; cuts off what is torn.
    fn survey(&mut self, number: u64, from: u64) -> io::Result<Segment> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(number))?;
        let end = file.metadata()?.len();
        let mut segment = Segment { number, len: from.min(end), rows: 0 };
        while segment.len < end {
            match read_record(&file, segment.len, end)? {
                Read::Whole(payload, record) => {
                    segment.rows += rows(&payload);
                    segment.len += record;
                }
                Read::Damaged { rows, record } if segment.len + record <= end => {
                    segment.rows += rows;
                    segment.len += record;
                }
                Read::Damaged { rows, .. } => {
                    self.corrupt_rows += rows;
                    break;
                }
                Read::Lost => break,
            }
        }
        if segment.len < end {
            file.set_len(segment.len)?;
        }
        Ok(segment)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.segment"))
    }
}

/// What stands at a place.
enum Read {
    /// A record, and its length.
    Whole(Payload, u64),
    /// A record whose body is not what was written, or not all there.
    Damaged { rows: u64, record: u64 },
    /// Nothing that could tell where the next record begins.
    Lost,
}

fn read_record(file: &File, offset: u64, end: u64) -> io::Result<Read> {
    let mut head = [0; HEAD];
    if end - offset < len(&head) {
        return Ok(Read::Lost);
    }
    file.read_exact_at(&mut head, offset)?;
    let mut numbers =
        head.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().unwrap_or_default()));
    let mut number = || numbers.next().unwrap_or_default();
    let [body_len, rows, header, id_len, body_crc, head_crc] = [(); 6].map(|()| number());
    let body_len = usize::try_from(body_len).unwrap_or(usize::MAX);
    let checked = head.get(..HEAD - 4).unwrap_or_default();
    if crc32fast::hash(checked) != head_crc || body_len > LONGEST {
        return Ok(Read::Lost);
    }
    let record = len(&head) + u64::try_from(body_len).unwrap_or(u64::MAX);
    let damaged = Read::Damaged { rows: rows.into(), record };
    if offset + record > end {
        return Ok(damaged);
    }
    let mut body = vec![0; body_len];
    file.read_exact_at(&mut body, offset + len(&head))?;
    let id_len = usize::try_from(id_len).unwrap_or(usize::MAX);
    if crc32fast::hash(&body) != body_crc || id_len > body_len {
        return Ok(damaged);
    }
    let mut body = Bytes::from(body);
    let id = body.split_to(id_len);
    let payload = Payload {
        bytes: body,
        header: usize::try_from(header).unwrap_or(0),
        rows: usize::try_from(rows).unwrap_or(0),
        id: String::from_utf8_lossy(&id).into(),
    };
    Ok(Read::Whole(payload, record))
}

fn record(payload: &Payload) -> Vec<u8> {
    let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let body_len = payload.id.len() + payload.bytes.len();
    let mut record = Vec::with_capacity(HEAD + body_len);
    for number in [body_len, payload.rows, payload.header, payload.id.len()] {
        record.extend_from_slice(&short(number));
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(payload.id.as_bytes());
    crc.update(&payload.bytes);
    record.extend_from_slice(&crc.finalize().to_le_bytes());
    let head_crc = crc32fast::hash(&record);
    record.extend_from_slice(&head_crc.to_le_bytes());
    record.extend_from_slice(payload.id.as_bytes());
    record.extend_from_slice(&payload.bytes);
    record
}

fn record_len(payload: &Payload) -> u64 {
    u64::try_from(HEAD + payload.id.len() + payload.bytes.len()).unwrap_or(u64::MAX)
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn rows(payload: &Payload) -> u64 {
    u64::try_from(payload.rows).unwrap_or(u64::MAX)
}

fn cursor(place: Place) -> [u8; 20] {
    let mut bytes = [0; 20];
    let numbers = [place.segment.to_le_bytes(), place.offset.to_le_bytes()].concat();
    let crc = crc32fast::hash(&numbers).to_le_bytes();
    for (to, from) in bytes.iter_mut().zip(numbers.iter().chain(&crc)) {
        *to = *from;
    }
    bytes
}

fn read_cursor(file: &File) -> Place {
    let mut bytes = [0; 20];
    let start = Place { segment: 0, offset: 0 };
    if file.read_exact_at(&mut bytes, 0).is_err() {
        return start;
    }
    let number = |at: usize| {
        let eight = bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok());
        u64::from_le_bytes(eight.unwrap_or_default())
    };
    let place = Place { segment: number(0), offset: number(8) };
    if cursor(place) == bytes { place } else { start }
}

#[cfg(test)]
mod tests;
