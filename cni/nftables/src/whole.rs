//! Whether the table is as it has to be, and making it so.

use std::collections::BTreeSet;
use std::thread;

use coracle_netlink::Batch;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    SetAttribute, TableAttribute, TableFlags,
};
use rustix::io::Errno;

use crate::element::Present;
use crate::owner::comment_in;
use crate::schema::{CHAINS, Set, TABLE, TABLE_COMMENT, VERSION, rules};
use crate::table::{ATTEMPTS, Commit, parse, turn};
use crate::transaction::{Transaction, delete_table, get_chains, get_rules, get_sets, get_table};
use crate::{Error, Nftables, Owner, Part};

/// How many elements go in a message, the length of whose list is told in 16 bits.
const ELEMENTS: usize = 100;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;

impl Nftables {
    /// Makes the table where it is not there or not whole. Elements it still has are kept. Tells whether there was
    /// anything to do.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the kernel cannot have such a table, [`Error::Netlink`], [`Error::Busy`].
    pub fn ensure(&mut self) -> Result<bool, Error> {
        let _turn = turn();
        self.make()
    }

    pub(crate) fn make(&mut self) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            if self.is_whole()? {
                return Ok(false);
            }
            let mut transaction = Transaction::new(None);
            transaction.make_table();
            match self.commit(transaction) {
                Ok(Commit::Done) => return Ok(true),
                Ok(Commit::Exists) => {
                    if self.make_again()? {
                        return Ok(true);
                    }
                }
                Ok(Commit::Absent | Commit::Changed) => thread::yield_now(),
                Err(Error::Netlink(source)) => return Err(Error::Unsupported { source }),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Busy { what: "make the table".into(), attempts: ATTEMPTS })
    }

    /// Removes the table, unless somebody has an entry in it: who has.
    ///
    /// # Errors
    /// [`Error::Netlink`], [`Error::Busy`].
    pub fn remove_table(&mut self) -> Result<BTreeSet<Owner>, Error> {
        let _turn = turn();
        for _ in 0..ATTEMPTS {
            let generation = self.generation()?;
            let mut owners = self.owners(Part::Masquerade)?;
            owners.extend(self.owners(Part::Ports)?);
            if !owners.is_empty() {
                return Ok(owners);
            }
            let mut transaction = Transaction::new(Some(generation));
            transaction.push("delete table inet coracle", 0, delete_table());
            match self.commit(transaction)? {
                Commit::Done | Commit::Absent => return Ok(owners),
                // Somebody came in between.
                Commit::Changed | Commit::Exists => thread::yield_now(),
            }
        }
        Err(Error::Busy { what: "remove the table".into(), attempts: ATTEMPTS })
    }

    /// `false` when somebody came in between.
    fn make_again(&mut self) -> Result<bool, Error> {
        let generation = self.generation()?;
        let mut transaction = Transaction::new(Some(generation));
        transaction.push("delete what is left of table inet coracle", 0, delete_table());
        transaction.make_table();
        for set in Set::ALL {
            let mut all = self.list_set(set)?;
            // What a set of the same name has, but of other fields, is no element of ours.
            all.retain(Present::fits);
            for some in all.chunks(ELEMENTS) {
                transaction.push("keep elements", NLM_F_CREATE, Present::add_all(set, some));
            }
        }
        Ok(self.commit(transaction)? == Commit::Done)
    }

    /// Whether the table is there with all sets, chains and rules, and is no older than this program's.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn is_whole(&mut self) -> Result<bool, Error> {
        let Some(version) = self.version()? else { return Ok(false) };
        if version < VERSION || !self.has_all_sets()? {
            return Ok(false);
        }
        // What chains and rules a newer one has is not known here.
        Ok(version > VERSION || (self.has_all_chains()? && self.has_all_rules()?))
    }

    /// The version of a table that works.
    fn version(&mut self) -> Result<Option<u32>, Error> {
        let what = "look at table inet coracle";
        let mut batch = Batch::new();
        batch.push(what, 0, &get_table());
        let mut outcome = self.socket.attempt(batch)?;
        outcome.failures.retain(|failure| failure.errno != Errno::NOENT);
        for message in outcome.into_result()? {
            let Some(NfTablesMessage::NewTable(table)) = parse(what, &message)? else { continue };
            let mut version = None;
            for attribute in &table.attributes {
                match attribute {
                    TableAttribute::Flags(flags) if flags.contains(TableFlags::Dormant) => return Ok(None),
                    TableAttribute::UserData(data) => {
                        version =
                            comment_in(data).and_then(|text| text.strip_prefix(TABLE_COMMENT)?.parse().ok());
                    }
                    _ => {}
                }
            }
            return Ok(version);
        }
        Ok(None)
    }

    fn has_all_sets(&mut self) -> Result<bool, Error> {
        let what = "list the sets of table inet coracle";
        let mut names = Vec::new();
        for message in self.socket.dump(what, &get_sets())? {
            let Some(NfTablesMessage::NewSet(set)) = parse(what, &message)? else { continue };
            names.extend(set.attributes.into_iter().filter_map(|attribute| match attribute {
                SetAttribute::Name(name) => Some(name),
                _ => None,
            }));
        }
        Ok(Set::ALL.iter().all(|set| names.iter().any(|name| name == set.name())))
    }

    fn has_all_chains(&mut self) -> Result<bool, Error> {
        let what = "list chains";
        let mut found = Vec::new();
        for message in self.socket.dump(what, &get_chains(true))? {
            let Some(NfTablesMessage::NewChain(chain)) = parse(what, &message)? else { continue };
            if chain_is_of(&chain, TABLE) {
                found.push(chain.attributes);
            }
        }
        Ok(found.len() == CHAINS.len()
            && CHAINS.iter().all(|chain| {
                let named = |all: &&Vec<ChainAttribute>| {
                    all.iter().any(|one| matches!(one, ChainAttribute::Name(name) if name == chain.name))
                };
                found
                    .iter()
                    .find(named)
                    .is_some_and(|all| base(all) == chain.base.map(|(_, hook, at)| (hook, at)))
            }))
    }

    fn has_all_rules(&mut self) -> Result<bool, Error> {
        let what = "list the rules of table inet coracle";
        let mut found: Vec<(String, String)> = Vec::new();
        for message in self.socket.dump(what, &get_rules())? {
            let Some(NfTablesMessage::NewRule(rule)) = parse(what, &message)? else { continue };
            let (mut table, mut chain, mut text) = (None, None, None);
            for attribute in rule.attributes {
                match attribute {
                    RuleAttribute::Table(name) => table = Some(name),
                    RuleAttribute::Chain(name) => chain = Some(name),
                    RuleAttribute::UserData(data) => text = comment_in(&data).map(str::to_owned),
                    _ => {}
                }
            }
            if table.as_deref() == Some(TABLE) {
                found.push((chain.unwrap_or_default(), text.unwrap_or_default()));
            }
        }
        let mut wanted: Vec<(String, String)> =
            rules().into_iter().map(|rule| (rule.chain.to_owned(), rule.comment.to_owned())).collect();
        // Chain by chain, in the order of the rules in each.
        wanted.sort_by(|one, other| one.0.cmp(&other.0));
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found == wanted)
    }
}

pub(crate) fn chain_is_of(chain: &ChainMessage, table: &str) -> bool {
    chain.attributes.iter().any(|one| matches!(one, ChainAttribute::Table(name) if name == table))
}

/// Hook and priority of a chain that has one and lets through what its rules do not stop.
fn base(chain: &[ChainAttribute]) -> Option<(InetHookNumber, i32)> {
    let (mut hook, mut priority) = (None, None);
    for attribute in chain {
        match attribute {
            ChainAttribute::Policy(policy) if *policy != ACCEPT => return None,
            ChainAttribute::Hook(parts) => {
                for part in parts {
                    match part {
                        Hook::Number(HookNumber::Inet(number)) => hook = Some(*number),
                        Hook::Priority(number) => priority = Some(number.cast_signed()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    hook.zip(priority)
}
