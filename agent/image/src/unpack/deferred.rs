//! Times that are set last: what is written into a directory changes its time.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, OFlags, Timestamps, openat, unlinkat};

use super::attributes::times;

/// What stays in memory of one layer; more goes to disk, since a layer may have millions of directories.
const MOST_IN_MEMORY: usize = 1 << 20;
const MOST_PATH: usize = 1 << 20;

/// Directories' times, in the order they were given.
pub(super) struct Deferred<'a> {
    layer: BorrowedFd<'a>,
    memory: Vec<u8>,
    disk: Option<BufWriter<File>>,
}

impl<'a> Deferred<'a> {
    /// `layer` is the directory for what memory is too small for.
    pub(super) fn new(layer: BorrowedFd<'a>) -> Self {
        Self { layer, memory: Vec::new(), disk: None }
    }

    pub(super) fn push(&mut self, path: &[u8], times: &Timestamps) -> io::Result<()> {
        let time = times.last_modification;
        self.memory.extend((path.len() as u32).to_le_bytes());
        self.memory.extend(path);
        self.memory.extend(time.tv_sec.to_le_bytes());
        self.memory.extend((time.tv_nsec as u32).to_le_bytes());
        if self.memory.len() < MOST_IN_MEMORY {
            return Ok(());
        }
        let disk = match &mut self.disk {
            Some(disk) => disk,
            None => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(self.layer, "times", flags, Mode::from_raw_mode(0o600))?;
                // Without a name it goes with this process.
                unlinkat(self.layer, "times", AtFlags::empty())?;
                self.disk.insert(BufWriter::new(File::from(file)))
            }
        };
        disk.write_all(&self.memory)?;
        self.memory.clear();
        Ok(())
    }

    /// Gives all of them to `set`.
    pub(super) fn drain<E: From<io::Error>>(
        &mut self,
        mut set: impl FnMut(&[u8], Timestamps) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(disk) = self.disk.take() {
            let mut file = disk.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.rewind()?;
            let mut input = BufReader::new(file);
            while let Some((path, times)) = read(&mut input)? {
                set(&path, times)?;
            }
        }
        let memory = std::mem::take(&mut self.memory);
        let mut input = memory.as_slice();
        while let Some((path, times)) = read(&mut input)? {
            set(&path, times)?;
        }
        Ok(())
    }
}

fn read(input: &mut impl Read) -> io::Result<Option<(Vec<u8>, Timestamps)>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_PATH {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut path = vec![0; length];
    let (mut seconds, mut nanoseconds) = ([0; 8], [0; 4]);
    input.read_exact(&mut path)?;
    input.read_exact(&mut seconds)?;
    input.read_exact(&mut nanoseconds)?;
    Ok(Some((path, times(i64::from_le_bytes(seconds), u32::from_le_bytes(nanoseconds)))))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_million_keep_their_order_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let layer = File::open(directory.path()).unwrap();
        let mut deferred = Deferred::new(layer.as_fd());
        for n in 0..200_000i64 {
            deferred.push(format!("directory/{n}").as_bytes(), &times(-n, n as u32)).unwrap();
        }
        assert!(deferred.memory.len() < MOST_IN_MEMORY && deferred.disk.is_some());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left of it");
        let mut next = 0;
        deferred
            .drain(|path, times| {
                assert_eq!(path, format!("directory/{next}").as_bytes());
                assert_eq!(times.last_modification.tv_sec, -next);
                next += 1;
                io::Result::Ok(())
            })
            .unwrap();
        assert_eq!(next, 200_000);
    }
}
