//! Any bytes as what a plugin answers to an ADD, or is told as `prevResult`: an error, or a result that is the same however
//! often it is written and read in one version.

#![no_main]

use coracle_cni::{AddResult, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(json) = serde_json::from_slice(text) else { return };
    for asked in Version::ALL {
        let Ok(result) = AddResult::from_json(&json, asked) else { continue };
        for version in Version::ALL {
            let written = result.to_json(version);
            let read = AddResult::from_json(&written, asked).expect("a result that was read is one");
            assert_eq!(read.to_json(version), written);
            assert!(version != Version::NEWEST || read == result);
        }
    }
});
