//! Garbage collection: what nobody uses goes, least recently used first.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::fs::FlockOperation;

use super::{Image, Pin, Store};
use crate::incoming::may_be_taken_up;
use crate::{Digest, ImageError, ImageName};

/// An image's time of use is not written again within this long.
const USE_COUNTS_FOR: SignedDuration = SignedDuration::from_mins(1);

/// What a collection is to remove. Never what is used, pinned, or counted on by an image on its way.
#[derive(Clone, Copy, Debug)]
pub struct CollectPolicy {
    /// Images go, least recently used first, until this many bytes of disk are free that were not; `u64::MAX`: all that
    /// can go.
    pub wanted: u64,
    /// An image that came less long ago stays in any case (`imageMinimumGCAge`).
    pub min_age: Duration,
    /// An image that was not used for longer goes in any case (`imageMaximumGCAge`).
    pub max_unused: Option<Duration>,
    /// Only images that have no name with a tag.
    pub only_untagged: bool,
    /// Also layers that were finished for an image that nobody brings in now, however young.
    pub in_flight: bool,
}

impl Default for CollectPolicy {
    /// Removes what no image refers to, and what is stale; no image.
    fn default() -> Self {
        Self { wanted: 0, min_age: Duration::ZERO, max_unused: None, only_untagged: false, in_flight: false }
    }
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images that went, in that order.
    pub images: Vec<CollectedImage>,
    /// How many layers went that no image had.
    pub layers: usize,
    /// How many layers and directories went that were on their way and nobody went on with.
    pub stale: usize,
    /// Bytes of disk that went, measured.
    pub freed: u64,
    /// Images that stay though the policy would have them go, or would if it came to that: least recently used first.
    pub held: Vec<HeldImage>,
}

/// An image that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectedImage {
    /// The digest of its configuration.
    pub id: Digest,
    /// Its names.
    pub names: Vec<ImageName>,
    /// Bytes of disk that went with it: of layers no other image has.
    pub freed: u64,
}

/// An image that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldImage {
    /// The digest of its configuration.
    pub id: Digest,
    /// Its names.
    pub names: Vec<ImageName>,
    /// Bytes of disk of its layers, shared ones included.
    pub size: u64,
    /// Why it stays.
    pub why: Hold,
}

/// Why an image stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Somebody uses it: who, in words for people.
    InUse(String),
    /// It is pinned.
    Pinned(Vec<Pin>),
    /// It came less long ago than the policy's `min_age`.
    TooYoung,
}

impl Store {
    /// Removes what no image refers to, what is stale in `tmp`, and images by the policy.
    ///
    /// `in_use` says who of the caller's own uses an image; containers of every process that hold a lease count besides.
    /// That an image is in use now is also noted as its last use. An image whose documents are damaged stays, with its
    /// layers; where nobody knows which these are, all images do.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`], [`ImageError::Record`]. What was removed until then stays removed.
    pub fn collect(
        &self,
        policy: &CollectPolicy,
        in_use: impl Fn(&Digest) -> Option<String>,
    ) -> Result<Collected, ImageError> {
        let mut collected = Collected::default();
        let stale = self.sweep(|path| policy.in_flight || !may_be_taken_up(path))?;
        let trash = self.temporary()?;
        let unreferenced = {
            let _lock = self.lock(FlockOperation::LockExclusive)?;
            self.delete_unreferenced(&trash)?
        };
        trash.clear_now()?;
        collected.stale = stale.count;
        collected.layers = unreferenced.count;
        collected.freed = stale.bytes + unreferenced.bytes;

        if self.references()?.has_unknown_layers() {
            tracing::warn!(
                "an image is damaged so that nobody knows which layers it has: until it is removed, none is collected"
            );
            trash.remove()?;
            return Ok(collected);
        }
        let now = Timestamp::now();
        let mut images = self.list()?;
        images.sort_by_key(|image| (image.last_used, image.imported));
        for image in images {
            let lock = self.lock(FlockOperation::LockExclusive)?;
            // Another process may have changed it since.
            let Some(image) = self.get(&image.id)? else { continue };
            let is_old = policy.max_unused.is_some_and(|most| passed(image.last_used, now) > most);
            let is_wanted =
                collected.freed < policy.wanted && (!policy.only_untagged || image.repo_tags.is_empty());
            if let Some(why) = self.hold(&image, policy, now, &in_use)? {
                let size = self.usage_of(&image)?;
                collected.held.push(HeldImage { id: image.id, names: names(&image), size, why });
            } else if is_old || is_wanted {
                let freed = self.delete(&image, &trash)?;
                drop(lock);
                trash.clear_now()?;
                collected.freed += freed;
                collected.images.push(CollectedImage { id: image.id, names: names(&image), freed });
            }
        }
        trash.remove()?;
        Ok(collected)
    }

    fn hold(
        &self,
        image: &Image,
        policy: &CollectPolicy,
        now: Timestamp,
        in_use: impl Fn(&Digest) -> Option<String>,
    ) -> Result<Option<Hold>, ImageError> {
        if let Some(user) = in_use(&image.id).or(self.leased(&image.id)?) {
            if now.duration_since(image.last_used) > USE_COUNTS_FOR {
                self.touch(&image.id)?;
            }
            return Ok(Some(Hold::InUse(user)));
        }
        if !image.pins.is_empty() {
            return Ok(Some(Hold::Pinned(image.pins.clone())));
        }
        Ok((passed(image.imported, now) < policy.min_age).then_some(Hold::TooYoung))
    }

    fn usage_of(&self, image: &Image) -> Result<u64, ImageError> {
        image.layers.iter().map(|layer| self.layer_usage(&self.layer_path(&layer.chain_id))).sum()
    }
}

/// How long ago; nothing for a time that a clock which was set has put into the future.
fn passed(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or(Duration::ZERO)
}

fn names(image: &Image) -> Vec<ImageName> {
    image.repo_tags.iter().chain(&image.repo_digests).cloned().collect()
}
