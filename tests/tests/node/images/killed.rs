//! The agent is killed at random moments while it pulls.
//!
//! `CORACLE_PULL_KILLS` says how often: a few times in every run, 100 for the whole of it.

use std::fs;
use std::time::{Duration, Instant};

use coracle_tests::needs_root;
use coracle_tests::node::Node;
use coracle_tests::random::{Random, noise};
use coracle_tests::registry::{Body, Content, Image, tar_of};
use coracle_tests::wait::{SOON, deadline, wait_until};
use serde_json::json;

use super::pulling::of;
use super::room::df;
use super::{REGISTRY, blobs, busybox_archive, serve};

/// How long a pull takes, about.
const PULL: Duration = Duration::from_millis(400);

fn kills() -> usize {
    std::env::var("CORACLE_PULL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// What is on its way into the store. A record that was being written, some hundred bytes, goes after an hour.
fn unfinished(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.path("root/images/tmp")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("file-")).collect()
}

#[test]
fn an_agent_that_is_killed_while_it_pulls_leaves_what_the_next_goes_on_with() {
    needs_root!();
    let mut node = Node::start();
    let mut random = Random::new();
    let mut content = Content::default();
    let common = tar_of(&[("common", &noise(300_000, 7))]);
    for number in 0..kills() {
        let own = |part: u64| tar_of(&[("own", &noise(300_000, number as u64 * 10 + part + 100))]);
        let layers = [busybox_archive(), own(1), common.clone(), own(2), own(3)];
        let descriptor = content.image(&Image::of(&layers, &json!({"Env": ["PATH=/bin"]})));
        content.tag("app", &number.to_string(), &descriptor);
    }
    let registry = serve(&node, move |request| {
        let reply = content.answer(request);
        match request.is_blob() {
            // Slow enough to be killed in the middle of it.
            true => reply.sent(|bytes| Body::Trickle(bytes, 16 << 10, Duration::from_millis(7))),
            false => reply,
        }
    });
    for number in 0..kills() {
        let before = blobs(&registry);
        let (pod, image) = (format!("p{number}"), format!("{REGISTRY}/app:{number}"));
        node.run(&of(&pod, &image, "IfNotPresent"));
        wait_until("the pull to begin", SOON, || blobs(&registry) > before);
        std::thread::sleep(Duration::from_micros(random.below(PULL.as_micros() as u64)));
        node.kill_agent();
        // What it has brought so far is a whole image, or none.
        node.coracle_ok(&["image", "verify", "--exact"]);
        node.start_agent();
        node.wait_running(&pod);
        // What the killed agent was at when the image was whole already is removed beside the pods.
        let end = deadline(SOON);
        loop {
            let left = df(&node);
            let there = unfinished(&node);
            if there.is_empty() && left["unreferenced"] == json!(0) {
                break;
            }
            assert!(Instant::now() < end, "{number}: {there:?}, {left:#}\n{}", node.agent_log());
            std::thread::sleep(Duration::from_millis(50));
        }
        node.remove(&pod);
        node.wait_gone(&pod);
    }
    node.coracle_ok(&["image", "verify", "--exact"]);
    drop(registry);
    node.finish();
}
