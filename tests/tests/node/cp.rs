//! `coracle cp`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use coracle_tests::images::NGINX;
use coracle_tests::manifests::{idle, pod, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::Node;
use serde_json::json;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Bytes that differ from each other, so many.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn files_and_directories_go_both_ways() {
    needs_root!();
    let node = Node::start();
    let mut target = pod("target", vec![idle("a"), idle("b")]);
    target["metadata"]["namespace"] = json!("other");
    node.run(&target);
    node.wait_running("target");
    let tree = node.path("tree");
    fs::create_dir_all(tree.join("sub/deep")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    let big = bytes(24 << 20);
    fs::write(tree.join("big"), &big).unwrap();
    fs::write(tree.join("sub/deep/small"), "small").unwrap();
    fs::write(tree.join("sub").join("n".repeat(150)), "long").unwrap();
    fs::set_permissions(tree.join("sub/deep/small"), fs::Permissions::from_mode(0o754)).unwrap();
    chown(tree.join("sub/deep/small"), Some(1000), Some(1001)).unwrap();
    symlink("sub/deep/small", tree.join("link")).unwrap();
    let exec = |script: &str| {
        node.coracle_ok(&["exec", "-n", "other", "target", "-c", "b", "--", "sh", "-c", script])
    };

    // A new directory, under its own name; then into one that is there.
    node.coracle_ok(&["cp", text(&tree), "other/target:/tmp/new", "-c", "b"]);
    node.coracle_ok(&["cp", text(&tree), "-n", "other", "target:/tmp", "-c", "b"]);
    let sum = exec("sha256sum < /tmp/new/big");
    assert_eq!(sum, exec("sha256sum < /tmp/tree/big"));
    assert_eq!(
        exec("cat /tmp/new/sub/deep/small /tmp/tree/link; ls -d /tmp/new/empty"),
        "smallsmall/tmp/new/empty\n"
    );
    assert_eq!(exec("stat -c '%a %u %g' /tmp/new/sub/deep/small"), "754 1000 1001\n");
    assert_eq!(exec("readlink /tmp/new/link"), "sub/deep/small\n");
    let elsewhere = node.coracle(&["exec", "-n", "other", "target", "-c", "a", "--", "ls", "/tmp/new"]);
    assert_ne!(elsewhere.code, 0, "the other container has none of it");

    // A file: into a directory, under a new name, and in place of another.
    let small = tree.join("sub/deep/small");
    node.coracle_ok(&["cp", "--no-preserve", text(&small), "other/target:/run/", "-c", "b"]);
    assert_eq!(exec("cat /run/small; stat -c ' %u' /run/small"), "small 0\n");
    node.coracle_ok(&["cp", text(&tree.join("big")), "other/target:run/small", "-c", "b"]);
    assert_eq!(exec("sha256sum < /run/small"), sum);

    // And back: what is in a directory, and a file.
    let back = node.path("back");
    let answer = node.coracle(&["cp", "other/target:/tmp/new/", text(&back), "-c", "b"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(fs::read(back.join("big")).unwrap() == big, "it came back as it went");
    assert_eq!(fs::read(back.join("sub/deep/small")).unwrap(), b"small");
    assert_eq!(fs::read(back.join("sub").join("n".repeat(150))).unwrap(), b"long");
    assert!(back.join("empty").is_dir());
    let came = fs::metadata(back.join("sub/deep/small")).unwrap();
    assert_eq!((came.uid(), came.mode() & 0o111), (0, 0), "it is the user's");
    assert!(fs::symlink_metadata(back.join("link")).is_err());
    let warning = format!(
        "warning: skipping symlink: {:?} -> \"sub/deep/small\" (consider using \"coracle exec -n \"other\"",
        back.join("link")
    );
    assert!(answer.stderr.contains(&warning), "{}", answer.stderr);
    let one = node.path("one");
    node.coracle_ok(&["cp", "other/target:tmp/../tmp/new/sub/deep/small", text(&one), "-c", "b"]);
    assert_eq!(fs::read(&one).unwrap(), b"small");
    assert_eq!(
        node.coracle_ok(&["cp", "other/target:/tmp/new/sub/deep/small", "/dev/stdout", "-c", "b"]),
        "small"
    );
    node.finish();
}

#[test]
fn what_cannot_be_copied_is_said() {
    needs_root!();
    let node = Node::start();
    node.import("nginx", NGINX);
    let bare = with(idle("c"), "image", json!(NGINX));
    node.run(&pod("bare", vec![with(bare, "command", json!(["/usr/sbin/nginx", "-g", "daemon off;"]))]));
    node.run(&pod("target", vec![idle("c")]));
    node.wait_running("bare");
    node.wait_running("target");
    let file = node.path("file");
    fs::write(&file, "x").unwrap();
    let (file, here) = (text(&file).to_owned(), text(&node.path("")).to_owned());
    for (arguments, code, message) in [
        (&["/no/such", "target:/x"][..], 1, "error: /no/such doesn't exist in local filesystem"),
        (&[&file, "target:/no/such/x"], 1, "command terminated with exit code 1"),
        (&["target:/no/such", &file], 1, "command terminated with exit code 1"),
        (&["target:/bin/busybox", &here], 1, "it is a directory: name the file in it"),
        (&["target:/etc/..", &here], 1, "/etc/.. leads upwards: name the directory itself"),
        (&[&file, &file], 1, "one of src or dest must be a remote file specification"),
        (&[&file, "nobody:/x"], 1, "pods \"nobody\" not found"),
        (&[&file, "bare:/x"], 1, "tar"),
        (&["bare:/etc/passwd", &file], 1, "tar"),
    ] {
        let answer = node.coracle(&[&["cp"], arguments].concat());
        assert_eq!(answer.code, code, "{arguments:?}: {}", answer.stderr);
        assert!(answer.stderr.contains(message), "{arguments:?}: {}", answer.stderr);
    }
    assert_eq!(fs::read(&file).unwrap(), b"x", "it was not touched");
    node.finish();
}

/// A container may answer with any archive: its tar is its own.
#[test]
fn a_hostile_container_reaches_nothing_but_the_destination() {
    needs_root!();
    let node = Node::start();
    let data = node.path("data");
    node.run(&with_host_path(pod("hostile", vec![idle("c")]), "data", &data, "/data"));
    node.wait_running("hostile");
    let fake = "rm /bin/tar; printf '#!/bin/sh\\n. /data/tar\\n' > /bin/tar; chmod 755 /bin/tar";
    node.coracle_ok(&["exec", "hostile", "--", "sh", "-c", fake]);
    let outside = node.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "precious").unwrap();
    let to = node.path("outside-not");

    // A link, and a file through it; a name that leads upwards; and what a terminal would do.
    let script = "mkdir -p src/a; ln -s ../outside src/sent; mkdir b; echo evil > b/precious; \
                  tar -cf one.tar src; tar -cf two.tar --transform s,b/precious,src/sent/precious, b/precious; \
                  tar -cf three.tar --transform s,b/precious,src/../../outside/new, -P b/precious; \
                  tar -A -f one.tar two.tar; tar -A -f one.tar three.tar";
    let made = std::process::Command::new("sh").args(["-ec", script]).current_dir(&data).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::write(data.join("tar"), "printf 'beware \\033[31m\\n' >&2; cat /data/one.tar").unwrap();
    let answer = node.coracle(&["cp", "hostile:src", text(&to)]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    for part in ["beware ^[[31m\n", "warning: skipping symlink: ", "is outside target destination, skipping"]
    {
        assert!(answer.stderr.contains(part), "no {part:?} in {:?}", answer.stderr);
    }
    assert_eq!(fs::read(to.join("sent/precious")).unwrap(), b"evil\n", "a directory of its own");
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["precious"]);
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");

    // What was not asked for, what is no archive, and what never ends.
    for (script, message) in [
        ("cat /data/two.tar | sed s/src/etc/", "tar contents corrupted"),
        ("yes", "tar contents corrupted"),
        ("head -c 1000 /data/one.tar; exit 3", "command terminated with exit code 3"),
    ] {
        fs::write(data.join("tar"), script).unwrap();
        let answer = node.coracle(&["cp", "hostile:src", text(&node.path("refused"))]);
        assert_ne!(answer.code, 0, "{script}");
        assert!(answer.stderr.contains(message), "{script}: {}", answer.stderr);
    }
    node.finish();
}
