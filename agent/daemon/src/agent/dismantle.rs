//! The end of a node that this host is to have no more.

use std::collections::BTreeSet;
use std::fs;
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use coracle_cgroup::Host;
use coracle_events::EventLog;
use coracle_nftables::Nftables;
use rustix::io::Errno;
use tokio::time::timeout;

use super::wiring::{Agent, Inherited, Particulars};
use super::{Signals, abandoned, clear_abandoned, thread::on_own_thread};
use crate::config::Config;
use crate::words::whole;

/// What pods may take beside their grace periods and their plugins' time.
const BESIDE: Duration = Duration::from_secs(60);

/// What there is of a node to take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing: none has been at work since the machine was booted, and no pod is on record from before.
    Nothing,
    /// No pod, but perhaps what is made for all: a bridge, a table of nftables, cgroups.
    NoPod,
    /// Something of pods.
    Pods,
}

/// Ends every pod of the node as its manifest's removal would, and takes back what the node has made of the host: its
/// network, its cgroups, what killed `coracle run`s have left. Its images and its directories stay.
///
/// It takes a node to take over pods. Where there are none, nobody needs to be able to start one: a package that cannot
/// work on its host can be removed.
///
/// # Errors
/// When an agent or a `coracle run` is at work, a pod cannot be ended, or something of pods cannot be taken back.
pub(crate) fn dismantle(config: &Config) -> anyhow::Result<()> {
    // What goes well is told in other words.
    super::logging("warn");
    let runtime = super::runtime()?;
    let done = runtime.block_on(async {
        clear_abandoned(config).await?;
        if let Some(pid) = abandoned::at_work(config)?.first() {
            bail!("`coracle run`, process {pid}, is at work on this host: end it first");
        }
        // Before anything is made.
        let left = left(config)?;
        if left == Left::Nothing {
            // Also a `coracle run` may have had a part in what nodes share.
            take_back_shared(config).await;
            return Ok(());
        }
        let inherited = Inherited::take(config).await?;
        match take_back(config, inherited).await {
            Err(error) if left == Left::NoPod => {
                eprintln!(
                    "warning: {}; no pod is on record, but a bridge of the node's stays until the machine is booted again",
                    whole(&error)
                );
                take_back_shared(config).await;
                Ok(())
            }
            done => done,
        }
    });
    // Also what has failed may have begun something.
    let ended = super::end(runtime, config);
    done.and(ended)
}

async fn take_back(config: &Config, inherited: Inherited) -> anyhow::Result<()> {
    let particulars = Particulars {
        images: &config.root_dir,
        tends_images: false,
        has_devices: false,
        looks_around: false,
        events: EventLog::in_memory(),
        listener: None,
    };
    let mut agent = Agent::start_with(config, inherited, particulars).await?;
    drop(agent.until_ready());
    // Whoever asks what becomes of the pods is answered.
    let (pods, node) = (agent.pods.clone(), config.clone());
    let ended = tokio::select! {
        ended = end_pods(&pods, &node) => ended,
        served = agent.serve(pending()) => served,
    };
    ended?;
    agent.remove_network(config).await?;
    remove_cgroups(config).await?;
    on_own_thread("network", remove_table).await?
}

/// Takes back what needs no node for it, as far as that can be.
async fn take_back_shared(config: &Config) {
    let cgroups = remove_cgroups(config).await;
    let table = on_own_thread("network", remove_table).await.map_err(Into::into).flatten();
    for error in [cgroups, table].into_iter().filter_map(Result::err) {
        eprintln!("warning: {}", whole(&error));
    }
}

/// Whether a node of this configuration has a pod, or something of one, on record.
pub(crate) fn has_pods(config: &Config) -> anyhow::Result<bool> {
    Ok(left(config)? == Left::Pods)
}

/// Tells what there is by the directories that a node has something in for each of its pods.
fn left(config: &Config) -> anyhow::Result<Left> {
    let (run, root) = (&config.run_dir, &config.root_dir);
    let of_pods = [
        run.join("records"),
        run.join("pods"),
        run.join("network"),
        root.join("checkpoints"),
        // Volumes, some of which are mounts.
        root.join("pods"),
    ];
    for directory in &of_pods {
        if !is_empty(directory)? {
            return Ok(Left::Pods);
        }
    }
    // Made before anything of the host is changed, and not there any more once the machine was booted again.
    let has_begun = run.join("pods").try_exists().context("cannot look for what a node has left")?;
    Ok(if has_begun { Left::NoPod } else { Left::Nothing })
}

