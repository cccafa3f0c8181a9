//! The device manager: which plugins there are, what devices they have, which container was given which.

mod allocate;
mod answer;
mod changes;
mod checkpoint;
mod choose;
mod claims;
mod endpoint;
mod error;
mod inventory;
mod manager;
mod numa;
mod options;
mod podresources;
mod registration;
mod registry;
mod sockets;
mod state;
mod store;
mod topology;

pub use answer::Answer;
pub use changes::Changes;
pub use checkpoint::{Checkpoint, Damaged};
pub use error::{AllocateError, OpenError, PrepareError, ReleaseError};
pub use inventory::Amount;
pub use manager::DeviceManager;
pub use numa::NumaNodes;
pub use options::{Deadlines, Options, TopologyPolicy, TopologyScope};
pub use podresources::ActivePods;
