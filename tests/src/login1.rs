//! logind for a node under test, on a system bus of its own: what `org.freedesktop.login1(5)` says of inhibitor
//! locks and of the machine's shutdown, and of systemd what has logind read its configuration. A machine of
//! namespaces has no systemd; the VM (`make test-vm`) has the real one.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use zbus::blocking::Connection;
use zbus::blocking::connection::Builder;
use zbus::zvariant;

use crate::machine::Machine;
use crate::processes;
use crate::wait::{SOON, wait_for, wait_until};

const NAME: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const INTERFACE: &str = "org.freedesktop.login1.Manager";

/// A bus, and logind on it, for one machine.
pub struct Login1 {
    directory: PathBuf,
    bus: Child,
    connection: Option<Connection>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// logind's `InhibitDelayMaxSec`.
    delay: Duration,
    preparing: bool,
    /// Who holds which lock, and the end of the pipe that tells when it is let go.
    locks: Vec<([String; 4], fs::File)>,
    /// The machine's drop-ins.
    drop_ins: PathBuf,
}

struct Manager(Arc<Mutex<State>>);

struct Systemd(Arc<Mutex<State>>);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    fn inhibit(
        &self,
        what: String,
        who: String,
        why: String,
        mode: String,
    ) -> zbus::fdo::Result<zvariant::OwnedFd> {
        let mut state = self.0.lock().unwrap();
        if state.preparing {
            // As logind does: the lock would not be one.
            let message = "The operation inhibition has been requested for is already running";
            return Err(zbus::fdo::Error::Failed(message.to_owned()));
        }
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        state.locks.push(([what, who, why, mode], ours.into()));
        Ok(theirs.into())
    }

    #[zbus(property)]
    fn preparing_for_shutdown(&self) -> bool {
        self.0.lock().unwrap().preparing
    }

    #[zbus(property, name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> u64 {
        self.0.lock().unwrap().delay.as_micros() as u64
    }
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    fn kill_unit(&self, unit: String, who: String, signal: i32) -> zbus::fdo::Result<()> {
        if (unit.as_str(), who.as_str(), signal) != ("systemd-logind.service", "all", 1) {
            return Err(zbus::fdo::Error::Failed(format!("what is {unit} {who} {signal} to do?")));
        }
        // A while after the call has returned: a signal is not waited for.
        let state = Arc::clone(&self.0);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            let mut state = state.lock().unwrap();
            let mut drop_ins: Vec<_> = fs::read_dir(&state.drop_ins)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
                .collect();
            drop_ins.sort();
            for text in drop_ins.iter().filter_map(|path| fs::read_to_string(path).ok()) {
                let value = text.lines().find_map(|line| line.strip_prefix("InhibitDelayMaxSec="));
                if let Some(seconds) = value.and_then(|text| text.parse().ok()) {
                    state.delay = Duration::from_secs(seconds);
                }
            }
        });
        Ok(())
    }
}

// === impl Login1 ===

impl Login1 {
    /// A bus with logind on it, which delays a shutdown by 5 s at most, and an /etc of the machine's own.
    pub fn start(machine: &Machine) -> Self {
        let mut login1 = Self::bus(machine);
        login1.start_logind();
        login1
    }

    /// A bus without logind.
    pub fn bus(machine: &Machine) -> Self {
        let directory = machine.path("");
        machine.take_etc();
        let state = State {
            delay: Duration::from_secs(5),
            preparing: false,
            locks: Vec::new(),
            drop_ins: machine.path("etc/systemd/logind.conf.d"),
        };
        let bus = start_bus(&directory);
        Self { directory, bus, connection: None, state: Arc::new(Mutex::new(state)) }
    }

