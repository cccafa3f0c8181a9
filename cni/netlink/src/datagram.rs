//! What the kernel sends: messages one behind the other, acknowledgements among them.

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NlaBuffer, NlasIterator};
use rustix::io::Errno;

/// The length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// `NLMSG_ALIGNTO`.
pub(crate) const ALIGNMENT: usize = 4;
/// `NLMSGERR_ATTR_MSG`.
const TEXT: u16 = 1;

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// What an `NLMSG_ERROR`, or the `NLMSG_DONE` of a dump, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Absent for a success.
    pub(crate) errno: Option<Errno>,
    /// The kernel's own words (`NLMSGERR_ATTR_MSG`); it may add some to a success as well.
    pub(crate) text: Option<String>,
}

/// Takes a datagram apart. Says what is wrong with it at the end of what can be read.
pub(crate) struct Parts<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Part<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let all = std::mem::take(&mut self.0);
        let Some((header, _)) = all.split_at_checked(HEADER) else {
            return Some(Err("a message is shorter than its header"));
        };
        let length = u32_at(header, 0) as usize;
        let Some(payload) = all.get(HEADER..length) else {
            return Some(Err("a message is not as long as its header says"));
        };
        self.0 = all.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(Ok(Part {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32_at(header, 8),
            payload,
        }))
    }
}

// === impl Verdict ===

impl Verdict {
    /// Of an `NLMSG_ERROR`: the errno, the header of the request, the request itself where not capped, attributes.
    pub(crate) fn of_error(part: Part<'_>) -> Option<Self> {
        let (errno, rest) = part.payload.split_at_checked(4)?;
        let request = rest.get(..HEADER)?;
        let repeated = if part.flags & NLM_F_CAPPED != 0 { HEADER } else { u32_at(request, 0) as usize };
        let attributes = rest.get(repeated.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(Self::new(errno, part.flags, attributes))
    }

    /// Of an `NLMSG_DONE`: the errno, if any, and attributes.
    pub(crate) fn of_done(part: Part<'_>) -> Self {
        let (errno, attributes) = part.payload.split_at_checked(4).unwrap_or((&[0; 4], &[]));
        Self::new(errno, part.flags, attributes)
    }

    fn new(errno: &[u8], flags: u16, attributes: &[u8]) -> Self {
        let errno = u32_at(errno, 0).cast_signed();
        let text = if flags & NLM_F_ACK_TLVS == 0 { None } else { text(attributes) };
        Self { errno: (errno != 0).then(|| Errno::from_raw_os_error(errno.wrapping_neg())), text }
    }
}

fn text(attributes: &[u8]) -> Option<String> {
    let found = NlasIterator::new(attributes).map_while(Result::ok);
    let found: Option<NlaBuffer<&[u8]>> = found.into_iter().find(|attribute| attribute.kind() == TEXT);
    let value = found.as_ref()?.value();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The integer at a place that was checked to be there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().copied().map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    #[test]
    fn messages_lie_one_behind_the_other_at_their_alignment() {
        let bytes = [message(16, 2, b"abcde"), message(20, 0, b"")].concat();
        let parts: Vec<_> =
            Parts(&bytes).map(|part| part.unwrap()).map(|part| (part.kind, part.payload)).collect();
        assert_eq!(parts, [(16, b"abcde".as_slice()), (20, b"")]);
    }

    #[test]
    fn a_message_that_is_cut_off_ends_what_can_be_read() {
        let bytes = [message(16, 2, b"abcd"), message(20, 0, b"abcd")].concat();
        for cut in 1..HEADER + 4 {
            let parts: Vec<_> = Parts(&bytes[..bytes.len() - cut]).collect();
            assert!(parts[0].is_ok() && parts[1].is_err() && parts.len() == 2, "{cut}: {parts:?}");
        }
        // A length below the header's own would never end.
        let parts: Vec<_> = Parts(&[3; 64]).collect();
        assert!(parts.len() == 1 && parts[0].is_err());
    }

    #[test]
    fn the_words_of_the_kernel_stand_behind_the_request_it_repeats_or_does_not() {
        let words = [&10_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), b"Bad x\0\0\0"].concat();
        let request = message(20, 0, b"abcde");
        let errno = (-17_i32).to_ne_bytes();
        let whole = message(2, NLM_F_ACK_TLVS, &[&errno, &request[..], &words].concat());
        let capped =
            message(2, NLM_F_ACK_TLVS | NLM_F_CAPPED, &[&errno, &request[..HEADER], &words].concat());
        for bytes in [whole, capped] {
            let verdict = Verdict::of_error(Parts(&bytes).next().unwrap().unwrap()).unwrap();
            assert_eq!(verdict, Verdict { errno: Some(Errno::EXIST), text: Some("Bad x".to_owned()) });
        }
        let success = message(2, NLM_F_CAPPED, &[&[0; 4], &request[..HEADER]].concat());
        let verdict = Verdict::of_error(Parts(&success).next().unwrap().unwrap()).unwrap();
        assert_eq!(verdict, Verdict { errno: None, text: None });
    }
}
