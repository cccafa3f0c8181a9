//! Reading tar archives: ustar, PAX and GNU, as Go's `archive/tar` understands them.
//!
//! Layers are written and checked by tools built on that library. A reader that understood an archive
//! differently would unpack another image than the one whose digest was approved, so where the formats
//! leave a choice the one made there is made here, and what is ambiguous is refused.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};

use super::entry::{Entry, Fault, FileData, Kind};
use super::pax::{Pax, decimal, sparse_file};

const BLOCK: usize = 512;
/// The most an extended header or a long name may have; Go's limit.
const MAX_SPECIAL: u64 = 1 << 20;
/// The largest size an octal header field holds.
const MAX_OCTAL: u64 = 0o77_777_777_777;

/// Entries of an archive, one after another.
pub(crate) struct TarReader<R> {
    input: R,
    /// Data of the current entry not yet read.
    remaining: u64,
    /// Zeros between the data and the next header.
    padding: u64,
    ended: bool,
}

type Block = [u8; BLOCK];

impl<R: BufRead> TarReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, remaining: 0, padding: 0, ended: false }
    }

    /// Where it reads from.
    pub(super) fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// The next entry; its data, if any, is then read from `self`. What was left unread of the entry
    /// before is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Fault> {
        let mut pax = Pax::default();
        let mut long_name = None;
        let mut long_link = None;
        loop {
            self.skip_rest()?;
            let Some(block) = self.header()? else { return Ok(None) };
            let size = numeric(&block[124..136]).and_then(|n| u64::try_from(n).ok());
            let size = size.ok_or_else(|| Fault::malformed(name_field(&block), "has a malformed size"))?;
            match block[156] {
                b'x' => {
                    let data = self.special(&block, size)?;
                    pax = Pax::parse(&data)
                        .map_err(|problem| Fault::malformed(name_field(&block), &problem))?;
                }
                // Go hands global headers to its callers, and container tools ignore them.
                b'g' => self.begin(size),
                b'L' => long_name = Some(c_string(&self.special(&block, size)?).to_vec()),
                b'K' => long_link = Some(c_string(&self.special(&block, size)?).to_vec()),
                _ => return self.entry(&block, size, pax, long_name, long_link).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        block: &Block,
        header_size: u64,
        mut pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Fault> {
        let path =
            long_name.or(pax.sparse.name.take()).or(pax.path.take()).unwrap_or_else(|| full_name(block));
        let bad = |problem: &str| Fault::malformed(&path, problem);
        let link = long_link.or(pax.linkpath.take()).unwrap_or_else(|| c_string(&block[157..257]).to_vec());
        let field = |range: std::ops::Range<usize>, what: &str| {
            numeric(&block[range]).ok_or_else(|| bad(&format!("has a malformed {what}")))
        };
        let id = |pax: Option<u64>, range: std::ops::Range<usize>, what: &str| {
            let id = match pax {
                Some(id) => i128::from(id),
                None => i128::from(field(range, what)?),
            };
            // The last value is chown's "leave it".
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| bad(&format!("has {what} {id}, out of range")))
        };
        let device = |range: std::ops::Range<usize>, what: &str| {
            u32::try_from(field(range, what)?).map_err(|_| bad(&format!("has a malformed {what}")))
        };

        let stored = match pax.size {
            None => header_size,
            // A header that cannot hold the size has 0, or the largest it can hold. Any other difference
            // is there so that two readers see two archives.
            Some(size)
                if size == header_size || (size > MAX_OCTAL && matches!(header_size, 0 | MAX_OCTAL)) =>
            {
                size
            }
            Some(size) => {
                return Err(bad(&format!(
                    "has size {header_size} in its header but {size} in its PAX record"
                )));
            }
        };
        let kind = match block[156] {
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => {
                self.begin(stored);
                Kind::File(self.file(&pax, &path)?)
            }
            b'S' => {
                self.begin(stored);
                Kind::File(self.old_gnu_sparse(block, &path)?)
            }
            // As in Go, these have no data, whatever their size says.
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::Char(device(329..337, "device number")?, device(337..345, "device number")?),
            b'4' => Kind::Block(device(329..337, "device number")?, device(337..345, "device number")?),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(bad(&format!("is of unknown type {:?}", char::from(other)))),
        };
        Ok(Entry {
            mode: (field(100..108, "mode")? & 0o7777) as u32,
            uid: id(pax.uid, 108..116, "user id")?,
            gid: id(pax.gid, 116..124, "group id")?,
            mtime: match pax.mtime {
                Some(time) => time,
                None => (field(136..148, "modification time")?, 0),
            },
            xattrs: pax.xattrs,
            kind,
            path,
        })
    }

    /// A regular file's data: dense, or sparse by PAX records.
    fn file(&mut self, pax: &Pax, path: &[u8]) -> Result<FileData, Fault> {
        let bad = || Fault::malformed(path, "has a malformed sparse map");
        if !pax.sparse.is_used() {
            return Ok(FileData::dense(self.remaining));
        }
        let real_size = pax.sparse.real_size.ok_or_else(bad)?;
        if !pax.sparse.map_is_in_data() {
            return sparse_file(real_size, &pax.sparse.map, self.remaining).ok_or_else(bad);
        }
        // Decimal numbers, one a line: how many pairs, then the pairs; filled up to a whole block.
        let (mut map, mut wanted, mut line, mut read) = (Vec::new(), None, Vec::new(), 0u64);
        while wanted.is_none_or(|wanted| (map.len() as u64) < wanted) {
            let mut byte = [0];
            self.read_exact(&mut byte).map_err(Fault::Read)?;
            read += 1;
            if read > MAX_SPECIAL {
                return Err(bad());
            }
            if byte[0] != b'\n' {
                line.push(byte[0]);
                continue;
            }
            let number = decimal(&line).ok_or_else(bad)?;
            line.clear();
            match wanted {
                None => wanted = Some(number.checked_mul(2).ok_or_else(bad)?),
                Some(_) => map.push(number),
            }
        }
        let filler = read.next_multiple_of(BLOCK as u64) - read;
        if filler > self.remaining {
            return Err(bad());
        }
        self.skip(filler)?;
        sparse_file(real_size, &map, self.remaining).ok_or_else(bad)
    }

    /// The old GNU format: four segments in the header, more in blocks that follow it.
    fn old_gnu_sparse(&mut self, block: &Block, path: &[u8]) -> Result<FileData, Fault> {
        let bad = || Fault::malformed(path, "has a malformed sparse map");
        let number = |field: &[u8]| numeric(field).and_then(|n| u64::try_from(n).ok()).ok_or_else(bad);
        let real_size = number(&block[483..495])?;
        let mut map = Vec::new();
        let mut take = |entries: &[u8]| -> Result<(), Fault> {
            for entry in entries.chunks_exact(24).take_while(|entry| entry[0] != 0) {
                map.push(number(&entry[..12])?);
                map.push(number(&entry[12..])?);
            }
            if map.len() as u64 * 12 > MAX_SPECIAL { Err(bad()) } else { Ok(()) }
        };
        take(&block[386..482])?;
        let mut extended = block[482] != 0;
        while extended {
            let mut more = [0; BLOCK];
            self.input.read_exact(&mut more).map_err(truncated)?;
            take(&more[..504])?;
            extended = more[504] != 0;
        }
        sparse_file(real_size, &map, self.remaining).ok_or_else(bad)
    }

    /// The next header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Block>, Fault> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        // Go takes an end at a block's boundary for the archive's end.
        if self.input.fill_buf().map_err(Fault::Read)?.is_empty() {
            self.ended = true;
            return Ok(None);
        }
        self.input.read_exact(&mut block).map_err(truncated)?;
        if block.iter().all(|b| *b == 0) {
            let mut second = [0; BLOCK];
            let more = !self.input.fill_buf().map_err(Fault::Read)?.is_empty();
            if more {
                self.input.read_exact(&mut second).map_err(truncated)?;
            }
            if second.iter().any(|b| *b != 0) {
                return Err(Fault::Malformed(
                    "the archive has a block of zeros between its entries".to_owned(),
                ));
            }
            self.ended = true;
            return Ok(None);
        }
        let sum = |value: fn(u8) -> i64| -> i64 {
            let header: i64 = block.iter().map(|b| value(*b)).sum();
            header - block[148..156].iter().map(|b| value(*b)).sum::<i64>() + 8 * i64::from(b' ')
        };
        let expected = numeric(&block[148..156]);
        // Some old programs summed signed bytes.
        if expected != Some(sum(i64::from)) && expected != Some(sum(|b| i64::from(b as i8))) {
            return Err(Fault::Malformed(
                "a header's checksum is wrong: this is no tar archive, or a damaged one".to_owned(),
            ));
        }
        Ok(Some(block))
    }

    fn special(&mut self, block: &Block, size: u64) -> Result<Vec<u8>, Fault> {
        if size > MAX_SPECIAL {
            return Err(Fault::malformed(name_field(block), "has an extended header of more than 1 MiB"));
        }
        self.begin(size);
        let mut data = vec![0; size as usize];
        self.read_exact(&mut data).map_err(truncated)?;
        Ok(data)
    }

    fn begin(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_rest(&mut self) -> Result<(), Fault> {
        self.skip(self.remaining)?;
        while self.padding > 0 {
            let available = self.input.fill_buf().map_err(Fault::Read)?.len();
            if available == 0 {
                // As in Go: a writer that was not closed, such as umoci's, fills up no last block.
                self.ended = true;
                break;
            }
            // Less than a block.
            let step = available.min(self.padding as usize);
            self.input.consume(step);
            self.padding -= step as u64;
        }
        Ok(())
    }

    fn skip(&mut self, count: u64) -> Result<(), Fault> {
        let mut left = count;
        while left > 0 {
            let available = self.fill_buf().map_err(Fault::Read)?.len();
            let step = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            if step == 0 {
                return Err(truncated(io::ErrorKind::UnexpectedEof.into()));
            }
            self.consume(step);
            left -= step as u64;
        }
        Ok(())
    }
}

