//! How children end: remember, write down, reap, tell.

use coracle_pause_wire::{Code, Entry, Exit, LedgerRecord, NO_ID, launch};

use crate::children::Child;
use crate::sandbox::Sandbox;
use crate::sys::{
    self, ECHILD, EINTR,
    process::{self, Ended, Then, Whom},
};

/// Takes every child that ended, and reports each. Returns whether no child is left at all.
///
/// The order is what makes an exit impossible to lose: the child is still a zombie when the ledger is
/// written, so whoever is killed in between, it is found again.
pub(crate) fn collect(sandbox: &mut Sandbox, mut report: impl FnMut(&Entry)) -> bool {
    loop {
        let ended = match process::ended(Whom::Any, Then::Leave) {
            Ok(Some(ended)) => ended,
            Err(EINTR) => continue,
            Ok(None) => return false,
            Err(errno) => return errno == ECHILD,
        };
        let entry = remember(sandbox, ended);
        let reaped = process::ended(Whom::Pid(ended.pid), Then::Reap);
        report(&entry);
        // It cannot fail; if it did, the same zombie would be found without end.
        if !matches!(reaped, Ok(Some(_))) {
            return false;
        }
    }
}

fn remember(sandbox: &mut Sandbox, ended: Ended) -> Entry {
    let code = u8::try_from(ended.code).ok().and_then(Code::from_wire).unwrap_or(Code::Exited);
    let mut exit = Exit { code, status: ended.status, time_ns: sys::wall_clock_ns(), failed: None };
    let unknown = Entry { exit: Some(exit), ..Entry::of_child(ended.pid) };
    if let Some(reaper) = sandbox.reaper.as_mut().filter(|reaper| reaper.pid() == ended.pid) {
        reaper.ended();
        return Entry { reaper: true, ..unknown };
    }
    let Some((position, child)) = sandbox.children.living(ended.pid) else { return unknown };
    exit.failed = sandbox.shared.left(position);
    child.exit = Some(exit);
    if child.id == NO_ID {
        let entry = child.entry();
        sandbox.children.forget(position);
        return Entry { unrecorded: false, ..entry };
    }
    record(child, exit);
    let entry = child.entry();
    // A ledger that had no room may have some now.
    record_the_unrecorded(sandbox);
    entry
}

/// Tries again what the ledger could not take.
pub(crate) fn record_the_unrecorded(sandbox: &mut Sandbox) {
    for (_, child) in sandbox.children.positions() {
        if let (Some(exit), false) = (child.exit, child.recorded) {
            record(child, exit);
        }
    }
}

/// A write that fails is tried again later; until then List alone knows of this exit.
fn record(child: &mut Child, exit: Exit) {
    let record = LedgerRecord { id: child.id, pid: child.pid, exit }.encode();
    child.recorded = sys::write(launch::LEDGER, &record) == Ok(record.len());
}
