//! Pulls from registries on this machine's loopback into stores on its disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod faults;
mod hostile;
mod many;
mod memory;
mod resume;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_credentials::{Found, Source};
use coracle_image::Store;
use coracle_pull::{PullError, PullLimits, Pulled, Puller};
use coracle_registry::{Client, Credential, Limits, Platform, Proxies, Settings};
use coracle_tests::random::noise;
use coracle_tests::registry::{Content, Descriptor, Image, Registry, gzip};
use coracle_tests::wait::SOON;
use serde_json::json;

/// Patience with a loaded machine, without long waits between attempts.
const LIMITS: Limits = Limits {
    connect: SOON,
    answer: SOON,
    document: SOON,
    stall: SOON,
    least_rate: 10_000,
    rate_time: SOON,
    attempts: 3,
    progress: 64 << 10,
    back_off: Duration::from_millis(10),
    longest_back_off: Duration::from_millis(20),
    longest_retry_after: Duration::from_secs(2),
};

/// Little patience, for what must not be borne for long.
const HASTY: Limits = Limits { stall: Duration::from_secs(1), rate_time: Duration::from_secs(1), ..LIMITS };

/// Whatever is pulled, it ends before this.
const LONGEST: Duration = Duration::from_secs(100);

/// A store, and who pulls into it.
struct Place {
    store: Store,
    puller: Puller,
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self::with(Vec::new(), LIMITS)
    }

    /// One that asks the hosts of these directories, with so much patience.
    fn with(hosts_dirs: Vec<PathBuf>, limits: Limits) -> Self {
        Self::limited(hosts_dirs, limits, PullLimits::default())
    }

    /// One that also has a limit of its own.
    fn limited(hosts_dirs: Vec<PathBuf>, limits: Limits, pulls: PullLimits) -> Self {
        // Beside the build: a temporary directory may be in memory, or on overlayfs.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let store = Store::open(directory.path().join("images")).unwrap();
        let puller = Puller::new(store.clone(), client(hosts_dirs, limits), pulls, None);
        Self { store, puller, directory }
    }

    async fn pull(&self, name: &str) -> Result<Pulled, Arc<PullError>> {
        let pull = self.puller.pull(&name.parse().unwrap(), anybody());
        tokio::time::timeout(LONGEST, pull.ended()).await.expect("a pull ends")
    }

    /// What a pull comes to that must fail, leaving a sound store with no image, and at most whole layers for the next.
    async fn error_of(&self, name: &str) -> String {
        let error = self.pull(name).await.expect_err("it must fail").to_string();
        assert!(error.len() < 2000, "{error}");
        assert_eq!(self.store.verify().unwrap(), Vec::<String>::new());
        assert!(self.store.list().unwrap().is_empty(), "{name} is no image: {error}");
        let made = |path: &Path| path.ancestors().any(|above| above.join("layer.json").exists());
        let left: Vec<_> = self.files().into_iter().filter(|path| !made(path)).collect();
        assert!(left.is_empty(), "{name} has left {left:?}: {error}");
        error
    }

    /// Whatever is in the store but what an empty one has.
    fn files(&self) -> Vec<PathBuf> {
        let root = self.store.root();
        let mut found = Vec::new();
        for directory in ["blobs/sha256", "layers", "images", "tmp"] {
            found.extend(walk(&root.join(directory)));
        }
        found
    }
}

/// Who asks the hosts of these directories, with so much patience.
fn client(hosts_dirs: Vec<PathBuf>, limits: Limits) -> Client {
    let client = Client::new(Settings {
        hosts_dirs,
        proxies: Proxies::from_variables(|_| None).unwrap(),
        user_agent: "coracle/test".to_owned(),
        limits,
        platform: Platform::host(),
    });
    client.unwrap()
}

/// Everything below a directory.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

/// A registry of an image `app`, of layers that are given as archives, compressed or not.
fn of_layers(archives: &[Vec<u8>]) -> (Image, Content) {
    let image = Image::of(archives, &json!({}));
    let mut content = Content::default();
    let descriptor = content.image(&image);
    content.tag("app", "latest", &descriptor);
    (image, content)
}

/// An image whose layers come as they are, and whose configuration claims these archives.
fn claiming(layers: &[Vec<u8>], archives: &[Vec<u8>]) -> Content {
    let mut image = Image::of(archives, &json!({}));
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let descriptors: Vec<_> = layers.iter().map(|layer| Descriptor::of(kind, layer).json()).collect();
    image.manifest["layers"] = json!(descriptors);
    image.layers = layers.to_vec();
    let mut content = Content::default();
    let descriptor = content.image(&image);
    content.tag("app", "latest", &descriptor);
    content
}

/// Nothing to show.
fn anybody() -> Vec<Found> {
    vec![Found { credential: Credential::Anonymous, source: Source::Nobody }]
}

fn app(registry: &Registry) -> String {
    format!("{}/app", registry.host())
}

/// A layer's archive, compressed, of one file with these bytes.
fn layer(path: &str, bytes: &[u8]) -> Vec<u8> {
    gzip(&coracle_tests::registry::tar_of(&[(path, bytes)]))
}
