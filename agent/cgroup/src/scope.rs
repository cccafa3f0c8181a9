//! A pod's cgroup as a scope of systemd, systemd.scope(5).
//!
//! systemd makes the cgroup and owns its limits; what is below is the agent's (`Delegate=yes`). The order of things:
//!
//! ```text
//! a process that waits ──> StartTransientUnit with it ──> cgroup of pause made, the process moved there
//!                                                          ──> controllers handed down ──> pause moves in itself
//! ```
//!
//! A scope begins with a process and ends when the last has left it. It must not end before pause is in it, and a
//! cgroup with processes in it cannot hand controllers down: hence the process that waits, and its way. It ends by
//! itself when the agent does.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use coracle_systemd::{Property, Systemd, UnitName};
use rustix::process::Pid;
use tokio::time::{Instant, sleep};

use crate::limits::{CPU_PERIOD_US, cpu_weight};
use crate::{Cgroup, Error, Limits, files};

/// How long a scope of the same name, whose processes have ended, may take to go.
const NAME_FREE: Duration = Duration::from_secs(30);
/// The first pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// systemd has its own limit for stopping a unit, `DefaultTimeoutStopSec=`; a pod is given no more by its scope.
const MOST_STOPPING: Duration = Duration::from_secs(90);

/// The inode of the first pid namespace, the kernel's `PROC_PID_INIT_INO`.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// What a pod is to have.
#[derive(Clone, Debug)]
pub struct PodSettings {
    /// What its containers may use together.
    pub limits: Limits,
    /// Whose it is, for people: `namespace/name`.
    pub description: String,
    /// How long its processes may take to end when systemd stops it: when the machine goes down and the agent has not
    /// ended it before.
    pub grace: Duration,
}

/// A process that a pod's cgroup can begin with: it does nothing until it is ended.
#[derive(Clone, Copy, Debug)]
pub struct FirstProcess<'a> {
    /// Its number, in this process's pid namespace.
    pub pid: Pid,
    /// The process.
    pub pidfd: BorrowedFd<'a>,
}

/// A unit for a pod.
pub(crate) struct Scope<'a> {
    pub(crate) unit: UnitName,
    pub(crate) slice: UnitName,
    pub(crate) cgroup: &'a Cgroup,
}

// === impl Scope ===

