//! A directory of the host as a layer.
//!
//! It is read as `tar --one-file-system --xattrs --sparse` would archive it, and each entry goes through
//! the same writer as an archive's. The layer's DiffID is the digest of that archive in a canonical
//! form, so the same tree has the same digest wherever it is imported.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, major, minor, openat, readlinkat, seek,
    statat,
};
use rustix::io::{Errno, pread};

use super::attributes::read_xattrs;
use super::entry::{Entry, Fault, FileData, Kind};
use super::layer::Written;
use super::split::SplitWriter;
use super::stream::Sink;
use coracle_model::{Digest, Hasher};

const BUFFER: usize = 256 << 10;

/// Copies what is below `source` into the layer. What is mounted below it is left out, as is the
/// directory that `skip` (device and inode) names.
pub(crate) fn copy_directory(
    source: OwnedFd,
    skip: (u64, u64),
    sink: Sink<'_>,
) -> Result<(Digest, u64), Fault> {
    let Sink { mut writer, split, .. } = sink;
    fn failed(path: &[u8]) -> impl FnOnce(Errno) -> Fault {
        Fault::write("read", path)
    }
    let device = fstat(&source).map_err(failed(b"."))?.st_dev;
    let mut archive = CanonicalTar { hasher: Hasher::default(), length: 0, split };
    let mut seen = HashMap::<u64, Vec<u8>>::new();

    let root = describe(&source, b"./".to_vec(), Kind::Directory).map_err(failed(b"."))?;
    archive.header(&root);
    writer.apply(&root, &mut io::empty())?;
    let names = list(&source).map_err(failed(b"."))?;
    let mut open: Vec<(OwnedFd, Vec<u8>, std::vec::IntoIter<Vec<u8>>)> = vec![(source, Vec::new(), names)];
    while let Some((directory, prefix, names)) = open.last_mut() {
        let Some(name) = names.next() else {
            open.pop();
            continue;
        };
        let path = [prefix.as_slice(), &name].concat();
        let stat = statat(&*directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed(&path))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let readable = |flags| {
            let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let file = openat(&*directory, name.as_slice(), flags, Mode::empty())?;
            let now = fstat(&file)?;
            if (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino) { Ok(file) } else { Err(Errno::STALE) }
        };
        let is_link = stat.st_nlink > 1 && kind != FileType::Directory && stat.st_dev == device;
        if let Some(first) = is_link.then(|| seen.get(&stat.st_ino)).flatten() {
            let entry = bare(&stat, path, Kind::HardLink(first.clone()));
            archive.header(&entry);
            writer.apply(&entry, &mut io::empty())?;
            continue;
        }
        if is_link && kind != FileType::Socket {
            seen.insert(stat.st_ino, path.clone());
        }
        let entry = match kind {
            FileType::Directory => {
                let child = readable(OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed(&path))?;
                let path = [path.as_slice(), b"/"].concat();
                let entry = describe(&child, path.clone(), Kind::Directory).map_err(failed(&path))?;
                archive.header(&entry);
                writer.apply(&entry, &mut io::empty())?;
                if stat.st_dev == device && (stat.st_dev, stat.st_ino) != skip {
                    let names = list(&child).map_err(failed(&path))?;
                    open.push((child, path, names));
                }
                continue;
            }
            FileType::RegularFile if stat.st_dev == device => {
                let file = readable(OFlags::RDONLY).map_err(failed(&path))?;
                let data = segments(&file, &stat).map_err(failed(&path))?;
                let entry = describe(&file, path.clone(), Kind::File(data.clone())).map_err(failed(&path))?;
                archive.header(&entry);
                let mut input = FileReader::new(&file, data, &mut archive);
                let written = writer.apply(&entry, &mut input)?;
                input.finish(written);
                archive.split.check()?;
                continue;
            }
            FileType::Symlink => {
                let target = readlinkat(&*directory, name.as_slice(), Vec::new()).map_err(failed(&path))?;
                bare(&stat, path, Kind::Symlink(target.into_bytes()))
            }
            FileType::CharacterDevice => {
                bare(&stat, path, Kind::Char(major(stat.st_rdev), minor(stat.st_rdev)))
            }
            FileType::BlockDevice => bare(&stat, path, Kind::Block(major(stat.st_rdev), minor(stat.st_rdev))),
            FileType::Fifo => bare(&stat, path, Kind::Fifo),
            // A file bound over another is a mount, and a socket is of its process: neither is content.
            _ => continue,
        };
        archive.header(&entry);
        writer.apply(&entry, &mut io::empty())?;
    }
    writer.finish()?;
    archive.finish()
}

