//! Manifests as users write them, right and wrong, against the whole decoder.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bounds;
mod config;
mod configured;
mod encoded;
mod ephemeral;
mod good;
mod lifecycle;
mod malformed;

use coracle_manifest::{Decoded, ManifestError, decode};

fn one(text: &str) -> coracle_model::Pod {
    only(decode("test.yaml", text.as_bytes()))
}

fn only(decoded: Result<Decoded, ManifestError>) -> coracle_model::Pod {
    match decoded {
        Ok(mut decoded) if decoded.pods.len() == 1 => decoded.pods.remove(0),
        Ok(decoded) => panic!("{} pods", decoded.pods.len()),
        Err(error) => panic!("{error}"),
    }
}

/// A pod of one container with these fields, in flow style.
fn with_container(fields: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {{containers: [{{name: c, image: i, {fields}}}]}}}}"
    )
}
