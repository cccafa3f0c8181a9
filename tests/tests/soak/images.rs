//! Images of the soak: while all else happens they are pulled, pulls are killed, and they are removed and collected.
//!
//! Some are nobody's but the soak's. Another one pods have, pulled for each of their containers; its tag goes to and fro
//! between two.

use std::fs;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coracle_tests::images;
use coracle_tests::network::listen_in;
use coracle_tests::node::Node;
use coracle_tests::random::{Random, noise};
use coracle_tests::registry::{Body, Content, Image, Registry, tar_of};
use coracle_tests::wait::{SOON, deadline};
use serde_json::{Value, json};

/// Where the registry listens on the machine.
const REGISTRY: &str = "127.0.0.1:5000";
/// How many images nobody has but the soak.
const FREE: u64 = 12;
/// How many pulls run at once, beside those for pods.
const AT_ONCE: usize = 3;

/// The image that pods have.
pub(crate) const OF_PODS: &str = "127.0.0.1:5000/soak/pods:1";

/// The registry, and what is asked of it.
pub(crate) struct Images {
    content: Arc<Mutex<Content>>,
    /// What the pods' tag may stand for.
    of_pods: [coracle_tests::registry::Descriptor; 2],
    pulls: Vec<(Child, bool)>,
    _registry: Registry,
}

// === impl Images ===

impl Images {
    pub(crate) fn start(node: &Node) -> Self {
        let base = busybox();
        let mut content = Content::default();
        let mut image =
            |layers: &[Vec<u8>]| content.image(&Image::of(layers, &json!({"Env": ["PATH=/bin"]})));
        let mark = |text: &str| tar_of(&[("mark", text.as_bytes())]);
        let of_pods = ["one", "two"].map(|text| image(&[base.clone(), mark(text)]));
        let free: Vec<_> = (0..FREE)
            .map(|number| {
                let own = tar_of(&[("own", &noise(200_000, number + 1)), ("dir/mark", b"x")]);
                // Each with a layer that its neighbour has as well.
                image(&[mark(&format!("{}", number / 2)), own, mark("above")])
            })
            .collect();
        content.tag("soak/pods", "1", &of_pods[0]);
        for (number, descriptor) in free.iter().enumerate() {
            content.tag("soak/free", &number.to_string(), descriptor);
        }
        let content = Arc::new(Mutex::new(content));
        let answers = Arc::clone(&content);
        let address = REGISTRY.parse().expect("an address");
        let listener = listen_in(node.machine().init(), address).expect("the machine's loopback is up");
        let registry = Registry::start_at(listener, move |request| {
            let reply = answers.lock().expect("nobody panicked").answer(request);
            let is_large =
                matches!(&reply.body, Body::Whole(bytes) if (100_000..400_000).contains(&bytes.len()));
            // Slow enough to be killed in the midst of it.
            if request.is_blob() && is_large {
                return reply.sent(|bytes| Body::Trickle(bytes, 32 << 10, Duration::from_millis(20)));
            }
            reply
        });
        Self { content, of_pods, pulls: Vec::new(), _registry: registry }
    }

    /// Does one thing, and says which.
    pub(crate) fn disturb(&mut self, node: &Node, random: &mut Random) -> &'static str {
        self.reap();
        let free = format!("{REGISTRY}/soak/free:{}", random.below(FREE));
        match random.below(20) {
            0..8 if self.pulls.len() < AT_ONCE => {
                let mut pull = node.command(&["image", "pull", "--quiet", &free]);
                pull.stdout(Stdio::null()).stderr(Stdio::piped());
                self.pulls.push((pull.spawn().expect("util-linux's nsenter is installed"), false));
                "pulls begun"
            }
            0..12 => match self.pulls.last_mut() {
                Some((pull, killed)) => {
                    *killed = true;
                    let _ = pull.kill();
                    "pulls killed"
                }
                None => "missed",
            },
            12..16 => {
                // Perhaps it is not there.
                let answer = node.coracle(&["image", "rm", &free]);
                let known = answer.code == 0 || answer.stderr.contains("is not in the store");
                assert!(known, "{}: {}", answer.code, answer.stderr);
                "images removed"
            }
            16..18 => {
                let next = &self.of_pods[random.below(2) as usize];
                self.content.lock().expect("nobody panicked").tag("soak/pods", "1", next);
                "tags moved"
            }
            _ => {
                node.coracle_ok(&["image", "prune", "--all", "--force"]);
                "images collected"
            }
        }
    }

    /// Looks at the pulls that have ended: none has failed but those that were killed.
    fn reap(&mut self) {
        for (mut pull, killed) in std::mem::take(&mut self.pulls) {
            match pull.try_wait().expect("it is a child") {
                None => self.pulls.push((pull, killed)),
                Some(status) => {
                    let said = pull.wait_with_output().map(|output| output.stderr).unwrap_or_default();
                    let said = String::from_utf8_lossy(&said).into_owned();
                    // One that was removed the moment it was there is not there.
                    let is_removed = said.contains("is not in the store");
                    assert!(killed || is_removed || status.success(), "a pull has failed: {status}: {said}");
                }
            }
        }
    }

    /// Waits for the pulls, and collects: what then is there has to be there, and nothing is damaged.
    pub(crate) fn settle(&mut self, node: &Node) {
        let end = deadline(SOON);
        while !self.pulls.is_empty() {
            assert!(Instant::now() < end, "{} pulls do not end", self.pulls.len());
            self.reap();
            std::thread::sleep(Duration::from_millis(20));
        }
        let end = deadline(SOON);
        loop {
            node.coracle_ok(&["image", "prune", "--all", "--force"]);
            let wrong = left(node);
            if wrong.is_empty() {
                break;
            }
            // A pod that goes, or a pull that was killed, holds what it had for a moment.
            assert!(Instant::now() < end, "{wrong:#?}\n{}", node.agent_log());
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(node.coracle_ok(&["image", "verify"]), "all images are whole\n");
    }
}

/// What is in the store and belongs to no image of a pod.
fn left(node: &Node) -> Vec<String> {
    let names = |place: &str| -> Vec<String> {
        let entries = fs::read_dir(node.path(place)).expect("the store's directory").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    // A record that was being written goes after an hour.
    let mut left: Vec<_> =
        names("root/images/tmp").into_iter().filter(|name| !name.starts_with("file-")).collect();
    let text = node.coracle_ok(&["image", "ls", "--output", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let images = list.as_array().cloned().unwrap_or_default();
    // The node's own, and two that the pods' tag stood for.
    if images.len() > 3 || text.contains("/soak/free:") {
        left.push(text);
    }
    let layers = names("root/images/layers");
    if layers.len() > 4 {
        left.push(format!("layers: {layers:?}"));
    }
    left
}

/// The root file system of busybox, as a layer's archive.
fn busybox() -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    images::unpack("busybox", directory.path());
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive.append_dir_all(".", directory.path()).expect("what was unpacked can be read");
    archive.into_inner().expect("memory takes it")
}
