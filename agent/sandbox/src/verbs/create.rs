//! Preparing a container up to the execution of its program.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use coracle_cgroup::{Attachment, Cgroup, DevicePolicy, limits};
use coracle_init::hook::{Hooks, State, limit_of};
use coracle_init::protocol::{Config, CreateConfig, PidNamespace, Seccomp, Setup};
use coracle_model::{ContainerId, Name};
use jiff::Timestamp;
use oci_spec::runtime::Spec;
use tokio::sync::OwnedRwLockReadGuard;

use super::pids::{pids_of, shares_pids};
use super::remove::remove_tree;
use super::stop::end_processes;
use crate::blocking::blocking;
use crate::control::Control;
use crate::edits::{self, Prepared};
use crate::environment;
use crate::error::{Error, file, system};
use crate::hooks;
use crate::host;
use crate::init_end::explained;
use crate::logs::{ContainerEnds, LogFile, OutputPipes, Pump, PumpError};
use crate::net_devices;
use crate::pause::{PauseClient, Spawn};
use crate::pod::{ContainerState, PodState, Sandbox, cursor_path};
use crate::record::{self, ContainerRecord};
use crate::request::ContainerRequest;
use crate::runtime::{Inner, Runtime, log_dir_of, pod_log_dir};
use crate::shm;
use crate::spec::{self, Built, MountSource};
use crate::termination::MessageSource;
use crate::tty;

/// How long what was prepared of a container that is given up has to be gone after SIGKILL. Shorter than
/// for one that ran: the sandbox cannot be removed meanwhile.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(5);

impl Runtime {
    /// Prepares a container up to, but not including, the execution of its program.
    ///
    /// Dropping the future gives the container up: init is killed, and the rest removed, in the background.
    ///
    /// # Errors
    /// On the first step that fails, container-init's own among them; nothing is left of the container.
    pub async fn create_container(&self, request: ContainerRequest) -> Result<ContainerId, Error> {
        let uid = request.pod.uid.clone();
        let state = self.inner.pod(&uid).ok_or_else(|| Error::NoSandbox(uid.clone()))?;
        let verb = Arc::new(Arc::clone(&state.verbs).read_owned().await);
        let sandbox = state.sandbox()?;
        let attempt = Attempt {
            id: request.id,
            cgroup: sandbox.cgroup.container(&request.id),
            client: Arc::clone(&sandbox.client),
            dir: state.container_dir(request.id),
            verb: Some(verb),
            done: false,
        };
        self.inner.create(&state, &sandbox, request, attempt).await
    }
}

