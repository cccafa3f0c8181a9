//! What a registry is asked for.

use std::sync::Arc;
use std::time::Duration;

use coracle_fetch::Client as Http;
use coracle_model::{Digest, ImageName, Platform};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use crate::ask::{Asker, Request};
use crate::blob::Blob;
use crate::credential::Credential;
use crate::descriptor::{Descriptor, Manifest};
use crate::document::{self, Document, SaidToBe};
use crate::error::Error;
use crate::hosts::{Host, Hosts};
use crate::platform;
use crate::rounds::Rounds;
use crate::settings::{Limits, Settings};
use crate::wrong::Senders;

/// How large a document may be: what registries take at least, and most at most.
const MOST_OF_DOCUMENT: u64 = 4 << 20;

/// How deep indexes may lie in indexes.
const MOST_INDEXES: usize = 4;

/// The digest of the document that a tag stands for.
const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";

/// Asks registries for images. A clone shares connections and tokens.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

pub(crate) struct Inner {
    asker: Asker,
    hosts: Hosts,
    limits: Limits,
    platform: Platform,
    senders: Senders,
}

/// A document, and what it was said to be.
struct Fetched {
    bytes: Vec<u8>,
    digest: Digest,
    document: Document,
}

// === impl Client ===

impl Client {
    /// A client that does as it is told.
    ///
    /// # Errors
    /// [`Error::Setup`] when the user agent cannot be one.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let Settings { hosts_dirs, proxies, user_agent, limits, platform } = settings;
        let http = Http::new(proxies, &user_agent).map_err(Error::Setup)?;
        Ok(Self(Arc::new(Inner {
            asker: Asker::new(http, limits),
            hosts: Hosts::new(hosts_dirs),
            limits,
            platform,
            senders: Senders::default(),
        })))
    }

    /// Who is asked for the images of a registry, in order, as the configuration is now. None of them is asked.
    ///
    /// # Errors
    /// [`Error::HostsFile`] when what is configured cannot be used.
    pub async fn hosts(&self, registry: &str) -> Result<Vec<String>, Error> {
        let hosts = self.0.hosts.of(registry).await?;
        Ok(hosts.iter().map(|host| host.authority().to_owned()).collect())
    }

    /// The digest that a name stands for now, without fetching anything; `None` when the registry does not say. A name
    /// that has a digest stands for that one, if the registry has it and lets this credential see it.
    ///
    /// # Errors
    /// What each host has said.
    pub async fn digest(&self, name: &ImageName, credential: &Credential) -> Result<Option<Digest>, Error> {
        let hosts = self.0.hosts_of(name, Need { pull: false, resolve: name.digest().is_none() }).await?;
        self.0.resolve(name, hosts, credential).await
    }

    /// The manifest of an image for this client's platform.
    ///
    /// # Errors
    /// What each host has said; that there is no image for the platform, or that it is none that can be used.
    pub async fn manifest(&self, name: &ImageName, credential: &Credential) -> Result<Manifest, Error> {
        let inner = &self.0;
        let mut name = name.clone();
        let hosts = match inner.hosts_of(&name, Need { pull: true, resolve: name.digest().is_none() }).await {
            // Those who know the tag need not be those who have the manifest.
            Err(Error::NoHost { .. }) if name.digest().is_none() => {
                let hosts = inner.hosts_of(&name, Need { pull: false, resolve: true }).await?;
                let what = format!("what {name} stands for");
                let digest = inner.resolve(&name, hosts, credential).await?;
                let digest = digest.ok_or(Error::Document {
                    document: "answer",
                    reason: format!("it does not tell the digest of {what}"),
                })?;
                name = name.with_digest(digest);
                inner.hosts_of(&name, Need { pull: true, resolve: false }).await?
            }
            hosts => hosts?,
        };
        let mut fetched = inner.document(&name, hosts, SaidToBe::default(), None, credential).await?;
        let digest = fetched.digest;
        for _ in 0..MOST_INDEXES {
            let entries = match fetched.document {
                Document::Manifest { config, layers } => {
                    return Ok(Manifest {
                        digest,
                        manifest_digest: fetched.digest,
                        bytes: fetched.bytes,
                        config,
                        layers,
                    });
                }
                Document::Index(entries) => entries,
            };
            let entry = platform::choose(&inner.platform, &entries)?;
            let name = name.with_digest(entry.descriptor.digest);
            let hosts = inner.hosts_of(&name, Need { pull: true, resolve: false }).await?;
            let said = SaidToBe { content_type: None, media_type: Some(&entry.descriptor.media_type) };
            fetched = inner.document(&name, hosts, said, Some(entry.descriptor.size), credential).await?;
        }
        Err(Error::Document {
            document: "index",
            reason: format!("more than {MOST_INDEXES} indexes lie in each other"),
        })
    }

    /// A small blob, such as an image's configuration, whose digest is right.
    ///
    /// # Errors
    /// What each host has said, or that it is larger than 4 MiB.
    pub async fn document(
        &self,
        name: &ImageName,
        descriptor: &Descriptor,
        credential: &Credential,
    ) -> Result<Vec<u8>, Error> {
        let Descriptor { size, digest: expected, .. } = *descriptor;
        if size > MOST_OF_DOCUMENT {
            return Err(Error::TooLarge { what: "a document", size, limit: MOST_OF_DOCUMENT });
        }
        let mut blob = self.blob(name, descriptor, credential).await?;
        let mut bytes = Vec::new();
        while let Some(part) = blob.next().await? {
            bytes.extend_from_slice(&part);
        }
        match Digest::of(&bytes) {
            actual if actual == expected => Ok(bytes),
            actual => {
                self.was_wrong(expected);
                Err(Error::Digest { expected, actual })
            }
        }
    }

    /// Whoever asked for a blob has found that it has another digest, or is of no use. The hosts it is from are asked for
    /// it after all others from now on; which they are.
    pub fn was_wrong(&self, digest: Digest) -> Vec<String> {
        let hosts = self.0.senders.was_wrong(digest);
        for host in &hosts {
            tracing::warn!(%digest, host, "a host has sent a blob that is of no use; others are asked for it first");
        }
        hosts.into_iter().collect()
    }

    /// The hosts that a blob has come from.
    pub fn sent_by(&self, digest: Digest) -> Vec<String> {
        self.0.senders.of(digest).into_iter().collect()
    }

    /// A blob, as a stream.
    ///
    /// # Errors
    /// What each host has said.
    pub async fn blob(
        &self,
        name: &ImageName,
        descriptor: &Descriptor,
        credential: &Credential,
    ) -> Result<Blob, Error> {
        let mut hosts = self.0.hosts_of(name, Need { pull: true, resolve: false }).await?;
        hosts.sort_by_key(|host| self.0.senders.is_wrong(descriptor.digest, host.authority()));
        let what = format!("blob {} of {}", descriptor.digest, name.repository());
        let rounds = Rounds::new(what, hosts, self.0.limits);
        let repository = name.path().to_owned();
        Blob::open(Arc::clone(&self.0), rounds, repository, descriptor.clone(), credential.clone()).await
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("hosts", &self.0.hosts).finish_non_exhaustive()
    }
}

