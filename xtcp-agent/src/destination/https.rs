//! `https://HOST[:PORT][/PATH]`: as [`http`](super::http), over TLS.

use super::http;
use super::scheme::Built;

pub(super) const BUILT: Built =
    Built { parse: |rest, options| http::parse("https", rest, options), options: http::OPTIONS };
