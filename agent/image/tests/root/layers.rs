//! Hostile and unusual layers.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use coracle_image::{ImageError, ImportOptions, Limits};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use tar::EntryType;

use crate::archives::Layout;
use crate::support::{Fixture, Tar, gzip, names};

#[test]
fn nothing_leaves_the_layer() {
    let f = Fixture::new();
    let outside = f.dir.path().to_str().unwrap().to_owned();
    let up = "../".repeat(20);
    let root = |path: &str| format!("{up}{path}");
    for (what, tar, shows) in [
        ("..", Tar::new().file(&root("escape"), "x"), "escape"),
        (".. in the middle", Tar::new().file("a/b/../../../../escape", "x"), "escape"),
        ("absolute", Tar::new().file("/escape", "x"), "escape"),
        ("link, then write", Tar::new().symlink("out", &outside).file("out/canary", "x"), "out"),
        ("relative link", Tar::new().symlink("out", &up).file(&format!("out{outside}/canary"), "x"), "out"),
        ("links to links", Tar::new().symlink("a", "b").symlink("b", "/").file("a/escape", "x"), "escape"),
        (
            "link as the last",
            Tar::new().symlink("canary", &format!("{outside}/canary")).file("canary", "x"),
            "canary",
        ),
        (
            "directory over a link",
            Tar::new().symlink("d", &outside).dir("d", 0o700).file("d/canary", "x"),
            "d/canary",
        ),
        ("proc", Tar::new().symlink("p", "/proc/self/root").file(&format!("p{outside}/canary"), "x"), "p"),
        ("whiteout through a link", Tar::new().symlink("out", &outside).file("out/.wh.canary", ""), "out"),
        ("opaque through a link", Tar::new().symlink("out", &outside).file("out/.wh..wh..opq", ""), "out"),
        (
            "device through a link",
            Tar::new().symlink("out", &outside).device(EntryType::Char, "out/null", 1, 3),
            "out",
        ),
        (
            "replaced through a link",
            Tar::new()
                .symlink("out", "/")
                .dir("out/x", 0o755)
                .symlink("x", &outside)
                .file("out/x/canary", "x"),
            "x",
        ),
    ] {
        f.import_tar(&tar.build(), "x").unwrap_or_else(|error| panic!("{what}: {error}"));
        f.assert_sound();
        assert!(!f.path("escape").exists() && !Path::new("/escape").exists(), "{what}");
        assert_eq!(names(f.dir.path()), ["canary", "images", "layer.tar"], "{what}");
        let diff = f.image("x").lower_dirs()[0].join(shows);
        assert!(diff.symlink_metadata().is_ok(), "{what}");
        f.store.remove("x", |_| None).unwrap();
    }
}

