//! `ipMasq`: what a pod sends beyond its network goes out under the host's address.

use coracle_cni::{AddResult, Call, CniError, GcCall, PluginConfig, code};
use coracle_nftables::{Entry, Error, Nftables, Owner, Part};
use ipnet::IpNet;

use super::check::addresses;
use super::failure::{damaged, failure};

/// Begins to masquerade what comes from these addresses of the pod.
///
/// # Errors
/// [`code::KERNEL`].
pub(crate) fn add(call: &Call, pod: impl Iterator<Item = IpNet>) -> Result<(), CniError> {
    let entries: Vec<_> = pod.map(Entry::Masquerade).collect();
    if entries.is_empty() {
        return Ok(());
    }
    let failed = kernel(&call.config);
    Nftables::open().and_then(|mut table| table.add(&owner(call)?, &entries)).map_err(failed)
}

/// As [`add`], what an ADD has added: after the rule set was flushed.
///
/// # Errors
/// [`code::KERNEL`].
pub(crate) fn repair(call: &Call) -> Result<(), CniError> {
    let Some(result) = &call.config.prev_result else { return Ok(()) };
    Nftables::open().and_then(|mut table| table.ensure()).map_err(kernel(&call.config))?;
    add(call, addresses(call, result))
}

/// Ends it.
///
/// # Errors
/// [`code::KERNEL`].
pub(crate) fn del(call: &Call) -> Result<(), CniError> {
    let told = call.config.prev_result.as_ref().map(|result| entries(call, result));
    let remove = |mut table: Nftables| match told {
        Some(entries) if !entries.is_empty() => table.remove(&owner(call)?, &entries),
        // It has to look for them among everybody's.
        _ => table.remove_all(&owner(call)?, Part::Masquerade),
    };
    Nftables::open().and_then(remove).map(drop).map_err(kernel(&call.config))
}

/// # Errors
/// [`code::CHECK_FAILED`].
pub(crate) fn check(call: &Call, result: &AddResult) -> Result<(), CniError> {
    let check = |mut table: Nftables| table.check(&owner(call)?, &entries(call, result));
    match Nftables::open().and_then(check) {
        Err(error @ Error::Missing { .. }) => Err(damaged(&call.config, error)),
        other => other.map_err(kernel(&call.config)),
    }
}

/// Ends it for those of the network that belong to none of the attachments given.
///
/// # Errors
/// [`code::KERNEL`].
pub(crate) fn gc(call: &GcCall) -> Result<(), CniError> {
    let collect = |mut table: Nftables| table.gc(&call.config.name, &call.valid, Part::Masquerade);
    Nftables::open().and_then(collect).map_err(kernel(&call.config)).map(drop)
}

fn entries(call: &Call, result: &AddResult) -> Vec<Entry> {
    addresses(call, result).map(Entry::Masquerade).collect()
}

fn owner(call: &Call) -> Result<Owner, Error> {
    Owner::new(&call.config.name, &call.container_id, &call.ifname)
}

fn kernel(config: &PluginConfig) -> impl Fn(Error) -> CniError {
    |error| failure(config, code::KERNEL, error)
}
