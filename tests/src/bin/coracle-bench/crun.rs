//! `crun run`, to compare with.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::{Signal, images_directory};

/// Where controllers are on v1 and some on v2, crun refuses to run: it is shown a machine without the v2 tree.
pub(crate) fn where_it_can() -> Command {
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$0\" crun \"$1\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe().expect("a program knows its own path"))
        .arg(images_directory());
    command
}

/// `crun run` of the same root file system at each turn: the times from the command to the program, and to the
/// command's end.
pub(crate) fn run(rootfs: &Path) {
    let bundle = std::env::temp_dir().join(format!("coracle-bench-bundle-{}", std::process::id()));
    fs::create_dir(&bundle).expect("a directory for the bundle");
    let signal = Signal::in_directory(bundle.join("signal"));
    let spec = Command::new("crun").arg("spec").current_dir(&bundle).status();
    assert!(spec.expect("crun is installed").success());
    let path = bundle.join("config.json");
    let mut spec: Value =
        serde_json::from_slice(&fs::read(&path).expect("crun wrote it")).expect("it is JSON");
    spec["root"] = json!({"path": rootfs, "readonly": false});
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["/bin/sh", "-c", "echo run > /signal/pipe"]);
    let mounts = spec["mounts"].as_array_mut().expect("a list");
    mounts.push(
        json!({"destination": "/signal", "source": signal.directory, "type": "bind", "options": ["bind"]}),
    );
    fs::write(&path, spec.to_string()).expect("the bundle is writable");

    for (number, turn) in std::io::stdin().lines().enumerate() {
        turn.expect("standard input");
        let id = format!("coracle-bench-{}-{number}", std::process::id());
        let begin = Instant::now();
        let mut child = Command::new("crun")
            .args(["--cgroup-manager=cgroupfs", "run", "--bundle"])
            .arg(&bundle)
            .arg(id)
            .stdin(Stdio::null())
            .spawn()
            .expect("crun is installed");
        let to_program = signal.wait("run") - begin;
        assert!(child.wait().expect("crun's end").success());
        let whole = begin.elapsed();
        println!("{:.3} {:.3}", to_program.as_secs_f64() * 1e3, whole.as_secs_f64() * 1e3);
    }
    let _ = fs::remove_dir_all(&bundle);
}
