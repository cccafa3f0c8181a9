//! tuning: sysctls of a pod's network namespace, and attributes of its interface.
//!
//! Configuration, results and backups are those of the reference plugin of this name. What an interface was like before is
//! kept in `dataDir` and put back by DEL; sysctls are not.

mod backup;
mod sysctl;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use coracle_cni::{AddResult, Call, CniError, GcCall, Plugin, PluginConfig, StatusCall, code};
use coracle_netlink::{Batch, Link, LinkChange, LinkId, MacAddress};
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::Value;

use self::backup::Backup;
use crate::interface::check::{link, place_of_pod, previous};
use crate::interface::failure::{damaged, failure, invalid, kernel};
use crate::interface::pod::{self, parse_mac};

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Tuning;

/// Where backups are, unless the configuration names another place.
const DATA_DIR: &str = "/run/cni/tuning";
/// With it the reference plugin lets administrators restrict sysctls, by regular expressions.
const ALLOWLIST: &str = "/etc/cni/tuning/allowlist.conf";

/// What stands in a configuration, and again in its `args.cni`: the reference plugin's fields.
#[derive(Debug, Default, Deserialize)]
struct Settings {
    sysctl: Option<BTreeMap<String, String>>,
    mac: Option<String>,
    promisc: Option<bool>,
    mtu: Option<u32>,
    allmulti: Option<bool>,
    #[serde(rename = "txQLen")]
    transmit_queue_length: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Fields {
    #[serde(flatten)]
    settings: Settings,
    #[serde(rename = "dataDir")]
    data_dir: Option<PathBuf>,
    #[serde(default)]
    args: Args,
}

#[derive(Debug, Default, Deserialize)]
struct Args {
    #[serde(default)]
    cni: Settings,
}

/// A configuration that makes sense.
#[derive(Debug)]
struct Config {
    /// Values by paths below `/proc/sys`.
    sysctls: Vec<(PathBuf, String)>,
    change: LinkChange<'static>,
    data_dir: PathBuf,
}

impl Plugin for Tuning {
    fn kind(&self) -> &'static str {
        "tuning"
    }

    fn add(&self, call: &Call) -> Result<AddResult, CniError> {
        let mut result = previous(&call.config)?.clone();
        let config = Config::read(call)?;
        let namespace = pod::namespace(call)?;
        sysctl::write(&call.config, namespace.as_fd(), &config.sysctls)?;
        if config.change == LinkChange::default() {
            return Ok(result);
        }
        let mut socket = pod::socket(&call.config, namespace.as_fd())?;
        let before = pod::link(&call.config, &mut socket, &call.ifname)?;
        Backup::of(call, &before, &config.change).keep(call, &config.data_dir)?;
        let mut batch = Batch::new();
        batch.change_link(LinkId::Index(before.index), &config.change);
        batch.get_link(LinkId::Index(before.index));
        let messages = socket.execute(batch).map_err(kernel(&call.config))?;
        let after = pod::link_told(&call.config, &messages)?;
        if let Some(interface) =
            place_of_pod(call, &result).and_then(|place| result.interfaces.get_mut(place))
        {
            interface.mac = after.mac.map(|mac| mac.to_string()).unwrap_or_default();
            interface.mtu = interface.mtu.map(|_| after.mtu);
        }
        Ok(result)
    }

    fn del(&self, call: &Call) -> Result<(), CniError> {
        let data_dir = place(&call.config);
        let Some(backup) = Backup::read(call, &data_dir)? else { return Ok(()) };
        // What ends has no use for it, and what is gone even less.
        let namespace = call.netns.as_ref().filter(|_| !call.namespace_ends);
        if let Some(namespace) = namespace.and_then(|namespace| namespace.open().ok()) {
            let mut socket = pod::socket(&call.config, namespace.as_fd())?;
            let mut batch = Batch::new();
            let changed = batch.change_link(LinkId::Name(&call.ifname), &backup.change());
            let outcome = socket.attempt(batch).map_err(kernel(&call.config))?;
            outcome.tolerate(changed, Errno::NODEV).into_result().map_err(kernel(&call.config))?;
        }
        Backup::forget(call, &data_dir)
    }

