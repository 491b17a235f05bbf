//! Whether a file that is already there ends with a whole batch, so that another one may follow.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Longest `uvarint` of a u64.
const LONGEST_PREFIX: usize = 10;

/// Whether all `length` bytes are whole batches of a format, by what its batches begin or end with: a length
/// (protobufList) or a line feed (text). Of other formats nothing can be said, and nothing is.
pub(super) fn is_whole(file: &mut File, length: u64, format: &str) -> io::Result<bool> {
    match format {
        "protobufList" => ends_at_a_prefix(file, length),
        "msgpack" => Ok(true),
        _ if length == 0 => Ok(true),
        _ => {
            let mut last = [0];
            file.read_exact_at(&mut last, length - 1)?;
            Ok(last == *b"\n")
        }
    }
}

fn ends_at_a_prefix(file: &File, length: u64) -> io::Result<bool> {
    let mut at = 0;
    while at < length {
        let mut prefix = [0; LONGEST_PREFIX];
        let read = file.read_at(&mut prefix, at)?;
        let mut rest = prefix.get(..read).unwrap_or_default();
        let Ok(body) = prost::decode_length_delimiter(&mut rest) else { return Ok(false) };
        let taken = (read - rest.len()) as u64;
        let Some(next) = (at + taken).checked_add(body as u64) else { return Ok(false) };
        at = next;
    }
    Ok(at == length)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn whole(bytes: &[u8], format: &str) -> bool {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        is_whole(&mut file, bytes.len() as u64, format).expect("read")
    }

    #[test]
    fn a_list_is_whole_when_its_lengths_lead_to_its_end() {
        let batch = [[200, 1].as_slice(), &[7; 200]].concat();
        for (batches, torn) in [(0, 0), (1, 0), (3, 0), (1, 1), (3, 201)] {
            let bytes = batch.repeat(batches);
            let kept = bytes.len() - torn;
            assert_eq!(
                whole(&bytes[..kept], "protobufList"),
                torn == 0,
                "{batches} batches less {torn} bytes"
            );
        }
        assert!(!whole(&[0xff; 20], "protobufList"), "no length at all");
        assert!(!whole(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "protobufList"));
    }

    #[test]
    fn lines_are_whole_when_the_last_one_has_its_end() {
        assert!(whole(b"", "jsonl"));
        assert!(whole(b"{}\n{}\n", "jsonl"));
        assert!(!whole(b"{}\n{", "csv"));
    }
}
