//! Archives of `docker save`: `manifest.json` lists images, their names and layers.

use serde::Deserialize;

use super::archive::Archive;
use super::oci::{Candidate, LayerFile, import_candidates, parse_json};
use super::{ImportOptions, Imported};
use crate::{Digest, ImageError, ImageName, Store};

const MAX_IMAGES: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<ImageName>>,
    layers: Vec<String>,
}

pub(crate) fn import(
    store: &Store,
    archive: &mut Archive,
    options: &ImportOptions,
) -> Result<Vec<Imported>, ImageError> {
    let manifest = archive.document("manifest.json")?;
    let images: Vec<SavedImage> = parse_json(archive, "manifest.json", &manifest)?;
    if images.len() > MAX_IMAGES {
        return Err(archive.invalid(format!("it holds more than {MAX_IMAGES} images")));
    }
    let mut candidates = Vec::new();
    for image in images {
        let config = archive.document(&image.config)?;
        // The file is named by its digest, in one of two ways.
        let digits = image.config.strip_suffix(".json").unwrap_or(&image.config);
        let digits = digits.rsplit('/').next().unwrap_or(digits);
        if let Ok(expected) = format!("sha256:{digits}").parse::<Digest>() {
            let found = Digest::of(&config);
            if found != expected {
                return Err(ImageError::Mismatch { what: image.config, expected, found });
            }
        }
        candidates.push(Candidate {
            names: image.repo_tags.unwrap_or_default(),
            tag: None,
            config,
            manifest: None,
            layers: image.layers.into_iter().map(|member| LayerFile { member, blob: None }).collect(),
        });
    }
    import_candidates(store, archive, candidates, options)
}
