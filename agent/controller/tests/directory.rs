//! The directory source on real directories with the kernel's inotify.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_controller::{
    Desired, DesiredState, DirectorySource, Known, Manifests, decode_manifest, diff, fixed,
};
use coracle_model::Pod;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For whatever must happen; longer than until another look.
const DEADLINE: Duration = Duration::from_secs(60);

fn manifest(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {{name: main, image: {image}}}\n"
    )
}

struct Watched {
    root: TempDir,
    state: watch::Receiver<Option<Arc<DesiredState>>>,
    reads: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    /// Watches `manifests` in a fresh directory, after `prepare` had its way with it.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let root = TempDir::new().unwrap();
        prepare(root.path());
        Self::over(root, Vec::new())
    }

    fn over(root: TempDir, known: Vec<Desired>) -> Self {
        let manifests = Manifests::new(known);
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reads);
        let decode = move |path: &Path| {
            counted.fetch_add(1, Ordering::Relaxed);
            decode_manifest(path)
        };
        let source = DirectorySource::new(&root.path().join("manifests"), decode, &manifests).unwrap();
        let state = manifests.desired();
        let task = tokio::spawn(async move {
            let error = source.run().await.unwrap_err();
            panic!("{error}");
        });
        Self { root, state, reads, task }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("manifests").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Waits until these pods, as `name=image`, are desired, with so many problems.
    async fn wants(&mut self, pods: &[&str], problems: usize) -> Arc<DesiredState> {
        let reached = |state: &Option<Arc<DesiredState>>| {
            state.as_ref().is_some_and(|state| seen(state) == pods && state.problems.len() == problems)
        };
        let waited = timeout(DEADLINE, self.state.wait_for(reached)).await;
        let found = waited.map(|found| found.unwrap().clone().unwrap());
        let found = found.map_err(|_| self.state.borrow().clone());
        found.unwrap_or_else(|found| panic!("wanted {pods:?} and {problems} problems, have {found:#?}"))
    }

    /// Makes sure that whatever was done before has been taken in, by a change that is seen after it.
    async fn settle(&mut self) {
        let mark = "zz-mark";
        self.write("zz-mark.yaml", &manifest(mark, "mark"));
        let has = |state: &Option<Arc<DesiredState>>, there: bool| {
            let marked = |one: &Desired| one.pod.key.name == *mark;
            state.as_ref().is_some_and(|state| state.pods.values().any(marked) == there)
        };
        timeout(DEADLINE, self.state.wait_for(|state| has(state, true))).await.unwrap().unwrap();
        fs::remove_file(self.path("zz-mark.yaml")).unwrap();
        timeout(DEADLINE, self.state.wait_for(|state| has(state, false))).await.unwrap().unwrap();
    }
}

fn image(pod: &Pod) -> &str {
    &pod.spec.containers[0].image
}

fn seen(state: &DesiredState) -> Vec<String> {
    let mut all: Vec<_> =
        state.pods.values().map(|one| format!("{}={}", one.pod.key.name, image(&one.pod))).collect();
    all.sort();
    all
}

fn make(root: &Path) {
    fs::create_dir(root.join("manifests")).unwrap();
}

#[tokio::test]
async fn files_are_added_changed_and_removed() {
    let mut watched = Watched::new(make);
    watched.wants(&[], 0).await;
    watched.write("web.yaml", &manifest("web", "one"));
    let before = watched.wants(&["web=one"], 0).await;
    watched.write("web.yaml", &manifest("web", "two"));
    let after = watched.wants(&["web=two"], 0).await;
    let known = before.pods.values().map(|one| Known { pod: Arc::clone(&one.pod), is_going: false });
    let changes = diff(&after, known);
    assert_eq!((changes.add.len(), changes.terminate.len()), (1, 1), "a changed manifest is a new pod");
    watched.write("web.yaml~", "an editor's copy");
    watched.write(".web.yaml.swp", "an editor's scratch");
    fs::rename(watched.path("web.yaml"), watched.path("web.txt")).unwrap();
    watched.wants(&[], 0).await;
}

#[tokio::test]
async fn what_is_there_at_the_start_is_wanted() {
    let mut watched = Watched::new(|root| {
        make(root);
        fs::write(root.join("manifests/web.yaml"), manifest("web", "one")).unwrap();
    });
    watched.wants(&["web=one"], 0).await;
}

#[tokio::test]
async fn a_file_put_in_place_by_rename_is_seen() {
    let mut watched = Watched::new(make);
    for image in ["one", "two"] {
        watched.write(".web.yaml.tmp", &manifest("web", image));
        fs::rename(watched.path(".web.yaml.tmp"), watched.path("web.yaml")).unwrap();
        watched.wants(&[&format!("web={image}")], 0).await;
    }
}

