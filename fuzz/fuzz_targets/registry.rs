//! Any bytes as what a registry's client reads, chosen by the first: a manifest, a challenge, or a hosts.toml.

#![no_main]

use coracle_registry::foreign;
use libfuzzer_sys::fuzz_target;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind {
        b'c' => drop(foreign::challenge(bytes)),
        b'h' => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                foreign::hosts_file(text);
            }
        }
        _ => {
            foreign::manifest(bytes, None, None);
            foreign::manifest(bytes, Some(OCI_INDEX), None);
            foreign::manifest(bytes, Some("application/json"), Some(OCI_INDEX));
        }
    }
});