#[test]
fn what_is_refused_says_why_and_leaves_nothing() {
    let f = Fixture::new();
    let outside = f.dir.path().to_str().unwrap().to_owned();
    let pax = |key: &'static str, value: &'static [u8]| Tar::new().pax(&[(key, value)]).file("f", "data");
    let mut unknown = Tar::header(EntryType::new(b'Z'), "f", 0, 0o644);
    unknown.set_cksum();
    let mut checksum = Tar::header(EntryType::Regular, "f", 0, 0o644);
    checksum.as_mut_bytes()[0] = b'g';
    let huge = Tar::header(EntryType::Regular, "huge", 1 << 30, 0o644);
    let mut tera = Tar::header(EntryType::Regular, "tera", 0, 0o644);
    tera.as_mut_bytes()[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0x01, 0, 0, 0, 0, 0]);
    tera.set_cksum();
    let mut ids = Tar::header(EntryType::Regular, "f", 0, 0o644);
    ids.as_mut_bytes()[108..116].copy_from_slice(&[0x80, 0, 0, 1, 0, 0, 0, 0]);
    ids.set_cksum();
    let long = "n".repeat(300);
    for (what, tar, says) in [
        (
            "hard link to the host",
            Tar::new().hard_link("h", &format!("{outside}/canary")),
            "which this layer does not have",
        ),
        (
            "hard link by ..",
            Tar::new().hard_link("h", &format!("{}{outside}/canary", "../".repeat(20))),
            "which this layer does not have",
        ),
        (
            "hard link through a link",
            Tar::new().symlink("out", &outside).hard_link("h", "out/canary"),
            "which this layer does not have",
        ),
        (
            "hard link to a directory",
            Tar::new().dir("d", 0o755).hard_link("h", "d"),
            "hard link to a directory",
        ),
        (
            "hard link to a whiteout",
            Tar::new().file(".wh.x", "").hard_link("h", "x"),
            "which this layer does not have",
        ),
        ("whiteout of ..", Tar::new().file("d/.wh...", ""), "whiteout of no file"),
        ("whiteout of .", Tar::new().file(".wh..", ""), "whiteout of no file"),
        ("whiteout of nothing", Tar::new().file(".wh.", ""), "whiteout of no file"),
        ("overlayfs' device", Tar::new().device(EntryType::Char, "w", 0, 0), "overlayfs' own mark"),
        ("overlayfs' attribute", pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc"), "overlayfs' own"),
        ("PAX size", pax("size", b"1024"), "size 4 in its header but 1024 in its PAX record"),
        ("PAX size of nothing", pax("size", b"0"), "size 4 in its header but 0 in its PAX record"),
        ("PAX garbage", pax("mtime", b"soon"), "malformed value"),
        ("NUL in a name", pax("path", b"a\0b"), "malformed value"),
        ("a name too long", Tar::new().pax(&[("path", long.as_bytes())]).file("f", ""), "name too long"),
        (
            "a path too long",
            Tar::new().pax(&[("path", "a/".repeat(3000).as_bytes())]).file("f", ""),
            "a name that no file can have",
        ),
        ("type", Tar::new().raw(&unknown, b""), "unknown type"),
        ("checksum", Tar::new().raw(&checksum, b""), "checksum is wrong"),
        ("user id", Tar::new().raw(&ids, b""), "out of range"),
        ("claimed size", Tar::new().raw(&huge, b"short"), "ends inside an entry"),
        ("a terabyte", Tar::new().raw(&tera, b""), "are kept free"),
        ("the root as a file", Tar::new().file("x/..", "y"), "would replace the layer's root"),
        ("a file as directory", Tar::new().file("a", "x").file("a/b", "y"), "Not a directory"),
        ("a loop", Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "y"), "symbolic links"),
        (
            "a sparse map",
            Tar::new().pax(&[("GNU.sparse.map", b"0,9"), ("GNU.sparse.size", b"9")]).file("f", "data"),
            "malformed sparse map",
        ),
    ] {
        let error = f.import_tar(&tar.build(), "x").map(drop).expect_err(what).to_string();
        assert!(error.contains(says), "{what}: {error}");
        f.assert_sound();
        assert_eq!(names(&f.path("images/layers")), Vec::<String>::new(), "{what}");
        assert_eq!(names(f.dir.path()), ["canary", "images", "layer.tar"], "{what}");
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    let f = Fixture::new();
    let limits = Limits { max_layer_bytes: Some(8 << 20), max_entries: 1000, ..Default::default() };
    let options = ImportOptions { name: Some("x".parse().unwrap()), limits, ..Default::default() };
    let import = |tar: &[u8]| {
        fs::write(f.path("layer.tar"), tar).unwrap();
        f.store.import(&f.path("layer.tar"), &options).unwrap_err().to_string()
    };
    let zeros = "\0".repeat(64 << 20);
    let bomb = Tar::new().file("zeros", &zeros).build();
    assert!(import(&gzip(&bomb)).contains("when decompressed"));
    assert!(import(&zstd::encode_all(&bomb[..], 1).unwrap()).contains("when decompressed"));
    // Behind the archive's end, where no entry is.
    let mut tail = Tar::new().file("f", "x").build();
    tail.extend(zeros.bytes());
    assert!(import(&gzip(&tail)).contains("when decompressed"));
    let many = (0..2000).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), ""));
    assert!(import(&many.build()).contains("more than 1000 entries"));
    let full =
        ImportOptions { limits: Limits { keep_free: Some(u64::MAX), ..Default::default() }, ..options };
    fs::write(f.path("layer.tar"), Tar::new().file("f", "x").build()).unwrap();
    let error = f.store.import(&f.path("layer.tar"), &full).unwrap_err();
    assert!(matches!(error, ImageError::DiskFull { .. }), "{error}");
    f.assert_sound();
}

