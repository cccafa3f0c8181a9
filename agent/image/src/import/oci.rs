//! OCI image layouts: `index.json`, indexes, manifests, configurations, layers.

use std::collections::BTreeMap;

use coracle_model::Platform;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::archive::Archive;
use super::{ImportOptions, Imported};
use crate::incoming::{Disk, Incoming};
use crate::{Digest, ImageDocument, ImageError, ImageName, Store};

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;
const MAX_DESCRIPTORS: usize = 1000;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

/// A manifest or an index: which of the two is told by the fields, and having both is refused
/// (CVE-2021-41190).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// An image of an archive, before its layers are read.
pub(crate) struct Candidate {
    pub(crate) names: Vec<ImageName>,
    /// Where a tag is all it is called.
    pub(crate) tag: Option<String>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Option<Vec<u8>>,
    pub(crate) layers: Vec<LayerFile>,
}

/// Where a layer is, and what it must be.
pub(crate) struct LayerFile {
    /// The member's name.
    pub(crate) member: String,
    /// Digest and size of the member; archives of `docker save` only have the DiffID.
    pub(crate) blob: Option<(Digest, u64)>,
}

pub(crate) fn import(
    store: &Store,
    archive: &mut Archive,
    options: &ImportOptions,
) -> Result<Vec<Imported>, ImageError> {
    let top: Document = parse(archive, "index.json", &archive.document("index.json")?)?;
    let descriptors = top.manifests.ok_or_else(|| archive.invalid("its index.json lists no manifests"))?;
    let (named, unnamed): (Vec<_>, Vec<_>) =
        descriptors.into_iter().partition(|descriptor| reference(descriptor).is_some());
    let mut candidates = Vec::new();
    for descriptor in named {
        let reference = reference(&descriptor).cloned().unwrap_or_default();
        let (names, tag) = match reference.parse::<ImageName>() {
            Ok(name) if reference.contains(['/', ':']) => (vec![name], None),
            // A bare tag is no name: `skopeo copy ... oci:dir:tag` writes it.
            _ => (vec![], Some(reference)),
        };
        let manifest = choose(archive, vec![descriptor], MAX_DEPTH)?;
        candidates.push(Candidate { names, tag, ..candidate(archive, &manifest)? });
    }
    // Several without a name are one image for several platforms.
    if !unnamed.is_empty() {
        let manifest = choose(archive, unnamed, MAX_DEPTH)?;
        candidates.push(candidate(archive, &manifest)?);
    }
    import_candidates(store, archive, candidates, options)
}

/// Imports what an archive holds, once its documents are read.
pub(crate) fn import_candidates(
    store: &Store,
    archive: &Archive,
    mut candidates: Vec<Candidate>,
    options: &ImportOptions,
) -> Result<Vec<Imported>, ImageError> {
    if options.config != Default::default() {
        return Err(archive.invalid(
            "entrypoint, command, environment, user and working directory can only be given for a plain root file \
             system: an image archive brings its own",
        ));
    }
    match (candidates.as_mut_slice(), &options.name) {
        ([], _) => return Err(archive.invalid("it holds no image")),
        ([only], Some(name)) => only.names = vec![name.clone()],
        (several, Some(name)) => name_each(several, name).map_err(|problem| archive.invalid(problem))?,
        (_, None) => {}
    }
    if let Some(name) = candidates.iter().flat_map(|image| &image.names).find(|name| name.digest().is_some())
    {
        return Err(archive.invalid(format!("its name {name} cannot have a digest: give a tag")));
    }
    if candidates.iter().any(|image| image.names.is_empty()) {
        let tags: Vec<_> = candidates.iter().filter_map(|image| image.tag.as_deref()).collect();
        return Err(archive.invalid(match tags.as_slice() {
            [] => "an image in it has no name: give one with --name, or have it in the archive".to_owned(),
            tags => format!(
                "it has no name for an image, but tags alone ({}): give the repository with --name, or have whole \
                 names in the archive",
                tags.join(", ")
            ),
        }));
    }
    candidates.iter().map(|candidate| import_one(store, archive, candidate, options)).collect()
}

/// Names several images by one repository: each has its own tag in it, as with `ctr images import --base-name`.
fn name_each(candidates: &mut [Candidate], repository: &ImageName) -> Result<(), String> {
    if candidates.iter().any(|image| image.tag.is_none()) {
        let names: Vec<_> =
            candidates.iter().flat_map(|image| &image.names).map(ImageName::familiar).collect();
        return Err(format!(
            "it holds {} images ({}), which one name cannot stand for: import it without a name",
            candidates.len(),
            names.join(", ")
        ));
    }
    if repository.tag() != Some("latest") {
        return Err(format!(
            "each image in it has a tag of its own: give {} without one",
            repository.familiar()
        ));
    }
    for image in candidates {
        let tag = image.tag.as_deref().unwrap_or_default();
        let name = format!("{}:{tag}", repository.repository()).parse::<ImageName>();
        image.names = vec![name.map_err(|error| error.to_string())?];
    }
    Ok(())
}

