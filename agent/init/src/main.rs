//! `coracle-init`: turns itself into a container's process. `coracle_init::protocol` says how it is told.

mod capability;
mod cgroup;
mod create;
mod descriptors;
mod devices;
mod execute;
mod failure;
mod hooks;
mod join;
mod limits;
mod masks;
mod mounts;
mod options;
mod passwd;
mod plan;
mod process;
mod procfs;
mod root;
mod seccomp;
mod spec;
mod streams;
mod terminal;

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use coracle_init::protocol::{
    CONTROL, Config, EXIT_FAILED, MAX_PACKET, ProtocolError, Report, receive_setup, send_report,
};
use coracle_linux::{reset_signals, take_inherited};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::set_name;

use crate::descriptors::Descriptors;
use crate::failure::{Context, Result, Step};
use crate::spec::{Process, Spec};

fn main() {
    let Ok(control) = take_inherited(CONTROL) else {
        eprintln!("coracle-init is started by coracle's agent, with a socket as descriptor 3");
        std::process::exit(EXIT_FAILED);
    };
    match run(&control) {
        Ok(never) => match never {},
        Err(mut failure) => {
            // A name in it can be as long as an argument. Unsent, a failure would look like success.
            shorten(&mut failure.message);
            failure.path.as_mut().map(shorten);
            // Nobody is left to be told when this fails.
            let _ = send_report(&control, &Report::Failed(failure), None);
            std::process::exit(EXIT_FAILED);
        }
    }
}

/// Cuts a text so that two of them fit into a packet, however many of their bytes JSON has to escape.
fn shorten(text: &mut String) {
    if text.len() > MAX_PACKET / 16 {
        text.truncate(text.floor_char_boundary(MAX_PACKET / 16));
        text.push('…');
    }
}

/// Returns only with what failed.
fn run(control: &OwnedFd) -> Result<Infallible> {
    // Nobody may look into this process before it is the user's program: it has seen the host.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Control, "forbidding to be traced")?;
    // Executed from a memfd it is named after a descriptor; this is for whoever looks at a host's processes.
    set_name(c"coracle-init").at(Step::Control, "taking a name")?;
    reset_signals().at(Step::Control, "resetting signals")?;
    let (config, received): (Config<Spec, Process>, _) =
        receive_setup(control).map_err(|error| match error {
            ProtocolError::Configuration(error) => Step::Specification.refuse(None, error),
            error => Step::Control.refuse(None, error),
        })?;
    let descriptors = Descriptors::new(received);
    match config {
        Config::Create(config) => create::create(control, *config, descriptors),
        Config::Exec(config) => join::join(control, *config, descriptors),
    }
}
