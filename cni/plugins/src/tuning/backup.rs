//! What an interface was like before: a file of the reference plugin's name and form.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use coracle_cni::{Call, CniError, GcCall, code};
use coracle_linux::{PowerLoss, remove_if_there, replace_file};
use coracle_netlink::{Link, LinkChange};
use serde::{Deserialize, Serialize};

use crate::interface::failure::{failure, file, first};

/// What of an interface is to be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backup {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    mac: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promisc: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allmulti: Option<bool>,
    #[serde(default, rename = "txQLen", skip_serializing_if = "Option::is_none")]
    transmit_queue_length: Option<u32>,
    /// Whose it is, for GC: the file's name does not tell. Ours alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    network: String,
}

// === impl Backup ===

impl Backup {
    /// Of what is about to be changed.
    pub(super) fn of(call: &Call, link: &Link, change: &LinkChange<'_>) -> Self {
        Self {
            mac: change.mac.and(link.mac).map(|mac| mac.to_string()).unwrap_or_default(),
            promisc: change.promiscuous.map(|_| link.promiscuous),
            mtu: change.mtu.map(|_| link.mtu),
            allmulti: change.all_multicast.map(|_| link.all_multicast),
            transmit_queue_length: change.transmit_queue_length.map(|_| link.transmit_queue_length),
            network: call.config.name.clone(),
        }
    }

    pub(super) fn change(&self) -> LinkChange<'static> {
        LinkChange {
            mac: self.mac.parse().ok(),
            promiscuous: self.promisc,
            mtu: self.mtu,
            all_multicast: self.allmulti,
            transmit_queue_length: self.transmit_queue_length,
            ..LinkChange::default()
        }
    }

    /// Writes it, unless an ADD before this one has: what that has changed was not there before.
    ///
    /// # Errors
    /// [`code::IO`].
    pub(super) fn keep(&self, call: &Call, data_dir: &Path) -> Result<(), CniError> {
        if Self::read(call, data_dir)?.is_some() {
            return Ok(());
        }
        let path = path(call, data_dir);
        let text = serde_json::to_vec(self).map_err(|error| failure(&call.config, code::IO, error))?;
        let written = fs::create_dir_all(data_dir)
            .and_then(|()| Ok(replace_file(&path, 0o644, PowerLoss::MayTear, &text)?));
        written.map_err(|error| file(&call.config, "write", path.display(), &error))
    }

    /// `None` without one. One that is torn tells nothing: it was about to be written, and nothing was changed yet.
    ///
    /// # Errors
    /// [`code::IO`].
    pub(super) fn read(call: &Call, data_dir: &Path) -> Result<Option<Self>, CniError> {
        let path = path(call, data_dir);
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file(&call.config, "read", path.display(), &error)),
        }
    }

    /// # Errors
    /// [`code::IO`].
    pub(super) fn forget(call: &Call, data_dir: &Path) -> Result<(), CniError> {
        let path = path(call, data_dir);
        remove_if_there(&path).map(drop).map_err(|error| file(&call.config, "remove", path.display(), &error))
    }
}

fn path(call: &Call, data_dir: &Path) -> PathBuf {
    data_dir.join(name(&call.container_id, &call.ifname))
}

fn name(container_id: &str, ifname: &str) -> String {
    format!("{container_id}_{ifname}.json")
}

/// Removes backups of the network's that belong to none of the attachments given.
///
/// # Errors
/// [`code::IO`].
pub(super) fn collect(call: &GcCall, data_dir: &Path) -> Result<(), CniError> {
    let failed = |error: io::Error| file(&call.config, "clear", data_dir.display(), &error);
    let entries = match fs::read_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    let valid: Vec<String> = call.valid.iter().map(|(id, ifname)| name(id, ifname)).collect();
    first(entries.map(|entry| {
        let entry = entry.map_err(failed)?;
        let text = fs::read(entry.path()).unwrap_or_default();
        let is_ours =
            serde_json::from_slice(&text).is_ok_and(|backup: Backup| backup.network == call.config.name);
        let is_valid = valid.iter().any(|name| entry.file_name() == name.as_str());
        if is_ours && !is_valid { remove_if_there(&entry.path()).map(drop).map_err(failed) } else { Ok(()) }
    }))
}
