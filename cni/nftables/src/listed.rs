//! Elements as the kernel lists them.
//!
//! Read by hand: what netlink-packet-netfilter makes of a list writes out the whole of it as text for each of its elements, in
//! case one should be wrong. For a hundred pods that takes longer than all else that is asked of the table.

use netlink_packet_core::{DecodeError, NLA_TYPE_MASK, NlasIterator};

use crate::element::{Element, Present};
use crate::owner::comment_in;
use crate::schema::Set;

/// The length of `struct nfgenmsg`.
const HEADER: usize = 4;
/// `NFTA_SET_ELEM_LIST_*`, of linux/netfilter/nf_tables.h, as all that follows.
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
/// `NFTA_LIST_ELEM`.
const ELEMENT: u16 = 1;
/// `NFTA_SET_ELEM_*`.
const KEY: u16 = 1;
const DATA: u16 = 2;
const USER_DATA: u16 = 6;
const KEY_END: u16 = 10;
/// `NFTA_DATA_VALUE`.
const VALUE: u16 = 1;

/// The elements that a message (`NFT_MSG_NEWSETELEM`, `NFT_MSG_DELSETELEM`) is about, if they are of a set of the table.
pub(crate) fn present(payload: &[u8]) -> Result<Vec<Present>, DecodeError> {
    let attributes = payload.get(HEADER..).unwrap_or_default();
    let mut set = None;
    each(attributes, |kind, value| {
        if kind == LIST_SET {
            set = value.strip_suffix(&[0]).and_then(|name| Set::by_name(std::str::from_utf8(name).ok()?));
        }
        Ok(())
    })?;
    let Some(set) = set else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    each(attributes, |kind, elements| match kind {
        LIST_ELEMENTS => each(elements, |kind, element| {
            if kind == ELEMENT {
                found.extend(one(set, element)?);
            }
            Ok(())
        }),
        _ => Ok(()),
    })?;
    Ok(found)
}

fn one(set: Set, element: &[u8]) -> Result<Option<Present>, DecodeError> {
    let mut present = Present { element: Element::new(set, Vec::new()), comment: None };
    each(element, |kind, value| {
        match kind {
            KEY => present.element.key = data(value)?.unwrap_or_default(),
            KEY_END => present.element.key_end = data(value)?,
            DATA => present.element.data = data(value)?,
            USER_DATA => present.comment = comment_in(value).map(str::to_owned),
            _ => {}
        }
        Ok(())
    })?;
    present.element.shared = present.comment.is_none();
    Ok((!present.element.key.is_empty()).then_some(present))
}

/// The bytes of a value; a verdict has none.
fn data(attributes: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let mut found = None;
    each(attributes, |kind, value| {
        if kind == VALUE {
            found = Some(value.to_vec());
        }
        Ok(())
    })?;
    Ok(found)
}

fn each(
    attributes: &[u8],
    mut with: impl FnMut(u16, &[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        with(attribute.kind() & NLA_TYPE_MASK, attribute.value())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable as _;

    use super::*;
    use crate::transaction::in_family;

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let element = Element::new(Set::ALL[0], vec![10, 83, 0, 7]);
        let present_one = Present { element, comment: Some("pods/0a-1/eth0".to_owned()) };
        let other = Element::new(Set::ALL[0], vec![10, 83, 0, 8]).shared();
        let all = [present_one, Present { element: other, comment: None }];
        let message = in_family(Present::add_all(Set::ALL[0], &all));
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        assert_eq!(present(&bytes).unwrap(), all);
        // Cut off anywhere it is an error, or has less, and nothing worse.
        for length in 0..bytes.len() {
            if let Ok(found) = present(&bytes[..length]) {
                assert!(found.len() <= all.len());
            }
        }
    }
}
