//! An import killed at any moment leaves the store whole.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coracle_image::{ImportOptions, Store};

use crate::archives::Layout;
use crate::support::{Fixture, Tar, gzip, names};

const STORE: &str = "CORACLE_TEST_STORE";
const LAYOUT: &str = "CORACLE_TEST_LAYOUT";

fn import(store: &Path, layout: &Path) {
    let options = ImportOptions { name: Some("app".parse().unwrap()), ..Default::default() };
    Store::open(store).unwrap().import(layout, &options).unwrap();
}

/// Not a test of its own: the process that is killed.
#[test]
fn child() {
    if let (Some(store), Some(layout)) = (std::env::var_os(STORE), std::env::var_os(LAYOUT)) {
        import(store.as_ref(), layout.as_ref());
    }
}

#[test]
fn killed_at_random_moments() {
    let f = Fixture::new();
    let layer = |n: u32| {
        let content = "x".repeat(3000);
        let files = (0..40).fold(Tar::new(), |tar, file| tar.file(&format!("d{n}/f{file}"), &content));
        gzip(&files.build())
    };
    (0..6).fold(Layout::new(), |layout, n| layout.layer(&layer(n))).write(&f.path("layout"));
    let store = f.path("images");
    let spawn = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child"])
            .env(STORE, &store)
            .env(LAYOUT, f.path("layout"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let start = Instant::now();
    assert!(spawn().wait().unwrap().success());
    let whole = start.elapsed();
    f.store.remove("app", |_| None).unwrap();

    let (mut finished, mut cut) = (0, 0);
    for round in 0..30 {
        let mut child = spawn();
        // Spread over the time an import takes, and a little beyond.
        std::thread::sleep(whole * round / 27);
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(f.store.verify().unwrap(), Vec::<String>::new(), "round {round}");
        let images = f.store.list().unwrap();
        for image in &images {
            assert_eq!(image.layers.len(), 6);
            for (n, dir) in image.lower_dirs().iter().rev().enumerate() {
                assert_eq!(
                    names(&dir.join(format!("d{n}"))).len(),
                    40,
                    "round {round}: half a layer looks whole"
                );
            }
        }
        if images.is_empty() {
            cut += 1;
        } else {
            finished += 1;
            f.store.remove(&images[0].id.to_string(), |_| None).unwrap();
        }
    }
    println!("{cut} imports cut off, {finished} finished, one takes {whole:?}");
    assert!(cut >= 10, "too few imports were cut off: {cut}");
    import(&store, &f.path("layout"));
    assert!(f.mount("app").has("d5/f39"));
    let deadline = Instant::now() + Duration::from_secs(10);
    // A killed process's descriptors close, and with them its lock, only after it was reaped at times.
    while !names(&store.join("tmp")).iter().all(|name| name.starts_with("file-")) {
        assert!(Instant::now() < deadline, "abandoned directories stay");
        fs::write(f.path("layer.tar"), Tar::new().file("f", "").build()).unwrap();
        f.import(&f.path("layer.tar"), "other").unwrap();
    }
    f.store.remove("other", |_| None).ok();
    assert_eq!(f.store.verify().unwrap(), Vec::<String>::new());
}
