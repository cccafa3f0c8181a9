//! Logs: the CRI format, no line lost or doubled, rotation.

use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use coracle_tests::manifests::{pod, shell, with, with_host_path};
use coracle_tests::needs_root;
use coracle_tests::node::{Node, uid};
use coracle_tests::wait::{SOON, wait_until};
use serde_json::json;

/// The content of CRI log lines, partial lines joined, as (stream, line).
fn parse(text: &str) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let mut parts = line.splitn(4, ' ');
        let mut next = || parts.next().unwrap_or_else(|| panic!("not a CRI line: {line:?}")).to_owned();
        let (_time, stream, tag, content) = (next(), next(), next(), next());
        match lines.last_mut() {
            Some(last) if open && last.0 == stream => last.1.push_str(&content),
            _ => lines.push((stream, content)),
        }
        open = tag == "P";
    }
    lines
}

fn assert_counts_to(last: usize, lines: impl Iterator<Item = String>) {
    let mut expected = 1..=last;
    for line in lines {
        let wanted = expected.next().map(|number| number.to_string());
        assert_eq!(Some(&line), wanted.as_ref(), "a line was lost, doubled or torn");
    }
    assert_eq!(expected.next(), None, "lines are missing at the end");
}

#[test]
fn both_streams_in_cri_format_under_the_kubelets_paths() {
    needs_root!();
    let node = Node::start();
    let script = "echo out; echo err >&2; printf 'no newline'";
    node.run(&with(pod("both", vec![shell("c", script)]), "spec.restartPolicy", json!("Never")));
    let seen = node.wait_phase("both", "Succeeded");
    let files = node.log_files(&seen, "c");
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].ends_with("c/0.log"), "{files:?}");
    let mut lines = parse(&fs::read_to_string(&files[0]).unwrap());
    lines.sort();
    let expected = [("stderr", "err"), ("stdout", "no newline"), ("stdout", "out")];
    assert_eq!(lines, expected.map(|(stream, line)| (stream.to_owned(), line.to_owned())));
    let links: Vec<_> =
        fs::read_dir(node.path("log/containers")).unwrap().map(|link| link.unwrap().path()).collect();
    assert_eq!(links.len(), 1, "{links:?}");
    let name = links[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("both_default_c-") && name.ends_with(".log"), "{name}");
    assert_eq!(fs::canonicalize(&links[0]).unwrap(), fs::canonicalize(&files[0]).unwrap());
    node.finish();
}

#[test]
fn no_line_is_lost_or_doubled_when_the_agent_is_killed() {
    needs_root!();
    const LINES: usize = 60_000;
    let mut node = Node::start();
    // Bursts, so that a kill finds pipes full, empty and in between.
    let script =
        "i=0; while [ $i -lt 300 ]; do seq $((i*200+1)) $((i*200+200)); usleep 10000; i=$((i+1)); done";
    node.run(&with(pod("counter", vec![shell("c", script)]), "spec.restartPolicy", json!("Never")));
    node.wait_log("counter", "c", "1\n");
    for round in 0..6_u64 {
        // Moments that differ; none of them is waited for.
        std::thread::sleep(Duration::from_micros(170_003 * (round % 3) + 91_009 * round));
        node.kill_agent();
        node.start_agent();
    }
    let seen = node.wait_phase("counter", "Succeeded");
    let text: String =
        node.log_files(&seen, "c").iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert_counts_to(LINES, parse(&text).into_iter().map(|(_, line)| line));
    assert_counts_to(LINES, node.logs("counter", "c").lines().map(str::to_owned));
    node.finish();
}

#[test]
fn a_container_writes_on_while_no_agent_runs() {
    needs_root!();
    let mut node = Node::start();
    let data = node.path("data");
    let script = "echo before; until [ -e /data/go ]; do usleep 10000; done; echo meanwhile; touch /data/done; sleep 1000";
    node.run(&with_host_path(pod("writer", vec![shell("c", script)]), "data", &data, "/data"));
    node.wait_log("writer", "c", "before");
    node.kill_agent();
    fs::write(data.join("go"), "").unwrap();
    wait_until("the container to go on without an agent", SOON, || data.join("done").exists());
    node.start_agent();
    assert_eq!(node.wait_log("writer", "c", "meanwhile"), "before\nmeanwhile\n");
    node.finish();
}

#[test]
fn a_follower_sees_every_line_across_rotations() {
    needs_root!();
    const LINES: usize = 20_000;
    const SIZE: u64 = 64 * 1024;
    let node = Node::start_with("containerLogMaxSize: 64Ki\ncontainerLogMaxFiles: 3\n");
    let data = node.path("data");
    let script = "until [ -e /data/go ]; do usleep 10000; done; \
                  i=0; while [ $i -lt 200 ]; do seq $((i*100+1)) $((i*100+100)); usleep 20000; i=$((i+1)); done";
    let counter = with_host_path(pod("counter", vec![shell("c", script)]), "data", &data, "/data");
    node.run(&with(counter, "spec.restartPolicy", json!("Never")));
    node.wait_running("counter");
    let mut follower =
        node.command(&["logs", "--follow", "counter"]).stdout(Stdio::piped()).spawn().expect("a follower");
    fs::write(data.join("go"), "").unwrap();
    let mut text = String::new();
    follower.stdout.take().expect("piped").read_to_string(&mut text).unwrap();
    assert!(follower.wait().unwrap().success(), "the follower ends with the container");
    assert_counts_to(LINES, text.lines().map(str::to_owned));

    let seen = node.wait_phase("counter", "Succeeded");
    let files = node.log_files(&seen, "c");
    assert!((2..=3).contains(&files.len()), "rotated, and no more than three kept: {files:?}");
    for file in &files {
        let length = fs::metadata(file).unwrap().len();
        // A file is rotated when it is seen to be over its size: by less than what one look finds.
        assert!(length < 4 * SIZE, "{} has {length} bytes", file.display());
    }
    node.finish();
}

