//! What the agent and container-init say to each other over descriptor 3.
//!
//! ```text
//! agent                                                init
//!   Setup + configuration memfd + descriptors 0..252     ->
//!   Descriptors + the next 253 (while there are more)    ->
//!   <- Environment, when there are hooks of the runtime
//!   Proceed                                              ->
//!   <- Said, for each hook that says something
//!                                 (everything but execve)
//!   <- Console + pty master, when a terminal is asked for
//!   <- Created                                or  Failed
//!   Start                                                ->
//!   <- Said, as above
//!   <- end of file: the program was executed  or  Failed
//! ```
//!
//! The socket is SOCK_SEQPACKET: one message is one packet of JSON. The configuration may be larger than a
//! packet, so it travels in a memfd. Init ends itself when the agent's end of the socket closes before
//! Start, and with [`EXIT_FAILED`] after Failed. It reads one Start only: to send more does nothing.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{Process, Spec};
use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hook::State;

/// Changes with every change of a message; both sides are built together and refuse another's.
pub const VERSION: u32 = 2;

/// The descriptor init finds its end of the socket at.
pub const CONTROL: i32 = 3;

/// What init exits with when it could not become the user's program, as the kubelet shows it.
pub const EXIT_FAILED: i32 = 128;

/// The most descriptors one packet carries: the kernel's `SCM_MAX_FD`.
pub const DESCRIPTORS_PER_PACKET: usize = 253;

/// No packet is longer.
pub const MAX_PACKET: usize = 32 * 1024;

/// No configuration is longer; a pod's manifest is limited far below it.
pub const MAX_CONFIG: u64 = 16 * 1024 * 1024;

/// The most descriptors one container may be given.
pub const MAX_DESCRIPTORS: u32 = 4096;

/// The name of a descriptor that was passed with Setup: its place in the order of passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor(u32);

/// What init is to become. The agent writes it with `oci-spec`'s types; init reads it with its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Config<S = Spec, P = Process> {
    /// The first process of a container.
    Create(Box<CreateConfig<S>>),
    /// One more process in a container that runs.
    Exec(Box<ExecConfig<P>>),
}

/// How a container is made.
///
/// Of the specification these are left to others: `linux.namespaces` to whoever started init (which makes
/// the mount namespace itself), `linux.resources` and `linux.cgroupsPath` to the agent, `hostname` to
/// pause (it is compared, not set), `linux.netDevices` to the agent (they are looked for, not moved), `linux.seccomp` to the compiled program in `seccomp`; of `hooks` those on the
/// host (`prestart`, `createRuntime`, `poststart`, `poststop`) to the agent. Any other field init does not act on is
/// refused by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateConfig<S = Spec> {
    /// The OCI runtime specification.
    pub spec: S,
    /// The root file system as a detached mount (`fsmount` or `open_tree`). Without it `spec.root.path` is
    /// opened in the mount namespace init was started in.
    pub rootfs: Option<Descriptor>,
    /// For each of `spec.mounts`, in its order: a detached mount to be attached. The mount options of the
    /// specification are still applied to it, but those of a file system are refused. Bind mounts must
    /// have one. Shorter
    /// than `spec.mounts` means none for the rest.
    pub mounts: Vec<Option<Descriptor>>,
    /// `cgroup.procs` of cgroups to enter before anything else.
    pub cgroup_procs: Vec<Descriptor>,
    /// Make a cgroup namespace, after the cgroups were entered.
    pub new_cgroup_namespace: bool,
    /// The seccomp program. Must be there if `spec.linux.seccomp` is.
    pub seccomp: Option<Seccomp>,
    /// The pid namespace the container is to run in when init was not started inside it
    /// (`shareProcessNamespace`).
    pub pid_namespace: Option<PidNamespace>,
    /// The state that hooks get. Must be there if `spec.hooks` has any. Where hooks are executed before the root is
    /// entered, `spec.root.path` in its bundle is the directory of the host that the root is mounted on meanwhile.
    pub state: Option<State>,
}

/// A pid namespace made by somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PidNamespace {
    /// A pidfd of a process inside.
    pub member: Descriptor,
    /// A detached mount of its procfs, a copy of which is attached for `spec.mounts` of type `proc`. Before
    /// Linux 6.15 a detached mount cannot be copied, and every container needs one of its own.
    pub proc: Descriptor,
}

