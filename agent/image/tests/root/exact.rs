//! Whether a layer is, in all that a container sees, what its archive makes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, removexattr, setxattr};
use tar::EntryType;

use crate::export::odd;
use crate::incoming::Remote;
use crate::support::{Fixture, Tar};

/// Layers with what a file may have besides its content.
fn layers() -> [Vec<u8>; 3] {
    let mut setuid = Tar::header(EntryType::Regular, "bin/su", 1, 0o4755);
    setuid.set_uid(5);
    setuid.set_gid(6);
    setuid.set_cksum();
    let lower = Tar::new()
        .dir("etc", 0o750)
        .file("etc/kept", "kept")
        .file("etc/gone", "gone")
        .raw(&setuid, b"x")
        .pax(&[("SCHILY.xattr.user.note", b"value")])
        .file("noted", "content")
        .file("one", "content")
        .hard_link("two", "one")
        .symlink("link", "etc/kept")
        .device(EntryType::Char, "null", 1, 3)
        .device(EntryType::Fifo, "fifo", 0, 0)
        .dir("opaque", 0o755)
        .file("opaque/below", "x");
    let upper = Tar::new()
        .file("etc/.wh.gone", "")
        .file("etc/more", "implied directory, as the layer below has it")
        .file("nobody/tells/of", "implied directories that are nowhere else")
        .dir("opaque", 0o755)
        .file("opaque/.wh..wh..opq", "");
    [lower.build(), upper.build(), odd()]
}

fn exact(f: &Fixture) -> Vec<String> {
    let problems = f.store.verify_exact().unwrap();
    f.assert_sound();
    problems
}

/// Of the image's layers, the directories, lowest first.
fn directories(f: &Fixture) -> Vec<PathBuf> {
    f.image("app")
        .layers
        .iter()
        .map(|layer| f.path("images/layers").join(layer.chain_id.hex()).join("diff"))
        .collect()
}

#[test]
fn what_content_does_not_show_is_found() {
    let f = Fixture::new();
    Remote::new(&layers()).pull(&f.store, "app");
    assert_eq!(exact(&f), Vec::<String>::new());
    let directories = directories(&f);
    let [lower, upper] = [&directories[0], &directories[1]];

    /// Does something to a layer, and afterwards takes it back.
    type Change<'a> = (&'a str, Box<dyn Fn(&Path)>, Box<dyn Fn(&Path)>);
    let mode = |mode| move |path: &Path| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let time = |seconds| {
        move |path: &Path| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::open(path).unwrap().set_modified(time).unwrap();
        }
    };
    const TIME: u64 = 1_000_000_000;
    let note = |value: &'static [u8]| {
        move |path: &Path| setxattr(path, "user.note", value, XattrFlags::empty()).unwrap()
    };
    let changes: [(PathBuf, Change<'_>); 8] = [
        (
            lower.join("etc"),
            ("has mode 0777, and came with 0750", Box::new(mode(0o777)), Box::new(mode(0o750))),
        ),
        (
            lower.join("bin/su"),
            ("has mode 0755, and came with 4755", Box::new(mode(0o755)), Box::new(mode(0o4755))),
        ),
        (
            lower.join("etc/kept"),
            (
                "has owner 7:8, and came with 0:0",
                Box::new(|path| chown(path, Some(7), Some(8)).unwrap()),
                Box::new(|path| chown(path, Some(0), Some(0)).unwrap()),
            ),
        ),
        (
            lower.join("link"),
            (
                "has owner 7:0, and came with 0:0",
                Box::new(|path| lchown(path, Some(7), None).unwrap()),
                Box::new(|path| lchown(path, Some(0), None).unwrap()),
            ),
        ),
        (lower.join("one"), ("has time 5.0", Box::new(time(5)), Box::new(time(TIME)))),
        (
            lower.join("noted"),
            (
                "has other extended attributes (user.note) than it came with",
                Box::new(note(b"other")),
                Box::new(note(b"value")),
            ),
        ),
        (
            upper.join("opaque"),
            (
                "has other extended attributes (none) than it came with (trusted.overlay.opaque)",
                Box::new(|path| removexattr(path, "trusted.overlay.opaque").unwrap()),
                Box::new(|path| setxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap()),
            ),
        ),
        (
            upper.join("etc"),
            ("has mode 0700, and came with 0750", Box::new(mode(0o700)), Box::new(mode(0o750))),
        ),
    ];
    for (path, (expected, change, back)) in &changes {
        change(path);
        assert_eq!(f.store.verify_whole().unwrap(), Vec::<String>::new(), "{expected}");
        let found = exact(&f);
        let both = "two\" ";
        assert!(
            !found.is_empty() && found.iter().all(|one| one.contains(expected)),
            "{expected}: {found:#?}"
        );
        // A file of two names is told of by both.
        assert_eq!(found.len(), if found.iter().any(|one| one.contains(both)) { 2 } else { 1 }, "{found:#?}");
        back(path);
    }
    assert_eq!(exact(&f), Vec::<String>::new(), "all was taken back");
}

#[test]
fn what_is_more_or_less_than_there_was_is_found() {
    let f = Fixture::new();
    Remote::new(&layers()).pull(&f.store, "app");
    let directories = directories(&f);
    let (lower, upper) = (&directories[0], &directories[1]);
    let kept = |path: &Path| {
        let time = path.metadata().unwrap().modified().unwrap();
        let path = path.to_owned();
        move || fs::File::open(&path).unwrap().set_modified(time).unwrap()
    };
    // Each change of a directory's names would show in its time, too.
    let (in_lower, in_upper) = (kept(lower), kept(&upper.join("etc")));
    fs::remove_file(upper.join("etc/gone")).unwrap();
    in_upper();
    let found = exact(&f);
    assert!(found.len() == 1 && found[0].contains("\"etc/gone\" is missing"), "{found:#?}");

    fs::remove_file(lower.join("two")).unwrap();
    fs::copy(lower.join("one"), lower.join("two")).unwrap();
    fs::write(lower.join("zzz"), "more").unwrap();
    fs::remove_file(lower.join("link")).unwrap();
    symlink("/etc/shadow", lower.join("link")).unwrap();
    fs::remove_file(lower.join("null")).unwrap();
    mknodat(CWD, lower.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o640), makedev(1, 1))
        .unwrap();
    fs::remove_file(lower.join("fifo")).unwrap();
    fs::create_dir(lower.join("fifo")).unwrap();
    in_lower();
    assert_eq!(fs::metadata(lower.join("one")).unwrap().nlink(), 1);
    assert_eq!(f.store.verify_whole().unwrap(), Vec::<String>::new());
    let found = exact(&f).concat();
    for expected in [
        "\"two\" has names to the number of 1, and came with 2",
        "\"one\" has names to the number of 1, and came with 2",
        "\"zzz\" was not there",
        "\"link\" has target /etc/shadow, and came with etc/kept",
        "\"null\" has device 1:1, and came with 1:3",
        "\"fifo\" is something else",
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
    fs::write(lower.join("etc/kept"), "else").unwrap();
    let found = exact(&f);
    assert!(found.iter().any(|one| one.contains("a file was changed")), "{found:#?}");
}
