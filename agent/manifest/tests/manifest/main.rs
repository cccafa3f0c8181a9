//! Manifests as users write them, right and wrong, against the whole decoder.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bounds;
mod encoded;
mod good;
mod malformed;

use coracle_manifest::decode;

fn one(text: &str) -> coracle_model::Pod {
    match decode("test.yaml", text.as_bytes()) {
        Ok(mut decoded) if decoded.len() == 1 => decoded.remove(0).pod,
        Ok(decoded) => panic!("{} documents", decoded.len()),
        Err(error) => panic!("{error}"),
    }
}
