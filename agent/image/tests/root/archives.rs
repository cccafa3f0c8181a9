//! OCI layouts and `docker save` archives, sound and hostile.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use coracle_image::{Digest, ImportOptions, RootfsConfig};
use serde_json::{Value, json};

use crate::support::{Fixture, Tar, gzip, names};

/// An image layout under construction.
#[derive(Clone, Default)]
pub(crate) struct Layout {
    blobs: BTreeMap<String, Vec<u8>>,
    layers: Vec<Value>,
    diff_ids: Vec<String>,
    reference: Option<String>,
}

fn architecture() -> &'static str {
    if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" }
}

impl Layout {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn blob(&mut self, content: &[u8]) -> Value {
        let digest = Digest::of(content);
        self.blobs.insert(digest.hex(), content.to_vec());
        json!({"digest": digest.to_string(), "size": content.len()})
    }

    pub(crate) fn layer(mut self, content: &[u8]) -> Self {
        let mut plain = Vec::new();
        if content.starts_with(&[0x1f, 0x8b]) {
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(content), &mut plain).unwrap();
        } else if content.starts_with(&[0x28, 0xb5]) {
            plain = zstd::decode_all(content).unwrap();
        } else {
            plain = content.to_vec();
        }
        self.diff_ids.push(Digest::of(&plain).to_string());
        let mut descriptor = self.blob(content);
        descriptor["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip");
        self.layers.push(descriptor);
        self
    }

    fn named(mut self, reference: &str) -> Self {
        self.reference = Some(reference.to_owned());
        self
    }

    fn config(&self) -> Value {
        json!({"architecture": architecture(), "os": "linux", "config": {"Cmd": ["sh"]},
               "rootfs": {"type": "layers", "diff_ids": self.diff_ids}})
    }

    fn manifest(&mut self) -> Value {
        let config = self.config();
        let mut config = self.blob(config.to_string().as_bytes());
        config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
        json!({"schemaVersion": 2, "config": config, "layers": self.layers})
    }

    fn index(mut self) -> (Self, Value) {
        let manifest = self.manifest();
        let mut descriptor = self.blob(manifest.to_string().as_bytes());
        if let Some(reference) = &self.reference {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": reference});
        }
        (self, json!({"schemaVersion": 2, "manifests": [descriptor]}))
    }

    pub(crate) fn write(self, path: &Path) {
        let (layout, index) = self.index();
        layout.write_with(path, &index);
    }

    fn write_with(&self, path: &Path, index: &Value) {
        let _ = fs::remove_dir_all(path);
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        for (name, content) in &self.blobs {
            fs::write(path.join("blobs/sha256").join(name), content).unwrap();
        }
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        fs::write(path.join("index.json"), index.to_string()).unwrap();
    }

    fn tar(self) -> Vec<u8> {
        let (layout, index) = self.index();
        let mut tar = Tar::new().dir("blobs/", 0o755);
        for (name, content) in &layout.blobs {
            let name = format!("blobs/sha256/{name}");
            tar = tar.raw(&Tar::header(tar::EntryType::Regular, &name, content.len() as u64, 0o644), content);
        }
        tar.file("index.json", &index.to_string()).file("oci-layout", "{}").build()
    }
}

fn layers() -> Layout {
    let base = Tar::new().dir("d", 0o755).file("d/old", "").file("f", "base").build();
    let top = Tar::new().file("d/.wh.old", "").file("d/new", "").build();
    let last = Tar::new().file("f", "top").build();
    Layout::new().layer(&gzip(&base)).layer(&zstd::encode_all(&top[..], 3).unwrap()).layer(&last)
}

