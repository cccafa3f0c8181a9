//! The end of a node that this host is to have no more.

use std::collections::BTreeSet;
use std::future::pending;
use std::time::Duration;

use anyhow::bail;
use coracle_events::EventLog;
use coracle_nftables::Nftables;
use tokio::time::timeout;

use super::wiring::{Agent, Inherited, Particulars};
use super::{Signals, abandoned, clear_abandoned, thread::on_own_thread};
use crate::config::Config;

/// What pods may take beside their grace periods and their plugins' time.
const BESIDE: Duration = Duration::from_secs(60);

/// Ends every pod of the node as its manifest's removal would, and takes back what the node has made of the host: its
/// network, its cgroups, what killed `coracle run`s have left. Its images and its directories stay.
///
/// # Errors
/// When an agent or a `coracle run` is at work, a pod cannot be ended, or something cannot be taken back.
pub(crate) fn dismantle(config: &Config) -> anyhow::Result<()> {
    // What goes well is told in other words.
    super::logging("warn");
    let runtime = super::runtime()?;
    let done = runtime.block_on(async {
        clear_abandoned(config).await?;
        if let Some(pid) = abandoned::at_work(config)?.first() {
            bail!("`coracle run`, process {pid}, is at work on this host: end it first");
        }
        let particulars = Particulars {
            images: &config.root_dir,
            tends_images: false,
            has_devices: false,
            looks_around: false,
            events: EventLog::in_memory(),
            listener: None,
        };
        let inherited = Inherited::take(config).await?;
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
        agent.remove_cgroups().await?;
        on_own_thread("network", remove_table).await?
    });
    // Also what has failed may have begun something.
    let ended = super::end(runtime, config);
    done.and(ended)
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
    let owners = Nftables::open()?.remove_table()?;
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
