//! Manifests and indexes: OCI's [manifest] and [index], and Docker's [of schema 2].
//!
//! [manifest]: https://github.com/opencontainers/image-spec/blob/main/manifest.md
//! [index]: https://github.com/opencontainers/image-spec/blob/main/image-index.md
//! [of schema 2]: https://distribution.github.io/distribution/spec/manifest-v2-2/

use coracle_model::Platform;
use serde::Deserialize;

use crate::answer::shown;
use crate::descriptor::Descriptor;
use crate::error::Error;

/// How many layers an image may have: overlayfs takes no more (`OVL_MAX_STACK`).
pub(crate) const MOST_LAYERS: usize = 500;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What is asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     */*;q=0.1";

/// Docker's manifests before 2015.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

const LAYERS: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// A document that names an image, or several.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// Of one platform.
    Manifest { config: Descriptor, layers: Vec<Descriptor> },
    /// Of several; each may be another index.
    Index(Vec<Entry>),
}

/// One of an index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) descriptor: Descriptor,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    Index,
}

/// Either of them, as it comes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Layer>>,
    manifests: Option<Vec<Entry>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default)]
    urls: Option<Vec<serde::de::IgnoredAny>>,
}

/// What a manifest is said to be where it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SaidToBe<'a> {
    /// `Content-Type` of the answer.
    pub(crate) content_type: Option<&'a str>,
    /// `mediaType` of the descriptor that leads to it.
    pub(crate) media_type: Option<&'a str>,
}

// === impl Document ===

impl Document {
    /// Reads a document whose digest is right.
    pub(crate) fn parse(bytes: &[u8], said: SaidToBe<'_>) -> Result<Self, Error> {
        let content_type = said.content_type.map(essence);
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| unusable(shown(&error.to_string())))?;
        let types = [content_type.as_deref(), said.media_type, raw.media_type.as_deref()];
        if raw.schema_version == Some(1)
            || raw.fs_layers.is_some()
            || types.iter().flatten().any(|one| one.starts_with(SCHEMA_1))
        {
            return Err(unusable(
                "it is of Docker's schema 1, which nobody makes any more: push the image anew with a current tool",
            ));
        }
        match raw.kind(types)? {
            Kind::Index => Ok(Self::Index(raw.manifests.unwrap_or_default())),
            Kind::Manifest => raw.manifest(),
        }
    }
}

// === impl Raw ===

impl Raw {
    /// What it is, on which all must agree.
    fn kind(&self, types: [Option<&str>; 3]) -> Result<Kind, Error> {
        let [content_type, descriptor, own] = types;
        let known = content_type.filter(|text| kind_of(text).is_some());
        let names = [
            ("the answer's Content-Type", known),
            ("the index that leads to it", descriptor.filter(|text| !text.is_empty())),
            ("its mediaType", own.filter(|text| !text.is_empty())),
        ];
        let mut said = names.into_iter().filter_map(|(who, text)| Some((who, text?)));
        let first = said.next();
        if let Some((who, one)) = first
            && let Some((other_who, other)) = said.find(|(_, other)| *other != one)
        {
            let (one, other) = (shown(one), shown(other));
            return Err(unusable(format!("{who} says {one}, and {other_who} {other}")));
        }
        let has_manifest = self.layers.is_some() || self.config.is_some();
        let by_shape = match (has_manifest, self.manifests.is_some()) {
            (true, true) => {
                return Err(unusable(
                    "it has both `manifests` and `layers` or `config`, so that it could be taken for two images",
                ));
            }
            (true, false) => Kind::Manifest,
            (false, true) => Kind::Index,
            (false, false) => return Err(unusable("it has neither `layers` nor `manifests`")),
        };
        match first.map(|(_, text)| (text, kind_of(text))) {
            None => Ok(by_shape),
            Some((_, Some(kind))) if kind == by_shape => Ok(kind),
            Some((text, Some(_))) => {
                Err(unusable(format!("it is said to be {text}, and looks like the other kind")))
            }
            Some((text, None)) => Err(unusable(format!(
                "its type is {}, which is none of an image's manifest or index",
                shown(text)
            ))),
        }
    }

    fn manifest(self) -> Result<Document, Error> {
        let config = self.config.ok_or_else(|| unusable("it has no `config`"))?;
        if !CONFIGURATIONS.contains(&config.media_type.as_str()) {
            let of = self.artifact_type.unwrap_or(config.media_type);
            return Err(unusable(format!("it is no image, but an artifact of type {:?}", shown(&of))));
        }
        let layers = self.layers.ok_or_else(|| unusable("it has no `layers`"))?;
        if layers.len() > MOST_LAYERS {
            return Err(unusable(format!(
                "it has {} layers, of which overlayfs takes {MOST_LAYERS}: build the image with fewer",
                layers.len()
            )));
        }
        let layers = layers.into_iter().enumerate().map(|(at, layer)| layer.checked(at));
        Ok(Document::Manifest { config, layers: layers.collect::<Result<_, _>>()? })
    }
}

// === impl Layer ===

impl Layer {
    fn checked(self, at: usize) -> Result<Descriptor, Error> {
        let media_type = self.descriptor.media_type.as_str();
        if media_type.contains("nondistributable") || media_type.contains(".foreign.") {
            return Err(unusable(format!(
                "its layer {at} ({}) may not be distributed by registries: only images whose layers the registry has \
                 can be used",
                shown(media_type)
            )));
        }
        if self.urls.is_some_and(|urls| !urls.is_empty()) {
            return Err(unusable(format!(
                "its layer {at} names `urls`, from which nothing is fetched: a registry could have this machine ask anybody"
            )));
        }
        if !LAYERS.contains(&media_type) {
            return Err(unusable(format!(
                "its layer {at} is of type {:?}, which is not known",
                shown(media_type)
            )));
        }
        Ok(self.descriptor)
    }
}

fn kind_of(media_type: &str) -> Option<Kind> {
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => Some(Kind::Manifest),
        OCI_INDEX | DOCKER_LIST => Some(Kind::Index),
        _ => None,
    }
}

/// A media type without parameters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What comes in place of a manifest where something else than a registry answers.
pub(crate) fn refuse_pages(content_type: Option<&str>, bytes: &[u8]) -> Result<(), Error> {
    let content_type = content_type.map(essence);
    let page = matches!(content_type.as_deref(), Some("text/html" | "application/xhtml+xml"));
    if page || bytes.trim_ascii_start().first() == Some(&b'<') {
        return Err(Error::ContentType(format!(
            "has answered with a web page ({}), not with a manifest: it is no registry, or a login page or a proxy \
             answers in its place",
            content_type.map_or_else(|| "of no type".to_owned(), |text| shown(&text))
        )));
    }
    Ok(())
}

fn unusable(reason: impl Into<String>) -> Error {
    Error::Document { document: "manifest", reason: reason.into() }
}

#[cfg(test)]
mod tests;
