//! Where an export goes: a tar archive, or a directory.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::documents::{Blob, member};
use crate::{Digest, ImageError};

/// Gives a blob's bytes, all of them.
pub(super) type Content<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<(), ImageError>;

pub(super) trait Target {
    /// Writes a blob, unless it is there already.
    fn blob(&mut self, blob: Blob, content: Content<'_>) -> Result<(), ImageError>;
    /// Writes a file at the top.
    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), ImageError>;
}

/// An archive that is the same whenever, and by whomever, it is written.
pub(super) struct Tar<W> {
    out: W,
    blobs: HashSet<Digest>,
}

/// An image layout.
pub(super) struct Directory {
    path: PathBuf,
    blobs: HashSet<Digest>,
}

// === impl Tar ===

impl<W: Write> Tar<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, blobs: HashSet::new() }
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 1024])?;
        self.out.flush()
    }

    fn header(&mut self, name: &str, kind: u8, size: u64) -> Result<(), ImageError> {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        let mode: &[u8] = if kind == b'5' { b"0000755\0" } else { b"0000644\0" };
        block[100..108].copy_from_slice(mode);
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        if size < 1 << 33 {
            block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        } else {
            // GNU's form for what octal digits cannot hold.
            block[124] = 0x80;
            block[128..136].copy_from_slice(&size.to_be_bytes());
        }
        block[136..148].copy_from_slice(b"00000000000\0");
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.out.write_all(&block).map_err(ImageError::Output)
    }

    fn pad(&mut self, size: u64) -> Result<(), ImageError> {
        let padding = (size.next_multiple_of(512) - size) as usize;
        self.out.write_all(&[0; 512][..padding]).map_err(ImageError::Output)
    }
}

impl<W: Write> Target for Tar<W> {
    fn blob(&mut self, blob: Blob, content: Content<'_>) -> Result<(), ImageError> {
        if self.blobs.is_empty() {
            self.header("blobs/", b'5', 0)?;
            self.header("blobs/sha256/", b'5', 0)?;
        }
        if !self.blobs.insert(blob.digest) {
            return Ok(());
        }
        self.header(&member(blob.digest), b'0', blob.size)?;
        content(&mut self.out)?;
        self.pad(blob.size)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), ImageError> {
        self.header(name, b'0', content.len() as u64)?;
        self.out.write_all(content).map_err(ImageError::Output)?;
        self.pad(content.len() as u64)
    }
}

// === impl Directory ===

impl Directory {
    pub(super) fn create(path: &Path) -> Result<Self, ImageError> {
        match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(ImageError::OutputExists { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ImageError::source("write", path)(error)),
        }
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(ImageError::source("create", &blobs))?;
        Ok(Self { path: path.to_owned(), blobs: HashSet::new() })
    }

    fn write(&self, name: &str, content: Content<'_>) -> Result<(), ImageError> {
        let path = self.path.join(name);
        let file = File::create_new(&path).map_err(ImageError::source("create", &path))?;
        let mut out = BufWriter::with_capacity(256 << 10, file);
        content(&mut out)?;
        out.flush().map_err(ImageError::Output)
    }
}

impl Target for Directory {
    fn blob(&mut self, blob: Blob, content: Content<'_>) -> Result<(), ImageError> {
        if self.blobs.insert(blob.digest) { self.write(&member(blob.digest), content) } else { Ok(()) }
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), ImageError> {
        self.write(name, &mut |out| out.write_all(content).map_err(ImageError::Output))
    }
}
