//! Manifests as users write them, right and wrong, against the whole decoder.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bounds;
mod config;
mod encoded;
mod good;
mod malformed;

use coracle_manifest::decode;

fn one(text: &str) -> coracle_model::Pod {
    match decode("test.yaml", text.as_bytes()) {
        Ok(mut decoded) if decoded.pods.len() == 1 => decoded.pods.remove(0),
        Ok(decoded) => panic!("{} pods", decoded.pods.len()),
        Err(error) => panic!("{error}"),
    }
}
