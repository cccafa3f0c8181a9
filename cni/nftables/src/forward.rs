//! Others' chains that keep this host from forwarding anything to a pod.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use crate::schema::TABLE;
use crate::table::parse;
use crate::transaction::get_chains;
use crate::whole::chain_is_of;
use crate::{Error, Nftables};

/// `NF_DROP`.
const DROP: u32 = 0;

impl Nftables {
    /// Chains of others that drop whatever is forwarded and none of their rules accepts, while no rule of their tables
    /// is about the interface given: `chain FORWARD of table ip filter`.
    ///
    /// What one table drops another one cannot let through, so nothing here can help it. A rule that accepts by
    /// something else than the interface is not seen, nor are chains of iptables-legacy.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn forward_drops(&mut self, interface: &str) -> Result<Vec<String>, Error> {
        let what = "list chains";
        let mut drops = Vec::new();
        for message in self.socket.dump(what, &get_chains(false))? {
            // struct nfgenmsg begins with the family.
            let family = message.payload.first().copied().unwrap_or_default();
            let Some(name) = family_name(family) else { continue };
            let Some(NfTablesMessage::NewChain(chain)) = parse(what, &message)? else { continue };
            if name == "inet" && chain_is_of(&chain, TABLE) || !drops_forwarded(&chain) {
                continue;
            }
            let (mut table, mut own) = (None, None);
            for attribute in chain.attributes {
                match attribute {
                    ChainAttribute::Table(name) => table = Some(name),
                    ChainAttribute::Name(name) => own = Some(name),
                    _ => {}
                }
            }
            let Some((table, own)) = table.zip(own) else { continue };
            if !self.rules_name(family, &table, interface)? {
                drops.push(format!("chain {own} of table {name} {table}"));
            }
        }
        Ok(drops)
    }

    /// Whether a rule of a table compares something with an interface's name.
    fn rules_name(&mut self, family: u8, table: &str, interface: &str) -> Result<bool, Error> {
        // NFTA_RULE_TABLE. The answer is not taken apart: others' rules have expressions of every kind.
        let name = DefaultNla::new(1, [table.as_bytes(), &[0]].concat());
        let message = netlink_packet_netfilter::NetfilterMessageInner::Other {
            subsys: netlink_packet_netfilter::NetfilterSubsystem::NfTables,
            message_type: GET_RULE,
            attributes: vec![name],
        };
        let header = NetfilterHeader::new(NetfilterProtoFamily::from(family), 0, 0);
        let request = NetfilterMessage::new(header, message);
        let messages = self.socket.dump(format!("list the rules of table {table}"), &request)?;
        let wanted = [&[0], interface.as_bytes(), &[0]].concat();
        Ok(messages.iter().any(|message| message.payload.windows(wanted.len()).any(|bytes| bytes == wanted)))
    }
}

/// `NFT_MSG_GETRULE`.
const GET_RULE: u8 = 7;

fn family_name(family: u8) -> Option<&'static str> {
    match NetfilterProtoFamily::from(family) {
        NetfilterProtoFamily::Inet => Some("inet"),
        NetfilterProtoFamily::IPv4 => Some("ip"),
        NetfilterProtoFamily::IPv6 => Some("ip6"),
        _ => None,
    }
}

fn drops_forwarded(chain: &ChainMessage) -> bool {
    let is_dropping = |one: &ChainAttribute| matches!(one, ChainAttribute::Policy(DROP));
    let forward = Hook::Number(HookNumber::Inet(InetHookNumber::Forward));
    let is_forward =
        |one: &ChainAttribute| matches!(one, ChainAttribute::Hook(parts) if parts.contains(&forward));
    chain.attributes.iter().any(is_dropping) && chain.attributes.iter().any(is_forward)
}
