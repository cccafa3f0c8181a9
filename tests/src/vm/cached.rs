//! A disk with a volatile cache of its own, served to qemu by the NBD protocol (`doc/proto.md` of NetworkBlockDevice/nbd).
//!
//! A disk says that it has written what it holds in its cache, and writes it in an order of its own. When the power goes,
//! what was written since the last flush is there or is not, block by block.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::random::Random;

/// What is written whole or not at all: a sector of the disks of today.
const BLOCK: u64 = 4096;
/// No request of qemu's is longer.
const LONGEST: u32 = 64 << 20;

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
/// `NBD_FLAG_FIXED_NEWSTYLE`, `NBD_FLAG_NO_ZEROES`.
const HANDSHAKE_FLAGS: u16 = 1 | 2;
/// `NBD_FLAG_HAS_FLAGS`, `NBD_FLAG_SEND_FLUSH`, `NBD_FLAG_SEND_FUA`.
const EXPORT_FLAGS: u16 = 1 | 4 | 8;
/// `NBD_OPT_GO`: the one option that is understood, and all that qemu needs.
const GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
const EIO: u32 = 5;
const EINVAL: u32 = 22;

/// A disk in a file, and how to have it be what a power cut leaves.
pub(super) struct CachedDisk {
    socket: PathBuf,
    listener: UnixListener,
    content: Arc<Mutex<Content>>,
    serving: Option<JoinHandle<()>>,
    random: Random,
}

/// The file holds what was written last; beside it is what was there at the last flush.
struct Content {
    file: File,
    size: u64,
    flushed: BTreeMap<u64, Vec<u8>>,
}

// === impl CachedDisk ===

impl CachedDisk {
    /// Serves a file, which holds a raw disk, at a socket.
    pub(super) fn new(file: &Path, socket: PathBuf) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(file).expect("the disk's file was made");
        let size = file.metadata().expect("an open file has metadata").len();
        let listener = UnixListener::bind(&socket).expect("the VM's directory is writable");
        let content = Arc::new(Mutex::new(Content { file, size, flushed: BTreeMap::new() }));
        Self { socket, listener, content, serving: None, random: Random::new() }
    }

    /// Where it is served, to one qemu at a time.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Serves the next qemu, which is about to be started.
    pub(super) fn serve(&mut self) {
        self.ended();
        let listener = self.listener.try_clone().expect("a second descriptor");
        let content = Arc::clone(&self.content);
        self.serving = Some(std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a socket that listens");
            // That qemu was killed, mostly.
            if let Err(error) = Connection::of(stream, &content).and_then(|mut connection| connection.serve())
                && error.kind() != io::ErrorKind::UnexpectedEof
            {
                println!("the disk's connection: {error}");
            }
        }));
    }

    /// Waits until nothing more comes from a qemu that has ended.
    fn ended(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.join().expect("the disk's thread does not panic");
        }
    }

    /// The power goes, and qemu was killed: of what was not flushed a part is lost, by chance all or nothing of it.
    pub(super) fn power_cut(&mut self) {
        self.ended();
        let quarters = self.random.below(5);
        let mut content = lock(&self.content);
        let unflushed = content.flushed.len();
        let lost = content.lose(quarters, &mut self.random).expect("the host's disk has room");
        println!("the disk's cache held {unflushed} blocks, of which {lost} are lost");
    }
}

fn lock(content: &Mutex<Content>) -> MutexGuard<'_, Content> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Content ===

impl Content {
    /// Of the blocks that are not flushed so many quarters, by chance, become what they were; how many did.
    fn lose(&mut self, quarters: u64, random: &mut Random) -> io::Result<usize> {
        let mut lost = 0;
        for (block, before) in std::mem::take(&mut self.flushed) {
            if random.below(4) < quarters {
                self.file.write_all_at(&before, block * BLOCK)?;
                lost += 1;
            }
        }
        Ok(lost)
    }

    fn write(&mut self, offset: u64, data: &[u8], through: bool) -> io::Result<()> {
        let end = offset + data.len() as u64;
        for block in offset / BLOCK..end.div_ceil(BLOCK) {
            let start = block * BLOCK;
            if !self.flushed.contains_key(&block) {
                if through {
                    continue;
                }
                let mut before = vec![0; BLOCK.min(self.size - start) as usize];
                self.file.read_exact_at(&mut before, start)?;
                self.flushed.insert(block, before);
            } else if through && let Some(before) = self.flushed.get_mut(&block) {
                // Past the cache: it is there whatever becomes of the rest of its block.
                let (from, to) = (offset.max(start), end.min(start + BLOCK));
                before[(from - start) as usize..(to - start) as usize]
                    .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
            }
        }
        self.file.write_all_at(data, offset)
    }
}

/// One qemu.
struct Connection<'a> {
    input: BufReader<UnixStream>,
    output: UnixStream,
    content: &'a Mutex<Content>,
}

// === impl Connection ===

