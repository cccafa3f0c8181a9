//! `coracle run -f FILE...`: a node of one's own, in the foreground, for the pods of some files.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use coracle_controller::{decode_manifest, fixed};
use coracle_events::EventLog;
use coracle_model::{ContainerState, Pod, PodPhase, PodStatus};
use coracle_netlink::{Protocol, Socket};
use coracle_server::client::Client;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::agent::{self, Agent, Inherited, Particulars, Signals};
use crate::cli::stream;
use crate::config::Config;

/// What a shell makes of a program that was ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Runs the pods of `files` until all have ended, or Ctrl-C ends them; prints their logs; leaves nothing
/// behind. The images are those of the configuration's root directory.
pub(crate) fn run(config: &Config, files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    agent::logging("info");
    let desired = match fixed(files, decode_manifest, Timestamp::now()) {
        Ok(desired) if desired.pods.is_empty() => bail!("no pod in the given files"),
        Ok(desired) => desired,
        Err(problems) => {
            let all: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            bail!("{}", all.join("\n"));
        }
    };
    let runtime = agent::runtime()?;
    runtime.block_on(agent::clear_abandoned(config))?;
    let place = Place::new(config)?;
    let code = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let particulars = Particulars {
            images: &config.root_dir,
            tends_images: false,
            has_devices: false,
            looks_around: true,
            events: EventLog::in_memory(),
            listener: None,
        };
        let inherited = Inherited::take(&place.config).await?;
        let mut agent = Agent::start_with(&place.config, inherited, particulars).await?;
        drop(agent.until_ready());
        let pods = agent.pods.clone();
        let client = Client::new(place.config.socket());
        let (finish, finished) = oneshot::channel::<()>();
        let printing = tokio::spawn(stream::print_logs(client, async move {
            let _ = finished.await;
        }));
        agent.configs.replace(desired.configs);
        for wanted in desired.pods.into_values() {
            pods.set_desired(wanted.pod, None)?;
        }
        let ended = all_ended(&agent);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = agent.serve(async move {
            let _ = stopped.await;
        });
        let work = async {
            let code = tokio::select! {
                code = ended => code,
                () = signals.recv() => INTERRUPTED,
            };
            if code == INTERRUPTED {
                // A second signal cuts the grace period short.
                tokio::select! {
                    () = pods.terminate_all(None) => {}
                    () = signals.recv() => pods.terminate_all(Some(Duration::ZERO)).await,
                }
            }
            let _ = finish.send(());
            let printed = printing.await;
            pods.terminate_all(None).await;
            let _ = stop.send(());
            printed??;
            anyhow::Ok(code)
        };
        let (served, code) = tokio::join!(serving, work);
        served?;
        agent.remove_network(&place.config).await?;
        agent.remove_cgroups().await?;
        code
    })?;
    agent::end(runtime, &place.config)?;
    place.remove()?;
    Ok(ExitCode::from(code))
}

/// Waits until every pod came to its end; what the first one that failed exited with, or 0.
fn all_ended(agent: &Agent) -> impl Future<Output = u8> + use<> {
    let pods = agent.pods.clone();
    async move {
        let mut changes = pods.changes();
        loop {
            let snapshots = pods.snapshot();
            if !snapshots.is_empty() && snapshots.iter().all(|pod| pod.status.phase.is_terminal()) {
                let failed = snapshots.iter().find(|pod| pod.status.phase == PodPhase::Failed);
                return failed.map_or(0, |failed| exit_code(&failed.pod, &failed.status));
            }
            if changes.changed().await.is_err() {
                return 1;
            }
        }
    }
}

