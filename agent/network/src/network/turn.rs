//! Whose turn it is with an attachment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::Network;
use super::attachment::AttachmentId;

// === impl Network ===

impl Network {
    /// Does it while nobody else does anything to this attachment.
    pub(super) fn in_turn<T>(&self, id: &AttachmentId, act: impl FnOnce() -> T) -> T {
        loop {
            let turn = self.turn(id);
            let guard = turn.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever had it before may have ended the attachment, and somebody begun another.
            if self.is_turn(id, &turn) {
                let done = act();
                self.end_turn(id, guard);
                return done;
            }
        }
    }

    /// Does it unless somebody else does something to this attachment.
    pub(super) fn in_turn_if_free<T>(&self, id: &AttachmentId, act: impl FnOnce() -> T) -> Option<T> {
        let turn = self.turn(id);
        let guard = match turn.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if !self.is_turn(id, &turn) {
            return None;
        }
        let done = act();
        self.end_turn(id, guard);
        Some(done)
    }

    fn turn(&self, id: &AttachmentId) -> Arc<Mutex<()>> {
        Arc::clone(&self.lock().entry(id.clone()).or_default().turn)
    }

    fn is_turn(&self, id: &AttachmentId, turn: &Arc<Mutex<()>>) -> bool {
        self.lock().get(id).is_some_and(|known| Arc::ptr_eq(&known.turn, turn))
    }

    /// Forgets it, if there is no attachment.
    fn end_turn(&self, id: &AttachmentId, guard: MutexGuard<'_, ()>) {
        let mut all = self.lock();
        match all.get_mut(id) {
            Some(known) if known.attachment.is_some() => known.unwanted = false,
            _ => _ = all.remove(id),
        }
        drop(guard);
    }
}