/// How a process is added to a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecConfig<P = Process> {
    /// The process.
    pub process: P,
    /// A pidfd of the container's first process.
    pub container: Descriptor,
    /// The namespaces of `container` to join. The others are those init was started in.
    pub namespaces: Vec<Namespace>,
    /// `cgroup.procs` of cgroups to enter before anything else.
    pub cgroup_procs: Vec<Descriptor>,
    /// The seccomp program.
    pub seccomp: Option<Seccomp>,
}

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Namespace {
    /// `CLONE_NEWCGROUP`.
    Cgroup,
    /// `CLONE_NEWIPC`.
    Ipc,
    /// `CLONE_NEWNS`.
    Mount,
    /// `CLONE_NEWNET`.
    Network,
    /// `CLONE_NEWPID`.
    Pid,
    /// `CLONE_NEWUTS`.
    Uts,
}

/// A compiled seccomp filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seccomp {
    /// A file of `struct sock_filter` records: code u16, jt u8, jf u8, k u32, in the machine's byte order.
    pub program: Descriptor,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// The configuration, in the first descriptor of the packet.
    Setup {
        /// [`VERSION`].
        version: u32,
        /// How many descriptors follow the configuration, in this packet and the next.
        descriptors: u32,
    },
    /// More descriptors.
    Descriptors,
    /// The hooks of the runtime were executed.
    Proceed,
    /// Execute the program.
    Start,
}

/// What init says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Report {
    /// Namespaces and mounts are made and the root is not entered: the hooks of the runtime have their turn.
    Environment,
    /// The packet carries the terminal's master.
    Console,
    /// All is prepared.
    Created {
        /// The process that waits for Start, as seen from init's own pid namespace, where that is not the
        /// process that was started: then it was born by `CLONE_PARENT`, and init has ended.
        pid: Option<i32>,
        /// What was asked for and this host did not grant.
        warnings: Vec<String>,
    },
    /// What a hook in the container's namespaces has said, for people: before Created, or after Start.
    Said(String),
    /// A step failed, and init ends.
    Failed(Failure),
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[error("{message}")]
pub struct Failure {
    /// Which step, such as `mount`, `masked path`, `exec`.
    pub step: String,
    /// On which path, if it was about one.
    pub path: Option<String>,
    /// With which error number, if the kernel gave one.
    pub errno: Option<i32>,
    /// All of it, as a sentence for people.
    pub message: String,
}

