//! Any bytes as a manifest: an error or objects, and a pod accepted once is accepted again as it is shown. And as
//! an ephemeral container: the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

const POD: &[u8] =
    b"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i}]}}";

fuzz_target!(|bytes: &[u8]| {
    let pod = coracle_manifest::decode("pod.yaml", POD).unwrap().pods.remove(0);
    if let Ok(first) = coracle_manifest::decode_ephemeral("fuzz.json", bytes, &pod) {
        let again = coracle_manifest::decode_ephemeral("fuzz.json", first.object.as_bytes(), &pod).unwrap();
        assert_eq!(again, first);
    }
    let Ok(decoded) = coracle_manifest::decode("fuzz.yaml", bytes) else { return };
    for first in decoded.pods {
        let again = coracle_manifest::decode("fuzz.yaml", first.object.as_bytes()).unwrap();
        assert_eq!(again.pods[0].spec, first.spec);
        assert_eq!(again.pods[0].uid, first.uid);
    }
});
