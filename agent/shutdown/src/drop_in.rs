//! The configuration that lets logind wait for long enough: `logind.conf.d(5)`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where logind looks for drop-ins.
pub(crate) const DIRECTORY: &str = "/etc/systemd/logind.conf.d";
const NAME: &str = "99-coracle.conf";

/// The drop-in's path.
pub(crate) fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// Writes the drop-in: locks may delay a shutdown for so long. In one piece for whoever reads it.
pub(crate) fn write(directory: &Path, delay: Duration) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let path = path(directory);
    // No name that logind would read.
    let temporary = path.with_extension("new");
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    let text = format!(
        "# Written by coracle, so that pods have their grace periods when the machine shuts down.\n\
         [Login]\nInhibitDelayMaxSec={seconds}\n"
    );
    fs::write(&temporary, text)?;
    fs::rename(&temporary, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_that_logind_reads() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("systemd/logind.conf.d");
        for (delay, written) in [(Duration::from_millis(90_001), 91), (Duration::from_secs(5), 5)] {
            write(&directory, delay).unwrap();
            let text = fs::read_to_string(directory.join("99-coracle.conf")).unwrap();
            let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(lines, ["[Login]", &format!("InhibitDelayMaxSec={written}")]);
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        }
    }
}
