//! Attributes of what the kernel tells: only those somebody asks for are looked at, so that a kernel that tells more,
//! or tells it otherwise, is understood all the same.

use std::net::IpAddr;

use netlink_packet_core::{NLA_TYPE_MASK, NlasIterator};

/// The attributes of one level, by their numbers.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let all = NlasIterator::new(bytes).map_while(Result::ok);
    all.map(|attribute| {
        let (kind, length) = (attribute.kind() & NLA_TYPE_MASK, attribute.value_length());
        (kind, attribute.into_inner().get(4..4 + length).unwrap_or_default())
    })
}

/// The attribute of a number.
pub(crate) fn find(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == number).then_some(value))
}

/// An integer in the machine's byte order.
pub(crate) fn u32_of(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

/// As [`u32_of`], at an offset.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..).and_then(u32_of)
}

/// A string, up to its final zero.
pub(crate) fn string_of(value: &[u8]) -> String {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

/// An address of either family, by its length.
pub(crate) fn address_of(value: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(value).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}
