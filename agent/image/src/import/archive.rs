//! Members of an image archive by name: a directory, or a tar file.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_linux::open_beneath;
use rustix::fs::{OFlags, ResolveFlags};

use crate::store::{MAX_DOCUMENT, open_directory};
use crate::unpack::{Budget, Fault, Limits, Peeked, TarReader};
use crate::{ImageError, Store};

/// An archive that names its layers one by one has few members.
const MAX_MEMBERS: usize = 100_000;
const MAX_LINKS: usize = 8;

/// An opened archive.
pub(crate) struct Archive {
    path: PathBuf,
    members: Members,
}

enum Members {
    Directory(OwnedFd),
    Tar { file: Arc<File>, index: HashMap<Vec<u8>, Member> },
}

enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Old `docker save` archives link layers that several images share.
    Link(Vec<u8>),
}

impl Archive {
    /// A directory. Members are looked up beneath it.
    pub(crate) fn directory(path: &Path) -> Result<Self, ImageError> {
        Ok(Self { path: path.to_owned(), members: Members::Directory(open_directory(path)?) })
    }

    /// A tar file. A compressed one is decompressed into the store's temporary directory first, because
    /// its members are needed in another order than they stand in.
    pub(crate) fn tar(store: &Store, path: &Path, limits: &Limits) -> Result<Self, ImageError> {
        let failed = |step| ImageError::source(step, path);
        let mut file = File::open(path).map_err(failed("open"))?;
        let mut start = [0; 4];
        let got = file.read(&mut start).map_err(failed("read"))?;
        let is_plain_file = fs::metadata(path).map_err(failed("look at"))?.is_file();
        let is_compressed = got >= 2 && start[..2] == [0x1f, 0x8b] || start == [0x28, 0xb5, 0x2f, 0xfd];
        file = File::open(path).map_err(failed("open"))?;
        if is_compressed || !is_plain_file {
            file = spool(store, path, file, *limits)?;
        }
        let index = index(path, file.try_clone().map_err(failed("open"))?)?;
        Ok(Self { path: path.to_owned(), members: Members::Tar { file: Arc::new(file), index } })
    }

    pub(crate) fn invalid(&self, problem: impl Into<String>) -> ImageError {
        ImageError::invalid(&self.path, problem)
    }

    /// Whether there is a member of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// A member's bytes, and how many they are.
    pub(crate) fn open(&self, name: &str) -> Result<(Box<dyn Read + Send>, u64), ImageError> {
        let missing = || self.invalid(format!("it has no {name}"));
        match &self.members {
            Members::Directory(directory) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file = match open_beneath(directory, name, flags, resolve) {
                    Ok(file) => File::from(file),
                    Err(rustix::io::Errno::NOENT) => return Err(missing()),
                    Err(error) => {
                        return Err(ImageError::source("open", self.path.join(name))(error.into()));
                    }
                };
                let metadata =
                    file.metadata().map_err(ImageError::source("look at", self.path.join(name)))?;
                if !metadata.is_file() {
                    return Err(self.invalid(format!("its {name} is not a regular file")));
                }
                Ok((Box::new(file), metadata.len()))
            }
            Members::Tar { file, index } => {
                let mut key = normal_name(name.as_bytes());
                for _ in 0..MAX_LINKS {
                    match index.get(&key).ok_or_else(missing)? {
                        Member::File { offset, size } => {
                            let range = Range { file: Arc::clone(file), at: *offset, end: offset + size };
                            return Ok((Box::new(range), *size));
                        }
                        Member::Link(target) => key = linked(&key, target),
                    }
                }
                Err(self.invalid(format!("its {name} is a link to itself")))
            }
        }
    }

    /// A JSON document.
    pub(crate) fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let (reader, size) = self.open(name)?;
        if size > MAX_DOCUMENT {
            return Err(
                self.invalid(format!("its {name} has {size} bytes, at most {MAX_DOCUMENT} are possible"))
            );
        }
        let mut content = Vec::new();
        reader
            .take(MAX_DOCUMENT)
            .read_to_end(&mut content)
            .map_err(ImageError::source("read", self.path.join(name)))?;
        Ok(content)
    }
}

