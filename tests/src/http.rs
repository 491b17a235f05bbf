//! One HTTP GET, and the metrics page by name.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::host::slowness;

/// Status and body of `http://address/path`; an error when nobody answers.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2) * slowness())?;
    stream.set_read_timeout(Some(Duration::from_secs(10) * slowness()))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Some(chunk) = usize::from_str_radix(size.trim(), 16).ok().and_then(|size| rest.get(..size))
        else {
            break;
        };
        if chunk.is_empty() {
            break;
        }
        whole.push_str(chunk);
        body = rest.get(chunk.len() + 2..).unwrap_or_default();
    }
    whole
}

/// A metrics page.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: Vec<(String, f64)>,
    page: String,
}

impl Metrics {
    /// Parses Prometheus' text format.
    pub fn parse(page: &str) -> Self {
        let samples = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
            .collect();
        Self { samples, page: page.to_owned() }
    }

    /// Sum over the series of metric `name` whose labels contain all of `labels`, each written `key="value"`; fails
    /// when there is no such metric at all.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of_name = |series: &&(String, f64)| series.0.split('{').next() == Some(name);
        assert!(self.samples.iter().any(|s| of_name(&s)), "the metrics page has no {name}:\n{}", self.page);
        let matching = |series: &&(String, f64)| labels.iter().all(|label| series.0.contains(label));
        self.samples.iter().filter(of_name).filter(matching).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_the_series_with_the_given_labels() {
        let page = "# TYPE a counter\na{k=\"x\",l=\"1\"} 2\na{k=\"x\",l=\"2\"} 3\na{k=\"y\"} 10\nab 100\n";
        let metrics = Metrics::parse(page);
        assert!((metrics.sum("a", &[]) - 15.0).abs() < f64::EPSILON);
        assert!((metrics.sum("a", &["k=\"x\""]) - 5.0).abs() < f64::EPSILON);
        assert!((metrics.sum("ab", &[]) - 100.0).abs() < f64::EPSILON);
    }

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(unchunk("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "abcde");
    }
}
