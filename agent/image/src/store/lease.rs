//! Leases: which containers, and pods' volumes, use which images.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_model::{ContainerId, Name, PodUid};
use rustix::fs::{
    AtFlags, CWD, FlockOperation, RenameFlags, Timespec, Timestamps, UTIME_NOW, renameat_with, utimensat,
};
use rustix::io::Errno;

use super::{Store, file_names};
use crate::{Digest, ImageError};

const NOW: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW as _ },
    last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW as _ },
};

/// Nobody writes a lease for so long.
const TORN: Duration = Duration::from_secs(3600);

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
        // Not worth an fsync: after a power failure no container runs. Whoever reads it half written leaves it alone, and
        // whoever acts on it waits for the lock.
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

    /// Notes that a pod has an image as a volume, until [`Store::release_volumes`] or a reboot, and tells which: the first
    /// that was noted stays, so that all containers of the pod see the same files.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotFound`] when the image was removed meanwhile.
    pub fn lease_volume(&self, image: &Digest, pod: &PodUid, volume: &Name) -> Result<Digest, ImageError> {
        let _lock = self.lock(FlockOperation::LockShared)?;
        if let Some(image) = self.volume_image(pod, volume)? {
            return Ok(image);
        }
        if !self.image_path(image).exists() {
            return Err(ImageError::NotFound(image.to_string()));
        }
        self.touch(image)?;
        let path = self.lease_path(volume_id(pod, volume));
        let temporary = self.root.join("leases").join(format!(".{}", ContainerId::random()));
        let text = format!("{image}\n{}\n{pod}\n{volume}\n", boot_id()?);
        fs::write(&temporary, text).map_err(ImageError::store("write", &temporary))?;
        match renameat_with(CWD, &temporary, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(*image),
            // Somebody was faster.
            Err(Errno::EXIST) => {
                self.unlink(&temporary)?;
                Ok(self.volume_image(pod, volume)?.unwrap_or(*image))
            }
            Err(error) => Err(ImageError::store("write", &path)(error.into())),
        }
    }

    /// The image that a pod has as a volume, if that was noted since the machine has started.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`].
    pub fn volume_image(&self, pod: &PodUid, volume: &Name) -> Result<Option<Digest>, ImageError> {
        let boot = boot_id()?;
        let path = self.lease_path(volume_id(pod, volume));
        match fs::read_to_string(&path) {
            Ok(text) => match Lease::parse(&text, &boot) {
                Some(lease) => Ok(Some(lease.image)),
                None => {
                    self.unlink(&path)?;
                    Ok(None)
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::store("read", &path)(error)),
        }
    }

    /// Ends what [`Store::lease_volume`] has noted for a pod.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`].
    pub fn release_volumes(&self, pod: &PodUid) -> Result<(), ImageError> {
        for (id, lease) in self.all_leases()? {
            if lease.volume.is_some_and(|(of, _)| of == pod.as_str()) {
                self.release(id)?;
            }
        }
        Ok(())
    }

    /// Every container's lease of this boot: for a start-up audit against the containers there are.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`].
    pub fn leases(&self) -> Result<Vec<(ContainerId, Digest)>, ImageError> {
        let leases = self.all_leases()?.into_iter().filter(|(_, lease)| lease.volume.is_none());
        Ok(leases.map(|(container, lease)| (container, lease.image)).collect())
    }

    /// The images in use, and by whom, in words for people.
    pub(super) fn users(&self) -> Result<Vec<(String, Digest)>, ImageError> {
        let words = |(id, Lease { image, volume })| match volume {
            Some((pod, name)) => (format!("volume {name} of the pod with UID {pod}"), image),
            None => (format!("container {id}"), image),
        };
        Ok(self.all_leases()?.into_iter().map(words).collect())
    }

    /// Every lease of this boot. What is of another goes.
    fn all_leases(&self) -> Result<Vec<(ContainerId, Lease)>, ImageError> {
        let boot = boot_id()?;
        let mut leases = Vec::new();
        for name in file_names(&self.root.join("leases"))? {
            let path = self.root.join("leases").join(&name);
            let Ok(text) = fs::read_to_string(&path) else { continue };
            match (Lease::parse(&text, &boot), name.parse()) {
                (Some(lease), Ok(id)) => leases.push((id, lease)),
                (None, _) if is_whole(&text) => self.unlink(&path)?,
                // It is being written, or whoever wrote it was killed.
                _ if is_old(&path) => self.unlink(&path)?,
                _ => {}
            }
        }
        Ok(leases)
    }

    fn lease_path(&self, container: ContainerId) -> PathBuf {
        self.root.join("leases").join(container.to_string())
    }

    /// Who uses an image, in words for people.
    pub(super) fn leased(&self, image: &Digest) -> Result<Option<String>, ImageError> {
        Ok(self.users()?.into_iter().find(|(_, used)| used == image).map(|(user, _)| user))
    }
}

/// An image in use.
struct Lease {
    image: Digest,
    /// The pod's UID and the volume's name, if it is used as a volume.
    volume: Option<(String, String)>,
}

// === impl Lease ===

impl Lease {
    /// Reads one; `None` for what is of another boot.
    fn parse(text: &str, boot: &str) -> Option<Self> {
        let mut lines = text.lines();
        let image = lines.next()?.parse().ok()?;
        let is_now = lines.next()? == boot;
        let volume = lines.next().zip(lines.next()).map(|(pod, name)| (pod.to_owned(), name.to_owned()));
        is_now.then_some(Self { image, volume })
    }
}

/// Whether a lease names an image and a boot, whichever they are.
fn is_whole(text: &str) -> bool {
    let mut lines = text.lines();
    let image = lines.next().and_then(|line| line.parse::<Digest>().ok());
    image.is_some() && lines.next().is_some() && text.ends_with('\n')
}

/// Whether nobody can be writing a file any more. A time in the future is that of a clock that was set.
fn is_old(path: &Path) -> bool {
    let age = fs::metadata(path).and_then(|data| data.modified()).map(|time| time.elapsed());
    matches!(age, Ok(Ok(age)) if age > TORN)
}

/// What a volume's lease is filed under: it looks like a container's, and is nobody's.
fn volume_id(pod: &PodUid, volume: &Name) -> ContainerId {
    ContainerId::from_bytes(Digest::of(format!("volume {pod} {volume}").as_bytes()).bytes())
}

/// Differs after every boot.
pub(crate) fn boot_id() -> Result<String, ImageError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).map_err(ImageError::store("read", path))?;
    Ok(text.trim().to_owned())
}
