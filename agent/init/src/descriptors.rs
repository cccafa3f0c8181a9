//! The descriptors that came with Setup.

use std::os::fd::OwnedFd;

use coracle_init::protocol::Descriptor;

use crate::failure::{Result, Step};

#[derive(Debug)]
pub(crate) struct Descriptors(Vec<Option<OwnedFd>>);

impl Descriptors {
    pub(crate) fn new(received: Vec<OwnedFd>) -> Self {
        Self(received.into_iter().map(Some).collect())
    }

    /// Each has one use.
    pub(crate) fn take(&mut self, name: Descriptor) -> Result<OwnedFd> {
        let slot = self.0.get_mut(name.index()).and_then(Option::take);
        slot.ok_or_else(|| {
            Step::Control
                .refuse(None, format_args!("descriptor {} was not passed, or is used twice", name.index()))
        })
    }
}
