//! Any bytes as a manifest: an error or pods, and what was accepted once is accepted again as it is shown.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(decoded) = coracle_manifest::decode("fuzz.yaml", bytes) else { return };
    for first in decoded {
        let again = coracle_manifest::decode("fuzz.yaml", first.pod.object.as_bytes()).unwrap();
        assert_eq!(again[0].pod.spec, first.pod.spec);
        assert_eq!(again[0].pod.uid, first.pod.uid);
    }
});