#[tokio::test]
async fn a_hard_link_is_seen() {
    let mut watched = Watched::new(make);
    watched.wants(&[], 0).await;
    fs::write(watched.root.path().join("web"), manifest("web", "one")).unwrap();
    fs::hard_link(watched.root.path().join("web"), watched.path("web.yaml")).unwrap();
    watched.wants(&["web=one"], 0).await;
}

#[tokio::test]
async fn a_file_is_not_read_while_it_is_written() {
    let mut watched = Watched::new(make);
    watched.write("web.yaml", &manifest("web", "one"));
    watched.wants(&["web=one"], 0).await;
    let text = manifest("web", "two");
    let (first, second) = text.split_at(text.len() / 2);
    let mut file = File::create(watched.path("web.yaml")).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    watched.settle().await;
    let state = watched.wants(&["web=one"], 0).await;
    assert!(state.problems.is_empty(), "half of it was read: {:?}", state.problems);
    file.write_all(second.as_bytes()).unwrap();
    drop(file);
    watched.wants(&["web=two"], 0).await;
}

#[tokio::test]
async fn an_invalid_or_empty_file_takes_nothing_from_its_pod() {
    let mut watched = Watched::new(make);
    watched.write("web.yaml", &manifest("web", "one"));
    let first = watched.wants(&["web=one"], 0).await;
    watched.write("web.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containerz: []}\n");
    let state = watched.wants(&["web=one"], 1).await;
    assert!(state.problems[0].message.contains("web.yaml:4"), "{:?}", state.problems);
    watched.write("web.yaml", "");
    watched.settle().await;
    watched.wants(&["web=one"], 1).await;
    watched.write("web.yaml", &manifest("web", "two"));
    watched.wants(&["web=two"], 0).await;

    // The same after a restart of the agent.
    watched.write("web.yaml", "not a pod");
    watched.wants(&["web=two"], 1).await;
    let root = std::mem::replace(&mut watched.root, TempDir::new().unwrap());
    let mut next = Watched::over(root, first.pods.values().cloned().collect());
    next.wants(&["web=one"], 1).await;
}

#[tokio::test]
async fn two_files_that_claim_one_pod_are_both_named() {
    let mut watched = Watched::new(make);
    watched.write("one.yaml", &manifest("web", "one"));
    watched.wants(&["web=one"], 0).await;
    watched.write("another.yaml", &manifest("web", "two"));
    let state = watched.wants(&["web=one"], 2).await;
    for problem in &state.problems {
        assert!(
            problem.message.contains("one.yaml") && problem.message.contains("another.yaml"),
            "{problem:?}"
        );
    }
    fs::remove_file(watched.path("one.yaml")).unwrap();
    watched.wants(&["web=two"], 0).await;
}

#[tokio::test]
async fn links_swapped_as_a_whole_are_followed() {
    let mut watched = Watched::new(|root| {
        make(root);
        let manifests = root.join("manifests");
        for version in ["one", "two"] {
            fs::create_dir(manifests.join(format!("..{version}"))).unwrap();
            fs::write(manifests.join(format!("..{version}/web.yaml")), manifest("web", version)).unwrap();
        }
        symlink("..one", manifests.join("..data")).unwrap();
        symlink("..data/web.yaml", manifests.join("web.yaml")).unwrap();
    });
    watched.wants(&["web=one"], 0).await;
    symlink("..two", watched.path("..data_tmp")).unwrap();
    fs::rename(watched.path("..data_tmp"), watched.path("..data")).unwrap();
    watched.wants(&["web=two"], 0).await;
}

#[tokio::test]
async fn a_directory_that_comes_late_is_found() {
    let root = TempDir::new().unwrap();
    let manifests = Manifests::new([]);
    let mut state = manifests.desired();
    let directory = root.path().join("etc/coracle/manifests");
    let source = DirectorySource::new(&directory, decode_manifest, &manifests).unwrap();
    let task = tokio::spawn(async move { drop(source.run().await) });
    let wait = state.wait_for(|state: &Option<Arc<DesiredState>>| state.is_some());
    let first = timeout(DEADLINE, wait).await.unwrap().unwrap().clone().unwrap();
    assert!(first.problems[0].message.contains("no such directory"), "{first:?}");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("web.yaml"), manifest("web", "one")).unwrap();
    let wanted = |state: &Option<Arc<DesiredState>>| {
        state.as_ref().is_some_and(|state| seen(state) == ["web=one"] && state.problems.is_empty())
    };
    timeout(DEADLINE, state.wait_for(wanted)).await.unwrap().unwrap();
    task.abort();
}

