//! The plugins that are part of a program, and all others by execution.

use std::path::PathBuf;

use coracle_program::excerpt;

use crate::exec::{execute_call, execute_gc, execute_status, find};
use crate::{AddResult, Call, CniError, GcCall, Plugin, StatusCall, Version, code};

/// Plugins whose code is here. Each verb is run in the process where the type is one of them; of any other type the
/// program of that name is executed, from the call's `path`.
///
/// A plugin delegates this way, as the specification's section 4 says: it hands on the very `call` it was called with
/// (standard input is the whole configuration, in which `type` still names the caller) and the type from its own
/// configuration.
///
/// ```
/// # use coracle_cni::{AddResult, Call, CniError, Plugins};
/// static PLUGINS: Plugins = Plugins(&[]);
///
/// fn address(call: &Call, ipam_type: &str) -> Result<AddResult, CniError> {
///     PLUGINS.add(ipam_type, call)
/// }
/// ```
///
/// What the delegate answers is handed back as it is: merging it is the caller's.
pub struct Plugins(pub &'static [&'static dyn Plugin]);

// === impl Plugins ===

impl Plugins {
    /// The plugin of this type, if it is one of these.
    pub fn get(&self, kind: &str) -> Option<&'static dyn Plugin> {
        self.0.iter().copied().find(|plugin| plugin.kind() == kind)
    }

    /// Whether a plugin of this type could be called: it is one of these, or its program is in one of the
    /// directories.
    ///
    /// # Errors
    /// [`code::PLUGIN_FAILED`], with where the program was looked for, or [`code::INVALID_CONFIG`] where the type is
    /// the name of none.
    pub fn ensure_installed(&self, kind: &str, path: &[PathBuf]) -> Result<(), CniError> {
        match self.get(kind) {
            Some(_) => Ok(()),
            None => find(kind, path).map(drop),
        }
    }

    /// ADD.
    ///
    /// # Errors
    /// The plugin's, or that its program could not be executed.
    pub fn add(&self, kind: &str, call: &Call) -> Result<AddResult, CniError> {
        match self.get(kind) {
            Some(plugin) => plugin.add(call),
            None => {
                let stdout = execute_call(kind, "ADD", call)?;
                result_of(kind, &stdout, call.config.cni_version)
            }
        }
    }

    /// DEL.
    ///
    /// # Errors
    /// The plugin's, or that its program could not be executed.
    pub fn del(&self, kind: &str, call: &Call) -> Result<(), CniError> {
        match self.get(kind) {
            Some(plugin) => plugin.del(call),
            None => execute_call(kind, "DEL", call).map(drop),
        }
    }

    /// CHECK.
    ///
    /// # Errors
    /// The plugin's, or that its program could not be executed.
    pub fn check(&self, kind: &str, call: &Call) -> Result<(), CniError> {
        match self.get(kind) {
            Some(plugin) => plugin.check(call),
            None => execute_call(kind, "CHECK", call).map(drop),
        }
    }

    /// GC.
    ///
    /// # Errors
    /// The plugin's, or that its program could not be executed.
    pub fn gc(&self, kind: &str, call: &GcCall) -> Result<(), CniError> {
        match self.get(kind) {
            Some(plugin) => plugin.gc(call),
            None => execute_gc(kind, call).map(drop),
        }
    }

    /// STATUS.
    ///
    /// # Errors
    /// The plugin's, or that its program could not be executed.
    pub fn status(&self, kind: &str, call: &StatusCall) -> Result<(), CniError> {
        match self.get(kind) {
            Some(plugin) => plugin.status(call),
            None => execute_status(kind, call).map(drop),
        }
    }
}

/// What a program has answered to an ADD.
fn result_of(kind: &str, stdout: &[u8], asked: Version) -> Result<AddResult, CniError> {
    let json = serde_json::from_slice(stdout).map_err(|error| CniError {
        code: code::DECODING,
        msg: format!("plugin {kind}: ADD succeeded, but its result is not JSON: {error}"),
        details: excerpt(stdout),
    })?;
    AddResult::from_json(&json, asked)
        .map_err(|error| CniError { msg: format!("plugin {kind}: {}", error.msg), ..error })
}
