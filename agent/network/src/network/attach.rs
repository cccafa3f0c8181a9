//! What a pod's attachment is asked for with.

use std::net::IpAddr;
use std::path::Path;

use coracle_cni::Dns;
use coracle_model::{BANDWIDTH_ANNOTATIONS, Pod, Protocol, parse_bandwidth};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::attachment::AttachmentId;
use super::chain::capabilities;
use super::default::DefaultNetwork;
use crate::NetworkError;

/// A sandbox that is to be attached to its network, and how. What is asked for reaches the plugins that declare the
/// capability.
#[derive(Clone, Debug)]
pub struct Attach<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// How many sandboxes the pod had before this one.
    pub attempt: u32,
    /// The sandbox's network namespace, by path.
    pub netns: &'a Path,
    /// Capability `portMappings`.
    pub port_mappings: Vec<PortMapping>,
    /// Capability `bandwidth`.
    pub bandwidth: Option<Bandwidth>,
    /// Capability `dns`.
    pub dns: Option<Dns>,
    /// Capability `mac`.
    pub mac: Option<String>,
    /// Capability `ips`.
    pub ips: Vec<IpNet>,
}

/// A port of the host that leads to one of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The host's.
    pub host_port: u16,
    /// The pod's.
    pub container_port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// The host's address; all of them where absent.
    pub host_ip: Option<IpAddr>,
}

/// How much a pod may send and receive, in bits a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// What it may receive.
    pub ingress: Option<u64>,
    /// What it may send.
    pub egress: Option<u64>,
}

// === impl Attach ===

impl<'a> Attach<'a> {
    /// What a pod asks for by its manifest: its host ports, and its bandwidth by annotation.
    ///
    /// # Errors
    /// An annotation cannot be used.
    pub fn of_pod(pod: &'a Pod, attempt: u32, netns: &'a Path) -> Result<Self, NetworkError> {
        let (port_mappings, bandwidth) = (PortMapping::of_pod(pod), Bandwidth::of_pod(pod)?);
        Ok(Self { pod, attempt, netns, port_mappings, bandwidth, dns: None, mac: None, ips: Vec::new() })
    }

    pub(super) fn id(&self) -> AttachmentId {
        AttachmentId { uid: self.pod.uid.clone(), attempt: self.attempt }
    }

    /// As the [conventions](https://www.cni.dev/docs/conventions/) have them, and containerd.
    pub(super) fn capabilities(&self, default: &DefaultNetwork) -> Map<String, Value> {
        let list = |values: Vec<Value>| (!values.is_empty()).then_some(Value::Array(values));
        let dns =
            |dns: &Dns| json!({"servers": dns.nameservers, "searches": dns.search, "options": dns.options});
        let annotations = &self.pod.annotations;
        capabilities([
            ("portMappings", list(self.port_mappings.iter().map(PortMapping::to_json).collect())),
            ("bandwidth", self.bandwidth.map(Bandwidth::to_json)),
            ("dns", self.dns.as_ref().map(dns)),
            ("mac", self.mac.as_ref().map(|mac| json!(mac))),
            ("ips", list(self.ips.iter().map(|ip| json!(ip)).collect())),
            ("ipRanges", (!default.pod_cidrs.is_empty()).then(|| default.ranges())),
            ("io.kubernetes.cri.pod-annotations", (!annotations.is_empty()).then(|| json!(annotations))),
        ])
    }
}

// === impl PortMapping ===

impl PortMapping {
    /// Those that a pod has by its manifest.
    pub fn of_pod(pod: &Pod) -> Vec<Self> {
        let mapping = |port: coracle_model::HostPort<'_>| Self {
            host_port: port.port,
            container_port: port.container_port,
            protocol: port.protocol,
            host_ip: port.address,
        };
        pod.host_ports().map(mapping).collect()
    }

    fn to_json(&self) -> Value {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let host_ip = self.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        json!({
            "hostPort": self.host_port,
            "containerPort": self.container_port,
            "protocol": protocol,
            "hostIP": host_ip,
        })
    }
}

// === impl Bandwidth ===

impl Bandwidth {
    /// What a pod's annotations say.
    ///
    /// # Errors
    /// One of them is no quantity, or not between 1k and 1P.
    pub fn of_pod(pod: &Pod) -> Result<Option<Self>, NetworkError> {
        let [ingress, egress] = BANDWIDTH_ANNOTATIONS.map(|annotation| {
            let Some(text) = pod.annotations.get(annotation) else { return Ok(None) };
            let refused = |why: String| NetworkError::Annotation { annotation, value: text.clone(), why };
            parse_bandwidth(text).map(Some).map_err(refused)
        });
        let bandwidth = Self { ingress: ingress?, egress: egress? };
        Ok((bandwidth != Self::default()).then_some(bandwidth))
    }

    /// With the largest burst, as containerd has it.
    fn to_json(self) -> Value {
        let mut json = json!({});
        for (rate, burst, value) in
            [("ingressRate", "ingressBurst", self.ingress), ("egressRate", "egressBurst", self.egress)]
        {
            if let (Some(value), Value::Object(fields)) = (value, &mut json) {
                fields.insert(rate.to_owned(), json!(value));
                fields.insert(burst.to_owned(), json!(i32::MAX));
            }
        }
        json
    }
}