#[test]
fn a_layout_as_directory_and_as_archives() {
    let f = Fixture::new();
    layers().named("example.com/app:1").write(&f.path("layout"));
    let imported = f.store.import(&f.path("layout"), &ImportOptions::default()).unwrap();
    assert_eq!((imported[0].new_layers, imported[0].known_layers), (3, 0));
    let image = f.image("example.com/app:1");
    assert_eq!((image.repo_tags.len(), image.repo_digests.len()), (1, 1));
    assert_eq!(f.image(&image.repo_digests[0].to_string()).id, image.id);
    let m = f.mount("example.com/app:1");
    assert_eq!((m.read("f"), names(&m.path.join("d"))), ("top".into(), vec!["new".to_owned()]));

    let tar = layers().named("latest").tar();
    for (name, content) in
        [("plain", tar.clone()), ("gzip", gzip(&tar)), ("zstd", zstd::encode_all(&tar[..], 3).unwrap())]
    {
        fs::write(f.path("archive"), content).unwrap();
        let error = f.store.import(&f.path("archive"), &ImportOptions::default()).unwrap_err().to_string();
        assert!(error.contains("has no name"), "a bare tag is no name: {error}");
        let imported = f.import(&f.path("archive"), name).unwrap();
        assert_eq!((imported[0].image.id, imported[0].new_layers), (image.id, 0), "{name}");
    }
    f.assert_sound();
}

#[test]
fn images_with_tags_alone_are_named_by_a_repository() {
    let f = Fixture::new();
    let (mut layout, mut index) = layers().named("1").index();
    let (other, others) = Layout::new().layer(&Tar::new().file("b", "").build()).named("2").index();
    layout.blobs.extend(other.blobs);
    index["manifests"].as_array_mut().unwrap().push(others["manifests"][0].clone());
    layout.write_with(&f.path("layout"), &index);
    let failed = |name: Option<&str>| {
        let options = ImportOptions { name: name.map(|name| name.parse().unwrap()), ..Default::default() };
        f.store.import(&f.path("layout"), &options).unwrap_err().to_string()
    };
    let error = failed(None);
    assert!(error.contains("tags alone (1, 2): give the repository"), "{error}");
    let error = failed(Some("example.com/app:3"));
    assert!(error.contains("tag of its own: give example.com/app:3 without one"), "{error}");
    assert_eq!(f.store.list().unwrap(), []);

    f.import(&f.path("layout"), "example.com/app").unwrap();
    assert!(f.mount("example.com/app:1").has("f") && f.mount("example.com/app:2").has("b"));
    assert!(f.store.find("example.com/app").is_err(), "none has the tag latest");
    f.assert_sound();
}

#[test]
fn images_share_layers_and_keep_them() {
    let f = Fixture::new();
    let base = Tar::new().file("base", "").build();
    for name in ["a", "b"] {
        Layout::new().layer(&base).layer(&Tar::new().file(name, "").build()).write(&f.path("layout"));
        f.import(&f.path("layout"), name).unwrap();
    }
    assert_eq!(names(&f.path("images/layers")).len(), 3);
    f.store.remove("a", |_| None).unwrap();
    assert_eq!(names(&f.path("images/layers")).len(), 2);
    let m = f.mount("b");
    assert!(m.has("base") && m.has("b"));
    f.assert_sound();
}

#[test]
fn the_machines_platform_is_chosen() {
    let f = Fixture::new();
    let other = Layout::new().layer(&Tar::new().file("other", "").build());
    let (mut layout, ours) = layers().index();
    let (other, theirs) = other.index();
    layout.blobs.extend(other.blobs);
    let with = |index: &Value, os: &str, architecture: &str| {
        let mut descriptor = index["manifests"][0].clone();
        descriptor["platform"] = json!({"os": os, "architecture": architecture});
        descriptor
    };
    let nested = json!({"schemaVersion": 2, "manifests":
        [with(&theirs, "linux", "s390x"), with(&theirs, "unknown", "unknown"), with(&ours, "linux", architecture())]});
    let nested = layout.blob(nested.to_string().as_bytes());
    layout.write_with(&f.path("layout"), &json!({"schemaVersion": 2, "manifests": [nested]}));
    f.import(&f.path("layout"), "app").unwrap();
    assert!(f.mount("app").has("d/new"));

    // Of an architecture's variants, what this machine does not run is passed over.
    let mut newer = with(&theirs, "linux", architecture());
    newer["platform"]["variant"] = json!("v9");
    let several = json!({"schemaVersion": 2, "manifests": [newer, with(&ours, "linux", architecture())]});
    layout.write_with(&f.path("layout"), &several);
    f.import(&f.path("layout"), "variants").unwrap();
    assert!(f.mount("variants").has("d/new"));

    let only = json!({"schemaVersion": 2, "manifests": [with(&theirs, "linux", "s390x")]});
    layout.write_with(&f.path("layout"), &only);
    let error = f.import(&f.path("layout"), "x").unwrap_err().to_string();
    assert!(error.contains("only for linux/s390x"), "{error}");
}

