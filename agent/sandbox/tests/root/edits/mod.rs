//! What devices bring into a container, against the real kernel.

mod devices;
mod hooks;
mod mounts;
mod net_devices;

use coracle_sandbox::ContainerStage;

use crate::takeover::place::{Kind, Owned};

/// By which ways containers are born, and on which hosts.
const KINDS: [Kind; 3] = [Kind::Plain, Kind::SharedPid, Kind::Legacy];

/// A place for a script; `None` where the host cannot be of that kind.
fn place(kind: Kind, script: &str) -> Option<Owned> {
    Owned::with_args(kind, &["/bin/sh", "-c", script])
}

/// Runs the container to its end, and removes the pod. What it has said.
async fn said(owned: &Owned) -> Vec<String> {
    let place = &owned.place;
    let mut agent = place.agent().await;
    let ended = agent.run(place).await;
    let log = place.log();
    let ContainerStage::Exited { exit_code, .. } = ended else { unreachable!() };
    assert_eq!(exit_code, 0, "{log:#?}");
    agent.remove(place).await;
    log.iter().map(|line| line.split_once(" F ").unwrap().1.to_owned()).collect()
}