#[test]
fn the_log_of_the_run_before_is_kept() {
    needs_root!();
    let node = Node::start();
    let data = node.path("data");
    let script = "echo x >> /data/runs; echo run $(wc -l < /data/runs); \
                  [ $(wc -l < /data/runs) -gt 1 ] || exit 1; sleep 1000";
    let twice = with_host_path(pod("twice", vec![shell("c", script)]), "data", &data, "/data");
    node.run(&with(twice, "spec.restartPolicy", json!("OnFailure")));
    node.wait_log("twice", "c", "run 2");
    assert_eq!(node.coracle_ok(&["logs", "--previous", "twice"]), "run 1\n");
    assert_eq!(node.coracle_ok(&["logs", "--tail", "1", "twice"]), "run 2\n");
    assert!(!uid(&node.pod("twice").unwrap()).is_empty());
    node.finish();
}

#[test]
fn a_follower_sees_every_line_across_rotations_and_agents() {
    needs_root!();
    const BURSTS: usize = 240;
    const BURST: usize = 200;
    // None is removed, so that all of them can be counted.
    let mut node = Node::start_with("containerLogMaxSize: 16Ki\ncontainerLogMaxFiles: 1000\n");
    let data = node.path("data");
    let script = format!(
        "until [ -e /data/go ]; do usleep 10000; done; i=0; while [ $i -lt {BURSTS} ]; do \
         seq $((i*{BURST}+1)) $((i*{BURST}+{BURST})); usleep 20000; i=$((i+1)); done"
    );
    let counter = with_host_path(pod("counter", vec![shell("c", &script)]), "data", &data, "/data");
    node.run(&with(counter, "spec.restartPolicy", json!("Never")));
    let seen = node.wait_running("counter");
    let follow = |more: &[&str]| {
        let arguments = [&["logs", "--follow", "counter"], more].concat();
        node.command(&arguments).stdout(Stdio::piped()).spawn().expect("a follower")
    };
    let mut followers = [follow(&[]), follow(&["--timestamps"])];
    let readers = followers.each_mut().map(|follower| {
        let mut pipe = follower.stdout.take().expect("piped");
        std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text)
        })
    });
    fs::write(data.join("go"), "").unwrap();
    for (rotations, crash) in [(10, true), (20, false), (30, true), (50, true)] {
        wait_until(format_args!("{rotations} rotations"), SOON, || {
            node.log_files(&seen, "c").len() > rotations
        });
        if crash {
            node.kill_agent();
        } else {
            node.stop_agent();
        }
        node.start_agent();
    }
    for follower in &mut followers {
        assert!(follower.wait().unwrap().success(), "a follower ends with the container");
    }
    let [plain, timed] = readers.map(|reader| reader.join().unwrap().unwrap());
    assert_counts_to(BURSTS * BURST, plain.lines().map(str::to_owned));
    let numbers = timed.lines().map(|line| line.split_once(' ').expect("a time").1.to_owned());
    assert_counts_to(BURSTS * BURST, numbers);
    node.wait_phase("counter", "Succeeded");
    node.finish();
}

#[test]
fn a_log_that_was_removed_is_made_anew() {
    needs_root!();
    let node = Node::start();
    let data = node.path("data");
    let script = "echo before; until [ -e /data/go ]; do usleep 10000; done; echo after; sleep 1000";
    node.run(&with_host_path(pod("writer", vec![shell("c", script)]), "data", &data, "/data"));
    node.wait_log("writer", "c", "before");
    let files = node.log_files(&node.wait_running("writer"), "c");
    fs::remove_file(&files[0]).unwrap();
    fs::write(data.join("go"), "").unwrap();
    assert_eq!(node.wait_log("writer", "c", "after"), "after\n");
    node.finish();
}

#[test]
fn a_container_whose_log_cannot_be_taken_up_again_writes_on() {
    needs_root!();
    let mut node = Node::start();
    let data = node.path("data");
    // More than a pipe holds.
    let script = "echo before; until [ -e /data/go ]; do usleep 10000; done; seq 100000; touch /data/done; \
                  while true; do echo again; usleep 100000; done";
    node.run(&with_host_path(pod("writer", vec![shell("c", script)]), "data", &data, "/data"));
    node.wait_log("writer", "c", "before");
    let files = node.log_files(&node.wait_running("writer"), "c");
    let dir = files[0].parent().unwrap();
    node.kill_agent();
    let (aside, elsewhere) = (dir.with_extension("aside"), node.path("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(dir, &aside).unwrap();
    std::os::unix::fs::symlink(&elsewhere, dir).unwrap();
    node.start_agent();
    fs::write(data.join("go"), "").unwrap();
    wait_until("the container to write on", SOON, || data.join("done").exists());
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "no link is followed");
    fs::remove_file(dir).unwrap();
    fs::rename(&aside, dir).unwrap();
    node.wait_log("writer", "c", "again\n");
    node.finish();
}
