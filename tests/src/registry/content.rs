//! What a good registry has, and how it answers.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Body, Reply, Request};

/// Manifests and blobs of any repository: what one has, all have.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// By digest: type and bytes.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// By repository and tag: a digest.
    tags: BTreeMap<(String, String), String>,
    /// By digest.
    blobs: BTreeMap<String, Vec<u8>>,
}

/// Content by type, digest and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its length.
    pub size: usize,
}

/// An image of one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its manifest.
    pub manifest: Value,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Its layers, lowest first, as a registry has them.
    pub layers: Vec<Vec<u8>>,
}

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

// === impl Content ===

impl Content {
    /// Adds a blob.
    pub fn blob(&mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs.insert(descriptor.digest.clone(), bytes);
        descriptor
    }

    /// Adds a manifest or index, whose type is its `mediaType`.
    pub fn manifest(&mut self, manifest: &Value) -> Descriptor {
        let media_type = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
        let bytes = manifest.to_string().into_bytes();
        let descriptor = Descriptor::of(&media_type, &bytes);
        self.manifests.insert(descriptor.digest.clone(), (media_type, bytes));
        descriptor
    }

    /// Adds an image, with all it has.
    pub fn image(&mut self, image: &Image) -> Descriptor {
        self.blob("", image.config.clone());
        for layer in &image.layers {
            self.blob("", layer.clone());
        }
        self.manifest(&image.manifest)
    }

    /// Adds an index of images, each with its platform, such as `linux/arm64/v8`.
    pub fn index(&mut self, entries: &[(&str, Descriptor)]) -> Descriptor {
        let entry = |(platform, descriptor): &(&str, Descriptor)| {
            let mut parts = platform.split('/');
            let mut entry = descriptor.json();
            entry["platform"] = json!({"os": parts.next(), "architecture": parts.next(), "variant": parts.next().unwrap_or_default()});
            entry
        };
        let manifests: Vec<_> = entries.iter().map(entry).collect();
        self.manifest(&json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}))
    }

    /// Has a tag of a repository stand for a manifest.
    pub fn tag(&mut self, repository: &str, tag: &str, descriptor: &Descriptor) {
        self.tags.insert((repository.to_owned(), tag.to_owned()), descriptor.digest.clone());
    }

    /// Answers as a registry does.
    pub fn answer(&self, request: &Request) -> Reply {
        let path = request.path();
        if path.trim_end_matches('/') == "/v2" {
            return super::json(&json!({}));
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return Reply::error("404 Not Found", "UNKNOWN", "there is no such path");
        };
        if let Some((repository, reference)) = rest.split_once("/manifests/") {
            let tagged = self.tags.get(&(repository.to_owned(), reference.to_owned()));
            let digest = tagged.map_or(reference, String::as_str);
            return match self.manifests.get(digest) {
                Some((media_type, bytes)) => {
                    Reply::ok(media_type, bytes.clone()).with("Docker-Content-Digest", digest)
                }
                None => Reply::error("404 Not Found", "MANIFEST_UNKNOWN", "manifest unknown"),
            };
        }
        let blob = rest.split_once("/blobs/").and_then(|(_, digest)| self.blobs.get(digest));
        match blob {
            Some(bytes) => part(bytes, request),
            None => Reply::error("404 Not Found", "BLOB_UNKNOWN", "blob unknown to registry"),
        }
    }
}

/// A blob, or the part of it that is asked for.
fn part(bytes: &[u8], request: &Request) -> Reply {
    let all = || Reply::ok("application/octet-stream", bytes);
    let Some(range) = request.header("range") else { return all() };
    let first = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse::<usize>().ok());
    match first {
        Some(first) if first < bytes.len() => {
            let range = format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::status("206 Partial Content")
                .with("Content-Range", &range)
                .body(Body::Whole(bytes[first..].to_vec()))
        }
        Some(_) => Reply::status("416 Range Not Satisfiable")
            .with("Content-Range", &format!("bytes */{}", bytes.len())),
        None => all(),
    }
}

// === impl Descriptor ===

impl Descriptor {
    /// Of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { media_type: media_type.to_owned(), digest: format!("sha256:{digest}"), size: bytes.len() }
    }

    /// As documents have it.
    pub fn json(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

// === impl Image ===

impl Image {
    /// An image of layers that are given as tar archives and compressed with gzip.
    pub fn of(archives: &[Vec<u8>], config: &Value) -> Self {
        let layers = archives.iter().map(|archive| gzip(archive)).collect();
        let diff_ids: Vec<_> = archives.iter().map(|archive| Descriptor::of("", archive).digest).collect();
        Self::of_layers(layers, &diff_ids, config)
    }

    /// An image of layers that are compressed with gzip, and the digests of what they hold.
    pub fn of_layers(layers: Vec<Vec<u8>>, diff_ids: &[String], config: &Value) -> Self {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let layer =
            |bytes: &Vec<u8>| Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", bytes).json();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor::of(OCI_CONFIG, &config).json(),
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        Self { manifest, config, layers }
    }

    /// A small one that differs by a text.
    pub fn small(text: &str) -> Self {
        Self::of(&[tar_of(&[("text", text.as_bytes())])], &json!({"Cmd": ["/text"]}))
    }
}

/// An archive of regular files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, *bytes).expect("memory takes an archive");
    }
    archive.into_inner().expect("memory takes an archive")
}

/// Compresses with gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes an archive");
    encoder.finish().expect("memory takes an archive")
}
