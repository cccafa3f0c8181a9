//! What DEL and GC of plugins that connect a pod to the host take back.

use coracle_cni::{Call, CniError, GcCall, PluginConfig};
use serde_json::Value;

use super::failure::first;
use super::ipam::Ipam;
use super::{masquerade, veth};

/// What they want to know of a configuration. Nothing of it can be wrong: what was made by it, or was not because it is
/// wrong, is taken back all the same.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    /// `ipam`.
    ipam: Ipam,
    /// `ipMasq`.
    masquerade: bool,
}

// === impl Owed ===

impl Owed {
    pub(crate) fn read(config: &PluginConfig) -> Self {
        let kind = config.fields.get("ipam").and_then(|ipam| ipam.get("type")).and_then(Value::as_str);
        Self {
            ipam: Ipam { kind: kind.unwrap_or_default().to_owned() },
            masquerade: config.fields.get("ipMasq").is_some_and(|value| value != false),
        }
    }

    /// Takes back what an ADD has made. Goes on after a failure, and tells the first. Addresses are given back last, so
    /// that nobody has them before.
    ///
    /// # Errors
    /// What is still there.
    pub(crate) fn take_back(&self, call: &Call) -> Result<(), CniError> {
        let masqueraded = if self.masquerade { masquerade::del(call) } else { Ok(()) };
        // Its removal waits for a grace period of the kernel, under a lock that everybody needs. Until it is gone, routes of
        // the host to it give way to those of whoever gets the addresses.
        let pair = if call.namespace_ends { Ok(()) } else { veth::remove(call) };
        first([masqueraded, pair, self.ipam.del(call)])
    }

    /// Takes back what belongs to none of the attachments given.
    ///
    /// # Errors
    /// What is still there.
    pub(crate) fn collect(&self, call: &GcCall) -> Result<(), CniError> {
        let masqueraded = if self.masquerade { masquerade::gc(call) } else { Ok(()) };
        first([veth::collect(call), masqueraded, self.ipam.gc(call)])
    }
}
