//! Which pods may use an image that is there already: [KEP-2535].
//!
//! An image that came with the credentials of a Secret is given to a pod without a pull only if the pod shows that
//! Secret, or the same credentials; or else the registry is asked again, with what the pod has. So that this outlives the
//! agent, it is on disk, in files like the kubelet's, below one directory:
//!
//! | what | says |
//! |---|---|
//! | `pulling/sha256-<name's hash>` | a pull of this name has begun; written before the first byte |
//! | `pulled/sha256-<image>` | this image was pulled by the node, and by which credentials for which repositories |
//! | `salt` | goes into the hashes of credentials, so that those of two nodes tell nothing of each other |
//!
//! **Invariant:** no credential is in a file, only hashes of them, and the files are their owner's alone. **Invariant:** a
//! file that is torn, and a disk that fails, make the node ask the registry once more, never once less. **Invariant:** an
//! image that a pull makes visible is on record before, so that none is taken for an imported one, whatever becomes of the
//! pull.
//!
//! [KEP-2535]: https://kubernetes.io/docs/concepts/containers/images/#ensureimagepullcredentialverification

mod error;
mod files;
mod policy;
mod record;
mod salt;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use coracle_credentials::Found;
use coracle_model::{Digest, ImageName};

pub use error::AccessError;
use files::{Directory, Kept};
pub use policy::VerificationPolicy;
use record::{Decision, Intent, Record};
use salt::Salt;

/// Who may use which image. Cloning is cheap; all clones are one.
#[derive(Clone, Debug)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: RwLock<VerificationPolicy>,
    salt: Salt,
    files: Mutex<Files>,
    running: Running,
}

#[derive(Debug)]
struct Files {
    pulling: Directory<Intent>,
    pulled: Directory<Record>,
    /// Images that pulls have said they bring, and how many: not yet visible, or not yet noted with what.
    coming: BTreeMap<Digest, usize>,
}

/// How many pulls of a name there are. Apart from the files, which whoever gives a pull up must not wait for.
#[derive(Debug, Default)]
struct Running(Mutex<BTreeMap<ImageName, usize>>);

/// A pull that is on record. One that is dropped stays there, until another of its name has ended; what it was about to make
/// may come into being all the same, and is on record by itself, see [`Pulling::brings`].
#[must_use = "a pull ends by `pulled` or `failed`"]
#[derive(Debug)]
pub struct Pulling {
    access: Access,
    /// `None` once it has ended.
    name: Option<ImageName>,
    /// The image it has said it brings.
    brings: std::sync::OnceLock<Digest>,
}

// === impl Access ===

impl Access {
    /// Reads what is on record below `directory`. `images` are those of the store, with their names: the records of
    /// others go, and a pull whose end is not on record is taken to have brought what its name leads to. Blocks.
    ///
    /// # Errors
    /// The directory cannot be made or listed.
    pub fn open(
        directory: &Path,
        policy: VerificationPolicy,
        images: &[(Digest, Vec<ImageName>)],
    ) -> Result<Self, AccessError> {
        let pulling = Directory::open(directory.join("pulling"))?;
        let pulled = Directory::open(directory.join("pulled"))?;
        let salt = Salt::open(&directory.join("salt"))?;
        let files = Files { pulling, pulled, coming: BTreeMap::new() };
        files.settle(images)?;
        let (files, running) = (Mutex::new(files), Running::default());
        Ok(Self(Arc::new(Inner { policy: RwLock::new(policy), salt, files, running })))
    }

    /// Goes by another policy from now on.
    pub fn change(&self, policy: VerificationPolicy) {
        *self.0.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// Whether a pod that shows these credentials gets an image that is there under this name only by a pull. Where that
    /// cannot be read, it is: the registry knows.
    pub async fn must_pull(&self, image: Digest, name: &ImageName, shown: &[Found]) -> bool {
        let (this, name, shown) = (self.clone(), name.clone(), shown.to_vec());
        // If not, the agent ends.
        tokio::task::spawn_blocking(move || this.decide(image, &name, &shown)).await.unwrap_or(true)
    }

    /// Puts on record that a pull of this name begins. Nothing may be asked of a registry before.
    ///
    /// # Errors
    /// It cannot be written; then there must be no pull.
    pub async fn begin(&self, name: &ImageName) -> Result<Pulling, AccessError> {
        let (access, name) = (self.clone(), name.key());
        run(move || {
            let files = access.files();
            files.pulling.write(&Intent::file(&name), &Intent::new(&name))?;
            access.0.running.one_more(&name);
            drop(files);
            Ok(Pulling { access, name: Some(name), brings: std::sync::OnceLock::new() })
        })
        .await
    }

    /// Forgets an image that is gone, unless it has come again since (`is_gone`, which may block) or is about to: its record
    /// is that of the next pull then. Where that fails, the next start does it.
    pub async fn forget(&self, image: Digest, is_gone: impl FnOnce() -> bool + Send + 'static) {
        let this = self.clone();
        let forgot = run(move || {
            let files = this.files();
            if files.coming.contains_key(&image) || !is_gone() {
                return Ok(());
            }
            files.pulled.remove(&Record::file(image))
        });
        let forgot = forgot.await;
        if let Err(error) = forgot {
            tracing::warn!(%image, %error, "cannot forget who may use a removed image");
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_pulling(&self, files: &Files, name: &ImageName) -> bool {
        // What cannot be looked up counts: the registry is asked once more.
        self.0.running.lock().contains_key(name)
            || files.pulling.contains(&Intent::file(name)).unwrap_or(true)
    }

    /// One pull of this name less. The record goes with the last.
    fn ended(&self, files: &Files, name: &ImageName) -> Result<(), AccessError> {
        if self.0.running.one_less(name) { files.pulling.remove(&Intent::file(name)) } else { Ok(()) }
    }

    fn decide(&self, image: Digest, name: &ImageName, shown: &[Found]) -> bool {
        let files = self.files();
        let record = match files.pulled.read(&Record::file(image)) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(%image, %error, "cannot read who may use an image; its registry is asked");
                Kept::Torn
            }
        };
        let by_us = !matches!(record, Kept::Nothing) || self.is_pulling(&files, &name.key());
        let policy = self.0.policy.read().unwrap_or_else(PoisonError::into_inner);
        if !policy.must_verify(name, by_us) {
            return false;
        }
        let Kept::Whole(mut record) = record else { return true };
        match record.decide(name, shown, &self.0.salt) {
            Decision::Pull => true,
            Decision::Use => false,
            Decision::UseAndNote(secret) => {
                record.add(name, secret);
                if let Err(error) = files.pulled.write(&Record::file(image), &record) {
                    tracing::warn!(%image, %error, "cannot note who else may use an image");
                }
                false
            }
        }
    }
}

async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AccessError> + Send + 'static,
) -> Result<T, AccessError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| AccessError::GivenUp(error.to_string()))?
}

