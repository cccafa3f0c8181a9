//! What goes out is what came in.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use coracle_image::{Compression, Digest, ImageError, ImportOptions, Store};
use serde_json::Value;
use tar::EntryType;

use crate::incoming::Remote;
use crate::support::{Fixture, Tar, names};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A layer with everything that an archive may say in several ways.
pub(crate) fn odd() -> Vec<u8> {
    let mut old = Tar::header(EntryType::GNUSparse, "old", 4, 0o644);
    let bytes = old.as_mut_bytes();
    bytes[257..265].copy_from_slice(b"ustar  \0");
    bytes[386..398].copy_from_slice(b"00004000000\0");
    bytes[398..410].copy_from_slice(b"00000000004\0");
    bytes[483..495].copy_from_slice(b"00010000000\0");
    old.set_cksum();
    let mut map = b"2\n0\n2\n1048574\n2\n".to_vec();
    map.resize(512, 0);
    map.extend(b"abyz");
    let sparse = Tar::header(EntryType::Regular, "ignored", map.len() as u64, 0o644);
    let global = Tar::header(EntryType::XGlobalHeader, "pax_global_header", 3000, 0o644);
    let mut tar = Tar::new()
        .raw(&global, &[b'g'; 3000])
        .dir("./", 0o755)
        .dir("d", 0o755)
        .file("d/first", "kept")
        .file("d/empty", "")
        .file("twice", "the content of the first")
        .file("twice", "the second")
        .hard_link("link", "twice")
        .file("twice", "the third")
        .dir("tree", 0o755)
        .dir("tree/a", 0o755)
        .file("tree/a/b", "below a tree that goes")
        .file("tree/c", "here too")
        .hard_link("tree/d", "tree/c")
        .file("tree", "now a file")
        .symlink("lib", "d")
        .file("lib/through", "a link")
        .file("d/.wh.ghost", "a whiteout with content")
        .file("/abs/../up", "an odd name")
        .raw(&old, b"data")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"v10"),
            ("GNU.sparse.realsize", b"1048576"),
            ("comment", b"x"),
        ])
        .raw(&sparse, &map)
        .device(EntryType::Fifo, "fifo", 0, 0)
        .build();
    // Behind the end, and not of a whole block.
    tar.extend(b"\0trailing bytes\xff");
    tar
}

#[test]
fn every_byte_of_a_layer_comes_back() {
    let f = Fixture::new();
    let layers = [odd(), Tar::new().file("lib/more", "x").file("big", &"y".repeat(3 << 20)).build()];
    let remote = Remote::new(&layers);
    remote.pull(&f.store, "app");
    let exported = f.store.export_directory(&["app".into()], Compression::None, &f.path("l")).unwrap();
    for layer in &layers {
        let blob = f.path("l/blobs/sha256").join(Digest::of(layer).hex());
        assert!(fs::read(blob).unwrap() == *layer);
    }
    let id = f.image("app").id;
    assert_eq!(fs::read(f.path("l/blobs/sha256").join(id.hex())).unwrap(), remote.config);
    assert_eq!((exported[0].id, exported[0].names.len()), (id, 1));
    assert_eq!(f.store.verify_whole().unwrap(), Vec::<String>::new());
    let error = f.store.export_directory(&["app".into()], Compression::None, &f.path("l")).unwrap_err();
    assert!(matches!(error, ImageError::OutputExists { .. }), "{error}");
    f.assert_sound();
}

#[test]
fn a_file_written_through_a_link_that_went_comes_back() {
    let f = Fixture::new();
    let tar = Tar::new()
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .file("lib/a", "through the link")
        .dir("lib", 0o755)
        .file("lib/a", "not through the link")
        .symlink("out", "/")
        .file("out/.wh.x", "")
        .file("out/top", "x")
        .file("out", "a file");
    Remote::new(&[tar.build()]).pull(&f.store, "app");
    assert_eq!(f.store.verify_whole().unwrap(), Vec::<String>::new());
    let m = f.mount("app");
    assert_eq!(
        (m.read("usr/lib/a"), m.read("lib/a")),
        ("through the link".into(), "not through the link".into())
    );
    assert!(m.has("top") && !m.has(".wh.x"));
}

