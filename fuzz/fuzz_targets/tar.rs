//! Any bytes as an image's file: an error or an image, the store sound, and nothing outside it touched.
//!
//! Needs root, for device nodes and owners. Works in memory, so that nothing waits for a disk: in /dev/shm, or in the
//! directory that `CORACLE_FUZZ_DIRECTORY` names.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use coracle_image::{ImportOptions, Limits, Store};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let parent = std::env::var_os("CORACLE_FUZZ_DIRECTORY").unwrap_or_else(|| "/dev/shm".into());
    let dir = PathBuf::from(parent).join(format!("coracle-fuzz-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("canary"), "untouched").unwrap();
    dir
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    coracle_fuzz::mutate_archive(data, size, max_size, seed)
});

fuzz_target!(|bytes: &[u8]| {
    let store = Store::open(DIR.join("images")).unwrap();
    fs::write(DIR.join("file"), bytes).unwrap();
    let limits = Limits { max_layer_bytes: Some(1 << 20), max_entries: 1000, keep_free: Some(0) };
    let options = ImportOptions { name: Some("fuzz".parse().unwrap()), limits, ..Default::default() };
    if let Ok(imported) = store.import(&DIR.join("file"), &options) {
        // Whatever was taken comes out again, byte for byte.
        assert_eq!(store.verify_whole().unwrap(), Vec::<String>::new());
        for image in imported {
            // Two of them may be one image.
            if store.get(&image.image.id).unwrap().is_some() {
                store.remove(&image.image.id.to_string(), |_| None).unwrap();
            }
        }
    }
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
    assert_eq!(fs::read_dir(DIR.join("images/tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(DIR.join("images/layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&*DIR).unwrap().count(), 3);
    assert_eq!(fs::read(DIR.join("canary")).unwrap(), b"untouched");
});
