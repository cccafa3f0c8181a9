//! The images that the tests' containers run, made of Debian packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the tests and the examples call the image of busybox.
pub const BUSYBOX: &str = "localhost/busybox:debian";
/// What the tests and the examples call the image of nginx.
pub const NGINX: &str = "localhost/nginx:debian";

/// The project's directory.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the project")
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
