//! The steps an error names.

use core::fmt;

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        /// A step that failed, of pause's start, of a request, or of a child before its program ran.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step {
            $($(#[doc = $doc])+ $name,)+
            /// A step of a later version.
            Unknown(u16),
        }

        impl Step {
            /// The step of this number. 0 never is a step.
            pub const fn from_wire(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)+
                    other => Self::Unknown(other),
                }
            }

            /// Its number on the wire.
            pub const fn to_wire(self) -> u16 {
                match self {
                    $(Self::$name => $number,)+
                    Self::Unknown(number) => number,
                }
            }

            /// What was tried, as the object of "could not".
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                    Self::Unknown(_) => "do a step this version does not know",
                }
            }
        }
    };
}

steps! {
    /// The arguments are not those of [`launch`](crate::launch).
    Arguments = 1, "read its arguments";
    /// Putting /dev/null in place of the standard descriptors, or closing what it should not have.
    Descriptors = 2, "put its descriptors in order";
    /// Default dispositions, mask, signalfd.
    Signals = 3, "set up its signals";
    /// Writing itself into a `cgroup.procs`.
    Cgroup = 4, "attach itself to the pod's cgroup";
    /// `unshare` of the pod's namespaces.
    Unshare = 5, "unshare the pod's namespaces";
    /// Setting `lo` up.
    Loopback = 6, "bring the loopback interface up";
    /// `sethostname`.
    Hostname = 7, "set the host name";
    /// `PR_SET_CHILD_SUBREAPER`.
    Subreaper = 8, "become a child subreaper";
    /// `listen`.
    Listen = 9, "listen on its socket";
    /// The page a child leaves its error in.
    SharedPage = 10, "map the page shared with children";

    /// Starting pid 1 of a shared pid namespace.
    ReaperClone = 20, "start pid 1 of the shared pid namespace";
    /// Its empty root.
    ReaperRoot = 21, "enter an empty root as pid 1 of the shared pid namespace";
    /// The namespace's /proc.
    ReaperProc = 22, "mount the /proc of the shared pid namespace";
    /// Giving up privileges.
    ReaperPrivileges = 23, "give up the privileges of pid 1 of the shared pid namespace";
    /// It ended, and the pid namespace with it.
    ReaperDied = 24, "reach pid 1 of the shared pid namespace";
    /// The sandbox was made without a shared pid namespace.
    ReaperAbsent = 25, "find a shared pid namespace";

    /// No version both sides know.
    Version = 40, "agree on a version";
    /// Too short or too long.
    Malformed = 41, "read the message";
    /// A kind of request this version does not know.
    Kind = 42, "understand the kind of request";
    /// Flags this version does not know.
    Flags = 43, "understand the request's flags";
    /// Too few, too many, or descriptors where none belong.
    PassedDescriptors = 44, "take the descriptors passed";
    /// [`CAPACITY`](crate::CAPACITY) reached.
    Capacity = 45, "keep one more container";
    /// No container has this id.
    Container = 46, "find the container";
    /// The id is taken, or zeros.
    Id = 47, "use the container's id";
    /// The pid is no child of pause, or is a container already.
    Child = 48, "find the child";
    /// Something still lives or was not released.
    Alive = 49, "end what is in use";
    /// `clone3`.
    Clone = 50, "clone the child";
    /// `pidfd_open`.
    Pidfd = 51, "open a pidfd of the child";
    /// Nothing is kept at this position.
    Held = 52, "find what is held";

    /// Signal mask and limits of the child.
    ChildSignals = 60, "restore the child's signal mask and limits";
    /// Standard descriptors and control socket.
    ChildDescriptors = 61, "put the child's descriptors in place";
    /// `execveat`.
    ChildExec = 62, "execute the child's program";
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
