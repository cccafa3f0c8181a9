//! Files out of a container, which may send anything.
//!
//! The user says where they go; everything a name in the archive adds to that is looked up beneath it, part
//! by part, following no link. Links are not made. Only regular files are written to, and modes and owners
//! are not taken from the archive. So whatever comes, nothing but what the user named is changed.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use coracle_image::{Archive, ArchiveEntry, ArchiveKind};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;

use super::spec::components;

/// What is made is as the user's umask leaves it.
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Unpacks what a container sent of a path.
pub(super) struct Receiver<'a, W> {
    /// Where the path itself goes.
    destination: &'a Path,
    /// The parts that every name begins with.
    prefix: Vec<&'a [u8]>,
    /// The destination, once something is to be beneath it.
    base: Option<OwnedFd>,
    /// Told what is left out.
    warn: W,
}

// === impl Receiver ===

impl<'a, W: FnMut(Skipped<'_>)> Receiver<'a, W> {
    pub(super) fn new(destination: &'a Path, prefix: Vec<&'a [u8]>, warn: W) -> Self {
        Self { destination, prefix, base: None, warn }
    }

    /// Reads an archive to its end.
    pub(super) fn unpack(&mut self, input: impl BufRead) -> anyhow::Result<()> {
        let mut archive = Archive::new(input);
        while let Some(ArchiveEntry { path, kind }) =
            archive.next_entry().context("tar contents corrupted")?
        {
            let Some(parts) = components(&path) else {
                (self.warn)(Skipped::Outside(&path));
                continue;
            };
            let beneath = self.beneath(&parts)?;
            let written = match kind {
                ArchiveKind::Directory => self.directory(beneath),
                ArchiveKind::File { size, segments } => {
                    self.file(beneath).and_then(|mut file| fill(&mut file, &mut archive, size, &segments))
                }
                ArchiveKind::HardLink(target) => self.same(beneath, &target),
                ArchiveKind::Symlink(target) => {
                    let place = self.place(beneath);
                    (self.warn)(Skipped::Symlink(&place, &target));
                    Ok(())
                }
                ArchiveKind::Special => {
                    let place = self.place(beneath);
                    (self.warn)(Skipped::Special(&place));
                    Ok(())
                }
            };
            written.with_context(|| format!("cannot write {:?}", self.place(beneath)))?;
        }
        Ok(())
    }

    /// The parts a name adds to the path that was asked for.
    fn beneath<'s, 'p>(&self, parts: &'s [&'p [u8]]) -> anyhow::Result<&'s [&'p [u8]]> {
        match parts.split_at_checked(self.prefix.len()) {
            Some((prefix, beneath)) if prefix == self.prefix => Ok(beneath),
            _ => bail!("tar contents corrupted"),
        }
    }

    /// Where something is written, for people.
    fn place(&self, beneath: &[&[u8]]) -> PathBuf {
        let parts = beneath.iter().map(|part| std::ffi::OsStr::from_bytes(part));
        self.destination.iter().chain(parts).collect()
    }

    fn directory(&mut self, beneath: &[&[u8]]) -> anyhow::Result<()> {
        self.open_directory(beneath).map(drop)
    }

    /// The directory, made with those above it where it is missing.
    fn open_directory(&mut self, beneath: &[&[u8]]) -> anyhow::Result<OwnedFd> {
        let mut directory = self.base()?.try_clone()?;
        for part in beneath {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let open = || openat2(&directory, *part, flags, Mode::empty(), BENEATH);
            let opened = match open() {
                Err(Errno::NOENT) => {
                    match mkdirat(&directory, *part, DIRECTORY_MODE) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    open()
                }
                opened => opened,
            };
            directory = opened.map_err(explained)?;
        }
        Ok(directory)
    }

    /// The destination as a directory.
    fn base(&mut self) -> anyhow::Result<&OwnedFd> {
        if self.base.is_none() {
            fs::create_dir_all(self.destination)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.base = Some(rustix::fs::open(self.destination, flags, Mode::empty())?);
        }
        self.base.as_ref().context("it was just opened")
    }

    /// The file, empty.
    fn file(&mut self, beneath: &[&[u8]]) -> anyhow::Result<File> {
        let file = self.open_file(beneath)?;
        if file.metadata()?.is_file() {
            file.set_len(0)?;
        }
        Ok(file)
    }

    fn open_file(&mut self, beneath: &[&[u8]]) -> anyhow::Result<File> {
        let Some((name, above)) = beneath.split_last() else {
            // The user's own word: it may be a link, or /dev/stdout.
            if let Some(parent) = self.destination.parent() {
                fs::create_dir_all(parent)?;
            }
            return File::options().write(true).create(true).truncate(false).open(self.destination).map_err(
                |error| match error.kind() {
                    io::ErrorKind::IsADirectory => anyhow::anyhow!("it is a directory: name the file in it"),
                    _ => error.into(),
                },
            );
        };
        let directory = self.open_directory(above)?;
        // Neither a pipe nor a terminal that lies there is to hold us, or become ours.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = openat2(&directory, *name, flags, FILE_MODE, BENEATH).map_err(explained)?;
        let file = File::from(opened);
        if !file.metadata()?.is_file() {
            bail!("something that is no regular file is there");
        }
        Ok(file)
    }

    /// Another name of a file that was sent before becomes a file with the same content.
    fn same(&mut self, beneath: &[&[u8]], target: &[u8]) -> anyhow::Result<()> {
        let corrupted = "tar contents corrupted";
        let target = components(target).context(corrupted)?;
        let Some((name, above)) = self.beneath(&target)?.split_last() else { bail!(corrupted) };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let directory = self.open_directory(above)?;
        let source = openat2(&directory, *name, flags, Mode::empty(), BENEATH).map_err(explained)?;
        let mut source = File::from(source);
        let mut file = self.open_file(beneath)?;
        let (from, to) = (rustix::fs::fstat(source.as_fd())?, rustix::fs::fstat(file.as_fd())?);
        if (from.st_dev, from.st_ino) == (to.st_dev, to.st_ino) {
            return Ok(());
        }
        if !source.metadata()?.is_file() {
            bail!(corrupted);
        }
        file.set_len(0)?;
        io::copy(&mut source, &mut file)?;
        Ok(())
    }
}

