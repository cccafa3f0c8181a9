//! Any bytes as a manifest: an error or objects, and a pod accepted once is accepted again as it is shown.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(decoded) = coracle_manifest::decode("fuzz.yaml", bytes) else { return };
    for first in decoded.pods {
        let again = coracle_manifest::decode("fuzz.yaml", first.object.as_bytes()).unwrap();
        assert_eq!(again.pods[0].spec, first.spec);
        assert_eq!(again.pods[0].uid, first.uid);
    }
});
