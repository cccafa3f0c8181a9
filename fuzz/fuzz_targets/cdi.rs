//! Any bytes as a CDI specification: faults with a place and of bounded length, or a specification that says the same when
//! it is written, in the version it needs or a later one.

#![no_main]

use coracle_cdi::{CdiError, Version, needed_version, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let spec = match parse(bytes, "fuzz") {
        Ok(spec) => spec,
        Err(CdiError::Invalid(faults)) => {
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| fault.line > 0 && fault.column > 0));
            return;
        }
        Err(error) => panic!("a text is read from no file: {error}"),
    };
    assert!(Version::parse(&spec.cdi_version).is_some_and(|version| version >= needed_version(&spec)));
    let written = serde_json::to_vec(&spec).expect("it is text");
    assert_eq!(parse(&written, "again").expect("it is valid"), spec);
    for device in &spec.devices {
        let name = format!("{}={}", spec.kind, device.name);
        let parsed: coracle_cdi::QualifiedName = name.parse().expect("kind and name are valid");
        assert_eq!(parsed.to_string(), name);
    }
});
