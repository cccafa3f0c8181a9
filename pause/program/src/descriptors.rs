//! Descriptors that close themselves.

use crate::sys;

/// One descriptor.
pub(crate) struct Descriptor(i32);

/// Up to `N` descriptors, in order.
pub(crate) struct Descriptors<const N: usize> {
    fds: [i32; N],
    count: usize,
}

// === impl Descriptor ===

impl Descriptor {
    /// Takes over a descriptor nobody else will close.
    pub(crate) fn from_raw(fd: i32) -> Self {
        Self(fd)
    }

    pub(crate) fn raw(&self) -> i32 {
        self.0
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        sys::close(self.0);
    }
}

// === impl Descriptors ===

impl<const N: usize> Descriptors<N> {
    pub(crate) const NONE: Self = Self { fds: [-1; N], count: 0 };

    pub(crate) fn as_slice(&self) -> &[i32] {
        self.fds.get(..self.count).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Takes over a descriptor; closes it when there is no room.
    pub(crate) fn push(&mut self, fd: i32) {
        match self.fds.get_mut(self.count) {
            Some(place) => {
                *place = fd;
                self.count += 1;
            }
            None => sys::close(fd),
        }
    }

    /// Takes one out; those behind it move up.
    pub(crate) fn remove(&mut self, position: usize) -> Option<Descriptor> {
        let fd = *self.as_slice().get(position)?;
        self.fds.get_mut(position..self.count)?.rotate_left(1);
        self.count -= 1;
        Some(Descriptor::from_raw(fd))
    }

    /// Appends the last descriptors of `other`, from position `first` on.
    pub(crate) fn take_from<const M: usize>(&mut self, other: &mut Descriptors<M>, first: usize) {
        let first = first.min(other.count);
        for fd in other.fds.iter().take(other.count).skip(first) {
            self.push(*fd);
        }
        other.count = first;
    }
}

impl<const N: usize> Drop for Descriptors<N> {
    fn drop(&mut self) {
        for fd in self.as_slice() {
            sys::close(*fd);
        }
    }
}
