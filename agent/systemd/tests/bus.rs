//! The client against a real bus, on which somebody plays what a healthy systemd shows seldom: hanging, failing,
//! executing itself anew in the middle of a call.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(missing_docs, reason = "zbus makes undocumented methods")]

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coracle_systemd::{Active, Error, JobType, Property, Systemd, UnitName};
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{Connection, DBusError, fdo};

const SOON: Duration = Duration::from_secs(60);
/// Too long for nobody to answer.
const LIMIT: Duration = Duration::from_secs(1);

/// A bus of the test's own.
struct Bus {
    daemon: Child,
    directory: tempfile::TempDir,
}

/// What systemd was told, and how it is to behave.
#[derive(Default)]
struct Told {
    started: Vec<(String, Vec<String>)>,
    /// Names of properties it does not know.
    unknown: Vec<&'static str>,
    active: HashMap<String, &'static str>,
    jobs: u32,
}

#[derive(Clone, Default)]
struct Manager(Arc<Mutex<Told>>);

struct Unit(Manager, String);

struct Job;

#[derive(Debug, DBusError)]
#[zbus(prefix = "org.freedesktop")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    #[zbus(name = "systemd1.UnitExists")]
    UnitExists(String),
    #[zbus(name = "systemd1.NoSuchUnit")]
    NoSuchUnit(String),
    #[zbus(name = "DBus.Error.PropertyReadOnly")]
    PropertyReadOnly(String),
}

type Properties = Vec<(String, OwnedValue)>;

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    #[zbus(property)]
    fn version(&self) -> String {
        "257.9-1".to_owned()
    }

    async fn start_transient_unit(
        &self,
        name: String,
        mode: String,
        properties: Properties,
        _auxiliary: Vec<(String, Properties)>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, Refusal> {
        assert_eq!(mode, "fail");
        let names: Vec<String> = properties.iter().map(|(name, _)| name.clone()).collect();
        let again = {
            let mut told = self.0.lock().unwrap();
            if let Some(unknown) =
                told.unknown.iter().find(|unknown| names.iter().any(|name| name == *unknown))
            {
                let message = format!("Cannot set property {unknown}, or unknown property.");
                return Err(Refusal::PropertyReadOnly(message));
            }
            told.started.push((name.clone(), names));
            told.started.iter().filter(|(started, _)| *started == name).count() > 1
        };
        match name.as_str() {
            "there.scope" => {
                return Err(Refusal::UnitExists("Unit there.scope was already loaded".to_owned()));
            }
            "hangs.scope" => std::future::pending().await,
            // It executes itself anew before it answers, and then once more before it tells of the job's end.
            "reexec.scope" if !again => {
                connection.clone().close().await?;
                std::future::pending().await
            }
            _ => {}
        }
        let job = self.job();
        let reexecutes = name == "reexec.scope";
        let result = if name == "fails.scope" { "failed" } else { "done" };
        let told = self.clone();
        let (connection, emitter) = (connection.clone(), emitter.to_owned());
        let signal = async move {
            let state = if result == "done" { "active" } else { "failed" };
            told.0.lock().unwrap().active.insert(name.clone(), state);
            if reexecutes {
                return connection.close().await;
            }
            let other = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/0").unwrap();
            Self::job_removed(&emitter, 0, other, "other.scope", "canceled").await?;
            Self::job_removed(&emitter, 1, told.path(), &name, result).await
        };
        // The end of a job can be told before the call that queued it is answered.
        if job.as_str().ends_with('1') && result == "done" && !reexecutes {
            signal.await?;
        } else {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = signal.await;
            });
        }
        Ok(job)
    }

    fn stop_unit(&self, name: String, _mode: String) -> Result<OwnedObjectPath, Refusal> {
        Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded.")))
    }

    async fn get_unit(
        &self,
        name: String,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        if !self.0.lock().unwrap().active.contains_key(&name) {
            return Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded.")));
        }
        let path = OwnedObjectPath::try_from("/org/freedesktop/systemd1/unit/one").unwrap();
        connection.object_server().at(&path, Unit(self.clone(), name)).await?;
        Ok(path)
    }

    #[zbus(name = "GetUnitByPID")]
    async fn get_unit_by_pid(
        &self,
        _pid: u32,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.get_unit("own.service".to_owned(), connection).await
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

#[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn id(&self) -> String {
        self.1.clone()
    }

    #[zbus(property)]
    fn active_state(&self) -> String {
        self.0.0.lock().unwrap().active[&self.1].to_owned()
    }

    #[zbus(property)]
    fn job(&self) -> fdo::Result<(u32, OwnedObjectPath)> {
        let (number, path) = if self.1 == "own.service" { (7, "/job/7") } else { (0, "/") };
        Ok((number, OwnedObjectPath::try_from(path).unwrap()))
    }
}

