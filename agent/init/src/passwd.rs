//! The user's home directory, from the image's /etc/passwd.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, OFlags, Uid, fstat};

use crate::root::{Links, Root};

/// As much of the file is read. The image decides how large it is, and its users stand at its start.
const MAX_SIZE: usize = 1024 * 1024;

/// The home of a user, `/` when the image does not tell.
pub(crate) fn home(root: &Root, user: Uid) -> CString {
    open(root).and_then(|file| find(&read(&file), user)).unwrap_or_else(|| c"/".to_owned())
}

/// Opens the file if it is one: neither a fifo that would block nor a device.
fn open(root: &Root) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    // Looked at before it is opened: to open a device can do something.
    let found = root.open(Path::new("/etc/passwd"), OFlags::PATH, Links::Follow).ok()?;
    let stat = fstat(&found).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let file = root.open(Path::new("/etc/passwd"), flags, Links::Follow).ok()?;
    let opened = fstat(&file).ok()?;
    (opened.st_dev == stat.st_dev && opened.st_ino == stat.st_ino).then_some(file)
}

fn read(file: &OwnedFd) -> Vec<u8> {
    let mut content = Vec::new();
    let mut chunk = [0; 8192];
    while content.len() < MAX_SIZE {
        match rustix::io::read(file, &mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(length) => content.extend_from_slice(chunk.get(..length).unwrap_or_default()),
        }
    }
    content
}

/// passwd(5): `name:password:UID:GID:GECOS:directory:shell`.
fn find(content: &[u8], user: Uid) -> Option<CString> {
    content.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':').skip(2);
        let id: u32 = OsStr::from_bytes(fields.next()?).to_str()?.parse().ok()?;
        let home = fields.nth(2)?;
        (id == user.as_raw() && home.starts_with(b"/")).then(|| CString::new(home).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\nbroken\nweb:x:33:33::/var/www:/bin/false\n\
        none:x:44:44:::\nrelative:x:45:45::home:";

    #[test]
    fn homes_are_found_by_number() {
        assert_eq!(find(PASSWD, Uid::from_raw(0)).as_deref(), Some(c"/root"));
        assert_eq!(find(PASSWD, Uid::from_raw(33)).as_deref(), Some(c"/var/www"));
    }

    #[test]
    fn a_user_without_a_usable_home_has_none() {
        for user in [1, 44, 45] {
            assert_eq!(find(PASSWD, Uid::from_raw(user)), None, "{user}");
        }
    }
}
