//! `fieldRef`: what a pod is told of itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use coracle_model::PodField;

use super::Sources;
use super::quote::quote;

/// The field's value now.
pub(super) fn value(field: &PodField, sources: Sources<'_>) -> Result<String, String> {
    let Sources { pod, node, .. } = sources;
    Ok(match field {
        PodField::Name => pod.key.name.to_string(),
        PodField::Namespace => pod.key.namespace.to_string(),
        PodField::Uid => pod.uid.to_string(),
        PodField::Label(key) => pod.labels.get(key).cloned().unwrap_or_default(),
        PodField::Annotation(key) => pod.annotations.get(key).cloned().unwrap_or_default(),
        PodField::Labels => lines(&pod.labels),
        PodField::Annotations => lines(&pod.annotations),
        PodField::NodeName => node.name.clone(),
        PodField::ServiceAccountName => pod.spec.service_account.clone(),
        PodField::HostIp => first(host(sources)?),
        PodField::HostIps => all(host(sources)?),
        PodField::PodIp => first(own(sources)?),
        PodField::PodIps => all(own(sources)?),
    })
}

/// `key="value"`, a line each, in order of key; the last without its end, as in the kubelet.
fn lines(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<_> = map.iter().map(|(key, value)| format!("{key}={}", quote(value))).collect();
    lines.join("\n")
}

fn host<'a>(sources: Sources<'a>) -> Result<&'a [IpAddr], String> {
    match sources.node.addresses.is_empty() {
        true => Err("host IP unknown: the host has no route from which its address could be told".to_owned()),
        false => Ok(&sources.node.addresses),
    }
}

/// A pod in the host's network has the host's addresses.
fn own<'a>(sources: Sources<'a>) -> Result<&'a [IpAddr], String> {
    match sources.pod.spec.host.network {
        true => host(sources),
        // The network it was given has none.
        false if sources.addresses.is_empty() => Err("the pod has no IP address".to_owned()),
        false => Ok(sources.addresses),
    }
}

fn first(addresses: &[IpAddr]) -> String {
    addresses.first().map(ToString::to_string).unwrap_or_default()
}

fn all(addresses: &[IpAddr]) -> String {
    let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    all.join(",")
}
