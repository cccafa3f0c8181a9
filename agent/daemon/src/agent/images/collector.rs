//! When images go, and why they do not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_image::{CollectPolicy, Collected, Digest, ImageError, ImageName, Store};
use coracle_model::VolumeSource;
use coracle_pod::Pods;
use coracle_pull::access::Access;
use rustix::fs::statvfs;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::{archives, holders};
use crate::agent::event::NodeEvents;
use crate::agent::ports::NodePorts;
use crate::agent::thread::on_own_thread;
use crate::config::CollectionConfig;

/// How often it is looked how full the disk is, as by the kubelet.
const INTERVAL: Duration = Duration::from_secs(300);

/// What the collector is asked.
enum Ask {
    /// An image was pulled.
    Pulled,
    /// An image is used that may have come by another way: there may be something to collect from now on.
    Used,
    /// Images go by these rules from now on.
    Changed(CollectionConfig),
    /// A pull has found the disk full. Whether there is more room now.
    Room(oneshot::Sender<bool>),
}

/// Where the collector hears what it is asked.
pub(crate) struct Asks(mpsc::UnboundedReceiver<Ask>);

/// The collector, as those see it who bring images.
#[derive(Clone)]
pub(crate) struct Collecting {
    asks: mpsc::UnboundedSender<Ask>,
    imported: watch::Receiver<bool>,
}

/// Removes images that nobody uses, when the disk fills up or they get old.
pub(crate) struct Collector {
    pub(crate) store: Arc<Store>,
    pub(crate) config: Mutex<CollectionConfig>,
    pub(crate) events: Arc<NodeEvents>,
    pub(crate) access: Access,
    pub(crate) pods: Pods<NodePorts>,
    /// Where what is not images lies.
    pub(crate) root_dir: std::path::PathBuf,
}

/// What a look has come to.
#[derive(Default)]
struct Looked {
    /// Bytes.
    freed: u64,
    /// The images that went.
    removed: Vec<Digest>,
    /// Whether there is anything that could go another time.
    more: bool,
}

/// The file system of the store, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) capacity: u64,
    pub(super) available: u64,
}

// === impl Collecting ===

impl Collecting {
    /// With what hears. `imported` says whether the directory of archives was imported.
    pub(crate) fn new(imported: watch::Receiver<bool>) -> (Self, Asks) {
        let (asks, heard) = mpsc::unbounded_channel();
        (Self { asks, imported }, Asks(heard))
    }

    /// An image was pulled.
    pub(super) fn pulled(&self) {
        // Without a collector, as with the images of another node, nothing is collected.
        let _ = self.asks.send(Ask::Pulled);
    }

    /// A pod uses an image that was here.
    pub(super) fn used(&self) {
        let _ = self.asks.send(Ask::Used);
    }

    /// Images go by these rules from now on.
    pub(super) fn change(&self, config: CollectionConfig) {
        let _ = self.asks.send(Ask::Changed(config));
    }

    /// Removes what can be removed, until there is room again. Whether something was.
    pub(super) async fn make_room(&self) -> bool {
        let (done, made) = oneshot::channel();
        self.asks.send(Ask::Room(done)).is_ok() && made.await.unwrap_or(false)
    }

    /// Waits until the images of the directory of archives are here.
    pub(super) async fn archives_are_imported(&self) {
        // Whoever imports says so at its end, whatever that is.
        let _ = self.imported.clone().wait_for(|imported| *imported).await;
    }
}

// === impl Collector ===

impl Collector {
    /// Collects for as long as the agent runs.
    pub(crate) async fn run(self, mut asks: Asks) {
        let this = Arc::new(self);
        let mut look_at = Some(Instant::now());
        loop {
            let mut rooms = Vec::new();
            tokio::select! {
                ask = asks.0.recv() => match ask {
                    Some(Ask::Used) => {
                        look_at = look_at.or_else(|| Some(Instant::now() + INTERVAL));
                        continue;
                    }
                    Some(Ask::Pulled) => {}
                    Some(Ask::Changed(config)) => this.change(config),
                    Some(Ask::Room(done)) => rooms.push(done),
                    None => return,
                },
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {}
            }
            // What was asked meanwhile is answered by the same look.
            while let Ok(ask) = asks.0.try_recv() {
                match ask {
                    Ask::Room(done) => rooms.push(done),
                    Ask::Changed(config) => this.change(config),
                    Ask::Pulled | Ask::Used => {}
                }
            }
            let (collector, full) = (Arc::clone(&this), !rooms.is_empty());
            let looked = match on_own_thread("images", move || collector.look(full)).await {
                Ok(Ok(looked)) => looked,
                Ok(Err(error)) => this.failed(&error.to_string()),
                Err(error) => this.failed(&error.to_string()),
            };
            let Looked { freed, removed, more } = looked;
            for id in removed {
                let store = Arc::clone(&this.store);
                this.access
                    .forget(
                        id,
                        move || matches!(store.known(), Ok(all) if all.iter().all(|(it, _)| *it != id)),
                    )
                    .await;
            }
            for room in rooms {
                // Whoever asked may have gone.
                let _ = room.send(freed > 0);
            }
            // With nothing that could ever go there is nothing to look after.
            look_at = more.then(|| Instant::now() + INTERVAL);
        }
    }

