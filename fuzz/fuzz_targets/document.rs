//! Any bytes as YAML or JSON, which is what configurations and manifests are read from: faults that lie in the text, or
//! trees that say the same once they are written and read again; and of them a type, as a configuration is.

#![no_main]

use std::collections::BTreeMap;

use coracle_document::{Faults, Location, Node, deserialize, read, read_json};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;

/// One field of each type that configurations have.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)]
struct Configuration {
    kind: Option<String>,
    max_pods: Option<i32>,
    image_gc_high_threshold_percent: Option<u8>,
    fail_swap_on: Option<bool>,
    cluster_dns: Option<Vec<String>>,
    eviction_hard: Option<BTreeMap<String, String>>,
    authentication: Option<Box<Configuration>>,
}

fuzz_target!(|bytes: &[u8]| {
    let mut faults = Faults::default();
    let roots = match read(bytes, &mut faults) {
        Ok(roots) => roots,
        Err(fault) => {
            faults.add(fault);
            Vec::new()
        }
    };
    lie_in(bytes, &faults);
    for root in roots {
        let written = canonical(&root);
        let mut none = Faults::default();
        let again = read_json(written.as_bytes(), &mut none).expect("what is written can be read");
        assert!(none.is_empty() && again.len() == 1, "{written}");
        assert_eq!(canonical(&again[0]), written);

        let mut faults = Faults::default();
        let mut spoiled = root.clone();
        let found = deserialize::<Configuration>(&mut spoiled, &mut faults);
        faults.locate(&root);
        lie_in(bytes, &faults);
        assert!(found.is_some() || !faults.is_empty(), "nothing is wrong, and nothing came of it: {written}");
    }
});

fn canonical(node: &Node<'_>) -> String {
    let mut out = String::new();
    node.write_canonical(&mut out);
    out
}

/// A few faults, each with words and a place in the text.
fn lie_in(bytes: &[u8], faults: &Faults) {
    assert!(faults.0.len() <= 100);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    for fault in &faults.0 {
        let Location { line, column } = fault.at.unwrap_or(Location::START);
        assert!(!fault.message.is_empty());
        // A carriage return ends a line too.
        let most = lines + bytes.iter().filter(|byte| **byte == b'\r').count();
        assert!(line >= 1 && line as usize <= most, "{fault:?} of {most} lines");
        assert!(column >= 1 && column as usize <= bytes.len() + 1, "{fault:?}");
    }
}
