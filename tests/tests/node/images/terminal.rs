//! `coracle image pull` on a terminal, and on what is none.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use coracle_tests::needs_root;
use coracle_tests::node::binary;
use coracle_tests::random::noise;
use coracle_tests::registry::{Body, Content, Image, Registry, tar_of};
use coracle_tests::terminal::Terminal;
use coracle_tests::wait::{SOON, wait_for};
use serde_json::json;

/// Closed until it is opened, once for all who wait.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let (open, changed) = &*self.0;
        drop(changed.wait_timeout_while(open.lock().unwrap(), SOON, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// A registry of an image `app` of so many layers; a large one goes through the gate and comes bit by bit.
fn registry(layers: usize, gate: &Gate) -> Registry {
    let layer = |number: usize| tar_of(&[(&format!("file{number}"), b"text")]);
    let mut archives: Vec<_> = (1..layers).map(layer).collect();
    archives.push(tar_of(&[("large", &noise(400_000, 7))]));
    let mut content = Content::default();
    let descriptor = content.image(&Image::of(&archives, &json!({})));
    content.tag("app", "latest", &descriptor);
    let gate = gate.clone();
    Registry::start(move |request| {
        let reply = content.answer(request);
        if !matches!(&reply.body, Body::Whole(bytes) if bytes.len() > 100_000) {
            return reply;
        }
        gate.pass();
        reply.sent(|bytes| Body::Trickle(bytes, 50_000, Duration::from_millis(150)))
    })
}

fn pull(root: &tempfile::TempDir, image: &str, output: impl Into<Stdio>, error: impl Into<Stdio>) -> Child {
    let mut pull = Command::new(binary());
    pull.args(["image", "pull", "--root-dir"]).arg(root.path()).arg(image).env("TERM", "xterm");
    pull.stdin(Stdio::null()).stdout(output).stderr(error).spawn().unwrap()
}

/// Beside the build: a temporary directory may be in memory, or on overlayfs.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn a_picture_is_drawn_over_whatever_the_terminals_width_becomes() {
    needs_root!();
    let (gate, root) = (Gate::default(), directory());
    let registry = registry(2, &gate);
    let image = format!("{}/app", registry.host());
    let (terminal, end) = Terminal::open(100, 10);
    let mut child = pull(&root, &image, end.try_clone().unwrap(), end);
    let seen = |what: &str, holds: &dyn Fn(&[String]) -> bool| {
        wait_for(what, SOON, || Some(terminal.rows()).filter(|rows| holds(rows)))
    };
    // From then on nothing happens until the gate opens.
    let rows = seen("one layer to be here, and one to come", &|rows| {
        rows.len() == 3 && rows[1].contains("complete, ") && rows[2].contains("]  0B of ")
    });
    assert!(rows[0].starts_with(&image) && rows[0].contains(": pulling, "), "{rows:#?}");
    terminal.resize(40, 10);
    assert!(terminal.rows().len() > 3, "its lines are broken: {:#?}", terminal.rows());
    gate.open();
    let rows =
        seen("half a bar", &|rows| rows.iter().any(|row| row.contains("[===") && !row.contains("0B of")));
    assert_eq!(rows.len(), 3, "the picture before is still there: {rows:#?}");
    assert!(rows.iter().all(|row| row.len() < 40), "{rows:#?}");
    assert!(child.wait().unwrap().success());
    let rows = terminal.last();
    let pulled = format!("pulled {image}");
    assert!(rows[0].starts_with(&image) && rows[3..].concat().starts_with(&pulled), "{rows:#?}");
    assert!(rows[1].contains("complete, ") && rows[2].contains("complete, "), "{rows:#?}");
}

#[test]
fn more_layers_than_there_are_rows_are_counted() {
    needs_root!();
    let (gate, root) = (Gate::default(), directory());
    gate.open();
    let registry = registry(30, &gate);
    let image = format!("{}/app", registry.host());
    let (terminal, end) = Terminal::open(100, 10);
    let mut child = pull(&root, &image, end.try_clone().unwrap(), end);
    let bar = |row: &String| row.contains("[===") && row.contains(" of ");
    wait_for("the bar of the last", SOON, || {
        let rows = terminal.rows();
        // Nothing of any picture has scrolled away.
        assert!(rows.len() < 10, "{rows:#?}");
        rows.iter().any(bar).then_some(())
    });
    assert!(child.wait().unwrap().success());
    let rows = terminal.last();
    assert_eq!(rows.len(), 3, "{rows:#?}");
    assert_eq!(rows[1], "  30 of 30 layers are here");
    assert!(rows[2].starts_with(&format!("pulled {image}")), "{rows:#?}");
}

#[test]
fn what_has_failed_is_told_below_the_picture() {
    needs_root!();
    let (gate, root) = (Gate::default(), directory());
    gate.open();
    let registry = registry(2, &gate);
    let image = format!("{}/other", registry.host());
    let (terminal, end) = Terminal::open(200, 10);
    let mut child = pull(&root, &image, end.try_clone().unwrap(), end);
    assert!(!child.wait().unwrap().success());
    let rows = terminal.last();
    assert!(rows[0].starts_with(&image), "{rows:#?}");
    assert!(rows[1].starts_with(&format!("error: cannot pull {image}")), "{rows:#?}");
    assert!(rows[1..].concat().contains("404"), "{rows:#?}");
}

#[test]
fn what_is_no_terminal_is_given_plain_lines() {
    needs_root!();
    let (gate, root) = (Gate::default(), directory());
    gate.open();
    let registry = registry(2, &gate);
    let image = format!("{}/app", registry.host());
    let output = pull(&root, &image, Stdio::piped(), Stdio::piped()).wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !error.contains(['\x1b', '\r']), "{error:?}");
    let lines: Vec<_> = error.lines().collect();
    assert!(lines.iter().all(|line| line.starts_with(&image)), "{lines:#?}");
    let told = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!((told(": asking its registry"), told(": complete"), told(": writing to the disk")), (1, 2, 1));
    assert!(lines.last().is_some_and(|line| line.ends_with(": writing to the disk")), "{lines:#?}");
    assert!(String::from_utf8(output.stdout).unwrap().starts_with(&format!("pulled {image}")));
}
