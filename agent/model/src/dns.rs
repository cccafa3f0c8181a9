//! How a pod is named, and how it resolves names.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Name, Pod};

/// The most characters of a Linux host name.
const MAX_HOST_NAME: usize = 64;

/// `spec.dnsPolicy`: where a pod's resolver settings begin; [`DnsConfig`] comes on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsPolicy {
    /// The cluster's DNS, and the host's settings where there is none or for a pod in the host's network.
    #[default]
    ClusterFirst,
    /// The cluster's DNS, also for a pod in the host's network.
    ClusterFirstWithHostNet,
    /// The host's settings.
    Default,
    /// Nothing.
    None,
}

/// `spec.dnsConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Added to those of the policy.
    pub nameservers: Vec<IpAddr>,
    /// Added to those of the policy.
    pub searches: Vec<String>,
    /// Each replaces the option of the same name.
    pub options: Vec<DnsOption>,
}

/// An option of resolv.conf(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsOption {
    /// Such as `ndots`.
    pub name: String,
    /// What stands after the colon.
    pub value: Option<String>,
}

/// `spec.hostAliases[]`: a line of /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    /// The address.
    pub ip: IpAddr,
    /// Its names.
    pub hostnames: Vec<Name>,
}

/// `spec`, as far as it is about names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodDns {
    /// `spec.dnsPolicy`.
    pub policy: DnsPolicy,
    /// `spec.dnsConfig`.
    pub config: DnsConfig,
    /// `spec.hostAliases`.
    pub host_aliases: Vec<HostAlias>,
    /// `spec.subdomain`: with it the pod has a domain.
    pub subdomain: Option<Name>,
    /// `spec.setHostnameAsFQDN`: the kernel is told the name with its domain.
    pub hostname_as_fqdn: bool,
    /// `spec.hostnameOverride`: the pod's name and no other; it has no domain.
    pub hostname_override: Option<Name>,
}

/// The names of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNames {
    /// The host name, without domain.
    pub hostname: String,
    /// The domain, `<subdomain>.<namespace>.svc.<cluster domain>`; none without a subdomain.
    pub domain: Option<String>,
    /// What the kernel is told, and uname(2) says.
    pub kernel: String,
}

/// The name a pod is to be known by does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to construct FQDN from Pod hostname and cluster domain, FQDN {fqdn} is too long ({MAX_HOST_NAME} characters is the max, {} characters requested)",
    fqdn.len()
)]
pub struct FqdnTooLong {
    /// The name.
    pub fqdn: String,
}

impl Pod {
    /// The pod's names in a cluster of this domain, which may be empty.
    ///
    /// # Errors
    ///
    /// [`FqdnTooLong`] where the name with its domain is to be the host name, and is too long for that.
    pub fn names(&self, cluster_domain: &str) -> Result<PodNames, FqdnTooLong> {
        let dns = &self.spec.dns;
        if let Some(name) = &dns.hostname_override {
            return Ok(PodNames { hostname: name.to_string(), domain: None, kernel: name.to_string() });
        }
        let hostname = self.hostname().to_owned();
        let domain = dns.subdomain.as_ref().map(|subdomain| {
            let domain = format!("{subdomain}.{}.svc.{cluster_domain}", self.key.namespace);
            domain.trim_end_matches('.').to_owned()
        });
        let kernel = match &domain {
            Some(domain) if dns.hostname_as_fqdn => format!("{hostname}.{domain}"),
            _ => hostname.clone(),
        };
        if kernel.len() > MAX_HOST_NAME {
            return Err(FqdnTooLong { fqdn: kernel });
        }
        Ok(PodNames { hostname, domain, kernel })
    }
}
