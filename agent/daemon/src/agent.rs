//! The agent: everything put together, and its life.

mod abandoned;
mod addresses;
mod device_plugin;
mod devices;
mod dial;
mod dismantle;
mod event;
mod exec;
mod facts;
mod images;
mod lock;
mod machine;
mod manifest_url;
mod network;
mod node;
mod parts;
mod port_forward;
mod ports;
mod reload;
mod serve;
mod service;
mod shutdown;
mod signals;
mod thread;
mod wiring;

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Config;

pub(crate) use abandoned::clear_abandoned;
pub(crate) use dismantle::{dismantle, has_pods};
pub(crate) use serve::run;
pub(crate) use signals::Signals;
pub(crate) use wiring::{Agent, Inherited, Particulars};

/// Threads for work that blocks: more containers than this are not prepared at the same time.
const BLOCKING_THREADS: usize = 16;

/// Arenas all of these threads and the asynchronous ones share, so that memory one has freed serves the others.
pub(crate) const MALLOC_ARENAS: u16 = 2;

/// For how many descriptors there is room from the beginning: a pod of one container has ten.
const DESCRIPTORS: u32 = 4096;

/// How long work that blocks may take to its end.
const RUNTIME_END: Duration = Duration::from_secs(5);

/// Threads that end within so long of each other are of one burst.
const ONE_BURST: Duration = Duration::from_secs(5);

/// The runtime everything of the agent runs in.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    coracle_linux::keep_malloc_small(MALLOC_ARENAS);
    coracle_linux::make_room_for_descriptors(DESCRIPTORS).context("cannot make room for open files")?;
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .on_thread_stop(after_burst)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")
}

/// Ends the runtime of a node whose directories are to be removed: nothing of it is at work any more that could write there.
///
/// # Errors
/// Something still is, after all the time that plugins have.
pub(crate) fn end(runtime: Runtime, config: &Config) -> anyhow::Result<()> {
    runtime.shutdown_timeout(RUNTIME_END);
    if thread::all_done(config.network.cni_timeout + RUNTIME_END) {
        return Ok(());
    }
    anyhow::bail!(
        "work of the node still goes on, as that of a network plugin that hangs: see what it waits for, and try again"
    )
}

/// Gives back what a burst of work has freed. A thread for work that blocks ends when it had none for ten seconds, and all
/// those that a burst has made end soon after the first.
fn after_burst() {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_none_or(|last| last.elapsed() > ONE_BURST) {
        coracle_linux::give_free_memory_back();
        *last = Some(Instant::now());
    }
}

/// Log lines of the agent go to standard error, or with their fields to the journal where that is the same; `CORACLE_LOG`
/// says which (`debug`, `coracle_pod=trace`), else `usual`.
pub(crate) fn logging(usual: &str) {
    let filter = EnvFilter::try_from_env("CORACLE_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let journal = service::journal_layer();
    let unreachable = match journal {
        Ok(Some(journal)) => {
            // Refused only where a subscriber is set already, as in a test.
            let _ = tracing_subscriber::registry().with(filter).with(journal).try_init();
            return;
        }
        Ok(None) => None,
        Err(error) => Some(error),
    };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    if let Some(error) = unreachable {
        tracing::warn!(%error, "the journal cannot be written to; log lines are text on standard error");
    }
}
