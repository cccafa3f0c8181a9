//! Manifests that are refused, each a file, with what the user is told of it.

use std::fmt::Write;
use std::path::Path;

use coracle_manifest::{Decoded, ManifestError, decode};

/// The files and the words for them stand side by side in `snapshots/`.
#[test]
fn a_malformed_manifest_is_refused_in_clear_words() {
    insta::assert_snapshot!("malformed", report("malformed", decode));
}

#[test]
fn malformed_configuration_is_refused_in_clear_words_that_show_no_secret() {
    let report = report("malformed-config", decode);
    assert!(!report.contains("hunter2") && !report.contains("aHVudGVyMg"), "{report}");
    insta::assert_snapshot!("malformed-config", report);
}

#[test]
fn malformed_probes_hooks_and_sources_are_refused_in_kubernetes_words() {
    insta::assert_snapshot!("malformed-lifecycle", report("malformed-lifecycle", decode));
}

fn report(directory: &str, decode: fn(&str, &[u8]) -> Result<Decoded, ManifestError>) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifest").join(directory);
    let mut names: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert!(!names.is_empty());
    let mut report = String::new();
    for name in names {
        let name = name.to_str().unwrap();
        let error = decode(name, &std::fs::read(directory.join(name)).unwrap()).expect_err(name);
        let ManifestError::Invalid(diagnostics) = &error else { panic!("{name}: {error}") };
        writeln!(report, "== {name}").unwrap();
        for diagnostic in diagnostics {
            let text = diagnostic.to_string();
            assert!(text.lines().count() == 1 && text.len() < 600, "{text}");
            writeln!(report, "{text}").unwrap();
        }
    }
    report
}