    fn change(&self, config: CollectionConfig) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }

    fn config(&self) -> CollectionConfig {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks how full the disk is, and removes what is to go: in any case what no image has, and what is stale. Blocks.
    fn look(&self, full: bool) -> Result<Looked, ImageError> {
        archives::unpin_gone(&self.store)?;
        let config = self.config();
        let wanted_by = self.wanted_by()?;
        let in_use = |id: &Digest| wanted_by.get(id).cloned();
        let disk = Disk::of(&self.store)?;
        let excess = disk.excess(&config);
        // A pull that the disk had no room for is one more reason to go down to the low threshold; where that is no less
        // than there is now, all that can go goes.
        let wanted = match (full, disk.above_low(&config)) {
            (false, _) => excess,
            (true, 0) => u64::MAX,
            (true, bytes) => bytes,
        };
        if wanted > 0 {
            let percent = disk.used_percent();
            tracing::info!(percent, "the disk of the images fills up; those least recently used go");
        }
        let policy = CollectPolicy {
            wanted,
            min_age: config.minimum_age,
            max_unused: config.maximum_age,
            only_untagged: false,
            // Where room is needed, what may be gone on with goes before what is whole.
            in_flight: wanted > 0,
        };
        let collected = self.store.collect(&policy, in_use)?;
        for image in &collected.images {
            let names: Vec<_> = image.names.iter().map(ToString::to_string).collect();
            tracing::info!(image = %image.id, names = names.join(" "), freed = image.freed, "removed an unused image");
        }
        if excess > 0 && collected.freed < excess {
            self.events.free_disk_space_failed(excess, collected.freed, &self.holders(&collected, disk));
        }
        Ok(Looked {
            freed: collected.freed,
            removed: collected.images.iter().map(|image| image.id).collect(),
            more: self.is_any_collectable()?,
        })
    }

    fn failed(&self, problem: &str) -> Looked {
        tracing::error!(problem, "images cannot be collected");
        self.events.image_gc_failed(problem);
        Looked { more: true, ..Looked::default() }
    }

    /// Whether there is any image that could ever go.
    fn is_any_collectable(&self) -> Result<bool, ImageError> {
        Ok(self.store.list()?.iter().any(|image| image.pins.is_empty()))
    }

    /// The images that pods want which have not ended, and one of these pods for each.
    fn wanted_by(&self) -> Result<BTreeMap<Digest, String>, ImageError> {
        let id_of = self.store.resolver()?;
        let mut wanted = BTreeMap::new();
        for snapshot in self.pods.snapshot().iter().filter(|pod| !pod.status.phase.is_terminal()) {
            let pod = &snapshot.pod;
            let volumes = pod.spec.volumes.iter().filter_map(|volume| match &volume.source {
                VolumeSource::Image { reference, .. } => Some(reference),
                _ => None,
            });
            for image in pod.all_containers().map(|container| &container.image).chain(volumes) {
                let Ok(name) = image.parse::<ImageName>() else { continue };
                if let Some(id) = id_of(&name) {
                    wanted.entry(id).or_insert_with(|| format!("pod {}", pod.key));
                }
            }
        }
        Ok(wanted)
    }

    fn holders(&self, collected: &Collected, disk: Disk) -> String {
        let images = self.store.df(|_| None).map(|usage| usage.layers + usage.unreferenced + usage.in_flight);
        let pods = holders::disk_usage(&self.root_dir.join("pods"));
        holders::describe(&collected.held, images.unwrap_or_default(), pods, disk)
    }
}

// === impl Disk ===

impl Disk {
    fn of(store: &Store) -> Result<Self, ImageError> {
        let path = store.root();
        let found = statvfs(path).map_err(|errno| ImageError::Store {
            step: "look at the file system of",
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self {
            capacity: found.f_blocks.saturating_mul(found.f_frsize),
            available: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    /// As the kubelet counts it: what is kept for root counts as used.
    fn used_percent(self) -> u64 {
        match self.capacity {
            0 => 0,
            capacity => {
                100 - u64::try_from(u128::from(self.available) * 100 / u128::from(capacity))
                    .unwrap_or(100)
                    .min(100)
            }
        }
    }

    /// How many bytes are to go because the high threshold is passed.
    fn excess(self, config: &CollectionConfig) -> u64 {
        match self.used_percent() >= u64::from(config.high) && config.high < 100 {
            true => self.above_low(config),
            false => 0,
        }
    }

    /// How many bytes more are in use than the low threshold lets.
    fn above_low(self, config: &CollectionConfig) -> u64 {
        let free = u128::from(self.capacity) * u128::from(100 - config.low.min(100)) / 100;
        u64::try_from(free).unwrap_or(u64::MAX).saturating_sub(self.available)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_is_to_go() {
        let config =
            |high, low| CollectionConfig { minimum_age: Duration::ZERO, maximum_age: None, high, low };
        let disk = |available| Disk { capacity: 1000, available };
        for (available, percent, excess, above_low) in [
            (1000, 0, 0, 0),
            (151, 85, 49, 49),
            (150, 85, 50, 50),
            (160, 84, 0, 40),
            (200, 80, 0, 0),
            (0, 100, 200, 200),
        ] {
            let disk = disk(available);
            assert_eq!(disk.used_percent(), percent, "{available}");
            assert_eq!(disk.excess(&config(85, 80)), excess, "{available}");
            assert_eq!(disk.above_low(&config(85, 80)), above_low, "{available}");
        }
        assert_eq!(disk(0).excess(&config(100, 80)), 0, "100 turns it off, as for the kubelet");
        assert_eq!(Disk { capacity: 0, available: 0 }.excess(&config(85, 80)), 0);
    }
}
