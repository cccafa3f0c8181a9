//! Delegation to the plugin that gives addresses.

use coracle_cni::{AddResult, Call, CniError, GcCall, StatusCall, code};
use serde::Deserialize;

use super::failure::failure;
use crate::PLUGINS;

/// `ipam` of a configuration. What else stands in it is the plugin's.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Ipam {
    /// The plugin; none for a network without addresses.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
}

// === impl Ipam ===

impl Ipam {
    /// Whether pods get no addresses.
    pub(crate) fn is_none(&self) -> bool {
        self.kind.is_empty()
    }

    /// Whether the plugin may look at the interface it gives addresses for, as one that asks a server on its link does.
    pub(crate) fn wants_interface(&self) -> bool {
        !self.is_none() && PLUGINS.get(&self.kind).is_none()
    }

    /// # Errors
    /// The plugin's, and when it has given none.
    pub(crate) fn add(&self, call: &Call) -> Result<AddResult, CniError> {
        let result = PLUGINS.add(&self.kind, call)?;
        if result.ips.is_empty() {
            let what = format!("the plugin {} has given no address", self.kind);
            // It may hold something all the same.
            let _ = self.del(call);
            return Err(failure(&call.config, code::NO_ADDRESSES, what));
        }
        Ok(result)
    }

    pub(crate) fn del(&self, call: &Call) -> Result<(), CniError> {
        if self.is_none() { Ok(()) } else { PLUGINS.del(&self.kind, call) }
    }

    pub(crate) fn check(&self, call: &Call) -> Result<(), CniError> {
        if self.is_none() { Ok(()) } else { PLUGINS.check(&self.kind, call) }
    }

    pub(crate) fn gc(&self, call: &GcCall) -> Result<(), CniError> {
        if self.is_none() { Ok(()) } else { PLUGINS.gc(&self.kind, call) }
    }

    pub(crate) fn status(&self, call: &StatusCall) -> Result<(), CniError> {
        if self.is_none() { Ok(()) } else { PLUGINS.status(&self.kind, call) }
    }
}
