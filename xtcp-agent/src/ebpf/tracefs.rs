//! Classic tracepoints need tracefs: is it there, and do the tracepoints look as the programs expect?

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use xtcp_common::tracepoint::Field;

/// Where tracefs belongs, and where kernels before 4.1 and some distributions have it.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The mounted tracefs; when it is not mounted, it is now, if that is allowed.
fn root() -> Result<PathBuf, String> {
    let mounted = |place: &&str| Path::new(place).join("events").is_dir();
    if let Some(place) = PLACES.iter().find(|place| mounted(place)) {
        return Ok(PathBuf::from(place));
    }
    let [place, ..] = PLACES;
    mount(Some("tracefs"), place, Some("tracefs"), MsFlags::empty(), None::<&str>)
        .map_err(|errno| format!("tracefs is not mounted, and mounting it at {place} failed: {errno}"))?;
    tracing::info!("mounted tracefs at {place}: classic tracepoints need it");
    Ok(PathBuf::from(place))
}

/// Compares a tracepoint's fields with those that its program reads.
///
/// # Errors
///
/// A reason, when tracefs is not there, does not know the tracepoint, or describes it differently.
pub(super) fn check_layout(category: &str, name: &str, fields: &[Field]) -> Result<(), String> {
    let path = root()?.join("events").join(category).join(name).join("format");
    let format = fs::read_to_string(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{}: this kernel has no such tracepoint", path.display()),
        _ => format!("{}: {error}", path.display()),
    })?;
    match fields.iter().find(|field| !has_field(&format, field)) {
        Some(field) => Err(format!("{}: {} is not where the program reads it", path.display(), field.name)),
        None => Ok(()),
    }
}

/// A line is `field:<type> <name>[array];\toffset:<n>;\tsize:<n>;\tsigned:<n>;`.
fn has_field(format: &str, wanted: &Field) -> bool {
    format.lines().any(|line| {
        let mut parts = line.trim().split(';').map(str::trim);
        let name = parts.next().and_then(|part| part.strip_prefix("field:")?.rsplit(' ').next());
        let offset = parts.next().and_then(|part| part.strip_prefix("offset:")?.parse().ok());
        let size = parts.next().and_then(|part| part.strip_prefix("size:")?.parse().ok());
        name.and_then(|name| name.split('[').next()) == Some(wanted.name)
            && offset == Some(wanted.offset)
            && size == Some(wanted.size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: inet_sock_set_state\nformat:\n\
        \tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:__u8 saddr[4];\toffset:32;\tsize:4;\tsigned:0;\n";

    #[test]
    fn a_field_is_recognised_by_name_place_and_size() {
        assert!(has_field(FORMAT, &Field { name: "skaddr", offset: 8, size: 8 }));
        assert!(has_field(FORMAT, &Field { name: "saddr", offset: 32, size: 4 }));
        for other in [("saddr", 36, 4), ("saddr", 32, 16), ("sadd", 32, 4), ("daddr", 32, 4)] {
            let (name, offset, size) = other;
            assert!(!has_field(FORMAT, &Field { name, offset, size }), "{other:?}");
        }
    }
}
