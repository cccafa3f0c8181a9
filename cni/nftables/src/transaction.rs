//! Messages that make the table, and transactions.

use std::borrow::Cow;

use coracle_netlink::Batch;
use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, GenMessage, Hook, NfTablesMessage, RuleAttribute, RuleMessage,
    SetAttribute, SetDescription, SetFlags, SetMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use crate::owner::comment;
use crate::schema::{CHAINS, Chain, Field, Rule, Set, TABLE, TABLE_COMMENT, VERSION, rules};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`.
const BATCH_BEGIN: u8 = 16;
/// `NFNL_BATCH_GENID`.
const BATCH_GENERATION: u16 = 1;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;
/// `NFTA_LIST_ELEM` and `NFTA_SET_FIELD_LEN`.
const LIST_ELEMENT: u16 = 1;
const FIELD_LENGTH: u16 = 1;
/// `NFTNL_UDATA_SET_KEYBYTEORDER`, host endian: without it, nft(8) shows names of interfaces backwards.
const HOST_ENDIAN: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};
/// How many bits nft(8) has for each part of a concatenation's type.
const TYPE_BITS: u32 = 6;

/// Requests that are done together or not at all.
pub(crate) struct Transaction {
    batch: Batch,
    generation: Option<u32>,
    /// The last one, which is to be acknowledged: that before the end of the batch, because Linux before 6.10 does
    /// not acknowledge the end.
    last: Option<(Cow<'static, str>, u16, NetfilterMessage)>,
}

// === impl Transaction ===

impl Transaction {
    /// One that is refused (`ERESTART`) unless the rule set is of the generation given.
    pub(crate) fn new(generation: Option<u32>) -> Self {
        let mut batch = Batch::new();
        let begin = match generation {
            None => ControlMessage::BatchBegin,
            Some(generation) => ControlMessage::Other {
                message_type: BATCH_BEGIN,
                attributes: vec![DefaultNla::new(BATCH_GENERATION, generation.to_be_bytes().to_vec())],
            },
        };
        batch.push_unacknowledged("begin a transaction", 0, &control(begin));
        Self { batch, generation, last: None }
    }

    /// Adds a request, and tells its place.
    pub(crate) fn push(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        flags: u16,
        message: NfTablesMessage,
    ) -> usize {
        if let Some((what, flags, message)) = self.last.replace((what.into(), flags, in_family(message))) {
            self.batch.push_unacknowledged(what, flags, &message);
        }
        self.batch.len()
    }

    /// The generation it was made for.
    pub(crate) fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// Whether nothing is asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    pub(crate) fn into_batch(mut self) -> Batch {
        if let Some((what, flags, message)) = self.last {
            self.batch.push_unacknowledged(what, flags | NLM_F_ACK, &message);
        }
        self.batch.push_unacknowledged("end the transaction", 0, &control(ControlMessage::BatchEnd));
        self.batch
    }

    /// Makes the table, which must not be there.
    pub(crate) fn make_table(&mut self) {
        self.push("make table inet coracle", NLM_F_CREATE | NLM_F_EXCL, new_table());
        for set in Set::ALL {
            self.push(format!("make set {}", set.name()), NLM_F_CREATE, new_set(set));
        }
        for chain in CHAINS {
            self.push(format!("make chain {}", chain.name), NLM_F_CREATE, new_chain(chain));
        }
        for rule in rules() {
            let what = format!("make the rule of chain {}: {}", rule.chain, rule.comment);
            self.push(what, NLM_F_CREATE | NLM_F_APPEND, new_rule(rule));
        }
    }
}

fn control(message: ControlMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM), message)
}

/// A message about a table of family inet.
pub(crate) fn in_family(message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), message)
}

/// A message about tables of all families.
pub(crate) fn in_all_families(message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0), message)
}

/// Asks for the generation of the rule set.
pub(crate) fn get_generation() -> NetfilterMessage {
    in_all_families(NfTablesMessage::GetGen(GenMessage { attributes: Vec::new() }))
}

/// Asks for the table.
pub(crate) fn get_table() -> NetfilterMessage {
    let attributes = vec![TableAttribute::Name(TABLE.to_owned())];
    in_family(NfTablesMessage::GetTable(TableMessage { attributes }))
}

/// Asks for the sets of the table.
pub(crate) fn get_sets() -> NetfilterMessage {
    let attributes = vec![SetAttribute::Table(TABLE.to_owned())];
    in_family(NfTablesMessage::GetSet(SetMessage { attributes }))
}

/// Asks for the chains of all tables, of family inet or of all.
pub(crate) fn get_chains(inet: bool) -> NetfilterMessage {
    let message = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    if inet { in_family(message) } else { in_all_families(message) }
}

/// Asks for the rules of the table.
pub(crate) fn get_rules() -> NetfilterMessage {
    let attributes = vec![RuleAttribute::Table(TABLE.to_owned())];
    in_family(NfTablesMessage::GetRule(RuleMessage { attributes }))
}

/// Deletes the table.
pub(crate) fn delete_table() -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] })
}

fn new_table() -> NfTablesMessage {
    let attributes = vec![
        TableAttribute::Name(TABLE.to_owned()),
        TableAttribute::Flags(TableFlags::empty()),
        TableAttribute::UserData(comment(&format!("{TABLE_COMMENT}{VERSION}"))),
    ];
    NfTablesMessage::NewTable(TableMessage { attributes })
}

/// The number nft(8) has for a concatenation of types.
fn concatenated(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |all, field| all << TYPE_BITS | field.number())
}

/// How many bytes they take in registers.
pub(crate) fn length(fields: &[Field]) -> u32 {
    match fields {
        [one] => one.length(),
        many => many.iter().map(|field| field.length().next_multiple_of(4)).sum(),
    }
}

fn new_set(set: Set) -> NfTablesMessage {
    let key = set.key();
    let mut flags = SetFlags::empty();
    let mut attributes = vec![
        SetAttribute::Table(TABLE.to_owned()),
        SetAttribute::Name(set.name().to_owned()),
        SetAttribute::KeyType(concatenated(&key)),
        SetAttribute::KeyLen(length(&key)),
        // Required, and of no meaning for a set that has a name.
        SetAttribute::Id(1),
    ];
    if let Some(data) = set.data() {
        flags |= SetFlags::Map;
        attributes.push(SetAttribute::DataType(concatenated(&data)));
        attributes.push(SetAttribute::DataLen(length(&data)));
    }
    if set.is_interval() {
        flags |= SetFlags::Interval | SetFlags::Concat;
        let lengths = key.iter().map(|field| {
            // An attribute of its own, within one of the list.
            let length = field.length().to_be_bytes();
            let inner = [&8_u16.to_ne_bytes()[..], &FIELD_LENGTH.to_ne_bytes(), &length].concat();
            DefaultNla::new(LIST_ELEMENT | NLA_F_NESTED, inner)
        });
        attributes.push(SetAttribute::Description(vec![SetDescription::Concat(lengths.collect())]));
    }
    if set == Set::Localnet {
        attributes.push(SetAttribute::UserData(HOST_ENDIAN.to_vec()));
    }
    attributes.push(SetAttribute::Flags(flags));
    NfTablesMessage::NewSet(SetMessage { attributes })
}

fn new_chain(chain: &Chain) -> NfTablesMessage {
    let mut attributes =
        vec![ChainAttribute::Table(TABLE.to_owned()), ChainAttribute::Name(chain.name.to_owned())];
    if let Some((kind, hook, priority)) = chain.base {
        attributes.extend([
            ChainAttribute::Type(kind.to_owned()),
            ChainAttribute::Policy(ACCEPT),
            ChainAttribute::Hook(vec![Hook::Number(hook.into()), Hook::Priority(priority.cast_unsigned())]),
        ]);
    }
    NfTablesMessage::NewChain(ChainMessage { attributes })
}

fn new_rule(rule: Rule) -> NfTablesMessage {
    let attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(rule.chain.to_owned()),
        RuleAttribute::Expressions(rule.expressions.into_iter().map(Into::into).collect()),
        RuleAttribute::UserData(comment(rule.comment)),
    ];
    NfTablesMessage::NewRule(RuleMessage { attributes })
}
