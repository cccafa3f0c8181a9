//! A page shared with children, where one that fails before its program runs leaves what failed.
//!
//! Waiting for a child to get as far as `execve` (with a pipe or `CLONE_VFORK`) would let a container with
//! a tight CPU limit, or a frozen one, stop pause. So pause does not wait: the child leaves its error in
//! memory it loses by `execve`, and pause looks there when it reaps it.

use core::sync::atomic::{AtomicU32, Ordering};

use coracle_pause_wire::{CAPACITY, Step};

use crate::sys::{self, Errno};

/// One word for each child that can be known, and one for pause's own helper.
pub(crate) struct SharedPage {
    words: [AtomicU32; CAPACITY + 1],
}

/// The word of the child pause starts for itself.
pub(crate) const OWN: usize = CAPACITY;

impl SharedPage {
    /// Maps the page, for good.
    pub(crate) fn map() -> sys::Result<&'static Self> {
        let address = sys::map_shared(size_of::<Self>())?;
        // SAFETY: the mapping is as large, aligned to a page, zeroed, and never unmapped.
        Ok(unsafe { &*(address as *const Self) })
    }

    pub(crate) fn clear(&self, position: usize) {
        if let Some(word) = self.words.get(position) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Called in a child.
    pub(crate) fn leave(&self, position: usize, step: Step, errno: Errno) {
        if let Some(word) = self.words.get(position) {
            word.store(u32::from(step.to_wire()) << 16 | errno.0 as u32 & 0xffff, Ordering::Relaxed);
        }
    }

    /// What the child left, once it ended.
    pub(crate) fn left(&self, position: usize) -> Option<(Step, u16)> {
        let word = self.words.get(position)?.load(Ordering::Relaxed);
        (word != 0).then(|| (Step::from_wire((word >> 16) as u16), word as u16))
    }
}
