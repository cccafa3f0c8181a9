//! What others do to the table.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use coracle_netlink::{Message, Notice, Protocol, Subscription};
use netlink_packet_core::NlasIterator;
use netlink_packet_netfilter::nftables::{GenAttribute, NfTablesMessage};

use crate::listed::present;
use crate::schema::{Set, TABLE};
use crate::table::{parse, turn};
use crate::{Error, Nftables, Owner};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, as the first byte of `nlmsg_type`.
const SUBSYSTEM: u16 = 10 << 8;
/// Messages, of linux/netfilter/nf_tables.h.
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const DELETE_SET: u16 = SUBSYSTEM | 11;
pub(crate) const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;
const NEW_GENERATION: u16 = SUBSYSTEM | 15;
/// `NFPROTO_INET`.
const INET: u8 = 1;

/// Generations of the rule set that this process has made, where it had to know the one before. Generations of a
/// network namespace do not come again (there are 2^32), and a program has one.
static OWN: Mutex<VecDeque<u32>> = Mutex::new(VecDeque::new());
/// How many are kept: more than happen while a watch is behind.
const KEPT: usize = 4096;

/// Tells that somebody else has removed or changed the table, or elements of it. Its descriptor is readable when
/// anything has happened to the rule set; at rest it costs nothing.
#[derive(Debug)]
pub struct Watch {
    subscription: Subscription,
    table: Nftables,
    seen: Seen,
}

/// What somebody else has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The table was deleted, or changed, or nobody knows what: it and everybody's entries are to be made again, of
    /// which what is still there is left alone.
    Table,
    /// Elements of these attachments are gone. It may have been because of a DEL, of this process or another.
    Elements(BTreeSet<Owner>),
}

/// What a transaction has done so far.
#[derive(Debug, Default)]
struct Seen {
    made: bool,
    broken: bool,
    removed: BTreeMap<(Set, Vec<u8>), Option<Owner>>,
}

// === impl Watch ===

impl Watch {
    /// Of the network namespace the calling thread is in.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open() -> Result<Self, Error> {
        Self::new(None)
    }

    /// Of another network namespace: an open `/proc/<pid>/ns/net`, or a pidfd.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open_in(namespace: BorrowedFd<'_>) -> Result<Self, Error> {
        Self::new(Some(namespace))
    }

    fn new(namespace: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        let table = match namespace {
            None => Nftables::open()?,
            Some(namespace) => Nftables::open_in(namespace)?,
        };
        let subscription = Subscription::open(Protocol::Netfilter, namespace, &[GROUP])?;
        Ok(Self { subscription, table, seen: Seen::default() })
    }

    /// What has happened since it was asked for last. Never waits: the descriptor tells when to ask.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn changes(&mut self) -> Result<Vec<Change>, Error> {
        let mut broken = false;
        let mut made = false;
        let mut owners = BTreeSet::new();
        while let Some(notices) = self.subscription.take()? {
            for notice in notices {
                let Notice::Message { kind, payload } = notice else {
                    self.seen = Seen::default();
                    broken = true;
                    continue;
                };
                if kind != NEW_GENERATION {
                    self.seen.note(kind, &payload);
                    continue;
                }
                let seen = std::mem::take(&mut self.seen);
                if !is_own(generation(kind, payload)) {
                    broken |= seen.broken;
                    made |= seen.made;
                    owners.extend(seen.removed.into_values().flatten());
                }
            }
        }
        // That it is made, and nothing deleted, is how it begins, or somebody has put in something.
        if broken || (made && !self.table.is_whole()?) {
            return Ok(vec![Change::Table]);
        }
        Ok(if owners.is_empty() { Vec::new() } else { vec![Change::Elements(owners)] })
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscription.as_fd()
    }
}

// === impl Seen ===

impl Seen {
    fn note(&mut self, kind: u16, payload: &[u8]) {
        if !is_of_table(payload) {
            return;
        }
        match kind {
            NEW_ELEMENT | DELETE_ELEMENT => {
                // Of whatever it is, it is of the table.
                let Ok(elements) = present(payload) else { return self.broken = true };
                for one in elements {
                    let owner = one.owner();
                    let element = (one.element.set, one.element.key);
                    if kind == NEW_ELEMENT {
                        self.removed.remove(&element);
                    } else {
                        self.removed.insert(element, owner);
                    }
                }
            }
            NEW_TABLE..=DELETE_RULE | NEW_SET..=DELETE_SET => {
                // Of each kind there are a message that makes, one that asks and one that deletes.
                let is_deletion = (kind - SUBSYSTEM) % 3 == 2;
                self.broken |= is_deletion;
                self.made |= !is_deletion;
            }
            _ => {}
        }
    }
}

/// Whether a message is about the table or something of it: all such have the table's name as attribute 1.
fn is_of_table(payload: &[u8]) -> bool {
    const TABLE_NAME: u16 = 1;
    let Some((header, attributes)) = payload.split_at_checked(4) else { return false };
    header[0] == INET
        && NlasIterator::new(attributes)
            .map_while(Result::ok)
            .any(|one| one.kind() == TABLE_NAME && one.value().strip_suffix(&[0]) == Some(TABLE.as_bytes()))
}

fn generation(kind: u16, payload: Vec<u8>) -> Option<u32> {
    let message = Message { index: 0, kind, payload };
    let Ok(Some(NfTablesMessage::NewGen(generation))) = parse("listen to the kernel", &message) else {
        return None;
    };
    generation.attributes.iter().find_map(|attribute| match attribute {
        GenAttribute::Id(id) => Some(*id),
        _ => None,
    })
}

// === Own generations ===

/// To be said after a transaction that was done because the generation was the one given. Whoever hears of it before is
/// told of a change that is none, which harms nothing; said before, it might hide another's.
pub(crate) fn note_own(generation: u32) {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    // There is no generation 0.
    own.push_back(generation.checked_add(1).unwrap_or(1));
    if own.len() > KEPT {
        own.pop_front();
    }
}

fn is_own(generation: Option<u32>) -> bool {
    let noted = || {
        let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        generation.is_some_and(|generation| own.contains(&generation))
    };
    // The kernel tells of a transaction before it answers whoever has made it: a thread of this process that has not
    // noted its own yet has its turn until it did.
    noted() || {
        drop(turn());
        noted()
    }
}
