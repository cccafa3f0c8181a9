//! What a plugin is.

use crate::{AddResult, Call, CniError, GcCall, StatusCall};

/// A CNI plugin. Each method is a verb of the specification's section 2; all of them can be called again.
pub trait Plugin: Sync {
    /// `type` in configurations.
    fn kind(&self) -> &'static str;

    /// Makes the attachment, or the plugin's part of it. The result includes `prevResult`.
    ///
    /// # Errors
    /// What went wrong. The caller calls DEL; what can be taken back at once was.
    fn add(&self, call: &Call) -> Result<AddResult, CniError>;

    /// Takes the attachment back. What is not there is taken back.
    ///
    /// # Errors
    /// What is still there: it is to be called again.
    fn del(&self, call: &Call) -> Result<(), CniError>;

    /// Whether the attachment is as ADD has left it, which `prevResult` tells.
    ///
    /// # Errors
    /// What is not.
    fn check(&self, call: &Call) -> Result<(), CniError>;

    /// Takes back everything of this network that belongs to none of the attachments given.
    ///
    /// # Errors
    /// What is still there.
    fn gc(&self, call: &GcCall) -> Result<(), CniError>;

    /// Whether ADD can succeed now.
    ///
    /// # Errors
    /// [`crate::code::NOT_AVAILABLE`] or [`crate::code::LIMITED_CONNECTIVITY`], and why.
    fn status(&self, call: &StatusCall) -> Result<(), CniError>;

    /// Makes again what belongs to the attachment in rule sets that somebody has flushed. No verb of the
    /// specification.
    ///
    /// # Errors
    /// What could not be made.
    fn repair(&self, call: &Call) -> Result<(), CniError> {
        let _ = call;
        Ok(())
    }
}