fn import_one(
    store: &Store,
    archive: &Archive,
    candidate: &Candidate,
    options: &ImportOptions,
) -> Result<Imported, ImageError> {
    let document: ImageDocument = parse(archive, "image configuration", &candidate.config)?;
    let host = Platform::host();
    if !host.may_run(&document.os, &document.architecture) {
        return Err(archive.invalid(format!(
            "its image is for {}/{}, this machine is {host}",
            document.os, document.architecture
        )));
    }
    let (diff_ids, layers) = (&document.rootfs.diff_ids, &candidate.layers);
    if diff_ids.len() != layers.len() {
        return Err(archive.invalid(format!(
            "its configuration lists {} layers, its manifest {}",
            diff_ids.len(),
            layers.len()
        )));
    }
    let mut names = candidate.names.clone();
    if let Some(manifest) = &candidate.manifest {
        names.extend(candidate.names.iter().map(|name| name.with_digest(Digest::of(manifest))));
    }
    let manifest = candidate.manifest.as_deref();
    let incoming =
        Incoming::begin(store, Disk::of(store)?, manifest, &candidate.config, options.limits, false)?;
    for (index, layer) in layers.iter().enumerate() {
        incoming.unpack_from(index, &layer.member, layer.blob, || {
            let (reader, size) = archive.open(&layer.member)?;
            if let Some((_, expected)) = layer.blob
                && size != expected
            {
                return Err(archive
                    .invalid(format!("its {} has {size} bytes, {expected} were promised", layer.member)));
            }
            Ok(reader)
        })?;
    }
    incoming.commit(&names, options.pin.clone())
}

/// The manifest of this machine's platform, by the rules by which one is pulled.
fn choose(archive: &Archive, descriptors: Vec<Descriptor>, depth: usize) -> Result<Vec<u8>, ImageError> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(archive.invalid(format!("an index in it lists more than {MAX_DESCRIPTORS} manifests")));
    }
    let platforms = || descriptors.iter().map(|descriptor| descriptor.platform.as_ref());
    let host = Platform::host();
    let Some(descriptor) = host.choose(platforms()).map(|at| &descriptors[at]) else {
        let found: Vec<_> = platforms().flatten().map(Platform::to_string).collect();
        return Err(archive.invalid(format!("it has no image for {host}, only for {}", found.join(", "))));
    };
    let content = blob(archive, descriptor)?;
    let document: Document = parse(archive, &format!("manifest {}", descriptor.digest), &content)?;
    match document.manifests {
        None => Ok(content),
        Some(_) if depth == 0 => Err(archive.invalid("its indexes are nested too deeply")),
        Some(nested) => choose(archive, nested, depth - 1),
    }
}

fn candidate(archive: &Archive, manifest: &[u8]) -> Result<Candidate, ImageError> {
    let document: Document = parse(archive, "manifest", manifest)?;
    if document.schema_version != Some(2) {
        return Err(archive.invalid("its manifest is not of schema version 2"));
    }
    let (Some(config), Some(layers)) = (document.config, document.layers) else {
        return Err(archive.invalid("its manifest lacks a configuration or layers"));
    };
    let is_config = |kind: &str| {
        matches!(
            kind,
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
        )
    };
    if !is_config(&config.media_type) {
        return Err(archive.invalid(format!(
            "it is not a container image but an artifact of type {:?}",
            config.media_type
        )));
    }
    for layer in &layers {
        if layer.urls.as_ref().is_some_and(|urls| !urls.is_empty())
            || layer.media_type.contains("foreign")
            || layer.media_type.contains("nondistributable")
        {
            return Err(archive
                .invalid(format!("its layer {} is a foreign one, which is not supported", layer.digest)));
        }
    }
    Ok(Candidate {
        names: vec![],
        tag: None,
        config: blob(archive, &config)?,
        manifest: Some(manifest.to_vec()),
        layers: layers
            .iter()
            .map(|layer| LayerFile { member: member(&layer.digest), blob: Some((layer.digest, layer.size)) })
            .collect(),
    })
}

fn reference(descriptor: &Descriptor) -> Option<&String> {
    let annotations = descriptor.annotations.as_ref()?;
    annotations.get(CONTAINERD_NAME).or_else(|| annotations.get(REF_NAME))
}

fn member(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A document by its descriptor, verified.
fn blob(archive: &Archive, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let name = member(&descriptor.digest);
    let content = archive.document(&name)?;
    let found = Digest::of(&content);
    if found != descriptor.digest || content.len() as u64 != descriptor.size {
        return Err(ImageError::Mismatch { what: name, expected: descriptor.digest, found });
    }
    Ok(content)
}

/// Parses a document and checks that it is one thing only.
fn parse<T: DeserializeOwned>(archive: &Archive, what: &str, json: &[u8]) -> Result<T, ImageError> {
    #[derive(Deserialize)]
    struct Ambiguous {
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        layers: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        config: Option<serde_json::Value>,
    }
    let malformed = |error: serde_json::Error| archive.invalid(format!("its {what} is malformed: {error}"));
    let kind: Ambiguous = serde_json::from_slice(json).map_err(malformed)?;
    if kind.manifests.is_some() && (kind.layers.is_some() || kind.config.is_some()) {
        return Err(archive.invalid(format!("its {what} is ambiguous: it has both manifests and layers")));
    }
    serde_json::from_slice(json).map_err(malformed)
}

pub(crate) fn parse_json<T: DeserializeOwned>(
    archive: &Archive,
    what: &str,
    json: &[u8],
) -> Result<T, ImageError> {
    serde_json::from_slice(json).map_err(|error| archive.invalid(format!("its {what} is malformed: {error}")))
}
