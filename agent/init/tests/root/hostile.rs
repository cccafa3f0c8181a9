//! Images and specifications that try to reach outside: nothing there may be made, changed or read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use crate::harness::{Image, Recipe};

/// A directory outside the root, and what it looked like.
struct Canary {
    path: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Canary {
    fn new(image: &Image) -> Self {
        let path = image.outside("host");
        fs::create_dir_all(path.join("etc/deep")).unwrap();
        fs::write(path.join("etc/passwd"), "root:x:0:0::/secret:/bin/sh\n").unwrap();
        fs::write(path.join("null"), "a file\n").unwrap();
        let before = snapshot(&path);
        Self { path, before }
    }

    fn check(&self) {
        assert_eq!(snapshot(&self.path), self.before);
    }
}

/// Every file with all that can be changed of it.
fn snapshot(path: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let mut seen =
            format!("{:o} {}:{} {} {:?}", meta.mode(), meta.uid(), meta.gid(), meta.ino(), meta.modified());
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_file() {
            seen.push_str(&fs::read_to_string(&path).unwrap());
        }
        found.insert(path, seen);
    }
    found
}

/// Both ways a link can point outside.
fn links(image: &Image, canary: &Canary) -> [PathBuf; 2] {
    let upward = Path::new("../../../../../../../../").join(canary.path.strip_prefix("/").unwrap());
    assert!(image.root().join(&upward).exists());
    [canary.path.clone(), upward]
}

#[test]
fn a_link_in_the_place_of_a_kernel_file_system_is_refused() {
    for name in ["proc", "sys", "dev"] {
        let image = Image::new();
        let canary = Canary::new(&image);
        for target in links(&image, &canary) {
            let link = image.root().join(name);
            symlink(&target, &link).unwrap();
            let failure = Recipe::new(&image, "true").run().unwrap_err();
            let path = format!("/{name}");
            assert_eq!((failure.step.as_str(), failure.path), ("mount", Some(path)));
            assert!(failure.message.contains("symbolic link"), "{}", failure.message);
            fs::remove_file(link).unwrap();
            canary.check();
        }
    }
}