#[tokio::test]
async fn a_directory_that_is_removed_with_its_files_and_made_again() {
    let mut watched = Watched::new(make);
    watched.write("web.yaml", &manifest("web", "one"));
    watched.wants(&["web=one"], 0).await;
    fs::remove_dir_all(watched.path("")).unwrap();
    watched.wants(&[], 1).await;
    make(watched.root.path());
    watched.wants(&[], 0).await;
    watched.write("web.yaml", &manifest("web", "two"));
    watched.wants(&["web=two"], 0).await;
}

#[tokio::test]
async fn a_directory_that_vanishes_as_a_whole_takes_no_pod_with_it() {
    let mut watched = Watched::new(make);
    watched.write("web.yaml", &manifest("web", "one"));
    watched.write("db.yaml", &manifest("db", "one"));
    watched.wants(&["db=one", "web=one"], 0).await;
    fs::rename(watched.path(""), watched.root.path().join("away")).unwrap();
    watched.wants(&["db=one", "web=one"], 1).await;
    make(watched.root.path());
    let reached = |state: &Option<Arc<DesiredState>>| {
        state.as_ref().is_some_and(|state| state.problems.iter().any(|one| one.message.contains("replaced")))
    };
    timeout(DEADLINE, watched.state.wait_for(reached)).await.unwrap().unwrap();
    watched.wants(&["db=one", "web=one"], 1).await;
    // A directory with a manifest is one that is meant.
    watched.write("web.yaml", &manifest("web", "two"));
    watched.wants(&["web=two"], 0).await;
}

