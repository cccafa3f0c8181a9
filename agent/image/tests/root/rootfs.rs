//! Plain root file systems, their snapshots, and the store's records.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use coracle_image::{Access, ImageError, ImportOptions, Removed, RootfsConfig};
use coracle_model::ContainerId;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, getxattr, mknodat, setxattr};

use crate::support::{Fixture, Tar, gzip, names};

#[test]
fn a_directory_is_copied_with_all_it_has() {
    let f = Fixture::new();
    let root = f.path("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("bin/tool"), "program").unwrap();
    fs::hard_link(root.join("bin/tool"), root.join("bin/same")).unwrap();
    fs::set_permissions(root.join("bin/tool"), Permissions::from_mode(0o4755)).unwrap();
    symlink("/etc/passwd", root.join("link")).unwrap();
    mknodat(
        CWD,
        root.join("null"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    setxattr(root.join("bin/tool"), "user.note", b"a\nb", XattrFlags::empty()).unwrap();
    // cap_net_raw+ep
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write(root.join("ping"), "p").unwrap();
    std::os::unix::fs::chown(root.join("ping"), Some(3_000_000), Some(7)).unwrap();
    setxattr(root.join("ping"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (1 << 30) - 3).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o751)).unwrap();
    let old = rustix::fs::Timespec { tv_sec: 12345, tv_nsec: 678 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    rustix::fs::utimensat(CWD, root.join("bin"), &times, rustix::fs::AtFlags::empty()).unwrap();

    let options = ImportOptions {
        name: Some("app:1".parse().unwrap()),
        config: RootfsConfig {
            entrypoint: vec!["/bin/tool".into()],
            env: vec!["A=b".into()],
            user: Some("5:6".into()),
            working_dir: Some("/srv".into()),
            ..Default::default()
        },
        ..Default::default()
    };
    let imported = f.store.import(&root, &options).unwrap();
    assert_eq!((imported.len(), imported[0].new_layers), (1, 1));
    let image = f.image("app:1");
    assert_eq!(
        (image.document.config.user.as_str(), image.document.config.working_dir.as_str()),
        ("5:6", "/srv")
    );

    let m = f.mount("app:1");
    let stat = |name: &str| m.path.join(name).symlink_metadata().unwrap();
    assert_eq!(m.read("bin/same"), "program");
    assert_eq!((stat("bin/tool").mode() & 0o7777, stat("bin/tool").nlink()), (0o4755, 2));
    assert_eq!(stat("bin/tool").ino(), stat("bin/same").ino());
    assert_eq!(fs::read_link(m.path.join("link")).unwrap().to_str(), Some("/etc/passwd"));
    assert_eq!(stat("null").rdev(), rustix::fs::makedev(1, 3));
    assert!(stat("fifo").file_type().is_fifo());
    assert!(!m.has("socket"));
    assert_eq!((stat("ping").uid(), stat("ping").gid()), (3_000_000, 7));
    assert_eq!((stat("bin").mtime(), stat("bin").mtime_nsec()), (12345, 678));
    assert_eq!((stat("sparse").len(), stat("sparse").blocks() < 100), (1 << 30, true));
    assert_eq!(fs::metadata(&m.path).unwrap().mode() & 0o7777, 0o751);
    let mut value = [0; 64];
    let size = getxattr(m.path.join("bin/tool"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..size], b"a\nb");
    let size = getxattr(m.path.join("ping"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(value[..size], capability);

    let again = f.store.import(&root, &options).unwrap();
    assert_eq!(again[0].image.id, imported[0].image.id, "the same tree is the same image");
    assert_eq!(f.store.list().unwrap().len(), 1);
    f.assert_sound();
}

#[test]
fn containers_share_layers_and_keep_their_changes_apart() {
    let f = Fixture::new();
    f.import_tar(&Tar::new().dir("tmp/", 0o1777).file("file", "image").build(), "app").unwrap();
    let (a, b) = (f.mount("app"), f.mount("app"));
    fs::write(a.path.join("file"), "a").unwrap();
    fs::remove_dir(b.path.join("tmp")).unwrap();
    assert_eq!((a.read("file"), b.read("file")), ("a".into(), "image".into()));
    assert!(a.has("tmp") && !b.has("tmp"));
    assert_eq!(fs::metadata(a.path.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(f.dir.path().to_str().unwrap()));

    let error = f.store.remove("app", |_| None).unwrap_err();
    assert!(matches!(&error, ImageError::InUse { .. }), "{error}");
    let containers = [(a.container, a.dir.clone()), (b.container, b.dir.clone())];
    drop((a, b));
    for (container, dir) in containers {
        f.store.remove_snapshot(container, &dir).unwrap();
        f.store.remove_snapshot(container, &dir).unwrap();
        assert_eq!(names(&dir), Vec::<String>::new());
    }
    assert!(matches!(f.store.remove("app", |_| Some("the agent".into())), Err(ImageError::InUse { .. })));
    assert!(matches!(f.store.remove("app", |_| None).unwrap(), Removed::Deleted { .. }));
    assert_eq!(names(&f.path("images/layers")), Vec::<String>::new());
    assert_eq!(names(&f.path("images/blobs/sha256")), Vec::<String>::new());
    assert!(matches!(f.store.find("app"), Err(ImageError::NotFound(_))));
    f.assert_sound();
}

#[test]
fn a_read_only_root_has_no_layer_to_write_to() {
    let f = Fixture::new();
    f.import_tar(&Tar::new().file("file", "x").build(), "app").unwrap();
    let fd =
        f.store.snapshot(&f.image("app"), ContainerId::random(), &f.path("c"), Access::ReadOnly).unwrap();
    let path = format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(&fd));
    assert_eq!(fs::read_to_string(&path).unwrap(), "x");
    assert!(fs::write(&path, "y").is_err());
}

#[test]
fn names_move_and_images_go_by_identifier() {
    let f = Fixture::new();
    let one = f.import_tar(&Tar::new().file("f", "1").build(), "app:v").unwrap()[0].image.id;
    f.import_tar(&Tar::new().file("f", "1").build(), "other").unwrap();
    let two = f.import_tar(&gzip(&Tar::new().file("f", "2").build()), "app:v").unwrap()[0].image.id;
    assert_ne!(one, two);
    assert_eq!(f.image("app:v").id, two);
    assert_eq!(f.image("docker.io/library/other:latest").id, one);
    assert_eq!(f.store.find(&one.hex()[..12]).unwrap().id, one);
    assert!(matches!(f.store.remove("other", |_| None).unwrap(), Removed::Deleted { .. }));
    f.import_tar(&Tar::new().file("f", "2").build(), "second").unwrap();
    assert!(matches!(f.store.remove("second", |_| None).unwrap(), Removed::Untagged(_)));
    assert_eq!(f.store.list().unwrap().len(), 1);
    f.store.remove(&two.to_string(), |_| None).unwrap();
    assert_eq!(f.store.list().unwrap(), []);
    f.assert_sound();
}

#[test]
fn what_cannot_be_imported_says_why() {
    let f = Fixture::new();
    let refused = |content: &[u8]| f.import_tar(content, "x").unwrap_err().to_string();
    assert!(refused(b"").contains("empty archive"));
    assert!(refused(&[7; 4096]).contains("neither a tar archive"));
    assert!(refused(b"short").contains("neither a tar archive"));
    let good = Tar::new().file("f", &"x".repeat(100_000)).build();
    assert!(refused(&good[..50_000]).contains("inside an entry"));
    let zipped = gzip(&good);
    assert!(refused(&zipped[..zipped.len() - 10]).contains("layer"), "a truncated gzip");
    let root = f.path("layer.tar");
    fs::write(&root, good).unwrap();
    let error = f.store.import(&root, &ImportOptions::default()).unwrap_err().to_string();
    assert!(error.contains("brings no name"), "{error}");
    let error = f.import(&f.path("absent"), "x").unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");
    assert_eq!(f.store.list().unwrap(), []);
    f.assert_sound();
}

#[test]
fn a_lease_is_not_taken_before_the_directory_that_tells_of_it_is_there() {
    let f = Fixture::new();
    f.import_tar(&Tar::new().file("file", "x").build(), "app").unwrap();
    fs::write(f.path("in-the-way"), "").unwrap();
    for access in [Access::Writable, Access::ReadOnly] {
        let directory = f.path("in-the-way/container");
        f.store.snapshot(&f.image("app"), ContainerId::random(), &directory, access).unwrap_err();
        assert_eq!(f.store.leases().unwrap(), []);
    }
}