#[test]
fn hostile_documents() {
    let f = Fixture::new();
    let good = || layers().index();
    let check = |what: &str, layout: &Layout, index: &Value, says: &str| {
        layout.write_with(&f.path("layout"), index);
        let error = f.import(&f.path("layout"), "x").map(drop).expect_err(what).to_string();
        assert!(error.contains(says), "{what}: {error}");
        f.assert_sound();
        assert_eq!(names(&f.path("images/layers")), Vec::<String>::new(), "{what}");
    };
    let remanifest = |change: &dyn Fn(&mut Value)| {
        let mut layout = layers();
        let mut manifest = layout.manifest();
        change(&mut manifest);
        let descriptor = layout.blob(manifest.to_string().as_bytes());
        (layout, json!({"schemaVersion": 2, "manifests": [descriptor]}))
    };

    let (layout, mut index) = good();
    index["manifests"][0]["digest"] = json!("sha256:../../x");
    check("digest as a path", &layout, &index, "is not a digest");
    let (layout, mut index) = good();
    index["manifests"][0]["digest"] = json!(format!("sha512:{}", "0".repeat(128)));
    check("another algorithm", &layout, &index, "is not a digest");
    let (layout, mut index) = good();
    index["layers"] = json!([]);
    check("an ambiguous index", &layout, &index, "both manifests and layers");
    let (layout, index) = remanifest(&|manifest| manifest["manifests"] = json!([]));
    check("an ambiguous manifest", &layout, &index, "both manifests and layers");
    let (layout, index) = remanifest(&|manifest| manifest["schemaVersion"] = json!(1));
    check("an old schema", &layout, &index, "schema version 2");
    let (layout, index) = remanifest(&|manifest| manifest["layers"][0]["size"] = json!(1));
    check("a layer's size", &layout, &index, "1 were promised");
    let (layout, index) = remanifest(&|manifest| manifest["layers"] = json!([]));
    check("too few layers", &layout, &index, "lists 3 layers, its manifest 0");
    let (layout, index) = remanifest(&|manifest| manifest["layers"][0]["urls"] = json!(["http://x"]));
    check("a foreign layer", &layout, &index, "foreign");
    let (layout, index) =
        remanifest(&|manifest| manifest["config"]["mediaType"] = json!("application/x-helm"));
    check("an artifact", &layout, &index, "artifact");
    let (layout, index) = remanifest(&|manifest| {
        let one = manifest["layers"][0].clone();
        manifest["layers"] = json!([one, one, one]);
    });
    check("a layer in another's place", &layout, &index, "and the image's configuration says");
    let (mut layout, index) = good();
    for content in layout.blobs.values_mut().filter(|content| content.starts_with(&[0x1f, 0x8b])) {
        // The gzip header's time: it decompresses as before.
        content[4] ^= 1;
    }
    check("a changed blob", &layout, &index, "damaged or was tampered with");
    let (mut layout, index) = good();
    layout.blobs.retain(|_, content| !content.starts_with(&[0x1f, 0x8b]));
    check("a missing blob", &layout, &index, "it has no blobs/sha256/");
    let (layout, _) = good();
    check("no images", &layout, &json!({"schemaVersion": 2, "manifests": []}), "holds no image");
    check("no index", &layout, &json!({"schemaVersion": 2}), "lists no manifests");
    check("not an object", &layout, &json!(["x"]), "malformed");
    let (mut layout, mut index) = good();
    for _ in 0..10 {
        let descriptor = layout.blob(index.to_string().as_bytes());
        index = json!({"schemaVersion": 2, "manifests": [descriptor]});
    }
    check("indexes without end", &layout, &index, "nested too deeply");
    let (layout, mut index) = good();
    index["padding"] = json!("x".repeat(5 << 20));
    check("a huge document", &layout, &index, "at most 4194304 are possible");

    let (layout, index) = good();
    layout.write_with(&f.path("layout"), &index);
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    let path = f.path("layout/blobs/sha256").join(manifest);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(f.path("canary"), &path).unwrap();
    assert!(f.import(&f.path("layout"), "x").is_err(), "a blob must not be a link out of the layout");

    let mut wrong = layers();
    wrong.diff_ids[2] = Digest::of(b"other").to_string();
    wrong.write(&f.path("layout"));
    let error = f.import(&f.path("layout"), "x").unwrap_err().to_string();
    assert!(error.contains("and the image's configuration says"), "a DiffID: {error}");
    layers().write(&f.path("layout"));
    let config = RootfsConfig { cmd: vec!["x".into()], ..Default::default() };
    let options = ImportOptions { name: Some("x".parse().unwrap()), config, ..Default::default() };
    let error = f.store.import(&f.path("layout"), &options).unwrap_err().to_string();
    assert!(error.contains("only be given for a plain root file system"), "{error}");
    f.assert_sound();
}

