//! The table: what is added to it and taken back.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use coracle_netlink::{Batch, Message};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, ParseableParametrized};
use netlink_packet_netfilter::nftables::{GenAttribute, NfTablesMessage};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use rustix::io::Errno;

use crate::element::{Element, Present, get_all};
use crate::listed::present;
use crate::schema::{Family, Set};
use crate::socket::Kept;
use crate::transaction::{Transaction, get_generation, in_family};
use crate::watch::{NEW_ELEMENT, note_own};
use crate::{Entry, Error, Owner, Part, PortMap};

/// How often something is tried that others keep changing.
pub(crate) const ATTEMPTS: u32 = 256;

/// What is read and then changed is one thread's of this process at a time. The kernel refuses what another process
/// has come in between, and then it is tried again: this is only to keep threads from doing that to each other.
static TURN: Mutex<()> = Mutex::new(());

/// The table `inet coracle` of a network namespace. It is made when something is added to it, and then stays.
///
/// Several threads and processes may use it at the same time: whatever is asked for in one call is done in one
/// transaction, and all of it can be asked for again.
#[derive(Debug)]
pub struct Nftables {
    pub(crate) socket: Kept,
}

/// What was taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many elements.
    pub elements: usize,
    /// The ports of this host among them.
    pub ports: Vec<PortMap>,
}

/// What became of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    Done,
    /// The table, a set or an element is not there.
    Absent,
    /// The rule set has become another generation meanwhile.
    Changed,
    /// Something is there already, and is another.
    Exists,
}

/// What is to be done for an element to be as it has to be.
enum Step {
    Add(Element),
    Replace(Element),
    Delete(Element),
}

// === impl Nftables ===

