//! The plugins of a list, one after another: the specification's section 3.

use std::path::PathBuf;
use std::time::Instant;

use coracle_cni::{
    AddResult, Call, CniError, ConfigList, GcCall, ListedPlugin, NetworkNamespace, Plugins, StatusCall,
};
use serde_json::{Map, Value};

use super::attachment::{Attachment, AttachmentId, IFNAME};
use crate::NetworkError;

/// What every verb needs.
pub(super) struct Chain<'a> {
    pub(super) plugins: &'a Plugins,
    pub(super) list: &'a ConfigList,
    pub(super) path: &'a [PathBuf],
    pub(super) deadline: Instant,
}

/// What the verbs need that are about one attachment.
pub(super) struct Subject<'a> {
    pub(super) id: &'a AttachmentId,
    pub(super) attachment: &'a Attachment,
    pub(super) netns: Option<NetworkNamespace>,
    /// As [`Call::namespace_ends`].
    pub(super) namespace_ends: bool,
}

// === impl Chain ===

impl Chain<'_> {
    /// Whether there are the programs that an ADD, and so the DEL that is owed for it, would need.
    pub(super) fn ensure_installed(&self, subject: &Subject<'_>) -> Result<(), NetworkError> {
        for plugin in &self.list.plugins {
            // Of where another's plugin has its addresses from nothing is known: it may need no program for it.
            let ipam = plugin.ipam_kind().filter(|_| self.plugins.get(&plugin.kind).is_some());
            for kind in std::iter::once(plugin.kind.as_str()).chain(ipam) {
                let installed = self.plugins.ensure_installed(kind, self.path);
                installed.map_err(|error| self.failed("ADD", plugin, subject, error))?;
            }
        }
        Ok(())
    }

    /// ADD of all, each with the result of the one before, as long as somebody wants it.
    pub(super) fn add(
        &self,
        subject: &Subject<'_>,
        is_unwanted: &dyn Fn() -> bool,
    ) -> Result<AddResult, NetworkError> {
        let mut result = None;
        for plugin in &self.list.plugins {
            if is_unwanted() {
                return Err(NetworkError::Unwanted { id: subject.id.to_string() });
            }
            let call = self.call(subject, plugin, result);
            let added = self.plugins.add(&plugin.kind, &call);
            result = Some(added.map_err(|error| self.failed("ADD", plugin, subject, error))?);
        }
        // A list has at least one plugin.
        Ok(result.unwrap_or_default())
    }

    /// DEL of all, the last one first. It ends with the first that fails, as the specification has it: what an earlier
    /// plugin has made (an address) must not be given to somebody else while a later one's (a port map to it) is there.
    pub(super) fn del(&self, subject: &Subject<'_>) -> Result<(), NetworkError> {
        for plugin in self.list.plugins.iter().rev() {
            let call = self.call(subject, plugin, subject.attachment.result.clone());
            let deleted = self.plugins.del(&plugin.kind, &call);
            deleted.map_err(|error| self.failed("DEL", plugin, subject, error))?;
        }
        Ok(())
    }

    /// CHECK of all.
    pub(super) fn check(&self, subject: &Subject<'_>) -> Result<(), NetworkError> {
        for plugin in &self.list.plugins {
            let call = self.call(subject, plugin, subject.attachment.result.clone());
            let checked = self.plugins.check(&plugin.kind, &call);
            checked.map_err(|error| self.failed("CHECK", plugin, subject, error))?;
        }
        Ok(())
    }

    /// Has those that are ours make again what was flushed.
    pub(super) fn repair(&self, subject: &Subject<'_>) -> Result<(), NetworkError> {
        for plugin in &self.list.plugins {
            let Some(ours) = self.plugins.get(&plugin.kind) else { continue };
            let call = self.call(subject, plugin, subject.attachment.result.clone());
            ours.repair(&call).map_err(|error| self.failed("repair", plugin, subject, error))?;
        }
        Ok(())
    }

    /// GC of all. It goes on after one that fails.
    pub(super) fn gc(&self, valid: &[(String, String)]) -> Vec<NetworkError> {
        let gc = |plugin: &ListedPlugin| {
            let call = GcCall {
                valid: valid.to_vec(),
                path: self.path.to_vec(),
                config: self.list.config_of(plugin, None, &Map::new()),
                deadline: Some(self.deadline),
            };
            self.plugins
                .gc(&plugin.kind, &call)
                .err()
                .map(|error| self.failed_of_network("GC", plugin, error))
        };
        self.list.plugins.iter().filter_map(gc).collect()
    }

    /// STATUS of all.
    pub(super) fn status(&self) -> Result<(), NetworkError> {
        for plugin in &self.list.plugins {
            let call = StatusCall {
                path: self.path.to_vec(),
                config: self.list.config_of(plugin, None, &Map::new()),
                deadline: Some(self.deadline),
            };
            let status = self.plugins.status(&plugin.kind, &call);
            status.map_err(|error| self.failed_of_network("STATUS", plugin, error))?;
        }
        Ok(())
    }

    fn call(&self, subject: &Subject<'_>, plugin: &ListedPlugin, prev_result: Option<AddResult>) -> Call {
        let Attachment { args, capabilities, .. } = subject.attachment;
        Call {
            container_id: subject.id.to_string(),
            netns: subject.netns.clone(),
            ifname: IFNAME.to_owned(),
            args: args.clone(),
            path: self.path.to_vec(),
            config: self.list.config_of(plugin, prev_result, capabilities),
            namespace_ends: subject.namespace_ends,
            deadline: Some(self.deadline),
        }
    }

    fn failed(
        &self,
        verb: &'static str,
        plugin: &ListedPlugin,
        subject: &Subject<'_>,
        source: CniError,
    ) -> NetworkError {
        let pod = match subject.attachment.pod.as_str() {
            "" => subject.id.to_string(),
            pod => pod.to_owned(),
        };
        let (network, kind) = (self.list.name.clone(), plugin.kind.clone());
        NetworkError::Plugin { verb, kind, network, pod: Some(pod), source: source.into() }
    }

    fn failed_of_network(&self, verb: &'static str, plugin: &ListedPlugin, source: CniError) -> NetworkError {
        let (network, kind) = (self.list.name.clone(), plugin.kind.clone());
        NetworkError::Plugin { verb, kind, network, pod: None, source: source.into() }
    }
}

/// All capabilities that have something to say.
pub(super) fn capabilities(
    given: impl IntoIterator<Item = (&'static str, Option<Value>)>,
) -> Map<String, Value> {
    given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
