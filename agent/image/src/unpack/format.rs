//! How a layer, or an archive, is compressed, by its first bytes; and what it takes to decompress it.

use std::io::{self, BufReader, Chain, Cursor, Read};

const BUFFER: usize = 256 << 10;
/// As much as says how much memory a zstd frame needs.
const MOST_PREFIX: usize = 18;
/// The window every zstd decoder has to support (RFC 8878), and what encoders use unless they are told otherwise.
const COMMON_WINDOW: u64 = 8 << 20;
const COMMON_WINDOW_LOG: u32 = 23;
/// The most that is supported.
const LARGEST_WINDOW: u64 = 32 << 20;
const LARGEST_WINDOW_LOG: u32 = 25;

/// A stream whose first bytes were looked at.
pub(crate) struct Peeked<R> {
    pub(crate) format: Format,
    /// All of its bytes.
    pub(crate) input: Chain<Cursor<Vec<u8>>, R>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Gzip,
    /// With the window its first frame needs, in bytes.
    Zstd(u64),
}

impl<R: Read> Peeked<R> {
    /// Reads the first bytes; they may come one by one.
    pub(crate) fn new(mut source: R) -> io::Result<Self> {
        let mut prefix = Vec::with_capacity(MOST_PREFIX);
        (&mut source).take(MOST_PREFIX as u64).read_to_end(&mut prefix)?;
        let format = if prefix.starts_with(&[0x1f, 0x8b]) {
            Format::Gzip
        } else if prefix.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Format::Zstd(window(&prefix[4..]))
        } else {
            Format::Plain
        };
        if let Format::Zstd(window) = format
            && window > LARGEST_WINDOW
        {
            let problem = format!(
                "it was compressed with a zstd window of {} MiB, at most {} MiB are supported; compress it without \
                 --long or --ultra",
                window.div_ceil(1 << 20),
                LARGEST_WINDOW >> 20
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
        }
        Ok(Self { format, input: Cursor::new(prefix).chain(source) })
    }

    /// What was compressed.
    pub(crate) fn decompress<'a>(self) -> io::Result<Box<dyn Read + Send + 'a>>
    where
        R: Send + 'a,
    {
        self.format.decompress(self.input)
    }
}

impl Format {
    /// How much memory decompressing needs, where that is much. Frames that follow the first may have larger windows, but
    /// none that are not common.
    pub(crate) fn memory(self) -> Option<u64> {
        match self {
            Self::Plain | Self::Gzip => None,
            Self::Zstd(window) if window > COMMON_WINDOW => Some(LARGEST_WINDOW),
            Self::Zstd(_) => Some(COMMON_WINDOW),
        }
    }

    pub(crate) fn decompress<'a>(
        self,
        input: impl Read + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        let most = if self.memory() == Some(LARGEST_WINDOW) { LARGEST_WINDOW_LOG } else { COMMON_WINDOW_LOG };
        let input = BufReader::with_capacity(BUFFER, input);
        Ok(match self {
            Format::Plain => Box::new(input),
            Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Format::Zstd(_) => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                // Frames that follow the first may ask for more.
                decoder.window_log_max(most)?;
                Box::new(decoder)
            }
        })
    }
}

/// The window of a zstd frame, from its header behind the magic number (RFC 8878, 3.1.1.1). What is cut off is found
/// when it is decompressed.
fn window(header: &[u8]) -> u64 {
    let byte = |at: usize| header.get(at).copied().unwrap_or(0);
    let descriptor = byte(0);
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let (exponent, mantissa) = (u32::from(byte(1) >> 3), u64::from(byte(1) & 7));
        let base = 1u64 << (10 + exponent);
        return base + base / 8 * mantissa;
    }
    // The content is the window.
    let start = 1 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let number = |length: usize| (0..length).fold(0, |sum, at| sum | u64::from(byte(start + at)) << (8 * at));
    match descriptor >> 6 {
        0 => number(1),
        1 => number(2) + 256,
        2 => number(4),
        _ => number(8),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// One byte at a time, as a slow network may give them.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let most = out.len().min(1);
            self.0.read(&mut out[..most])
        }
    }

    fn zstd(content: &[u8], window_log: Option<u32>) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        if let Some(window_log) = window_log {
            encoder.long_distance_matching(true).unwrap();
            encoder.window_log(window_log).unwrap();
        }
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_first_bytes_decide_however_they_come() {
        let content = b"some content".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&content).unwrap();
        for compressed in [content.clone(), gzip.finish().unwrap(), zstd(&content, None)] {
            let mut found = Vec::new();
            Peeked::new(Slow(&compressed)).unwrap().decompress().unwrap().read_to_end(&mut found).unwrap();
            assert!(found == content);
        }
        for short in [&b""[..], b"\x1f", b"\x28\xb5"] {
            let mut found = Vec::new();
            Peeked::new(short).unwrap().decompress().unwrap().read_to_end(&mut found).unwrap();
            assert_eq!(found, short);
        }
    }

    #[test]
    fn a_window_is_bounded() {
        let content = vec![7; 1 << 20];
        for (log, large, refused) in
            [(20, false, false), (23, false, false), (25, true, false), (27, true, true)]
        {
            let compressed = zstd(&content, Some(log));
            assert_eq!(window(&compressed[4..]), 1 << log);
            match Peeked::new(&compressed[..]) {
                Ok(peeked) => {
                    assert!(!refused && (peeked.format.memory() == Some(LARGEST_WINDOW)) == large, "{log}");
                    let mut found = Vec::new();
                    peeked.decompress().unwrap().read_to_end(&mut found).unwrap();
                    assert!(found == content);
                }
                Err(error) => assert!(refused && error.to_string().contains("window of 128 MiB"), "{error}"),
            }
        }
        // A second frame cannot ask for more than the first.
        let both = [zstd(&content, None), zstd(&content, Some(27))].concat();
        let mut decompressed = Peeked::new(&both[..]).unwrap().decompress().unwrap();
        assert!(io::copy(&mut decompressed, &mut io::sink()).is_err());
        // Of one segment: the content's size is the window.
        let single = ::zstd::bulk::compress(&content, 3).unwrap();
        assert_eq!(window(&single[4..]), 1 << 20);
    }
}
