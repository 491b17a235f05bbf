//! `xtcp2-agent`.
fn main() {}
