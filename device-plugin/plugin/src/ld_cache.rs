//! The dynamic linker's cache (`/etc/ld.so.cache` of glibc, its format 1.1 since 2.2): which library is where.
//!
//! It is read of a host, to find where a driver's libraries are, and of a container, to add them there. The second is
//! foreign bytes: what is wrong with them is an error, and nothing is believed.

use std::cmp::Ordering;

/// The most a cache may be. One of a full desktop has 200 kB.
pub(crate) const MOST_BYTES: usize = 16 << 20;
/// More libraries than any host has.
const MOST_ENTRIES: usize = 200_000;

const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
/// The extension that holds the names of subdirectories by processor (`glibc-hwcaps`).
const HWCAPS: u32 = 1;
/// `hwcap` of an entry that is in such a subdirectory; the low half is which.
const IN_HWCAPS: u64 = 1 << 62;
/// Of numbers in the file: little-endian, which all we are built for are.
const LITTLE_ENDIAN: u8 = 2;

/// What an entry says of a library of this machine's architecture.
#[cfg(target_arch = "x86_64")]
pub(crate) const NATIVE: u32 = 0x0303;
/// What an entry says of a library of this machine's architecture.
#[cfg(target_arch = "aarch64")]
pub(crate) const NATIVE: u32 = 0x0a03;

/// A cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cache {
    entries: Vec<Entry>,
    hwcaps: Vec<Vec<u8>>,
}

/// One library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What programs ask for: its soname.
    pub(crate) name: Vec<u8>,
    /// Where it is.
    pub(crate) path: Vec<u8>,
    /// Its architecture.
    flags: u32,
    osversion: u32,
    hwcap: u64,
}

/// Why bytes are no cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// Neither in this format nor in the older one before it.
    #[error("it is no cache of glibc's dynamic linker")]
    Unknown,
    /// It ends early, or points out of itself.
    #[error("it points to what is not in it")]
    Cut,
    /// It is longer than any.
    #[error("it is larger than any such cache")]
    Large,
}

// === impl Cache ===

impl Cache {
    /// Reads one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CacheError> {
        if bytes.len() > MOST_BYTES {
            return Err(CacheError::Large);
        }
        let start = if bytes.starts_with(MAGIC) { 0 } else { after_old(bytes)? };
        let own = bytes.get(start..).ok_or(CacheError::Cut)?;
        if !own.starts_with(MAGIC) {
            return Err(CacheError::Unknown);
        }
        let count = number(own, 20)? as usize;
        if count > MOST_ENTRIES {
            return Err(CacheError::Large);
        }
        let mut entries = Vec::with_capacity(count);
        for index in 0..count {
            let at = HEADER + index * ENTRY;
            let hwcap = u64::from(number(own, at + 16)?) | u64::from(number(own, at + 20)?) << 32;
            entries.push(Entry {
                name: string(own, number(own, at + 4)?)?,
                path: string(own, number(own, at + 8)?)?,
                flags: number(own, at)?,
                osversion: number(own, at + 12)?,
                hwcap,
            });
        }
        let hwcaps = match number(own, 32)? {
            0 => Vec::new(),
            // The offsets of extensions count from the beginning of the file.
            extensions => hwcaps(bytes, own, extensions)?,
        };
        let known =
            |entry: &Entry| entry.hwcap & IN_HWCAPS == 0 || (entry.hwcap & 0xffff_ffff) < hwcaps.len() as u64;
        entries.retain(known);
        Ok(Self { entries, hwcaps })
    }

    /// Where libraries of this machine's architecture are by a name.
    pub(crate) fn find<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let native = self.entries.iter().filter(|entry| entry.flags == NATIVE);
        native.filter(move |entry| entry.name == name.as_bytes()).map(|entry| entry.path.as_slice())
    }

    /// Puts a library in the place of those of its name and this machine's architecture.
    pub(crate) fn put(&mut self, name: &str, path: &str) {
        self.entries.retain(|entry| entry.flags != NATIVE || entry.name != name.as_bytes());
        self.entries.push(Entry {
            name: name.into(),
            path: path.into(),
            flags: NATIVE,
            osversion: 0,
            hwcap: 0,
        });
    }

    /// As a file. The linker searches it by halves, so the order is the linker's own, from the last name to the first.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, CacheError> {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|a, b| {
            let in_order = |entry: &Entry| (entry.flags, entry.hwcap);
            compare(&b.name, &a.name).then_with(|| in_order(b).cmp(&in_order(a)))
        });
        let mut strings = Strings { offset: HEADER + entries.len() * ENTRY, bytes: Vec::new() };
        let mut table = Vec::with_capacity(entries.len() * ENTRY);
        for entry in &entries {
            let (name, path) = (strings.put(&entry.name)?, strings.put(&entry.path)?);
            for field in [entry.flags, name, path, entry.osversion] {
                table.extend(field.to_le_bytes());
            }
            table.extend(entry.hwcap.to_le_bytes());
        }
        let hwcaps: Vec<u32> = self.hwcaps.iter().map(|name| strings.put(name)).collect::<Result<_, _>>()?;
        let length = strings.bytes.len();
        let end = (strings.offset + length).next_multiple_of(4);
        let narrow = |value: usize| u32::try_from(value).map_err(|_| CacheError::Large);
        let mut file = MAGIC.to_vec();
        file.extend(narrow(entries.len())?.to_le_bytes());
        file.extend(narrow(length)?.to_le_bytes());
        file.extend([LITTLE_ENDIAN, 0, 0, 0]);
        file.extend(if hwcaps.is_empty() { 0 } else { narrow(end)? }.to_le_bytes());
        file.resize(HEADER, 0);
        file.extend(table);
        file.extend(strings.bytes);
        if !hwcaps.is_empty() {
            file.resize(end, 0);
            let names = end + 8 + 16;
            for field in [EXTENSION_MAGIC, 1, HWCAPS, 0, narrow(names)?, narrow(hwcaps.len() * 4)?] {
                file.extend(field.to_le_bytes());
            }
            file.extend(hwcaps.iter().flat_map(|offset| offset.to_le_bytes()));
        }
        if file.len() > MOST_BYTES { Err(CacheError::Large) } else { Ok(file) }
    }
}

