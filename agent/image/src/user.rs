//! Users and groups: from the image's or pod's text to ids, by the root file system's own databases.
//!
//! `/etc/passwd` and `/etc/group` belong to the image and are hostile: they are opened beneath the root
//! file system, must be regular files, and are read up to a limit.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use coracle_linux::open_beneath;
use coracle_model::{Container, Pod, PodSecurity, SupplementalGroupsPolicy};
use rustix::fs::{FileType, OFlags, ResolveFlags, fstat};

use crate::ImageError;

/// Whom a container runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further groups, without duplicates: the user's groups by the image's `/etc/group`, unless
    /// `supplementalGroupsPolicy` is `Strict`, then `fsGroup` and `supplementalGroups`. The primary group
    /// stands first, as other runtimes set it.
    pub additional_gids: Vec<u32>,
    /// The home directory by the image's `/etc/passwd`; `/` where it has none.
    pub home: String,
}

/// The largest id Linux tools agree on; what lies above turns negative, or into 0, in some of them.
const MAX_ID: u64 = i32::MAX as u64;
/// The most that is read of `/etc/passwd` and `/etc/group`.
const MAX_DATABASE: u64 = 1 << 20;
/// The most groups a process may have (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// One half of `user:group`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Account {
    Id(u32),
    Name(String),
}

/// Checks `runAsNonRoot`, before anything is started, in the kubelet's words.
///
/// An image whose user is a name is refused: only the image itself says which id that is.
///
/// # Errors
///
/// [`ImageError::NonRoot`], and [`ImageError::User`] when the image's user is malformed.
pub fn verify_non_root(pod: &Pod, container: &Container, image_user: &str) -> Result<(), ImageError> {
    let wanted = container.security.run_as_non_root.or(pod.spec.security.run_as_non_root);
    if wanted != Some(true) {
        return Ok(());
    }
    let place = || {
        format!(
            "(pod: \"{}_{}({})\", container: {})",
            pod.key.name, pod.key.namespace, pod.uid, container.name
        )
    };
    let refuse = |problem: String| Err(ImageError::NonRoot(format!("{problem} {}", place())));
    if let Some(uid) = container.security.run_as_user.or(pod.spec.security.run_as_user) {
        return match uid {
            0 => refuse("container's runAsUser breaks non-root policy".to_owned()),
            _ => Ok(()),
        };
    }
    match parse(image_user)? {
        (None | Some(Account::Id(0)), _) => {
            refuse("container has runAsNonRoot and image will run as root".to_owned())
        }
        (Some(Account::Id(_)), _) => Ok(()),
        (Some(Account::Name(name)), _) => refuse(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        )),
    }
}

/// Whom the container runs as: the container's security context, else the pod's, else the image's user.
///
/// `rootfs` is the root file system, mounted or detached. A numeric user need not be in `/etc/passwd`; a
/// name must. Without a group, the primary group is the user's by `/etc/passwd`, else 0.
///
/// # Errors
///
/// [`ImageError::User`] says which user or group is malformed, unknown or out of range, or what is wrong
/// with the database.
pub fn resolve_user(
    rootfs: BorrowedFd<'_>,
    pod: &Pod,
    container: &Container,
    image_user: &str,
) -> Result<ResolvedUser, ImageError> {
    let (image_uid, image_gid) = parse(image_user)?;
    let (pod_security, security) = (&pod.spec.security, &container.security);
    // The image's group belongs to the image's user, not to one the pod chose.
    let (user, image_gid) = match security.run_as_user.or(pod_security.run_as_user) {
        Some(uid) => (Account::Id(check_id(uid.into())?), None),
        None => (image_uid.unwrap_or(Account::Id(0)), image_gid),
    };
    let group = match security.run_as_group.or(pod_security.run_as_group) {
        Some(gid) => Some(Account::Id(check_id(gid.into())?)),
        None => image_gid,
    };
    resolve(rootfs, user, group, pod_security)
}

