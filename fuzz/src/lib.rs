//! What the targets share.

use libfuzzer_sys::fuzzer_mutate;

/// What a tar archive is divided into: headers, and contents filled up to a multiple of it.
const BLOCK: usize = 512;
/// Where a header's checksum is: six octal digits, NUL and a space, counted as spaces.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// Where a header says how many bytes follow: octal digits.
const SIZE: std::ops::Range<usize> = 124..136;

/// What compressed ones begin with, which have no headers to be seen.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Changes a tar archive so that most of what comes out is still read to its end: mostly one block in itself, or whole
/// blocks, and every header has its checksum. For `fuzz_mutator!`.
///
/// Bytes changed anywhere would be refused for the first header's checksum nearly always.
pub fn mutate_archive(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let blocks = size / BLOCK;
    // What decides is not what LLVMFuzzerMutate draws by.
    let (kind, at) = (seed % 16, (seed / 16) as usize);
    let is_compressed = data.starts_with(&GZIP) || data.starts_with(&ZSTD);
    if blocks == 0 || kind == 0 || is_compressed {
        return fuzzer_mutate(data, size, max_size);
    }
    let start = at % blocks * BLOCK;
    let block = start..start + BLOCK;
    let size = match kind {
        1 => fuzzer_mutate(data, size, max_size),
        2 if size + BLOCK <= max_size => {
            data.copy_within(start..size, start + BLOCK);
            size + BLOCK
        }
        3 => {
            data.copy_within(block.end..size, start);
            size - BLOCK
        }
        4 => {
            let other = at / blocks % blocks * BLOCK;
            data.copy_within(block, other);
            size
        }
        // A header's kind: links, directories, devices and extensions by turns.
        5 => {
            let kinds = b"0123456LKxgSV7\0D";
            data[start + 156] = kinds[at / blocks % kinds.len()];
            size
        }
        // Another length of what follows.
        6 => {
            let length = at / blocks % (4 * BLOCK);
            data[start..block.end][SIZE].copy_from_slice(format!("{length:011o}\0").as_bytes());
            size
        }
        _ => {
            let part = &mut data[block];
            let length = fuzzer_mutate(part, BLOCK, BLOCK);
            part[length..].fill(0);
            size
        }
    };
    seal(&mut data[..size]);
    size
}

/// Gives every header of a tar archive its checksum, as far as it can be followed.
fn seal(mut archive: &mut [u8]) {
    while let Some((header, rest)) = archive.split_first_chunk_mut::<BLOCK>() {
        let mut following = 0;
        if header.iter().any(|byte| *byte != 0) {
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            let digits = header[SIZE].iter().skip_while(|byte| **byte == b' ');
            following = digits
                .take_while(|byte| (b'0'..=b'7').contains(*byte))
                .fold(0_usize, |sum, digit| sum.saturating_mul(8).saturating_add((digit - b'0').into()))
                .div_ceil(BLOCK)
                .saturating_mul(BLOCK);
        }
        archive = rest.get_mut(following..).unwrap_or_default();
    }
}
