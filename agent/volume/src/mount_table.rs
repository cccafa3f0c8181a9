//! The agent's mount table, `/proc/thread-self/mountinfo` (proc(5)).

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::VolumeError;

const TABLE: &str = "/proc/thread-self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u64,
    pub(crate) mount_point: PathBuf,
    pub(crate) is_shared: bool,
    pub(crate) is_slave: bool,
}

/// Every mount the agent sees, in the order of the table: a mount stands behind those it is on.
pub(crate) fn mounts() -> Result<Vec<Mount>, VolumeError> {
    let table = fs::read(TABLE).map_err(VolumeError::io("read", Path::new(TABLE)))?;
    Ok(table.split(|b| *b == b'\n').filter_map(parse).collect())
}

/// The mount an open file is on.
pub(crate) fn mount_of(file: &OwnedFd, path: &Path) -> Result<Mount, VolumeError> {
    let stat =
        statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map_err(VolumeError::io("look at", path))?;
    mounts()?.into_iter().find(|mount| mount.id == stat.stx_mnt_id).ok_or_else(|| {
        let missing =
            std::io::Error::new(std::io::ErrorKind::NotFound, "its mount is not in the mount table");
        VolumeError::io("look at", path)(missing)
    })
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let mount_point = PathBuf::from(OsString::from_vec(unescape(fields.nth(3)?)));
    fields.next()?;
    let (mut is_shared, mut is_slave) = (false, false);
    for tag in fields.take_while(|field| *field != b"-") {
        is_shared |= tag.starts_with(b"shared:");
        is_slave |= tag.starts_with(b"master:");
    }
    Some(Mount { id, mount_point, is_shared, is_slave })
}

/// Blanks and backslashes stand as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'\\').then(|| tail.get(..3)).flatten();
        match code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            Some(code) => {
                plain.push(code);
                rest = &tail[3..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_line() {
        let mount =
            parse(br"36 35 98:0 /a /mnt\0402\134 rw,noatime master:1 shared:22 - ext3 /dev/root rw").unwrap();
        let expected =
            Mount { id: 36, mount_point: PathBuf::from("/mnt 2\\"), is_shared: true, is_slave: true };
        assert_eq!(mount, expected);
        let private = parse(b"36 35 98:0 / / rw - ext3 shared:1 rw").unwrap();
        assert!(!private.is_shared && !private.is_slave);
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"x y z"), None);
    }

    #[test]
    fn this_machines_table() {
        assert!(mounts().unwrap().iter().any(|mount| mount.mount_point == Path::new("/")));
    }
}