    fn check(&self, call: &Call) -> Result<(), CniError> {
        previous(&call.config)?;
        let config = Config::read(call)?;
        let namespace = pod::namespace(call)?;
        sysctl::check(&call.config, namespace.as_fd(), &config.sysctls)?;
        let mut socket = pod::socket(&call.config, namespace.as_fd())?;
        let link = link(&call.config, &mut socket, &call.ifname)?;
        match difference(&config.change, &link) {
            Some(what) => Err(damaged(&call.config, format_args!("interface {} {what}", link.name))),
            None => Ok(()),
        }
    }

    fn gc(&self, call: &GcCall) -> Result<(), CniError> {
        backup::collect(call, &place(&call.config))
    }

    fn status(&self, call: &StatusCall) -> Result<(), CniError> {
        call.config.parse::<Fields>().map(drop)
    }
}

// === impl Config ===

impl Config {
    /// # Errors
    /// [`code::INVALID_CONFIG`], naming the field.
    fn read(call: &Call) -> Result<Self, CniError> {
        let Fields { settings, data_dir: directory, args: Args { cni: asked } } = call.config.parse()?;
        let by_capability: Option<String> = call.config.capability("mac")?;
        let by_arg = call.arg("MAC").map(str::to_owned);
        let mac = [asked.mac, by_capability, by_arg, settings.mac];
        let mac = mac.into_iter().flatten().find(|mac| !mac.is_empty());
        let mac: Option<MacAddress> = mac.map(|mac| parse_mac(&call.config, &mac)).transpose()?;
        let sysctls = asked.sysctl.or(settings.sysctl).unwrap_or_default();
        if !sysctls.is_empty() && Path::new(ALLOWLIST).exists() {
            let what = format!("{ALLOWLIST} restricts sysctls, which is not supported: remove it, or sysctl");
            return Err(failure(&call.config, code::UNSUPPORTED_FIELD, what));
        }
        let path = |name: String| {
            let what = "is not the name of a sysctl of a network namespace: those begin with net.";
            let path = sysctl::path(&name, &call.ifname);
            path.ok_or_else(|| invalid(&call.config, format_args!("sysctl: {name:?} {what}")))
        };
        let sysctls = sysctls.into_iter().map(|(name, value)| Ok((path(name)?, value)));
        Ok(Self {
            sysctls: sysctls.collect::<Result<_, CniError>>()?,
            change: LinkChange {
                mac,
                // Off is what an interface is if nobody says otherwise, and what the reference plugin leaves alone.
                promiscuous: asked.promisc.or(settings.promisc).filter(|promiscuous| *promiscuous),
                mtu: asked.mtu.or(settings.mtu).filter(|mtu| *mtu != 0),
                all_multicast: asked.allmulti.or(settings.allmulti),
                transmit_queue_length: asked.transmit_queue_length.or(settings.transmit_queue_length),
                ..LinkChange::default()
            },
            data_dir: data_dir(directory),
        })
    }
}

/// Of a configuration in which nothing else need be right: of what was made by it, or was not because it is wrong.
fn place(config: &PluginConfig) -> PathBuf {
    data_dir(config.fields.get("dataDir").and_then(Value::as_str).map(PathBuf::from))
}

fn data_dir(configured: Option<PathBuf>) -> PathBuf {
    configured.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from(DATA_DIR))
}

/// What of a link is not as it was made.
fn difference(wanted: &LinkChange<'_>, link: &Link) -> Option<String> {
    let differs = |wanted: Option<u32>, is: u32| wanted.filter(|wanted| *wanted != is);
    if let Some(mac) = wanted.mac.filter(|mac| Some(*mac) != link.mac) {
        let is = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
        Some(format!("has the hardware address {is} instead of {mac}"))
    } else if let Some(mtu) = differs(wanted.mtu, link.mtu) {
        Some(format!("has the MTU {} instead of {mtu}", link.mtu))
    } else if let Some(length) = differs(wanted.transmit_queue_length, link.transmit_queue_length) {
        Some(format!("has a transmit queue of {} packets instead of {length}", link.transmit_queue_length))
    } else if wanted.promiscuous.is_some_and(|wanted| wanted != link.promiscuous) {
        Some("is not promiscuous".to_owned())
    } else if wanted.all_multicast.is_some_and(|wanted| wanted != link.all_multicast) {
        let takes = if link.all_multicast { "takes" } else { "does not take" };
        Some(format!("{takes} all multicast"))
    } else {
        None
    }
}
