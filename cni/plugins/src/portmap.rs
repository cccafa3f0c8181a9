//! portmap: ports of the host that lead to a container, as the capability `portMappings` asks for them.
//!
//! Configuration is the reference plugin's, as far as it means anything without rules of iptables: what is done by
//! elements of one table's maps cannot run through others' chains (`externalSetMarkChain`) or under conditions of
//! the user's (`conditionsV4`, `conditionsV6`), and is refused; nothing is marked, so `markMasqBit` has no effect.
//!
//! Works behind any plugin that gives the container an address the host has a route to. A mapping without `hostIP` is
//! for every family the container has; `0.0.0.0` and `::` are any address of their family. The container itself, its
//! neighbours and the host reach it by the host's addresses; the host by 127.0.0.1, too, but not by ::1, which IPv6
//! has no way to lead elsewhere.

mod host_side;
mod mapping;

use coracle_cni::{AddResult, Call, CniError, GcCall, Plugin, PluginConfig, StatusCall, code};
use coracle_nftables::{Conntrack, Entry, Error, Nftables, Owner, Part, PortMap, Protocol};
use ipnet::IpNet;
use serde::Deserialize;

use self::host_side::HostSide;

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Portmap;

/// What stands in a plugin's configuration for it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    /// Whether clients are masqueraded whose answers would not come back otherwise.
    #[serde(default = "yes")]
    snat: bool,
    /// Whether all clients are.
    #[serde(default)]
    masq_all: bool,
    #[serde(default)]
    mark_masq_bit: Option<i64>,
    #[serde(default)]
    external_set_mark_chain: Option<String>,
    #[serde(default)]
    conditions_v4: Vec<String>,
    #[serde(default)]
    conditions_v6: Vec<String>,
    #[serde(default)]
    backend: Option<String>,
}

/// What a container's mappings are in the table.
struct Plan {
    entries: Vec<Entry>,
    maps: Vec<PortMap>,
    /// Where `route_localnet` has to be on.
    localnet: Option<String>,
}

impl Plugin for Portmap {
    fn kind(&self) -> &'static str {
        "portmap"
    }

    fn add(&self, call: &Call) -> Result<AddResult, CniError> {
        let result = prev_result(&call.config)?;
        apply(call, result)?;
        Ok(result.clone())
    }

    fn del(&self, call: &Call) -> Result<(), CniError> {
        let config = &call.config;
        let owner = owner(config, &call.container_id, &call.ifname)?;
        let entries = entries_to_remove(config);
        if entries.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let mut table = Nftables::open().map_err(failed(config))?;
        let maps = match entries {
            Some(entries) => {
                table.remove(&owner, &entries).map_err(failed(config))?;
                entries
                    .into_iter()
                    .filter_map(|entry| if let Entry::Port(map) = entry { Some(map) } else { None })
                    .collect()
            }
            None => table.remove_all(&owner, Part::Ports).map_err(failed(config))?.ports,
        };
        forget(config, &maps, Conntrack::forget_led)
    }

    fn check(&self, call: &Call) -> Result<(), CniError> {
        let config = &call.config;
        let Some(plan) = plan(config, prev_result(config)?)? else { return Ok(()) };
        let owner = owner(config, &call.container_id, &call.ifname)?;
        let lacks = |what: String| {
            CniError::new(code::CHECK_FAILED, format!("network {}: portmap: {what}", config.name))
        };
        let mut table = Nftables::open().map_err(failed(config))?;
        if !table.is_whole().map_err(failed(config))? {
            return Err(lacks(
                "nftables: table inet coracle is not there, or was changed by somebody else".to_owned(),
            ));
        }
        table.check(&owner, &plan.entries).map_err(|error| match error {
            Error::Missing { .. } => lacks(error.to_string()),
            error => failed(config)(error),
        })?;
        match plan.localnet {
            Some(interface) if !host_side::routes_localnet(&interface) => Err(lacks(format!(
                "route_localnet is off on {interface}: 127.0.0.1 does not lead to the container"
            ))),
            _ => Ok(()),
        }
    }

    fn gc(&self, call: &GcCall) -> Result<(), CniError> {
        let config = &call.config;
        let mut table = Nftables::open().map_err(failed(config))?;
        let removed = table.gc(&config.name, &call.valid, Part::Ports).map_err(failed(config))?;
        forget(config, &removed.ports, Conntrack::forget_led)
    }

    fn status(&self, call: &StatusCall) -> Result<(), CniError> {
        let config = &call.config;
        let not_available = |error: CniError| CniError { code: code::NOT_AVAILABLE, ..error };
        fields(config).map_err(not_available)?;
        let table = Nftables::open().and_then(|mut table| table.is_whole());
        table.map(drop).map_err(failed(config)).map_err(not_available)
    }

    fn repair(&self, call: &Call) -> Result<(), CniError> {
        let result = prev_result(&call.config)?;
        let mut table = Nftables::open().map_err(failed(&call.config))?;
        table.ensure().map_err(failed(&call.config))?;
        apply(call, result)
    }
}

