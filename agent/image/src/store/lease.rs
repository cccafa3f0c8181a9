//! Leases: which containers use which images.

use std::fs;
use std::path::PathBuf;

use coracle_model::ContainerId;
use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW, utimensat};
use rustix::io::Errno;

use super::{Store, file_names};
use crate::{Digest, ImageError};

const NOW: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW as _ },
    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW as _ },
};

impl Store {
    /// Notes that a container uses an image, until [`Store::release`] or a reboot.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotFound`] when the image was removed meanwhile.
    pub fn lease(&self, image: &Digest, container: ContainerId) -> Result<(), ImageError> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        if !self.image_path(image).exists() {
            return Err(ImageError::NotFound(image.to_string()));
        }
        let path = self.lease_path(container);
        self.touch(image)?;
        // Not worth an fsync: after a power failure no container runs.
        fs::write(&path, format!("{image}\n{}\n", boot_id()?)).map_err(ImageError::store("write", &path))
    }

    /// Ends a container's lease; ended already is done.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`].
    pub fn release(&self, container: ContainerId) -> Result<(), ImageError> {
        let path = self.lease_path(container);
        let image = fs::read_to_string(&path).ok().and_then(|text| text.lines().next()?.parse().ok());
        self.unlink(&path)?;
        image.map_or(Ok(()), |image| self.touch(&image))
    }

    /// An image is used now. Its record's time says so, which costs no write: a time that a loss of power takes back is
    /// no harm.
    pub(super) fn touch(&self, image: &Digest) -> Result<(), ImageError> {
        let path = self.image_path(image);
        match utimensat(CWD, &path, &NOW, AtFlags::empty()) {
            // Removed meanwhile.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(ImageError::store("set the time of", &path)(error.into())),
        }
    }

    /// Every lease of this boot: for a start-up audit against the containers there are.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`].
    pub fn leases(&self) -> Result<Vec<(ContainerId, Digest)>, ImageError> {
        let boot = boot_id()?;
        let mut leases = Vec::new();
        for name in file_names(&self.root.join("leases"))? {
            let path = self.root.join("leases").join(&name);
            let (Ok(container), Ok(text)) = (name.parse(), fs::read_to_string(&path)) else { continue };
            let mut lines = text.lines();
            if let (Some(Ok(image)), Some(found)) = (lines.next().map(str::parse), lines.next())
                && found == boot
            {
                leases.push((container, image));
            } else {
                self.unlink(&path)?;
            }
        }
        Ok(leases)
    }

    fn lease_path(&self, container: ContainerId) -> PathBuf {
        self.root.join("leases").join(container.to_string())
    }

    /// Who uses an image, in words for people.
    pub(super) fn leased(&self, image: &Digest) -> Result<Option<String>, ImageError> {
        let lease = self.leases()?.into_iter().find(|(_, used)| used == image);
        Ok(lease.map(|(container, _)| format!("container {container}")))
    }
}

/// Differs after every boot.
pub(crate) fn boot_id() -> Result<String, ImageError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).map_err(ImageError::store("read", path))?;
    Ok(text.trim().to_owned())
}
