//! Hooks in the container's namespaces, and the turn of those on the host.

use std::os::fd::OwnedFd;

use coracle_init::hook::{Hook, State, Status, run_all};
use coracle_init::protocol::{Report, receive_proceed, send_report};
use rustix::fs::Mode;
use rustix::process::umask;

use crate::failure::{Result, Step};
use crate::plan::HookPlan;

/// What hooks find as they find it on a host.
const UMASK: u32 = 0o022;

/// Lets the agent execute the hooks of the runtime, then executes those that see the host's files and the container's
/// namespaces. The root is mounted where the bundle has it, with all that is in it.
pub(crate) fn before_root(plan: &HookPlan, control: &OwnedFd) -> Result<()> {
    if plan.of_runtime() {
        send_report(control, &Report::Environment, None)
            .map_err(|error| Step::Control.refuse(None, error))?;
        match receive_proceed(control) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Step::Control.refuse(None, "the agent went away before its hooks were executed"));
            }
            Err(error) => return Err(Step::Control.refuse(None, error)),
        }
    }
    let before = umask(Mode::from_raw_mode(UMASK));
    let done = execute("createContainer", &plan.hooks.create_container, plan, Status::Creating, control);
    umask(before);
    done
}

/// Executes the container's own hooks, as its user.
pub(crate) fn before_program(plan: &HookPlan, control: &OwnedFd) -> Result<()> {
    execute("startContainer", &plan.hooks.start_container, plan, Status::Created, control)
}

fn execute(
    point: &'static str,
    hooks: &[Hook],
    plan: &HookPlan,
    status: Status,
    control: &OwnedFd,
) -> Result<()> {
    let state = State { status, pid: Some(std::process::id()), ..plan.state.clone() };
    // Nothing depends on whether somebody hears it.
    let said = |words| drop(send_report(control, &Report::Said(words), None));
    run_all(point, hooks, &state, said).map_err(|error| Step::Hook.refuse(None, error))
}