/// What is left out.
#[derive(Debug)]
pub(super) enum Skipped<'a> {
    /// A name that leads upwards.
    Outside(&'a [u8]),
    /// A link, and where it points.
    Symlink(&'a Path, &'a [u8]),
    /// A device or a pipe.
    Special(&'a Path),
}

/// Writes a file's data where it belongs.
fn fill(file: &mut File, data: &mut impl Read, size: u64, segments: &[(u64, u64)]) -> anyhow::Result<()> {
    let regular = file.metadata()?.is_file();
    let mut at = 0;
    let hole = |file: &mut File, from: u64, to: u64| match to - from {
        0 => Ok(0),
        _ if regular => file.seek(SeekFrom::Start(to)),
        length => io::copy(&mut io::repeat(0).take(length), file),
    };
    for (offset, length) in segments {
        hole(file, at, *offset)?;
        if io::copy(&mut data.take(*length), file)? != *length {
            bail!("the archive ends in the middle of it");
        }
        at = offset + length;
    }
    hole(file, at, size)?;
    if regular {
        file.set_len(size)?;
    }
    Ok(file.flush()?)
}

fn explained(error: Errno) -> anyhow::Error {
    match error {
        Errno::LOOP => anyhow::anyhow!("a symbolic link is there or on the way, and none is followed"),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// An entry as tar writes it, whatever it says.
    fn entry(path: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..path.len()].copy_from_slice(path.as_bytes());
        block[100..108].copy_from_slice(b"0004777\0");
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        block[136..148].copy_from_slice(b"00000000000\0");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend_from_slice(data);
        block.resize(block.len().next_multiple_of(512), 0);
        block
    }

    /// Unpacks entries sent for `/src`; what went wrong, and what was left out.
    fn unpack(destination: &Path, entries: &[Vec<u8>]) -> (anyhow::Result<()>, Vec<String>) {
        let mut skipped = Vec::new();
        let archive = [entries.concat(), vec![0; 1024]].concat();
        let warn = |it: Skipped<'_>| skipped.push(format!("{it:?}"));
        let result = Receiver::new(destination, vec![b"src"], warn).unpack(archive.as_slice());
        (result, skipped)
    }

    #[test]
    fn a_directory_comes_with_what_is_in_it() {
        let here = tempfile::tempdir().unwrap();
        let to = here.path().join("new/to");
        let (result, skipped) = unpack(
            &to,
            &[
                entry("src/", b'5', "", b""),
                entry("src/empty/", b'5', "", b""),
                entry("/src/./a/b/file", b'0', "", b"deep"),
                entry("src/again", b'1', "src/a/b/file", b""),
                entry("src/link", b'2', "/etc/passwd", b""),
                entry("src/pipe", b'6', "", b""),
            ],
        );
        result.unwrap();
        assert!(to.join("empty").is_dir());
        for name in ["a/b/file", "again"] {
            assert_eq!(fs::read(to.join(name)).unwrap(), b"deep");
            let mode = fs::metadata(to.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7111, 0, "neither setuid nor executable");
        }
        assert_eq!(skipped.len(), 2, "{skipped:?}");
        assert!(skipped[0].starts_with("Symlink(") && skipped[1].starts_with("Special("), "{skipped:?}");
        assert!(fs::symlink_metadata(to.join("link")).is_err());
    }

    #[test]
    fn a_file_goes_where_it_is_wanted() {
        let here = tempfile::tempdir().unwrap();
        let to = here.path().join("made/name");
        unpack(&to, &[entry("src", b'0', "", b"first, and longer")]).0.unwrap();
        unpack(&to, &[entry("src", b'0', "", b"second")]).0.unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"second");
        let (result, _) = unpack(here.path(), &[entry("src", b'0', "", b"x")]);
        assert!(format!("{:#}", result.unwrap_err()).ends_with("it is a directory: name the file in it"));
    }

    #[test]
    fn a_sparse_file_is_as_long_as_it_was() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("file");
        let mut file = File::create(&path).unwrap();
        fill(&mut file, &mut &b"abcd"[..], 9, &[(2, 2), (6, 2)]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\0\0ab\0\0cd\0");
        assert!(fill(&mut file, &mut &b"abc"[..], 9, &[(2, 2), (6, 2)]).is_err());
    }

    /// Nothing a container sends reaches beyond what the user named (CVE-2018-1002100, CVE-2019-1002101,
    /// CVE-2019-11246, CVE-2019-11249, CVE-2019-11251).
    #[test]
    fn no_archive_leads_out_of_the_destination() {
        let here = tempfile::tempdir().unwrap();
        let (to, out) = (here.path().join("to"), here.path().join("out"));
        fs::create_dir_all(&to).unwrap();
        fs::create_dir(&out).unwrap();
        fs::write(out.join("precious"), "precious").unwrap();
        // Left by the user, or by whoever may write there.
        symlink(&out, to.join("way-out")).unwrap();
        symlink(out.join("precious"), to.join("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, to.join("pipe"), rustix::fs::FileType::Fifo, FILE_MODE, 0)
            .unwrap();

        for path in ["src/../out/precious", "src/../../out/x", "../out/x", "src/a/../../x"] {
            let (result, skipped) = unpack(&to, &[entry(path, b'0', "", b"x")]);
            result.unwrap();
            assert_eq!(skipped.len(), 1, "{path}");
        }
        for path in ["out/x", "srcx", "/etc/x", "x/src/y"] {
            let (result, _) = unpack(&to, &[entry(path, b'0', "", b"x")]);
            assert_eq!(format!("{:#}", result.unwrap_err()), "tar contents corrupted", "{path}");
        }
        for (path, why) in [
            ("src/way-out/x", "none is followed"),
            ("src/way-out", "none is followed"),
            ("src/link", "none is followed"),
            ("src/link/x", "none is followed"),
            ("src/pipe", "No such device"),
        ] {
            let (result, _) = unpack(&to, &[entry(path, b'0', "", b"x")]);
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains(why), "{path}: {error}");
        }
        let (result, _) = unpack(&to, &[entry("src/way-out/", b'5', "", b"")]);
        assert!(format!("{:#}", result.unwrap_err()).contains("none is followed"));
        // A link that was sent is not there to be followed by what comes after it.
        let (result, skipped) =
            unpack(&to, &[entry("src/sent", b'2', "../out", b""), entry("src/sent/x", b'0', "", b"x")]);
        result.unwrap();
        assert_eq!(skipped.len(), 1);
        assert_eq!(fs::read(to.join("sent/x")).unwrap(), b"x");
        for target in ["/etc/passwd", "../out/precious", "src/link", "src", "src/missing"] {
            let (result, _) = unpack(&to, &[entry("src/hard", b'1', target, b"")]);
            assert!(result.is_err(), "{target}");
        }
        assert!(fs::metadata(to.join("hard")).is_err());

        let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["precious"]);
        assert_eq!(fs::read(out.join("precious")).unwrap(), b"precious");
        let mut beside: Vec<_> =
            fs::read_dir(here.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["out", "to"]);
    }

    #[test]
    fn two_names_of_one_file_keep_its_content() {
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("one"), "old").unwrap();
        fs::hard_link(here.path().join("one"), here.path().join("two")).unwrap();
        let sent = [entry("src/one", b'0', "", b"new"), entry("src/two", b'1', "src/one", b"")];
        unpack(here.path(), &sent).0.unwrap();
        assert_eq!(fs::read(here.path().join("two")).unwrap(), b"new");
    }
}