#[test]
fn a_mount_point_behind_links_is_made_beneath_the_root() {
    let image = Image::new();
    let canary = Canary::new(&image);
    let volume = image.outside("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("inside"), "volume\n").unwrap();
    for (number, target) in links(&image, &canary).iter().enumerate() {
        let name = format!("data{number}");
        symlink(target.join("etc/deep"), image.root().join(&name)).unwrap();
        for at in [format!("/{name}"), format!("/{name}/new/x"), format!("/bin/../../{name}/file")] {
            let file = at.ends_with("file");
            let source = if file { volume.join("inside") } else { volume.clone() };
            let script = if file { format!("cat {at}") } else { format!("cat {at}/inside") };
            let output = Recipe::new(&image, &script).volume(&source, &at, &["rbind"]).run().unwrap();
            assert_eq!(output, "volume\n", "{at}");
            canary.check();
        }
    }
}

#[test]
fn a_working_directory_stays_beneath_the_root() {
    let image = Image::new();
    let canary = Canary::new(&image);
    for (number, target) in links(&image, &canary).iter().enumerate() {
        symlink(target, image.root().join(format!("cwd{number}"))).unwrap();
        let mut recipe = Recipe::new(&image, "ls -a | grep -c passwd");
        recipe.spec["process"]["cwd"] = json!(format!("/cwd{number}/etc"));
        assert_eq!(recipe.run().unwrap(), "0\n");
        canary.check();
    }
}

#[test]
fn a_working_directory_behind_a_descriptor_of_init_is_refused() {
    let image = Image::new();
    for descriptor in 0..30 {
        for cwd in [format!("/proc/self/fd/{descriptor}"), format!("/proc/self/fd/{descriptor}/../../..")] {
            let mut recipe = Recipe::new(&image, "pwd");
            recipe.spec["process"]["cwd"] = json!(cwd);
            let failure = recipe.run().unwrap_err();
            assert_eq!(failure.step, "working directory", "{cwd}: {failure}");
        }
    }
    symlink("/proc/self/fd/7", image.root().join("leak")).unwrap();
    let mut recipe = Recipe::new(&image, "pwd");
    recipe.spec["process"]["cwd"] = json!("/leak");
    assert_eq!(recipe.run().unwrap_err().step, "working directory");
}

#[test]
fn a_null_device_of_the_image_or_a_volume_masks_nothing() {
    let image = Image::new();
    let canary = Canary::new(&image);
    fs::create_dir(image.root().join("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", image.root().join("dev/null")).unwrap();
    let script = "stat -c %t:%T /proc/keys; cat /proc/keys; echo end";
    assert_eq!(Recipe::new(&image, script).run().unwrap(), "1:3\n\nend\n".replace("\n\n", "\n"));
    // A file mounted over the container's own, before the masks are made.
    let mut recipe = Recipe::new(&image, script).volume(&canary.path.join("null"), "/dev/null", &["bind"]);
    recipe.spec["process"]["terminal"] = json!(true);
    let mut container = recipe.create().unwrap();
    let master = container.console.take().unwrap();
    container.start().unwrap();
    let mut output = [0; 64];
    let mut length = 0;
    while let Ok(more @ 1..) = rustix::io::read(&master, &mut output[length..]) {
        length += more;
    }
    assert_eq!(&output[..length], b"1:3\r\nend\r\n");
    container.finish();
    canary.check();
}

#[test]
fn a_masked_path_that_is_a_link_hides_only_what_is_beneath_the_root() {
    let image = Image::new();
    let canary = Canary::new(&image);
    for (number, target) in links(&image, &canary).iter().enumerate() {
        symlink(target.join("etc"), image.root().join(format!("mask{number}"))).unwrap();
    }
    symlink("/proc/self/fd", image.root().join("mask2")).unwrap();
    fs::create_dir(image.root().join("secret")).unwrap();
    fs::write(image.root().join("secret/key"), "key").unwrap();
    symlink("secret/key", image.root().join("mask3")).unwrap();
    let mut recipe = Recipe::new(&image, "cat /secret/key; echo end");
    recipe.spec["linux"]["maskedPaths"] = json!(["/mask0", "/mask1", "/mask2", "/mask3", "/"]);
    let failure = recipe.run().unwrap_err();
    assert_eq!((failure.step.as_str(), failure.path.as_deref()), ("masked path", Some("/")));
    let mut recipe = Recipe::new(&image, "cat /secret/key; echo end");
    recipe.spec["linux"]["maskedPaths"] = json!(["/mask0", "/mask1", "/mask3"]);
    recipe.spec["linux"]["readonlyPaths"] = json!(["/mask0", "/mask1"]);
    assert_eq!(recipe.run().unwrap(), "end\n");
    canary.check();
}

#[test]
fn a_passwd_file_of_the_image_neither_leads_outside_nor_blocks_nor_fills_memory() {
    let image = Image::new();
    let canary = Canary::new(&image);
    let etc = image.root().join("etc");
    let home = || Recipe::new(&image, "echo $HOME").run().unwrap();
    for target in links(&image, &canary) {
        symlink(target.join("etc"), &etc).unwrap();
        assert_eq!(home(), "/\n");
        fs::remove_file(&etc).unwrap();
    }
    fs::create_dir(&etc).unwrap();
    let passwd = etc.join("passwd");
    for target in links(&image, &canary) {
        symlink(target.join("etc/passwd"), &passwd).unwrap();
        assert_eq!(home(), "/\n");
        fs::remove_file(&passwd).unwrap();
    }
    for target in ["/dev/zero", "/proc/self/fd/3", "/dev/tty"] {
        symlink(target, &passwd).unwrap();
        assert_eq!(home(), "/\n", "{target}");
        fs::remove_file(&passwd).unwrap();
    }
    mknodat(CWD, &passwd, FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(home(), "/\n");
    fs::remove_file(&passwd).unwrap();
    // Sparse: 8 GiB of zeroes.
    fs::File::create(&passwd).unwrap().set_len(8 << 30).unwrap();
    assert_eq!(home(), "/\n");
    canary.check();
}

#[test]
fn swapping_a_directory_for_a_link_while_containers_start_leads_nowhere() {
    use rustix::fs::{RenameFlags, renameat_with};
    use std::sync::atomic::{AtomicBool, Ordering};

    let image = Image::new();
    let canary = Canary::new(&image);
    let volume = image.outside("volume");
    fs::create_dir_all(volume.join("a")).unwrap();
    symlink(canary.path.join("etc"), volume.join("b")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, volume.join("a"), CWD, volume.join("b"), RenameFlags::EXCHANGE).unwrap();
            }
        });
        for number in 0..60 {
            let at = format!("/shared/a/sub{number}/x");
            // Made in the directory, or behind the link beneath the root, or refused: never outside.
            let _ = Recipe::new(&image, "true")
                .volume(&volume, "/shared", &["rbind"])
                .volume(&image.root().join("bin"), &at, &["rbind"])
                .run();
        }
        stop.store(true, Ordering::Relaxed);
    });
    canary.check();
}

#[test]
fn an_entry_point_that_is_init_again_ends_at_once() {
    let image = Image::new();
    symlink("/proc/self/exe", image.root().join("bin/self")).unwrap();
    let mut recipe = Recipe::new(&image, "");
    recipe.spec["process"]["args"] = json!(["/bin/self"]);
    let mut container = recipe.create().unwrap();
    // What it names is a file outside, which is executed as nothing but the container's program.
    let _ = container.start();
    let (_, code) = container.finish();
    assert_eq!(code, Some(128));
}
