//! HPACK (RFC 7541): reads header blocks, and writes them anew without `:authority`.

use std::collections::VecDeque;

use super::Malformed;
use super::huffman;
use super::static_table::STATIC;

/// How large the dynamic table may be: what a server allows that says nothing of it (RFC 9113, section 6.5.2).
const LARGEST_TABLE: usize = 4096;
/// What an entry counts beside its name and its value (RFC 7541, section 4.1).
const ENTRY: usize = 32;
/// How long a header block may be that is written anew. Much less does for gRPC.
const LONGEST_BLOCK: usize = 64 * 1024;

/// Name and value.
type Field = (Vec<u8>, Vec<u8>);

/// The state that the header blocks of a connection share.
pub(super) struct Transcoder {
    /// The dynamic table, newest entry first.
    table: VecDeque<Field>,
    size: usize,
    limit: usize,
}

/// What is left of a header block.
struct Block<'a>(&'a [u8]);

// === impl Transcoder ===

impl Transcoder {
    pub(super) fn new() -> Self {
        Self { table: VecDeque::new(), size: 0, limit: LARGEST_TABLE }
    }

    /// A header block with the same fields but `:authority`, and without use of any table: whoever reads it needs none.
    pub(super) fn without_authority(&mut self, block: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut block = Block(block);
        let mut written = Vec::with_capacity(block.0.len() * 2);
        while let Some(&first) = block.0.first() {
            let (name, value) = if first & 0x80 != 0 {
                let index = block.integer(7)?;
                self.field(index)?
            } else if first & 0x40 != 0 {
                let field = self.literal(&mut block, 6)?;
                self.insert(field.clone());
                field
            } else if first & 0x20 != 0 {
                let limit = block.integer(5)?;
                if limit > LARGEST_TABLE {
                    return Err(Malformed("a header table larger than allowed"));
                }
                self.limit = limit;
                self.evict(0);
                continue;
            } else {
                self.literal(&mut block, 4)?
            };
            if name == b":authority" {
                continue;
            }
            // A literal without indexing, with its name: a zero, and two strings as they are.
            written.push(0);
            for string in [&name, &value] {
                write_length(&mut written, string.len());
                written.extend_from_slice(string);
            }
            if written.len() > LONGEST_BLOCK {
                return Err(Malformed("headers longer than allowed"));
            }
        }
        Ok(written)
    }

    /// A literal field, whose name is an index of `bits` bits or, where that is 0, a string.
    fn literal(&self, block: &mut Block<'_>, bits: u32) -> Result<Field, Malformed> {
        let name = match block.integer(bits)? {
            0 => block.string()?,
            index => self.field(index)?.0,
        };
        Ok((name, block.string()?))
    }

    fn field(&self, index: usize) -> Result<Field, Malformed> {
        let at = index.checked_sub(1).ok_or(Malformed("a header field of index 0"))?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        self.table.get(at - STATIC.len()).cloned().ok_or(Malformed("a header field of no entry"))
    }

    /// An entry larger than the table empties it, and is not entered.
    fn insert(&mut self, field: Field) {
        let size = field.0.len() + field.1.len() + ENTRY;
        self.evict(size);
        if size <= self.limit {
            self.size += size;
            self.table.push_front(field);
        }
    }

    /// Makes room for `wanted` more.
    fn evict(&mut self, wanted: usize) {
        while self.size + wanted > self.limit {
            let Some((name, value)) = self.table.pop_back() else { break };
            self.size -= name.len() + value.len() + ENTRY;
        }
    }
}

// === impl Block ===