impl Nftables {
    /// That of the network namespace the calling thread is in.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Kept::take()? })
    }

    /// That of another network namespace: an open `/proc/<pid>/ns/net`, or a pidfd.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open_in(namespace: BorrowedFd<'_>) -> Result<Self, Error> {
        Ok(Self { socket: Kept::open_in(namespace)? })
    }

    /// Adds entries of an attachment, all of them or none. The table is made, or made again, where it is not there.
    ///
    /// What the attachment has already is no error. What another one has for an address (it has had the address before
    /// and was not collected) is taken over; a port of the host is not.
    ///
    /// # Errors
    /// [`Error::Taken`] for a host port, [`Error::Unsupported`] where the kernel cannot have such a table,
    /// [`Error::InterfaceName`], [`Error::Netlink`], [`Error::Busy`].
    pub fn add(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), Error> {
        let wanted = elements(entries)?;
        let _turn = turn();
        for _ in 0..ATTEMPTS {
            let generation = self.generation()?;
            // It is looked first: what is refused costs a grace period of RCU.
            let steps = self.plan(owner, &wanted)?;
            // What is there may be collected before the rest is added, unless it depends on the generation.
            let all_new =
                steps.len() >= wanted.len() && steps.iter().all(|step| matches!(step, Step::Add(_)));
            let mut transaction = Transaction::new((!all_new).then_some(generation));
            for step in &steps {
                step.push(&mut transaction, owner);
            }
            match self.commit(transaction)? {
                Commit::Done => return Ok(()),
                Commit::Absent => drop(self.make()?),
                // Somebody came in between.
                Commit::Changed | Commit::Exists => thread::yield_now(),
            }
        }
        Err(Error::Busy { what: "add elements".into(), attempts: ATTEMPTS })
    }

    /// Takes back entries of an attachment. What is not there, or another's, is none of it.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::Busy`].
    pub fn remove(&mut self, owner: &Owner, entries: &[Entry]) -> Result<Removed, Error> {
        let named = elements(entries)?;
        self.remove_where("remove elements", |table| {
            let there = table.get(named.iter().map(|(element, _)| element))?;
            Ok(there.into_iter().flatten().filter(|one| one.is_of(owner)).collect())
        })
    }

    /// Takes back whatever an attachment has. Lists everybody's for it.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::Busy`].
    pub fn remove_all(&mut self, owner: &Owner, part: Part) -> Result<Removed, Error> {
        self.remove_where("remove all elements of an attachment", |table| {
            Ok(table.list(part)?.into_iter().filter(|one| one.is_of(owner)).collect())
        })
    }

    /// Takes back what attachments of a network have that are none of those given (container id and interface), and
    /// what serves nobody any more.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::Busy`].
    pub fn gc(&mut self, network: &str, valid: &[(String, String)], part: Part) -> Result<Removed, Error> {
        let valid: BTreeSet<(&str, &str)> =
            valid.iter().map(|(container_id, ifname)| (container_id.as_str(), ifname.as_str())).collect();
        self.remove_where("collect elements", |table| {
            let (mut gone, stay): (Vec<_>, Vec<_>) = table.list(part)?.into_iter().partition(|one| {
                let owner = one.owner();
                owner.is_some_and(|owner| {
                    owner.network() == network && !valid.contains(&(owner.container_id(), owner.ifname()))
                })
            });
            gone.extend(table.useless(part, &stay, &gone)?);
            Ok(gone)
        })
    }

    /// Whether all of the entries are there, and the attachment's.
    ///
    /// # Errors
    /// [`Error::Missing`], naming those that are not; [`Error::Netlink`].
    pub fn check(&mut self, owner: &Owner, entries: &[Entry]) -> Result<(), Error> {
        let wanted = elements(entries)?;
        let there = self.get(wanted.iter().map(|(element, _)| element))?;
        let mut missing: Vec<String> = Vec::new();
        for ((element, entry), there) in wanted.iter().zip(there) {
            let fine = match there {
                _ if element.key_end.is_some() => self.widest(element)?.is_none(),
                Some(there) => {
                    anybodys(element) || (there.is_of(owner) && there.element.data == element.data)
                }
                None => false,
            };
            let entry = entry.to_string();
            if !fine && !missing.contains(&entry) {
                missing.push(entry);
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(Error::Missing { missing }) }
    }

    /// Whose entries there are.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn owners(&mut self, part: Part) -> Result<BTreeSet<Owner>, Error> {
        Ok(self.list(part)?.iter().filter_map(Present::owner).collect())
    }

    /// What to do for all elements to be there and the owner's.
    fn plan(&mut self, owner: &Owner, wanted: &[(Element, &Entry)]) -> Result<Vec<Step>, Error> {
        let there = self.get(wanted.iter().map(|(element, _)| element))?;
        let mut steps = Vec::new();
        for ((element, entry), there) in wanted.iter().zip(there) {
            match there {
                _ if element.key_end.is_some() => {
                    // Intervals may not overlap: of subnets one of which is in the other, the set has the wider one.
                    // What the kernel answers to a question for one is any that has its beginning, so that says
                    // nothing.
                    if let Some(narrower) = self.widest(element)? {
                        steps.extend(narrower.into_iter().map(Step::Delete));
                        steps.push(Step::Add(element.clone()));
                    }
                }
                None => steps.push(Step::Add(element.clone())),
                Some(_) if anybodys(element) => {}
                Some(there) if there.is_of(owner) && there.element.data == element.data => {}
                Some(there)
                    if matches!(element.set, Set::Ports(_) | Set::HostPorts(_)) && !there.is_of(owner) =>
                {
                    let holder = match (there.owner(), there.comment) {
                        (Some(holder), _) => format!(
                            "container {} (network {}, interface {})",
                            holder.container_id(),
                            holder.network(),
                            holder.ifname()
                        ),
                        (None, Some(comment)) => format!("an element with the comment {comment:?}"),
                        (None, None) => "an element that somebody has added by hand".to_owned(),
                    };
                    return Err(Error::Taken { what: entry.to_string(), holder });
                }
                Some(_) => steps.push(Step::Replace(element.clone())),
            }
        }
        Ok(steps)
    }

    /// The subnets there are within one, unless one of them contains it.
    fn widest(&mut self, subnet: &Element) -> Result<Option<Vec<Element>>, Error> {
        let there = self.list_set(subnet.set)?.into_iter().map(|one| one.element);
        let end = |of: &Element| of.key_end.clone().unwrap_or_else(|| of.key.clone());
        let mut narrower = Vec::new();
        for one in there {
            if one.contains(&subnet.key, &end(subnet)) {
                return Ok(None);
            }
            if subnet.contains(&one.key, &end(&one)) {
                narrower.push(one);
            }
        }
        Ok(Some(narrower))
    }

    /// What nobody owns and serves nobody: subnets without pods, guards of interfaces that are gone.
    fn useless(&mut self, part: Part, stay: &[Present], gone: &[Present]) -> Result<Vec<Present>, Error> {
        let mut useless = Vec::new();
        for family in Family::BOTH {
            let mut subnets = self.list_set(Set::Subnets(family))?;
            for set in [Set::Masquerade(family), Set::Hairpin(family)] {
                let pods = if subnets.is_empty() { Vec::new() } else { self.list_set(set)? };
                let left = pods.iter().filter(|pod| !gone.contains(pod));
                let addresses: Vec<&[u8]> =
                    left.filter_map(|pod| pod.element.key.get(..family.length() as usize)).collect();
                subnets.retain(|subnet| {
                    !addresses.iter().any(|address| subnet.element.contains(address, address))
                });
            }
            useless.extend(subnets);
        }
        let guards = stay.iter().filter(|one| one.element.set == Set::Localnet && one.comment.is_none());
        for guard in guards.filter(|_| part == Part::Ports) {
            let name = guard.element.key.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            if rustix::net::netdevice::name_to_index(&*self.socket, &name) == Err(Errno::NODEV) {
                useless.push(guard.clone());
            }
        }
        Ok(useless)
    }

    /// Deletes what is chosen of what is there, in one transaction.
    fn remove_where(
        &mut self,
        what: &'static str,
        mut choose: impl FnMut(&mut Self) -> Result<Vec<Present>, Error>,
    ) -> Result<Removed, Error> {
        let _turn = turn();
        for _ in 0..ATTEMPTS {
            let generation = self.generation()?;
            let gone = choose(self)?;
            let mut transaction = Transaction::new(Some(generation));
            for one in &gone {
                transaction.push(what, 0, one.element.delete());
            }
            match self.commit(transaction)? {
                Commit::Done => return Ok(Removed::new(&gone)),
                // Somebody came in between.
                Commit::Changed | Commit::Absent | Commit::Exists => thread::yield_now(),
            }
        }
        Err(Error::Busy { what: what.into(), attempts: ATTEMPTS })
    }

    pub(crate) fn commit(&mut self, transaction: Transaction) -> Result<Commit, Error> {
        if transaction.is_empty() {
            return Ok(Commit::Done);
        }
        let generation = transaction.generation();
        let outcome = self.socket.attempt(transaction.into_batch())?;
        if outcome.failures.is_empty() {
            if let Some(generation) = generation {
                note_own(generation);
            }
            return Ok(Commit::Done);
        }
        let known = |errno| match errno {
            Errno::RESTART => Some(Commit::Changed),
            Errno::NOENT => Some(Commit::Absent),
            Errno::EXIST | Errno::BUSY => Some(Commit::Exists),
            _ => None,
        };
        let mut known = outcome.failures.iter().map(|failure| known(failure.errno));
        match known.next() {
            Some(Some(first)) if known.all(|one| one.is_some()) => Ok(first),
            _ => {
                outcome.into_result()?;
                Ok(Commit::Done)
            }
        }
    }

    /// The number of changes there were to the rule set, of whatever table.
    pub(crate) fn generation(&mut self) -> Result<u32, Error> {
        let what = "ask for the generation of the rule set";
        let mut batch = Batch::new();
        batch.push(what, 0, &get_generation());
        for message in self.socket.execute(batch)? {
            if let Some(NfTablesMessage::NewGen(generation)) = parse(what, &message)? {
                let id = generation.attributes.iter().find_map(|attribute| match attribute {
                    GenAttribute::Id(id) => Some(*id),
                    _ => None,
                });
                if let Some(id) = id {
                    return Ok(id);
                }
            }
        }
        Err(Error::Malformed { what: what.into(), source: "it has no generation".into() })
    }

    /// What there is of each element.
    fn get<'a>(
        &mut self,
        elements: impl IntoIterator<Item = &'a Element>,
    ) -> Result<Vec<Option<Present>>, Error> {
        let what = "ask for elements";
        let mut batch = Batch::new();
        for element in elements {
            batch.push(what, 0, &in_family(element.get()));
        }
        let mut there: Vec<Option<Present>> = vec![None; batch.len()];
        let mut outcome = self.socket.attempt(batch)?;
        outcome.failures.retain(|failure| failure.errno != Errno::NOENT);
        for message in outcome.into_result()? {
            if message.kind == NEW_ELEMENT
                && let Some(place) = there.get_mut(message.index)
            {
                *place = listed(what, &message)?.into_iter().next();
            }
        }
        Ok(there)
    }

    fn list(&mut self, part: Part) -> Result<Vec<Present>, Error> {
        let mut all = Vec::new();
        for set in part.sets() {
            all.extend(self.list_set(set)?);
        }
        Ok(all)
    }

    pub(crate) fn list_set(&mut self, set: Set) -> Result<Vec<Present>, Error> {
        let what: Cow<'static, str> = format!("list the elements of set {}", set.name()).into();
        let messages = match self.socket.dump(what.clone(), &in_family(get_all(set))) {
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(Vec::new()),
            other => other?,
        };
        let mut all = Vec::new();
        for message in messages {
            if message.kind == NEW_ELEMENT {
                all.extend(listed(what.clone(), &message)?);
            }
        }
        Ok(all)
    }
}

