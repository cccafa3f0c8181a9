//! Processes as the machine's own `/proc` shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A process id in the namespace the tests run in.
pub type Pid = i32;

/// Every process and its parent.
fn parents() -> BTreeMap<Pid, Pid> {
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<Pid>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?.parent))).collect()
}

struct Stat {
    state: char,
    parent: Pid,
    /// User and system time, in clock ticks.
    ticks: u64,
    /// When it was born, in clock ticks since boot.
    started: u64,
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, a closing parenthesis too: the last one ends it.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The oldest of some processes: of those whose parent is none of them, the one born first. Numbers say
/// nothing, because they begin anew at some time.
pub fn oldest(of: &BTreeSet<Pid>) -> Option<Pid> {
    of.iter()
        .filter_map(|pid| stat(*pid).map(|stat| (of.contains(&stat.parent), stat.started, *pid)))
        .min()
        .map(|(_, _, pid)| pid)
}

/// Everything below a process, those that have not been waited for among them.
pub fn descendants(of: Pid) -> BTreeSet<Pid> {
    let parents = parents();
    let below = |pid: &Pid| {
        let mut ancestor = parents.get(pid);
        while let Some(one) = ancestor {
            if *one == of {
                return true;
            }
            ancestor = parents.get(one);
        }
        false
    };
    parents.keys().copied().filter(below).collect()
}

/// Whether the process is there and has not ended.
pub fn is_alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Whether a signal has stopped the process.
pub fn is_stopped(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| stat.state == 'T')
}

/// The arguments, joined by blanks; the name in brackets for a process that has none.
pub fn command_line(pid: Pid) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ");
    if text.is_empty() { format!("[{}]", name(pid)) } else { text }
}

/// The name the kernel knows the process by.
pub fn name(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// The identity of one of a process's namespaces (`net`, `mnt`, ...).
#[track_caller]
pub fn namespace(pid: Pid, kind: &str) -> u64 {
    let path = format!("/proc/{pid}/ns/{kind}");
    fs::metadata(&path).unwrap_or_else(|error| panic!("{path}: {error}")).ino()
}

/// The processes with a namespace of this identity.
pub fn in_namespace(kind: &str, inode: u64) -> BTreeSet<Pid> {
    let has = |pid: &Pid| {
        fs::metadata(format!("/proc/{pid}/ns/{kind}")).is_ok_and(|namespace| namespace.ino() == inode)
    };
    parents().into_keys().filter(has).collect()
}

/// The lines of a process's mount table.
pub fn mounts(pid: Pid) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What the process's descriptors point at, by number.
pub fn descriptors(pid: Pid) -> BTreeMap<i32, String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeMap::new() };
    let describe = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
    };
    entries.filter_map(|entry| describe(entry.ok()?)).collect()
}

/// One `key: value` line of `/proc/<pid>/status`.
pub fn status_field(pid: Pid, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// A memory figure of a process in kB: `Pss` or `Anonymous` of `smaps_rollup`, or `VmRSS` of `status`.
pub fn memory_kb(pid: Pid, key: &str) -> Option<u64> {
    let file = if key.starts_with("Vm") { "status" } else { "smaps_rollup" };
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Processor time the process used so far, in clock ticks (100 a second on Linux).
pub fn ticks(pid: Pid) -> Option<u64> {
    stat(pid).map(|stat| stat.ticks)
}

/// Sends SIGKILL; a process already gone is as good as killed.
pub fn kill(pid: Pid) {
    signal(pid, rustix::process::Signal::KILL);
}

/// Sends a signal to a process that may be gone.
pub fn signal(pid: Pid, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
