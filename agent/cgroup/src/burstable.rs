//! What the class of burstable pods weighs.
//!
//! As under the kubelet (`pkg/kubelet/cm/qos_container_manager_linux.go`): what its pods ask for of the CPUs together. So
//! under contention a burstable pod has, beside a guaranteed one, in proportion to what each has asked for. The class of
//! best-effort pods always has the least there is, and guaranteed pods are in no class.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle_model::{PodSpec, PodUid, QosClass, qos_class};

use crate::kubepods::blocking;
use crate::layout::Layout;
use crate::limits::{cpu_shares, pod_cpu_request};
use crate::write_limits::write_limits;
use crate::{Error, Kubepods, Limits};

/// The CPU requests of the burstable pods that are there.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// In thousandths of a CPU.
    of_pods: Mutex<HashMap<PodUid, u64>>,
    /// Locked by whoever gives the class its shares.
    weighing: tokio::sync::Mutex<()>,
}

impl Requests {
    fn of_pods(&self) -> MutexGuard<'_, HashMap<PodUid, u64>> {
        self.of_pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shares of the class.
    pub(crate) fn shares(&self) -> u64 {
        cpu_shares(self.of_pods().values().copied().fold(0, u64::saturating_add))
    }
}

impl Kubepods {
    /// Counts a pod whose cgroup is there, or is about to be made, for its class. Whether that has any to weigh, which
    /// changes nothing before [`Kubepods::weigh`].
    pub fn count(&self, uid: &PodUid, spec: &PodSpec) -> bool {
        let class = qos_class(spec);
        // Pods that the other driver has made lie in that one's tree.
        let counts = class == QosClass::Burstable && self.is_own(&self.pod(class, uid));
        if counts {
            self.requests().of_pods().insert(uid.clone(), pod_cpu_request(spec));
        }
        counts
    }

    /// Counts a pod whose cgroup is gone no more. Whether it was counted.
    pub fn discount(&self, uid: &PodUid) -> bool {
        self.requests().of_pods().remove(uid).is_some()
    }

    /// Gives the class of burstable pods, where it is there, the shares of those that are counted.
    ///
    /// # Errors
    /// When the kernel or systemd refuses; the class has the shares it had.
    pub async fn weigh(&self) -> Result<(), Error> {
        // One at a time, each with what counts by then.
        let _turn = self.requests().weighing.lock().await;
        let class = self.group(&self.layout().class_path(QosClass::Burstable));
        if !class.exists() {
            return Ok(());
        }
        let shares = self.requests().shares();
        let limits = Limits { cpu_shares: Some(shares), ..Limits::default() };
        if let Layout::Slices(slice) = self.layout() {
            return self.ensure_slice(&slice.of(QosClass::Burstable), &limits, "Burstable pods").await;
        }
        blocking(move || write_limits(class.host(), class.relative(), &limits, false)).await
    }
}