/// Makes what a container's mappings are. What is there already stays.
fn apply(call: &Call, result: &AddResult) -> Result<(), CniError> {
    let config = &call.config;
    let Some(plan) = plan(config, result)? else { return Ok(()) };
    let owner = owner(config, &call.container_id, &call.ifname)?;
    let mut table = Nftables::open().map_err(failed(config))?;
    // The guard of the loopback is among it, before there is anything to guard.
    table.add(&owner, &plan.entries).map_err(failed(config))?;
    if let Some(interface) = &plan.localnet {
        host_side::turn_on_route_localnet(interface)
            .map_err(|error| CniError::new(code::IO, format!("network {}: portmap: {error}", config.name)))?;
    }
    forget(config, &plan.maps, Conntrack::forget_before)
}

/// What the mappings that are asked for are in the table; `None` if none are.
fn plan(config: &PluginConfig, result: &AddResult) -> Result<Option<Plan>, CniError> {
    let fields = fields(config)?;
    let mappings = mapping::read(config)?;
    if mappings.is_empty() {
        return Ok(None);
    }
    let pods = addresses(result);
    if let Some(none) =
        mappings.iter().find(|mapping| pods.iter().all(|pod| mapping.to(pod.addr()).is_none()))
    {
        let of = if pods.is_empty() { "" } else { " of its family" };
        return Err(invalid(config, &format!("{none}: the container has no address{of}")));
    }
    let mut plan = Plan { entries: Vec::new(), maps: Vec::new(), localnet: None };
    for pod in pods {
        let maps: Vec<PortMap> = mappings.iter().filter_map(|mapping| mapping.to(pod.addr())).collect();
        if maps.is_empty() {
            continue;
        }
        if fields.snat {
            plan.entries.extend(maps.iter().flat_map(|map| clients(pod, map, fields.masq_all)));
            // The loopback that can be led elsewhere is IPv4's alone.
            let by_loopback = |map: &PortMap| map.host.is_none_or(|host| host.is_loopback());
            if pod.addr().is_ipv4() && maps.iter().any(by_loopback) {
                plan.lead_loopback(config, pod)?;
            }
        }
        plan.maps.extend(maps);
    }
    plan.entries.extend(plan.maps.iter().cloned().map(Entry::Port));
    Ok(Some(plan))
}

/// What a DEL is to take back, if that can be told of what it was called with. What is not there does no harm.
fn entries_to_remove(config: &PluginConfig) -> Option<Vec<Entry>> {
    let result = config.prev_result.as_ref()?;
    let mappings = mapping::read(config).ok()?;
    let mut entries = Vec::new();
    for pod in addresses(result) {
        for map in mappings.iter().filter_map(|mapping| mapping.to(pod.addr())) {
            entries.extend(clients(pod, &map, true));
            entries.push(Entry::Port(map));
        }
    }
    if entries.is_empty() {
        return Some(entries);
    }
    // One of them leads to the container, if it is its own at all.
    let host_side = result.interfaces.iter().filter(|interface| interface.sandbox.is_empty());
    let guards: Vec<Entry> = host_side
        .map(|interface| Entry::GuardLoopback { interface: interface.name.clone(), of_pod: true })
        .collect();
    (!guards.is_empty()).then(|| entries.into_iter().chain(guards).collect())
}

/// Which clients of a port are masqueraded.
fn clients(pod: IpNet, map: &PortMap, all: bool) -> impl Iterator<Item = Entry> {
    let (protocol, host_port) = (map.protocol, map.host_port);
    let neighbours = Entry::Hairpin { pod, protocol, host_port };
    let all = all.then(|| Entry::MasqueradeClients { pod: pod.addr(), protocol, host_port });
    std::iter::once(neighbours).chain(all)
}

