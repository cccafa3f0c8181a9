//! The children that were spawned or registered.

use core::mem::MaybeUninit;

use coracle_pause_wire::{CAPACITY, Entry, Exit, Id, MAX_HELD, NO_ID};

use crate::descriptors::Descriptors;

/// A child.
pub(crate) struct Child {
    /// The container it is; zeros for a helper, which is forgotten as it ends.
    pub(crate) id: Id,
    pub(crate) pid: u32,
    /// How it ended, unless it lives.
    pub(crate) exit: Option<Exit>,
    /// Its end was written to the ledger.
    pub(crate) recorded: bool,
    pub(crate) held: Descriptors<MAX_HELD>,
}

/// A table whose memory is touched only as far as it was ever filled, so that a pod of three containers
/// costs no pages for the other 253. A child never changes its position.
pub(crate) struct Children {
    slots: [MaybeUninit<Option<Child>>; CAPACITY],
    /// The slots before this one are initialised.
    touched: usize,
}

// === impl Children ===

impl Children {
    pub(crate) const EMPTY: Self = Self { slots: [const { MaybeUninit::uninit() }; CAPACITY], touched: 0 };

    fn slots(&self) -> &[Option<Child>] {
        let touched = self.slots.get(..self.touched).unwrap_or_default();
        // SAFETY: these were initialised, and MaybeUninit has the layout of what it holds.
        unsafe { &*(core::ptr::from_ref(touched) as *const [Option<Child>]) }
    }

    fn slots_mut(&mut self) -> &mut [Option<Child>] {
        let touched = self.slots.get_mut(..self.touched).unwrap_or_default();
        // SAFETY: as in `slots`.
        unsafe { &mut *(core::ptr::from_mut(touched) as *mut [Option<Child>]) }
    }

    /// A free position.
    pub(crate) fn vacancy(&mut self) -> Option<usize> {
        if let Some(free) = self.slots().iter().position(Option::is_none) {
            return Some(free);
        }
        let slot = self.slots.get_mut(self.touched)?;
        slot.write(None);
        self.touched += 1;
        Some(self.touched - 1)
    }

    /// Fills a position that was vacant.
    pub(crate) fn fill(&mut self, position: usize, child: Child) {
        if let Some(slot) = self.slots_mut().get_mut(position) {
            *slot = Some(child);
        }
    }

    /// Forgets a child and closes what was held for it.
    pub(crate) fn forget(&mut self, position: usize) {
        if let Some(slot) = self.slots_mut().get_mut(position) {
            *slot = None;
        }
    }

    /// The container with this id. None has the id of zeros.
    pub(crate) fn container(&mut self, id: &Id) -> Option<(usize, &mut Child)> {
        self.positions().find(|(_, child)| child.id == *id && child.id != NO_ID)
    }

    /// The living child with this pid.
    pub(crate) fn living(&mut self, pid: u32) -> Option<(usize, &mut Child)> {
        self.positions().find(|(_, child)| child.pid == pid && child.exit.is_none())
    }

    /// Every child with its position.
    pub(crate) fn positions(&mut self) -> impl Iterator<Item = (usize, &mut Child)> {
        self.slots_mut()
            .iter_mut()
            .enumerate()
            .filter_map(|(position, slot)| Some((position, slot.as_mut()?)))
    }

    pub(crate) fn any_alive(&self) -> bool {
        self.slots().iter().flatten().any(|child| child.exit.is_none())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots().iter().all(Option::is_none)
    }
}

// === impl Child ===

impl Child {
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            id: self.id,
            pid: self.pid,
            held: self.held.len() as u8,
            unrecorded: self.exit.is_some() && !self.recorded,
            reaper: false,
            exit: self.exit,
        }
    }
}
