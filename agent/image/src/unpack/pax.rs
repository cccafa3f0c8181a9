//! PAX extended headers: the records that override a ustar header.

use super::entry::FileData;

/// The records of one extended header that a layer can use. The last of a key counts; an empty value
/// takes the override back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) linkpath: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: Sparse,
}

/// GNU's sparse formats 0.0, 0.1 and 1.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    pub(crate) major: Option<u64>,
    pub(crate) minor: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: Option<u64>,
    /// Formats 0.x: offsets and lengths in turn.
    pub(crate) map: Vec<u64>,
}

impl Pax {
    /// Parses `<length> <key>=<value>\n` records.
    pub(crate) fn parse(mut data: &[u8]) -> Result<Self, String> {
        let mut pax = Self::default();
        while !data.is_empty() {
            let malformed = || "has a malformed PAX record".to_owned();
            let space = data.iter().take(20).position(|b| *b == b' ').ok_or_else(malformed)?;
            let length =
                decimal(&data[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(malformed)?;
            if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
                return Err(malformed());
            }
            let record = &data[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
            pax.record(&record[..equals], &record[equals + 1..])?;
            data = &data[length..];
        }
        Ok(pax)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let bad = || format!("has PAX record {} with a malformed value", String::from_utf8_lossy(key));
        let text = || match value {
            b"" => Ok(None),
            value if value.contains(&0) => Err(bad()),
            value => Ok(Some(value.to_vec())),
        };
        let number = || match value {
            b"" => Ok(None),
            value => decimal(value).map(Some).ok_or_else(bad),
        };
        match key {
            b"path" => self.path = text()?,
            b"linkpath" => self.linkpath = text()?,
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(timestamp(value).ok_or_else(bad)?),
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.name" => self.sparse.name = text()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = number()?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let is_offset = key.ends_with(b"offset");
                if is_offset != self.sparse.map.len().is_multiple_of(2) {
                    return Err(bad());
                }
                self.sparse.map.push(number()?.ok_or_else(bad)?);
            }
            b"GNU.sparse.map" => {
                self.sparse.map = value
                    .split(|b| *b == b',')
                    .filter(|_| !value.is_empty())
                    .map(|part| decimal(part).ok_or_else(bad))
                    .collect::<Result<_, _>>()?;
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return Err(bad());
                    }
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
                // Comments, access times, user names, vendors' keys: nothing a layer needs.
            }
        }
        Ok(())
    }
}

impl Sparse {
    pub(crate) fn is_used(&self) -> bool {
        self.major.is_some() || self.real_size.is_some() || !self.map.is_empty()
    }

    /// Format 1.0 keeps its map in front of the data.
    pub(crate) fn map_is_in_data(&self) -> bool {
        self.major == Some(1) && self.minor.unwrap_or(0) == 0
    }
}

/// The file of a map of offsets and lengths in turn, whose data takes `stored` bytes.
pub(crate) fn sparse_file(real_size: u64, map: &[u64], stored: u64) -> Option<FileData> {
    if !map.len().is_multiple_of(2) {
        return None;
    }
    let segments = map.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    FileData::sparse(real_size, segments).filter(|data| data.stored() == stored)
}

pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Seconds with an optional fraction; more than nine of its digits are cut off.
fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let point = digits.iter().position(|b| *b == b'.');
    let (whole, fraction) = match point {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let mut nanoseconds = 0;
    for place in 0..9 {
        let digit = match fraction.get(place) {
            None => 0,
            Some(digit) if digit.is_ascii_digit() => u32::from(digit - b'0'),
            Some(_) => return None,
        };
        nanoseconds = nanoseconds * 10 + digit;
    }
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, nanoseconds) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + body.to_string().len();
        if length.to_string().len() + body != length {
            length += 1;
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn records_may_hold_any_byte() {
        let data = [
            record("path", b"a\nb=c"),
            record("SCHILY.xattr.security.capability", b"\x01\n\x00=\n"),
            record("mtime", b"12.5"),
            record("comment", b"x"),
        ]
        .concat();
        let pax = Pax::parse(&data).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb=c"[..]));
        assert_eq!(pax.xattrs, [(b"security.capability".to_vec(), b"\x01\n\x00=\n".to_vec())]);
        assert_eq!(pax.mtime, Some((12, 500_000_000)));
        let pax = Pax::parse(&[record("path", b"x"), record("path", b"")].concat()).unwrap();
        assert_eq!(pax.path, None, "an empty value takes the override back");
    }

    #[test]
    fn malformed_records() {
        for data in [
            &b"5 a=b"[..],
            b"99 a=b\n",
            b"a=b\n",
            b"0 a=b\n",
            b"6 ab\n\n",
            b"-6 a=b\n",
            b"99999999999999999999 a=b\n",
            b"3 \n",
            b" a=b\n",
            b"11 size=-1\n",
            b"12 size=0x1\n",
            b"11 path=\0a\n",
            b"12 mtime=1.x\n",
            b"30 GNU.sparse.numbytes=5\n",
        ] {
            assert!(Pax::parse(data).is_err(), "{:?}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn times_before_the_epoch() {
        assert_eq!(timestamp(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(timestamp(b"-1"), Some((-1, 0)));
        assert_eq!(timestamp(b"1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(timestamp(b"99999999999999999999"), None);
    }

    #[test]
    fn sparse_maps_are_checked() {
        assert!(sparse_file(10, &[0, 2, 8, 2], 4).is_some());
        for (size, map, stored) in [
            (10, &[0, 2, 8][..], 2),
            (10, &[0, 2, 1, 2], 4),
            (10, &[8, 3], 3),
            (10, &[0, 2], 3),
            (9, &[u64::MAX, 2], 2),
        ] {
            assert!(sparse_file(size, map, stored).is_none(), "{map:?}");
        }
    }
}