/// What a host must be able to do.
#[derive(Clone, Copy)]
struct Need {
    pull: bool,
    resolve: bool,
}

// === impl Inner ===

impl Inner {
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn senders(&self) -> &Senders {
        &self.senders
    }

    pub(crate) fn asker(&self) -> &Asker {
        &self.asker
    }

    /// The hosts that can do what is needed, in order, but those last that could not be reached.
    async fn hosts_of(&self, name: &ImageName, need: Need) -> Result<Vec<Arc<Host>>, Error> {
        let mut hosts = self.hosts.of(name.domain()).await?;
        hosts.retain(|host| host.capabilities.pull >= need.pull && host.capabilities.resolve >= need.resolve);
        hosts.sort_by_key(|host| self.asker.is_unreached(host));
        if hosts.is_empty() {
            let capability = match need {
                Need { pull: true, resolve: true } => "pull and resolve",
                Need { resolve: true, .. } => "resolve",
                Need { .. } => "pull",
            };
            return Err(Error::NoHost {
                what: name.to_string(),
                registry: name.domain().to_owned(),
                capability,
            });
        }
        Ok(hosts)
    }

    /// What a name stands for, of whoever says it first.
    async fn resolve(
        &self,
        name: &ImageName,
        hosts: Vec<Arc<Host>>,
        credential: &Credential,
    ) -> Result<Option<Digest>, Error> {
        let path = manifest_path(name);
        let mut rounds = Rounds::new(format!("manifest {name}"), hosts, self.limits);
        loop {
            let host = rounds.next().await?;
            let request = Request {
                method: Method::HEAD,
                repository: name.path(),
                path: &path,
                headers: accepting_manifests(),
                credential,
            };
            match self.asker.ask(&host, &request).await {
                Ok(response) => return Ok(name.digest().or_else(|| told_digest(&response.headers))),
                // One that knows no HEAD here does not say.
                Err(Error::Status {
                    status: StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED,
                    ..
                }) => {
                    return Ok(None);
                }
                Err(error) => rounds.failed(error),
            }
        }
    }

    /// A manifest or index, of whoever has one first that is what it should be.
    async fn document(
        &self,
        name: &ImageName,
        hosts: Vec<Arc<Host>>,
        said: SaidToBe<'_>,
        size: Option<u64>,
        credential: &Credential,
    ) -> Result<Fetched, Error> {
        let mut rounds = Rounds::new(format!("manifest {name}"), hosts, self.limits);
        loop {
            let host = rounds.next().await?;
            match self.document_of(&host, name, said, size, credential).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => rounds.failed(error),
            }
        }
    }

    async fn document_of(
        &self,
        host: &Host,
        name: &ImageName,
        said: SaidToBe<'_>,
        size: Option<u64>,
        credential: &Credential,
    ) -> Result<Fetched, Error> {
        let path = manifest_path(name);
        let (method, repository, headers) = (Method::GET, name.path(), accepting_manifests());
        let request = Request { method, repository, path: &path, headers, credential };
        let response = self.asker.ask(host, &request).await?;
        let content_type =
            response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let content_type = content_type.as_deref();
        let told = told_digest(&response.headers);
        let wait: Duration = self.limits.document;
        let bytes = response.whole(MOST_OF_DOCUMENT, wait).await?;
        let digest = Digest::of(&bytes);
        document::refuse_pages(content_type, &bytes)?;
        if let Some(expected) = size.filter(|size| *size != bytes.len() as u64) {
            return Err(Error::Size { expected, actual: bytes.len() as u64 });
        }
        // What the registry itself says of a tag tells what was cut off or changed on the way.
        if let Some(expected) = name.digest().or(told).filter(|expected| *expected != digest) {
            return Err(Error::Digest { expected, actual: digest });
        }
        let document = Document::parse(&bytes, SaidToBe { content_type, ..said })?;
        Ok(Fetched { bytes, digest, document })
    }
}

/// The digest decides where there are both.
fn manifest_path(name: &ImageName) -> String {
    match name.digest() {
        Some(digest) => format!("manifests/{digest}"),
        None => format!("manifests/{}", name.tag().unwrap_or("latest")),
    }
}

fn accepting_manifests() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(document::ACCEPT))])
}

fn told_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok()?.trim().parse().ok()
}
