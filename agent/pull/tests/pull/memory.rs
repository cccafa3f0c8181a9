//! The memory that pulls take, whatever the images are.

use std::io::Write;
use std::process::Command;
use std::time::Duration;

use coracle_tests::needs_root;
use coracle_tests::processes::memory_kb;
use coracle_tests::registry::{Body, Content, Descriptor, Image, Registry, tar_of};
use serde_json::json;

use super::Place;

/// In the process that pulls, while the test serves: whom to pull from.
const REGISTRY: &str = "CORACLE_TEST_MEMORY_REGISTRY";
const THIS: &str = "memory::of_pulls_is_bounded_whatever_windows_their_layers_have";

/// Images, of two layers each.
const IMAGES: usize = 4;
const MOST_KB: u64 = 64 << 10;

/// A layer whose decompressor needs a window of so many bits: as many zeros as fill it follow its archive, so it is large
/// neither on its way nor on the disk.
fn layer(number: usize, window_log: u32) -> (Vec<u8>, String) {
    let mut archive = tar_of(&[("number", number.to_string().as_bytes())]);
    archive.resize(archive.len() + (5 << window_log) / 4, 0);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.write_all(&archive).unwrap();
    (encoder.finish().unwrap(), Descriptor::of("", &archive).digest)
}

fn content() -> Content {
    let mut content = Content::default();
    for image in 0..IMAGES {
        // The last one has what only one layer at a time may have.
        let window_log = if image == IMAGES - 1 { 25 } else { 23 };
        let (layers, diff_ids): (Vec<_>, Vec<_>) =
            (0..2).map(|layer_number| layer(image * 2 + layer_number, window_log)).unzip();
        let descriptor = content.image(&Image::of_layers(layers, &diff_ids, &json!({})));
        content.tag(&format!("app{image}"), "latest", &descriptor);
    }
    content
}

#[tokio::test]
async fn of_pulls_is_bounded_whatever_windows_their_layers_have() {
    needs_root!();
    if let Ok(host) = std::env::var(REGISTRY) {
        return pull_all(&host).await;
    }
    let content = content();
    let registry = Registry::start(move |request| {
        let reply = content.answer(request);
        // So slowly that all of them are under way at once.
        if request.is_blob() {
            reply.sent(|bytes| Body::Trickle(bytes, 100, Duration::from_millis(20)))
        } else {
            reply
        }
    });
    let mut pulls = Command::new(std::env::current_exe().unwrap());
    pulls.args(["--exact", THIS, "--nocapture", "--test-threads=1"]).env(REGISTRY, registry.host());
    let output = pulls.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let most = out.lines().find_map(|line| line.strip_prefix("most memory in kB: ")?.parse::<u64>().ok());
    println!("{most:?} kB at most");
    assert!(most.is_some_and(|most| most < MOST_KB), "{most:?}\n{out}");
}

/// Pulls all images at once, in a process of its own; tells the most memory that took.
async fn pull_all(host: &str) {
    // As every program of ours that pulls does.
    assert!(coracle_linux::keep_malloc_small(2));
    let place = Place::new();
    let names: Vec<_> = (0..IMAGES).map(|image| format!("{host}/app{image}")).collect();
    let pulls = names.iter().map(|name| place.pull(name));
    for pulled in futures_util::future::join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!(place.store.verify_whole().unwrap(), Vec::<String>::new());
    println!("\nmost memory in kB: {}", memory_kb(std::process::id().cast_signed(), "VmHWM").unwrap());
}