impl Plan {
    /// The host's loopback leads to the container, too.
    fn lead_loopback(&mut self, config: &PluginConfig, pod: IpNet) -> Result<(), CniError> {
        let found = host_side::find(pod.addr()).map_err(Error::from).map_err(failed(config))?;
        let Some(HostSide { interface, on_link, of_pod }) = found else {
            let what = format!("this host has no route to the container's address {}", pod.addr());
            let message = format!("network {}: portmap: {what}, so no port can lead there", config.name);
            return Err(CniError::new(code::KERNEL, message));
        };
        // What a router leads on is not for 127.0.0.1 to send.
        if on_link {
            self.entries.push(Entry::GuardLoopback { interface: interface.clone(), of_pod });
            self.localnet = Some(interface);
        }
        Ok(())
    }
}

/// The first address of each family that the container has.
fn addresses(result: &AddResult) -> Vec<IpNet> {
    let in_container = |index: Option<usize>| {
        let interface = index.and_then(|index| result.interfaces.get(index));
        interface.is_none_or(|interface| !interface.sandbox.is_empty())
    };
    let all: Vec<IpNet> =
        result.ips.iter().filter(|ip| in_container(ip.interface)).map(|ip| ip.address).collect();
    let first = |v4: bool| all.iter().copied().find(|address| address.addr().is_ipv4() == v4);
    first(true).into_iter().chain(first(false)).collect()
}

fn fields(config: &PluginConfig) -> Result<Fields, CniError> {
    let fields: Fields = config.parse()?;
    let refused = |field: &str, why: &str| {
        let message = format!("network {}: portmap: {field} is not supported: {why}", config.name);
        Err(CniError::new(code::UNSUPPORTED_FIELD, message))
    };
    let maps = "ports are mapped by maps of one nftables table";
    if fields.backend.as_deref().is_some_and(|backend| backend != "nftables") {
        return refused("backend", &format!("{maps}: leave it out, or set it to nftables"));
    }
    if fields.external_set_mark_chain.is_some() {
        return refused("externalSetMarkChain", &format!("{maps}, which run through no chain of iptables"));
    }
    for (name, conditions) in
        [("conditionsV4", &fields.conditions_v4), ("conditionsV6", &fields.conditions_v6)]
    {
        if !conditions.is_empty() {
            return refused(name, &format!("{maps}, which have no conditions of their own"));
        }
    }
    match fields.mark_masq_bit {
        Some(bit) if !(0..=31).contains(&bit) => Err(invalid(
            config,
            &format!("markMasqBit: {bit} is no bit of a mark: it must be between 0 and 31"),
        )),
        _ => Ok(fields),
    }
}

fn prev_result(config: &PluginConfig) -> Result<&AddResult, CniError> {
    config.prev_result.as_ref().ok_or_else(|| {
        invalid(
            config,
            "there is no prevResult: in the list of plugins it belongs behind one that gives addresses",
        )
    })
}

fn owner(config: &PluginConfig, container_id: &str, ifname: &str) -> Result<Owner, CniError> {
    Owner::new(&config.name, container_id, ifname).map_err(failed(config))
}

/// Has flows of UDP go another way than so far.
fn forget(
    config: &PluginConfig,
    maps: &[PortMap],
    forget: impl Fn(&mut Conntrack, &[PortMap]) -> Result<usize, Error>,
) -> Result<(), CniError> {
    if maps.iter().all(|map| map.protocol != Protocol::Udp) {
        return Ok(());
    }
    Conntrack::open().and_then(|mut conntrack| forget(&mut conntrack, maps)).map(drop).map_err(failed(config))
}

fn invalid(config: &PluginConfig, what: &str) -> CniError {
    CniError::new(code::INVALID_CONFIG, format!("network {}: portmap: {what}", config.name))
}

fn failed(config: &PluginConfig) -> impl Fn(Error) -> CniError {
    let network = config.name.clone();
    move |error| {
        let code = match &error {
            Error::Taken { .. } | Error::Busy { .. } => code::TRY_AGAIN,
            Error::NameTooLong { .. } => code::INVALID_ENVIRONMENT,
            _ => code::KERNEL,
        };
        CniError::new(code, format!("network {network}: portmap: {error}"))
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