#[test]
fn entries_may_replace_each_other() {
    entries_replace(&Fixture::new());
}

pub(crate) fn entries_replace(f: &Fixture) {
    let tar = Tar::new()
        .file("a", "first")
        .file("a", "second")
        .dir("d", 0o700)
        .file("d/inside", "x")
        .file("d", "now a file")
        .file("e", "now a directory")
        .dir("e", 0o711)
        .file("e/inside", "y")
        .file("one", "linked")
        .hard_link("two", "one")
        .hard_link("two", "one")
        .file("one", "apart")
        .dir("late", 0o755)
        .file("late/x", "")
        .dir("late", 0o750)
        .symlink("s", "a")
        .hard_link("t", "s");
    f.import_tar(&tar.build(), "x").unwrap();
    let m = f.mount("x");
    assert_eq!(
        (m.read("a"), m.read("d"), m.read("e/inside")),
        ("second".into(), "now a file".into(), "y".into())
    );
    assert_eq!((m.read("one"), m.read("two")), ("apart".into(), "linked".into()));
    assert_eq!(fs::metadata(m.path.join("late")).unwrap().mode() & 0o7777, 0o750);
    assert!(m.has("late/x"));
    assert_eq!(fs::metadata(m.path.join("late")).unwrap().mtime(), 1_000_000_000);
    assert!(fs::symlink_metadata(m.path.join("t")).unwrap().is_symlink(), "the link itself is linked");
}

#[test]
fn attributes_that_are_kept() {
    attributes_are_kept(&Fixture::new());
}

pub(crate) fn attributes_are_kept(f: &Fixture) {
    let mut owned = Tar::header(EntryType::Regular, "owned", 1, 0o6755);
    // Beyond what seven octal digits hold.
    owned.as_mut_bytes()[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xfe]);
    owned.as_mut_bytes()[116..124].copy_from_slice(&[0x80, 0, 0, 0, 0, 0x98, 0x96, 0x80]);
    owned.set_cksum();
    // cap_net_raw+ep; a version 2 capability holds a newline by chance too.
    let capability: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"a\nb=\0"),
            ("SCHILY.xattr.security.selinux", b"ignored"),
            ("mtime", b"-1.25"),
        ])
        .raw(&owned, b"x")
        .pax(&[("path", long.as_bytes()), ("comment", b"\xff")])
        .file("short", "long")
        .device(EntryType::Block, "loop", 7, 300)
        .device(EntryType::Fifo, "fifo", 0, 0);
    f.import_tar(&tar.build(), "x").unwrap();
    let m = f.mount("x");
    let stat = fs::metadata(m.path.join("owned")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (0x7fff_fffe, 10_000_000, 0o6755));
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (-2, 750_000_000));
    let mut value = [0; 64];
    let size = getxattr(m.path.join("owned"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..size], capability);
    let size = getxattr(m.path.join("owned"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..size], b"a\nb=\0");
    assert!(getxattr(m.path.join("owned"), "security.selinux", &mut value[..]).is_err());
    assert_eq!(m.read(&long), "long");
    assert_eq!(fs::metadata(m.path.join("loop")).unwrap().rdev(), rustix::fs::makedev(7, 300));
    assert!(fs::metadata(m.path.join("fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn sparse_files_of_every_format() {
    sparse_files_are_kept(&Fixture::new());
}

pub(crate) fn sparse_files_are_kept(f: &Fixture) {
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
    let header = Tar::header(EntryType::Regular, "ignored", map.len() as u64, 0o644);
    let tar = Tar::new()
        .raw(&old, b"data")
        .pax(&[
            ("GNU.sparse.map", b"0,2,1048574,2"),
            ("GNU.sparse.size", b"1048576"),
            ("GNU.sparse.name", b"v01"),
        ])
        .file("ignored", "abyz")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"v10"),
            ("GNU.sparse.realsize", b"1048576"),
        ])
        .raw(&header, &map)
        .file("next", "still in step");
    f.import_tar(&tar.build(), "x").unwrap();
    let m = f.mount("x");
    let old = fs::read(m.path.join("old")).unwrap();
    assert_eq!((old.len(), &old[1 << 20..(1 << 20) + 4], old[0]), (1 << 21, &b"data"[..], 0));
    for name in ["v01", "v10"] {
        let content = fs::read(m.path.join(name)).unwrap();
        assert_eq!(
            (content.len(), &content[..3], &content[1_048_573..]),
            (1 << 20, &b"ab\0"[..], &b"\0yz"[..]),
            "{name}"
        );
        assert!(fs::metadata(m.path.join(name)).unwrap().blocks() < 100, "{name}");
    }
    assert_eq!(m.read("next"), "still in step");
}

