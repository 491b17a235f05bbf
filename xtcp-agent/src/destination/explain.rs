//! Words for what went wrong, the same for every destination.

use std::io;

use nix::errno::Errno;

/// What an error is, in the system's words and by the system's name: `connection refused (ECONNREFUSED)`. Errors that are
/// none of the system's (a name that does not resolve) say what they say.
pub(super) fn error_text(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) => format!("{} ({errno:?})", errno.desc().to_lowercase()),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_has_its_name() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(error_text(&refused), "connection refused (ECONNREFUSED)");
        assert_eq!(error_text(&io::Error::other("no such name")), "no such name");
    }
}
