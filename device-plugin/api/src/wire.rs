//! The fields of an encoded message, read where they stand.
//!
//! What `prost` makes of a message can be forty times as large as the message: two octets are enough for one more element
//! of a list. Who has to look at many messages, or at one before memory is given to it, reads them by this.
//!
//! <https://protobuf.dev/programming-guides/encoding/>

/// The fields of a message, in their order.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, or a truth value.
    Varint(u64),
    /// Eight octets.
    Fixed64(u64),
    /// Text, octets, or a message.
    Bytes(&'a [u8]),
    /// Four octets.
    Fixed32(u32),
}

/// What is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends within a field.
    #[error("the message ends within a field")]
    Cut,
    /// A number has more than 64 bits.
    #[error("the message has a number of more than 64 bits")]
    Number,
    /// The number of a field is none.
    #[error("the message has a field whose number is none")]
    Key,
    /// A field is of a kind that there is not, or not any more (groups).
    #[error("the message has a field of wire type {0}")]
    Type(u64),
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Those of the message that this is.
    pub fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for (at, octet) in self.rest.iter().enumerate().take(10) {
            if at == 9 && *octet > 1 {
                return Err(Malformed::Number);
            }
            number |= u64::from(octet & 0x7f) << (7 * at);
            if octet & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(number);
            }
        }
        Err(Malformed::Cut)
    }

    fn octets(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let count = usize::try_from(count).map_err(|_| Malformed::Cut)?;
        let (octets, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(octets)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (octets, rest) = self.rest.split_first_chunk().ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(*octets)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(Malformed::Key)?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.octets(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(Malformed::Type(other)),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    /// Nothing follows what is malformed.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        Fields::of(message).collect()
    }

    #[test]
    fn fields_are_read_as_they_are_written() {
        assert_eq!(fields(b""), Ok(vec![]));
        let all = b"\x08\x96\x01\x12\x02hi\x1d\x01\0\0\0\x21\x02\0\0\0\0\0\0\0\x12\0";
        let expected = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Fixed32(1)),
            (4, Value::Fixed64(2)),
            (2, Value::Bytes(b"")),
        ];
        assert_eq!(fields(all).as_deref(), Ok(expected.as_slice()));
        for cut in 1..all.len() {
            let whole = [3, 7, 12, 21].contains(&cut);
            assert_eq!(fields(&all[..cut]).err(), (!whole).then_some(Malformed::Cut), "cut at {cut}");
        }
        let most = [&[8][..], &[0xff; 9], &[1]].concat();
        assert_eq!(fields(&most), Ok(vec![(1, Value::Varint(u64::MAX))]));
    }

    #[test]
    fn what_is_no_message_is_told() {
        let longer = [&[8][..], &[0xff; 9], &[2]].concat();
        for (message, problem) in [
            (longer.as_slice(), Malformed::Number),
            (b"\0\0", Malformed::Key),
            (b"\x0b\x0c", Malformed::Type(3)),
            (b"\x0f", Malformed::Type(7)),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Malformed::Cut),
        ] {
            assert_eq!(fields(message), Err(problem), "{message:?}");
        }
        let mut ended = Fields::of(b"\0\x08\x01");
        assert!(ended.next().is_some_and(|first| first.is_err()));
        assert_eq!(ended.next(), None);
    }
}
