//! An import killed at any moment leaves the store whole.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_image::{CollectPolicy, ImportOptions, Store};

use crate::archives::Layout;
use crate::incoming::Remote;
use crate::support::{Fixture, Tar, gzip, names};

const STORE: &str = "CORACLE_TEST_STORE";
const LAYOUT: &str = "CORACLE_TEST_LAYOUT";

fn import(store: &Path, layout: &Path) {
    let options = ImportOptions { name: Some("app".parse().unwrap()), ..Default::default() };
    Store::open(store).unwrap().import(layout, &options).unwrap();
}

/// When to kill: at any moment of the time it takes, however long that is on this machine just now.
struct Moments(Duration);

impl Moments {
    fn kill(&mut self, child: &mut Child) {
        std::thread::sleep(self.0.mul_f64(fastrand::f64()));
        let is_done = child.try_wait().unwrap().is_some();
        let _ = child.kill();
        child.wait().unwrap();
        self.0 = self.0.mul_f64(if is_done { 0.8 } else { 1.1 });
    }
}

/// Not a test of its own: the process that is killed.
#[test]
fn child() {
    if let (Some(store), Some(layout)) = (std::env::var_os(STORE), std::env::var_os(LAYOUT)) {
        import(store.as_ref(), layout.as_ref());
    }
}

const PULL: &str = "CORACLE_TEST_PULL";

/// An image of four layers of which each needs the directories of the lowest.
fn image() -> Remote {
    let content = "x".repeat(3000);
    let layers: Vec<_> = (0..4)
        .map(|n| {
            let start = if n == 0 { Tar::new().dir("d", 0o1777) } else { Tar::new() };
            (0..40).fold(start, |tar, file| tar.file(&format!("d/l{n}-{file}"), &content)).build()
        })
        .collect();
    Remote::new(&layers)
}

/// Brings the image in as a pull does: layers at once, begun from the lowest.
fn pull(store: &Path) {
    let (store, remote) = (Store::open(store).unwrap(), image());
    let incoming = remote.begin(&store);
    std::thread::scope(|scope| {
        for index in 0..remote.blobs.len() {
            let (incoming, remote) = (&incoming, &remote);
            scope.spawn(move || remote.unpack(incoming, index).unwrap());
        }
    });
    incoming.commit(&["app".parse().unwrap()], None).unwrap();
}

/// Not a test of its own: the process that is killed.
#[test]
fn pulling_child() {
    if let Some(store) = std::env::var_os(PULL) {
        pull(store.as_ref());
    }
}

/// What each attempt has finished the next takes up, so that even attempts that are all too short come to an end.
#[test]
fn killed_pulls_go_on() {
    let f = Fixture::new();
    let store = f.path("images");
    let spawn = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::pulling_child", "--nocapture"])
            .env(PULL, &store)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let start = Instant::now();
    assert!(spawn().wait().unwrap().success());
    let mut moments = Moments(start.elapsed());
    f.store.remove("app", |_| None).unwrap();
    let (mut finished, mut cut, mut taken_up) = (0, 0, 0);
    for round in 0..40u32 {
        // Two at a time every fourth round: the one that lives waits for what the other has begun, and takes it over.
        let second = (round % 4 == 0).then(spawn);
        let mut child = spawn();
        moments.kill(&mut child);
        if let Some(second) = second {
            let output = second.wait_with_output().unwrap();
            assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(f.store.verify().unwrap(), Vec::<String>::new(), "round {round}");
        if let Some(image) = f.store.list().unwrap().first() {
            let files: usize = image.lower_dirs().iter().map(|dir| names(&dir.join("d")).len()).sum();
            assert_eq!(files, 160, "round {round}: half a layer looks whole");
            assert_eq!(f.store.verify_exact().unwrap(), Vec::<String>::new(), "round {round}");
            f.store.remove(&image.id.to_string(), |_| None).unwrap();
            finished += 1;
        } else {
            let remote = image();
            taken_up += usize::from(remote.begin(&f.store).layers().iter().any(|layer| layer.have));
            cut += 1;
        }
    }
    println!("{cut} pulls cut off, {taken_up} of them with finished layers, {finished} finished");
    assert!(cut >= 5 && taken_up > 0, "{cut} cut off, {taken_up} with finished layers");
    pull(&store);
    assert_eq!(names(&f.mount("app").path.join("d")).len(), 160);
    let deadline = Instant::now() + Duration::from_secs(10);
    // A killed process's descriptors close, and with them its lock, only after it was reaped at times.
    while !names(&store.join("tmp")).iter().all(|name| name.starts_with("file-")) {
        assert!(Instant::now() < deadline, "{:?} stays", names(&store.join("tmp")));
        f.store.collect(&CollectPolicy::default(), |_| None).unwrap();
    }
    assert_eq!(names(&store.join("layers")).len(), 4);
    assert_eq!(f.store.verify_exact().unwrap(), Vec::<String>::new());
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
    let mut moments = Moments(start.elapsed());
    f.store.remove("app", |_| None).unwrap();

    let (mut finished, mut cut) = (0, 0);
    for round in 0..30 {
        let mut child = spawn();
        moments.kill(&mut child);
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
    println!("{cut} imports cut off, {finished} finished");
    assert!(cut >= 5, "too few imports were cut off: {cut}");
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