#[test]
fn whiteouts_hide_what_is_below() {
    whiteouts_hide(&Fixture::new());
}

pub(crate) fn whiteouts_hide(f: &Fixture) {
    let base = Tar::new()
        .dir("d", 0o1777)
        .file("d/a", "a")
        .file("d/b", "b")
        .dir("o", 0o755)
        .file("o/old", "")
        .dir("replaced", 0o755)
        .file("replaced/old", "")
        .file("kept", "k")
        .symlink("lib", "usr/lib")
        .dir("usr/lib", 0o711)
        .file("usr/lib/old", "");
    let second = Tar::new()
        .file("d/.wh.a", "")
        .file("o/new", "")
        .file("o/.wh..wh..opq", "")
        .file(".wh.replaced", "")
        .file("replaced/new", "")
        .file("kept", "own")
        .file(".wh.kept", "")
        .file(".wh..wh.aufs", "")
        .file("lib/new", "through the link below");
    Layout::new().layer(&base.build()).layer(&gzip(&second.build())).write(&f.path("layout"));
    f.import(&f.path("layout"), "x").unwrap();
    let m = f.mount("x");
    assert!(!m.has("d/a") && m.has("d/b"));
    assert_eq!(names(&m.path.join("o")), ["new"]);
    assert_eq!(
        names(&m.path.join("replaced")),
        ["new"],
        "a whiteout and a new directory hide the old content"
    );
    assert_eq!(m.read("kept"), "own", "a layer's whiteout does not hide its own file");
    assert_eq!(names(&m.path), ["d", "kept", "lib", "o", "replaced", "usr"]);
    // Directories that the second layer did not list look as the first has them.
    assert_eq!(fs::metadata(m.path.join("d")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(m.path.join("usr/lib")).unwrap().mode() & 0o7777, 0o711);
    assert!(fs::symlink_metadata(m.path.join("lib")).unwrap().is_symlink(), "a link below stays a link");
    assert_eq!(names(&m.path.join("lib")), ["new", "old"]);
}

/// overlayfs lists a whiteout in a directory that only one layer has, or that is opaque.
#[test]
fn a_whiteout_of_nothing_is_not_seen() {
    let f = Fixture::new();
    let base = Tar::new()
        .file("d/.wh.nothing", "")
        .file("d/file", "")
        .file("e/old", "")
        .file("e/hidden", "")
        .dir("kept", 0o755)
        .file("kept/gone", "")
        .symlink("lib", "e");
    let top = Tar::new()
        .file("e/.wh.hidden", "")
        .file("lib/.wh..wh..opq", "")
        .file("e/.wh.old", "")
        .file("e/deep/.wh.x", "")
        .file("kept/.wh.gone", "")
        .file("own/.wh.x", "")
        .file("kept/.wh.never", "")
        .file("lib/new", "");
    Layout::new().layer(&base.build()).layer(&top.build()).write(&f.path("layout"));
    f.import(&f.path("layout"), "x").unwrap();
    let m = f.mount("x");
    for (directory, shows) in [
        ("d", vec!["file"]),
        ("e", vec!["deep", "new"]),
        ("e/deep", vec![]),
        ("kept", vec![]),
        ("own", vec![]),
    ] {
        assert_eq!(names(&m.path.join(directory)), shows, "{directory}");
    }
}

#[test]
fn an_opaque_root_hides_everything_below() {
    let f = Fixture::new();
    let base = Tar::new().file("old", "").dir("both", 0o755).file("both/old", "");
    let second = Tar::new().file(".wh..wh..opq", "").file("new", "").file("both/new", "");
    Layout::new().layer(&base.build()).layer(&second.build()).write(&f.path("layout"));
    f.import(&f.path("layout"), "x").unwrap();
    let m = f.mount("x");
    assert_eq!(names(&m.path), ["both", "new"]);
    assert_eq!(names(&m.path.join("both")), ["new"]);
}

#[test]
fn a_hundred_thousand_files() {
    let f = Fixture::new();
    let mut tar = Tar::new();
    for n in 0..100_000 {
        tar = tar.file(&format!("d{}/f{n}", n % 100), "");
    }
    f.import_tar(&tar.build(), "x").unwrap();
    let image = f.image("x");
    let diff = &image.lower_dirs()[0];
    assert_eq!(names(diff).len(), 100);
    assert_eq!(names(&diff.join("d7")).len(), 1000);
}

/// acl(5), as `posix_acl_xattr.h` has it: owner, the user 1000, group, mask and others.
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 7, 1000), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)];
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