/// A message that could not be sent, received or understood.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The socket failed. `WOULDBLOCK` on a non-blocking socket means to try again.
    #[error("{0} the control socket: {1}")]
    Socket(&'static str, #[source] Errno),
    /// The configuration could not be written or read.
    #[error("{0} the configuration: {1}")]
    Config(&'static str, #[source] Errno),
    /// The configuration is not what this version reads.
    #[error("the configuration: {0}")]
    Configuration(#[source] serde_json::Error),
    /// A message is not what this version speaks.
    #[error("a malformed message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The other side does not keep to the order or the limits.
    #[error("the other side broke the protocol: {0}")]
    Broken(&'static str),
    /// The other side closed the socket where a message must come.
    #[error("the other side closed the control socket")]
    Closed,
}

/// The agent's Setup, being put together.
#[derive(Debug, Default)]
pub struct Setup<'fd> {
    descriptors: Vec<BorrowedFd<'fd>>,
}

// === impl Descriptor ===

impl Descriptor {
    /// Its place.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

// === impl Setup ===

impl<'fd> Setup<'fd> {
    /// One without descriptors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Passes a descriptor along; the result is its name for the configuration.
    pub fn pass(&mut self, descriptor: BorrowedFd<'fd>) -> Descriptor {
        self.descriptors.push(descriptor);
        Descriptor(self.descriptors.len() as u32 - 1)
    }

    /// Sends configuration and descriptors. Sends few packets, so that a fresh non-blocking socket takes
    /// them all.
    pub fn send(self, control: impl AsFd, config: &Config) -> Result<(), ProtocolError> {
        let memory = seal_config(config)?;
        let mut all = Vec::with_capacity(self.descriptors.len() + 1);
        all.push(memory.as_fd());
        all.extend_from_slice(&self.descriptors);
        let mut request = Request::Setup { version: VERSION, descriptors: self.descriptors.len() as u32 };
        for packet in all.chunks(DESCRIPTORS_PER_PACKET) {
            send(control.as_fd(), &request, packet)?;
            request = Request::Descriptors;
        }
        Ok(())
    }
}

/// Tells init to execute the program.
pub fn send_start(control: impl AsFd) -> Result<(), ProtocolError> {
    send(control.as_fd(), &Request::Start, &[])
}

/// Tells init that the hooks of the runtime were executed.
pub fn send_proceed(control: impl AsFd) -> Result<(), ProtocolError> {
    send(control.as_fd(), &Request::Proceed, &[])
}

/// Receives one report, with the descriptor that [`Report::Console`] carries; `None` at the end of file.
pub fn receive_report(control: impl AsFd) -> Result<Option<(Report, Option<OwnedFd>)>, ProtocolError> {
    let Some((report, mut descriptors)) = receive(control.as_fd())? else { return Ok(None) };
    match (&report, descriptors.len()) {
        (Report::Console, 1)
        | (Report::Environment | Report::Created { .. } | Report::Said(_) | Report::Failed(_), 0) => {
            Ok(Some((report, descriptors.pop())))
        }
        _ => Err(ProtocolError::Broken("a report carries the wrong number of descriptors")),
    }
}

/// Sends one report.
pub fn send_report(
    control: impl AsFd,
    report: &Report,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), ProtocolError> {
    send(control.as_fd(), report, descriptor.as_slice())
}

/// Receives the configuration and the descriptors it names, in order.
pub fn receive_setup<C: DeserializeOwned>(control: impl AsFd) -> Result<(C, Vec<OwnedFd>), ProtocolError> {
    let (request, mut received) = receive(control.as_fd())?.ok_or(ProtocolError::Closed)?;
    let Request::Setup { version, descriptors } = request else {
        return Err(ProtocolError::Broken("the first message is not Setup"));
    };
    if version != VERSION {
        return Err(ProtocolError::Broken("Setup is of another version"));
    }
    if descriptors > MAX_DESCRIPTORS {
        return Err(ProtocolError::Broken("Setup announces too many descriptors"));
    }
    if received.is_empty() {
        return Err(ProtocolError::Broken("Setup carries no configuration"));
    }
    let memory = received.remove(0);
    while received.len() < descriptors as usize {
        let (request, mut more) = receive::<Request>(control.as_fd())?.ok_or(ProtocolError::Closed)?;
        if request != Request::Descriptors || more.is_empty() {
            return Err(ProtocolError::Broken("the announced descriptors did not come"));
        }
        received.append(&mut more);
    }
    if received.len() != descriptors as usize {
        return Err(ProtocolError::Broken("more descriptors came than were announced"));
    }
    Ok((read_config(&memory)?, received))
}

/// Waits for Start. `false` means that the agent went away.
pub fn receive_start(control: impl AsFd) -> Result<bool, ProtocolError> {
    receive_word(control, &Request::Start, "expected Start")
}

/// Waits for Proceed. `false` means that the agent went away.
pub fn receive_proceed(control: impl AsFd) -> Result<bool, ProtocolError> {
    receive_word(control, &Request::Proceed, "expected Proceed")
}

fn receive_word(control: impl AsFd, word: &Request, why: &'static str) -> Result<bool, ProtocolError> {
    match receive::<Request>(control.as_fd())? {
        None => Ok(false),
        Some((request, descriptors)) if request == *word && descriptors.is_empty() => Ok(true),
        Some(_) => Err(ProtocolError::Broken(why)),
    }
}

/// Writes the configuration into a memfd nobody can change any more.
fn seal_config(config: &Config) -> Result<OwnedFd, ProtocolError> {
    let failed = |errno| ProtocolError::Config("writing", errno);
    let bytes = serde_json::to_vec(config)?;
    let memory =
        rustix::fs::memfd_create("coracle-init-config", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(failed)?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(&memory, &bytes[written..], written as u64).map_err(failed)?;
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&memory, seals).map_err(failed)?;
    Ok(memory)
}

fn read_config<C: DeserializeOwned>(memory: &OwnedFd) -> Result<C, ProtocolError> {
    let failed = |errno| ProtocolError::Config("reading", errno);
    let size = rustix::fs::fstat(memory).map_err(failed)?.st_size as u64;
    if size > MAX_CONFIG {
        return Err(ProtocolError::Broken("the configuration is too large"));
    }
    let mut bytes = vec![0; size as usize];
    let mut read = 0;
    while read < bytes.len() {
        match rustix::io::pread(memory, &mut bytes[read..], read as u64).map_err(failed)? {
            0 => return Err(ProtocolError::Broken("the configuration is cut short")),
            count => read += count,
        }
    }
    serde_json::from_slice(&bytes).map_err(ProtocolError::Configuration)
}

fn send(
    control: BorrowedFd<'_>,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ProtocolError> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_PACKET {
        return Err(ProtocolError::Broken("a message is too long"));
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_PER_PACKET))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ProtocolError::Broken("too many descriptors for one packet"));
    }
    loop {
        // NOSIGNAL: the other side's end is an error to report, not a signal to die of.
        match sendmsg(control, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ProtocolError::Socket("sending to", errno)),
        }
    }
}