#[test]
fn archives_hold_several_images_and_come_in_again() {
    let f = Fixture::new();
    let base = odd();
    for name in ["one", "two"] {
        Remote::new(&[base.clone(), Tar::new().file(name, name).build()]).pull(&f.store, name);
    }
    f.store.tag("one", &"example.com/x/one:v1".parse().unwrap()).unwrap();
    let images: Vec<String> = ["one", "two", "example.com/x/one:v1"].map(String::from).into();
    let ids = [f.image("one").id, f.image("two").id];
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let exported = f.store.export_file(&images, compression, &f.path("a.tar")).unwrap();
        assert_eq!(
            exported.iter().map(|e| (e.id, e.names.len())).collect::<Vec<_>>(),
            [(ids[0], 2), (ids[1], 1)]
        );
        let first = fs::read(f.path("a.tar")).unwrap();
        f.store.export_file(&images, compression, &f.path("a.tar")).unwrap();
        assert!(fs::read(f.path("a.tar")).unwrap() == first, "an export is the same whenever it is made");
        let other = Store::open(f.path("other")).unwrap();
        let imported = other.import(&f.path("a.tar"), &ImportOptions::default()).unwrap();
        assert_eq!(
            imported.iter().map(|i| (i.image.id, i.names.len())).collect::<Vec<_>>(),
            [(ids[0], 2), (ids[1], 1)]
        );
        assert_eq!(other.verify_whole().unwrap(), Vec::<String>::new());
        // As an image layout too.
        f.store.export_directory(&images, compression, &f.path("layout")).unwrap();
        let again = Store::open(f.path("again")).unwrap();
        again.import(&f.path("layout"), &ImportOptions::default()).unwrap();
        assert_eq!(again.find("example.com/x/one:v1").unwrap().id, ids[0]);
        for dir in ["other", "again", "layout"] {
            fs::remove_dir_all(f.path(dir)).unwrap();
        }
    }
    fs::remove_file(f.path("a.tar")).unwrap();
    f.store.export_file(&[ids[0].to_string()], Compression::None, &f.path("by-id.tar")).unwrap();
    let error = f.store.import(&f.path("by-id.tar"), &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("has no name"), "{error}");
    assert!(matches!(
        f.store.export_file(&["nothing".into()], Compression::None, &f.path("n.tar")),
        Err(ImageError::NotFound(_))
    ));
    assert!(!f.path("n.tar").exists());
    f.assert_sound();
}

#[test]
fn a_plain_root_file_system_can_be_exported() {
    let f = Fixture::new();
    let source = f.path("source");
    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("d/file"), "content").unwrap();
    let hole = fs::File::create(source.join("hole")).unwrap();
    hole.set_len(1 << 20).unwrap();
    hole.write_all_at(b"data", 500_000).unwrap();
    fs::File::create(source.join("nothing but a hole")).unwrap().set_len(100_000).unwrap();
    f.import(&source, "plain").unwrap();
    f.import_tar(&odd(), "tar").unwrap();
    assert_eq!(f.store.verify_whole().unwrap(), Vec::<String>::new());
    f.store.export_file(&["plain".into(), "tar".into()], Compression::None, &f.path("a.tar")).unwrap();
    let other = Store::open(f.path("other")).unwrap();
    let imported = other.import(&f.path("a.tar"), &ImportOptions::default()).unwrap();
    assert_eq!((imported[0].image.id, imported[1].image.id), (f.image("plain").id, f.image("tar").id));
}

