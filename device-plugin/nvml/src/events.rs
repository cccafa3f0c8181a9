//! What happens to GPUs: errors that the driver counts as critical (XIDs).

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError as Cause;
use nvml_wrapper::{EventSet, Nvml as Library};

use crate::{Nvml, NvmlError, ask};

/// What a driver that knows no number for an error says.
const UNKNOWN: u64 = 999;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A GPU had an error.
    Xid {
        /// Which GPU.
        uuid: String,
        /// Which error; 999 where the driver has no number for it.
        xid: u64,
    },
    /// A GPU fell off its bus, and NVML does not say which.
    Lost,
    /// A GPU whose errors NVML does not tell.
    Unwatched {
        /// Which.
        uuid: String,
    },
}

/// Tells what happens to GPUs until `go_on` says no; it is asked after each event, and each time nothing happened for
/// `patience`. Blocks.
///
/// # Errors
/// When NVML cannot wait for anything.
pub fn watch(
    nvml: &Nvml,
    patience: std::time::Duration,
    mut go_on: impl FnMut() -> bool,
    mut tell: impl FnMut(Event),
) -> Result<(), NvmlError> {
    let set = register(&nvml.library, &mut tell)?;
    let patience = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    while go_on() {
        match set.wait(patience) {
            Ok(data) => {
                let xid = match data.event_data {
                    Some(XidError::Value(xid)) => xid,
                    Some(XidError::Unknown) => UNKNOWN,
                    None => continue,
                };
                match data.device.uuid() {
                    Ok(uuid) => tell(Event::Xid { uuid, xid }),
                    Err(_) => tell(Event::Lost),
                }
            }
            Err(Cause::Timeout) => {}
            Err(Cause::GpuLost) => {
                tell(Event::Lost);
                return Ok(());
            }
            Err(error) => return Err(ask("the next event")(error)),
        }
    }
    Ok(())
}

/// A set of events of every GPU that tells its errors. One that does not is told.
fn register<'nvml>(
    library: &'nvml Library,
    tell: &mut impl FnMut(Event),
) -> Result<EventSet<'nvml>, NvmlError> {
    let count = library.device_count().map_err(ask("the number of GPUs"))?;
    let mut watched = Vec::new();
    for index in 0..count {
        // One that is lost already is not on the list of GPUs either.
        let Ok(device) = library.device_by_index(index) else { continue };
        let uuid = device.uuid().map_err(ask(format!("the UUID of GPU {index}")))?;
        let supported = device.supported_event_types().unwrap_or(EventTypes::empty());
        if supported.contains(EventTypes::CRITICAL_XID_ERROR) {
            watched.push((uuid, device));
        } else {
            tell(Event::Unwatched { uuid });
        }
    }
    // A set is gone with the first GPU that it refuses: it is made again without that one.
    loop {
        let mut set = Some(library.create_event_set().map_err(ask("a set of events"))?);
        let mut refused = None;
        for (position, (_, device)) in watched.iter().enumerate() {
            let Some(current) = set.take() else { break };
            match device.register_events(EventTypes::CRITICAL_XID_ERROR, current) {
                Ok(registered) => set = Some(registered),
                Err(_) => refused = Some(position),
            }
        }
        match (set, refused) {
            (Some(set), None) => return Ok(set),
            (_, Some(position)) => tell(Event::Unwatched { uuid: watched.remove(position).0 }),
            (None, None) => {}
        }
    }
}