impl Inner {
    async fn create(
        self: &Arc<Self>,
        state: &Arc<PodState>,
        sandbox: &Sandbox,
        mut request: ContainerRequest,
        mut attempt: Attempt,
    ) -> Result<ContainerId, Error> {
        let pod = Arc::clone(&request.pod);
        let mut edits = std::mem::take(&mut request.edits);
        edits::give_nodes(&mut edits.device_nodes, &request.user);
        edits::merge_env(&mut request.env, &edits.env);
        edits::merge_gids(&mut request.user.additional_gids, &edits.additional_gids);
        let (edits, given) = blocking(move || edits::prepare(&edits).map(|given| (edits, given))).await?;
        request.edits = edits;
        let built = spec::build(&request, &given, &self.facts)?;
        if !built.granted.refused.is_empty() {
            tracing::warn!(pod = %pod.key, container = %request.container.name, capabilities = ?built.granted.refused,
                "this host cannot grant all capabilities the container asks for");
        }
        let seccomp_default = self.settings().seccomp_default;
        let seccomp = self.seccomp.of(&pod, &request.container, &built.granted, seccomp_default)?;
        let attachment = attempt.prepare_cgroup(&request, &given).await?;
        self.take_net_devices(state, sandbox, &request, &attempt).await?;
        let hooks = given.hooks.clone();
        let hook_state = match hooks == Hooks::default() {
            true => None,
            false => {
                Some(attempt.prepare_hooks(&request.container.name, built.spec.clone(), hooks.clone()).await?)
            }
        };
        let shm = shm::open(&state.dir, pod.spec.host.ipc)?;
        let message = MessageSource::new(&pod, &request.container, &request.state_dir);
        let message_mount = message.make()?;

        let tty = request.container.tty;
        let (pipes, ends) = OutputPipes::new().map_err(system("make pipes for the container's output"))?;
        let null = open_null()?;
        let stdin = if request.container.stdin && !tty { Some(stdin_pipe()?) } else { None };
        let (control, init_end) = Control::pair()?;

        let shares_pids = shares_pids(&pod, &request.container.name);
        let shared = match pod.target_of(&request.container.name) {
            Some(target) => Some(pids_of(state, target).await?),
            None if pod.spec.share_process_namespace => Some(sandbox.client.shared_pid().await?),
            None => None,
        };
        let environment =
            environment::keep(&request.env).map_err(system("keep the container's environment"))?;
        let held = held(&pipes, &environment, stdin.as_ref());
        // A container born by CLONE_PARENT is known to pause only once it is registered, with what is
        // held for it; the process that is spawned is none.
        let spawned_as = if shared.is_some() { None } else { Some(request.id) };
        let since = state.data().execs.reported();
        let child = sandbox
            .client
            .spawn(&Spawn {
                container: spawned_as,
                new_pid: !shares_pids,
                // Init makes one itself, after it has left its cgroup.
                new_mount: false,
                program: self.programs.init(),
                stdio: stdio(tty, stdin.as_ref(), &ends, &null),
                control: init_end.as_fd(),
                cgroup: attachment.into.as_ref().map(AsFd::as_fd),
                held: if spawned_as.is_some() { &held } else { &[] },
            })
            .await?;
        drop(init_end);
        let pid = child.pid.as_raw_nonzero().get().unsigned_abs();

        let mut setup = Setup::new();
        let procs: Vec<_> = attachment.procs.iter().map(AsFd::as_fd).collect();
        let Built { spec, sources, .. } = built;
        let config = CreateConfig {
            spec,
            rootfs: Some(setup.pass(request.rootfs.as_fd())),
            mounts: sources
                .iter()
                .map(|source| match source {
                    MountSource::Own => None,
                    MountSource::Shm => Some(setup.pass(shm.as_fd())),
                    MountSource::Message => Some(setup.pass(message_mount.as_fd())),
                    MountSource::Volume(at) => request.mounts.get(*at).map(|m| setup.pass(m.mount.as_fd())),
                    MountSource::Edit(at) => {
                        let mount = given.mounts.get(*at).and_then(|edit| edit.mount.as_ref());
                        mount.map(|mount| setup.pass(mount.as_fd()))
                    }
                })
                .collect(),
            cgroup_procs: procs.iter().map(|procs| setup.pass(*procs)).collect(),
            new_cgroup_namespace: true,
            seccomp: seccomp
                .as_ref()
                .map(|filter| Seccomp { program: setup.pass(filter.program()), flags: filter.flags() }),
            pid_namespace: shared.as_ref().map(|shared| PidNamespace {
                member: setup.pass(shared.pidfd.as_fd()),
                proc: setup.pass(shared.proc.as_fd()),
            }),
            state: hook_state.clone(),
        };
        let prepared = async {
            control.send_setup(setup, &Config::Create(Box::new(config)))?;
            if let Some(state) = hook_state.clone().filter(|_| !hooks.create_runtime.is_empty()) {
                control.environment().await?;
                let (hooks, verb, name) =
                    (hooks.clone(), attempt.verb.clone(), request.container.name.clone());
                let state = State { pid: Some(pid), ..state };
                blocking(move || {
                    let _verb = verb;
                    hooks::of_runtime(&hooks, &state, &name)
                })
                .await?;
                control.proceed()?;
            }
            control.prepared(limit_of(&hooks.create_container)).await
        };
        let prepared = explained(prepared.await, state, pid, since, &attempt.cgroup).await?;
        for warning in &prepared.warnings {
            tracing::warn!(pod = %pod.key, container = %request.container.name, "{warning}");
        }
        for said in control.said() {
            hooks::tell(request.container.name.as_str(), &request.id.to_string(), &said);
        }

        let first = match prepared.pid {
            None => child,
            Some(pid) => sandbox.client.register(request.id, pid, &held).await?,
        };
        if hook_state.is_some() {
            hooks::note_pid(&attempt.dir, first.pid.as_raw_nonzero().get().unsigned_abs())?;
        }
        let ContainerEnds { stdout, stderr } = ends;
        drop(stderr);
        // From here on init outlives the agent. Until there is a record it is given up all the same.
        let mut waiting = vec![control.as_fd()];
        waiting.extend(prepared.console.as_ref().map(AsFd::as_fd));
        sandbox.client.hold(request.id, &waiting).await?;
        if let Some(master) = prepared.console {
            tty::forward(master, stdout)?;
        }
        let record = self.record(state, &request, message);
        record::write(&attempt.dir.join(record::CONTAINER), &record)?;
        let container = Arc::new(ContainerState::new(
            attempt.dir.clone(),
            attempt.cgroup.clone(),
            Some(first.pidfd),
            Some(environment),
            shares_pids,
            record,
            Some(control),
        ));
        // Of a container that does not run yet, a log that cannot be written is a reason to wait.
        let (pump, recovered) = self.pump(&container, pipes);
        recovered?;
        follow(&container, pump);
        self.link_log(&pod, &container);
        state.data().containers.push(container);
        attempt.done = true;
        Ok(request.id)
    }