#[test]
fn docker_save() {
    let f = Fixture::new();
    let base = Tar::new().file("base", "").build();
    let top = Tar::new().file("top", "").build();
    let image = |layers: &[&[u8]]| {
        let mut layout = Layout::new();
        for layer in layers {
            layout = layout.layer(layer);
        }
        layout.config().to_string()
    };
    let raw = |tar: Tar, name: &str, data: &[u8]| {
        tar.raw(&Tar::header(tar::EntryType::Regular, name, data.len() as u64, 0o644), data)
    };
    let (one, two) = (image(&[&base]), image(&[&base, &top]));
    let config = |config: &str| format!("{}.json", Digest::of(config.as_bytes()).hex());
    let manifest = json!([
        {"Config": config(&one), "RepoTags": ["one:1", "example.com/one:2"], "Layers": ["a/layer.tar"]},
        {"Config": config(&two), "RepoTags": ["two:1"], "Layers": ["b/layer.tar", "c/layer.tar"]},
    ]);
    let tar = |manifest: &Value| {
        let tar = raw(Tar::new(), "a/layer.tar", &base).symlink("b/layer.tar", "../a/layer.tar");
        let tar = raw(tar, "c/layer.tar", &top);
        tar.file(&config(&one), &one)
            .file(&config(&two), &two)
            .file("manifest.json", &manifest.to_string())
            .build()
    };
    fs::write(f.path("saved.tar"), tar(&manifest)).unwrap();
    // Its first entry is not one of an image archive's usual names.
    let error = f.store.import(&f.path("saved.tar"), &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("brings no name"), "{error}");
    let listed = |manifest: &Value| {
        let first = raw(Tar::new(), &config(&one), one.as_bytes());
        let tar = raw(first, "a/layer.tar", &base).symlink("b/layer.tar", "../a/layer.tar");
        raw(tar, "c/layer.tar", &top)
            .file(&config(&two), &two)
            .file("manifest.json", &manifest.to_string())
            .build()
    };
    fs::write(f.path("saved.tar"), gzip(&listed(&manifest))).unwrap();
    let imported = f.store.import(&f.path("saved.tar"), &ImportOptions::default()).unwrap();
    assert_eq!(imported.len(), 2);
    assert_eq!(f.image("one:1").id, f.image("example.com/one:2").id);
    let m = f.mount("two:1");
    assert!(m.has("base") && m.has("top"));
    let error = f.import(&f.path("saved.tar"), "x").unwrap_err().to_string();
    assert!(error.contains("holds 2 images (one:1, example.com/one:2, two:1)"), "{error}");

    let mut wrong = manifest.clone();
    wrong[0]["Layers"] = json!(["c/layer.tar"]);
    wrong[0]["RepoTags"] = json!(["wrong"]);
    f.store.remove("one:1", |_| None).unwrap();
    f.store.remove("example.com/one:2", |_| None).unwrap();
    drop(m);
    for (container, _) in f.store.leases().unwrap() {
        f.store.release(container).unwrap();
    }
    f.store.remove("two:1", |_| None).unwrap();
    fs::write(f.path("saved.tar"), listed(&wrong)).unwrap();
    let error = f.store.import(&f.path("saved.tar"), &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("was promised"), "{error}");
    let mut up = manifest;
    up[0]["Config"] = json!("../../../../etc/passwd");
    fs::write(f.path("saved.tar"), listed(&up)).unwrap();
    let error = f.store.import(&f.path("saved.tar"), &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("it has no ../../../../etc/passwd"), "{error}");
    f.assert_sound();
}

