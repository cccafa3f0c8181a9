//! Paths that are resolved beneath a directory.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::path::Arg;

/// How often a resolution that raced with a rename or a mount is tried again before it is given up. Each takes
/// microseconds, in which few of either happen.
const MAX_RACES: u32 = 256;

/// Opens what is there by `openat2(2)`, close-on-exec, with `RESOLVE_BENEATH` or `RESOLVE_IN_ROOT` in `resolve`.
///
/// With these the kernel gives up on a `..`, in a link too, where anything at all was renamed or mounted on the host
/// meanwhile (`EAGAIN`): it cannot tell then that it stayed beneath. So it is asked again.
///
/// # Errors
/// Those of `openat2(2)`; `EAGAIN` only where it was so each time.
pub fn open_beneath<P: Arg + Copy>(
    directory: impl AsFd,
    path: P,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let open = || openat2(&directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    let mut opened = open();
    for _ in 0..MAX_RACES {
        if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
        opened = open();
    }
    opened
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn what_is_renamed_elsewhere_meanwhile_is_no_hindrance() {
        let directory = std::env::temp_dir().join(format!("coracle-linux-beneath-{}", std::process::id()));
        let (inside, elsewhere) = (directory.join("inside"), directory.join("elsewhere"));
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        fs::write(inside.join("file"), "").unwrap();
        fs::write(elsewhere.join("0"), "").unwrap();
        let root = fs::File::open(&inside).unwrap();
        let resolve = ResolveFlags::BENEATH;
        let path = "a/b/../../file";
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut names = ["0", "1"];
                while !done.load(Ordering::Relaxed) {
                    fs::rename(elsewhere.join(names[0]), elsewhere.join(names[1])).unwrap();
                    names.swap(0, 1);
                }
            });
            let opened =
                (0..2000).try_for_each(|_| open_beneath(&root, path, OFlags::PATH, resolve).map(drop));
            done.store(true, Ordering::Relaxed);
            opened.unwrap();
        });
        fs::remove_dir_all(directory).unwrap();
    }
}
