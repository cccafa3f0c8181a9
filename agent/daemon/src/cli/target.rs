//! Which pod and container a command is about.

use std::io::{self, Write};

use clap::Args;
use coracle_server::Status;
use coracle_server::client::{Client, ClientError, Pod};

/// The namespace a command works in.
#[derive(Clone, Debug, Args)]
pub(super) struct Scope {
    /// Namespace
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub(super) namespace: String,
}

/// `pods`, or `pod/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) name: Option<String>,
}

/// The annotation by which a pod says which container is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

// === impl Resource ===

impl Resource {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        match (kind.to_ascii_lowercase().as_str(), name) {
            (_, Some("")) => Err(format!("{text:?} names no pod after the slash")),
            ("pods" | "pod" | "po", name) => Ok(Self { name: name.map(str::to_owned) }),
            _ => Err(format!("this node has no resource type {kind:?}; it has pods")),
        }
    }
}

/// A pod's name, with or without `pod/` before it.
pub(super) fn pod_name(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        None => Ok(text.to_owned()),
        Some(_) => {
            Resource::parse(text).and_then(|it| it.name.ok_or_else(|| "a pod's name is missing".to_owned()))
        }
    }
}

/// The pod of that name.
pub(super) async fn pod(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Pod> {
    let mut pods = client.pods().await?.into_iter();
    let found = pods.find(|pod| pod.metadata.namespace == namespace && pod.metadata.name == name);
    found.ok_or_else(|| not_found(name))
}

/// As the API server would say it.
pub(super) fn not_found(name: &str) -> anyhow::Error {
    ClientError::Status(Box::new(Status::pod_not_found(name))).into()
}

/// The container that is meant: the one named, else the pod's default, which is said when there was a
/// choice.
pub(super) fn container(pod: &Pod, named: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = named {
        return Ok(name.to_owned());
    }
    let containers = || pod.spec.containers.iter().map(|it| it.name.as_str());
    let inits = || pod.spec.init_containers.iter().map(|it| it.name.as_str());
    if let Some(name) = pod.metadata.annotations.get(DEFAULT_CONTAINER)
        && containers().chain(inits()).any(|it| it == name)
    {
        return Ok(name.clone());
    }
    let first = containers().next().ok_or_else(|| anyhow::anyhow!("the pod has no container"))?;
    if containers().chain(inits()).count() > 1 {
        let all: Vec<String> =
            containers().map(str::to_owned).chain(inits().map(|name| format!("{name} (init)"))).collect();
        writeln!(io::stderr(), "Defaulted container {first:?} out of: {}", all.join(", "))?;
    }
    Ok(first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_as_in_kubectl() {
        for (text, name) in
            [("pods", None), ("pod", None), ("po", None), ("PODS", None), ("pod/web", Some("web"))]
        {
            assert_eq!(Resource::parse(text).unwrap().name.as_deref(), name, "{text}");
        }
        assert_eq!(
            Resource::parse("nodes").unwrap_err(),
            "this node has no resource type \"nodes\"; it has pods"
        );
        assert!(Resource::parse("pod/").is_err() && Resource::parse("deploy/web").is_err());
        assert_eq!(pod_name("web").unwrap(), "web");
        assert_eq!(pod_name("po/web").unwrap(), "web");
        assert!(pod_name("job/web").is_err());
    }
}
