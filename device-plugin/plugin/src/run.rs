//! The plugin at work.
//!
//! ```text
//! look -> tell endpoints, describe, watch -> wait for a change -> look ...
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::device::Resource;
use crate::discovery::{Discovery, Sight, Which, complaints, concerns_nvidia};
use crate::nvidia::{Description, KernelLog, Source};
use crate::serve::{Directory, Endpoint, Generation};
use crate::watch::{Happened, Watcher};
use crate::{PluginError, describe};

/// Changes this close together are looked at once: a driver makes many nodes at a time.
const QUIET: Duration = Duration::from_millis(50);
/// Changes that do not end are looked at after this long.
const LONGEST: Duration = Duration::from_secs(1);
/// So often what was looked at may have changed meanwhile before that is left for the next change.
const LOOKS: usize = 8;
/// What could not be written is tried again after this long, and ever more seldom.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// How long NVIDIA's library waits for an error before it is asked whether to go on; it says no sooner when one comes.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Errors of GPUs that have not been looked at yet.
const ERRORS: usize = 64;

/// How the plugin is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where plugins' sockets are, and the kubelet's: `/var/lib/kubelet/device-plugins`.
    pub plugins_dir: PathBuf,
    /// Where specifications of CDI devices are put: `/var/run/cdi`.
    pub cdi_dir: PathBuf,
    /// Where /dev, /proc, /sys and the driver's files are looked for: `/`.
    pub root: PathBuf,
    /// The command by which a runtime executes our hooks, with an absolute path first: `/usr/bin/coracle device-plugin hook`.
    pub hook: Vec<OsString>,
    /// What is offered.
    pub config: Config,
}

/// Offers the devices there are to the kubelet, or to the kubelets that come one after another, until `cancel`.
///
/// # Errors
/// When the directory of plugins cannot be made, or changes cannot be learned of. What fails of one resource, or of the
/// kubelet, is told and tried again.
pub async fn run(options: Options, cancel: CancellationToken) -> Result<(), PluginError> {
    // Ends what was begun, however this ends.
    let end = cancel.child_token();
    let _ended = end.clone().drop_guard();
    let directory = Directory::new(&options.plugins_dir)?;
    let mut plugin = Plugin::new(options, directory.generation(), end.clone())?;
    let mut watching = Box::pin(directory.run());
    let result = tokio::select! {
        () = end.cancelled() => Ok(()),
        result = &mut watching => result,
        result = plugin.run() => result,
    };
    end.cancel();
    while plugin.endpoints.join_next().await.is_some() {}
    result
}

struct Plugin {
    options: Options,
    /// `None` while it looks.
    discovery: Option<Discovery>,
    watcher: Watcher,
    generation: watch::Receiver<Generation>,
    resources: BTreeMap<String, watch::Sender<Arc<Resource>>>,
    endpoints: JoinSet<()>,
    described: Option<Arc<Description>>,
    /// Whether there is a file that says so.
    in_file: bool,
    /// When what could not be described is tried again, and after how long then.
    describe_again: Option<(Instant, Duration)>,
    errors: (mpsc::Sender<GpuError>, mpsc::Receiver<GpuError>),
    watch: Option<Watch>,
    end: CancellationToken,
}

/// What is told of a GPU.
#[derive(Debug)]
struct GpuError {
    which: Which,
    /// `None` when it is lost.
    xid: Option<u64>,
}

/// Somebody waits for errors of these GPUs.
struct Watch {
    gpus: Vec<(String, String)>,
    by_library: bool,
    go_on: Arc<AtomicBool>,
    end: CancellationToken,
}

/// What is to be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Nothing.
    Nothing,
    /// What is there.
    Again,
    /// The same, and NVIDIA's driver is asked.
    Anew,
}

// === impl Plugin ===

impl Plugin {
    fn new(
        options: Options,
        generation: watch::Receiver<Generation>,
        end: CancellationToken,
    ) -> Result<Self, PluginError> {
        // A path that is no text cannot be said in a specification.
        let hook: Option<Vec<String>> =
            options.hook.iter().map(|word| word.to_str().map(str::to_owned)).collect();
        if hook.is_none() {
            tracing::warn!(hook = ?options.hook, "hooks cannot be executed by a path that is no UTF-8: the dynamic linkers of containers are not told of NVIDIA's libraries");
        }
        let discovery =
            Discovery::new(Arc::new(options.config.clone()), &options.root, hook.unwrap_or_default());
        Ok(Self {
            options,
            discovery: Some(discovery),
            watcher: Watcher::new()?,
            generation,
            resources: BTreeMap::new(),
            endpoints: JoinSet::new(),
            described: None,
            in_file: false,
            describe_again: None,
            errors: mpsc::channel(ERRORS),
            watch: None,
            end,
        })
    }

