//! Manifests that are refused, each a file, with what the user is told of it.

use std::fmt::Write;
use std::path::Path;

use coracle_manifest::{ManifestError, decode_file};

/// The files and the words for them stand side by side in `snapshots/`.
#[test]
fn a_malformed_manifest_is_refused_in_clear_words() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifest/malformed");
    let mut names: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert!(names.len() >= 50);
    let mut report = String::new();
    for name in names {
        let name = name.to_str().unwrap();
        let error = decode_file(&directory.join(name)).expect_err(name);
        let ManifestError::Invalid(diagnostics) = &error else { panic!("{name}: {error}") };
        writeln!(report, "== {name}").unwrap();
        for diagnostic in diagnostics {
            // The directory of the checkout is no part of what is expected.
            let text = diagnostic.to_string();
            let text = text.strip_prefix(directory.to_str().unwrap()).unwrap().trim_start_matches('/');
            assert!(text.lines().count() == 1 && text.len() < 600, "{text}");
            writeln!(report, "{text}").unwrap();
        }
    }
    insta::assert_snapshot!("malformed", report);
}
