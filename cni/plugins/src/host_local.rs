//! host-local: addresses from ranges of this host's own, kept in a directory.
//!
//! Configuration and files are those of the reference plugin of this name. Beyond it: an ADD that is called again
//! gives the same addresses; an address that was given back is not given again for a minute while there are others;
//! GC collects what containers that are gone have left; STATUS says when a range is used up.

mod range;
mod resolv_conf;
mod store;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use coracle_cni::{
    AddResult, Call, CniError, GcCall, IpConfig, Plugin, PluginConfig, Route, StatusCall, code,
};
use ipnet::IpNet;
use serde::Deserialize;

use self::range::{RangeFields, RangeSet};
use self::store::{Owner, Store, StoreError};

/// Where the directories of networks are, unless the configuration names another place.
const DATA_DIR: &str = "/var/lib/cni/networks";

/// The longest name of an owner that is a file's name.
const LONGEST_OWNER: usize = 250;

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct HostLocal;

/// What stands in a plugin's configuration for it.
#[derive(Debug, Deserialize)]
struct Fields {
    ipam: Ipam,
    #[serde(default)]
    args: Option<Args>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ipam {
    /// One range of one set, as the first versions of the plugin had it.
    #[serde(flatten)]
    single: RangeFields,
    #[serde(default)]
    ranges: Vec<Vec<RangeFields>>,
    #[serde(default)]
    routes: Vec<Route>,
    data_dir: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Args {
    #[serde(default)]
    cni: Option<CniArgs>,
}

#[derive(Debug, Deserialize)]
struct CniArgs {
    #[serde(default)]
    ips: Vec<String>,
}

impl Plugin for HostLocal {
    fn kind(&self) -> &'static str {
        "host-local"
    }

    fn add(&self, call: &Call) -> Result<AddResult, CniError> {
        let config = &call.config;
        let fields: Fields = config.parse()?;
        let sets = ranges(config, &fields.ipam)?;
        let wanted = place(config, &sets, wanted(call, &fields)?)?;
        let dns = match &fields.ipam.resolv_conf {
            Some(path) => resolv_conf::read(path)?,
            None => Default::default(),
        };
        let owner = owner(&call.container_id, &call.ifname)?;
        let store = Store::open(directory(config, &fields.ipam)?).map_err(failed(config))?;
        let given = store.reserve(&owner, &sets, &wanted).map_err(failed(config))?;
        let ips = sets.iter().zip(given).filter_map(|(set, address)| {
            let (address, gateway) = set.find(address)?;
            Some(IpConfig { interface: None, address, gateway: Some(gateway) })
        });
        Ok(AddResult { ips: ips.collect(), routes: fields.ipam.routes, dns, ..AddResult::default() })
    }

    fn del(&self, call: &Call) -> Result<(), CniError> {
        let Some(store) = existing(&call.config)? else { return Ok(()) };
        let owner = owner(&call.container_id, &call.ifname)?;
        store.release(&owner).map_err(failed(&call.config))
    }

    fn check(&self, call: &Call) -> Result<(), CniError> {
        let config = &call.config;
        let sets = ranges(config, &config.parse::<Fields>()?.ipam)?;
        let owner = owner(&call.container_id, &call.ifname)?;
        let has = match existing(config)? {
            Some(store) => store.of(&owner).map_err(failed(config))?,
            None => Vec::new(),
        };
        if has.is_empty() {
            return Err(check_failed(config, &format!("container {} has no address", call.container_id)));
        }
        // Of addresses of other plugins of the chain it knows nothing.
        let told = call.config.prev_result.iter().flat_map(|result| &result.ips);
        let told =
            told.map(|ip| ip.address.addr()).filter(|ip| sets.iter().any(|set| set.find(*ip).is_some()));
        match told.into_iter().find(|ip| !has.contains(ip)) {
            Some(ip) => {
                let not = format!("address {ip} is not reserved for container {}", call.container_id);
                Err(check_failed(config, &not))
            }
            None => Ok(()),
        }
    }

    fn gc(&self, call: &GcCall) -> Result<(), CniError> {
        let Some(store) = existing(&call.config)? else { return Ok(()) };
        let owners: BTreeSet<Owner> = call
            .valid
            .iter()
            .map(|(container_id, ifname)| Owner {
                container_id: container_id.clone(),
                ifname: ifname.clone(),
            })
            .collect();
        store.retain(&owners).map_err(failed(&call.config))
    }

    fn status(&self, call: &StatusCall) -> Result<(), CniError> {
        let config = &call.config;
        let sets = ranges(config, &config.parse::<Fields>()?.ipam)?;
        let not_available = |error: CniError| CniError { code: code::NOT_AVAILABLE, ..error };
        let Some(store) = existing(config).map_err(not_available)? else { return Ok(()) };
        for set in &sets {
            if !store.has_free(set).map_err(failed(config)).map_err(not_available)? {
                return Err(not_available(failed(config)(StoreError::Exhausted(set.to_string()))));
            }
        }
        Ok(())
    }
}

/// The sets of ranges an address of each is given of: those of the call, then those of the configuration.
fn ranges(config: &PluginConfig, ipam: &Ipam) -> Result<Vec<RangeSet>, CniError> {
    let of_call: Option<Vec<Vec<RangeFields>>> = config.capability("ipRanges")?;
    let single = (ipam.single != RangeFields::default()).then(|| vec![ipam.single.clone()]);
    let all = of_call.into_iter().flatten().chain(single).chain(ipam.ranges.iter().cloned());
    let mut sets: Vec<RangeSet> = Vec::new();
    for fields in all {
        let set = RangeSet::new(&fields).map_err(|error| invalid(config, &error))?;
        if let Some((one, other)) = sets.iter().find_map(|other| other.overlap(&set)) {
            return Err(invalid(config, &format!("ranges {one} and {other} of different sets overlap")));
        }
        sets.push(set);
    }
    match sets.is_empty() {
        true => Err(invalid(config, "no ranges are given: set ipam.ranges")),
        false => Ok(sets),
    }
}

/// The addresses that are asked for: by `CNI_ARGS`, by `args` of the configuration, by capability.
fn wanted(call: &Call, fields: &Fields) -> Result<Vec<IpAddr>, CniError> {
    let by_args = call.args.iter().filter(|(name, _)| name == "IP").map(|(_, value)| value.clone());
    let by_config = fields.args.iter().flat_map(|args| &args.cni).flat_map(|cni| cni.ips.clone());
    let by_capability: Option<Vec<String>> = call.config.capability("ips")?;
    let mut wanted = Vec::new();
    for text in by_args.chain(by_config).chain(by_capability.into_iter().flatten()) {
        // With or without the prefix, which the range has in any case.
        let parsed = text.parse::<IpNet>().map(|net| net.addr()).or_else(|_| text.parse());
        let address =
            parsed.map_err(|_| invalid(&call.config, &format!("{text:?}, asked for, is no address")))?;
        if !wanted.contains(&address) {
            wanted.push(address);
        }
    }
    Ok(wanted)
}

/// Which of the wanted addresses is of which set.
fn place(
    config: &PluginConfig,
    sets: &[RangeSet],
    wanted: Vec<IpAddr>,
) -> Result<Vec<Option<IpAddr>>, CniError> {
    let mut places = vec![None; sets.len()];
    for address in wanted {
        let mut fitting = sets.iter().zip(&mut places);
        match fitting.find(|(set, place)| place.is_none() && set.find(address).is_some()) {
            Some((_, place)) => *place = Some(address),
            None => {
                let sets: Vec<String> = sets.iter().map(RangeSet::to_string).collect();
                let not = format!("address {address}, asked for, is not one of the {}", sets.join(", "));
                return Err(invalid(config, &not));
            }
        }
    }
    Ok(places)
}

fn owner(container_id: &str, ifname: &str) -> Result<Owner, CniError> {
    let long = container_id.len() + ifname.len() > LONGEST_OWNER;
    if long || container_id.is_empty() || container_id.contains(['/', ':']) || ifname.contains(['/', ':']) {
        let message =
            format!("host-local: {container_id:?} and {ifname:?} cannot be a file's name: shorten them");
        return Err(CniError::new(code::INVALID_ENVIRONMENT, message));
    }
    Ok(Owner { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
}

/// What there is of the network. Wants nothing of the configuration but the place: what a DEL takes back was given
/// by another one perhaps.
fn existing(config: &PluginConfig) -> Result<Option<Store>, CniError> {
    #[derive(Deserialize)]
    struct Place {
        ipam: Where,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Where {
        data_dir: Option<PathBuf>,
    }
    let place: Place = config.parse()?;
    let directory = network_directory(config, place.ipam.data_dir.as_deref())?;
    Store::open_existing(directory).map_err(failed(config))
}

fn directory(config: &PluginConfig, ipam: &Ipam) -> Result<PathBuf, CniError> {
    network_directory(config, ipam.data_dir.as_deref())
}

fn network_directory(config: &PluginConfig, data_dir: Option<&Path>) -> Result<PathBuf, CniError> {
    // The name is a directory's, so it must not lead elsewhere.
    if config.name.is_empty() || config.name.starts_with('.') || config.name.contains('/') {
        return Err(invalid(config, "the network's name cannot be a directory's"));
    }
    Ok(data_dir.unwrap_or(Path::new(DATA_DIR)).join(&config.name))
}

fn invalid(config: &PluginConfig, what: &str) -> CniError {
    CniError::new(code::INVALID_CONFIG, format!("network {}: host-local: {what}", config.name))
}

fn check_failed(config: &PluginConfig, what: &str) -> CniError {
    CniError::new(code::CHECK_FAILED, format!("network {}: host-local: {what}", config.name))
}

fn failed(config: &PluginConfig) -> impl Fn(StoreError) -> CniError {
    let network = config.name.clone();
    move |error| {
        let (code, remedy) = match &error {
            StoreError::Io { .. } => (code::IO, ""),
            StoreError::Exhausted(_) => {
                (code::NO_ADDRESSES, "; remove a container of this network, or configure a larger range")
            }
            StoreError::Taken(..) => (code::NO_ADDRESSES, "; ask for another one, or for none"),
        };
        CniError::new(code, format!("network {network}: host-local: {error}{remedy}"))
    }
}

#[cfg(test)]
mod tests;
