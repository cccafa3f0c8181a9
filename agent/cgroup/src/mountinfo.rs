//! The cgroup file systems among the mounts, `proc_pid_mountinfo(5)`.

use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CgroupMount {
    /// Where.
    pub(crate) point: PathBuf,
    /// Which.
    pub(crate) kind: MountKind,
}

/// Which hierarchy a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// The cgroup v2 tree.
    V2,
    /// A cgroup v1 hierarchy, with the super block's options, its controllers among them.
    V1(Vec<String>),
}

/// The cgroup mounts in a mountinfo text, one per hierarchy.
///
/// A hierarchy can be mounted more than once (bind mounts into chroots and containers); the mount that
/// shows it from its root counts before one that shows a part, then the first counts.
pub(crate) fn parse(text: &str) -> Vec<CgroupMount> {
    let mut mounts: Vec<(CgroupMount, bool)> = Vec::new();
    for (mount, from_root) in text.lines().filter_map(parse_line) {
        match mounts.iter_mut().find(|(known, _)| known.kind == mount.kind) {
            Some(known) if from_root && !known.1 => *known = (mount, from_root),
            Some(_) => {}
            None => mounts.push((mount, from_root)),
        }
    }
    mounts.into_iter().map(|(mount, _)| mount).collect()
}

fn parse_line(line: &str) -> Option<(CgroupMount, bool)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let kind = match file_system.next()? {
        "cgroup2" => MountKind::V2,
        "cgroup" => MountKind::V1(file_system.nth(1)?.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some((CgroupMount { point: unescape(point), kind }, root == "/"))
}

/// Undoes the kernel's `\ooo` for white space and backslash.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut path = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'\\')
            .then(|| text.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 31 0:38 / /mnt/a\\040b rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_are_found_once() {
        let options = |text: &str| MountKind::V1(text.split(',').map(str::to_owned).collect());
        assert_eq!(
            parse(HYBRID),
            [
                CgroupMount { point: "/sys/fs/cgroup/cpu,cpuacct".into(), kind: options("rw,cpu,cpuacct") },
                CgroupMount { point: "/sys/fs/cgroup/systemd".into(), kind: options("rw,name=systemd") },
                CgroupMount { point: "/sys/fs/cgroup/unified".into(), kind: MountKind::V2 },
            ]
        );
    }

    #[test]
    fn a_mount_of_the_whole_hierarchy_counts_before_a_part() {
        let text = "1 1 0:1 /x /part rw - cgroup2 a rw\n2 1 0:1 / /mnt/a\\040b\\134 rw - cgroup2 a rw\n";
        assert_eq!(parse(text), [CgroupMount { point: "/mnt/a b\\".into(), kind: MountKind::V2 }]);
    }

    #[test]
    fn broken_lines_are_passed_over() {
        for text in ["", "\n", " - ", "1 2 3 - cgroup", "1 2 3 / /a rw - cgroup x", "a\\9 - cgroup2"] {
            assert_eq!(parse(text), [], "{text:?}");
        }
        assert_eq!(unescape("/a\\04"), PathBuf::from("/a\\04"));
        assert_eq!(unescape("/a\\777\\é"), PathBuf::from("/a\\777\\é"));
    }
}
