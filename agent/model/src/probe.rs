//! Probes and lifecycle hooks, and what both of them do to a container.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Container, Signal};

/// `startupProbe`, `livenessProbe` or `readinessProbe`, with Kubernetes' defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is done each time. Never [`Handler::Sleep`].
    pub handler: Handler,
    /// `initialDelaySeconds`: from the container's start to the first time. 0 by default.
    pub initial_delay: Duration,
    /// `timeoutSeconds`: how long one may take. 1 s by default, at least 1 s.
    pub timeout: Duration,
    /// `periodSeconds`: between two of them. 10 s by default, at least 1 s.
    pub period: Duration,
    /// `successThreshold`: so many successes in a row make a success. 1 by default; only a readiness probe has more.
    pub success_threshold: u32,
    /// `failureThreshold`: so many failures in a row make a failure. 3 by default.
    pub failure_threshold: u32,
    /// `terminationGracePeriodSeconds`: what a container this probe ends has, instead of the pod's grace period.
    /// Never set for a readiness probe.
    pub termination_grace_period: Option<Duration>,
}

/// The three probes of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    /// Holds up the other two until it succeeds; ends the container when it fails.
    pub startup: Option<Probe>,
    /// Ends the container when it fails.
    pub liveness: Option<Probe>,
    /// Says whether the container can serve.
    pub readiness: Option<Probe>,
}

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProbeKind {
    /// `startupProbe`.
    Startup,
    /// `livenessProbe`.
    Liveness,
    /// `readinessProbe`.
    Readiness,
}

/// `lifecycle`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// Done right after the start; the container is not taken for started before it returns.
    pub post_start: Option<Handler>,
    /// Done before the stop signal, within the grace period.
    pub pre_stop: Option<Handler>,
    /// Sent instead of the image's stop signal.
    pub stop_signal: Option<Signal>,
}

/// What a probe or a hook does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handler {
    /// A program run in the container: succeeds with exit code 0. Never empty; no shell, no expansion.
    Exec(Vec<String>),
    /// A GET request: succeeds with a status from 200 to 399.
    HttpGet(HttpGet),
    /// A connection that is opened.
    TcpSocket(TcpSocket),
    /// `grpc.health.v1.Health/Check`: succeeds with SERVING. Probes only.
    Grpc(Grpc),
    /// A wait. Hooks only.
    Sleep(Duration),
}

/// `httpGet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpGet {
    /// Where to connect to; the pod when absent.
    pub host: Option<String>,
    /// The port.
    pub port: PortRef,
    /// Path and query, as written; `/` by default.
    pub path: String,
    /// Whether the connection is TLS, whose certificate is not verified.
    pub scheme: Scheme,
    /// Sent as written; a `Host` among them names the virtual host.
    pub headers: Vec<(String, String)>,
}

/// `tcpSocket`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpSocket {
    /// Where to connect to; the pod when absent.
    pub host: Option<String>,
    /// The port.
    pub port: PortRef,
}

/// `grpc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grpc {
    /// The port of the pod.
    pub port: u16,
    /// The service whose health is asked for; empty for the server's own.
    pub service: String,
}

/// A port by number, or by the name it has in the container's `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortRef {
    /// 1 to 65535.
    Number(u16),
    /// An IANA service name.
    Name(String),
}

/// `httpGet.scheme`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// Plain.
    #[default]
    Http,
    /// TLS.
    Https,
}

// === impl ProbeKind ===

impl ProbeKind {
    /// As the kubelet's messages begin: `Startup`, `Liveness`, `Readiness`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

// === impl Probes ===

impl Probes {
    /// One of them.
    pub fn get(&self, kind: ProbeKind) -> Option<&Probe> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.startup.is_none() && self.liveness.is_none() && self.readiness.is_none()
    }
}

// === impl PortRef ===

impl PortRef {
    /// The port's number; `None` when the container declares no port of that name.
    pub fn resolve(&self, container: &Container) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(name) => container
                .ports
                .iter()
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port),
        }
    }
}
