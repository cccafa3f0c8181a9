//! The images that the tests' containers run, made of Debian packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the tests and the examples call the image of busybox.
pub const BUSYBOX: &str = "localhost/busybox:debian";
/// What the tests and the examples call the image of nginx.
pub const NGINX: &str = "localhost/nginx:debian";

/// The project's directory, or what has its examples where the tests run elsewhere: `$CORACLE_TEST_PROJECT`.
pub fn project() -> PathBuf {
    let built =
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the project").to_owned();
    std::env::var_os("CORACLE_TEST_PROJECT").map_or_else(built, PathBuf::from)
}

/// The OCI image layout of `busybox` or `nginx`, built unless it is in the cache.
pub fn layout(image: &str) -> PathBuf {
    let script = std::env::var_os("CORACLE_IMAGES_BUILD")
        .map_or_else(|| project().join("examples/images/build"), PathBuf::from);
    let output = Command::new(&script)
        .arg(image)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    assert!(output.status.success(), "{} {image}: {}", script.display(), output.status);
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Unpacks the root file system of `busybox` or `nginx` into a directory, for a test to change and import.
pub fn unpack(image: &str, into: &Path) {
    let unpacked = tempfile::tempdir().expect("a temporary directory");
    run(Command::new("tar").arg("-xf").arg(layout(image)).arg("-C").arg(unpacked.path()));
    let blobs = std::fs::read_dir(unpacked.path().join("blobs/sha256")).expect("an OCI image layout");
    // The images have one layer; the other blobs are a few hundred bytes of JSON.
    let layer = blobs
        .filter_map(|blob| Some(blob.ok()?.path()))
        .max_by_key(|blob| std::fs::metadata(blob).map_or(0, |data| data.len()))
        .expect("a layout has blobs");
    std::fs::create_dir_all(into).expect("the directory can be made");
    run(Command::new("tar").arg("-xf").arg(layer).arg("-C").arg(into));
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