/// Archives whose members are looked up later.
impl TarReader<BufReader<File>> {
    /// Where the current entry's data begins in the file.
    pub(crate) fn position(&mut self) -> io::Result<u64> {
        self.input.stream_position()
    }

    /// Passes over the current entry's data without reading it.
    pub(crate) fn seek_over(&mut self) -> io::Result<()> {
        let remaining = i64::try_from(self.remaining).map_err(io::Error::other)?;
        self.remaining = 0;
        self.input.seek_relative(remaining)
    }
}

/// The data of the current entry.
impl<R: BufRead> BufRead for TarReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends inside an entry"));
        }
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        Ok(&buffer[..buffer.len().min(most)])
    }

    fn consume(&mut self, amount: usize) {
        self.remaining -= amount as u64;
        self.input.consume(amount);
    }
}

impl<R: BufRead> Read for TarReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        super::read_buffered(self, out)
    }
}

fn truncated(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Fault::Read(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is truncated"))
        }
        _ => Fault::Read(error),
    }
}

/// Bytes up to the first NUL.
fn c_string(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

fn name_field(block: &Block) -> &[u8] {
    c_string(&block[..100])
}

/// The name, with the prefix of the ustar formats.
fn full_name(block: &Block) -> Vec<u8> {
    let name = name_field(block);
    let prefix = match (&block[257..263], &block[508..512]) {
        (b"ustar\0", b"tar\0") => c_string(&block[345..476]),
        (b"ustar\0", _) => c_string(&block[345..500]),
        _ => &[],
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// An octal number, or GNU's base-256 one, which may be negative.
fn numeric(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let fill = if negative { 0xff } else { 0 };
        let mut value: i128 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 { byte & 0x3f | fill & 0xc0 } else { *byte };
            // At most twelve bytes: 96 bits.
            value = value << 8 | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = c_string(&field[start..]);
    let end = digits.iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1);
    digits[..end].iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}