#[test]
fn nothing_inherits_an_acl() {
    let f = Fixture::new();
    let (access, default) = ("system.posix_acl_access", "system.posix_acl_default");
    // Of the store's own directories nothing must come into a layer.
    for directory in ["images", "images/tmp", "images/layers"] {
        setxattr(f.path(directory), default, &acl(), XattrFlags::empty()).unwrap();
    }
    let lower = Tar::new()
        .pax(&[("SCHILY.xattr.system.posix_acl_default", &acl())])
        .dir("shared/", 0o755)
        .file("shared/file", "x")
        .dir("shared/dir/", 0o750)
        .file("shared/dir/implied/file", "x")
        .device(EntryType::Fifo, "shared/fifo", 0, 0)
        .build();
    f.import_tar(&lower, "app").unwrap();
    let m = f.mount("app");
    let mut value = [0; 256];
    let mut has = |path: &str, name: &str| getxattr(m.path.join(path), name, &mut value[..]).is_ok();
    assert!(has("shared", default), "what its own entry says");
    for path in [
        "",
        "shared",
        "shared/file",
        "shared/dir",
        "shared/dir/implied",
        "shared/dir/implied/file",
        "shared/fifo",
    ] {
        assert!(!has(path, access), "{path:?}");
        assert!(path == "shared" || !has(path, default), "{path:?}");
    }
    for (path, mode) in
        [("", 0o755), ("shared/file", 0o644), ("shared/dir", 0o750), ("shared/dir/implied", 0o755)]
    {
        assert_eq!(fs::metadata(m.path.join(path)).unwrap().mode() & 0o7777, mode, "{path}");
    }
    f.assert_sound();
}