#[test]
fn damage_is_named() {
    let f = Fixture::new();
    let tar = Tar::new().file("f", "content").file("g", "x").file("g", "y").build();
    let pull = || {
        Remote::new(std::slice::from_ref(&tar)).pull(&f.store, "app");
        let layer = f.path("images/layers").join(&names(&f.path("images/layers"))[0]);
        (layer.join("diff/f"), layer)
    };
    let broken = |says: &str| {
        let problems = f.store.verify_whole().unwrap();
        assert!(problems.iter().any(|problem| problem.contains(says)), "{says}: {problems:?}");
        let error = f.store.export_file(&["app".into()], Compression::None, &f.path("a.tar")).unwrap_err();
        assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
        assert!(!f.path("a.tar").exists());
        f.store.remove("app", |_| None).unwrap();
    };
    let (file, _) = pull();
    fs::write(&file, "CONTENT").unwrap();
    broken("a file was changed");
    let (file, _) = pull();
    fs::write(&file, "short").unwrap();
    broken("\"f\" is shorter than it was");
    let (file, _) = pull();
    fs::remove_file(&file).unwrap();
    broken("\"f\" No such file");
    let (file, _) = pull();
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(f.path("canary"), &file).unwrap();
    broken("\"f\" Too many levels of symbolic links");
    let (_, layer) = pull();
    let split = fs::read(layer.join("split")).unwrap();
    fs::write(layer.join("split"), &split[..split.len() / 2]).unwrap();
    broken("its description cannot be read");
    let (_, layer) = pull();
    fs::remove_file(layer.join("split")).unwrap();
    broken("kept no description");
    let (_, layer) = pull();
    fs::remove_dir_all(layer.join("lost")).unwrap();
    broken("a file was changed");
    f.assert_sound();
}

/// Other tools read what is exported, and find the same image.
#[test]
fn skopeo_and_umoci_read_it() {
    let f = Fixture::new();
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(f.dir.path()).output().ok()?;
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(output.stdout)
    };
    if run("skopeo", &["--version"]).and(run("umoci", &["--version"])).is_none() {
        println!("skipped: skopeo and umoci are not installed");
        return;
    }
    let base = Tar::new().dir("d", 0o755).file("d/f", "content").file("d/g", "x").file("d/g", "y").build();
    let other = Remote::new(&[base.clone(), Tar::new().file("more", "x").build()]);
    Remote::new(&[base]).pull(&f.store, "example.com/app:1");
    other.pull(&f.store, "example.com/other:2");
    let id = f.image("example.com/app:1").id.to_string();
    let images = ["example.com/app:1".to_owned(), "example.com/other:2".to_owned()];
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let exported = f.store.export_file(&images, compression, &f.path("a.tar")).unwrap();
        f.store.export_directory(&images, compression, &f.path("l")).unwrap();
        for source in ["docker-archive:a.tar:example.com/app:1", "oci-archive:a.tar:1", "oci:l:1"] {
            let config = run("skopeo", &["inspect", "--raw", "--config", source]).unwrap();
            assert_eq!(Digest::of(&config).to_string(), id, "{source} {compression:?}");
            // From one of Docker's archives to a layout, skopeo writes the configuration anew.
            let is_docker = source.starts_with("docker");
            let to =
                if is_docker { "docker-archive:copy.tar:copied:1" } else { "oci-archive:copy.tar:copied" };
            run("skopeo", &["copy", "-q", source, to]).unwrap();
            let copied = f.import(&f.path("copy.tar"), "copied").unwrap();
            assert_eq!((copied[0].image.id.to_string(), copied[0].new_layers), (id.clone(), 0), "{source}");
            fs::remove_file(f.path("copy.tar")).unwrap();
        }
        let manifest = run("skopeo", &["inspect", "--raw", "oci:l:1"]).unwrap();
        assert_eq!(Digest::of(&manifest), exported[0].manifest);
        if compression == Compression::Gzip {
            run("umoci", &["unpack", "--image", "l:1", "bundle"]).unwrap();
            assert_eq!(fs::read_to_string(f.path("bundle/rootfs/d/g")).unwrap(), "y");
        }
        fs::remove_dir_all(f.path("l")).unwrap();
    }
}

#[test]
fn a_manifest_that_fits_goes_out_as_it_came() {
    let f = Fixture::new();
    let tar = Tar::new().file("f", "x").build();
    let plain = Remote::new(std::slice::from_ref(&tar)).uncompressed(&[tar]);
    plain.pull(&f.store, "app");
    let exported = f.store.export_directory(&["app".into()], Compression::None, &f.path("l")).unwrap();
    assert_eq!(exported[0].manifest, Digest::of(&plain.manifest));
    let exported = f.store.export_directory(&["app".into()], Compression::Gzip, &f.path("g")).unwrap();
    assert_ne!(exported[0].manifest, Digest::of(&plain.manifest));
    let index = json(&f.path("g/index.json"));
    assert_eq!(index["manifests"][0]["digest"], exported[0].manifest.to_string());
}