    /// Moves the interfaces a device brings into the pod's network. They go back with the sandbox.
    async fn take_net_devices(
        &self,
        state: &PodState,
        sandbox: &Sandbox,
        request: &ContainerRequest,
        attempt: &Attempt,
    ) -> Result<(), Error> {
        let devices = request.edits.net_devices.clone();
        let Some(first) = devices.first() else { return Ok(()) };
        if request.pod.spec.host.network {
            let why = "cannot be given to a pod in the host's network";
            return Err(edits::refuse("network interface", &first.host_name, why));
        }
        let pause = sandbox.client.pidfd().try_clone_to_owned();
        let pause = pause.map_err(system("duplicate the pidfd of pause"))?;
        let (dir, verb) = (state.dir.clone(), attempt.verb.clone());
        let interfaces = Arc::clone(&state.interfaces);
        blocking(move || {
            let (_verb, _turn) = (verb, interfaces.lock().unwrap_or_else(PoisonError::into_inner));
            net_devices::take(&dir, &net_devices::namespace_of(pause.as_fd())?, &devices)
        })
        .await
    }

    fn record(
        &self,
        state: &PodState,
        request: &ContainerRequest,
        message: MessageSource,
    ) -> ContainerRecord {
        let dir = pod_log_dir(&self.config.log_dir, &request.pod).join(request.container.name.as_str());
        ContainerRecord {
            id: request.id,
            name: request.container.name.as_str().to_owned(),
            attempt: request.attempt,
            sandbox_attempt: state.data().attempt,
            image_id: request.image_id.clone(),
            volume_images: request.volume_images.clone(),
            created_at: Timestamp::now(),
            started_at: None,
            exit: None,
            log: dir.join(format!("{}.log", request.attempt)),
            tty: request.container.tty,
            stop_signal: request.stop_signal,
            user: request.user.clone(),
            cwd: request.cwd.clone(),
            message,
        }
    }

    /// What is to follow the container's output, and whether its log can be written.
    pub(super) fn pump(
        &self,
        container: &ContainerState,
        pipes: OutputPipes,
    ) -> (Pump, Result<(), PumpError>) {
        let path = container.data().record.log.clone();
        let (cursor, taps) = (cursor_path(&container.dir), Arc::clone(&container.taps));
        let log_dir = log_dir_of(&path).to_owned();
        Pump::recover(pipes, cursor, LogFile::new(&log_dir, path, self.log_limits.clone()), taps)
    }

    /// Makes the link by which log shippers find the log, unless it is there. A failure costs only the link.
    pub(super) fn link_log(&self, pod: &coracle_model::Pod, container: &ContainerState) {
        let (name, log) = {
            let data = container.data();
            (data.record.name.clone(), data.record.log.clone())
        };
        let link = self.log_link(&pod.key, &name, container.id);
        let made = fs::create_dir_all(&self.config.log_links_dir)
            .and_then(|()| std::os::unix::fs::symlink(&log, &link));
        if let Err(error) = made
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!(link = %link.display(), %error, "cannot make the link to the container's log");
        }
    }

    /// `<pod>_<namespace>_<container>-<id>.log`, as the kubelet names it.
    fn log_link(&self, key: &coracle_model::PodKey, container: &str, id: ContainerId) -> std::path::PathBuf {
        self.config.log_links_dir.join(format!("{}_{}_{container}-{id}.log", key.name, key.namespace))
    }
}

