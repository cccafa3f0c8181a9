//! Manifests that are wrong in every way: an error each, no harm to anything else.

use std::fs;
use std::io::Write;
use std::time::Duration;

use coracle_tests::manifests::{idle, pod};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, container_id};
use coracle_tests::processes::memory_kb;
use coracle_tests::wait::{SOON, holds_for, wait_for, wait_until};

/// A good manifest, to be spoilt.
const GOOD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: bad
spec:
  containers:
    - name: c
      image: localhost/busybox:debian
      command: [\"sleep\", \"1000\"]
      volumeMounts:
        - name: data
          mountPath: /data
  volumes:
    - name: data
      hostPath:
        path: /tmp/coracle-bad
";

/// Fifty of them, each with what makes it wrong.
fn manifests() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |what: &str, text: &[u8]| all.push((what.to_owned(), text.to_owned()));

    // Cut off at places where what is left is no pod.
    for at in ["  name: bad", "metadata", "spec:", "    - name: c", "      image"] {
        let end = GOOD.find(at).expect("part of the manifest") + at.len();
        add("truncated", &GOOD.as_bytes()[..end]);
    }
    add("truncated in a list", &GOOD.as_bytes()[..GOOD.find(", \"1000\"").expect("part of the manifest")]);

    // One place changed for another.
    let replaced = [
        ("a number for the API version", "apiVersion: v1", "apiVersion: 1"),
        ("another version", "apiVersion: v1", "apiVersion: v2"),
        ("another kind", "kind: Pod", "kind: Pud"),
        ("a kind the node has not", "kind: Pod", "kind: Service"),
        ("a list for a map", "metadata:\n  name: bad", "metadata: [name, bad]"),
        ("a map for a name", "  name: bad", "  name: {a: b}"),
        ("a number for a name", "  name: bad", "  name: 17"),
        ("no name", "  name: bad", "  labels: {}"),
        ("an upper-case name", "  name: bad", "  name: BAD"),
        ("a name that is a path", "  name: bad", "  name: ../../bad"),
        ("a name that is long", "  name: bad", &format!("  name: {}", "a".repeat(300))),
        ("a namespace that is a path", "  name: bad", "  name: bad\n  namespace: ../x"),
        ("a UID that is a path", "  name: bad", "  name: bad\n  uid: ../../../etc"),
        ("a null for the containers", "  volumes:", "  x-volumes:"),
        ("an unknown field", "      image:", "      imagine: x\n      image:"),
        ("an unknown field at the top", "kind: Pod", "kind: Pod\nspek: {}"),
        ("a text for a number", "  volumes:", "  terminationGracePeriodSeconds: soon\n  volumes:"),
        ("a negative time", "  volumes:", "  terminationGracePeriodSeconds: -5\n  volumes:"),
        ("a text for a boolean", "  volumes:", "  hostNetwork: \"maybe\"\n  volumes:"),
        ("an unknown policy", "  volumes:", "  restartPolicy: Sometimes\n  volumes:"),
        ("a duplicate key", "kind: Pod", "kind: Pod\nkind: Pod"),
        ("a duplicate key deep inside", "      image:", "      image: other\n      image:"),
        (
            "a duplicate container",
            "  volumes:",
            "    - name: c\n      image: localhost/busybox:debian\n  volumes:",
        ),
        (
            "a mount of no volume",
            "        - name: data\n          mountPath",
            "        - name: date\n          mountPath",
        ),
        ("a relative mount path", "mountPath: /data", "mountPath: \"\""),
        ("a sub path that climbs", "mountPath: /data", "mountPath: /data\n          subPath: ../../etc"),
        ("an absolute sub path", "mountPath: /data", "mountPath: /data\n          subPath: /etc"),
        ("a host path that climbs", "path: /tmp/coracle-bad", "path: /tmp/../etc"),
        ("two sources of a volume", "      hostPath:", "      emptyDir: {}\n      hostPath:"),
        ("a volume of no kind", "      hostPath:\n        path: /tmp/coracle-bad\n", "      wormhole: {}\n"),
        ("an argument that is no text", "[\"sleep\", \"1000\"]", "[\"sleep\", {\"a\": 1}]"),
        ("a tab for an indent", "  containers:", "\tcontainers:"),
        ("an undefined alias", "kind: Pod", "kind: *pod"),
        ("an unclosed quote", "kind: Pod", "kind: \"Pod"),
        ("a NUL", "kind: Pod", "kind: P\0d"),
    ];
    for (what, from, to) in replaced {
        assert!(GOOD.contains(from), "{what}: the good manifest has no {from:?}");
        add(what, GOOD.replacen(from, to, 1).as_bytes());
    }

    let bomb: String = (1..30).fold("a0: &a0 [x,x]\n".to_owned(), |text, level| {
        let last = level - 1;
        text + &format!("a{level}: &a{level} [*a{last},*a{last},*a{last},*a{last},*a{last}]\n")
    });
    add("an alias bomb", format!("{bomb}{GOOD}").as_bytes());
    add("a merge key that is its own parent", format!("x: &x\n  <<: *x\n{GOOD}").as_bytes());
    add("deep nesting", &[b"[".repeat(200_000), b"]".repeat(200_000)].concat());
    add("deep nesting in JSON", &b"{\"a\":".repeat(100_000));
    add("bytes that are no text", &[0xff, 0xfe, 0x00, 0x80].repeat(100));
    add("a program", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0>\0");
    add(
        "a list with one bad pod",
        format!("apiVersion: v1\nkind: List\nitems: [{{kind: Pod}}]\n---\n{GOOD}").as_bytes(),
    );
    add("a text", b"just a text");
    all
}

#[test]
fn fifty_malformed_manifests_are_each_reported_and_harm_nothing() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("good", vec![idle("c")]));
    let good = node.wait_running("good");
    let pid = node.container_pid(&good, "c");
    let memory = || memory_kb(node.agent_pid(), "VmHWM").expect("the agent runs");
    let before = memory();

    let mut names = Vec::new();
    let manifests = manifests();
    assert_eq!(manifests.len(), 49);
    for (number, (what, text)) in manifests.iter().enumerate() {
        let name = format!("bad-{number:02}.yaml");
        node.write_manifest_text(&name, text);
        names.push((name, what.clone()));
    }
    // The fiftieth: 100 MB, under its own name from the start so that it is also seen growing.
    let mut large = fs::File::create(node.path("manifests/bad-large.yaml")).unwrap();
    let block = format!("{}\n", "# nothing but a comment".repeat(40)).repeat(1000);
    for _ in 0..(100 << 20) / block.len() {
        large.write_all(block.as_bytes()).unwrap();
    }
    drop(large);
    names.push(("bad-large.yaml".to_owned(), "100 MB".to_owned()));

    for (name, what) in &names {
        wait_for(format_args!("{name} ({what}) to be reported"), SOON, || {
            let log = node.agent_log();
            let line = log.lines().find(|line| line.contains(name.as_str()))?;
            assert!(line.len() < 4000, "the report of {name} is {} bytes long", line.len());
            Some(())
        });
    }
    let grown = memory() - before;
    assert!(grown < 64 * 1024, "the agent's memory grew by {grown} kB");
    assert_eq!(
        node.pods().len(),
        1,
        "none of them became a pod: {:?}",
        node.coracle_ok(&["get", "pods", "-A"])
    );
    let after = node.wait_running("good");
    assert_eq!((container_id(&after, "c"), node.container_pid(&after, "c")), (container_id(&good, "c"), pid));
    node.run(&pod("later", vec![idle("c")]));
    node.wait_running("later");
    node.finish();
}