fn resolve(
    rootfs: BorrowedFd<'_>,
    user: Account,
    group: Option<Account>,
    pod: &PodSecurity,
) -> Result<ResolvedUser, ImageError> {
    let passwd = database(rootfs, "etc/passwd")?;
    let known = passwd.lines().filter_map(PasswdEntry::parse).find(|entry| match &user {
        Account::Id(uid) => entry.uid == u64::from(*uid),
        Account::Name(name) => entry.name == name,
    });
    let uid = match (&user, &known) {
        (Account::Id(uid), _) => *uid,
        (Account::Name(_), Some(entry)) => check_id(entry.uid)?,
        (Account::Name(name), None) => {
            return Err(ImageError::User(format!(
                "unable to find user {name}: no matching entries in the image's /etc/passwd"
            )));
        }
    };

    let groups = database(rootfs, "etc/group")?;
    let mut primary = match (&group, &known) {
        (Some(Account::Id(gid)), _) => Some(*gid),
        (Some(Account::Name(_)), _) => None,
        (None, Some(entry)) => Some(check_id(entry.gid)?),
        (None, None) => Some(0),
    };
    let mut member_of = Vec::new();
    for line in groups.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(gid), members) = (fields.next(), fields.nth(1), fields.next()) else {
            continue;
        };
        let Ok(gid) = gid.trim().parse::<u64>() else { continue };
        if primary.is_none() && matches!(&group, Some(Account::Name(wanted)) if wanted == name) {
            primary = Some(check_id(gid)?);
        }
        let is_member = known
            .as_ref()
            .is_some_and(|entry| members.unwrap_or("").split(',').any(|member| member.trim() == entry.name));
        if is_member && pod.supplemental_groups_policy == SupplementalGroupsPolicy::Merge {
            member_of.push(check_id(gid)?);
        }
    }
    let Some(gid) = primary else {
        let name = match group {
            Some(Account::Name(name)) => name,
            _ => String::new(),
        };
        return Err(ImageError::User(format!(
            "unable to find group {name}: no matching entries in the image's /etc/group"
        )));
    };

    let mut additional_gids = vec![gid];
    let mut seen = std::collections::HashSet::from([gid]);
    for &extra in member_of.iter().chain(&pod.fs_group).chain(&pod.supplemental_groups) {
        if seen.insert(check_id(extra.into())?) {
            additional_gids.push(extra);
        }
    }
    if additional_gids.len() > MAX_GROUPS {
        return Err(ImageError::User(format!(
            "the user is in {} groups, a process can be in {MAX_GROUPS}",
            additional_gids.len()
        )));
    }
    let home = known.map(|entry| entry.home).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();
    Ok(ResolvedUser { uid, gid, additional_gids, home })
}

/// Checks an image's user without a root file system.
pub(crate) fn check(text: &str) -> Result<(), ImageError> {
    parse(text).map(drop)
}

/// `user`, `user:group`, each a number or a name; an empty half is absent.
fn parse(text: &str) -> Result<(Option<Account>, Option<Account>), ImageError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if group.is_some() && user.is_empty() {
        return Err(ImageError::User(format!("image user {text:?} has a group but no user")));
    }
    let half = |part: &str| match part {
        "" => Ok(None),
        part => account(part, text).map(Some),
    };
    Ok((half(user)?, half(group.unwrap_or(""))?))
}

/// Digits are always an id, never looked up as a name: an image could map the name `1000` to root.
/// What could pass for a number elsewhere (`+0`, ` 0`, `-1`) is no name either.
fn account(part: &str, whole: &str) -> Result<Account, ImageError> {
    if part.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than any id has would only overflow.
        let id = part.trim_start_matches('0');
        let id = if id.is_empty() { Ok(0) } else { id.parse::<u64>() };
        return match id {
            Ok(id) if id <= MAX_ID => Ok(Account::Id(id as u32)),
            _ => Err(ImageError::User(format!(
                "image user {whole:?} is out of range: an id must be between 0 and {MAX_ID}"
            ))),
        };
    }
    let first = part.chars().next().unwrap_or('-');
    let is_name = !matches!(first, '+' | '-')
        && part.len() <= 256
        && part.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != ':' && c != ',' && c != '/');
    if is_name {
        Ok(Account::Name(part.to_owned()))
    } else {
        Err(ImageError::User(format!("image user {whole:?} is neither a name nor an id")))
    }
}

