//! The Huffman code of HPACK (RFC 7541, Appendix B). It is canonical, so that the lengths of its codes say all.

/// How many bits the code of each octet has. That of the end of a string, 30 ones, comes after them.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26,
];
/// The longest code.
const LONGEST: usize = 30;

/// The code, in the form a canonical code is decoded by.
struct Canonical {
    /// Octets in the order of their codes.
    octets: [u8; 256],
    /// For each length, its first code and how many octets have shorter ones.
    first: [(u32, u32); LONGEST + 1],
    /// How many codes of each length there are.
    count: [u32; LONGEST + 1],
}

static CANONICAL: Canonical = canonical();

const fn canonical() -> Canonical {
    let mut octets = [0; 256];
    let mut first = [(0, 0); LONGEST + 1];
    let mut count = [0; LONGEST + 1];
    let (mut code, mut placed) = (0_u32, 0_usize);
    let mut length = 1;
    while length <= LONGEST {
        code <<= 1;
        first[length] = (code, placed as u32);
        let mut octet = 0;
        while octet < 256 {
            if LENGTHS[octet] as usize == length {
                octets[placed] = octet as u8;
                placed += 1;
                code += 1;
                count[length] += 1;
            }
            octet += 1;
        }
        length += 1;
    }
    Canonical { octets, first, count }
}

/// Decodes a string, at most `most` octets of it. None: it is longer, or not so encoded.
pub(super) fn decode(encoded: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let (mut code, mut length) = (0_u32, 0_usize);
    for bit in encoded.iter().flat_map(|octet| (0..8).rev().map(move |at| u32::from(octet >> at & 1))) {
        (code, length) = (code << 1 | bit, length + 1);
        let (first, before) = *CANONICAL.first.get(length)?;
        // Codes of this length lie from `first` on; what lies beyond them begins longer ones.
        if code.wrapping_sub(first) < CANONICAL.count[length] {
            if decoded.len() == most {
                return None;
            }
            decoded.push(*CANONICAL.octets.get((before + code - first) as usize)?);
            (code, length) = (0, 0);
        }
    }
    // The last octet is filled up with ones, at most seven of them (RFC 7541, section 5.2).
    (length < 8 && code == (1 << length) - 1).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn strings_of_the_specification_decode() {
        let cases: [(&[u8], &str); 4] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
        ];
        for (encoded, text) in cases {
            assert_eq!(decode(encoded, 64).as_deref(), Some(text.as_bytes()));
            assert_eq!(decode(encoded, text.len() - 1), None, "longer than may be");
        }
        assert_eq!(decode(&[0xff; 4], 64), None, "a string has no end within");
        assert_eq!(decode(&[0x00], 64), None, "filled up with zeros");
        assert_eq!(decode(&[0x1f, 0xff], 64), None, "filled up with a whole octet");
    }
}
