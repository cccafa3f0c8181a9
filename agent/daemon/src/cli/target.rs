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

/// What the node has resources of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pods,
    Events,
    ConfigMaps,
    Secrets,
    Nodes,
}

/// `pods`, `pod/NAME`, `events`, `configmaps`, `secrets`, `nodes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) kind: Kind,
    pub(super) name: Option<String>,
}

/// The object that events are about: `pod/NAME`, `node/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Involved {
    /// `involvedObject.kind`.
    pub(super) kind: &'static str,
    pub(super) name: String,
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
        if name == Some("") {
            return Err(format!("{text:?} names nothing after the slash"));
        }
        let kind = match kind.to_ascii_lowercase().as_str() {
            "pods" | "pod" | "po" => Kind::Pods,
            "events" | "event" | "ev" => Kind::Events,
            "configmaps" | "configmap" | "cm" => Kind::ConfigMaps,
            "secrets" | "secret" => Kind::Secrets,
            "nodes" | "node" | "no" => Kind::Nodes,
            _ => {
                return Err(format!(
                    "this node has no resource type {kind:?}; it has pods, events, configmaps, secrets and nodes"
                ));
            }
        };
        Ok(Self { kind, name: name.map(str::to_owned) })
    }

    /// What can be described.
    pub(super) fn parse_described(text: &str) -> Result<Self, String> {
        let resource = Self::parse(text)?;
        match resource.kind {
            Kind::Pods | Kind::Nodes => Ok(resource),
            _ => Err("pods and nodes can be described".to_owned()),
        }
    }

    /// Where only pods are meant.
    pub(super) fn parse_pods(text: &str) -> Result<Self, String> {
        let resource = Self::parse(text)?;
        match resource.kind {
            Kind::Pods => Ok(resource),
            _ => Err("only pods can be meant here".to_owned()),
        }
    }
}

// === impl Involved ===

impl Involved {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some((kind, name)) = text.split_once('/').filter(|(_, name)| !name.is_empty()) else {
            return Err(format!("{text:?} is not of the form KIND/NAME, such as pod/web"));
        };
        let kind = match kind.to_ascii_lowercase().as_str() {
            "pods" | "pod" | "po" => "Pod",
            "nodes" | "node" | "no" => "Node",
            _ => {
                return Err(format!(
                    "this node tells no events about a {kind:?}; it does about pod and node"
                ));
            }
        };
        Ok(Self { kind, name: name.to_owned() })
    }
}

/// A pod's name, with or without `pod/` before it.
pub(super) fn pod_name(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        None => Ok(text.to_owned()),
        Some(_) => Resource::parse_pods(text)
            .and_then(|it| it.name.ok_or_else(|| "a pod's name is missing".to_owned())),
    }
}

/// The pod of that name.
pub(super) async fn pod(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Pod> {
    let mut pods = client.pods().await?.into_iter();
    let found = pods.find(|pod| pod.metadata.namespace == namespace && pod.metadata.name == name);
    found.ok_or_else(|| not_found("pods", name))
}

/// As the API server would say it.
pub(super) fn not_found(resource: &str, name: &str) -> anyhow::Error {
    ClientError::Status(Box::new(Status::not_found(resource, name))).into()
}

/// The container that is meant: the one named, else the pod's default, which is said when there was a
/// choice.
pub(super) fn container(pod: &Pod, named: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = named {
        return Ok(name.to_owned());
    }
    let containers = || pod.spec.containers.iter().map(|it| it.name.as_str());
    let inits = || pod.spec.init_containers.iter().map(|it| it.name.as_str());
    let ephemeral = || pod.spec.ephemeral_containers.iter().map(|it| it.name.as_str());
    if let Some(name) = pod.metadata.annotations.get(DEFAULT_CONTAINER)
        && containers().chain(inits()).chain(ephemeral()).any(|it| it == name)
    {
        return Ok(name.clone());
    }
    let first = containers().next().ok_or_else(|| anyhow::anyhow!("the pod has no container"))?;
    if containers().chain(inits()).chain(ephemeral()).count() > 1 {
        let all = containers().map(str::to_owned).chain(ephemeral().map(|name| format!("{name} (ephem)")));
        let all: Vec<String> = all.chain(inits().map(|name| format!("{name} (init)"))).collect();
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
            Resource::parse("jobs").unwrap_err(),
            "this node has no resource type \"jobs\"; it has pods, events, configmaps, secrets and nodes"
        );
        assert!(Resource::parse("pod/").is_err() && Resource::parse("deploy/web").is_err());
        for text in ["events", "event", "ev"] {
            assert_eq!(Resource::parse(text).unwrap(), Resource { kind: Kind::Events, name: None });
        }
        for (text, kind, name) in [
            ("configmaps", Kind::ConfigMaps, None),
            ("cm/web", Kind::ConfigMaps, Some("web")),
            ("Secret/login", Kind::Secrets, Some("login")),
            ("no", Kind::Nodes, None),
            ("node/edge", Kind::Nodes, Some("edge")),
        ] {
            assert_eq!(Resource::parse(text).unwrap(), Resource { kind, name: name.map(str::to_owned) });
        }
        assert!(Resource::parse_pods("events").is_err() && Resource::parse_pods("secrets").is_err());
        assert!(Resource::parse_described("no").is_ok() && Resource::parse_described("cm").is_err());
        for (text, kind) in [("pod/web", "Pod"), ("po/web", "Pod"), ("Node/web", "Node")] {
            assert_eq!(Involved::parse(text).unwrap(), Involved { kind, name: "web".to_owned() });
        }
        assert!(["web", "pod/", "job/web"].iter().all(|text| Involved::parse(text).is_err()));
        assert_eq!(pod_name("web").unwrap(), "web");
        assert_eq!(pod_name("po/web").unwrap(), "web");
        assert!(pod_name("job/web").is_err());
    }
}