impl Block<'_> {
    fn octet(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed("a header block that breaks off"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// An integer whose first octet has `bits` bits of it (RFC 7541, section 5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, Malformed> {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(self.octet()?) & most;
        if value < most {
            return Ok(value);
        }
        // Three more octets are more than anything here may count.
        for shift in [0, 7, 14] {
            let octet = usize::from(self.octet()?);
            value += (octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number larger than allowed"))
    }

    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        let coded = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (string, rest) =
            self.0.split_at_checked(length).ok_or(Malformed("a header block that breaks off"))?;
        self.0 = rest;
        if coded {
            return huffman::decode(string, LONGEST_BLOCK).ok_or(Malformed("a string not in Huffman's code"));
        }
        Ok(string.to_vec())
    }
}

/// An integer of seven bits and more, with the first bit 0: the length of a string as it is.
fn write_length(to: &mut Vec<u8>, length: usize) {
    if length < 0x7f {
        to.push(length as u8);
        return;
    }
    to.push(0x7f);
    let mut rest = length - 0x7f;
    while rest >= 0x80 {
        to.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of a block that is written as `without_authority` writes.
    fn fields(written: &[u8]) -> Vec<(String, String)> {
        let mut block = Block(written);
        let mut found = Vec::new();
        while !block.0.is_empty() {
            assert_eq!(block.octet().unwrap(), 0);
            let text = |string: Vec<u8>| String::from_utf8(string).unwrap();
            found.push((text(block.string().unwrap()), text(block.string().unwrap())));
        }
        found
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// RFC 7541, appendix C.4: three requests with Huffman coding, of which each uses what the ones before entered.
    #[test]
    fn requests_of_the_specification_lose_their_authority_alone() {
        let mut transcoder = Transcoder::new();
        let first = [
            &[0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4]
                [..],
            &[0xff],
        ]
        .concat();
        let basic = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
        assert_eq!(fields(&transcoder.without_authority(&first).unwrap()), expected(&basic));

        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        let with = [basic.as_slice(), &[("cache-control", "no-cache")]].concat();
        assert_eq!(fields(&transcoder.without_authority(&second).unwrap()), expected(&with));

        let third = [
            &[0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25]
                [..],
            &[0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf],
        ]
        .concat();
        let with = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            ("custom-key", "custom-value"),
        ];
        assert_eq!(fields(&transcoder.without_authority(&third).unwrap()), expected(&with));
        assert_eq!(transcoder.size, 164, "as the appendix has it");
    }

    #[test]
    fn the_table_forgets_what_it_has_no_room_for() {
        let mut transcoder = Transcoder::new();
        // "a: b" entered, then a table of size 0 and of the old size again: the entry is gone.
        assert!(transcoder.without_authority(&[0x40, 1, b'a', 1, b'b', 0xbe]).is_ok());
        assert!(transcoder.without_authority(&[0x20, 0x3f, 0xe1, 0x1f]).is_ok());
        assert!(transcoder.without_authority(&[0xbe]).is_err());
        // Each of these entries takes 33 + 100 octets; the first ones go.
        let entry = [&[0x40, 1, b'n', 100][..], &[b'v'; 100]].concat();
        for _ in 0..100 {
            transcoder.without_authority(&entry).unwrap();
        }
        assert_eq!(transcoder.table.len(), LARGEST_TABLE / 133);
    }

    #[test]
    fn blocks_that_cannot_be_are_refused() {
        let bad: [&[u8]; 8] = [
            &[0x80],                         // index 0
            &[0xbe],                         // an empty dynamic table
            &[0x40, 1, b'a'],                // breaks off
            &[0x40, 5, b'a', 0],             // breaks off in a string
            &[0x3f, 0xe2, 0x1f],             // a table of 4097
            &[0x7f, 0xff, 0xff, 0xff, 0x01], // an index of four octets
            &[0x00, 0x82, 0xff, 0xff, 0x00], // no Huffman code
            &[0xff],
        ];
        for block in bad {
            assert!(Transcoder::new().without_authority(block).is_err(), "{block:x?}");
        }
        // An entry of 4,000 octets, then 20 references to it in as many octets.
        let entry = [&[0x40, 1, b'n', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4000]].concat();
        let bomb = [&entry[..], &[0xbe; 20]].concat();
        assert!(Transcoder::new().without_authority(&bomb).is_err(), "more than a block may be");
    }
}