/// The strings of a cache that is written.
struct Strings {
    offset: usize,
    bytes: Vec<u8>,
}

impl Strings {
    fn put(&mut self, text: &[u8]) -> Result<u32, CacheError> {
        let at = u32::try_from(self.offset + self.bytes.len()).map_err(|_| CacheError::Large)?;
        self.bytes.extend(text);
        self.bytes.push(0);
        Ok(at)
    }
}

/// Where the cache is in a file that begins with one in the format before (until glibc 2.32 ldconfig wrote both).
fn after_old(bytes: &[u8]) -> Result<usize, CacheError> {
    if !bytes.starts_with(OLD_MAGIC) {
        return Err(CacheError::Unknown);
    }
    let count = number(bytes, 12)? as usize;
    let end = count
        .checked_mul(OLD_ENTRY)
        .and_then(|length| length.checked_add(OLD_HEADER))
        .ok_or(CacheError::Cut)?;
    Ok(end.next_multiple_of(8))
}

fn hwcaps(file: &[u8], own: &[u8], at: u32) -> Result<Vec<Vec<u8>>, CacheError> {
    let at = at as usize;
    if number(file, at)? != EXTENSION_MAGIC {
        return Err(CacheError::Unknown);
    }
    let count = number(file, at + 4)? as usize;
    for section in 0..count.min(64) {
        let section = at + 8 + section * 16;
        if number(file, section)? == HWCAPS {
            let (offset, size) = (number(file, section + 8)? as usize, number(file, section + 12)? as usize);
            let count = (size / 4).min(1024);
            return (0..count).map(|index| string(own, number(file, offset + index * 4)?)).collect();
        }
    }
    Ok(Vec::new())
}

fn number(bytes: &[u8], at: usize) -> Result<u32, CacheError> {
    let end = at.checked_add(4).ok_or(CacheError::Cut)?;
    let field = bytes.get(at..end).and_then(|field| field.try_into().ok()).ok_or(CacheError::Cut)?;
    Ok(u32::from_le_bytes(field))
}

fn string(bytes: &[u8], at: u32) -> Result<Vec<u8>, CacheError> {
    let rest = bytes.get(at as usize..).ok_or(CacheError::Cut)?;
    // No path is longer, and a cache whose every entry is long must not cost the square of its length.
    let rest = rest.get(..4096.min(rest.len())).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0).ok_or(CacheError::Cut)?;
    Ok(rest.get(..end).unwrap_or_default().to_owned())
}