#[zbus::interface(name = "org.freedesktop.systemd1.Job")]
impl Job {
    #[zbus(property)]
    fn job_type(&self) -> String {
        "restart".to_owned()
    }
}

// === impl Manager ===

impl Manager {
    fn job(&self) -> OwnedObjectPath {
        self.0.lock().unwrap().jobs += 1;
        self.path()
    }

    fn path(&self) -> OwnedObjectPath {
        let number = self.0.lock().unwrap().jobs;
        OwnedObjectPath::try_from(format!("/org/freedesktop/systemd1/job/{number}")).unwrap()
    }

    fn started(&self, unit: &str) -> Vec<Vec<String>> {
        let told = self.0.lock().unwrap();
        told.started.iter().filter(|(name, _)| name == unit).map(|(_, names)| names.clone()).collect()
    }

    /// Comes to the bus as systemd.
    async fn serve(&self, bus: &Bus) -> Connection {
        zbus::connection::Builder::address(bus.address().as_str())
            .unwrap()
            .serve_at("/org/freedesktop/systemd1", self.clone())
            .unwrap()
            .serve_at("/job/7", Job)
            .unwrap()
            .name("org.freedesktop.systemd1")
            .unwrap()
            .build()
            .await
            .unwrap()
    }
}

// === impl Bus ===