impl<'a> Connection<'a> {
    /// Agrees with a client on what is served.
    fn of(stream: UnixStream, content: &'a Mutex<Content>) -> io::Result<Self> {
        let mut connection = Self { output: stream.try_clone()?, input: BufReader::new(stream), content };
        let mut greeting = b"NBDMAGIC".to_vec();
        greeting.extend(OPTION_MAGIC);
        greeting.extend(HANDSHAKE_FLAGS.to_be_bytes());
        connection.output.write_all(&greeting)?;
        connection.number()?; // The client's flags.
        loop {
            let magic: [u8; 8] = connection.bytes()?;
            if &magic != OPTION_MAGIC {
                return Err(io::Error::other("the client asks for no option"));
            }
            let option = connection.number()?;
            let length = connection.number()?;
            connection.data(length)?;
            if option == GO {
                // NBD_INFO_EXPORT
                let mut export = 0_u16.to_be_bytes().to_vec();
                export.extend(lock(content).size.to_be_bytes());
                export.extend(EXPORT_FLAGS.to_be_bytes());
                connection.answer_option(option, REPLY_INFO, &export)?;
                connection.answer_option(option, REPLY_ACK, b"")?;
                return Ok(connection);
            }
            connection.answer_option(option, REPLY_UNSUPPORTED, b"")?;
        }
    }

    fn answer_option(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut reply = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
        for number in [option, kind, data.len() as u32] {
            reply.extend(number.to_be_bytes());
        }
        reply.extend(data);
        self.output.write_all(&reply)
    }

    /// Does what is asked for, one after another, until the client goes.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            if self.number()? != REQUEST_MAGIC {
                return Err(io::Error::other("the client makes no request"));
            }
            let flags = u16::from_be_bytes(self.bytes()?);
            let kind = u16::from_be_bytes(self.bytes()?);
            let cookie: [u8; 8] = self.bytes()?;
            let offset = u64::from_be_bytes(self.bytes()?);
            let length = self.number()?;
            let content = self.content;
            let within = offset.checked_add(length.into()).is_some_and(|end| end <= lock(content).size);
            let mut read = Vec::new();
            let error = match kind {
                // NBD_CMD_READ
                0 if within && length <= LONGEST => {
                    read = vec![0; length as usize];
                    error_of(lock(content).file.read_exact_at(&mut read, offset))
                }
                // NBD_CMD_WRITE, which NBD_CMD_FLAG_FUA has go past the cache
                1 => {
                    let data = self.data(length)?;
                    if within { error_of(lock(content).write(offset, &data, flags & 1 != 0)) } else { EINVAL }
                }
                // NBD_CMD_DISC
                2 => return Ok(()),
                // NBD_CMD_FLUSH: the host itself is not to lose its power.
                3 => {
                    lock(content).flushed.clear();
                    0
                }
                _ => EINVAL,
            };
            let mut reply = REPLY_MAGIC.to_be_bytes().to_vec();
            reply.extend(error.to_be_bytes());
            reply.extend(cookie);
            if error == 0 {
                reply.extend(read);
            }
            self.output.write_all(&reply)?;
        }
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn data(&mut self, length: u32) -> io::Result<Vec<u8>> {
        if length > LONGEST {
            return Err(io::Error::other(format!("the client sends {length} bytes at once")));
        }
        let mut data = vec![0; length as usize];
        self.input.read_exact(&mut data)?;
        Ok(data)
    }
}

fn error_of(result: io::Result<()>) -> u32 {
    if result.is_ok() { 0 } else { EIO }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_two_blocks() -> Content {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * BLOCK).unwrap();
        Content { file, size: 2 * BLOCK, flushed: BTreeMap::new() }
    }

    fn read(content: &Content) -> Vec<u8> {
        let mut all = vec![0; 2 * BLOCK as usize];
        content.file.read_exact_at(&mut all, 0).unwrap();
        all
    }

    #[test]
    fn what_was_not_flushed_is_lost_or_there_block_by_block() {
        let mut random = Random::new();
        let mut content = of_two_blocks();
        content.write(0, &[1; 2 * BLOCK as usize], false).unwrap();
        content.flushed.clear();
        content.write(BLOCK - 1, &[2; 2], false).unwrap();
        assert_eq!(&read(&content)[BLOCK as usize - 2..][..4], [1, 2, 2, 1]);
        content.write(BLOCK - 1, &[3; 1], false).unwrap();
        // What is written through the cache stays, and nothing of its block beside it.
        content.write(BLOCK + 1, &[4; 1], true).unwrap();
        assert_eq!(content.lose(4, &mut random).unwrap(), 2);
        assert_eq!(&read(&content)[BLOCK as usize - 2..][..4], [1, 1, 1, 4]);

        content.write(0, &[5; 1], false).unwrap();
        assert_eq!(content.lose(0, &mut random).unwrap(), 0);
        assert_eq!(read(&content)[0], 5);
        assert!(content.flushed.is_empty());
    }
}
