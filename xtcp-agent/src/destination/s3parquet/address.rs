//! Where objects go: endpoint, bucket, prefix, and the name of each.

use std::fmt;
use std::time::{Duration, SystemTime};

use object_store::path::{Path, PathPart};

use super::super::options::Options;

/// A bucket, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `http://…` or `https://…`; `None`: AWS's own for the region.
    pub(super) endpoint: Option<String>,
    pub(super) bucket: String,
    pub(super) prefix: Vec<String>,
    /// Region that was named; `None`: the environment's or the default.
    pub(super) region: Option<String>,
    pub(super) path_style: bool,
}

impl Place {
    /// Reads `URL/BUCKET[/PREFIX]` or `REGION/BUCKET[/PREFIX]`.
    pub(super) fn parse(rest: &str, options: &Options) -> Result<Self, String> {
        let wanted = options.text("region").map(str::to_owned);
        let (scheme, after) = match rest.split_once("://") {
            Some((scheme @ ("http" | "https"), after)) => (Some(scheme), after),
            Some((scheme, _)) => return Err(format!("{scheme}:// is no endpoint: http:// and https:// are")),
            None => (None, rest),
        };
        let mut parts = after.split('/').filter(|part| !part.is_empty());
        let host = parts.next().unwrap_or_default();
        let bucket = parts.next().unwrap_or_default();
        if host.is_empty() || host.contains('@') {
            return Err("there is no endpoint (keys are options: access-key, secret-key-file)".to_owned());
        }
        if bucket.is_empty() {
            return Err("there is no bucket behind the endpoint".to_owned());
        }
        let prefix = parts.map(str::to_owned).collect();
        let (endpoint, region) = match scheme {
            Some(scheme) => (Some(format!("{scheme}://{host}")), wanted),
            None if is_region(host) => match wanted {
                Some(wanted) if wanted != host => {
                    return Err(format!("option region={wanted}: the address names region {host}"));
                }
                _ => (None, Some(host.to_owned())),
            },
            None => {
                return Err(format!(
                    "{host:?} is neither a region (eu-central-1) nor a URL (https://{host})"
                ));
            }
        };
        let path_style = options.switch("path-style")?.unwrap_or(endpoint.is_some());
        Ok(Self { endpoint, bucket: bucket.to_owned(), prefix, region, path_style })
    }

    /// Name of the region, for messages.
    pub(super) fn region_name(&self) -> &str {
        self.region.as_deref().unwrap_or("us-east-1 (the default)")
    }
}

/// As in the address.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.endpoint.as_deref().or(self.region.as_deref()).unwrap_or_default();
        write!(f, "{host}/{}", self.bucket)?;
        self.prefix.iter().try_for_each(|part| write!(f, "/{part}"))
    }
}

/// Whether it looks like `eu-central-1`.
fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lower = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    match parts.as_slice() {
        [words @ .., number] => words.len() >= 2 && words.iter().all(lower) && number.parse::<u8>().is_ok(),
        [] => false,
    }
}

/// `PREFIX/host=HOST/date=YYYY-MM-DD/hour=HH/UNIX_8HEX.parquet` in UTC, from the time of the first row and the batch's id.
///
/// The eight digits tell batches of one second apart. They are the CRC of the id: ids of one agent differ in a few
/// neighbouring digits, and a CRC of 32 bits never makes two of those equal.
pub(super) fn key(place: &Place, hostname: &str, first_ns: i64, id: &str) -> Path {
    let seconds = u64::try_from(first_ns.div_euclid(1_000_000_000)).unwrap_or_default();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let shown = humantime::format_rfc3339_seconds(time).to_string();
    let (date, clock) = shown.split_once('T').unwrap_or_default();
    let hour = clock.split(':').next().unwrap_or_default();
    let name = format!("{seconds}_{:08x}.parquet", crc32fast::hash(id.as_bytes()));
    let folders = [format!("host={hostname}"), format!("date={date}"), format!("hour={hour}"), name];
    place.prefix.iter().cloned().chain(folders).map(PathPart::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(rest: &str, options: &str) -> Result<Place, String> {
        Place::parse(rest, &Options::parse(options).expect("options"))
    }

    #[test]
    fn an_endpoint_is_a_url_or_a_region() {
        let own = place("http://minio:9000/rows/a/b", "region=home").expect("a URL");
        assert_eq!(own.endpoint.as_deref(), Some("http://minio:9000"));
        assert_eq!((own.bucket.as_str(), own.prefix.join("/")), ("rows", "a/b".to_owned()));
        assert_eq!((own.region.as_deref(), own.path_style), (Some("home"), true));
        assert_eq!(own.to_string(), "http://minio:9000/rows/a/b");
        let aws = place("us-gov-west-1/rows", "").expect("a region");
        assert_eq!(
            (aws.endpoint, aws.region.as_deref(), aws.path_style),
            (None, Some("us-gov-west-1"), false)
        );
    }

    #[test]
    fn what_is_no_place_says_what_is_wrong() {
        for (rest, problem) in [
            ("", "there is no endpoint (keys are options: access-key, secret-key-file)"),
            (
                "http://key:secret@minio/rows",
                "there is no endpoint (keys are options: access-key, secret-key-file)",
            ),
            ("https://minio:9000/", "there is no bucket behind the endpoint"),
            ("ftp://minio/rows", "ftp:// is no endpoint: http:// and https:// are"),
            (
                "minio:9000/rows",
                "\"minio:9000\" is neither a region (eu-central-1) nor a URL (https://minio:9000)",
            ),
        ] {
            assert_eq!(place(rest, "").expect_err(rest), problem);
        }
        assert_eq!(
            place("eu-west-1/rows", "region=eu-west-2").expect_err("two regions"),
            "option region=eu-west-2: the address names region eu-west-1"
        );
    }

    #[test]
    fn an_object_is_named_by_host_hour_and_batch() {
        let place = place("http://s3/rows/prefix", "").expect("a place");
        let name = |id: &str| key(&place, "web 1/a", 1_764_003_599_999_999_999, id).to_string();
        let digits = format!("{:08x}", crc32fast::hash(b"i-7-0"));
        assert_eq!(
            name("i-7-0"),
            format!("prefix/host=web 1%2Fa/date=2025-11-24/hour=16/1764003599_{digits}.parquet")
        );
        assert_eq!(name("i-7-0"), name("i-7-0"));
        assert_ne!(name("i-7-0"), name("i-8-0"));
        assert!(key(&place, "h", -5, "i").to_string().contains("/date=1970-01-01/hour=00/0_"));
    }
}