    async fn run(&mut self) -> Result<(), PluginError> {
        let mut look = Look::Anew;
        let mut first = true;
        loop {
            if look != Look::Nothing {
                let sight = self.look(look).await?;
                self.describe(&sight, first);
                self.watch_gpus(&sight);
                self.tell(sight.resources, first);
                first = false;
            }
            look = self.wait().await?;
        }
    }

    /// Looks until what was looked at is watched.
    async fn look(&mut self, look: Look) -> Result<Sight, PluginError> {
        let mut anew = look == Look::Anew;
        for _ in 1..LOOKS {
            let mut sight = self.look_once(anew).await?;
            self.watch_description(&mut sight);
            if !self.watcher.watch(&sight.looked)? {
                return Ok(sight);
            }
            // The driver was asked, and whatever it makes now is told.
            anew = false;
        }
        self.look_once(anew).await
    }

    /// What GPUs bring is looked at where runtimes read it: what somebody removes there is written again.
    fn watch_description(&self, sight: &mut Sight) {
        if sight.description.is_some() {
            // What fails is told where it is written.
            let _ = std::fs::create_dir_all(&self.options.cdi_dir);
            sight.looked.insert(self.options.cdi_dir.clone());
        }
    }

    async fn look_once(&mut self, anew: bool) -> Result<Sight, PluginError> {
        let Some(mut discovery) = self.discovery.take() else {
            return Err(PluginError::Task("discovery was given up while it looked".to_owned()));
        };
        let looked = spawn_blocking(move || {
            let sight = discovery.look(anew);
            (discovery, sight)
        });
        let (discovery, sight) = looked.await.map_err(|error| PluginError::Task(error.to_string()))?;
        self.discovery = Some(discovery);
        Ok(sight)
    }

    /// Waits for a change, and until it is quiet again.
    async fn wait(&mut self) -> Result<Look, PluginError> {
        let mut look = tokio::select! {
            happened = self.watcher.next() => of(&happened?),
            error = self.errors.1.recv() => self.take_in(error),
            () = until(self.describe_again.map(|(again, _)| again)) => Look::Again,
        };
        let latest = Instant::now() + LONGEST;
        loop {
            match timeout_at(latest, timeout(QUIET, self.watcher.next())).await {
                Ok(Ok(happened)) => {
                    if of(&happened?) == Look::Anew {
                        look = Look::Anew;
                    }
                }
                Ok(Err(_)) | Err(_) => return Ok(look),
            }
        }
    }

    /// An error of a GPU.
    fn take_in(&mut self, error: Option<GpuError>) -> Look {
        let (Some(GpuError { which, xid }), Some(discovery)) = (error, &mut self.discovery) else {
            return Look::Nothing;
        };
        if xid.is_some_and(|xid| self.options.config.nvidia.ignored_xids.contains(&xid)) {
            tracing::info!(?which, xid, "a program's error on a GPU");
            return Look::Nothing;
        }
        let why = xid.map_or_else(
            || "it is lost: it fell off its bus".to_owned(),
            |xid| format!("it had the critical error XID {xid}"),
        );
        if !discovery.is_sick(&which, &why) {
            return Look::Nothing;
        }
        tracing::error!(
            ?which,
            xid,
            "a GPU is unhealthy from now on, until it is reset or this is started again"
        );
        Look::Again
    }

    /// Tells endpoints what there is; a resource that is new gets one.
    fn tell(&mut self, resources: Vec<Resource>, first: bool) {
        if first && resources.is_empty() {
            tracing::info!("there are no devices to offer; those that come will be");
        }
        for resource in resources {
            let Some(sender) = self.resources.get(&resource.name) else {
                self.serve(resource);
                continue;
            };
            sender.send_if_modified(|told| {
                let (before, after) = (complaints(told), complaints(&resource));
                for (id, why) in after.iter().filter(|(id, _)| !before.contains_key(*id)) {
                    tracing::warn!(resource = resource.name, id, why, "a device is unhealthy");
                }
                for id in before.keys().filter(|id| !after.contains_key(*id)) {
                    tracing::info!(resource = resource.name, id, "a device is healthy again");
                }
                let changed = **told != resource;
                if changed {
                    *told = Arc::new(resource);
                }
                changed
            });
        }
    }

    fn serve(&mut self, resource: Resource) {
        let name = resource.name.clone();
        tracing::info!(
            resource = name,
            devices = resource.devices.len(),
            shares = resource.shares,
            "a resource is offered"
        );
        for (id, why) in complaints(&resource) {
            tracing::warn!(resource = name, id, why, "a device is unhealthy");
        }
        let (sender, receiver) = watch::channel(Arc::new(resource));
        let endpoint =
            Endpoint::new(&self.options.plugins_dir, receiver, self.generation.clone(), self.end.clone());
        self.endpoints.spawn(endpoint.run());
        self.resources.insert(name, sender);
    }

