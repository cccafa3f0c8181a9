//! The machine's cgroup hierarchies, whatever their version.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::processes::Pid;
use crate::wait::{SOON, wait_until};

/// Whether nodes under test have systemd make their cgroups: `CORACLE_TEST_CGROUP_DRIVER=systemd`.
pub fn by_systemd() -> bool {
    std::env::var("CORACLE_TEST_CGROUP_DRIVER").is_ok_and(|driver| driver == "systemd")
}

/// Whose cgroup a directory of that name is, if it is a pod's, whoever made it.
pub fn pod_uid(name: &str) -> Option<&str> {
    match name.strip_suffix(".scope") {
        Some(scope) => scope.split_once("-pod").map(|(_, uid)| uid),
        None => name.strip_prefix("pod"),
    }
}

/// Whether a directory is of the node, and stays without pods.
pub fn is_skeleton(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let name =
        name.strip_suffix(".slice").and_then(|it| it.rsplit_once('-')).map_or(&*name, |(_, last)| last);
    ["kubepods", "burstable", "besteffort"].contains(&name)
}

/// A node's cgroups: one tree of the same name in every hierarchy, or a slice of systemd's of that name.
pub struct CgroupTree {
    name: String,
    mounts: Vec<PathBuf>,
}

impl CgroupTree {
    /// The trees of that name (`/x`) in every mounted hierarchy.
    pub fn new(name: &str) -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table can be read");
        let mounts = table.lines().filter_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let cgroup = kind.starts_with("cgroup ") || kind.starts_with("cgroup2 ");
            cgroup.then(|| PathBuf::from(place.split(' ').nth(4).unwrap_or_default()))
        });
        Self { name: name.to_owned(), mounts: mounts.collect() }
    }

    /// The tree's name as a path from a hierarchy's root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the machine has only the unified hierarchy.
    pub fn is_unified(&self) -> bool {
        Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
    }

    /// The tree's directory in every hierarchy where there is one.
    fn roots(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let below = [self.name.trim_start_matches('/').to_owned(), self.slice()];
        self.mounts
            .iter()
            .flat_map(move |mount| below.clone().map(|below| mount.join(below)))
            .filter(|path| path.is_dir())
    }

    /// The slice that the tree's name stands for.
    fn slice(&self) -> String {
        format!("{}.slice", self.name.trim_start_matches('/').replace('-', "_"))
    }

    /// Every directory below the tree's own, in every hierarchy.
    pub fn directories(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for root in self.roots() {
            collect(&root, &mut found);
        }
        found
    }

    /// The directories whose last part is `name`, such as a container's id, or systemd's unit for it.
    pub fn named(&self, name: &str) -> Vec<PathBuf> {
        let units = [format!("-{name}.scope"), format!("-{}.slice", name.replace('-', "_"))];
        let mut found = self.directories();
        found.retain(|path| {
            let last = path.file_name().unwrap_or_default().to_string_lossy();
            last == name || units.iter().any(|unit| last.ends_with(unit.as_str()))
        });
        found
    }

    /// The processes in the cgroups of that name, and below them.
    pub fn processes(&self, name: &str) -> BTreeSet<Pid> {
        let mut directories = self.named(name);
        for directory in directories.clone() {
            collect(&directory, &mut directories);
        }
        directories.iter().flat_map(|directory| processes_in(directory)).collect()
    }

    /// The file of a container's cgroup, in the hierarchy that has it.
    pub fn file(&self, name: &str, file: &str) -> Option<PathBuf> {
        self.named(name).into_iter().map(|directory| directory.join(file)).find(|path| path.exists())
    }

    /// Kills what is in the tree, and removes it.
    pub fn remove(&self) {
        if self.roots().any(|root| root.ends_with(self.slice())) {
            self.directories().iter().flat_map(|it| processes_in(it)).for_each(crate::processes::kill);
            // It removes the directories of its units, and is the only one to know when.
            let stopped = std::process::Command::new("systemctl").args(["stop", &self.slice()]).status();
            assert!(stopped.is_ok_and(|status| status.success()), "systemd does not stop {}", self.slice());
        }
        let mut directories = self.directories();
        directories.extend(self.roots());
        // The deepest first.
        directories.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        for directory in directories {
            wait_until(format_args!("{} to be empty", directory.display()), SOON, || {
                processes_in(&directory).into_iter().for_each(crate::processes::kill);
                fs::remove_dir(&directory).is_ok() || !directory.exists()
            });
        }
    }
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    // A cgroup may go while it is being looked at.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
            collect(&entry.path(), found);
        }
    }
}

fn processes_in(directory: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()
}