#[tokio::test]
async fn a_directory_swapped_by_a_link_is_followed() {
    let mut watched = Watched::new(|root| {
        for version in ["one", "two"] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("web.yaml"), manifest("web", version)).unwrap();
        }
        symlink("one", root.join("manifests")).unwrap();
    });
    watched.wants(&["web=one"], 0).await;
    symlink("two", watched.root.path().join("new")).unwrap();
    fs::rename(watched.root.path().join("new"), watched.root.path().join("manifests")).unwrap();
    watched.wants(&["web=two"], 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_link_leads_to_is_followed() {
    let mut watched = Watched::new(|root| {
        fs::create_dir(root.join("app")).unwrap();
        fs::write(root.join("app/web.yaml"), manifest("web", "one")).unwrap();
        make(root);
        symlink("../app/web.yaml", root.join("manifests/web.yaml")).unwrap();
    });
    watched.wants(&["web=one"], 0).await;
    // Of another length: before Linux 6.13 times of files are no finer than ticks.
    fs::write(watched.root.path().join("app/web.yaml"), manifest("web", "second")).unwrap();
    watched.wants(&["web=second"], 0).await;
    let next = watched.root.path().join("app/next");
    fs::write(&next, manifest("web", "three")).unwrap();
    fs::rename(next, watched.root.path().join("app/web.yaml")).unwrap();
    watched.wants(&["web=three"], 0).await;
    // What is being written is not read by a look either.
    let mut file = File::create(watched.path("part.yaml")).unwrap();
    file.write_all(manifest("part", "one").as_bytes()).unwrap();
    watched.settle().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    watched.wants(&["web=three"], 0).await;
    drop(file);
    watched.wants(&["part=one", "web=three"], 0).await;
    // Nothing is read that did not change, and with no link nothing is looked at.
    let reads = watched.reads.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(watched.reads.load(Ordering::Relaxed), reads);
}

#[tokio::test(start_paused = true)]
async fn a_release_swapped_by_a_link_on_the_way_is_followed() {
    let root = TempDir::new().unwrap();
    for version in ["one", "two"] {
        let manifests = root.path().join(version).join("manifests");
        fs::create_dir_all(&manifests).unwrap();
        fs::write(manifests.join("web.yaml"), manifest("web", version)).unwrap();
    }
    symlink("one", root.path().join("current")).unwrap();
    let manifests = Manifests::new(Vec::new());
    let at = root.path().join("current/manifests");
    let source = DirectorySource::new(&at, decode_manifest, &manifests).unwrap();
    let state = manifests.desired();
    let task = tokio::spawn(async move { drop(source.run().await) });
    let mut watched = Watched { root, state, reads: Arc::default(), task };
    watched.wants(&["web=one"], 0).await;
    symlink("two", watched.root.path().join("next")).unwrap();
    fs::rename(watched.root.path().join("next"), watched.root.path().join("current")).unwrap();
    watched.wants(&["web=two"], 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_leads_through_another_is_followed() {
    let mut watched = Watched::new(|root| {
        for version in ["one", "two"] {
            fs::create_dir_all(root.join("app").join(version).join("manifests")).unwrap();
            fs::write(root.join("app").join(version).join("manifests/web.yaml"), manifest("web", version))
                .unwrap();
        }
        symlink("one", root.join("app/current")).unwrap();
        symlink("app/current/manifests", root.join("manifests")).unwrap();
    });
    watched.wants(&["web=one"], 0).await;
    symlink("two", watched.root.path().join("app/next")).unwrap();
    fs::rename(watched.root.path().join("app/next"), watched.root.path().join("app/current")).unwrap();
    watched.wants(&["web=two"], 0).await;
}

/// A pod is of the directory that is configured, and not of one that was before.
#[tokio::test]
async fn what_lies_in_a_directory_of_before_is_nobodys() {
    let root = TempDir::new().unwrap();
    let before = root.path().join("before");
    fs::create_dir(&before).unwrap();
    fs::write(before.join("web.yaml"), manifest("web", "one")).unwrap();
    fs::write(before.join("db.yaml"), manifest("db", "one")).unwrap();
    let known =
        fixed(&[before.join("web.yaml"), before.join("db.yaml")], decode_manifest, jiff::Timestamp::now());
    let known = known.unwrap().pods.into_values().collect();
    make(root.path());
    fs::copy(before.join("web.yaml"), root.path().join("manifests/web.yaml")).unwrap();
    let mut watched = Watched::over(root, known);
    watched.wants(&["web=one"], 0).await;
}

/// Runs again in a mount namespace of its own, where it may mount.
#[test]
fn a_mount_over_the_directory_is_noticed() {
    const INSIDE: &str = "CORACLE_TEST_IN_MOUNT_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(mounts_over());
    }
    let root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private"]);
    unshare.args(if root { &[][..] } else { &["--map-root-user"] });
    unshare.arg(std::env::current_exe().unwrap());
    unshare.args(["--exact", "a_mount_over_the_directory_is_noticed", "--nocapture"]);
    assert!(unshare.env(INSIDE, "1").status().unwrap().success());
}

async fn mounts_over() {
    let run = |program: &str, arguments: &[&str], path: &Path| {
        assert!(Command::new(program).args(arguments).arg(path).status().unwrap().success());
    };
    let mut watched = Watched::new(make);
    watched.write("web.yaml", &manifest("web", "one"));
    watched.wants(&["web=one"], 0).await;
    let directory = watched.path("");
    run("mount", &["-t", "tmpfs", "none"], &directory);
    let doubted = watched.wants(&["web=one"], 1).await;
    assert!(doubted.problems[0].message.contains("replaced"), "{doubted:?}");
    watched.write("db.yaml", &manifest("db", "two"));
    watched.wants(&["db=two"], 0).await;
    run("umount", &["--lazy"], &directory);
    watched.wants(&["web=one"], 0).await;
}

#[tokio::test]
async fn five_hundred_files_at_once() {
    let mut watched = Watched::new(make);
    watched.wants(&[], 0).await;
    let names: Vec<String> = (0..500).map(|number| format!("pod-{number:03}")).collect();
    for name in &names {
        watched.write(&format!("{name}.yaml"), &manifest(name, "one"));
    }
    let expected: Vec<String> = names.iter().map(|name| format!("{name}=one")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    watched.wants(&expected, 0).await;
    let reads = watched.reads.load(Ordering::Relaxed);
    assert!(reads < 1500, "{reads} reads of 500 files");
    for name in &names {
        fs::remove_file(watched.path(&format!("{name}.yaml"))).unwrap();
    }
    watched.wants(&[], 0).await;
}

#[test]
fn fixed_files_are_read_once_and_all_must_be_right() {
    let root = TempDir::new().unwrap();
    make(root.path());
    let (web, db) = (root.path().join("manifests/web.yaml"), root.path().join("db"));
    fs::write(&web, manifest("web", "one")).unwrap();
    fs::write(&db, manifest("db", "one")).unwrap();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let state = fixed(&[root.path().join("manifests"), db.clone()], decode_manifest, now).unwrap();
    assert_eq!(seen(&state), ["db=one", "web=one"]);
    fs::write(&db, manifest("web", "two")).unwrap();
    assert_eq!(fixed(&[web.clone(), db], decode_manifest, now).unwrap_err().len(), 2);
    let missing = fixed(&[web, root.path().join("nothing")], decode_manifest, now).unwrap_err();
    assert!(missing[0].message.contains("cannot be read"), "{missing:?}");
}
