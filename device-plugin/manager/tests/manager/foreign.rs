//! A plugin in Python, written against the published proto alone.

use std::path::Path;
use std::process::Stdio;

use coracle_model::DeviceHealth;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::*;

/// What Python reads the API from: the proto, compiled.
fn descriptors(into: &Path) -> PathBuf {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/proto");
    let compiled = protox::Compiler::new([&protos])
        .unwrap()
        .open_file("deviceplugin_v1beta1.proto")
        .unwrap()
        .encode_file_descriptor_set();
    let path = into.join("descriptors");
    std::fs::write(&path, compiled).unwrap();
    path
}

fn start(node: &Node, descriptors: &Path, ids: &[&str]) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/manager/foreign_plugin.py");
    let mut python = Command::new("/usr/bin/python3");
    python.arg(script).arg(descriptors).arg(node.plugins()).args(["foreign.sock", RESOURCE]).args(ids);
    python.stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn a_foreign_plugin_serves_is_killed_and_comes_back() {
    let mut node = Node::new().await;
    let descriptors = descriptors(node.directory.path());
    let mut python = start(&node, &descriptors, &["1", "2", "3"]);
    node.has(3, 3).await;
    let one = pod("a", 1);
    assert_eq!(node.allocate(&one).await.unwrap(), "3", "which it would rather give");
    let answer = node.manager.prepare(&one, &name("c")).await.unwrap();
    assert_eq!(answer.edits.env, [("FOREIGN".to_owned(), "3".to_owned())]);
    assert_eq!(answer.edits.device_nodes[0].path, "/dev/foreign");
    assert_eq!(answer.edits.mounts[0].options, ["rbind", "ro"]);
    assert_eq!(answer.edits.annotations["example.com/note"], "x");
    assert_eq!(answer.cdi, ["example.com/x=3"]);

    let mut says = python.stdin.take().unwrap();
    says.write_all(b"3\n").await.unwrap();
    node.has(3, 2).await;
    assert_eq!(node.manager.health(&resource(), "3"), DeviceHealth::Unhealthy);
    let failed = node.manager.prepare(&one, &name("c")).await.unwrap_err().to_string();
    assert!(failed.contains("the device is not well"), "{failed}");

    // SIGKILL: its socket stays, and nobody says good-bye.
    python.kill().await.unwrap();
    node.has(3, 0).await;
    let _python = start(&node, &descriptors, &["1", "2", "3"]);
    node.has(3, 3).await;
    assert_eq!(node.allocate(&pod("b", 2)).await.unwrap(), "1,2");
    assert!(node.allocate(&pod("c", 1)).await.is_err());
}
