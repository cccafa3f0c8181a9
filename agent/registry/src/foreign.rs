//! What parses foreign bytes, for fuzz targets. Nothing else uses it.

use std::path::Path;

use coracle_model::Platform;
use hyper::HeaderMap;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};

use crate::auth::Challenge;
use crate::document::{self, Document, SaidToBe};
use crate::hosts::HostsFile;
use crate::platform::choose;

/// Reads a manifest or an index, and chooses of one.
///
/// # Panics
/// When what was let through is none.
pub fn manifest(bytes: &[u8], content_type: Option<&str>, media_type: Option<&str>) {
    let page = document::refuse_pages(content_type, bytes);
    let parsed = Document::parse(bytes, SaidToBe { content_type, media_type });
    match parsed {
        Ok(Document::Manifest { layers, .. }) => {
            assert!(page.is_ok() && layers.len() <= document::MOST_LAYERS, "{} layers", layers.len());
        }
        Ok(Document::Index(entries)) => match choose(&Platform::host(), &entries) {
            Ok(entry) => assert!(entries.contains(entry)),
            Err(error) => assert!(error.to_string().len() < 100_000),
        },
        Err(error) => assert!(error.to_string().chars().count() < 2000, "{error}"),
    }
}

/// Reads a challenge.
pub fn challenge(text: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    headers.extend(HeaderValue::from_bytes(text).map(|value| (WWW_AUTHENTICATE, value)));
    Challenge::of(&headers).is_some()
}

/// Reads a hosts.toml.
///
/// # Panics
/// When the registry itself is left out.
pub fn hosts_file(text: &str) -> bool {
    let parsed = HostsFile::parse(text, Path::new("/certs.d/host"));
    parsed.is_ok_and(|file| {
        assert!(!file.hosts.is_empty());
        true
    })
}
