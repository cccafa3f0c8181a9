//! What becomes of networks with agents, and with the rule sets of others.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::time::Duration;

use coracle_linux::ReadinessFd;
use coracle_model::{Pod, PodUid};
use coracle_netlink::{Link, LinkId, Protocol, Socket};
use coracle_network::{Attach, NetworkError};
use coracle_nftables::{Change, Watch};
use coracle_sandbox::{Runtime, SandboxStage};
use tokio::io::Interest;
use tokio::time::sleep;

use super::PodNetwork;
use crate::agent::thread::on_own_thread;

/// How long after a failure something is tried again, first and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// How long the kernel has to clear a namespace away, also when there are many.
const NAMESPACE_END: Duration = Duration::from_secs(5);

// === impl PodNetwork ===

impl PodNetwork {
    /// Takes over what a sandbox has that an agent before this one has made.
    pub(crate) async fn adopt(&self, pod: &Pod, runtime: &Runtime) {
        if pod.spec.host.network {
            return self.is_hosts(&pod.uid);
        }
        // Without one there is nothing to be asked: what is on record counts.
        let Ok(netns) = runtime.network_namespace(&pod.uid) else { return };
        let attempt = runtime.observe(&pod.uid).sandbox_attempt;
        if self.inner.driver.knows(&pod.uid, attempt) {
            return;
        }
        let (network, owned) = (self.clone(), pod.clone());
        let adopted = on_own_thread("network", move || {
            let attach = Attach::of_pod(&owned, attempt, &netns)?;
            network.inner.driver.adopt(&attach)
        });
        match adopted.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(pod = %pod.key, %error, "the pod's addresses cannot be read back");
            }
            Err(error) => tracing::warn!(pod = %pod.key, %error, "the pod's addresses cannot be read back"),
        }
    }

    /// Takes back what belongs to no sandbox there is, and sees whether the network is ready. No pod is attached
    /// before; what fails is tried again beside them.
    pub(crate) async fn collect(self, valid: BTreeSet<(PodUid, u32)>, runtime: Runtime) {
        let on_record = self.inner.driver.on_record();
        let stale: Vec<_> = on_record.into_iter().filter(|id| !valid.contains(id)).collect();
        let network = self.clone();
        let collected = on_own_thread("network", move || {
            let collected = match network.inner.beside_others {
                true => Ok(()),
                false => network.inner.driver.gc(&valid),
            };
            network.look();
            collected
        });
        match collected.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "what gone pods have left of their networks stays for now")
            }
            Err(error) => tracing::warn!(%error, "what gone pods have left of their networks stays for now"),
        }
        self.inner.collected.send_replace(true);
        let mut wait = FIRST;
        loop {
            let owed = self.inner.driver.on_record();
            let owed: Vec<_> = stale.iter().filter(|id| owed.contains(id)).cloned().collect();
            if owed.is_empty() {
                return;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST);
            for (uid, attempt) in owed {
                self.take_back(&uid, attempt, &runtime).await;
            }
        }
    }

    /// Takes note of the host's ends of what connects a pod, for [`PodNetwork::see_to_the_end_of`]. Blocks.
    pub(super) fn note_ends_of(&self, pod: &PodUid) {
        match self.inner.driver.host_ends(pod) {
            Ok(ends) if ends.is_empty() => {}
            Ok(ends) => {
                let mut ending = self.inner.ending.lock().unwrap_or_else(PoisonError::into_inner);
                ending.entry(pod.clone()).or_default().extend(ends);
            }
            // Unless somebody holds the namespace they end with it all the same.
            Err(error) => tracing::warn!(%pod, %error, "which interfaces the pod has is not known"),
        }
    }

    /// Interfaces that end with a pod's namespace, which has ended with its pause: unless somebody else holds it, as
    /// who looks into it with `nsenter` does. Then they would be on the network for as long, with the pod's address.
    /// Only those that were noted are meant: the pod may be back by the time, under its UID, and has one of the same
    /// name.
    pub(crate) fn see_to_the_end_of(&self, pod: &PodUid) {
        let noted = self.inner.ending.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
        let Some(ends) = noted else { return };
        tokio::spawn(async move {
            sleep(NAMESPACE_END).await;
            let removed = on_own_thread("network", move || {
                for end in &ends {
                    if end.remove()? {
                        tracing::info!(
                            interface = %end,
                            "a pod's network namespace is held by somebody; its interface was removed"
                        );
                    }
                }
                Ok::<_, coracle_netlink::Error>(())
            });
            if let Ok(Err(error)) = removed.await {
                tracing::warn!(%error, "an interface of a pod that is gone is still there");
            }
        });
    }

    /// Takes back whatever is on record, and removes the default network's bridge, unless others have interfaces on it:
    /// of an agent that is gone for good.
    pub(crate) async fn remove(&self, bridge: &str) -> anyhow::Result<()> {
        let (network, bridge) = (self.clone(), bridge.to_owned());
        let removed = on_own_thread("network", move || {
            for (uid, attempt) in network.inner.driver.on_record() {
                network.inner.driver.del(&uid, Some(attempt), false)?;
            }
            let mut socket = Socket::open(Protocol::Route)?;
            let Some(found) = socket.link(LinkId::Name(&bridge))? else { return Ok(()) };
            // Those of pods go with the namespaces that are ending.
            let is_others =
                |port: &Link| port.controller == Some(found.index) && !port.alias.starts_with("coracle:");
            if let Some(port) = socket.links()?.iter().find(|link| is_others(link)) {
                tracing::warn!(interface = %bridge, port = %port.name, "the pods' bridge stays: others use it");
                return Ok(());
            }
            Ok(socket.remove_link(LinkId::Index(found.index))?)
        });
        removed.await?
    }

    /// Takes back what was left of a pod, unless it has a sandbox again by now.
    async fn take_back(&self, uid: &PodUid, attempt: u32, runtime: &Runtime) {
        let turn = self.turn(uid).await;
        if runtime.observe(uid).sandbox != SandboxStage::Absent {
            return;
        }
        let (network, pod) = (self.clone(), uid.clone());
        let deleted = on_own_thread("network", move || {
            let _turn = turn;
            network.inner.driver.del(&pod, Some(attempt), false)
        });
        if let Ok(Err(error)) = deleted.await {
            tracing::warn!(pod = %uid, %error, "what the pod has left of its network stays for now");
        }
    }

    /// Makes again what somebody else has taken out of the host's rule set, whenever the kernel tells of it, and
    /// before that what was taken out while no agent listened: `nft -f` with a file that begins with `flush ruleset`,
    /// as a restart of nftables does it, takes all there is.
    ///
    /// # Errors
    /// Where the kernel cannot be listened to.
    pub(crate) async fn follow_rule_set(&self) -> io::Result<()> {
        let mut watch = Watch::open().map_err(io::Error::other)?;
        let readable = ReadinessFd::new(watch.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        // Not before what agents before this one have left is collected, which begins once the node is ready: a
        // repair would only wait for that.
        let mut collected = self.inner.collected.subscribe();
        let _ = collected.wait_for(|collected| *collected).await;
        // What is there is left alone.
        if !self.inner.driver.on_record().is_empty() {
            self.repair().await;
        }
        loop {
            readable.readable().await?.clear_ready();
            let changes = watch.changes().map_err(io::Error::other)?;
            if changes.iter().any(|change| self.concerns(change)) {
                tracing::warn!(
                    "somebody has changed what the node has in the host's rule set; it is made again"
                );
                self.repair().await;
            }
        }
    }

    /// Whether anything of it is to be made again: what was taken back is not.
    fn concerns(&self, change: &Change) -> bool {
        let Change::Elements(owners) = change else { return true };
        let on_record = self.inner.driver.on_record();
        let ids: BTreeSet<String> =
            on_record.iter().map(|(uid, attempt)| format!("{uid}-{attempt}")).collect();
        owners.iter().any(|owner| ids.contains(owner.container_id()))
    }

    async fn repair(&self) {
        let mut wait = FIRST;
        loop {
            let network = self.clone();
            let repaired: io::Result<Result<(), NetworkError>> =
                on_own_thread("network", move || network.inner.driver.repair_all()).await;
            match repaired {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::warn!(%error, "the host's rule set lacks what pods need"),
                Err(error) => tracing::warn!(%error, "the host's rule set lacks what pods need"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST);
        }
    }
}