fn check_id(id: u64) -> Result<u32, ImageError> {
    if id <= MAX_ID {
        Ok(id as u32)
    } else {
        Err(ImageError::User(format!("id {id} is out of range: it must be between 0 and {MAX_ID}")))
    }
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u64,
    gid: u64,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    /// `name:password:uid:gid:gecos:home:shell`. A line that is no entry is skipped, as libc does.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("/");
        Some(Self { name, uid, gid, home })
    }
}

/// A database of the root file system; empty where there is none.
fn database(rootfs: BorrowedFd<'_>, path: &str) -> Result<String, ImageError> {
    let refuse = |problem: String| ImageError::User(format!("the image's /{path} {problem}"));
    match read_beneath(rootfs, path) {
        Ok(text) => Ok(text),
        Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(ReadError::Io(error)) => Err(refuse(format!("cannot be read: {error}"))),
        Err(ReadError::NotAFile) => Err(refuse("is not a regular file".to_owned())),
        Err(ReadError::TooLarge) => Err(refuse(format!("is larger than {MAX_DATABASE} bytes"))),
    }
}

enum ReadError {
    Io(io::Error),
    NotAFile,
    TooLarge,
}

impl<E: Into<io::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

fn read_beneath(rootfs: BorrowedFd<'_>, path: &str) -> Result<String, ReadError> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // Opening a device or a fifo can have effects, or wait: look first.
    let looked = open_beneath(rootfs, path, OFlags::PATH, resolve)?;
    let regular = |fd: BorrowedFd<'_>| -> Result<(u64, u64), ReadError> {
        let stat = fstat(fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ReadError::NotAFile);
        }
        if stat.st_size > MAX_DATABASE as i64 {
            return Err(ReadError::TooLarge);
        }
        Ok((stat.st_dev, stat.st_ino))
    };
    let expected = regular(looked.as_fd())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = open_beneath(rootfs, path, flags, resolve)?;
    if regular(opened.as_fd())? != expected {
        return Err(ReadError::NotAFile);
    }
    let mut bytes = Vec::new();
    File::from(opened).take(MAX_DATABASE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DATABASE {
        return Err(ReadError::TooLarge);
    }
    // Names are compared as text; a byte that is no UTF-8 only makes its own entry unmatchable.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use coracle_model::{Name, PodKey, PodSpec};
    use rustix::fs::{CWD, Mode, openat};

    use super::*;
    use crate::config::tests::container;

    fn pod() -> Pod {
        Pod {
            uid: "u1".parse().unwrap(),
            key: PodKey { namespace: Name::label("default").unwrap(), name: Name::label("web").unwrap() },
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            spec: PodSpec::new(Vec::new()),
            object: String::new(),
        }
    }

    fn rootfs(passwd: &str, group: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(dir.path().join("etc/group"), group).unwrap();
        dir
    }

    fn resolve_in(dir: &Path, user: &str) -> Result<ResolvedUser, ImageError> {
        let fd = openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        resolve_user(fd.as_fd(), &pod(), &container(), user)
    }

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\n1000:x:0:0::/evil:/bin/sh\nweb:x:101:102:,,,:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlogs:x:200:web,other\ntape:x:201: web\nbad:x:nan:web\n";

    #[test]
    fn names_and_ids() {
        let dir = rootfs(PASSWD, GROUP);
        for (user, uid, gid, groups, home) in [
            ("", 0, 0, &[0][..], "/root"),
            ("web", 101, 102, &[102, 200, 201], "/srv"),
            ("101", 101, 102, &[102, 200, 201], "/srv"),
            ("web:logs", 101, 200, &[200, 201], "/srv"),
            ("web:7", 101, 7, &[7, 200, 201], "/srv"),
            ("5:6", 5, 6, &[6], "/"),
            ("5", 5, 0, &[0], "/"),
            ("0000", 0, 0, &[0], "/root"),
            ("1000", 1000, 0, &[0], "/"),
            ("2147483647", 2_147_483_647, 0, &[0], "/"),
        ] {
            let expected = ResolvedUser { uid, gid, additional_gids: groups.to_vec(), home: home.into() };
            assert_eq!(resolve_in(dir.path(), user).unwrap(), expected, "{user:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        let dir = rootfs(PASSWD, GROUP);
        for user in [
            "nobody",
            "web:nogroup",
            ":0",
            "+0",
            " 0",
            "0 ",
            "-1",
            "2147483648",
            "4294967296:0",
            "0:4294967296",
            "99999999999999999999999",
            "a b",
            "web:+0",
            "\t",
            "0x0",
            "a/b:c:d",
        ] {
            assert!(matches!(resolve_in(dir.path(), user), Err(ImageError::User(_))), "{user:?}");
        }
        let wrapped = rootfs("evil:x:4294967296:0::/:\n", "");
        assert!(matches!(resolve_in(wrapped.path(), "evil"), Err(ImageError::User(_))));
    }

    #[test]
    fn hostile_databases() {
        let dir = rootfs(PASSWD, GROUP);
        let passwd = dir.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        assert_eq!(resolve_in(dir.path(), "5").unwrap().gid, 0, "no database is an empty one");

        std::os::unix::fs::symlink("/etc/hostname", &passwd).unwrap();
        assert_eq!(resolve_in(dir.path(), "5").unwrap().gid, 0, "a link must stay in the root file system");
        std::fs::remove_file(&passwd).unwrap();

        rustix::fs::mknodat(CWD, &passwd, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(resolve_in(dir.path(), "5").unwrap_err().to_string().contains("not a regular file"));
        std::fs::remove_file(&passwd).unwrap();

        File::create(&passwd).unwrap().set_len(5 << 30).unwrap();
        assert!(resolve_in(dir.path(), "5").unwrap_err().to_string().contains("larger than"));
        std::fs::write(&passwd, "x".repeat(1 << 20)).unwrap();
        assert!(resolve_in(dir.path(), "x").is_err(), "one long line is no entry");
    }

    #[test]
    fn the_pods_choice_comes_first() {
        let dir = rootfs(PASSWD, GROUP);
        let fd = openat(CWD, dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let (mut pod, mut container) = (pod(), container());
        pod.spec.security.run_as_user = Some(7);
        pod.spec.security.supplemental_groups = vec![9, 0, 9];
        let user = resolve_user(fd.as_fd(), &pod, &container, "web:logs").unwrap();
        assert_eq!((user.uid, user.gid, user.additional_gids), (7, 0, vec![0, 9]));
        container.security.run_as_user = Some(101);
        container.security.run_as_group = Some(8);
        let user = resolve_user(fd.as_fd(), &pod, &container, "").unwrap();
        assert_eq!((user.uid, user.gid, user.additional_gids), (101, 8, vec![8, 200, 201, 9, 0]));
        pod.spec.security.fs_group = Some(77);
        let groups = |pod: &Pod| resolve_user(fd.as_fd(), pod, &container, "").unwrap().additional_gids;
        assert_eq!(groups(&pod), [8, 200, 201, 77, 9, 0]);
        pod.spec.security.supplemental_groups_policy = SupplementalGroupsPolicy::Strict;
        assert_eq!(groups(&pod), [8, 77, 9, 0], "only what the specification names");
        pod.spec.security.fs_group = Some(u32::MAX);
        assert!(resolve_user(fd.as_fd(), &pod, &container, "").is_err());
    }

    #[test]
    fn run_as_non_root_in_the_kubelets_words() {
        let (pod, mut container) = (pod(), container());
        assert!(verify_non_root(&pod, &container, "").is_ok());
        container.security.run_as_non_root = Some(true);
        let place = "(pod: \"web_default(u1)\", container: main)";
        for (user, message) in [
            ("", Some("container has runAsNonRoot and image will run as root")),
            ("0", Some("container has runAsNonRoot and image will run as root")),
            ("0000:5", Some("container has runAsNonRoot and image will run as root")),
            (
                "web",
                Some(
                    "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root",
                ),
            ),
            ("1000", None),
        ] {
            let found = verify_non_root(&pod, &container, user).err().map(|error| error.to_string());
            assert_eq!(found, message.map(|message| format!("{message} {place}")), "{user:?}");
        }
        assert!(verify_non_root(&pod, &container, "+0").is_err());
        container.security.run_as_user = Some(0);
        let message = verify_non_root(&pod, &container, "1000").unwrap_err().to_string();
        assert_eq!(message, format!("container's runAsUser breaks non-root policy {place}"));
        container.security.run_as_user = Some(1);
        assert!(verify_non_root(&pod, &container, "root").is_ok());
    }
}
