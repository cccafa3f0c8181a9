//! How pods are named and resolve names: what is in the files a container gets for it.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_cni::Dns;
use coracle_model::{Container, EventType, Pod, PodUid};
use coracle_network::{ClusterDns, Content, NameFile, NameFiles, Names, NetworkError, Resolver, hosts};
use coracle_pod::ports::{Events, Failure, PodEvent};
use coracle_sandbox::RequestMount;
use tokio::sync::watch;

use super::failure::failure;
use super::{EventPort, PodDirs};
use crate::config::Config;

const HOSTS: &str = "/etc/hosts";

/// What pods' names are made with.
#[derive(Debug)]
struct NameSettings {
    cluster: ClusterDns,
    resolv_conf: Option<PathBuf>,
}

/// Names pods.
pub(super) struct Naming {
    config: watch::Receiver<Arc<Config>>,
    dirs: PodDirs,
    events: EventPort,
}

// === impl NameSettings ===

impl NameSettings {
    /// Those of the configuration.
    fn of(config: &Config) -> Self {
        let (servers, domain) = (config.cluster_dns.clone(), config.cluster_domain.clone());
        Self { cluster: ClusterDns { servers, domain }, resolv_conf: config.resolv_conf.clone() }
    }
}

// === impl Naming ===

impl Naming {
    pub(super) fn new(config: watch::Receiver<Arc<Config>>, dirs: PodDirs, events: EventPort) -> Self {
        Self { config, dirs, events }
    }

    /// What pods are named with from now on. What was named stays.
    fn settings(&self) -> NameSettings {
        NameSettings::of(&self.config.borrow())
    }

    /// What uname(2) says in the pod.
    pub(super) fn hostname(&self, pod: &Pod) -> Result<String, Failure> {
        if pod.spec.host.network {
            return Ok(rustix::system::uname().nodename().to_string_lossy().into_owned());
        }
        let names =
            pod.names(&self.settings().cluster.domain).map_err(failure("CreateContainerConfigError"))?;
        Ok(names.kernel)
    }

    /// The files as mounts for a container, but those in whose place it mounts something itself.
    pub(super) fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: u32,
        addresses: &[IpAddr],
    ) -> Result<Vec<RequestMount>, Failure> {
        let files = self.files(&pod.uid);
        if !files.has(sandbox) {
            files.write(sandbox, &self.content(pod, addresses)?).map_err(failure("CreateContainerError"))?;
        }
        let own = |file: &NameFile| {
            container.volume_mounts.iter().any(|mount| mount.mount_path.trim_end_matches('/') == file.path())
        };
        let mount = |file: NameFile| {
            // As in the kubelet and in containerd: the one can be written to wherever it is.
            let read_only = file != NameFile::Hosts && container.security.read_only_root_filesystem;
            let mount = files.mount(sandbox, file, read_only).map_err(failure("CreateContainerError"))?;
            Ok(RequestMount { destination: file.path().to_owned(), mount })
        };
        NameFile::ALL.into_iter().filter(|file| !own(file)).map(mount).collect()
    }

    /// How the pod resolves names, as networks are told.
    pub(super) fn dns(&self, pod: &Pod) -> Result<Dns, Failure> {
        let (Resolver { nameservers, searches, options }, _) =
            self.resolver(pod).map_err(failure("FailedCreatePodSandBox"))?;
        Ok(Dns { nameservers, domain: String::new(), search: searches, options })
    }

    fn resolver(&self, pod: &Pod) -> Result<(Resolver, Vec<String>), NetworkError> {
        let settings = self.settings();
        let host = Resolver::of_host(settings.resolv_conf.as_deref())?;
        Ok(Resolver::of_pod(pod, &host, &settings.cluster))
    }

    /// Removes the files of a pod none of whose containers is left.
    pub(super) fn remove(&self, pod: &PodUid) -> Result<(), Failure> {
        self.files(pod).remove().map_err(failure("FailedKillPod"))
    }

    fn files(&self, pod: &PodUid) -> NameFiles {
        NameFiles::new(self.dirs.names(pod))
    }

    fn content(&self, pod: &Pod, addresses: &[IpAddr]) -> Result<Content, Failure> {
        let (resolver, problems) = self.resolver(pod).map_err(failure("CreateContainerError"))?;
        for message in problems {
            let kind = EventType::Warning;
            self.events.record(pod, PodEvent { kind, reason: "DNSConfigForming", message, container: None });
        }
        let aliases = &pod.spec.dns.host_aliases;
        let hosts = if pod.spec.host.network {
            hosts(Names::Host(&host_file()?), aliases)
        } else {
            let names =
                pod.names(&self.settings().cluster.domain).map_err(failure("CreateContainerConfigError"))?;
            hosts(Names::Own { names: &names, addresses }, aliases)
        };
        Ok(Content { hostname: self.hostname(pod)?, hosts, resolv_conf: resolver.to_string() })
    }
}

/// The host's own /etc/hosts; it may have none.
fn host_file() -> Result<String, Failure> {
    match fs::read(HOSTS) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => {
            Err(Failure::new("CreateContainerError", format!("cannot read the host's {HOSTS}: {error}")))
        }
    }
}
