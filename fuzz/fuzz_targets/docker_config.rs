//! Any bytes as a docker configuration: an error that shows no value, or credentials that are for the images they match.

#![no_main]

use coracle_credentials::{DockerConfig, Format};
use coracle_model::ImageName;
use libfuzzer_sys::fuzz_target;

const IMAGES: [&str; 4] = ["nginx", "reg.example:5000/team/app:1", "a.b.example/x", "[::1]:5000/x"];

fuzz_target!(|bytes: &[u8]| {
    for format in [Format::ConfigJson, Format::Dockercfg] {
        let config = match DockerConfig::parse("fuzz", format, bytes) {
            Ok(config) => config,
            Err(error) => {
                // It names the place. Of what stands there the longest it shows is a key, cut off.
                assert!(error.to_string().len() < 2000, "{error}");
                continue;
            }
        };
        for image in IMAGES {
            let name: ImageName = image.parse().unwrap();
            for credential in config.credentials(&name) {
                let shown = format!("{credential:?}");
                assert!(shown == "Anonymous" || shown.contains("Secret(..)"), "{shown}");
            }
            if let Some(helper) = config.helper(name.domain()) {
                assert!(!helper.is_empty() && !helper.contains(['/', '\0']), "{helper:?}");
            }
        }
    }
});
