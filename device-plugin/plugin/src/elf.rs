//! What a shared library calls itself (`DT_SONAME`), of 64-bit little-endian ELF.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// No library has more.
const MOST_SEGMENTS: usize = 128;
/// A dynamic section that is longer is none.
const MOST_DYNAMIC: u64 = 1 << 20;
/// No name is longer.
const MOST_NAME: usize = 255;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;

/// This machine's architecture (`e_machine`).
#[cfg(target_arch = "x86_64")]
pub(crate) const MACHINE: u64 = 62;
/// This machine's architecture (`e_machine`).
#[cfg(target_arch = "aarch64")]
pub(crate) const MACHINE: u64 = 183;

/// The soname of a library of this machine's architecture. `None` of anything else, and of one without.
pub(crate) fn soname(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    Ok(read(&file))
}

/// A segment: kind, offset in the file, address, length in the file.
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    length: u64,
}

fn read(file: &File) -> Option<String> {
    let header = bytes(file, 0, 64)?;
    // Class 64, little-endian.
    if !header.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1]) || field(&header, 18, 2)? != MACHINE {
        return None;
    }
    let (table, size, count) = (field(&header, 32, 8)?, field(&header, 54, 2)?, field(&header, 56, 2)?);
    let count = usize::try_from(count).ok()?.min(MOST_SEGMENTS);
    let mut segments = Vec::with_capacity(count);
    for index in 0..count as u64 {
        let entry = bytes(file, table.checked_add(index * size)?, 56)?;
        segments.push(Segment {
            kind: field(&entry, 0, 4)?,
            offset: field(&entry, 8, 8)?,
            address: field(&entry, 16, 8)?,
            length: field(&entry, 32, 8)?,
        });
    }
    let dynamic = segments.iter().find(|segment| segment.kind == PT_DYNAMIC)?;
    let entries = bytes(file, dynamic.offset, usize::try_from(dynamic.length.min(MOST_DYNAMIC)).ok()?)?;
    let (entries, _) = entries.as_chunks::<16>();
    let value = |tag| {
        entries
            .iter()
            .find(|entry| field(&entry[..], 0, 8) == Some(tag))
            .and_then(|entry| field(&entry[..], 8, 8))
    };
    let address = value(DT_STRTAB)?.checked_add(value(DT_SONAME)?)?;
    let inside = |segment: &&Segment| {
        segment.kind == PT_LOAD
            && address.checked_sub(segment.address).is_some_and(|within| within < segment.length)
    };
    let segment = segments.iter().find(inside)?;
    let mut name = vec![0; MOST_NAME + 1];
    let length = file.read_at(&mut name, (address - segment.address).checked_add(segment.offset)?).ok()?;
    let name = name.get(..length)?.split(|byte| *byte == 0).next()?;
    let name = std::str::from_utf8(name).ok()?;
    (!name.is_empty() && name.len() <= MOST_NAME && !name.contains('/')).then(|| name.to_owned())
}

fn bytes(file: &File, at: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

fn field(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let field = bytes.get(at..at + length)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::elf_with_soname;

    fn of(bytes: &[u8]) -> Option<String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("library");
        std::fs::write(&path, bytes).expect("a file");
        soname(&path).expect("it can be read")
    }

    #[test]
    fn a_library_says_its_name() {
        assert_eq!(of(&elf_with_soname("libcuda.so.1")).as_deref(), Some("libcuda.so.1"));
        assert_eq!(of(&elf_with_soname("../libcuda.so.1")), None);
        assert_eq!(of(b"#!/bin/sh\n"), None);
        let libc = crate::ld_cache::Cache::parse(&std::fs::read("/etc/ld.so.cache").unwrap_or_default()).ok();
        let libc = libc.and_then(|cache| cache.find("libc.so.6").next().map(<[u8]>::to_vec));
        if let Some(path) = libc.and_then(|path| String::from_utf8(path).ok()) {
            assert_eq!(soname(path.as_ref()).expect("it can be read").as_deref(), Some("libc.so.6"));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
            let mut file = elf_with_soname("libcuda.so.1");
            for (at, byte) in changes {
                let at = at.index(file.len());
                file[at] = byte;
            }
            file.truncate(cut.index(file.len()) + 1);
            let _ = of(&file);
        }
    }
}
