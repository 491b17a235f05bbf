//! Who is at the other end of the host's links, as lldpd knows it: asked through `lldpcli`, whose JSON is its stable
//! interface. `json0`, because `json` writes a list of one as the one, and puts names of chassis where keys are.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// lldpcli answers within milliseconds, unless lldpd hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// A neighbour is about 1 KiB; a host has a few.
const MOST_BYTES: u64 = 4 << 20;
/// A name of ours is no longer than LLDP allows a value to be.
const LONGEST: usize = 511;

/// The other end of a link; what it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) chassis_name: String,
    pub(super) chassis_id: String,
    /// Its first management address.
    pub(super) mgmt_ip: String,
    pub(super) port_id: String,
    pub(super) port_descr: String,
}

/// Why nothing is known of neighbours.
#[derive(Debug, thiserror::Error)]
pub(super) enum LldpError {
    #[error("cannot run {program} (--lldpcli; package lldpd): {source}")]
    Run { program: String, source: io::Error },
    #[error("{program} did not answer within {PATIENCE:?}: lldpd hangs")]
    Hangs { program: String },
    #[error("{program} says more than {MOST_BYTES} bytes of neighbours")]
    TooMuch { program: String },
    #[error("{program} failed ({status}): {said}")]
    Failed { program: String, status: std::process::ExitStatus, said: String },
    #[error("{program} says no JSON of lldpd: {source}")]
    Json { program: String, source: serde_json::Error },
}

/// Each interface with a neighbour on it, in lldpd's order. An interface comes several times if several speak there.
pub(super) async fn neighbours(program: &Path) -> Result<Vec<(String, Neighbour)>, LldpError> {
    let name = || program.display().to_string();
    let run = |source| LldpError::Run { program: name(), source };
    let mut child = Command::new(program)
        .args(["-f", "json0", "show", "neighbors"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(run)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let answer = async {
        let (mut text, mut said) = (Vec::new(), Vec::new());
        let out = async {
            match stdout {
                Some(pipe) => pipe.take(MOST_BYTES).read_to_end(&mut text).await,
                None => Ok(0),
            }
        };
        let err = async {
            match stderr {
                Some(pipe) => pipe.take(LONGEST as u64).read_to_end(&mut said).await,
                None => Ok(0),
            }
        };
        tokio::try_join!(out, err)?;
        Ok::<_, io::Error>((text, said))
    };
    let too_late = |_| LldpError::Hangs { program: name() };
    let (text, said) = tokio::time::timeout(PATIENCE, answer).await.map_err(too_late)?.map_err(run)?;
    if text.len() as u64 >= MOST_BYTES {
        return Err(LldpError::TooMuch { program: name() });
    }
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.map_err(too_late)?.map_err(run)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
        return Err(LldpError::Failed { program: name(), status, said });
    }
    parse(&text).map_err(|source| LldpError::Json { program: name(), source })
}

#[derive(Deserialize)]
struct Answer {
    lldp: Vec<Interfaces>,
}

#[derive(Deserialize)]
struct Interfaces {
    #[serde(default)]
    interface: Vec<Interface>,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(default)]
    chassis: Vec<Chassis>,
    #[serde(default)]
    port: Vec<Port>,
}

#[derive(Default, Deserialize)]
struct Chassis {
    #[serde(default)]
    id: Vec<Value>,
    #[serde(default)]
    name: Vec<Value>,
    #[serde(default, rename = "mgmt-ip")]
    mgmt_ip: Vec<Value>,
}

#[derive(Default, Deserialize)]
struct Port {
    #[serde(default)]
    id: Vec<Value>,
    #[serde(default)]
    descr: Vec<Value>,
}

#[derive(Deserialize)]
struct Value {
    #[serde(default)]
    value: String,
}

/// The neighbours in the words of lldpcli.
fn parse(text: &[u8]) -> serde_json::Result<Vec<(String, Neighbour)>> {
    let answer: Answer = serde_json::from_slice(text)?;
    let interfaces = answer.lldp.into_iter().flat_map(|lldp| lldp.interface);
    Ok(interfaces
        .map(|Interface { name, chassis, port }| {
            let chassis = chassis.into_iter().next().unwrap_or_default();
            let port = port.into_iter().next().unwrap_or_default();
            let neighbour = Neighbour {
                chassis_name: first(chassis.name),
                chassis_id: first(chassis.id),
                mgmt_ip: first(chassis.mgmt_ip),
                port_id: first(port.id),
                port_descr: first(port.descr),
            };
            (name, neighbour)
        })
        .collect())
}

/// Whoever is on the link chose the text: neither its length nor its control characters are passed on.
fn first(values: Vec<Value>) -> String {
    let value = values.into_iter().next().map(|value| value.value).unwrap_or_default();
    value.chars().filter(|char| !char.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests;
