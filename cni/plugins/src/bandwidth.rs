//! bandwidth: rates for what a pod receives and sends.
//!
//! Configuration and results are those of the reference plugin of this name; rates and bursts are in bits. What the pod
//! receives (`ingress`) waits in a token bucket filter at the host's end of its veth pair. What it sends (`egress`) comes in
//! there, and only what goes out can wait: so it is redirected to an intermediate functional block, and waits there.

use std::os::fd::AsFd;

use coracle_cni::{AddResult, Call, CniError, GcCall, Plugin, PluginConfig, StatusCall, code};
use coracle_netlink::{Batch, Link, LinkChange, LinkId, Protocol, Socket, TokenBucket, TokenBucketSeen};
use rustix::io::Errno;
use serde::Deserialize;

use crate::interface::check::{link, previous};
use crate::interface::failure::{damaged, failure, first, invalid, kernel};
use crate::interface::name::{abandoned, alias_of, host_name_of};
use crate::interface::pod;
use crate::interface::told::interface_of;

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Bandwidth;

/// What the names of intermediate functional blocks begin with.
const PREFIX: &str = "ifb";
/// How long at the rate may wait what exceeds it, in milliseconds: as in the reference plugin.
const LATENCY: u64 = 25;

/// Rates in bits a second, bursts in bits; 0 for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limits {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
}

/// What stands in a configuration: the reference plugin's fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(flatten)]
    limits: Limits,
    #[serde(default)]
    unshaped_subnets: Vec<String>,
    #[serde(default)]
    shaped_subnets: Vec<String>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Buckets {
    ingress: Option<TokenBucket>,
    egress: Option<TokenBucket>,
}

impl Plugin for Bandwidth {
    fn kind(&self) -> &'static str {
        "bandwidth"
    }

    fn add(&self, call: &Call) -> Result<AddResult, CniError> {
        let result = previous(&call.config)?;
        let buckets = Buckets::read(&call.config)?;
        let mut result = result.clone();
        if buckets.is_empty() {
            return Ok(result);
        }
        let mut host = Socket::open(Protocol::Route).map_err(kernel(&call.config))?;
        let pair = near_end(call, &mut host, &result)?;
        if let Some(bucket) = buckets.ingress {
            let mut batch = Batch::new();
            batch.limit_rate(pair.index, &bucket);
            host.execute(batch).map_err(kernel(&call.config))?;
        }
        if let Some(bucket) = buckets.egress {
            let block = match limit_egress(call, &mut host, &pair, &bucket) {
                Ok(block) => block,
                Err(error) => {
                    // Of what is left DEL will tell.
                    let _ = remove(call);
                    return Err(error);
                }
            };
            result.interfaces.push(interface_of(&block));
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), CniError> {
        remove(call)
    }

    fn check(&self, call: &Call) -> Result<(), CniError> {
        let result = previous(&call.config)?;
        let buckets = Buckets::read(&call.config)?;
        if buckets.is_empty() {
            return Ok(());
        }
        let mut host = Socket::open(Protocol::Route).map_err(kernel(&call.config))?;
        let pair = near_end(call, &mut host, result)
            .map_err(|error| CniError { code: code::CHECK_FAILED, ..error })?;
        check_rate(&call.config, &mut host, &pair, buckets.ingress)?;
        if buckets.egress.is_none() {
            return Ok(());
        }
        let block = link(&call.config, &mut host, &name_of(call))?;
        if host.ingress_redirect(pair.index).map_err(kernel(&call.config))? != Some(block.index) {
            let what = format!("what {} receives is not redirected to {}", pair.name, block.name);
            return Err(damaged(&call.config, what));
        }
        check_rate(&call.config, &mut host, &block, buckets.egress)
    }

    fn gc(&self, call: &GcCall) -> Result<(), CniError> {
        let failed = kernel(&call.config);
        let mut host = Socket::open(Protocol::Route).map_err(&failed)?;
        let links = host.links().map_err(&failed)?;
        let gone = abandoned(&call.config, &links, "ifb", &call.valid);
        first(gone.into_iter().map(|link| host.remove_link(LinkId::Index(link.index)).map_err(&failed)))
    }

    fn status(&self, call: &StatusCall) -> Result<(), CniError> {
        Buckets::read(&call.config).map(drop)
    }
}

// === impl Buckets ===

impl Buckets {
    /// By capability, or by the configuration.
    ///
    /// # Errors
    /// [`code::INVALID_CONFIG`], naming the field.
    fn read(config: &PluginConfig) -> Result<Self, CniError> {
        let fields: Fields = config.parse()?;
        if !fields.shaped_subnets.is_empty() || !fields.unshaped_subnets.is_empty() {
            let what = "shapedSubnets and unshapedSubnets are not supported: leave them out";
            return Err(invalid(config, what));
        }
        let limits = config.capability("bandwidth")?.unwrap_or(fields.limits);
        Ok(Self {
            ingress: bucket(config, "ingress", limits.ingress_rate, limits.ingress_burst)?,
            egress: bucket(config, "egress", limits.egress_rate, limits.egress_burst)?,
        })
    }

