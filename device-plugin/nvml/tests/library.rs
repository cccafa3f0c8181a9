//! What is made of what a library with NVML's interface says. It is compiled from `library.c`: NVIDIA's own needs a GPU.

#![allow(clippy::expect_used, reason = "what fails here has failed the test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use coracle_nvml::{Event, Gpu, Mig, Nvml, NvmlError, watch};

fn library(directory: &Path) -> PathBuf {
    let library = directory.join("libnvidia-ml.so.1");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/library.c");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    assert!(made.expect("there is a C compiler").success());
    library
}

#[test]
fn gpus_and_their_partitions() {
    let directory = tempfile::tempdir().expect("a directory");
    let nvml = Nvml::load(&library(directory.path())).expect("it is loaded");
    assert_eq!(nvml.driver_version().expect("a version"), "570.86.15");
    let (gpus, failed) = nvml.gpus().expect("GPUs");
    assert!(failed.is_empty(), "{failed:?}");
    let gpu = |minor: u32, address: &str, other: &str, partitions| Gpu {
        minor,
        uuid: format!("GPU-00000000-0000-0000-0000-{minor:012}"),
        model: "NVIDIA H100 80GB HBM3".to_owned(),
        address: address.to_owned(),
        partitions,
        links: vec![other.to_owned(), other.to_owned()],
    };
    let mig = |number: u32, profile: &str| Mig {
        uuid: format!("MIG-00000000-0000-0000-0000-{number:012}"),
        profile: profile.to_owned(),
        gpu_instance: 7 + number,
        compute_instance: number / 2,
    };
    let partitions = vec![mig(0, "1g.10gb"), mig(2, "1g.10gb+me")];
    assert_eq!(
        gpus,
        [
            gpu(0, "0000:3b:00.0", "0001:af:00.0", None),
            gpu(1, "0001:af:00.0", "0000:3b:00.0", Some(partitions))
        ]
    );
}

#[test]
fn errors_are_told_and_who_tells_none_is_told_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let nvml = Nvml::load(&library(directory.path())).expect("it is loaded");
    std::fs::write(directory.path().join("xid"), "1 79\n").expect("a file");
    let told = std::cell::RefCell::new(Vec::new());
    let happened = || told.borrow().iter().any(|event| matches!(event, Event::Xid { .. }));
    watch(&nvml, Duration::from_secs(60), || !happened(), |event| told.borrow_mut().push(event))
        .expect("it is watched");
    let uuid = |minor: u32| format!("GPU-00000000-0000-0000-0000-{minor:012}");
    assert_eq!(
        told.into_inner(),
        [Event::Unwatched { uuid: uuid(0) }, Event::Xid { uuid: uuid(1), xid: 79 }]
    );
}

#[test]
fn a_library_that_is_none_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("libnvidia-ml.so.1");
    assert!(matches!(Nvml::load(&path), Err(NvmlError::Load { .. })));
    std::fs::write(&path, "no library").expect("a file");
    let error = Nvml::load(&path).err().expect("it is none").to_string();
    assert!(error.contains("libnvidia-ml.so.1"), "{error}");
}