fn receive<M: DeserializeOwned>(control: BorrowedFd<'_>) -> Result<Option<(M, Vec<OwnedFd>)>, ProtocolError> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_PER_PACKET))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut buffer = [IoSliceMut::new(&mut bytes)];
        match recvmsg(control, &mut buffer, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            // ECONNRESET is what a peer leaves that closed its end without having read everything. It is told
            // once, and before the last that the peer has sent.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(errno) => return Err(ProtocolError::Socket("receiving from", errno)),
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(ProtocolError::Broken("a message was cut off"));
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn sockets() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn exec(container: Descriptor) -> Config {
        Config::Exec(Box::new(ExecConfig {
            process: Process::default(),
            container,
            namespaces: vec![Namespace::Mount, Namespace::Pid],
            cgroup_procs: vec![],
            seccomp: Some(Seccomp { program: Descriptor(1), flags: 2 }),
        }))
    }

    #[test]
    fn a_setup_with_more_descriptors_than_a_packet_holds_arrives_whole_and_in_order() {
        let (agent, init) = sockets();
        let files: Vec<OwnedFd> = (0..600)
            .map(|number| {
                let file = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
                rustix::fs::ftruncate(&file, number).unwrap();
                file
            })
            .collect();
        let mut setup = Setup::new();
        let names: Vec<Descriptor> = files.iter().map(|file| setup.pass(file.as_fd())).collect();
        let sent = exec(names[599]);
        setup.send(&agent, &sent).unwrap();

        let (config, descriptors) = receive_setup::<Config>(&init).unwrap();
        assert_eq!(config, sent);
        let sizes: Vec<i64> =
            descriptors.iter().map(|file| rustix::fs::fstat(file).unwrap().st_size).collect();
        assert_eq!(sizes, (0..600).collect::<Vec<i64>>());
    }

    #[test]
    fn reports_arrive_as_sent() {
        let (agent, init) = sockets();
        let file = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        let created = Report::Created { pid: Some(7), warnings: vec!["one".into()] };
        send_report(&init, &Report::Console, Some(file.as_fd())).unwrap();
        send_report(&init, &created, None).unwrap();
        drop(init);
        let (console, master) = receive_report(&agent).unwrap().unwrap();
        assert_eq!((console, master.is_some()), (Report::Console, true));
        assert_eq!(receive_report(&agent).unwrap().unwrap().0, created);
        assert!(receive_report(&agent).unwrap().is_none());
    }

    #[test]
    fn what_was_sent_last_is_not_lost_with_a_peer_that_had_something_unread() {
        let (agent, init) = sockets();
        let failed = Report::Failed(Failure {
            step: "exec".into(),
            path: None,
            errno: Some(2),
            message: "no such program".into(),
        });
        send_start(&agent).unwrap();
        send_start(&agent).unwrap();
        assert!(receive_start(&init).unwrap());
        send_report(&init, &failed, None).unwrap();
        drop(init);
        assert_eq!(receive_report(&agent).unwrap().unwrap().0, failed);
        assert!(receive_report(&agent).unwrap().is_none());
    }

    #[test]
    fn a_console_without_its_master_is_refused() {
        let (agent, init) = sockets();
        send_report(&init, &Report::Console, None).unwrap();
        assert!(matches!(receive_report(&agent), Err(ProtocolError::Broken(_))));
    }

    #[test]
    fn garbage_and_disorder_are_refused() {
        for packet in [&b"{"[..], b"\0\0", br#""start""#, br#"{"setup":{"version":9,"descriptors":0}}"#] {
            let (agent, init) = sockets();
            rustix::io::write(&agent, packet).unwrap();
            assert!(receive_setup::<Config>(&init).is_err(), "{packet:?}");
        }
        let (agent, init) = sockets();
        drop(agent);
        assert!(matches!(receive_setup::<Config>(&init), Err(ProtocolError::Closed)));
    }

    #[test]
    fn start_and_the_end_of_the_agent_are_told_apart() {
        let (agent, init) = sockets();
        send_start(&agent).unwrap();
        assert!(receive_start(&init).unwrap());
        drop(agent);
        assert!(!receive_start(&init).unwrap());
    }
}