/// Whether nothing is in a directory, or it is not there.
fn is_empty(directory: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot list {}", directory.display())),
    }
}

/// Removes the node's cgroups, but for those that a kubelet or another node has its pods in.
async fn remove_cgroups(config: &Config) -> anyhow::Result<()> {
    // Where there are none, none of them is the node's.
    let Ok(host) = Host::detect().map(Arc::new) else { return Ok(()) };
    for path in super::wiring::kubepods(host, config)?.remove_unused().await? {
        println!("cgroup {} stays: others use it", path.display());
    }
    Ok(())
}

async fn end_pods(pods: &coracle_pod::Pods<super::ports::NodePorts>, config: &Config) -> anyhow::Result<()> {
    let all = pods.snapshot();
    if all.is_empty() {
        return Ok(());
    }
    let longest = all.iter().map(|pod| pod.pod.spec.termination_grace_period).max().unwrap_or_default();
    let pods_have = if all.len() == 1 { "pod, which has" } else { "pods, which have" };
    println!("ending {} {pods_have} up to {} s; Ctrl-C cuts that short", all.len(), longest.as_secs());
    let mut signals = Signals::new()?;
    let ending = async {
        tokio::select! {
            () = pods.terminate_all(None) => {}
            () = signals.recv() => pods.terminate_all(Some(Duration::ZERO)).await,
        }
    };
    if timeout(longest + config.network.cni_timeout * 2 + BESIDE, ending).await.is_err() {
        let left: BTreeSet<String> = pods.snapshot().iter().map(|pod| pod.pod.key.to_string()).collect();
        bail!(
            "these pods did not end: {}; see what their processes wait for, and try again",
            left.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
    Ok(())
}

/// Removes the table that nodes of a host share, unless another uses it. Blocks.
fn remove_table() -> anyhow::Result<()> {
    let owners = match Nftables::open().and_then(|mut table| table.remove_table()) {
        Err(error) if is_without_nftables(&error) => return Ok(()),
        removed => removed?,
    };
    if let Some(owner) = owners.first() {
        println!(
            "table inet {} stays: container {} of network {} is in it, which is not of this node",
            coracle_nftables::TABLE,
            owner.container_id(),
            owner.network()
        );
    }
    Ok(())
}

/// Whether it is a kernel without nftables, and so without the table, that has refused: it has no netfilter netlink
/// (EPROTONOSUPPORT, when the socket is made), or nobody in it for what is asked of nftables (`nfnetlink_rcv_msg`: EINVAL,
/// of a batch EOPNOTSUPP). The questions themselves are such that one with nftables does not refuse them so.
fn is_without_nftables(error: &coracle_nftables::Error) -> bool {
    let coracle_nftables::Error::Netlink(error) = error else { return false };
    match error {
        coracle_netlink::Error::Open { source, .. } => {
            source.raw_os_error() == Some(Errno::PROTONOSUPPORT.raw_os_error())
        }
        refused => matches!(refused.errno(), Some(Errno::INVAL | Errno::OPNOTSUPP)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn no_node_is_started_where_none_has_been() {
        let host = tempfile::tempdir().unwrap();
        let (run, root) = (host.path().join("run"), host.path().join("root"));
        let overrides = Overrides {
            config: Some("/dev/null".into()),
            run_dir: Some(run.clone()),
            root_dir: Some(root.clone()),
            ..Overrides::default()
        };
        let config = Config::load(&overrides).unwrap();
        assert_eq!(left(&config).unwrap(), Left::Nothing);
        // As of an agent that has failed before it began.
        for directory in [run.join("records"), run.join("configs"), root.join("checkpoints")] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(run.join("agent.lock"), "").unwrap();
        assert_eq!(left(&config).unwrap(), Left::Nothing);
        fs::create_dir(run.join("pods")).unwrap();
        assert_eq!(left(&config).unwrap(), Left::NoPod);
        // After a boot that has taken the run directory with it.
        fs::remove_dir_all(&run).unwrap();
        fs::write(root.join("checkpoints/a.json"), "{}").unwrap();
        assert_eq!(left(&config).unwrap(), Left::Pods);
    }
}