// === impl Files ===

impl Files {
    /// One pull less brings this image.
    fn came(&mut self, image: Option<Digest>) {
        let Some(image) = image else { return };
        match self.coming.get_mut(&image) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.coming.remove(&image)),
        }
    }

    /// Brings the files in line with what there is.
    fn settle(&self, images: &[(Digest, Vec<ImageName>)]) -> Result<(), AccessError> {
        let present: BTreeSet<String> = images.iter().map(|(image, _)| Record::file(*image)).collect();
        for file in self.pulled.list()?.into_iter().filter(|file| !present.contains(file)) {
            self.pulled.remove(&file)?;
        }
        let intents: BTreeSet<String> = self.pulling.list()?.into_iter().collect();
        for (image, names) in images {
            let file = Record::file(*image);
            let begun = || names.iter().any(|name| intents.contains(&Intent::file(&name.key())));
            // What was pulled by nobody knows which credentials is given to nobody who shows none.
            let unknown = match self.pulled.read(&file)? {
                Kept::Whole(_) => false,
                Kept::Torn => true,
                Kept::Nothing => begun(),
            };
            if unknown {
                self.pulled.write(&file, &Record::new(*image))?;
            }
        }
        intents.iter().try_for_each(|file| self.pulling.remove(file))
    }
}

// === impl Running ===

impl Running {
    fn one_more(&self, name: &ImageName) {
        *self.lock().entry(name.clone()).or_default() += 1;
    }

    /// Whether it was the last.
    fn one_less(&self, name: &ImageName) -> bool {
        let mut running = self.lock();
        match running.get_mut(name) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => {
                running.remove(name);
                true
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ImageName, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pulling ===

impl Pulling {
    /// It is about to make this image visible, which nobody can keep it from once it has begun. From now on the image is one
    /// that was pulled with credentials nobody has, unless it is known with which; how this pull ends changes that only by
    /// [`Pulling::pulled`].
    ///
    /// # Errors
    /// It cannot be written; then the image must not become visible.
    pub async fn brings(&self, image: Digest) -> Result<(), AccessError> {
        let access = self.access.clone();
        // Of one that is dropped it stays so until the next start.
        let is_first = self.brings.set(image).is_ok();
        run(move || {
            let mut files = access.files();
            if is_first {
                *files.coming.entry(image).or_default() += 1;
            }
            let file = Record::file(image);
            match files.pulled.read(&file)? {
                Kept::Nothing => files.pulled.write(&file, &Record::new(image)),
                // One that is torn makes the registry be asked as well.
                Kept::Whole(_) | Kept::Torn => Ok(()),
            }
        })
        .await
    }

    /// It has brought this image, and this is what the registry was shown.
    ///
    /// # Errors
    /// It cannot be written; then the image counts as pulled with credentials nobody has.
    pub async fn pulled(mut self, image: Digest, with: &Found) -> Result<(), AccessError> {
        let Some(name) = self.name.take() else { return Ok(()) };
        let (access, with) = (self.access.clone(), with.clone());
        let brought = self.brings.take();
        run(move || {
            let mut files = access.files();
            files.came(brought);
            let file = Record::file(image);
            let mut record = match files.pulled.read(&file)? {
                Kept::Whole(record) => record,
                Kept::Nothing | Kept::Torn => Record::new(image),
            };
            let written = if record.add(&name, record::Opened::by(&with, &access.0.salt)) {
                files.pulled.write(&file, &record)
            } else {
                Ok(())
            };
            match written {
                Ok(()) => access.ended(&files, &name),
                Err(error) => {
                    access.0.running.one_less(&name);
                    Err(error)
                }
            }
        })
        .await
    }

    /// It has brought nothing that is for everybody: what it has said it brings stays on record. Where its own
    /// cannot be removed, that of the next pull of this name can, or the next start does it.
    pub async fn failed(mut self) {
        let Some(name) = self.name.take() else { return };
        let access = self.access.clone();
        let (of, brought) = (name.clone(), self.brings.take());
        let ended = run(move || {
            let mut files = access.files();
            files.came(brought);
            access.ended(&files, &of)
        });
        if let Err(error) = ended.await {
            tracing::warn!(image = %name, %error, "cannot remove the record of a pull that failed");
        }
    }
}

impl Drop for Pulling {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.access.0.running.one_less(&name);
        }
    }
}

/// Where the records are below the agent's root directory; the kubelet's name for it.
pub fn directory(root_dir: &Path) -> PathBuf {
    root_dir.join("image_manager")
}
