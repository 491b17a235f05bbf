//! The messages of `runtime.v1` (Kubernetes' `cri-api`, `pkg/apis/runtime/v1/api.proto`) that are asked or read here, with
//! the fields that are. Numbers and types are those of the published file; what it has besides is skipped.

use std::collections::HashMap;

use prost::Message;

/// Asks what runs there.
#[derive(Clone, PartialEq, Message)]
pub(super) struct VersionRequest {
    /// Version of the interface that the client knows.
    #[prost(string, tag = "1")]
    pub(super) version: String,
}

/// What runs there.
#[derive(Clone, PartialEq, Message)]
pub(super) struct VersionResponse {
    /// `containerd`, `cri-o`, …
    #[prost(string, tag = "2")]
    pub(super) runtime_name: String,
}

/// Asks for sandboxes: all of them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListPodSandboxRequest {}

/// Sandboxes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) items: Vec<PodSandbox>,
}

/// A sandbox: what a pod's containers share.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandbox {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<PodSandboxMetadata>,
    /// `PodSandboxState`: 0 ready, 1 not ready.
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
    /// The pod's labels.
    #[prost(map = "string, string", tag = "5")]
    pub(super) labels: HashMap<String, String>,
}

impl PodSandbox {
    /// Whether it is the pod's present one.
    pub(super) fn is_ready(&self) -> bool {
        self.state == 0
    }
}

/// Which pod it is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
}

/// Asks for containers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<ContainerFilter>,
}

impl ListContainersRequest {
    /// Those that run.
    pub(super) fn running() -> Self {
        /// `CONTAINER_RUNNING`.
        const RUNNING: i32 = 1;
        Self { filter: Some(ContainerFilter { state: Some(ContainerStateValue { state: RUNNING }) }) }
    }
}

/// Which containers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerFilter {
    #[prost(message, optional, tag = "2")]
    pub(super) state: Option<ContainerStateValue>,
}

/// A container's state.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStateValue {
    #[prost(int32, tag = "1")]
    pub(super) state: i32,
}

/// Containers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Container {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub(super) metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    pub(super) image: Option<ImageSpec>,
    #[prost(map = "string, string", tag = "8")]
    pub(super) labels: HashMap<String, String>,
}

/// Which container of its pod it is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

/// An image.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ImageSpec {
    /// As the runtime knows it: a name, or an id.
    #[prost(string, tag = "1")]
    pub(super) image: String,
    /// As it was asked for; only newer runtimes tell.
    #[prost(string, tag = "18")]
    pub(super) user_specified_image: String,
}

impl ImageSpec {
    /// As it was asked for, where that is known.
    pub(super) fn name(self) -> String {
        if self.user_specified_image.is_empty() { self.image } else { self.user_specified_image }
    }
}

/// Asks for one sandbox.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pub(super) pod_sandbox_id: String,
    /// With what the runtime says in words of its own.
    #[prost(bool, tag = "2")]
    pub(super) verbose: bool,
}

/// One sandbox.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxStatusResponse {
    /// What the runtime says in words of its own; `info` is JSON with the process's number in containerd and CRI-O.
    #[prost(map = "string, string", tag = "2")]
    pub(super) info: HashMap<String, String>,
}

/// Asks for events.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Empty {}

/// Something happened to a container or sandbox.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerEvent {
    #[prost(string, tag = "1")]
    pub(super) container_id: String,
    /// `ContainerEventType`: 0 created, 1 started, 2 stopped, 3 deleted.
    #[prost(int32, tag = "2")]
    pub(super) container_event_type: i32,
}
