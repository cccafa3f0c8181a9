//! The configuration that lets logind wait for long enough: `logind.conf.d(5)`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_linux::{PowerLoss, remove_if_there, replace_file};

/// Where logind looks for drop-ins.
pub(crate) const DIRECTORY: &str = "/etc/systemd/logind.conf.d";
const NAME: &str = "99-coracle.conf";

/// The drop-in's path.
pub(crate) fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

/// Removes the drop-in, and its directory if nothing else is in it, from where logind looks for it. Whether there was one.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_drop_in() -> io::Result<bool> {
    remove(Path::new(DIRECTORY))
}

fn remove(directory: &Path) -> io::Result<bool> {
    if !remove_if_there(&path(directory))? {
        return Ok(false);
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(true),
    }
}

/// Writes the drop-in: locks may delay a shutdown for so long. In one piece for whoever reads it.
pub(crate) fn write(directory: &Path, delay: Duration) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    let text = format!(
        "# Written by coracle, so that pods have their grace periods when the machine shuts down.\n\
         [Login]\nInhibitDelayMaxSec={seconds}\n"
    );
    Ok(replace_file(&path(directory), 0o644, PowerLoss::OldOrNew, text.as_bytes())?)
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

    #[test]
    fn it_goes_with_its_directory_unless_others_are_in_it() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("logind.conf.d");
        assert!(!remove(&directory).unwrap());
        write(&directory, Duration::from_secs(5)).unwrap();
        fs::write(directory.join("10-others.conf"), "").unwrap();
        assert!(remove(&directory).unwrap());
        assert!(!path(&directory).exists() && directory.exists());
        write(&directory, Duration::from_secs(5)).unwrap();
        fs::remove_file(directory.join("10-others.conf")).unwrap();
        assert!(remove(&directory).unwrap());
        assert!(!directory.exists());
    }
}
