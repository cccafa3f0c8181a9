//! Manifests as users write them, right and wrong, against the whole decoder.

mod good;

use coracle_manifest::decode;

fn one(text: &str) -> coracle_model::Pod {
    match decode("test.yaml", text.as_bytes()) {
        Ok(mut decoded) if decoded.len() == 1 => decoded.remove(0).pod,
        Ok(decoded) => panic!("{} documents", decoded.len()),
        Err(error) => panic!("{error}"),
    }
}
