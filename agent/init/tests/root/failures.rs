//! A failure names its step, its path and the kernel's error number.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use coracle_init::protocol::Failure;
use serde_json::{Value, json};

use crate::harness::{Image, Recipe};

fn start(image: &Image, args: Value) -> Failure {
    let mut recipe = Recipe::new(image, "");
    recipe.spec["process"]["args"] = args;
    let mut container = recipe.create().unwrap();
    let failure = container.start().unwrap_err();
    assert_eq!(container.finish(), (String::new(), Some(128)));
    assert_eq!(failure.step, "exec");
    failure
}

#[test]
fn a_program_that_cannot_be_executed_is_explained() {
    let image = Image::new();
    let script = |name: &str, content: &str, mode: u32| {
        let path = image.root().join("bin").join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    script("plain", "text", 0o644);
    script("garbage", "neither", 0o755);
    script("orphan", "#!/no/such/shell\n", 0o755);
    fs::create_dir(image.root().join("bin/directory")).unwrap();

    let failure = start(&image, json!(["nothing"]));
    assert_eq!(failure.errno, Some(2));
    assert_eq!(failure.message, "exec: \"nothing\": executable file not found in $PATH");
    let failure = start(&image, json!(["/bin/nothing"]));
    assert_eq!((failure.errno, failure.path.as_deref()), (Some(2), Some("/bin/nothing")));
    assert_eq!(failure.message, "exec: \"/bin/nothing\": No such file or directory");
    for program in ["plain", "/bin/plain", "directory", "/bin/directory"] {
        let failure = start(&image, json!([program]));
        assert_eq!(failure.errno, Some(13), "{program}");
        assert!(failure.message.contains("permission denied"), "{failure}");
    }
    for name in ["\u{1}".repeat(100_000), format!("/{}", "é".repeat(60_000))] {
        let failure = start(&image, json!([name]));
        assert!(failure.message.ends_with('…'), "{}", failure.message.len());
    }
    let failure = start(&image, json!(["garbage"]));
    assert_eq!(failure.errno, Some(8));
    let failure = start(&image, json!(["/bin/orphan"]));
    assert_eq!(failure.errno, Some(2));
    assert!(failure.message.contains("interpreter"), "{failure}");
}

#[test]
fn a_mount_that_cannot_be_made_is_explained() {
    let image = Image::new();
    for (mount, errno, words) in [
        (json!({ "destination": "/x", "type": "nofs" }), Some(19), "nofs"),
        (json!({ "destination": "/x", "type": "tmpfs", "options": ["mode=zzz"] }), Some(22), "option mode"),
        (json!({ "destination": "/x", "type": "tmpfs", "options": ["frobnicate"] }), Some(22), "frobnicate"),
        (json!({ "destination": "/", "type": "tmpfs" }), None, "root itself"),
        (json!({ "destination": "/bin/busybox", "type": "tmpfs" }), Some(20), "Not a directory"),
    ] {
        let mut recipe = Recipe::new(&image, "");
        recipe.spec["mounts"].as_array_mut().unwrap().push(mount.clone());
        let failure = recipe.run().unwrap_err();
        assert_eq!((failure.step.as_str(), failure.errno), ("mount", errno), "{failure}");
        assert_eq!(failure.path.as_deref(), mount["destination"].as_str());
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[test]
fn an_interface_that_was_not_moved_is_named() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, "true");
    recipe.spec["linux"]["netDevices"] = json!({ "lo": {}, "eth7": { "name": "none7" } });
    let failure = recipe.create().map(|_| ()).unwrap_err();
    assert_eq!(failure.step, "namespace");
    assert!(failure.message.contains("none7"), "{failure}");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let image = Image::new();
    for (pointer, value, name) in [
        ("/hooks", json!({ "prestart": [{ "path": "relative" }] }), "hooks: relative is not absolute"),
        ("/hooks", json!({ "poststop": [{ "path": "/bin/true" }] }), "hooks: the state"),
        ("/domainname", json!("d"), "domainname"),
        ("/linux/personality", json!({ "domain": "LINUX" }), "linux.personality"),
        ("/linux/mountLabel", json!("l"), "linux.mountLabel"),
        ("/linux/intelRdt", json!({}), "linux.intelRdt"),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW" }), "linux.seccomp"),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation"),
        ("/linux/maskedPaths", json!(["relative"]), "linux.maskedPaths"),
        (
            "/linux/devices",
            json!([{ "path": "/proc/x", "type": "c", "major": 1, "minor": 3 }]),
            "linux.devices",
        ),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/args", json!([]), "process.args"),
        ("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 1 }), "process.ioPriority"),
        ("/process/scheduler", json!({ "policy": "SCHED_BATCH" }), "process.scheduler"),
        ("/process/user/uid", json!(u32::MAX), "process.user.uid"),
        ("/process/user/additionalGids", json!([u32::MAX]), "process.user.additionalGids"),
        ("/process/capabilities/ambient", json!(["CAP_CHOWN"]), "process.capabilities.ambient"),
        ("/mounts/0/options", json!(["remount"]), "remount"),
        ("/mounts/0/type", json!("bind"), "by descriptor"),
    ] {
        let mut recipe = Recipe::new(&image, "");
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        recipe.spec.pointer_mut(parent).unwrap()[key] = value;
        let failure = recipe.run().unwrap_err();
        assert_eq!(failure.step, "specification", "{pointer}: {failure}");
        assert!(failure.message.contains(name), "{pointer}: {failure}");
    }
}

#[test]
fn a_host_name_that_was_not_set_is_refused() {
    let image = Image::new();
    let mut recipe = Recipe::new(&image, "");
    recipe.spec["hostname"] = json!("surely-not-this-host");
    let failure = recipe.run().unwrap_err();
    assert_eq!(failure.step, "namespace");
    assert!(failure.message.contains("surely-not-this-host"), "{failure}");
}

#[test]
fn a_security_module_this_host_lacks_is_refused() {
    let image = Image::new();
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    for (field, module) in [("apparmorProfile", "apparmor"), ("selinuxLabel", "selinux")] {
        if modules.contains(module) {
            continue;
        }
        let mut recipe = Recipe::new(&image, "");
        recipe.spec["process"][field] = json!("some:profile");
        let failure = recipe.run().unwrap_err();
        assert_eq!(failure.step, "security label");
        assert!(failure.message.contains("this host's kernel"), "{failure}");
    }
}
