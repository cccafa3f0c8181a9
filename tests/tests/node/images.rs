//! Images of pods: from registries, archives and the node's own store; and which of them go.

mod credentials;
mod killed;
mod pulling;
mod registries;
mod room;
mod terminal;
mod volumes;

use std::net::SocketAddr;
use std::time::Instant;

use coracle_tests::images;
use coracle_tests::network::listen_in;
use coracle_tests::node::{Node, container_status};
use coracle_tests::registry::{Content, Image, Registry, Reply, Request};
use coracle_tests::wait::{SOON, deadline};
use serde_json::{Value, json};

/// Where the machine's registry listens.
const REGISTRY: &str = "127.0.0.1:5000";

/// The root file system of busybox, as a layer's archive.
fn busybox_archive() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    images::unpack("busybox", directory.path());
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive.append_dir_all(".", directory.path()).unwrap();
    archive.into_inner().unwrap()
}

/// An image with busybox and what tells it from others.
fn busybox(mark: &str) -> Image {
    let mark = coracle_tests::registry::tar_of(&[("mark", mark.as_bytes())]);
    Image::of(&[busybox_archive(), mark], &json!({"Env": ["PATH=/bin"]}))
}

/// Serves on the machine's loopback.
fn serve(node: &Node, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Registry {
    serve_at(node, REGISTRY, script)
}

fn serve_at(
    node: &Node,
    address: &str,
    script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Registry {
    let address: SocketAddr = address.parse().unwrap();
    Registry::start_at(listen_in(node.machine().init(), address).unwrap(), script)
}

/// A registry with one image, `team/app:1`.
fn content(image: &Image) -> Content {
    let mut content = Content::default();
    let descriptor = content.image(image);
    content.tag("team/app", "1", &descriptor);
    content
}

/// What was told of an object.
fn events(node: &Node, object: &str) -> Vec<(String, String)> {
    let text = node.coracle_ok(&["get", "events", "--for", object, "--output", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let events = list["items"].as_array().unwrap().iter();
    events.map(|event| (text(event, "reason"), text(event, "message"))).collect()
}

/// Waits for an event whose message begins so; the message.
#[track_caller]
fn wait_event(node: &Node, object: &str, reason: &str, beginning: &str) -> String {
    let end = deadline(SOON);
    loop {
        let events = events(node, object);
        let found = events.iter().find(|(its, message)| its == reason && message.starts_with(beginning));
        if let Some((_, message)) = found {
            return message.clone();
        }
        assert!(Instant::now() < end, "no {reason}, {beginning:?}: {events:#?}\n{}", node.agent_log());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Why a pod's container waits; reason and message.
fn waiting(pod: &Value) -> (String, String) {
    let waiting = &container_status(pod, "c")["state"]["waiting"];
    let text = |key: &str| waiting[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

/// How often blobs were asked for.
fn blobs(registry: &Registry) -> usize {
    registry.asked().iter().filter(|request| request.method == "GET" && request.is_blob()).count()
}
