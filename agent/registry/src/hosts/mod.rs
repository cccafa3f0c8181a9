//! Who is asked for a registry's images.

mod file;
mod known;

use std::sync::Arc;
use std::time::Duration;

use coracle_fetch::{Address, Tls, Trust};
use hyper::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub(crate) use file::HostsFile;
pub(crate) use known::Hosts;

use crate::error::Error;

/// Docker Hub's name, and the host that answers for it.
const DOCKER_HUB: [&str; 2] = ["docker.io", "registry-1.docker.io"];

/// RFC 3986's unreserved characters stay.
pub(crate) const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A host that is asked for images of a registry: the registry itself, or a mirror of it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) scheme: Scheme,
    /// Host, and port if one was given.
    authority: String,
    /// Where the API begins, without a slash at the end.
    path: String,
    pub(crate) capabilities: Capabilities,
    /// What hosts.toml adds to each request.
    pub(crate) headers: HeaderMap,
    /// Whom the host may be.
    pub(crate) tls: Arc<Tls>,
    /// Whom those may be that the host names: token services, and where redirects lead. They need not verify less nor
    /// be shown a certificate of the node's, but may be of the same root.
    pub(crate) elsewhere: Arc<Tls>,
    /// How long connecting may take.
    pub(crate) dial_timeout: Option<Duration>,
    /// `ns`: whose images a mirror is asked for.
    namespace: Option<String>,
}

/// By what a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// HTTP in TLS.
    Https,
    /// HTTP without.
    Http,
    /// HTTPS, or HTTP where the host turns out not to speak TLS: whoever is on this machine's loopback alone.
    Either,
}

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Manifests by digest, and blobs.
    pub(crate) pull: bool,
    /// What a tag stands for.
    pub(crate) resolve: bool,
}

// === impl Host ===

impl Host {
    /// A registry that nothing is configured for.
    fn default_of(registry: &str, tls: Arc<Tls>, elsewhere: Arc<Tls>) -> Self {
        let authority = host_of(registry);
        let loopback =
            Address::parse(&format!("https://{authority}/")).is_ok_and(|address| address.is_loopback());
        Self {
            scheme: if loopback { Scheme::Either } else { Scheme::Https },
            authority: authority.to_owned(),
            path: "/v2".to_owned(),
            capabilities: Capabilities::ALL,
            headers: HeaderMap::new(),
            tls,
            elsewhere,
            dial_timeout: None,
            namespace: None,
        }
    }

    /// One that a file tells of.
    fn configured(configured: file::Configured, registry: &str, tls: Arc<Tls>, elsewhere: Arc<Tls>) -> Self {
        let file::Configured { place, capabilities, headers, dial_timeout, trust: _ } = configured;
        let itself = Self::default_of(registry, tls, elsewhere);
        let host = Self { capabilities, headers, dial_timeout, ..itself };
        match place {
            None => host,
            Some(file::Place { scheme, authority, path }) => {
                // As containerd does: whoever has another name is told whose images are meant.
                let namespace = (authority != host_of(registry)).then(|| encoded(registry));
                Self { scheme, authority, path, namespace, ..host }
            }
        }
    }

    /// Whether `other`, behind this one, would be the same host asked for what this one was asked for.
    fn stands_for(&self, other: &Self) -> bool {
        let is_same =
            (self.scheme, &self.authority, &self.path) == (other.scheme, &other.authority, &other.path);
        let (own, its) = (self.capabilities, other.capabilities);
        is_same && own.pull >= its.pull && own.resolve >= its.resolve
    }

    /// Host, and port if one was given.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The address of something in a repository.
    pub(crate) fn address(&self, https: bool, repository: &str, rest: &str) -> Result<Address, Error> {
        let scheme = if https { "https" } else { "http" };
        let Self { authority, path, .. } = self;
        let namespace =
            self.namespace.as_ref().map(|namespace| format!("?ns={namespace}")).unwrap_or_default();
        Ok(Address::parse(&format!("{scheme}://{authority}{path}/{repository}/{rest}{namespace}"))?)
    }
}

/// As a value of a query.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

/// The host of a registry's name.
fn host_of(registry: &str) -> &str {
    if registry == DOCKER_HUB[0] { DOCKER_HUB[1] } else { registry }
}

// === impl Capabilities ===

impl Capabilities {
    const ALL: Self = Self { pull: true, resolve: true };
}

/// Trust without what concerns one host alone.
fn elsewhere(trust: &Trust) -> Trust {
    Trust { roots: trust.roots.clone(), ..Trust::default() }
}