    fn is_empty(self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}

/// Of a rate and a burst in bits.
fn bucket(
    config: &PluginConfig,
    direction: &str,
    rate: u64,
    burst: u64,
) -> Result<Option<TokenBucket>, CniError> {
    let refuse = |what: &str| Err(invalid(config, format_args!("{direction}{what}")));
    match (rate, burst) {
        (0, 0) => return Ok(None),
        (0, _) => return refuse("Burst is set: set the rate as well"),
        (_, 0) => return refuse("Rate is set: set the burst as well"),
        (1..8, _) => return refuse("Rate must be at least 8 bits a second"),
        _ => {}
    }
    let Ok(burst) = u32::try_from(burst / 8) else { return refuse("Burst must be less than 4 GiB") };
    let rate = rate / 8;
    let limit = (rate.saturating_mul(LATENCY) / 1000).saturating_add(burst.into());
    Ok(Some(TokenBucket { rate, burst, limit: u32::try_from(limit).unwrap_or(u32::MAX) }))
}

/// The name of a call's intermediate functional block.
fn name_of(call: &Call) -> String {
    host_name_of(PREFIX, call)
}

/// The host's end of the pod's veth pair: that of the result's interfaces whose other end is the pod's.
fn near_end(call: &Call, host: &mut Socket, result: &AddResult) -> Result<Link, CniError> {
    let namespace = pod::namespace(call)?;
    let mut inside = pod::socket(&call.config, namespace.as_fd())?;
    let far = pod::link(&call.config, &mut inside, &call.ifname)?;
    for interface in result.interfaces.iter().filter(|interface| interface.sandbox.is_empty()) {
        let near = host.link(LinkId::Name(&interface.name)).map_err(kernel(&call.config))?;
        match near {
            Some(near) if near.kind == "veth" && near.peer == Some(far.index) => return Ok(near),
            _ => {}
        }
    }
    let what = format!("none of the host's interfaces in prevResult is the other end of {}", call.ifname);
    Err(invalid(&call.config, what))
}

/// Tells the intermediate functional block.
fn limit_egress(call: &Call, host: &mut Socket, pair: &Link, bucket: &TokenBucket) -> Result<Link, CniError> {
    let failed = kernel(&call.config);
    let (name, alias) = (name_of(call), alias_of(call)?);
    let mut batch = Batch::new();
    let created = batch.create_ifb(&name, pair.mtu);
    batch.change_link(LinkId::Name(&name), &LinkChange { alias: Some(&alias), ..LinkChange::default() });
    batch.get_link(LinkId::Name(&name));
    // That of an ADD that did not come to its end serves as well.
    let outcome = host.attempt(batch).map_err(&failed)?.tolerate(created, Errno::EXIST);
    let block = pod::link_told(&call.config, &outcome.into_result().map_err(&failed)?)?;
    if block.kind != "ifb" {
        let what = format!("the interface {name} is none of ours");
        return Err(failure(&call.config, code::KERNEL, what));
    }
    let mut batch = Batch::new();
    batch.limit_rate(block.index, bucket);
    let added = batch.add_ingress(pair.index);
    batch.redirect_ingress(pair.index, block.index);
    let outcome = host.attempt(batch).map_err(&failed)?.tolerate(added, Errno::EXIST);
    outcome.into_result().map_err(failed)?;
    Ok(block)
}

/// The rest goes with the veth pair.
fn remove(call: &Call) -> Result<(), CniError> {
    let failed = kernel(&call.config);
    let mut host = Socket::open(Protocol::Route).map_err(&failed)?;
    host.remove_link(LinkId::Name(&name_of(call))).map_err(failed)
}

fn check_rate(
    config: &PluginConfig,
    host: &mut Socket,
    link: &Link,
    wanted: Option<TokenBucket>,
) -> Result<(), CniError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let seen = host.rate_limit(link.index).map_err(kernel(config))?;
    if seen == Some(TokenBucketSeen { rate: wanted.rate, limit: wanted.limit }) {
        return Ok(());
    }
    let is = seen.map_or("no limit".to_owned(), |seen| format!("{} bytes a second", seen.rate));
    let what = format!("interface {} has {is} instead of {} bytes a second", link.name, wanted.rate);
    Err(damaged(config, what))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(more: Value, runtime: Value) -> Result<Buckets, String> {
        let mut config = json!({"cniVersion": "1.1.0", "name": "net", "type": "bandwidth"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config["runtimeConfig"] = runtime;
        Buckets::read(&PluginConfig::from_json(config).unwrap()).map_err(|error| error.msg)
    }

    #[test]
    fn limits_are_read_in_bits_and_those_of_the_call_go_first() {
        let limits =
            json!({"ingressRate": 8000, "ingressBurst": 80000, "egressRate": 16000, "egressBurst": 800});
        let ingress = Some(TokenBucket { rate: 1000, burst: 10000, limit: 10025 });
        let egress = Some(TokenBucket { rate: 2000, burst: 100, limit: 150 });
        assert_eq!(read(limits.clone(), json!({})), Ok(Buckets { ingress, egress }));
        let of_call = json!({"bandwidth": {"ingressRate": 8000, "ingressBurst": 80000}});
        assert_eq!(read(limits, of_call), Ok(Buckets { ingress, egress: None }));
        assert_eq!(read(json!({}), json!({})), Ok(Buckets { ingress: None, egress: None }));
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let cases = [
            (json!({"ingressRate": 8000}), "ingressRate is set: set the burst as well"),
            (json!({"egressBurst": 8000}), "egressBurst is set: set the rate as well"),
            (json!({"egressRate": 7, "egressBurst": 8000}), "egressRate must be at least 8 bits a second"),
            (json!({"egressRate": 8, "egressBurst": 1_u64 << 35}), "egressBurst must be less than 4 GiB"),
            (json!({"egressRate": -8, "egressBurst": 8}), "the configuration is wrong"),
            (json!({"shapedSubnets": ["10.0.0.0/8"]}), "shapedSubnets and unshapedSubnets are not supported"),
        ];
        for (limits, expected) in cases {
            let error = read(limits, json!({})).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
