//! What a node holds: for each pod what belongs to it, in all no more than before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use coracle_tests::cgroups::pod_uid;
use coracle_tests::processes;
use coracle_tests::wait::{SOON, deadline};

use crate::model::{Pod, Role};
use crate::run::Soak;

/// What the agent and the node hold for the same number of pods of the same kinds.
pub(crate) struct Held {
    /// The agent's proportional set size, in kB.
    memory: u64,
    /// Of that, what no file stands behind.
    anonymous: u64,
    threads: usize,
    /// The agent's descriptors, by what they are of.
    descriptors: BTreeMap<String, usize>,
    /// The agent's mounts.
    mounts: usize,
    /// Files and directories of the node's state, by the directory they are in.
    files: BTreeMap<&'static str, usize>,
}

/// Where the node keeps its state.
const STATE: [&str; 10] = [
    "run",
    "root/pods",
    "root/checkpoints",
    "root/images/leases",
    "root/images/blobs",
    "root/images/images",
    "root/images/layers",
    "root/images/tmp",
    "log/pods",
    "log/containers",
];

// === impl Held ===

impl Held {
    /// What is held now.
    pub(crate) fn by(soak: &Soak) -> Self {
        let (node, agent) = (&soak.node, soak.node.agent_pid());
        let mut descriptors = BTreeMap::new();
        for target in processes::descriptors(agent).into_values() {
            let kind = match target.split_once(':') {
                Some(("anon_inode", kind)) => kind,
                Some((kind, _)) if !kind.starts_with('/') => kind,
                _ => "file",
            };
            *descriptors.entry(kind.to_owned()).or_default() += 1;
        }
        let memory = |key| processes::memory_kb(agent, key).expect("the agent lives");
        Self {
            memory: memory("Pss"),
            anonymous: memory("Anonymous"),
            threads: fs::read_dir(format!("/proc/{agent}/task")).map_or(0, Iterator::count),
            descriptors,
            mounts: processes::mounts(agent).len(),
            files: STATE.into_iter().map(|path| (path, count(&node.path(path)))).collect(),
        }
    }

    /// Fails where more is held than was for the same pods.
    pub(crate) fn assert_no_more_than(&self, before: &Self) {
        let mut grown = Vec::new();
        let mut compare = |what: &str, was: u64, is: u64, slack: u64| {
            if is > was + slack {
                grown.push(format!("{what}: {was} before, {is} after"));
            }
        };
        compare("memory of the agent in kB", before.memory, self.memory, before.memory / 10);
        compare("mounts of the agent", before.mounts as u64, self.mounts as u64, 0);
        // A probe may be under way, or a record being written.
        const UNDER_WAY: u64 = 12;
        for (kind, is) in &self.descriptors {
            let was = before.descriptors.get(kind).copied().unwrap_or_default();
            compare(&format!("descriptors of the agent: {kind}"), was as u64, *is as u64, UNDER_WAY);
        }
        // A container that has ended once has left something to tell of: a record, a log.
        for (place, is) in &self.files {
            let was = before.files[place] as u64;
            compare(&format!("files in {place}"), was, *is as u64, was / 10 + UNDER_WAY);
        }
        assert!(grown.is_empty(), "more is held than before:\n{}", grown.join("\n"));
    }

    /// Fails where there is something that belongs to no container or pod that is to be.
    pub(crate) fn assert_belongs(soak: &Soak) {
        // What a probe executes comes and goes; the rest of what has ended goes at its own pace.
        let end = deadline(SOON);
        loop {
            let strangers = strangers(soak);
            if strangers.is_empty() {
                return;
            }
            let log = || soak.node.agent_log();
            assert!(
                std::time::Instant::now() < end,
                "belongs to nothing:\n{}\n{}",
                strangers.join("\n"),
                log()
            );
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, anonymous, threads, descriptors, mounts, files } = self;
        write!(f, "agent: {memory} kB ({anonymous} kB anonymous), {threads} threads, ")?;
        write!(f, "descriptors {descriptors:?}, {mounts} mounts; files {files:?}")
    }
}

fn strangers(soak: &Soak) -> Vec<String> {
    let node = &soak.node;
    let ids: BTreeSet<&str> =
        soak.pods.iter().flat_map(|pod| &pod.members).filter_map(|it| it.id.as_deref()).collect();
    let uids: BTreeSet<&str> = soak.pods.iter().filter_map(|pod| pod.uid.as_deref()).collect();
    let live: Vec<&Pod> = soak.pods.iter().filter(|pod| !pod.is_over()).collect();
    let mut strangers = Vec::new();

    let mut pauses = 0;
    for pid in node.machine().processes().into_iter().filter(|pid| *pid != node.agent_pid()) {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let of_container = ids.iter().any(|id| cgroups.contains(id));
        let of_pod = uids.iter().any(|uid| cgroups.contains(&format!("pod{uid}")));
        let is_pause = processes::name(pid).starts_with("pause");
        pauses += usize::from(is_pause);
        if !(of_container || of_pod && is_pause) && processes::is_alive(pid) {
            strangers.push(format!("process {pid}: {}", processes::command_line(pid)));
        }
    }
    let shared = live.iter().filter(|pod| pod.kind % crate::kinds::KINDS == 7).count();
    if pauses != live.len() + shared {
        strangers
            .push(format!("{pauses} pauses for {} pods, of which {shared} share a namespace", live.len()));
    }

    for directory in node.machine().cgroups().directories() {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let is_id = name.len() == 64 && !ids.contains(name.as_ref());
        let is_pod =
            pod_uid(&name).is_some_and(|uid| !live.iter().any(|pod| pod.uid.as_deref() == Some(uid)));
        // Of a container that ended a cgroup may be left until the next is made.
        if is_id && !processes_below(&directory).is_empty() || is_pod {
            strangers.push(format!("cgroup {}", directory.display()));
        }
    }
    let own = node.path("").display().to_string();
    // Those of the machine around it are not the node's.
    for mount in processes::mounts(node.agent_pid()).into_iter().filter(|mount| mount.contains(&own)) {
        let of_pod = mount.split_once("/pods/").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        if of_pod.is_some_and(|uid| !uids.contains(uid)) {
            strangers.push(format!("mount of the agent: {mount}"));
        }
    }
    for place in ["run/pods", "run/records", "root/pods", "root/checkpoints", "log/pods"] {
        for entry in fs::read_dir(node.path(place)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !uids.iter().any(|uid| name.contains(uid)) {
                strangers.push(format!("file {}", entry.path().display()));
            }
        }
    }
    // Per container one that lives and one that has ended.
    let most =
        |pod: &Pod| pod.members.iter().filter(|it| it.role != Role::Init || !pod.is_over()).count() * 2;
    let most: usize = soak.pods.iter().map(most).sum();
    let leases = count(&node.path("root/images/leases"));
    if leases > most {
        strangers.push(format!("{leases} leases of images for at most {most} containers"));
    }
    strangers
}

fn processes_below(cgroup: &Path) -> String {
    fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default()
}

/// Everything beneath a directory.
fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let below = |entry: fs::DirEntry| {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        // Of a network the marks of addresses given back in the last two minutes follow what came and went in those.
        let counted = is_directory && entry.file_name() != "fs" && entry.file_name() != ".released";
        1 + if counted { count(&entry.path()) } else { 0 }
    };
    entries.map(below).sum()
}