fn list(directory: &OwnedFd) -> Result<std::vec::IntoIter<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for item in Dir::read_from(directory.as_fd())? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names.into_iter())
}

fn bare(stat: &Stat, path: Vec<u8>, kind: Kind) -> Entry {
    Entry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        xattrs: Vec::new(),
    }
}

fn describe(file: &OwnedFd, path: Vec<u8>, kind: Kind) -> Result<Entry, Errno> {
    Ok(Entry { xattrs: read_xattrs(file)?, ..bare(&fstat(file)?, path, kind) })
}

/// Where a file has data; a file without holes is one segment.
fn segments(file: &OwnedFd, stat: &Stat) -> Result<FileData, Errno> {
    let size = stat.st_size as u64;
    if stat.st_blocks as u64 * 512 >= size {
        return Ok(FileData::dense(size));
    }
    let (mut segments, mut at) = (Vec::new(), 0);
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data behind `at`.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(FileData::dense(size)),
            Err(error) => return Err(error),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(size);
        if start < end {
            segments.push((start, end - start));
        }
        at = end.max(at + 1);
    }
    Ok(FileData { size, segments })
}

/// A file's segments one after another, hashed with its holes as the zeros they stand for.
struct FileReader<'a, 'b> {
    file: &'a OwnedFd,
    archive: &'a mut CanonicalTar<'b>,
    size: u64,
    segments: std::vec::IntoIter<(u64, u64)>,
    /// The segment being read: where, and how much is left.
    offset: u64,
    left: u64,
    hashed: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl<'a, 'b> FileReader<'a, 'b> {
    fn new(file: &'a OwnedFd, data: FileData, archive: &'a mut CanonicalTar<'b>) -> Self {
        let segments = data.segments.into_iter();
        Self {
            file,
            archive,
            size: data.size,
            segments,
            offset: 0,
            left: 0,
            hashed: 0,
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// A file's data is what it has from end to end: the archive has its holes as zeros.
    fn finish(self, written: Option<Written>) {
        self.archive.hash_zeros(self.size - self.hashed);
        match written {
            Some(written) => self.archive.split.file(&written.path, written.inode, &[(0, self.size)]),
            // Nothing but a hole.
            None => self.archive.split.zeros(self.size),
        }
        self.archive.pad();
    }
}

impl BufRead for FileReader<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() {
            self.at = 0;
            if self.left == 0 {
                let Some((offset, length)) = self.segments.next() else {
                    self.buffer.clear();
                    return Ok(&[]);
                };
                (self.offset, self.left) = (offset, length);
                self.archive.hash_zeros(offset - self.hashed);
                self.hashed = offset;
            }
            let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(BUFFER);
            self.buffer.resize(most, 0);
            let count = pread(self.file, &mut self.buffer[..], self.offset)?;
            self.buffer.truncate(count);
            self.archive.hash(&self.buffer);
            self.offset += count as u64;
            self.hashed += count as u64;
            self.left -= count as u64;
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for FileReader<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        super::read_buffered(self, out)
    }
}

/// The digest of a PAX archive that is never written: a header block, preceded by PAX records for what
/// it cannot hold, then the data.
struct CanonicalTar<'a> {
    hasher: Hasher,
    length: u64,
    split: SplitWriter<'a>,
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl CanonicalTar<'_> {
    fn header(&mut self, entry: &Entry) {
        let mut records = Vec::new();
        if entry.path.len() > 100 || !entry.path.is_ascii() {
            record(&mut records, b"path", &entry.path);
        }
        let (flag, link, size, device) = match &entry.kind {
            Kind::File(data) => (b'0', &b""[..], data.size, (0, 0)),
            Kind::HardLink(target) => (b'1', target.as_slice(), 0, (0, 0)),
            Kind::Symlink(target) => (b'2', target.as_slice(), 0, (0, 0)),
            Kind::Char(major, minor) => (b'3', &b""[..], 0, (*major, *minor)),
            Kind::Block(major, minor) => (b'4', &b""[..], 0, (*major, *minor)),
            Kind::Directory => (b'5', &b""[..], 0, (0, 0)),
            Kind::Fifo => (b'6', &b""[..], 0, (0, 0)),
        };
        if link.len() > 100 || !link.is_ascii() {
            record(&mut records, b"linkpath", link);
        }
        for (key, value, most) in [
            (&b"size"[..], size, 0o77_777_777_777),
            (b"uid", entry.uid.into(), 0o7_777_777),
            (b"gid", entry.gid.into(), 0o7_777_777),
        ] {
            if value > most {
                record(&mut records, key, value.to_string().as_bytes());
            }
        }
        let (seconds, nanoseconds) = entry.mtime;
        if nanoseconds != 0 || !(0..=0o77_777_777_777).contains(&seconds) {
            let time = match (seconds, nanoseconds) {
                (seconds, 0) => seconds.to_string(),
                (0.., nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
                // The fraction counts away from zero.
                _ => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
            };
            record(&mut records, b"mtime", time.as_bytes());
        }
        for (name, value) in &entry.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !records.is_empty() {
            self.block(b'x', b"PaxHeaders/entry", b"", 0o644, (0, 0), records.len() as u64, 0, (0, 0));
            self.data(&records);
            self.pad();
        }
        let (path, link) = (cut(&entry.path), cut(link));
        let ids = (entry.uid, entry.gid);
        self.block(flag, path, link, entry.mode, ids, size, seconds, device);
    }

    #[allow(clippy::too_many_arguments)] // The fields of one header, in their order.
    fn block(
        &mut self,
        flag: u8,
        path: &[u8],
        link: &[u8],
        mode: u32,
        (uid, gid): (u32, u32),
        size: u64,
        mtime: i64,
        (major, minor): (u32, u32),
    ) {
        let mut block = [0; 512];
        block[..path.len()].copy_from_slice(path);
        octal(&mut block[100..108], mode.into());
        octal(&mut block[108..116], uid.into());
        octal(&mut block[116..124], gid.into());
        octal(&mut block[124..136], size);
        octal(&mut block[136..148], u64::try_from(mtime).unwrap_or(0));
        block[148..156].fill(b' ');
        block[156] = flag;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], major.into());
        octal(&mut block[337..345], minor.into());
        let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
        octal(&mut block[148..155], sum);
        self.data(&block);
    }

    fn data(&mut self, bytes: &[u8]) {
        self.hash(bytes);
        self.split.literal(bytes);
    }

    /// What the files have.
    fn hash(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }

    fn hash_zeros(&mut self, mut count: u64) {
        while count > 0 {
            let step = count.min(ZEROS.len() as u64);
            self.hash(&ZEROS[..step as usize]);
            count -= step;
        }
    }

    fn zeros(&mut self, count: u64) {
        self.hash_zeros(count);
        self.split.zeros(count);
    }

    fn pad(&mut self) {
        self.zeros(self.length.next_multiple_of(512) - self.length);
    }

    fn finish(mut self) -> Result<(Digest, u64), Fault> {
        self.zeros(1024);
        self.split.finish()?;
        Ok((self.hasher.finish(), self.length))
    }
}

fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(100)]
}

/// Zero-filled octal digits and a NUL; a value that does not fit is 0, and stands in a PAX record.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    let digits = if digits.len() > width { "0".repeat(width) } else { digits };
    field[..width].copy_from_slice(digits.as_bytes());
}

fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + body.to_string().len();
    // One more digit may be needed for the length that counts its own digits.
    if length.to_string().len() + body > length {
        length += 1;
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}