impl Bus {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let configuration = format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
                "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
            <busconfig>
              <listen>unix:path={}</listen>
              <policy context="default">
                <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
              </policy>
            </busconfig>"#,
            directory.path().join("bus").display()
        );
        std::fs::write(directory.path().join("bus.conf"), configuration).unwrap();
        let daemon = Self::daemon(directory.path());
        Self { daemon, directory }
    }

    fn daemon(directory: &Path) -> Child {
        let socket = directory.join("bus");
        let _ = std::fs::remove_file(&socket);
        let daemon = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg(format!("--config-file={}", directory.join("bus.conf").display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon is installed");
        let end = Instant::now() + SOON;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < end, "the bus does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.directory.path().join("bus").display())
    }

    fn restart(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        self.daemon = Self::daemon(self.directory.path());
    }

    fn client(&self, limit: Duration) -> Systemd {
        Systemd::on(&self.address(), limit)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn unit(name: &str) -> UnitName {
    name.parse().unwrap()
}

#[tokio::test]
async fn the_end_of_a_job_is_not_missed_however_early_it_is_told() {
    let bus = Bus::start();
    let manager = Manager::default();
    let _systemd = manager.serve(&bus).await;
    let client = bus.client(SOON);
    for name in ["first.scope", "second.scope"] {
        client.start_transient(&unit(name), &[Property::Flag("Delegate", true)]).await.unwrap();
        assert_eq!(manager.started(name), [["Delegate"]]);
        let state = client.state(&unit(name)).await.unwrap().unwrap();
        assert_eq!((state.active, state.job), (Active::Active, None));
    }
    assert_eq!(client.version().await.unwrap(), "257.9-1");
}

#[tokio::test]
async fn what_systemd_refuses_and_what_fails_is_told_with_the_unit() {
    let bus = Bus::start();
    let _systemd = Manager::default().serve(&bus).await;
    let client = bus.client(SOON);
    let error = client.start_transient(&unit("fails.scope"), &[]).await.unwrap_err();
    assert!(matches!(&error, Error::Job { result, .. } if result == "failed"), "{error:?}");
    assert!(error.to_string().contains("could not start fails.scope"), "{error}");
    let error = client.start_transient(&unit("there.scope"), &[]).await.unwrap_err();
    assert!(error.is_unit_exists() && error.to_string().contains("there.scope"), "{error}");
    client.stop(&unit("absent.scope")).await.unwrap();
    assert_eq!(client.state(&unit("absent.scope")).await.unwrap(), None);
    assert_eq!(client.own_unit().await.unwrap(), None);
}

#[tokio::test]
async fn a_job_of_this_service_tells_what_is_to_become_of_it() {
    let bus = Bus::start();
    let manager = Manager::default();
    manager.0.lock().unwrap().active.insert("own.service".to_owned(), "active");
    let _systemd = manager.serve(&bus).await;
    let client = bus.client(SOON);
    let own = client.own_unit().await.unwrap().unwrap();
    assert_eq!(own.as_str(), "own.service");
    assert_eq!(client.state(&own).await.unwrap().unwrap().job, Some(JobType::Restart));
}

#[tokio::test]
async fn what_an_older_systemd_does_not_know_is_left_out_or_said_otherwise() {
    let bus = Bus::start();
    let manager = Manager::default();
    manager.0.lock().unwrap().unknown = vec!["OOMPolicy", "PIDFDs"];
    let _systemd = manager.serve(&bus).await;
    let client = bus.client(SOON);
    let process = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let properties = |pid| {
        let policy = Property::Text("OOMPolicy", "continue".to_owned());
        [
            Property::Number("TasksMax", u64::MAX),
            Property::IfKnown(Box::new(policy)),
            Property::Process(process(), pid),
        ]
    };
    for name in ["first.scope", "second.scope"] {
        client.start_transient(&unit(name), &properties(Some(1))).await.unwrap();
        assert_eq!(manager.started(name), [["TasksMax", "PIDs"]]);
    }
    // What cannot be left out is refused, and the number of a process is not guessed.
    let error = client.start_transient(&unit("third.scope"), &properties(None)).await.unwrap_err();
    assert!(error.to_string().contains("PIDFDs"), "{error}");
    manager.0.lock().unwrap().unknown = vec!["TasksMax"];
    let error = client.start_transient(&unit("fourth.scope"), &properties(Some(1))).await.unwrap_err();
    assert!(error.to_string().contains("TasksMax"), "{error}");
}

#[tokio::test]
async fn a_systemd_that_hangs_holds_up_nobody_else_and_not_for_ever() {
    let bus = Bus::start();
    let manager = Manager::default();
    let _systemd = manager.serve(&bus).await;
    // While one waits for an answer, the other has its.
    let client = bus.client(SOON);
    let hanging = {
        let client = client.clone();
        tokio::spawn(async move { client.start_transient(&unit("hangs.scope"), &[]).await })
    };
    let end = Instant::now() + SOON;
    while manager.started("hangs.scope").is_empty() {
        assert!(Instant::now() < end, "systemd is not asked");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client.start_transient(&unit("first.scope"), &[]).await.unwrap();
    assert!(!hanging.is_finished());
    hanging.abort();

    let error = bus.client(LIMIT).start_transient(&unit("hangs.scope"), &[]).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && error.to_string().contains("hangs.scope"), "{error}");
}

#[tokio::test]
async fn a_systemd_that_executes_itself_anew_is_waited_for_and_asked_again() {
    let bus = Bus::start();
    let manager = Manager::default();
    let client = bus.client(SOON);
    // On each of its comings it serves one call.
    let coming = {
        let manager = manager.clone();
        async move {
            loop {
                let systemd = manager.serve(&bus).await;
                systemd.closed().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let unit = unit("reexec.scope");
    tokio::select! {
        () = coming => {}
        started = client.start_transient(&unit, &[]) => started.unwrap(),
    }
    assert_eq!(manager.started("reexec.scope").len(), 2);
}

#[tokio::test]
async fn a_connection_that_broke_is_made_anew() {
    let mut bus = Bus::start();
    let manager = Manager::default();
    let systemd = manager.serve(&bus).await;
    let client = bus.client(SOON);
    client.start_transient(&unit("first.scope"), &[]).await.unwrap();
    drop(systemd);
    bus.restart();
    let _systemd = manager.serve(&bus).await;
    client.start_transient(&unit("second.scope"), &[]).await.unwrap();
}

#[tokio::test]
async fn a_host_without_systemd_or_without_a_bus_is_told_from_one_that_hangs() {
    let bus = Bus::start();
    let error = bus.client(LIMIT).version().await.unwrap_err();
    assert!(error.is_absent() && error.to_string().contains("is it PID 1"), "{error}");
    let error = Systemd::on("unix:path=/nonexistent/bus", LIMIT).version().await.unwrap_err();
    assert!(error.is_absent() && error.to_string().contains("no way to the system's D-Bus"), "{error}");
}
