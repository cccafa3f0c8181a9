//! Any bytes as a layer over another: an error, or a layer that comes out again byte for byte; nothing outside it touched.
//!
//! Needs root, for device nodes and owners. Works in memory, so that nothing waits for a disk: in /dev/shm, or in the
//! directory that `CORACLE_FUZZ_DIRECTORY` names.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use coracle_image::{Digest, ImportOptions, Limits, Store};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::json;

/// The directory, and the lowest layer's DiffID.
static DIR: LazyLock<(PathBuf, Digest)> = LazyLock::new(|| {
    let parent = std::env::var_os("CORACLE_FUZZ_DIRECTORY").unwrap_or_else(|| "/dev/shm".into());
    let dir = PathBuf::from(parent).join(format!("coracle-fuzz-{}", std::process::id()));
    let base = dir.join("base");
    fs::create_dir_all(base.join("usr/lib")).unwrap();
    fs::create_dir_all(base.join("d")).unwrap();
    fs::write(base.join("d/first"), "x").unwrap();
    std::os::unix::fs::symlink("usr/lib", base.join("lib")).unwrap();
    fs::write(dir.join("canary"), "untouched").unwrap();
    let store = Store::open(dir.join("images")).unwrap();
    let options = ImportOptions { name: Some("base".parse().unwrap()), ..Default::default() };
    let image = store.import(&base, &options).unwrap().remove(0).image.id;
    let diff_id = store.get(&image).unwrap().unwrap().layers[0].diff_id;
    (dir, diff_id)
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    coracle_fuzz::mutate_archive(data, size, max_size, seed)
});

fuzz_target!(|bytes: &[u8]| {
    let (dir, base) = &*DIR;
    let store = Store::open(dir.join("images")).unwrap();
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let blob = (Digest::of(bytes), bytes.len() as u64);
    let config = json!({"architecture": architecture, "os": "linux",
                        "rootfs": {"type": "layers", "diff_ids": [base, &blob.0]}});
    let limits = Limits { max_layer_bytes: Some(1 << 20), max_entries: 1000, keep_free: Some(0) };
    let incoming = store.incoming(b"{}", config.to_string().as_bytes(), limits).unwrap();
    if incoming.unpack(1, bytes, blob).is_ok() {
        incoming.commit(&["fuzz".parse().unwrap()], None).unwrap();
        drop(incoming);
        assert_eq!(store.verify_whole().unwrap(), Vec::<String>::new());
        store.remove("fuzz", |_| None).unwrap();
    }
    assert_eq!(fs::read_dir(dir.join("images/tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.join("images/layers")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 3);
    assert_eq!(fs::read(dir.join("canary")).unwrap(), b"untouched");
});