/// Where every file of the archive stands.
fn index(path: &Path, file: File) -> Result<HashMap<Vec<u8>, Member>, ImageError> {
    let length = file.metadata().map_err(ImageError::source("look at", path))?.len();
    let explain = |fault: Fault| match fault {
        Fault::Read(error) => ImageError::source("read", path)(error),
        Fault::Malformed(problem) => ImageError::invalid(path, problem),
        other => ImageError::invalid(path, format!("{other:?}")),
    };
    let mut archive = TarReader::new(BufReader::new(file));
    let mut index = HashMap::new();
    while let Some(entry) = archive.next_entry().map_err(explain)? {
        use crate::unpack::Kind;
        let name = normal_name(&entry.path);
        let member = match entry.kind {
            Kind::File(data) => {
                if data.stored() != data.size {
                    return Err(ImageError::invalid(path, "a member of it is a sparse file"));
                }
                let offset = archive.position().map_err(ImageError::source("read", path))?;
                if offset.saturating_add(data.size) > length {
                    return Err(ImageError::invalid(path, "it is truncated"));
                }
                archive.seek_over().map_err(ImageError::source("read", path))?;
                Member::File { offset, size: data.size }
            }
            Kind::Symlink(target) => Member::Link(target),
            Kind::HardLink(target) => Member::Link([b"/", target.as_slice()].concat()),
            _ => continue,
        };
        if index.len() >= MAX_MEMBERS {
            return Err(ImageError::invalid(path, format!("it has more than {MAX_MEMBERS} members")));
        }
        if index.insert(name, member).is_some() {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            return Err(ImageError::invalid(path, format!("it has two members named {name:?}")));
        }
    }
    Ok(index)
}

/// Keeps what `source` gives, decompressed, in a file of the store's without a name.
pub(super) fn spool(
    store: &Store,
    path: &Path,
    source: impl Read + Send,
    limits: Limits,
) -> Result<File, ImageError> {
    use std::os::fd::AsFd;
    let directory = store.root().join("tmp");
    let name = directory.join(format!("file-{}", uuid::Uuid::new_v4().simple()));
    let failed = |step| ImageError::store(step, &name);
    let mut options = OpenOptions::new();
    let mut spooled =
        options.read(true).write(true).create_new(true).mode(0o600).open(&name).map_err(failed("create"))?;
    // Without a name it goes with this process.
    fs::remove_file(&name).map_err(failed("unlink"))?;
    let disk = open_directory(&directory)?;
    let mut budget = Budget::new(disk.as_fd(), limits);
    let full = |fault: Fault| match fault {
        Fault::DiskFull { needed, available, reserve } => ImageError::DiskFull {
            what: path.display().to_string(),
            path: directory.clone(),
            needed,
            available,
            reserve,
        },
        other => ImageError::invalid(path, format!("{other:?}")),
    };
    let mut input =
        Peeked::new(source).and_then(Peeked::decompress).map_err(ImageError::source("read", path))?;
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0u64;
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ImageError::source("decompress", path)(error)),
        };
        total += count as u64;
        if limits.max_layer_bytes.is_some_and(|most| total > most) {
            return Err(ImageError::invalid(path, "it is larger than the limit when decompressed"));
        }
        budget.bytes(count as u64).map_err(full)?;
        spooled.write_all(&buffer[..count]).map_err(failed("write"))?;
    }
    spooled.rewind().map_err(failed("rewind"))?;
    Ok(spooled)
}

/// Without `./`, doubled slashes and what leads out.
pub(crate) fn normal_name(name: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in name.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            other => components.push(other),
        }
    }
    components.join(&b'/')
}

fn linked(from: &[u8], target: &[u8]) -> Vec<u8> {
    if target.starts_with(b"/") {
        return normal_name(target);
    }
    let directory = from.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &from[..slash]);
    normal_name(&[directory, b"/", target].concat())
}

/// A part of a file, read without moving anybody's offset.
struct Range {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}