    /// What the agent is to be told: where the system's bus is.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![("DBUS_SYSTEM_BUS_ADDRESS".to_owned(), address(&self.directory))]
    }

    /// logind comes to the bus.
    pub fn start_logind(&mut self) {
        let address = address(&self.directory);
        let connection = Builder::address(address.as_str())
            .and_then(|builder| builder.serve_at(PATH, Manager(Arc::clone(&self.state))))
            .and_then(|builder| {
                builder.serve_at("/org/freedesktop/systemd1", Systemd(Arc::clone(&self.state)))
            })
            .and_then(|builder| builder.name("org.freedesktop.systemd1"))
            .and_then(|builder| builder.name(NAME))
            .and_then(Builder::build);
        self.connection = Some(connection.expect("the bus takes everybody"));
    }

    /// logind leaves the bus, and forgets everything but the locks, as it keeps them across its restarts.
    pub fn stop_logind(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().expect("a connection can be closed");
        }
    }

    /// The bus ends, with all connections, and begins anew.
    pub fn restart_bus(&mut self) {
        processes::kill(self.bus.id().cast_signed());
        let _ = self.bus.wait();
        self.connection = None;
        self.bus = start_bus(&self.directory);
        self.start_logind();
    }

    /// Tells everybody that the machine is about to shut down, or is not after all.
    pub fn prepare_for_shutdown(&self, start: bool) {
        self.state.lock().unwrap().preparing = start;
        let connection = self.connection.as_ref().expect("logind is there");
        connection
            .emit_signal(None::<&str>, PATH, INTERFACE, "PrepareForShutdown", &start)
            .expect("a signal");
    }

    /// The locks that are held: what, who, why, mode.
    pub fn locks(&self) -> Vec<[String; 4]> {
        let mut state = self.state.lock().unwrap();
        // At the end of the pipe nobody has the other.
        state.locks.retain_mut(|(_, pipe)| !matches!(pipe.read(&mut [0]), Ok(0)));
        state.locks.iter().map(|(lock, _)| lock.clone()).collect()
    }

    /// Waits until the agent holds one lock.
    #[track_caller]
    pub fn wait_locked(&self) {
        wait_until("the agent to hold one lock", SOON, || self.locks().len() == 1);
    }

    /// Waits until nobody holds the shutdown up any more.
    #[track_caller]
    pub fn wait_unlocked(&self) {
        wait_until("the lock to be let go", SOON, || self.locks().is_empty());
    }

    /// For how long locks delay a shutdown at most.
    pub fn delay(&self) -> Duration {
        self.state.lock().unwrap().delay
    }
}

impl Drop for Login1 {
    fn drop(&mut self) {
        processes::kill(self.bus.id().cast_signed());
        let _ = self.bus.wait();
    }
}

fn address(directory: &Path) -> String {
    format!("unix:path={}", directory.join("bus").display())
}

fn start_bus(directory: &Path) -> Child {
    let socket = directory.join("bus");
    let _ = fs::remove_file(&socket);
    let config = directory.join("bus.conf");
    let text = format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n \
         \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
         <busconfig><type>system</type><listen>{}</listen><auth>EXTERNAL</auth>\n\
         <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/><allow send_type=\"method_call\"/>\n\
         <allow send_type=\"signal\"/><allow send_requested_reply=\"true\"/><allow receive_type=\"method_call\"/>\n\
         <allow receive_type=\"method_return\"/><allow receive_type=\"error\"/><allow receive_type=\"signal\"/>\n\
         </policy></busconfig>\n",
        address(directory)
    );
    fs::write(&config, text).expect("the machine's directory is writable");
    let mut bus = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "dbus-daemon", "--nofork", "--nopidfile", "--config-file"])
        .arg(&config)
        .stdin(Stdio::null())
        .spawn()
        .expect("util-linux's setpriv is installed");
    wait_for("dbus-daemon (of the package dbus-daemon) to listen", SOON, || {
        if let Ok(Some(status)) = bus.try_wait() {
            panic!("dbus-daemon ended: {status}");
        }
        std::os::unix::net::UnixStream::connect(&socket).ok()
    });
    bus
}
