//! The JSON documents of an image layout and of `docker save`.

use serde_json::{Value, json};

use super::Compression;
use crate::{Digest, ImageDocument, ImageError, ImageName};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A blob by its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// An image whose blobs are written.
pub(super) struct Described {
    pub(super) manifest: Blob,
    pub(super) config: Blob,
    pub(super) layers: Vec<Blob>,
    pub(super) names: Vec<ImageName>,
    pub(super) document: ImageDocument,
}

/// The manifest of an image whose layers are written in one way.
pub(super) fn manifest(
    compression: Compression,
    config: Blob,
    layers: &[Blob],
) -> Result<Vec<u8>, ImageError> {
    let kind = match compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    };
    let layers: Vec<Value> = layers.iter().map(|layer| descriptor(kind, *layer)).collect();
    bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": layers,
    }))
}

/// Whether a manifest is OCI's, and lists these blobs.
pub(super) fn describes(content: &[u8], config: Digest, layers: &[Blob]) -> bool {
    let Ok(manifest) = serde_json::from_slice::<Value>(content) else { return false };
    let is = |value: &Value, digest: Digest| value["digest"] == digest.to_string();
    manifest["config"]["mediaType"] == CONFIG
        && manifest.get("mediaType").is_none_or(|kind| kind == MANIFEST)
        && is(&manifest["config"], config)
        && manifest["layers"].as_array().is_some_and(|listed| {
            listed.len() == layers.len()
                && listed.iter().zip(layers).all(|(listed, layer)| is(listed, layer.digest))
        })
}

/// `index.json`: an entry for each name, annotated as Docker and containerd do.
pub(super) fn index(images: &[Described]) -> Result<Vec<u8>, ImageError> {
    let mut manifests = Vec::new();
    for image in images {
        let mut entry = descriptor(MANIFEST, image.manifest);
        entry["platform"] = json!({"os": image.document.os, "architecture": image.document.architecture});
        if image.names.is_empty() {
            manifests.push(entry);
            continue;
        }
        for name in &image.names {
            let mut named = entry.clone();
            named["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": name.tag().unwrap_or("latest"),
            });
            manifests.push(named);
        }
    }
    bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    }))
}

/// `manifest.json` of `docker save`.
pub(super) fn saved_images(images: &[Described]) -> Result<Vec<u8>, ImageError> {
    let saved: Vec<Value> = images
        .iter()
        .map(|image| {
            let tags: Vec<String> = image.names.iter().map(ImageName::familiar).collect();
            let layers: Vec<String> = image.layers.iter().map(|layer| member(layer.digest)).collect();
            json!({
                "Config": member(image.config.digest),
                "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
                "Layers": layers,
            })
        })
        .collect();
    bytes(&json!(saved))
}

/// Where a blob lies.
pub(super) fn member(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn descriptor(kind: &str, blob: Blob) -> Value {
    json!({"mediaType": kind, "digest": blob.digest.to_string(), "size": blob.size})
}

fn bytes(value: &Value) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|error| ImageError::Output(error.into()))
}
