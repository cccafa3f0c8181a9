//! Whose an element is: its comment, as nft(8) shows it.

use std::fmt;

use crate::Error;

/// An attachment of a container to a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    network: String,
    container_id: String,
    ifname: String,
}

/// A comment among the user data of an element, a rule or a table: libnftnl's `NFTNL_UDATA_*_COMMENT`.
const COMMENT: u8 = 0;
/// What a comment's length is told in one byte, with the zero at its end.
const LONGEST: usize = 254;

// === impl Owner ===

impl Owner {
    /// By the network's name, the container's id and the interface's name in it, none of which may have a slash.
    ///
    /// # Errors
    /// [`Error::NameTooLong`].
    pub fn new(network: &str, container_id: &str, ifname: &str) -> Result<Self, Error> {
        let owner = Self {
            network: network.to_owned(),
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
        };
        match owner.to_string().len() {
            length if length > LONGEST => Err(Error::NameTooLong {
                network: owner.network,
                container_id: owner.container_id,
                ifname: owner.ifname,
                length,
                most: LONGEST,
            }),
            _ => Ok(owner),
        }
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The container's id.
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// The interface's name in the container.
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    pub(crate) fn parse(comment: &str) -> Option<Self> {
        let (network, rest) = comment.split_once('/')?;
        let (container_id, ifname) = rest.split_once('/')?;
        Self::new(network, container_id, ifname).ok()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}

// === User data ===

/// User data of nothing but a comment, which is cut off where there is no room.
pub(crate) fn comment(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(LONGEST)];
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    let mut data = vec![COMMENT, length];
    data.extend(text);
    data.push(0);
    data
}

/// The comment among user data, if it has one.
pub(crate) fn comment_in(mut data: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = data {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return std::str::from_utf8(value.strip_suffix(&[0])?).ok();
        }
        data = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_as_it_was_written() {
        let owner = Owner::new("pods", "0a-1", "eth0").unwrap();
        let data = comment(&owner.to_string());
        assert_eq!(data, b"\0\x0fpods/0a-1/eth0\0");
        assert_eq!(Owner::parse(comment_in(&data).unwrap()), Some(owner));
        // Behind something else's.
        assert_eq!(comment_in(&[&[1, 2, 7, 7], &data[..]].concat()), Some("pods/0a-1/eth0"));
    }

    #[test]
    fn what_is_no_comment_of_ours_has_no_owner() {
        for text in ["", "pods", "pods/id"] {
            assert_eq!(Owner::parse(text), None, "{text:?}");
        }
        for data in [&b""[..], b"\0", b"\0\x05abc\0", b"\0\x03abc", b"\0\x02\xff\0", b"\x01\x01\0"] {
            assert_eq!(comment_in(data), None, "{data:?}");
        }
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let fits = "n".repeat(LONGEST - 8);
        let owner = Owner::new(&fits, "id", "eth0").unwrap();
        assert_eq!(comment_in(&comment(&owner.to_string())), Some(owner.to_string().as_str()));
        assert!(matches!(Owner::new(&format!("{fits}n"), "id", "eth0"), Err(Error::NameTooLong { .. })));
    }
}
