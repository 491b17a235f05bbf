//! Names that anybody on the host may choose, as text that fits in a line.

use std::fmt::Write as _;
use std::path::Path;

/// The bytes as text that is one line, whatever they are, and of which no two names have the same: control characters,
/// those that reorder or hide others, and backslashes are escaped as in Rust, bytes that are not UTF-8 as `\xff`.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' || misleads(c) {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A path as text that is one line.
pub fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// Characters without width, line separators, and marks of direction.
fn misleads(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_stay_as_they_are() {
        for name in ["cni-0f31", "blue", "größe 1", "a.b_c~d%"] {
            assert_eq!(printable(name.as_bytes()), name);
        }
    }

    #[test]
    fn a_hostile_name_is_one_line_and_shows_its_bytes() {
        assert_eq!(printable(b"a\nERROR forged\x1b[2J"), "a\\nERROR forged\\u{1b}[2J");
        assert_eq!(printable(b"\xff\xc3"), "\\xff\\xc3");
        assert_eq!(printable("a\u{202e}b\u{2028}".as_bytes()), "a\\u{202e}b\\u{2028}");
    }

    #[test]
    fn different_names_stay_different() {
        let names: [&[u8]; 5] = [b"a\nb", b"a\\nb", b"\xff", b"\\xff", "\u{fffd}".as_bytes()];
        let mut texts: Vec<String> = names.iter().map(|name| printable(name)).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), names.len());
    }
}
