//! Traffic control: a rate for what a link sends, and another link for what it receives.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcActionType, TcAttribute,
    TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption, TcU32Key, TcU32Selector,
    TcU32SelectorFlags,
};
use rustix::io::Errno;

use crate::attribute::{find, string_of, u32_at};
use crate::{Batch, Error, Message, Socket};

/// `RTM_NEWQDISC`.
const RTM_NEWQDISC: u16 = 36;
/// The length of `struct tcmsg`.
const HEADER: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: with it the kernel asks for no table of rates.
const ETHERNET: u8 = 1;
/// What u32 calls the first filter of its first table.
const FIRST_FILTER: u32 = 0x8000_0800;
/// `RTM_NEWTFILTER`.
const RTM_NEWTFILTER: u16 = 44;
const TCA_U32_ACT: u16 = 7;
/// The first of a filter's actions.
const FIRST_ACTION: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
/// Where `struct tc_mirred` has its `ifindex`.
const MIRRED_LINK: usize = 24;
/// `ETH_P_ALL`.
const ALL_PROTOCOLS: u16 = 3;
/// How many bytes a second are told by `struct tc_ratespec`.
const LARGEST_RATE: u64 = u32::MAX as u64;

/// A token bucket filter (tc-tbf(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes a second.
    pub rate: u64,
    /// The bucket's size in bytes.
    pub burst: u32,
    /// How many bytes may wait.
    pub limit: u32,
}

/// A token bucket filter as the kernel tells of it: not how large the bucket is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucketSeen {
    /// Bytes a second.
    pub rate: u64,
    /// How many bytes may wait.
    pub limit: u32,
}

// === impl TokenBucket ===

impl TokenBucket {
    /// `struct tc_tbf_qopt` and what does not fit into it.
    fn options(&self) -> Vec<TcOption> {
        let mut parameters = vec![0; 36];
        parameters[1] = ETHERNET;
        let rate = u32::try_from(self.rate).unwrap_or(u32::MAX);
        parameters[8..12].copy_from_slice(&rate.to_ne_bytes());
        parameters[24..28].copy_from_slice(&self.limit.to_ne_bytes());
        let mut options = vec![
            (TCA_TBF_PARMS, parameters),
            // In bytes, where the parameters would have it in the kernel's ticks.
            (TCA_TBF_BURST, self.burst.to_ne_bytes().to_vec()),
        ];
        if self.rate >= LARGEST_RATE {
            options.push((TCA_TBF_RATE64, self.rate.to_ne_bytes().to_vec()));
        }
        options.into_iter().map(|(kind, value)| TcOption::Other(DefaultNla::new(kind, value))).collect()
    }
}

// === impl TokenBucketSeen ===

impl TokenBucketSeen {
    fn read(message: &Message) -> Option<Self> {
        let attached = message.payload.get(HEADER..).filter(|_| message.kind == RTM_NEWQDISC)?;
        if string_of(find(attached, TCA_KIND)?) != "tbf" {
            return None;
        }
        let options = find(attached, TCA_OPTIONS)?;
        let parameters = find(options, TCA_TBF_PARMS)?;
        let large = find(options, TCA_TBF_RATE64).and_then(|value| value.first_chunk().copied());
        Some(Self {
            rate: large.map_or(u64::from(u32_at(parameters, 8)?), u64::from_ne_bytes),
            limit: u32_at(parameters, 24)?,
        })
    }
}

// === impl Batch ===

impl Batch {
    /// Lets a link send no faster than a token bucket filter allows, instead of what its queueing discipline was.
    pub fn limit_rate(&mut self, link: u32, bucket: &TokenBucket) -> usize {
        let mut message = about(link, TcHandle { major: 1, minor: 0 }, TcHandle::ROOT);
        message.attributes =
            vec![TcAttribute::Kind("tbf".to_owned()), TcAttribute::Options(bucket.options())];
        self.push(
            format!("limit the rate of interface {link} to {} bytes a second", bucket.rate),
            NLM_F_CREATE | NLM_F_REPLACE,
            &RouteNetlinkMessage::NewQueueDiscipline(message),
        )
    }