impl Scope<'_> {
    /// Has systemd make the scope, with a process in it. `agent` is the service that starts pods, if it is one.
    pub(crate) async fn start(
        &self,
        systemd: &Systemd,
        settings: &PodSettings,
        first: FirstProcess<'_>,
        agent: Option<&UnitName>,
    ) -> Result<(), Error> {
        let mut properties = self.properties(settings, agent);
        let pidfd = first.pidfd.try_clone_to_owned().map_err(Error::Pidfd)?;
        properties.push(process(pidfd, first.pid)?);
        let deadline = Instant::now() + NAME_FREE;
        let mut pause = FIRST_PAUSE;
        loop {
            match systemd.start_transient(&self.unit, &properties).await {
                Ok(()) => break,
                // The answer to a call before this was lost: it is this process that is there.
                Err(error) if error.is_unit_exists() && self.holds(first.pid)? => break,
                // One whose processes have ended, and that systemd has not forgotten yet.
                Err(error) if error.is_unit_exists() && Instant::now() < deadline => {
                    systemd.stop(&self.unit).await?;
                    systemd.reset_failed(&self.unit).await?;
                    sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.holds(first.pid)? {
            return Ok(());
        }
        Err(Error::NotInScope {
            unit: self.unit.clone(),
            path: self.cgroup.path(),
            found: membership(first.pid)?,
        })
    }

    /// Has systemd forget the scope once its processes have ended: its name is free then.
    pub(crate) async fn stop(&self, systemd: &Systemd) -> Result<(), Error> {
        match systemd.stop(&self.unit).await {
            // Whose scope it was is gone, and nobody else will remove it.
            Err(error) if error.is_absent() => Ok(()),
            stopped => Ok(stopped?),
        }
    }

    fn holds(&self, pid: Pid) -> Result<bool, Error> {
        Ok(Path::new(&membership(pid)?).starts_with(self.cgroup.path()))
    }

    fn properties(&self, settings: &PodSettings, agent: Option<&UnitName>) -> Vec<Property> {
        let text = |name, text: &str| Property::Text(name, text.to_owned());
        let stopping = settings.grace.clamp(Duration::from_secs(1), MOST_STOPPING);
        let mut properties = vec![
            text("Description", &format!("Pod {}", settings.description)),
            text("Slice", self.slice.as_str()),
            Property::Flag("Delegate", true),
            text("CollectMode", "inactive-or-failed"),
            // That a process was killed for want of memory is its container's matter.
            Property::IfKnown(Box::new(text("OOMPolicy", "continue"))),
            // When the machine goes down, systemd stops scopes as it stops services. It is the agent's turn first, which
            // ends pods in their order or leaves them; what is left is asked to end while there still are network and
            // file systems, and killed after its grace period. Units stop in the reverse of the order they start in.
            Property::Texts("After", vec!["network.target".to_owned(), "local-fs.target".to_owned()]),
            Property::Number("TimeoutStopUSec", micros(stopping)),
        ];
        properties.extend(agent.map(|unit| Property::Texts("Before", vec![unit.to_string()])));
        properties.extend(limits(&settings.limits));
        // Without it a scope may have 15 % of the tasks the host may have.
        properties.push(Property::Number("TasksMax", settings.limits.pids.unwrap_or(u64::MAX)));
        properties
    }
}

/// The properties of a unit that are its limits, but the number of tasks. What is not limited is not among them.
pub(crate) fn limits(limits: &Limits) -> Vec<Property> {
    let number = |name, value: Option<u64>| value.map(|value| Property::Number(name, value));
    [
        number("CPUWeight", limits.cpu_shares.map(cpu_weight)),
        number("CPUQuotaPerSecUSec", limits.cpu_quota_us.map(quota_per_second)),
        number("MemoryMax", limits.memory),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// systemd's quota for one in each period: in microseconds of CPU time in a second, whole percents, rounded up.
///
/// systemd keeps what it is told of a unit as a setting in a file, in whole percents, and reads that when it is
/// reloaded: what it was told else would change then. It is 1 % of a CPU at most that the containers of a pod cannot
/// have together anyway, because each is held to its own quota exactly.
fn quota_per_second(quota_us: u64) -> u64 {
    const PERCENT: u64 = 10_000;
    quota_us.saturating_mul(1_000_000 / CPU_PERIOD_US).div_ceil(PERCENT).saturating_mul(PERCENT)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The process for systemd: by number only where that is the host's.
fn process(pidfd: OwnedFd, pid: Pid) -> Result<Property, Error> {
    let namespace = rustix::fs::stat("/proc/self/ns/pid").map_err(|errno| Error::Pidfd(errno.into()))?;
    let number =
        (namespace.st_ino == FIRST_PID_NAMESPACE).then(|| pid.as_raw_nonzero().get().cast_unsigned());
    Ok(Property::Process(pidfd, number))
}

/// The cgroup of a process in the v2 tree.
fn membership(pid: Pid) -> Result<String, Error> {
    let text = files::read(&Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("cgroup"))?;
    let found = text.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(found.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MIN_CPU_QUOTA_US, cpu_quota_us};

    #[test]
    fn quotas_are_whole_percents_and_no_less() {
        for (milli_cpu, per_second) in
            [(1, 10_000), (10, 10_000), (155, 160_000), (1000, 1_000_000), (2500, 2_500_000)]
        {
            assert_eq!(cpu_quota_us(milli_cpu).map(quota_per_second), Some(per_second), "{milli_cpu}");
        }
        assert_eq!(quota_per_second(MIN_CPU_QUOTA_US), 10_000);
    }

    #[test]
    fn what_has_no_limit_is_left_out() {
        assert!(limits(&Limits::default()).is_empty());
        let all =
            Limits { cpu_shares: Some(1024), cpu_quota_us: Some(50_000), memory: Some(4096), pids: Some(9) };
        let said = format!("{:?}", limits(&all));
        assert_eq!(
            said,
            r#"[Number("CPUWeight", 100), Number("CPUQuotaPerSecUSec", 500000), Number("MemoryMax", 4096)]"#
        );
    }
}