/// The exit code of the first container that failed. What a sidecar makes of being ended with the pod is not the pod's.
fn exit_code(pod: &Pod, status: &PodStatus) -> u8 {
    let sidecar = |name: &str| {
        pod.spec.init_containers.iter().any(|init| init.name.as_str() == name && init.is_sidecar())
    };
    let inits = status.init_container_statuses.iter().filter(|init| !sidecar(init.name.as_str()));
    let containers = inits.chain(&status.container_statuses);
    let codes = containers.filter_map(|container| match &container.state {
        ContainerState::Terminated(terminated) => Some(terminated.exit_code),
        _ => None,
    });
    codes.filter(|code| *code != 0).find_map(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// The directories and the cgroup of a node of one's own, beside those of the configuration.
pub(crate) struct Place {
    config: Config,
    root: PathBuf,
}

// === impl Place ===

impl Place {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let pid = std::process::id();
        let mut place = Self::of(config, pid);
        // What one of the same process number has left was cleared away, unless that failed.
        for dir in [&place.root, &place.config.run_dir] {
            if dir.exists() {
                bail!("{} is there: a `coracle run` that was killed has left it; remove it", dir.display());
            }
        }
        let ranges = free_ranges(pid, config)?;
        place.config.network = place.config.network.apart(&network(pid), &bridge(pid), ranges);
        Ok(place)
    }

    /// The one of the process with this number.
    pub(crate) fn of(config: &Config, pid: u32) -> Self {
        let name = format!("run-{pid}");
        let root = config.root_dir.join(&name);
        let run_dir = beside(&config.run_dir, &name);
        let private = Config {
            log_dir: root.join("logs/pods"),
            cgroup_parent: config.cgroup_parent.join(format!("coracle-{name}")),
            root_dir: root.clone(),
            run_dir,
            network: config.network.apart(&network(pid), &bridge(pid), config.network.pod_cidrs()),
            ..config.clone()
        };
        Self { config: private, root }
    }

    /// The configuration of the node in it.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Removes its directories.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        remove_all(&self.config.run_dir)?;
        remove_all(&self.root)
    }
}

/// The default network of the one of this process.
fn network(pid: u32) -> String {
    format!("coracle-run-{pid}")
}

/// Its bridge: process numbers have seven digits at most.
fn bridge(pid: u32) -> String {
    format!("cr{pid}")
}

/// Addresses for its pods, of the families that the node's pods have, which the host has no way to yet: beside those
/// of the node's pods, in 10.84.0.0/16 and fd83:c07a:c1e1::/48.
fn free_ranges(pid: u32, config: &Config) -> anyhow::Result<Vec<IpNet>> {
    let mut socket = Socket::open(Protocol::Route)?;
    let routes = socket.routes()?.into_iter().filter(|route| !route.is_default());
    let taken: Vec<IpNet> = routes.map(|route| route.destination).chain(config.network.pod_cidrs()).collect();
    let [high, low] = [pid.to_be_bytes()[2], pid.to_be_bytes()[3]];
    let free = |family: &IpNet| {
        (0..=u8::MAX).find_map(|step| {
            let third = low.wrapping_add(step);
            let range = match family {
                IpNet::V4(_) => IpNet::new(Ipv4Addr::new(10, 84, third, 0).into(), 24),
                IpNet::V6(_) => {
                    let fourth = u16::from_be_bytes([high, third]);
                    IpNet::new(Ipv6Addr::new(0xfd83, 0xc07a, 0xc1e1, fourth, 0, 0, 0, 0).into(), 64)
                }
            };
            let range = range.ok()?;
            let overlaps = |other: &IpNet| other.contains(&range) || range.contains(other);
            (!taken.iter().any(overlaps)).then_some(range)
        })
    };
    let ranges: Option<Vec<IpNet>> = config.network.pod_cidrs().iter().map(free).collect();
    ranges.context(
        "the host has routes to all of 10.84.0.0/16: there are no addresses for the pods of `coracle run`",
    )
}

/// `/run/coracle` and `run-7` make `/run/coracle-run-7`.
fn beside(path: &Path, name: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push("-");
    beside.push(name);
    beside.into()
}

fn remove_all(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