/// The order of names that the linker searches by (`_dl_cache_libcmp`): numbers count as numbers.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.first().copied(), b.first().copied()) {
            (None, None) => return Ordering::Equal,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (left, right) = (digits(&mut a), digits(&mut b));
                if left != right {
                    // As the linker does it: in 32 bits, whatever that makes of long numbers.
                    return left.wrapping_sub(right).cmp(&0);
                }
            }
            (Some(x), _) if x.is_ascii_digit() => return Ordering::Greater,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), Some(y)) if y.is_ascii_digit() => return Ordering::Less,
            (Some(x), Some(y)) if x == y => {
                a = a.get(1..).unwrap_or_default();
                b = b.get(1..).unwrap_or_default();
            }
            (Some(x), y) => return x.cmp(&y.unwrap_or_default()),
        }
    }
}

fn digits(text: &mut &[u8]) -> i32 {
    let mut value = 0i32;
    while let Some((digit, rest)) = text.split_first().filter(|(digit, _)| digit.is_ascii_digit()) {
        value = value.wrapping_mul(10).wrapping_add(i32::from(*digit - b'0'));
        *text = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Cache {
        let mut cache = Cache::default();
        cache.put("libz.so.1", "/lib/libz.so.1");
        cache.put("libc.so.6", "/lib/libc.so.6");
        cache.put("libcuda.so.1", "/opt/compat/libcuda.so.1");
        cache.hwcaps = vec![b"x86-64-v3".to_vec()];
        let fast = Entry {
            name: b"libz.so.1".to_vec(),
            path: b"/lib/glibc-hwcaps/x86-64-v3/libz.so.1".to_vec(),
            flags: NATIVE,
            osversion: 0,
            hwcap: IN_HWCAPS,
        };
        cache.entries.push(fast);
        cache
    }

    #[test]
    fn what_is_written_can_be_read() {
        let bytes = sample().to_bytes().expect("a file");
        let read = Cache::parse(&bytes).expect("a cache");
        assert_eq!(read.hwcaps, [b"x86-64-v3"]);
        let names: Vec<_> =
            read.entries.iter().map(|it| String::from_utf8_lossy(&it.path).into_owned()).collect();
        assert_eq!(
            names,
            [
                "/lib/glibc-hwcaps/x86-64-v3/libz.so.1",
                "/lib/libz.so.1",
                "/opt/compat/libcuda.so.1",
                "/lib/libc.so.6"
            ]
        );
        assert_eq!(read.to_bytes(), Ok(bytes));
    }

    #[test]
    fn a_library_takes_the_place_of_one_of_its_name() {
        let mut cache = sample();
        cache.put("libcuda.so.1", "/usr/lib/libcuda.so.1");
        assert_eq!(cache.find("libcuda.so.1").collect::<Vec<_>>(), [b"/usr/lib/libcuda.so.1"]);
    }

    #[test]
    fn the_order_is_the_linkers() {
        // `lib1` counts as greater than `libc`: digits are greater than letters.
        assert_eq!(compare(b"lib1", b"libc"), Ordering::Greater);
        assert_eq!(compare(b"libc", b"lib1"), Ordering::Less);
        for pair in [
            "libnvidia-ml.so.1",
            "libcuda.so.10",
            "libcuda.so.9",
            "libcuda.so.1",
            "libcuda.so",
            "lib-.so",
            "lib",
        ]
        .windows(2)
        {
            assert_eq!(compare(pair[0].as_bytes(), pair[1].as_bytes()), Ordering::Greater, "{pair:?}");
        }
    }

    #[test]
    fn this_machines_own_is_read_and_written_the_same() {
        let Ok(bytes) = std::fs::read("/etc/ld.so.cache") else {
            return eprintln!("skipped: there is no /etc/ld.so.cache");
        };
        let cache = Cache::parse(&bytes).expect("a cache");
        assert!(cache.find("libc.so.6").next().is_some());
        let again = Cache::parse(&cache.to_bytes().expect("a file")).expect("a cache");
        assert_eq!(again.entries, cache.entries, "ldconfig's order is ours");
        assert_eq!(again.hwcaps, cache.hwcaps);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), old in any::<bool>(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)) {
            let _ = Cache::parse(&bytes);
            let mut file = sample().to_bytes().expect("a file");
            for (at, byte) in changes {
                let at = at.index(file.len());
                file[at] = byte;
            }
            if old {
                let mut whole = OLD_MAGIC.to_vec();
                whole.extend([0; 5]);
                whole.append(&mut file);
                file = whole;
            }
            if let Ok(cache) = Cache::parse(&file) {
                let _ = cache.to_bytes();
            }
            bytes.splice(0..0, MAGIC.iter().copied());
            let _ = Cache::parse(&bytes);
        }
    }
}
