//! Build, test and CI commands.
fn main() {}
