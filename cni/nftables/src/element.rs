//! Elements of the table's sets, and their messages.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList, SetElementMessage,
};

use crate::entry::{bytes, family, fields};
use crate::owner::{Owner, comment};
use crate::schema::{Field, Set, TABLE};
use crate::transaction::length;

/// `NFTA_DATA_VALUE`.
const DATA_VALUE: u16 = 1;

/// An element of a set, or of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) set: Set,
    pub(crate) key: Vec<u8>,
    /// Where an interval ends.
    pub(crate) key_end: Option<Vec<u8>>,
    /// What a map has for the key.
    pub(crate) data: Option<Vec<u8>>,
    /// Whether it is the same for many pods, and nobody's.
    pub(crate) shared: bool,
}

/// An element of the table as it is, and its comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) element: Element,
    pub(crate) comment: Option<String>,
}

// === impl Element ===

impl Element {
    pub(crate) fn new(set: Set, key: Vec<u8>) -> Self {
        Self { set, key, key_end: None, data: None, shared: false }
    }

    /// From and to the subnet of an address.
    pub(crate) fn subnet(address: &IpNet) -> Self {
        let twice = |address: IpAddr| fields(&[&bytes(address), &bytes(address)]);
        let element = Self::new(Set::Subnets(family(address.addr())), twice(address.network()));
        Self { key_end: Some(twice(address.broadcast())), shared: true, ..element }
    }

    pub(crate) fn with_data(self, data: Vec<u8>) -> Self {
        Self { data: Some(data), ..self }
    }

    pub(crate) fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    /// Of a subnet: whether an address, or another subnet, is in it.
    pub(crate) fn contains(&self, first: &[u8], last: &[u8]) -> bool {
        let end = self.key_end.as_ref().unwrap_or(&self.key);
        self.key.get(..first.len()).is_some_and(|start| start <= first)
            && end.get(..last.len()).is_some_and(|end| end >= last)
    }

    fn attributes(&self) -> Vec<SetElementAttribute> {
        let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(self.key.clone()))];
        if let Some(end) = &self.key_end {
            attributes.push(SetElementAttribute::KeyEnd(vec![DefaultNla::new(DATA_VALUE, end.clone())]));
        }
        attributes
    }

    /// To add, with what is its comment.
    fn attributes_to_add(&self, text: Option<&str>) -> ListAttribute<SetElementAttribute> {
        let mut attributes = self.attributes();
        if let Some(data) = &self.data {
            attributes.push(SetElementAttribute::Data(DataAttribute::Value(data.clone())));
        }
        attributes.extend(text.map(|text| SetElementAttribute::UserData(comment(text))));
        ListAttribute::Element(attributes)
    }

    /// Asks for it.
    pub(crate) fn get(&self) -> NfTablesMessage {
        NfTablesMessage::GetSetElement(list(self.set, vec![ListAttribute::Element(self.attributes())]))
    }

    /// Adds it. What nobody owns has no comment.
    pub(crate) fn add(&self, owner: &Owner) -> NfTablesMessage {
        let owner = (!self.shared).then(|| owner.to_string());
        let attributes = self.attributes_to_add(owner.as_deref());
        NfTablesMessage::NewSetElement(list(self.set, vec![attributes]))
    }

    /// Deletes it.
    pub(crate) fn delete(&self) -> NfTablesMessage {
        NfTablesMessage::DeleteSetElement(list(self.set, vec![ListAttribute::Element(self.attributes())]))
    }
}

// === impl Present ===

impl Present {
    /// Whose it is, if anybody's of us.
    pub(crate) fn owner(&self) -> Option<Owner> {
        Owner::parse(self.comment.as_deref()?)
    }

    pub(crate) fn is_of(&self, owner: &Owner) -> bool {
        self.owner().is_some_and(|one| one == *owner)
    }

    /// Whether key and data are as long as those of the set.
    pub(crate) fn fits(&self) -> bool {
        let set = self.element.set;
        let fits = |fields: &[Field], bytes: &[u8]| length(fields) as usize == bytes.len();
        fits(&set.key(), &self.element.key)
            && match (set.data(), &self.element.data) {
                (Some(fields), Some(data)) => fits(&fields, data),
                (fields, data) => fields.is_none() && data.is_none(),
            }
            && self.element.key_end.is_some() == set.is_interval()
    }

    /// Adds many of one set as they were.
    pub(crate) fn add_all(set: Set, all: &[Self]) -> NfTablesMessage {
        let attributes =
            all.iter().map(|one| one.element.attributes_to_add(one.comment.as_deref())).collect();
        NfTablesMessage::NewSetElement(list(set, attributes))
    }
}

// === Messages ===

fn list(set: Set, elements: Vec<ListAttribute<SetElementAttribute>>) -> SetElementMessage {
    let mut attributes =
        vec![SetElementList::Table(TABLE.to_owned()), SetElementList::Set(set.name().to_owned())];
    if !elements.is_empty() {
        attributes.push(SetElementList::Elements(elements));
    }
    SetElementMessage { attributes }
}

/// Asks for all of a set.
pub(crate) fn get_all(set: Set) -> NfTablesMessage {
    NfTablesMessage::GetSetElement(list(set, Vec::new()))
}
