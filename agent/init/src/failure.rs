//! Failures that name their step, their path and the kernel's error number.

use std::fmt::Display;
use std::path::Path;

use coracle_init::protocol::Failure;
use rustix::io::Errno;

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What is being done when it fails, in the order of doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Control,
    Specification,
    CgroupAttach,
    Namespace,
    PrivateProc,
    Sysctl,
    RootFilesystem,
    Mount,
    Device,
    Hook,
    MaskedPath,
    ReadonlyPath,
    WorkingDirectory,
    Terminal,
    SecurityLabel,
    OomScoreAdj,
    StandardStreams,
    ResourceLimit,
    Identity,
    Capabilities,
    NoNewPrivileges,
    Seccomp,
    Clone,
    Exec,
}

impl Step {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Control => "control socket",
            Self::Specification => "specification",
            Self::CgroupAttach => "cgroup attach",
            Self::Namespace => "namespace",
            Self::PrivateProc => "private procfs",
            Self::Sysctl => "sysctl",
            Self::RootFilesystem => "root file system",
            Self::Mount => "mount",
            Self::Device => "device",
            Self::Hook => "hook",
            Self::MaskedPath => "masked path",
            Self::ReadonlyPath => "read-only path",
            Self::WorkingDirectory => "working directory",
            Self::Terminal => "terminal",
            Self::SecurityLabel => "security label",
            Self::OomScoreAdj => "oom_score_adj",
            Self::StandardStreams => "standard streams",
            Self::ResourceLimit => "resource limit",
            Self::Identity => "identity",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivileges => "no_new_privs",
            Self::Seccomp => "seccomp",
            Self::Clone => "clone",
            Self::Exec => "exec",
        }
    }

    /// A failure that is not the kernel's.
    pub(crate) fn refuse(self, path: Option<&Path>, why: impl Display) -> Failure {
        self.failure(path, None, why)
    }

    fn failure(self, path: Option<&Path>, errno: Option<Errno>, why: impl Display) -> Failure {
        let path = path.map(|path| path.to_string_lossy().into_owned());
        let message = match &path {
            Some(path) => format!("{} {path}: {why}", self.name()),
            None => format!("{}: {why}", self.name()),
        };
        Failure { step: self.name().to_owned(), path, errno: errno.map(Errno::raw_os_error), message }
    }
}

/// Names the step a system call belongs to.
pub(crate) trait Context<T> {
    /// On no path. `what` was tried.
    fn at(self, step: Step, what: &str) -> Result<T>;

    /// On a path. `what` was tried.
    fn on(self, step: Step, path: &Path, what: &str) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn at(self, step: Step, what: &str) -> Result<T> {
        self.map_err(|errno| step.failure(None, Some(errno), format_args!("{what}: {}", describe(errno))))
    }

    fn on(self, step: Step, path: &Path, what: &str) -> Result<T> {
        self.map_err(|errno| {
            step.failure(Some(path), Some(errno), format_args!("{what}: {}", describe(errno)))
        })
    }
}

/// The error's text, as `strerror` has it.
pub(crate) fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_step_path_and_error() {
        let failed: std::result::Result<(), Errno> = Err(Errno::NOENT);
        let failure = failed.on(Step::Mount, Path::new("/data"), "opening").unwrap_err();
        assert_eq!(failure.step, "mount");
        assert_eq!(failure.path.as_deref(), Some("/data"));
        assert_eq!(failure.errno, Some(2));
        assert_eq!(failure.message, "mount /data: opening: No such file or directory");
    }
}