// === impl Removed ===

impl Removed {
    fn new(gone: &[Present]) -> Self {
        let ports = gone.iter().filter_map(|one| PortMap::of(&one.element)).collect();
        Self { elements: gone.len(), ports }
    }
}

// === impl Step ===

impl Step {
    fn push(&self, transaction: &mut Transaction, owner: &Owner) {
        let exclusive =
            |element: &Element| if element.shared { NLM_F_CREATE } else { NLM_F_CREATE | NLM_F_EXCL };
        match self {
            Self::Add(element) => {
                transaction.push(what("add", element), exclusive(element), element.add(owner));
            }
            Self::Replace(element) => {
                transaction.push(what("replace", element), 0, element.delete());
                transaction.push(what("replace", element), exclusive(element), element.add(owner));
            }
            Self::Delete(element) => {
                transaction.push(what("delete", element), 0, element.delete());
            }
        }
    }
}

/// Whether it does not matter whose it is.
fn anybodys(element: &Element) -> bool {
    element.shared || element.set == Set::Localnet
}

fn what(verb: &str, element: &Element) -> String {
    format!("{verb} an element of set {}", element.set.name())
}

pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that entries are in the table, each once, and which entry it is of.
fn elements(entries: &[Entry]) -> Result<Vec<(Element, &Entry)>, Error> {
    let mut all: Vec<(Element, &Entry)> = Vec::new();
    for entry in entries {
        for element in entry.elements()? {
            if !all.iter().any(|(one, _)| *one == element) {
                all.push((element, entry));
            }
        }
    }
    Ok(all)
}

/// The elements that a message is about.
fn listed(what: impl Into<Cow<'static, str>>, message: &Message) -> Result<Vec<Present>, Error> {
    present(&message.payload).map_err(|source| Error::Malformed { what: what.into(), source })
}

/// What a message says, if it is of nftables.
pub(crate) fn parse(
    what: impl Into<Cow<'static, str>>,
    message: &Message,
) -> Result<Option<NfTablesMessage>, Error> {
    let parsed = NetfilterMessage::parse_with_param(&message.payload, message.kind)
        .map_err(|source| Error::Malformed { what: what.into(), source })?;
    Ok(match parsed.inner {
        NetfilterMessageInner::NfTables(message) => Some(message),
        _ => None,
    })
}