    /// Writes what our CDI names stand for, before anybody is told of them.
    fn describe(&mut self, sight: &Sight, first: bool) {
        let directory = &self.options.cdi_dir;
        let stands = self.described == sight.description && !first && self.describe_again.is_none();
        if stands && (!self.in_file || describe::is_there(directory)) {
            return;
        }
        let done = match &sight.description {
            Some(description) => describe::write(directory, description),
            None => describe::remove(directory),
        };
        match done {
            Ok(()) => {
                self.in_file = describe::is_there(directory);
                if self.describe_again.take().is_some() {
                    tracing::info!(directory = %directory.display(), "GPUs are described to runtimes again");
                }
                self.described.clone_from(&sight.description);
            }
            // A disk that is full, say: nobody tells when it is not any more.
            Err(error) => {
                let pause = self.describe_again.map_or(AGAIN, |(_, pause)| (pause * 2).min(AGAIN_AT_MOST));
                tracing::error!(directory = %directory.display(), %error, again_in = ?pause, "GPUs cannot be described to runtimes: containers that ask for one will not start");
                self.describe_again = Some((Instant::now() + pause, pause));
            }
        }
    }

    /// Has somebody wait for errors of the GPUs there are now.
    fn watch_gpus(&mut self, sight: &Sight) {
        let Some((source, gpus)) = &sight.watched else {
            self.watch = None;
            return;
        };
        let by_library = matches!(source, Source::Library(_));
        if self.watch.as_ref().is_some_and(|watch| watch.gpus == *gpus && watch.by_library == by_library) {
            return;
        }
        let watch = Watch {
            gpus: gpus.clone(),
            by_library,
            go_on: Arc::new(AtomicBool::new(true)),
            end: self.end.child_token(),
        };
        let tell = self.errors.0.clone();
        match source {
            Source::Library(library) => watch_by_library(library.clone(), Arc::clone(&watch.go_on), tell),
            Source::Files { .. } => watch_by_log(&self.options.root, watch.end.clone(), tell),
        }
        self.watch = Some(watch);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.go_on.store(false, Ordering::Relaxed);
        self.end.cancel();
    }
}

/// A thread of its own: NVIDIA's library waits in it.
fn watch_by_library(library: coracle_nvml::Nvml, go_on: Arc<AtomicBool>, tell: mpsc::Sender<GpuError>) {
    let work = move || {
        let told = |event| {
            let error = match event {
                coracle_nvml::Event::Xid { uuid, xid } => {
                    GpuError { which: Which::Uuid(uuid), xid: Some(xid) }
                }
                coracle_nvml::Event::Lost => GpuError { which: Which::Any, xid: None },
                coracle_nvml::Event::Unwatched { uuid } => {
                    tracing::warn!(
                        uuid,
                        "NVIDIA's library does not tell the errors of a GPU: it counts as healthy while it is there"
                    );
                    return;
                }
            };
            // Who does not listen any more has ended.
            let _ = tell.blocking_send(error);
        };
        let going_on = || go_on.load(Ordering::Relaxed) && !tell.is_closed();
        if let Err(error) = coracle_nvml::watch(&library, PATIENCE, going_on, told) {
            tracing::error!(%error, "errors of NVIDIA's GPUs are not learned of any more");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("nvml-events".to_owned()).spawn(work) {
        tracing::error!(%error, "errors of NVIDIA's GPUs are not learned of: no thread can be started");
    }
}

fn watch_by_log(root: &Path, end: CancellationToken, tell: mpsc::Sender<GpuError>) {
    let path = root.join("dev/kmsg");
    let mut log = match KernelLog::open(&path) {
        Ok(log) => log,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "errors of NVIDIA's GPUs are not learned of: the kernel's log cannot be read");
            return;
        }
    };
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                () = end.cancelled() => return,
                next = log.next() => next,
            };
            match next {
                Ok(xid) => {
                    let error = GpuError { which: Which::Address(xid.address), xid: Some(xid.number) };
                    if tell.send(error).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "errors of NVIDIA's GPUs are not learned of any more");
                    return;
                }
            }
        }
    });
}

/// Waits until then; for ever, if never.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => std::future::pending().await,
    }
}

fn of(happened: &Happened) -> Look {
    match happened {
        Happened::Anything => Look::Anew,
        Happened::Came(directory, name) | Happened::Went(directory, name) => {
            if concerns_nvidia(directory, name) { Look::Anew } else { Look::Again }
        }
    }
}