/// Follows the container's output.
pub(super) fn follow(container: &ContainerState, pump: Pump) {
    let id = container.id;
    let task = tokio::spawn(async move {
        if let Err(error) = pump.run().await {
            tracing::error!(container = %id, %error, "container output is no longer followed");
        }
    });
    container.data().pump = Some(task);
}

/// A creation under way. Dropped before it is done, it removes what was made.
struct Attempt {
    id: ContainerId,
    cgroup: Cgroup,
    client: Arc<PauseClient>,
    dir: std::path::PathBuf,
    /// Shared with work that cannot be cancelled, so that the sandbox is not removed beneath it.
    verb: Option<Arc<OwnedRwLockReadGuard<()>>>,
    done: bool,
}

impl Attempt {
    async fn prepare_cgroup(
        &self,
        request: &ContainerRequest,
        edits: &Prepared,
    ) -> Result<Attachment, Error> {
        let limits = limits::container_limits(&request.container);
        let devices = match request.container.security.privileged {
            true => DevicePolicy::All,
            false => DevicePolicy::default_with(edits.rules.iter().copied()),
        };
        let (cgroup, dir, verb) = (self.cgroup.clone(), self.dir.clone(), self.verb.clone());
        blocking(move || {
            let _verb = verb;
            host::private_dir(&dir)?;
            cgroup.ensure(&limits, &devices)?;
            Ok(cgroup.attachment()?)
        })
        .await
    }
}

impl Attempt {
    async fn prepare_hooks(&self, name: &Name, spec: Spec, hooks: Hooks) -> Result<State, Error> {
        let (dir, id, verb, name) = (self.dir.clone(), self.id, self.verb.clone(), name.clone());
        blocking(move || {
            let _verb = verb;
            hooks::begin(&dir, id, &name, &spec, &hooks)
        })
        .await
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // An init that has not come as far as its cgroup ends by itself: its control socket is closed by now or
        // will be at once, and pause does not hold it yet.
        let (id, cgroup, dir, verb) = (self.id, self.cgroup.clone(), self.dir.clone(), self.verb.take());
        let client = Arc::clone(&self.client);
        tokio::spawn(async move {
            let cleared = blocking(move || {
                end_processes(&cgroup, GIVE_UP_LIMIT, format!("container {id}"))?;
                cgroup.remove()?;
                hooks::poststop(&dir)?;
                remove_tree(dir)
            })
            .await;
            if let Err(error) = cleared {
                tracing::warn!(container = %id, %error, "a container that was given up is not wholly removed yet");
            }
            // Not known to pause, or still ending: removing the sandbox sees to it.
            let _ = client.release(id).await;
            drop(verb);
        });
    }
}

/// The descriptors pause keeps from the start: output and journal, the environment, then the agent's end of
/// standard input. Once the container is prepared, the agent's end of the control socket and a terminal's
/// master follow.
fn held<'a>(
    pipes: &'a OutputPipes,
    environment: &'a OwnedFd,
    stdin: Option<&'a (OwnedFd, OwnedFd)>,
) -> Vec<BorrowedFd<'a>> {
    let mut held = pipes.held().to_vec();
    held.push(environment.as_fd());
    held.extend(stdin.map(|(_, write)| write.as_fd()));
    held
}

/// What becomes 0, 1 and 2. With a terminal init replaces them.
fn stdio<'a>(
    tty: bool,
    stdin: Option<&'a (OwnedFd, OwnedFd)>,
    ends: &'a ContainerEnds,
    null: &'a OwnedFd,
) -> [BorrowedFd<'a>; 3] {
    if tty {
        return [null.as_fd(); 3];
    }
    let stdin = stdin.map_or(null.as_fd(), |(read, _)| read.as_fd());
    [stdin, ends.stdout.as_fd(), ends.stderr.as_fd()]
}

fn stdin_pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(system("make a pipe for standard input"))
}

pub(super) fn open_null() -> Result<OwnedFd, Error> {
    let null = fs::File::options().read(true).write(true).open("/dev/null");
    Ok(null.map_err(file("open", "/dev/null"))?.into())
}