    /// Gives a link a queueing discipline for what it receives, to filter it.
    pub fn add_ingress(&mut self, link: u32) -> usize {
        let mut message = about(link, TcHandle { major: u16::MAX, minor: 0 }, TcHandle::INGRESS);
        message.attributes = vec![TcAttribute::Kind("ingress".to_owned())];
        self.push(
            format!("add the queueing discipline ingress to interface {link}"),
            NLM_F_CREATE | NLM_F_EXCL,
            &RouteNetlinkMessage::NewQueueDiscipline(message),
        )
    }

    /// Redirects everything a link receives to another one, which has to be an ifb. It needs [`Batch::add_ingress`], and
    /// can be asked for again.
    pub fn redirect_ingress(&mut self, link: u32, to: u32) -> usize {
        let mut mirror = TcMirror::default();
        mirror.generic.action = TcActionType::Stolen;
        mirror.eaction = TcMirrorActionType::EgressRedir;
        mirror.ifindex = to;
        let mut action = TcAction::default();
        action.attributes = vec![
            TcActionAttribute::Kind("mirred".to_owned()),
            TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
        ];
        // Zero bits of the packet are as they should be.
        let mut everything = TcU32Selector::default();
        everything.flags = TcU32SelectorFlags::Terminal;
        everything.nkeys = 1;
        everything.keys = vec![TcU32Key::default()];
        let mut message = about(link, FIRST_FILTER.into(), TcHandle { major: u16::MAX, minor: 0 });
        message.header.info = 1 << 16 | u32::from(ALL_PROTOCOLS.to_be());
        message.attributes = vec![
            TcAttribute::Kind("u32".to_owned()),
            TcAttribute::Options(vec![
                TcOption::U32(TcFilterU32Option::Selector(everything)),
                TcOption::U32(TcFilterU32Option::Action(vec![action])),
            ]),
        ];
        self.push(
            format!("redirect what interface {link} receives to interface {to}"),
            NLM_F_CREATE,
            &RouteNetlinkMessage::NewTrafficFilter(message),
        )
    }
}

fn about(link: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(link.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message
}

// === impl Socket ===

impl Socket {
    /// The token bucket filter of what a link sends, if it has one.
    ///
    /// # Errors
    /// As [`Socket::execute`].
    pub fn rate_limit(&mut self, link: u32) -> Result<Option<TokenBucketSeen>, Error> {
        let mut batch = Batch::new();
        let message = about(link, TcHandle::UNSPEC, TcHandle::ROOT);
        let what = format!("get the queueing discipline of interface {link}");
        // Without it the answer goes to those alone that listen to changes.
        let asked = batch.push(what, NLM_F_ECHO, &RouteNetlinkMessage::GetQueueDiscipline(message));
        let outcome = self.attempt(batch)?.tolerate(asked, Errno::NOENT);
        Ok(outcome.into_result()?.iter().find_map(TokenBucketSeen::read))
    }

    /// The link that everything a link receives is redirected to, if it is.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn ingress_redirect(&mut self, link: u32) -> Result<Option<u32>, Error> {
        let message = about(link, TcHandle::UNSPEC, TcHandle { major: u16::MAX, minor: 0 });
        let what = format!("list the filters of interface {link}");
        match self.dump(what, &RouteNetlinkMessage::GetTrafficFilter(message)) {
            // It has no queueing discipline that could have filters.
            Err(error) if matches!(error.errno(), Some(Errno::INVAL | Errno::NOENT)) => Ok(None),
            messages => Ok(messages?.iter().find_map(redirected_to)),
        }
    }
}

/// Where a filter redirects what it lets through.
fn redirected_to(message: &Message) -> Option<u32> {
    let attached = message.payload.get(HEADER..).filter(|_| message.kind == RTM_NEWTFILTER)?;
    let actions = find(find(attached, TCA_OPTIONS)?, TCA_U32_ACT)?;
    let options = find(find(actions, FIRST_ACTION)?, TCA_ACT_OPTIONS)?;
    u32_at(find(options, TCA_MIRRED_PARMS)?, MIRRED_LINK)
}
