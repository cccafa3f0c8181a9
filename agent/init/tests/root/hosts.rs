//! What a container has to do with its host: cgroups, propagation of mounts, a host that gives less.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use coracle_linux::{MountAttributes, mount_setattr, unshare_mount_namespace};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, unmount};
use serde_json::json;

use crate::harness::{Image, Recipe};

/// A cgroup of our own in the first v1 hierarchy of a controller, or in the v2 tree.
struct Cgroup {
    path: PathBuf,
    controller: Option<&'static str>,
}

impl Cgroup {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let find = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                let matches = fields[2] == kind && fields[3].split(',').any(|word| word == option);
                matches.then(|| PathBuf::from(fields[1]))
            })
        };
        let (parent, controller) = match find("cgroup", "pids") {
            Some(parent) => (parent, Some("pids")),
            None => (find("cgroup2", "rw").unwrap(), None),
        };
        let path = parent.join(format!("coracle-init-test-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path, controller }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        fs::remove_dir(&self.path).unwrap();
    }
}

#[test]
fn cgroups_are_entered_and_are_the_root_of_what_is_seen() {
    let image = Image::new();
    let cgroup = Cgroup::new();
    fs::create_dir(cgroup.path.join("container")).unwrap();
    let path = cgroup.path.join("container");
    let script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/t/cgroup.procs; ls -d /sys/fs/cgroup/t/container; \
        mkdir /sys/fs/cgroup/t/x /sys/fs/cgroup/y";
    let mut recipe = Recipe::new(&image, script);
    let mounts = recipe.spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "tmpfs", "options": ["ro", "mode=755"] }));
    mounts.push(match cgroup.controller {
        Some(name) => json!({ "destination": "/sys/fs/cgroup/t", "type": "cgroup", "options": ["ro", name] }),
        None => json!({ "destination": "/sys/fs/cgroup/t", "type": "cgroup2", "options": ["ro"] }),
    });
    let procs = openat(CWD, path.join("cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    recipe.cgroup_procs.push(procs.unwrap());
    let output = recipe.run().unwrap();
    fs::remove_dir(path).unwrap();
    let own = match cgroup.controller {
        Some(name) => format!(":{name}:/\n"),
        None => "0::/\n".to_owned(),
    };
    assert!(output.contains(&own), "{output}");
    // Itself and cat.
    assert!(output.contains("\n1\n2\n") || output.contains("\n1\n3\n"), "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
    assert!(output.contains("ls: /sys/fs/cgroup/t/container"), "{output}");
}

/// A shared mount in a mount namespace of this thread's own, until it is dropped.
struct SharedMount(PathBuf);

impl Drop for SharedMount {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

fn shared_mount(image: &Image) -> SharedMount {
    unshare_mount_namespace().unwrap();
    let root = openat(CWD, "/", OFlags::PATH, Mode::empty()).unwrap();
    propagate(&root, MountPropagationFlags::PRIVATE);
    let path = image.outside("shared");
    tmpfs(&path);
    let top = openat(CWD, &path, OFlags::PATH, Mode::empty()).unwrap();
    propagate(&top, MountPropagationFlags::SHARED);
    SharedMount(path)
}

fn propagate(mount: &OwnedFd, kind: MountPropagationFlags) {
    let change = MountAttributes { propagation: Some(kind), recursive: true, ..Default::default() };
    mount_setattr(mount, change).unwrap();
}

fn tmpfs(at: &Path) {
    fs::create_dir_all(at).unwrap();
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), None).unwrap();
}

#[test]
fn mounts_spread_into_and_out_of_a_container_as_its_volumes_say() {
    let image = Image::new();
    let mounted = shared_mount(&image);
    let shared = &mounted.0;
    for (propagation, into, out_of) in
        [("rprivate", false, false), ("rslave", true, false), ("rshared", true, true)]
    {
        let (inward, outward) = (format!("in-{propagation}"), format!("out-{propagation}"));
        fs::create_dir(shared.join(&outward)).unwrap();
        let script =
            format!("cat /v/{inward}/file; mount -t tmpfs t /v/{outward} && touch /v/{outward}/made");
        let mut recipe = Recipe::new(&image, &script).volume(shared, "/v", &["rbind", propagation]);
        for set in ["bounding", "effective", "permitted"] {
            recipe.spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
        }
        let mut container = recipe.create().unwrap();
        tmpfs(&shared.join(&inward));
        fs::write(shared.join(&inward).join("file"), "from the host\n").unwrap();
        container.start().unwrap();
        let (output, _) = container.finish();
        assert_eq!(output.contains("from the host"), into, "{propagation}: {output}");
        assert_eq!(shared.join(&outward).join("made").exists(), out_of, "{propagation}: {output}");
    }
}

#[test]
fn where_no_node_may_be_made_the_hosts_are_used() {
    let image = Image::new();
    let script =
        "stat -c '%n %t:%T' /dev/null /dev/zero /dev/tty /proc/keys; echo x > /dev/null && echo written";
    let mut recipe = Recipe::new(&image, script);
    recipe.without_mknod = true;
    let expected = "/dev/null 1:3\n/dev/zero 1:5\n/dev/tty 5:0\n/proc/keys 1:3\nwritten\n";
    assert_eq!(recipe.run().unwrap(), expected);

    // And only where they are what was asked for.
    let mut recipe = Recipe::new(&image, "");
    recipe.without_mknod = true;
    recipe.spec["linux"]["devices"] = json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 1 }]);
    let failure = recipe.run().unwrap_err();
    assert_eq!((failure.step.as_str(), failure.path.as_deref()), ("device", Some("/dev/zero")));
    assert!(failure.message.contains("device 1:5, not 1:1"), "{failure}");
}

#[test]
fn a_capability_the_host_does_not_grant_is_left_out_and_said() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, "grep CapBnd /proc/self/status");
    recipe.without_mknod = true;
    recipe.spec["process"]["capabilities"]["bounding"] = json!(["CAP_MKNOD", "CAP_CHOWN"]);
    let mut container = recipe.create().unwrap();
    assert_eq!(container.warnings, ["capabilities: this host does not grant CAP_MKNOD"]);
    container.start().unwrap();
    assert_eq!(container.finish().0, "CapBnd:\t0000000000000001\n");
}

#[test]
fn a_root_file_system_can_be_a_path_of_the_host() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, "ls /");
    recipe.rootfs = None;
    recipe.spec["root"]["path"] = json!(image.root());
    let output = recipe.run().unwrap();
    assert!(output.starts_with("bin\ndev\nproc\nsys\n"), "{output}");
    let mut recipe = Recipe::new(&image, "");
    recipe.rootfs = None;
    assert_eq!(recipe.run().unwrap_err().step, "specification");
}
