//! What pause has once it is started.

use crate::children::Children;
use crate::descriptors::Descriptor;
use crate::reaper::Reaper;
use crate::shared::SharedPage;
use crate::sys::Rlimit;

/// The state of this process.
pub(crate) struct Sandbox {
    /// Of `coracle_pause_wire::sandbox`.
    pub(crate) flags: u32,
    pub(crate) pid: u32,
    /// The only user that may connect.
    pub(crate) user: u32,
    /// Why oom_score_adj could not be lowered, or 0.
    pub(crate) oom_score_adj_errno: i32,
    /// The limit on descriptors pause was started with, for its children.
    pub(crate) nofile: Rlimit,
    /// Received descriptors from this number on are refused, so that some stay for pause's own needs.
    pub(crate) descriptor_limit: i32,
    pub(crate) shared: &'static SharedPage,
    /// Readable when a child ended or a termination signal came.
    pub(crate) signals: Descriptor,
    /// Pid 1 of the shared pid namespace.
    pub(crate) reaper: Option<Reaper>,
    pub(crate) children: &'static mut Children,
    pub(crate) ending: Ending,
}

/// When pause ends by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It does not.
    No,
    /// A termination signal came: when nothing that was spawned or registered lives.
    WithoutLiving,
    /// Shutdown was granted: when it has no child at all.
    WithoutChildren,
}
