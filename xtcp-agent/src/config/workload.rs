//! Options about whose namespaces and sockets are.

use clap::Args;

use super::value::bytes;
use crate::workload;
use crate::workload::directory::{LabelChoice, OptOut};
use crate::workload::socket::{Sockets, Word};

/// How containers, pods and units are recognised.
#[derive(Args, Clone, Debug, PartialEq)]
#[group(skip)]
#[command(next_help_heading = "Containers and pods")]
pub struct Workload {
    /// Socket of an engine with the Docker API, for names and images: auto, off, or a path; repeatable.
    ///
    /// auto is /run/docker.sock, when it is there. Podman's /run/podman/podman.sock has to be named: asked by an agent, its
    /// service runs all the time. Nothing but lists, single containers and events is asked for.
    #[arg(id = "docker-socket", long = "docker-socket", value_name = "PATH", value_delimiter = ',',
          default_value = "auto", value_parser = Word::parse)]
    pub docker_sockets: Vec<Word>,

    /// Socket of a runtime with the Container Runtime Interface, for pods: auto, off, or a path; repeatable.
    ///
    /// auto is those of containerd, CRI-O, cri-dockerd and k3s that are there. Only this node is asked, never a cluster.
    #[arg(id = "cri-socket", long = "cri-socket", value_name = "PATH", value_delimiter = ',', default_value = "auto",
          value_parser = Word::parse)]
    pub cri_sockets: Vec<Word>,

    /// Labels of pods in records: a key in which * and ? are wild; repeatable. None given: none.
    #[arg(id = "pod-labels", long = "pod-labels", value_name = "KEY", value_delimiter = ',',
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub pod_labels: Vec<String>,

    /// Label by which a container or pod is left out of records and events; repeatable.
    ///
    /// Its whole network namespace is left out. Without a value, any value will do. It counts from when an engine has told
    /// of the label on.
    #[arg(id = "opt-out-label", long = "opt-out-label", value_name = "KEY[=VALUE]", value_delimiter = ',',
          default_value = "xtcp2.io/exclude=true", value_parser = opt_out)]
    pub opt_out_labels: Vec<OptOut>,

    /// Memory for names and owners: 64KiB to 1GiB. What was not used the longest is forgotten first, and counted.
    #[arg(id = "workload-cache-bytes", long = "workload-cache-bytes", value_name = "BYTES", default_value = "16MiB",
          value_parser = bytes(64 << 10, 1 << 30))]
    pub cache_bytes: u32,
}

fn opt_out(word: &str) -> Result<OptOut, String> {
    OptOut::parse(word).ok_or_else(|| "no key; accepted: KEY or KEY=VALUE".to_owned())
}

impl Workload {
    /// In the words of who does it.
    pub fn settings(&self) -> workload::Settings {
        workload::Settings {
            bytes: self.cache_bytes as usize,
            pod_labels: LabelChoice::new(&self.pod_labels),
            opt_out: self.opt_out_labels.clone(),
            docker: Sockets::of(&self.docker_sockets),
            cri: Sockets::of(&self.cri_sockets),
        }
    }
}
