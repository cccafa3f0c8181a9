//! Why a container-init is gone that has not said so itself.

use std::fmt;
use std::time::Duration;

use coracle_cgroup::Cgroup;

use crate::blocking::blocking;
use crate::error::Error;
use crate::pause::{Exit, ExitStatus};
use crate::pod::PodState;

/// How long pause may take to tell how a process ended whose socket is closed. Only a starved host needs so long.
const TOLD_LIMIT: Duration = Duration::from_secs(2);

const SIGKILL: i32 = 9;

/// How a container-init ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitEnd {
    /// What pause saw, if it was told in time.
    pub(crate) exit: Option<Exit>,
    /// The OOM killer was in the container's cgroup.
    pub(crate) oom: bool,
}

/// Adds how init ended to the error that it has ended.
pub(crate) async fn explained<T>(
    result: Result<T, Error>,
    state: &PodState,
    pid: u32,
    since: u64,
    cgroup: &Cgroup,
) -> Result<T, Error> {
    let Err(Error::InitDied(InitEnd { exit: None, .. })) = result else { return result };
    let told = state.data().execs.wait(pid, since);
    let exit = tokio::time::timeout(TOLD_LIMIT, told).await.ok().and_then(Result::ok);
    let cgroup = cgroup.clone();
    // A cgroup v1 tells it only as long as it is there.
    let oom = blocking(move || Ok(cgroup.exists() && cgroup.oom_kills()? > 0)).await.unwrap_or(false);
    Err(Error::InitDied(InitEnd { exit, oom }))
}

impl fmt::Display for InitEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Exit { status, failed, .. }) = self.exit else {
            return f.write_str("how is not known; the kernel's log may say why");
        };
        match (failed, status) {
            (Some((step, errno)), _) => write!(f, "pause could not execute it: {step:?}: {errno}"),
            (None, ExitStatus::Code(code)) => write!(f, "it exited with code {code}"),
            (None, ExitStatus::Signal(SIGKILL)) if self.oom => f.write_str(
                "the OOM killer ended it: the container's memory limit is too low for it to be prepared",
            ),
            (None, ExitStatus::Signal(SIGKILL)) => f.write_str(
                "it was killed (signal 9); where the host ran out of memory, the kernel's log says so",
            ),
            (None, ExitStatus::Signal(signal)) => write!(f, "signal {signal} ended it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_pause_wire::Step;
    use jiff::Timestamp;
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn each_end_is_told_in_its_own_words() {
        let exit = |status, failed| Some(Exit { status, time: Timestamp::UNIX_EPOCH, failed });
        let failed = Some((Step::ChildExec, Errno::NOMEM));
        let cases = [
            (None, false, "is not known"),
            (exit(ExitStatus::Code(127), failed), false, "pause could not execute it: ChildExec: "),
            (exit(ExitStatus::Code(128), None), false, "it exited with code 128"),
            (exit(ExitStatus::Signal(9), None), true, "memory limit is too low"),
            (exit(ExitStatus::Signal(9), None), false, "it was killed (signal 9)"),
            (exit(ExitStatus::Signal(11), None), true, "signal 11 ended it"),
        ];
        for (exit, oom, said) in cases {
            let text = Error::InitDied(InitEnd { exit, oom }).to_string();
            assert!(text.starts_with("container-init ended before it reported: "), "{text}");
            assert!(text.contains(said), "{text}");
        }
    }
}