#[test]
fn things_that_are_no_files_do_not_stop_the_watch() {
    needs_root!();
    let node = Node::start();
    let directory = node.path("manifests");
    fs::create_dir(directory.join("directory.yaml")).unwrap();
    std::os::unix::fs::symlink("loop.yaml", directory.join("loop.yaml")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", directory.join("endless.yaml")).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.join("dangling.yaml")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(directory.join("fifo.yaml")).status().unwrap();
    assert!(fifo.success());
    node.run(&pod("good", vec![idle("c")]));
    node.wait_running("good");
    fs::remove_dir(directory.join("directory.yaml")).unwrap();
    node.finish();
}

#[test]
fn a_manifest_is_not_acted_on_before_it_is_whole() {
    needs_root!();
    let node = Node::start();
    let text = pod("slow", vec![idle("c")]).to_string() + "\n";
    let mut file = fs::File::create(node.path("manifests/slow.yaml")).unwrap();
    let (first, second) = text.split_at(text.len() / 2);
    file.write_all(first.as_bytes()).unwrap();
    file.sync_all().unwrap();
    holds_for("nothing is said of a half-written file", Duration::from_millis(500), || {
        !node.agent_log().contains("slow.yaml")
    });
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    node.wait_running("slow");
    node.finish();
}

#[test]
fn a_manifest_that_became_invalid_leaves_its_pod_alone() {
    needs_root!();
    let node = Node::start();
    node.run(&pod("kept", vec![idle("c")]));
    let before = node.wait_running("kept");
    node.write_manifest_text("kept.yaml", b"apiVersion: v1\nkind: Pod\nmetadata:\n  nam: kept\n");
    wait_until("the error to be reported", SOON, || {
        node.agent_log().lines().any(|line| line.contains("kept.yaml:4") && line.contains("nam"))
    });
    let after = node.wait_running("kept");
    assert_eq!(container_id(&after, "c"), container_id(&before, "c"));
    node.finish();
}

#[test]
fn two_files_that_claim_one_pod_are_both_named() {
    needs_root!();
    let node = Node::start();
    node.write_manifest("first.yaml", &pod("claimed", vec![idle("c")]));
    let before = node.wait_running("claimed");
    node.write_manifest("second.yaml", &pod("claimed", vec![idle("d")]));
    wait_until("the conflict to be reported", SOON, || {
        node.agent_log().lines().any(|line| line.contains("first.yaml") && line.contains("second.yaml"))
    });
    let after = node.wait_running("claimed");
    assert_eq!(container_id(&after, "c"), container_id(&before, "c"));
    node.finish();
}