#[test]
fn more_layers_than_a_page_of_options_can_name() {
    let f = Fixture::new();
    let mut layout = Layout::new();
    for n in 0..150 {
        layout = layout.layer(&Tar::new().file(&format!("f{n}"), "").build());
    }
    layout.write(&f.path("layout"));
    f.import(&f.path("layout"), "x").unwrap();
    assert_eq!(names(&f.mount("x").path).len(), 150);
    Layout::new().write(&f.path("layout"));
    f.import(&f.path("layout"), "empty").unwrap();
    let m = f.mount("empty");
    fs::write(m.path.join("file"), "x").unwrap();
    assert_eq!(names(&m.path), ["file"]);
}

/// What other tools write, where they are installed.
#[test]
fn images_of_skopeo_and_umoci() {
    let f = Fixture::new();
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(f.dir.path()).output().ok()?;
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    };
    if run("skopeo", &["--version"]).and(run("umoci", &["--version"])).is_none() {
        println!("skipped: skopeo and umoci are not installed");
        return;
    }
    run("umoci", &["init", "--layout", "l"]);
    run("umoci", &["new", "--image", "l:app"]);
    for step in 0..3 {
        run("umoci", &["unpack", "--image", "l:app", "b"]);
        let root = f.path("b/rootfs");
        match step {
            0 => {
                fs::create_dir_all(root.join("dir/sub")).unwrap();
                fs::write(root.join("dir/file"), "one").unwrap();
                fs::hard_link(root.join("dir/file"), root.join("dir/hard")).unwrap();
                fs::write(root.join("gone"), "").unwrap();
            }
            1 => {
                fs::remove_file(root.join("gone")).unwrap();
                fs::remove_dir(root.join("dir/sub")).unwrap();
            }
            _ => {
                fs::remove_dir_all(root.join("dir")).unwrap();
                fs::create_dir(root.join("dir")).unwrap();
                fs::write(root.join("dir/two"), "two").unwrap();
            }
        }
        run("umoci", &["repack", "--image", "l:app", "b"]);
        fs::remove_dir_all(f.path("b")).unwrap();
    }
    // An archive that ends within the last block of its last file.
    fs::create_dir(f.path("more")).unwrap();
    fs::write(f.path("more/file"), "three").unwrap();
    run("umoci", &["insert", "--image", "l:app", "more", "/more"]);
    run("umoci", &["config", "--image", "l:app", "--config.user", "7:8", "--config.cmd", "sh"]);
    run("skopeo", &["copy", "-q", "oci:l:app", "docker-archive:docker.tar:example.com/d:1"]);
    run("skopeo", &["copy", "-q", "oci:l:app", "oci-archive:oci.tar:example.com/o:1"]);
    run("skopeo", &["copy", "-q", "--dest-compress-format", "zstd", "oci:l:app", "oci:z:example.com/z:1"]);
    let mut ids = Vec::new();
    for (path, name) in
        [("docker.tar", "example.com/d:1"), ("oci.tar", "example.com/o:1"), ("z", "example.com/z:1")]
    {
        f.store.import(&f.path(path), &ImportOptions::default()).unwrap();
        let m = f.mount(name);
        assert_eq!(
            (names(&m.path), names(&m.path.join("dir"))),
            (vec!["dir".to_owned(), "more".to_owned()], vec!["two".to_owned()])
        );
        assert_eq!(fs::read_to_string(m.path.join("more/file")).unwrap(), "three");
        let image = f.image(name);
        assert_eq!(image.document.config.user, "7:8");
        ids.push(image.id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "one image, three archives: {ids:?}");
    assert_eq!(f.store.verify_whole().unwrap(), Vec::<String>::new(), "also that one comes again as it was");
    f.assert_sound();
}
