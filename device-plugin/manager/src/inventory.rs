//! What devices there are.

use std::collections::BTreeMap;
use std::str::Utf8Error;

use coracle_device_api::deviceplugin::HEALTHY;
use coracle_device_api::wire::{Fields, Malformed, Value};

use crate::numa::NumaNodes;

/// How many devices a plugin may name.
const MOST_DEVICES: usize = 16 * 1024;
/// How long the name of one may be. The API says 63 octets; plugins of partitions and replicas say more.
const LONGEST_ID: usize = 253;

/// Devices of a resource by identifier.
pub(crate) type Devices = BTreeMap<String, Device>;

/// A device, as its plugin says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) healthy: bool,
    /// Which nodes it is near to; none where nothing was said.
    pub(crate) numa: NumaNodes,
}

/// What a node has of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// All devices a plugin named.
    pub capacity: u64,
    /// Those that are healthy.
    pub allocatable: u64,
}

/// How long a list is kept to compare the next one with, in octets.
const KEPT: usize = 256 * 1024;

/// The lists of one plugin. One that is as the one before costs no more than that to find out.
#[derive(Default)]
pub(crate) struct Lists {
    last: Option<Vec<u8>>,
}

impl Lists {
    /// What [`read`] says; none, if this is the list that was read last.
    pub(crate) fn read(&mut self, list: &[u8]) -> Result<Option<(Devices, Option<String>)>, String> {
        if self.last.as_deref() == Some(list) {
            return Ok(None);
        }
        let said = read(list)?;
        if list.len() <= KEPT {
            let last = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(list);
        } else {
            self.last = None;
        }
        Ok(Some(said))
    }
}

/// The devices a plugin names (an encoded `ListAndWatchResponse`), and what is wrong with some of them.
///
/// # Errors
/// It is no such message, or there are more than may be: none of them counts.
pub(crate) fn read(list: &[u8]) -> Result<(Devices, Option<String>), String> {
    let (mut devices, mut named) = (Devices::new(), 0);
    let mut problem = None;
    for device in messages(list, 1) {
        let (id, new) = device.and_then(read_device).map_err(|wrong| wrong.to_string())?;
        named += 1;
        if named > MOST_DEVICES {
            return Err(format!("it names more than {MOST_DEVICES} devices"));
        }
        if id.is_empty() || id.len() > LONGEST_ID || id.chars().any(char::is_control) {
            problem = Some(format!("{id:?} is no name of a device"));
            continue;
        }
        match devices.get_mut(id) {
            // If one of the two is wrong, then that it works.
            Some(old) => {
                problem = Some("it names a device twice".to_owned());
                old.healthy &= new.healthy;
            }
            None => {
                devices.insert(id.to_owned(), new);
            }
        }
    }
    Ok((devices, problem))
}

/// What is wrong with a list, whatever it names.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("its list of devices cannot be read: {0}")]
    Message(#[from] Malformed),
    #[error("its list of devices cannot be read: field {0} is of another type")]
    Type(u32),
    #[error("its list of devices cannot be read: a text is not UTF-8")]
    Text(#[from] Utf8Error),
}

/// An encoded `Device`: its identifier, and the rest.
fn read_device(device: &[u8]) -> Result<(&str, Device), Wrong> {
    let (mut id, mut healthy, mut numa) = ("", false, NumaNodes::NONE);
    for field in Fields::of(device) {
        match field? {
            (1, Value::Bytes(text)) => id = str::from_utf8(text)?,
            // Whatever is not said to be healthy is not.
            (2, Value::Bytes(text)) => healthy = str::from_utf8(text)? == HEALTHY,
            (3, Value::Bytes(topology)) => {
                for node in messages(topology, 1) {
                    numa = numa.with(read_node(node?)?);
                }
            }
            (number @ 1..=3, _) => return Err(Wrong::Type(number)),
            _ => {}
        }
    }
    Ok((id, Device { healthy, numa }))
}

/// An encoded `NUMANode`.
fn read_node(node: &[u8]) -> Result<i64, Wrong> {
    let mut id = 0;
    for field in Fields::of(node) {
        match field? {
            (1, Value::Varint(number)) => id = number.cast_signed(),
            (1, _) => return Err(Wrong::Type(1)),
            _ => {}
        }
    }
    Ok(id)
}

/// The messages that an encoded message has in one of its fields.
fn messages(message: &[u8], field: u32) -> impl Iterator<Item = Result<&[u8], Wrong>> {
    Fields::of(message).filter_map(move |found| match found {
        Ok((number, Value::Bytes(message))) if number == field => Some(Ok(message)),
        Ok((number, _)) if number == field => Some(Err(Wrong::Type(number))),
        Ok(_) => None,
        Err(malformed) => Some(Err(malformed.into())),
    })
}

pub(crate) fn amount(devices: &Devices) -> Amount {
    let healthy = devices.values().filter(|device| device.healthy).count();
    Amount { capacity: devices.len() as u64, allocatable: healthy as u64 }
}

#[cfg(test)]
mod tests;
